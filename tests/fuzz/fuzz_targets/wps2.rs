//! Fuzz target `wps2`; see [`wps_fuzz::wps2`].

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| wps_fuzz::wps2(data));
