//! Fuzz target `ini`; see [`wps_fuzz::ini`].

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| wps_fuzz::ini(data));
