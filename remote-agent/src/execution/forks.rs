//! The agent's end of the fork server: starts it, asks it for supervisors, starts another one when it has died. Whatever goes
//! wrong here only makes a job start a little later, because then its supervisor is started as a program of its own.

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags, SocketFlags, SocketType,
    recvmsg, send, socketpair,
};
use tokio::process::Child;

use super::Host;
use super::supervisor::command;
use crate::supervise::{MAX_NAME, SERVE};
use crate::workdir::Folder;

/// Longest time the server may take to answer; after that it is given up.
const PATIENCE: Duration = Duration::from_secs(2);

/// A supervisor that the server has split off.
#[derive(Debug)]
pub(super) struct Forked {
    /// Its process id.
    pub(super) pid: i32,
    /// The process itself; absent where the system has no such thing.
    pub(super) pidfd: Option<OwnedFd>,
}

/// At most one fork server. It ends by itself when this is dropped: the end of its socket is its own.
#[derive(Debug, Default)]
pub struct Forks {
    server: Mutex<Option<Server>>,
    wanted: AtomicBool,
}

#[derive(Debug)]
struct Server {
    child: Child,
    socket: OwnedFd,
}

impl Forks {
    /// From now on there is a server. Must be called within a tokio runtime.
    pub fn keep(&self, host: &Host) {
        self.wanted.store(true, Relaxed);
        let mut slot = self.slot();
        if slot.is_none() {
            *slot = start(host);
        }
    }

    /// A supervisor for the job of this control folder; `None` if there is no server and none can be had. Must be called within
    /// a tokio runtime where blocking is allowed.
    pub(super) fn supervise(&self, host: &Host, folder: &Folder) -> Option<Forked> {
        if !self.wanted.load(Relaxed) || folder.path().as_os_str().len() > MAX_NAME {
            return None;
        }
        let mut slot = self.slot();
        // Twice, since the server may have died since the last job.
        for _ in 0..2 {
            let mut server = match slot.take() {
                Some(server) => server,
                None => start(host)?,
            };
            match server.ask(folder) {
                Ok(forked) => {
                    *slot = Some(server);
                    return forked;
                }
                Err(error) => {
                    tracing::debug!("the fork server is replaced: {error}");
                    // One that hangs would not notice the end of its socket. It is gone already in the usual case.
                    let _ = server.child.start_kill();
                }
            }
        }
        None
    }

    fn slot(&self) -> MutexGuard<'_, Option<Server>> {
        self.server.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

fn start(host: &Host) -> Option<Server> {
    let attempt = || -> io::Result<Option<Server>> {
        let Some(mut command) = command(host) else { return Ok(None) };
        let (socket, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        set_socket_timeout(&socket, Timeout::Recv, Some(PATIENCE))?;
        set_socket_timeout(&socket, Timeout::Send, Some(PATIENCE))?;
        // Its arguments do not tell whose it is, so its working directory does.
        command.current_dir(host.control.root());
        let child = command.arg(SERVE).stdin(Stdio::from(theirs)).spawn()?;
        Ok(Some(Server { child, socket }))
    };
    attempt().unwrap_or_else(|error| {
        tracing::debug!("there is no fork server: {error}");
        None
    })
}

impl Server {
    /// An error means that this server is of no more use. Should it have split off a supervisor all the same: two for one job
    /// do no harm, see `supervise`.
    fn ask(&self, folder: &Folder) -> io::Result<Option<Forked>> {
        send(&self.socket, folder.path().as_os_str().as_bytes(), SendFlags::NOSIGNAL)?;
        let mut bytes = [0; 4];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received =
            recvmsg(&self.socket, &mut [IoSliceMut::new(&mut bytes)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
        if received.bytes != bytes.len() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut fds = control.drain().filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(fds) => Some(fds),
            _ => None,
        });
        let pidfd = fds.next().and_then(|mut fds| fds.next());
        let pid = i32::from_le_bytes(bytes);
        Ok((pid > 0).then_some(Forked { pid, pidfd }))
    }
}
