//! Fuzz target `descriptor`; see [`wps_fuzz::descriptor`].

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| wps_fuzz::descriptor(data));
