//! Fuzz target `template`; see [`wps_fuzz::template`].

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| wps_fuzz::template(data));
