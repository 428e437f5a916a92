//! Who did what: one line for each login that failed and each deed that changes something, and each change of users, tokens and
//! accounts on the command line, in the log under the target
//! `audit` and, if wanted, as JSON lines in a file of its own.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde_json::{Map, Value, json};

use super::rules::Caller;

/// Writes down deeds.
#[derive(Debug, Default)]
pub struct Audit {
    file: Option<(PathBuf, Mutex<File>)>,
}

impl Audit {
    /// Into the log only, or also into a file, to which it is appended.
    pub fn open(path: Option<&Path>) -> io::Result<Self> {
        let open = |path: &Path| OpenOptions::new().append(true).create(true).mode(0o600).open(path);
        let file = path.map(|path| open(path).map(|file| (path.to_owned(), Mutex::new(file)))).transpose()?;
        Ok(Self { file })
    }

    /// Somebody did something to something.
    pub fn did(&self, caller: &Caller, from: Option<IpAddr>, what: &'static str, subject: &str) {
        let (user, proof) = (caller.user.0.as_str(), caller.proof.name());
        let from = from.map(|ip| ip.to_string()).unwrap_or_default();
        tracing::info!(target: "audit", user, proof, from, subject, "{what}");
        self.write(json!({"user": user, "proof": proof, "from": from, "did": what, "subject": subject}));
    }

    /// Somebody was turned away.
    pub fn refused(&self, from: Option<IpAddr>, user: &str, why: &str) {
        let from = from.map(|ip| ip.to_string()).unwrap_or_default();
        tracing::warn!(target: "audit", user, from, why, "refused");
        self.write(json!({"user": user, "from": from, "did": "refused", "why": why}));
    }

    /// Somebody on this host changed who may do what, by the command line: into the file only.
    pub fn administered(&self, user: &str, what: &'static str, subject: &str) {
        self.write(json!({"user": user, "proof": "host", "from": "", "did": what, "subject": subject}));
    }

    fn write(&self, entry: Value) {
        let Some((path, file)) = &self.file else { return };
        let mut line =
            Map::from_iter([("time".to_owned(), Value::String(jiff::Timestamp::now().to_string()))]);
        if let Value::Object(entry) = entry {
            line.extend(entry);
        }
        let mut text = Value::Object(line).to_string();
        text.push('\n');
        // One write for one line: lines of several threads do not mix.
        let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = file.write_all(text.as_bytes()) {
            tracing::error!(file = %path.display(), %error, "the audit file cannot be written");
        }
    }
}
