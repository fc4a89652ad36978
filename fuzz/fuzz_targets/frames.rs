//! See `codec::fuzzing::frames`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| codec::fuzzing::frames(data));
