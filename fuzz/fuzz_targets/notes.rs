//! Holds the decoder of notes against whatever libFuzzer finds.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| rhash_decoders::notes(bytes));
