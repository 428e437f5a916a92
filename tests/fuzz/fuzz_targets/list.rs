//! Fuzz target `list`; see [`wps_fuzz::list`].

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| wps_fuzz::list(data));
