//! Holds the decoder of manifest against whatever libFuzzer finds.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| rhash_decoders::manifest(bytes));
