//! Holds the decoder of records of the log against whatever libFuzzer finds.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| rhash_decoders::log(bytes));
