//! Fuzz target `legacy_body`; see [`wps_fuzz::legacy_body`].

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| wps_fuzz::legacy_body(data));
