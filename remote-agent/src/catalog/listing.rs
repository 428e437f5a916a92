//! Which files of a folder may be descriptors, and when one last changed. Looks at names and stamps, not at content.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Deepest folder that is looked into.
const MAX_DEPTH: usize = 8;
/// Most files and folders that are looked at in one round.
const MAX_ENTRIES: usize = 50_000;

/// Enough of a file's metadata to see that it changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    pub bytes: u64,
    pub modified: Option<SystemTime>,
    pub inode: u64,
}

impl Stamp {
    /// The stamp of a file; `None` = it is not there, or not a file.
    pub fn of(path: &Path) -> Option<Self> {
        let meta = fs::metadata(path).ok().filter(fs::Metadata::is_file)?;
        Some(Self { bytes: meta.len(), modified: meta.modified().ok(), inode: inode(&meta) })
    }
}

#[cfg(unix)]
fn inode(meta: &fs::Metadata) -> u64 {
    use std::os::unix::fs::MetadataExt;
    meta.ino()
}

#[cfg(not(unix))]
fn inode(_meta: &fs::Metadata) -> u64 {
    0
}

/// All files below the folders among `roots` that may be descriptors, without the folders of `exclude`, and the files
/// among `roots`. A folder that cannot be read comes back as the error.
pub(super) fn list(
    roots: &[PathBuf],
    exclude: &[PathBuf],
) -> Result<BTreeMap<PathBuf, Stamp>, (PathBuf, std::io::Error)> {
    let mut found = BTreeMap::new();
    let mut left = MAX_ENTRIES;
    for root in roots {
        if let Some(stamp) = Stamp::of(root) {
            found.insert(root.clone(), stamp);
        } else if root.is_dir() || root.extension().is_none() {
            walk(root, exclude, 0, &mut left, &mut found).map_err(|error| (root.clone(), error))?;
        }
    }
    Ok(found)
}

fn walk(
    folder: &Path,
    exclude: &[PathBuf],
    depth: usize,
    left: &mut usize,
    found: &mut BTreeMap<PathBuf, Stamp>,
) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        if *left == 0 {
            break;
        }
        *left -= 1;
        let Ok(entry) = entry else { continue };
        let path = entry.path();
        let Ok(kind) = entry.file_type() else { continue };
        let hidden = entry.file_name().to_string_lossy().starts_with('.');
        // Links to folders are not followed: they could lead in circles.
        if kind.is_dir() {
            if !hidden && depth < MAX_DEPTH && !exclude.contains(&path) {
                // A subfolder that cannot be read is none of ours.
                let _ = walk(&path, exclude, depth + 1, left, found);
            }
        } else if may_be_descriptor(&path)
            && let Some(stamp) = Stamp::of(&path)
        {
            found.insert(path, stamp);
        }
    }
    Ok(())
}

/// Whether a name can be that of a descriptor: the right extension, no editor's temporary file, not the agent's own.
pub(super) fn may_be_descriptor(path: &Path) -> bool {
    let Some(name) = path.file_name().and_then(|name| name.to_str()) else { return false };
    let lower = name.to_ascii_lowercase();
    let extension = [".config", ".ini", ".properties"].iter().any(|ending| lower.ends_with(ending));
    let temporary = name.starts_with(['.', '#', '~']) || lower.contains(".tmp.") || lower.contains(".swp.");
    let other = ["remote.config", "logger.properties", "desktop.ini"].contains(&lower.as_str());
    extension && !temporary && !other
}
