#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tenantgate_fuzz::targets::check_request(data));
