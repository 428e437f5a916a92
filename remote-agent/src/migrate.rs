//! Writes descriptors anew: a file of dialect B in the form of dialect A, an old file of dialect A without what it was warned
//! of. The result is read again and compared: it is given only if it means the same. Reads and writes texts; opens no file.

mod from_b;
mod same;
#[cfg(test)]
mod tests;
mod tidy;
mod write;

use std::path::Path;

use thiserror::Error;
use wps_remote_protocol::ini::{Finding, IniError};

use crate::descriptor::load::{load_descriptor, read_document};
use crate::descriptor::{Dialect, LoadContext, ServiceDescriptor};

/// A descriptor that was written anew.
#[derive(Debug, Clone)]
pub struct Migrated {
    /// The new file, in UTF-8 with LF; its comments say what has changed.
    pub text: String,
    /// What the old file was warned of and the new one is not.
    pub settled: Vec<Finding>,
    /// What is still to be said: it is about this host or a GeoServer, or only the author can decide it.
    pub left: Vec<Finding>,
}

/// Why a descriptor was not written anew.
#[derive(Debug, Error)]
pub enum MigrateError {
    /// The old file cannot be used.
    #[error(transparent)]
    Unusable(#[from] IniError),
    /// Dialect A cannot say this.
    #[error("{file} cannot be written in dialect A: {what}")]
    Inexpressible {
        /// The file.
        file: String,
        /// What cannot be said.
        what: String,
    },
}

/// Writes a descriptor in a clean form of dialect A.
pub fn to_a(file: &Path, bytes: &[u8], context: &LoadContext) -> Result<Migrated, MigrateError> {
    let old = load_descriptor(file, bytes, context)?;
    let (dialect, doc) = read_document(file, bytes, context)?;
    let body = match dialect {
        Dialect::A => tidy::body(&doc, &old),
        Dialect::B => from_b::body(&doc, &old),
    };
    let context = LoadContext { latin1: false, ..context.clone() };
    let inexpressible = |what: String| MigrateError::Inexpressible { file: file.display().to_string(), what };
    let new = load_descriptor(file, body.as_bytes(), &context).map_err(|error| {
        inexpressible(error.findings.first().map(ToString::to_string).unwrap_or_default())
    })?;
    if let Some(difference) = same::difference(&old, &new) {
        return Err(inexpressible(difference));
    }
    let settled: Vec<Finding> = old.warnings.iter().filter(|old| !is_left(old, &new)).cloned().collect();
    let text = format!("{}{body}", heading(file, dialect, &settled, &new.warnings));
    Ok(Migrated { text, settled, left: new.warnings })
}

/// Whether the new file is warned of the same thing.
fn is_left(old: &Finding, new: &ServiceDescriptor) -> bool {
    new.warnings.iter().any(|new| new.code == old.code && new.why == old.why)
}

fn heading(file: &Path, dialect: Dialect, settled: &[Finding], left: &[Finding]) -> String {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let mut lines = vec![match dialect {
        Dialect::A => format!("{name}, tidied up: it means the same as before."),
        Dialect::B => format!("{name}, from dialect B in the form of dialect A: it means the same."),
    }];
    if !settled.is_empty() {
        lines.push("Settled (lines are those of the old file):".to_owned());
        // What was to be done about it is done.
        let line = |finding: &Finding| {
            format!("  {} ({})", Finding { remedy: None, ..finding.clone() }, finding.code)
        };
        lines.extend(settled.iter().map(line));
    }
    if !left.is_empty() {
        lines.push("Left to you, since it is about this host, a GeoServer, or what was meant:".to_owned());
        let line =
            |finding: &Finding| format!("  {} ({})", Finding { line: 0, ..finding.clone() }, finding.code);
        lines.extend(left.iter().map(line));
    }
    let mut text = String::new();
    for line in lines {
        text.push_str("# ");
        text.push_str(&line.replace(['\n', '\r'], " "));
        text.push('\n');
    }
    text.push('\n');
    text
}
