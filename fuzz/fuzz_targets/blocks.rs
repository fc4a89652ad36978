//! See `codec::fuzzing::blocks`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| codec::fuzzing::blocks(data));
