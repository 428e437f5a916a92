//! Fuzz target `rule`; see [`wps_fuzz::rule`].

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| wps_fuzz::rule(data));
