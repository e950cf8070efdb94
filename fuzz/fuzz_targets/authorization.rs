#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tenantgate_fuzz::targets::authorization(data));
