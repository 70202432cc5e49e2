#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| avocet_serving::fuzzing::values(bytes));
