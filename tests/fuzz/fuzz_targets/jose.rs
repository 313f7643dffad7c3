#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| warifu_tests::fuzz::jose(bytes));
