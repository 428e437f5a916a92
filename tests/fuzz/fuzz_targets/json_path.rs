//! Fuzz target `json_path`; see [`wps_fuzz::json_path`].

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| wps_fuzz::json_path(data));
