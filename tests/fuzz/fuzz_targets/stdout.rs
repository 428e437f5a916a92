//! Fuzz target `stdout`; see [`wps_fuzz::stdout`].

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| wps_fuzz::stdout(data));
