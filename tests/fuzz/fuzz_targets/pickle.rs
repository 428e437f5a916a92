//! Fuzz target `pickle`; see [`wps_fuzz::pickle`].

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| wps_fuzz::pickle(data));
