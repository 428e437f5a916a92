//! What is said about an output besides its value: the text of the file that `publish_metadata` names.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tracing::warn;

/// Longest text in bytes.
const MAX_METADATA: u64 = 256 * 1024;

/// The file, and where it may lie.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metadata {
    /// The file; absolute.
    pub file: PathBuf,
    /// Folders of which it must be below one, links resolved.
    pub roots: Vec<PathBuf>,
}

impl Metadata {
    /// The text, if it is there, may be read and fits into what is left of the message. It is a hint for publishing: a job
    /// does not fail for want of it.
    pub(super) fn read(&self, output: &str, budget: &mut usize) -> Option<String> {
        let text = match self.text() {
            Ok(text) => text?,
            Err(why) => {
                warn!(output, file = %self.file.display(), "metadata is left out: {why}");
                return None;
            }
        };
        let cost = serde_json::to_string(&text).map_or(usize::MAX, |json| json.len());
        if cost > *budget {
            warn!(output, file = %self.file.display(), "metadata is left out: it does not fit into the message");
            return None;
        }
        *budget -= cost;
        Some(text)
    }

    fn text(&self) -> Result<Option<String>, String> {
        let Ok(path) = self.file.canonicalize() else { return Ok(None) };
        let inside = |root: &PathBuf| root.canonicalize().is_ok_and(|root| path.starts_with(root));
        if !self.roots.iter().any(inside) {
            return Err(format!("it lies outside of the allowed folders, at {}", path.display()));
        }
        read(&path).map_err(|error| error.to_string())
    }
}

/// legacy: what is no file is the same as no file.
fn read(path: &Path) -> std::io::Result<Option<String>> {
    if !fs::metadata(path)?.is_file() {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_METADATA + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_METADATA {
        return Err(std::io::Error::other(format!("it has more than {MAX_METADATA} bytes")));
    }
    Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
}
