//! The fork server: a process with one thread that is ready to be a supervisor and, for each job, splits off a copy of
//! itself that becomes one. That costs a fraction of starting the program anew, and the copies share their memory. It talks
//! to its agent over a socket, one packet a message, and ends when the agent does; its supervisors do not.
//!
//! ```text
//!  agent ── control folder of a job ──► server ── fork ──► supervisor
//!        ◄─ process id, pidfd ─────────
//! ```

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, recv, send, sendmsg};
use rustix::process::{Pid, PidfdFlags, WaitOptions, pidfd_open, setsid, wait};

use super::fork::{Side, fork};

/// Longest name of a folder that is understood, in bytes.
pub(crate) const MAX_NAME: usize = 16 * 1024;

/// How often ended supervisors are looked for where the system cannot tell.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Serves on standard input until the agent is gone: then `None`. Also returns in every new supervisor, with the job's control
/// folder.
pub(super) fn serve() -> io::Result<Option<PathBuf>> {
    let socket = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?;
    // No supervisor and no program may hold the agent's socket as its input.
    rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
    let mut children: Vec<(Pid, Option<OwnedFd>)> = Vec::new();
    let mut name = vec![0; MAX_NAME];
    loop {
        await_something(&socket, &children)?;
        while let Ok(Some((pid, _))) = wait(WaitOptions::NOHANG) {
            children.retain(|(child, _)| *child != pid);
        }
        let length = match recv(&socket, name.as_mut_slice(), RecvFlags::DONTWAIT) {
            Ok((0, _)) | Err(Errno::CONNRESET) => return Ok(None),
            Ok((length, _)) => length,
            Err(Errno::AGAIN | Errno::INTR) => continue,
            Err(errno) => return Err(errno.into()),
        };
        match fork() {
            Ok(Side::Child) => {
                drop((socket, children));
                // A child of a fork leads no group: this cannot fail.
                let _ = setsid();
                let folder = PathBuf::from(OsStr::from_bytes(&name[..length]));
                // Its arguments do not tell which job it has, so its working directory does. Nothing depends on it.
                let _ = std::env::set_current_dir(&folder);
                return Ok(Some(folder));
            }
            Ok(Side::Parent(pid)) => {
                // Not collected yet, so the id is its own.
                let pidfd = pidfd_open(pid, PidfdFlags::empty()).ok();
                let _ = answer(&socket, pid.as_raw_nonzero().get(), pidfd.as_ref());
                children.push((pid, pidfd));
            }
            // 0 is nobody: the agent finds another way.
            Err(_) => drop(answer(&socket, 0, None)),
        }
    }
}

/// Waits for a message or the end of a child.
fn await_something(socket: &OwnedFd, children: &[(Pid, Option<OwnedFd>)]) -> io::Result<()> {
    let ended = children.iter().filter_map(|(_, pidfd)| pidfd.as_ref());
    let mut fds: Vec<PollFd> =
        std::iter::once(socket).chain(ended).map(|fd| PollFd::new(fd, PollFlags::IN)).collect();
    let unseen = fds.len() <= children.len();
    let limit = unseen.then(|| Timespec::try_from(LOOK_EVERY)).transpose().unwrap_or(None);
    match poll(&mut fds, limit.as_ref()) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

fn answer(socket: &OwnedFd, pid: i32, pidfd: Option<&OwnedFd>) -> rustix::io::Result<()> {
    let bytes = pid.to_le_bytes();
    let Some(pidfd) = pidfd else {
        return send(socket, &bytes, SendFlags::NOSIGNAL).map(drop);
    };
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds: [BorrowedFd; 1] = [pidfd.as_fd()];
    control.push(SendAncillaryMessage::ScmRights(&fds));
    sendmsg(socket, &[IoSlice::new(&bytes)], &mut control, SendFlags::NOSIGNAL).map(drop)
}
