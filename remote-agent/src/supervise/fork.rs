//! One safe `fork`. Knows nothing of what the two sides do.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;

use nix::unistd::ForkResult;
use rustix::process::Pid;

/// On which side of a fork the caller is.
pub(super) enum Side {
    /// In the process that was there before; the new one has this id.
    Parent(Pid),
    /// In the new process.
    Child,
}

/// Splits this process in two.
///
/// # Errors
/// What the system says; and always if this process has more than one thread.
pub(super) fn fork() -> io::Result<Side> {
    // The number of links of this folder is two more than that of threads, see proc(5). One call instead of a listing.
    if fs::metadata("/proc/self/task")?.nlink() != 3 {
        return Err(io::Error::other("only a process with a single thread can be forked"));
    }
    #[expect(unsafe_code, reason = "there is no other way to start a process without loading a program anew")]
    // SAFETY: what makes fork unsafe are the other threads: in the child they are gone, and locks that they held stay locked
    // for ever. This process has no other threads, as was just seen, and nobody but this thread could start one since.
    let forked = unsafe { nix::unistd::fork() };
    match forked? {
        ForkResult::Child => Ok(Side::Child),
        ForkResult::Parent { child } => Pid::from_raw(child.as_raw())
            .map(Side::Parent)
            .ok_or_else(|| io::Error::other("the system gave an impossible process id")),
    }
}
