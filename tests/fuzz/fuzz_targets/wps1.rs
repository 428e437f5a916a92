//! Fuzz target `wps1`; see [`wps_fuzz::wps1`].

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| wps_fuzz::wps1(data));
