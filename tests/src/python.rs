//! Foreign clients in Python: finds an interpreter that has them. Knows nothing of what the scripts do.

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use crate::root;

/// A Python that can import these modules: `WPS_TEST_PYTHON`, else the environment that `tests/run` made, else the
/// system's. Says why there is none.
pub fn python_with(modules: &[&str]) -> Result<PathBuf, String> {
    let candidates = match std::env::var_os("WPS_TEST_PYTHON") {
        Some(path) => vec![PathBuf::from(path)],
        None => vec![root().join("target/python/bin/python"), PathBuf::from("python3")],
    };
    let imports = format!("import {}", modules.join(", "));
    candidates
        .iter()
        .find(|python| {
            Command::new(python).args(["-c", &imports]).output().is_ok_and(|output| output.status.success())
        })
        .cloned()
        .ok_or_else(|| {
            format!(
                "no Python with {} (tests/run installs one; WPS_TEST_PYTHON names another)",
                modules.join(", ")
            )
        })
}

/// A Python with OWSLib.
pub fn owslib() -> Result<PathBuf, String> {
    static FOUND: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    FOUND.get_or_init(|| python_with(&["owslib.wps"])).clone()
}
