//! Fuzz target `interpolation`; see [`wps_fuzz::interpolation`].

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| wps_fuzz::interpolation(data));
