#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| ociregistry_fuzz::targets::link::run(input));
