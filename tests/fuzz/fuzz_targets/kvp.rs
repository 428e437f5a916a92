//! Fuzz target `kvp`; see [`wps_fuzz::kvp`].

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| wps_fuzz::kvp(data));
