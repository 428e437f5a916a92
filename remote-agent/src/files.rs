//! Files and folders where the systems differ: who may read them, locks, replacing a file that somebody has open, syncing.
//! On Unix rights are mode bits; on Windows a new file has those of its folder, which the administrator sets once.

#[cfg(unix)]
use std::fs::TryLockError;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

/// What Windows says when somebody has a file open and does not share it.
#[cfg(windows)]
const SHARING_VIOLATION: i32 = 32;

/// How a file is to be created: with these mode bits (less the umask) on Unix.
pub fn options(mode: u32) -> OpenOptions {
    let options = OpenOptions::new();
    #[cfg(unix)]
    let options = {
        let mut options = options;
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, mode);
        options
    };
    let _ = mode;
    options
}

/// How a folder is to be created: with these mode bits (less the umask) on Unix.
pub fn folder(mode: u32) -> DirBuilder {
    let builder = DirBuilder::new();
    #[cfg(unix)]
    let builder = {
        let mut builder = builder;
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, mode);
        builder
    };
    let _ = mode;
    builder
}

/// Gives a file or folder exactly these mode bits. Windows has none.
#[cfg(unix)]
pub fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

/// Gives a file or folder exactly these mode bits. Windows has none.
#[cfg(not(unix))]
pub fn set_mode(_path: &Path, _mode: u32) -> io::Result<()> {
    Ok(())
}

/// Adds mode bits to those of a file. Windows has none.
#[cfg(unix)]
pub fn add_mode(path: &Path, bits: u32) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    set_mode(path, fs::metadata(path)?.permissions().mode() | bits)
}

/// Adds mode bits to those of a file. Windows has none.
#[cfg(not(unix))]
pub fn add_mode(_path: &Path, _bits: u32) -> io::Result<()> {
    Ok(())
}

/// Whether this process may make files in a folder.
#[cfg(unix)]
pub fn takes_files(folder: &Path) -> io::Result<()> {
    use rustix::fs::{Access, access};
    Ok(access(folder, Access::WRITE_OK | Access::EXEC_OK)?)
}

/// Whether this process may make files in a folder: who may do what here is best told by doing it.
#[cfg(not(unix))]
pub fn takes_files(folder: &Path) -> io::Result<()> {
    tempfile::tempfile_in(folder).map(drop)
}

/// Makes a user and a group the owners of a file or folder, not of what a link leads to. Windows has no such numbers.
#[cfg(unix)]
pub fn give(path: &Path, uid: u32, gid: u32) -> io::Result<()> {
    std::os::unix::fs::lchown(path, Some(uid), Some(gid))
}

/// Makes a user and a group the owners of a file or folder, not of what a link leads to. Windows has no such numbers.
#[cfg(not(unix))]
pub fn give(_path: &Path, _uid: u32, _gid: u32) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Opens a file, created if missing, that nobody else may hold at the same time; `None` if somebody does. It is free again
/// when it is dropped, and however its owner ends. Others can read what is written into it.
#[cfg(unix)]
pub fn hold(path: &Path) -> io::Result<Option<File>> {
    let file = options(0o600).write(true).create(true).truncate(false).open(path)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Opens a file, created if missing, that nobody else may hold at the same time; `None` if somebody does. It is free again
/// when it is dropped, and however its owner ends. Others can read what is written into it: that is why it is held by the
/// refusal to share it for writing, and not by a lock, which would keep readers out.
#[cfg(windows)]
pub fn hold(path: &Path) -> io::Result<Option<File>> {
    use std::os::windows::fs::OpenOptionsExt;
    const FILE_SHARE_READ: u32 = 1;
    match options(0o600).write(true).create(true).truncate(false).share_mode(FILE_SHARE_READ).open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.raw_os_error() == Some(SHARING_VIOLATION) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether somebody holds a file, see [`hold`]. For the moment of the question, others find it held by us.
#[cfg(unix)]
pub fn is_held(path: &Path) -> bool {
    File::open(path).is_ok_and(|file| file.try_lock_shared().is_err())
}

/// Whether somebody holds a file, see [`hold`]. For the moment of the question, others find it held by us.
#[cfg(windows)]
pub fn is_held(path: &Path) -> bool {
    let asked = OpenOptions::new().write(true).open(path);
    asked.is_err_and(|error| error.raw_os_error() == Some(SHARING_VIOLATION))
}

/// Puts `from` in the place of `to`, in one step for every reader.
#[cfg(unix)]
pub fn replace(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)
}

/// Puts `from` in the place of `to`, in one step for every reader. Windows refuses while somebody has either file open
/// without sharing it: a scanner or an indexer, for a moment. So it is tried again for a while.
#[cfg(windows)]
pub fn replace(from: &Path, to: &Path) -> io::Result<()> {
    const ACCESS_DENIED: i32 = 5;
    let mut pause = std::time::Duration::from_millis(5);
    loop {
        match fs::rename(from, to) {
            Err(error)
                if matches!(error.raw_os_error(), Some(ACCESS_DENIED | SHARING_VIOLATION))
                    && pause.as_millis() < 1000 =>
            {
                std::thread::sleep(pause);
                pause *= 2;
            }
            result => return result,
        }
    }
}

/// Brings a file's content to the disk.
pub fn sync(path: &Path) -> io::Result<()> {
    // Windows only syncs what may be written.
    OpenOptions::new().read(true).write(cfg!(windows)).open(path)?.sync_all()
}

/// Brings the names in a folder to the disk. Windows does so by itself and has no call for it.
pub fn sync_folder(path: &Path) -> io::Result<()> {
    if cfg!(windows) { Ok(()) } else { File::open(path)?.sync_all() }
}

/// The path with all links resolved. On Windows without the prefix `\\?\` where it is not needed: many programs cannot
/// use such a path.
pub fn canonical(path: &Path) -> io::Result<PathBuf> {
    #[cfg(windows)]
    return dunce::canonicalize(path);
    #[cfg(not(windows))]
    path.canonicalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_held_file_is_for_one_and_readable_by_all() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        assert!(!is_held(&path));
        let mut first = hold(&path).unwrap().unwrap();
        io::Write::write_all(&mut first, b"42\n").unwrap();
        assert!(is_held(&path));
        assert!(hold(&path).unwrap().is_none());
        assert_eq!(fs::read_to_string(&path).unwrap(), "42\n");
        drop(first);
        assert!(!is_held(&path));
        assert!(hold(&path).unwrap().is_some());
    }

    #[test]
    fn a_file_takes_the_place_of_one_that_is_being_read() {
        let dir = tempfile::tempdir().unwrap();
        let (old, new) = (dir.path().join("record"), dir.path().join("record.tmp"));
        fs::write(&old, "old").unwrap();
        fs::write(&new, "new").unwrap();
        let reader = File::open(&old).unwrap();
        let later = std::thread::spawn(move || {
            std::thread::sleep(std::time::Duration::from_millis(60));
            drop(reader);
        });
        replace(&new, &old).unwrap();
        later.join().unwrap();
        assert_eq!(fs::read_to_string(&old).unwrap(), "new");
        sync(&old).unwrap();
        sync_folder(dir.path()).unwrap();
    }
}
