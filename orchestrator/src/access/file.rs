//! A small file of secrets that several programs read and one changes now and then: read again when it has changed,
//! written as a whole, readable by its owner only.

use std::fs::OpenOptions;
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

/// Largest file that is read, in bytes.
const MAX_BYTES: u64 = 16 << 20;

/// What tells one content from the next.
type Stamp = (Option<SystemTime>, u64, u64);

/// A file and what was made of its newest content.
#[derive(Debug)]
pub(super) struct Watched<T> {
    path: PathBuf,
    parse: fn(&str) -> Result<T, String>,
    held: Mutex<Option<(Stamp, Arc<T>)>>,
}

impl<T: Default> Watched<T> {
    pub(super) fn new(path: PathBuf, parse: fn(&str) -> Result<T, String>) -> Self {
        Self { path, parse, held: Mutex::new(None) }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The content of this moment; a file that is not there is an empty one. What can no longer be read stays as it was
    /// last: a slip of an editor must not lock everybody out.
    pub(super) fn get(&self) -> Result<Arc<T>, String> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let stamp = match std::fs::metadata(&self.path) {
            Ok(metadata) => (metadata.modified().ok(), metadata.len(), metadata.ino()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => (None, 0, 0),
            Err(error) => return self.fallback(&held, error.to_string()),
        };
        if let Some((known, value)) = &*held
            && *known == stamp
        {
            return Ok(value.clone());
        }
        match read(&self.path).map_err(|error| error.to_string()).and_then(|text| (self.parse)(&text)) {
            Ok(value) => {
                let value = Arc::new(value);
                *held = Some((stamp, value.clone()));
                Ok(value)
            }
            Err(why) => self.fallback(&held, why),
        }
    }

    fn fallback(&self, held: &Option<(Stamp, Arc<T>)>, why: String) -> Result<Arc<T>, String> {
        let why = format!("{}: {why}", self.path.display());
        match held {
            Some((_, value)) => {
                tracing::warn!("{why}; what it said before stays in force");
                Ok(value.clone())
            }
            None => Err(why),
        }
    }
}

/// The text of a file; one that is not there is empty.
pub(super) fn read(path: &Path) -> io::Result<String> {
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(String::new()),
        Err(error) => return Err(error),
    };
    let mut text = String::new();
    file.take(MAX_BYTES + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_BYTES {
        return Err(io::Error::other(format!("is larger than {MAX_BYTES} bytes")));
    }
    Ok(text)
}

/// Puts a text in the place of the file's content: readers see the old or the new one, never half of it.
pub(super) fn replace(path: &Path, text: &str) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    let mut new = path.as_os_str().to_owned();
    new.push(format!(".{}.new", std::process::id()));
    let new = PathBuf::from(new);
    let written = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&new)
        .and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()))
        .and_then(|()| std::fs::rename(&new, path));
    if written.is_err() {
        // The error of the first failure is the one to tell.
        let _ = std::fs::remove_file(&new);
    }
    written
}

/// Makes a change that no other program makes at the same time.
pub(super) fn locked<T>(path: &Path, change: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    let mut lock = path.as_os_str().to_owned();
    lock.push(".lock");
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(lock)?;
    file.lock()?;
    change()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_file_is_read_again_and_a_broken_one_changes_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("numbers");
        let watched = Watched::new(path.clone(), |text| match text.trim() {
            "" => Ok(0),
            text => text.parse::<u32>().map_err(|error| error.to_string()),
        });
        assert_eq!(*watched.get().expect("no file is an empty file"), 0);
        replace(&path, "7").expect("written");
        assert_eq!(*watched.get().expect("readable"), 7);
        replace(&path, "seven").expect("written");
        assert_eq!(*watched.get().expect("the last good one"), 7);
        replace(&path, "8").expect("written");
        assert_eq!(*watched.get().expect("readable"), 8);
        let mode = std::fs::metadata(&path).expect("there").mode() & 0o777;
        assert_eq!(mode, 0o600);
        let fresh = Watched::new(path.clone(), |_| Err::<u32, _>("never".to_owned()));
        assert!(fresh.get().expect_err("nothing to fall back on").contains("numbers: never"));
    }
}
