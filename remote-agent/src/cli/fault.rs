//! Why a command of the terminal gives no answer of its own: a wrong call, a configuration that cannot be used. Told as a text
//! on standard error, or as one JSON object on standard output, whatever the caller has asked for.

use std::ffi::OsString;
use std::process::ExitCode;

use serde_json::json;
use wps_remote_protocol::ini::{Finding, IniError};

use super::{CANNOT_START, FAILED, Format, WRONG_CALL, complain, say};
use crate::explain;

/// A command that could not do what it was asked.
#[derive(Debug)]
pub(super) struct Fault {
    code: &'static str,
    why: String,
    findings: Vec<Finding>,
    exit: u8,
}

impl Fault {
    /// The call itself is wrong: a file that is not there, inputs that are no JSON.
    pub fn call(why: impl Into<String>) -> Self {
        Self { code: "WrongCall", why: why.into(), findings: Vec::new(), exit: WRONG_CALL }
    }

    /// The agent's configuration cannot be used.
    pub fn configuration(error: &IniError) -> Self {
        Self {
            code: "BadConfiguration",
            why: error.to_string(),
            findings: error.findings.clone(),
            exit: CANNOT_START,
        }
    }

    /// This host does not allow it.
    pub fn host(why: impl Into<String>) -> Self {
        Self { code: "CannotStart", why: why.into(), findings: Vec::new(), exit: CANNOT_START }
    }

    /// There is nothing to do it with.
    pub fn nothing(why: impl Into<String>) -> Self {
        Self { code: "NothingFound", why: why.into(), findings: Vec::new(), exit: FAILED }
    }

    /// Tells it.
    pub fn tell(&self, format: Format) -> ExitCode {
        if format == Format::Text {
            return complain(&self.why, self.exit);
        }
        let findings: Vec<_> = self.findings.iter().map(explain::finding_json).collect();
        say(&json!({
            "error": { "code": self.code, "locator": null, "why": self.why, "findings": findings }
        })
        .to_string());
        ExitCode::from(self.exit)
    }
}

/// Whether the arguments ask for JSON, also when they are wrong otherwise.
pub(super) fn wants_json(args: &[OsString]) -> bool {
    args.windows(2).any(|pair| pair[0] == "--format" && pair[1] == "json")
        || args.iter().any(|arg| arg == "--format=json")
}
