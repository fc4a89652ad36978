//! See `tunnel::fuzzing::sequences`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tunnel::fuzzing::sequences(data));
