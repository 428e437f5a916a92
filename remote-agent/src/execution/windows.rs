//! What takes the place of processes and signals of Unix here: a supervisor is asked by a file, and what it has started ends
//! with it, because nobody else holds the job object open.

mod supervisor;
pub mod user;

use std::fs::File;
use std::io;
use std::os::windows::fs::OpenOptionsExt;
use std::path::Path;

use wps_remote_protocol::KillReceipt;

pub(super) use self::supervisor::Supervisor;
use super::Host;

/// Takes the place of the fork server, which there is not here: every supervisor is started as a program of its own.
#[derive(Debug, Default)]
pub struct Forks {}

impl Forks {
    /// Nothing is kept.
    pub fn keep(&self, _host: &Host) {}
}

/// Ends what is left of a job whose supervisor is gone: nothing, since the system has done that when the last handle of its
/// job object was closed.
pub(super) fn end_orphans(_work_dir: &Path, _at_ms: i64) -> Option<KillReceipt> {
    None
}

/// Opens a file to read; not what a link in its place leads to.
pub(super) fn open_itself(path: &Path) -> io::Result<File> {
    const FILE_FLAG_OPEN_REPARSE_POINT: u32 = 0x0020_0000;
    let file = File::options().read(true).custom_flags(FILE_FLAG_OPEN_REPARSE_POINT).open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::ErrorKind::InvalidInput.into()) }
}

/// There are no signals here; a record of one is from another system.
pub(super) fn signal_name(_number: i32) -> &'static str {
    "a signal"
}

/// What an exit code means that the system itself has set.
pub(super) fn exit_note(code: i32) -> Option<&'static str> {
    Some(match code as u32 {
        0xC000_0005 => "access violation: the program crashed",
        0xC000_0017 | 0xC000_012D => "out of memory",
        0xC000_001D | 0xC000_0096 => "illegal instruction: the program crashed",
        0xC000_0044 | 1816 => "its limit of CPU time or memory is reached",
        0xC000_0094 => "division by zero: the program crashed",
        0xC000_00FD => "stack overflow: the program crashed",
        0xC000_0135 => "a DLL that it needs was not found",
        0xC000_0139 => "a DLL that it needs is of another version",
        0xC000_013A => "ended by Ctrl-C, or its console was closed",
        0xC000_0142 => "a DLL could not be initialised; is the desktop heap of services exhausted?",
        0xC000_0374 => "heap corruption: the program crashed",
        0xC000_0409 => "it aborted, or its stack was overrun",
        0xE043_4352 => "an unhandled .NET exception",
        0xE06D_7363 => "an unhandled C++ exception",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_of_the_system_are_explained() {
        assert!(exit_note(-1_073_741_819).is_some_and(|note| note.contains("access violation")));
        assert!(exit_note(-1_073_741_510).is_some_and(|note| note.contains("Ctrl-C")));
        assert_eq!(exit_note(1), None);
        assert_eq!(exit_note(0), None);
    }
}
