//! The files that actions will write, as if they were already on disk: so several actions can fill one file in turn, and
//! nothing is written before everything is known to be right.

use std::path::{Path, PathBuf};

use super::values::read_bounded;
use super::{FileContent, PlannedFile};

/// Largest template that an action may read, in bytes.
const MAX_TEMPLATE: u64 = 16 * 1024 * 1024;

/// Files to be written, in the order of their first mention.
#[derive(Debug, Default)]
pub(super) struct Documents {
    files: Vec<PlannedFile>,
}

impl Documents {
    /// Plans a file, or plans other content for it.
    pub fn put(&mut self, path: PathBuf, content: FileContent) {
        match self.files.iter_mut().find(|file| file.path == path) {
            Some(file) => file.content = content,
            None => self.files.push(PlannedFile { path, content }),
        }
    }

    /// What an update of `target` starts from: what is planned for it, else the file itself if it exists, else `source`.
    pub fn text(&self, target: &Path, source: &Path) -> Result<String, String> {
        let planned = self.files.iter().find(|file| file.path == target).map(|file| &file.content);
        let (bytes, from) = match planned {
            Some(FileContent::Bytes(bytes)) => (bytes.clone(), target),
            Some(FileContent::CopyOf(other)) => (read_bounded(other, MAX_TEMPLATE)?, other.as_path()),
            None if target.is_file() => (read_bounded(target, MAX_TEMPLATE)?, target),
            None => (read_bounded(source, MAX_TEMPLATE)?, source),
        };
        String::from_utf8(bytes).map_err(|_| format!("{} is not UTF-8", from.display()))
    }

    /// All files.
    pub fn into_files(self) -> Vec<PlannedFile> {
        self.files
    }
}
