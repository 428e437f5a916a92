//! The agent's end of a supervisor: starts it, notices its end, asks it to end its job. It may be our child, or one that the
//! fork server split off, or that of a former agent, or already gone.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open, pidfd_send_signal};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::process::{Child, Command};
use tokio::time::sleep;
use wps_remote_protocol::{ErrorKind, ExecutionError};

use super::forks::Forked;
use super::{Host, not_started};
use crate::supervise;
use crate::workdir::Folder;

/// How often a supervisor is looked at that cannot be waited for.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// One supervisor.
pub(super) struct Supervisor {
    folder: Folder,
    kind: Kind,
}

enum Kind {
    /// Our child.
    Own(Child),
    /// Somebody else's, of which the system tells us when it ends.
    Watched(AsyncFd<OwnedFd>),
    /// Somebody else's, known by its lock only.
    Adopted(i32),
    Gone,
}

/// The command line of a supervisor, as far as it is the same for all jobs.
pub(super) fn command(host: &Host) -> Option<Command> {
    let [program, arguments @ ..] = host.supervisor.as_slice() else { return None };
    let mut command = Command::new(program);
    command.args(arguments).stdout(Stdio::null()).stderr(Stdio::null());
    for name in &host.hidden_variables {
        command.env_remove(name);
    }
    Some(command)
}

impl Supervisor {
    /// Starts one for a job whose record is on disk. Must be called within a tokio runtime, where blocking is allowed.
    pub(super) fn start(host: &Host, folder: &Folder, work_dir: &Path) -> Result<Self, ExecutionError> {
        if let Some(Forked { pid, pidfd }) = host.forks.supervise(host, folder) {
            let kind = pidfd.and_then(watch).unwrap_or(Kind::Adopted(pid));
            return Ok(Self { folder: folder.clone(), kind });
        }
        let fail = |why: String| not_started(ErrorKind::NotStarted, &why);
        let mut command = command(host)
            .ok_or_else(|| fail("the agent does not know how to start a supervisor".to_owned()))?;
        let child = command.arg(folder.path()).current_dir(work_dir).stdin(Stdio::null()).spawn();
        let child =
            child.map_err(|error| fail(format!("the job's supervisor cannot be started: {error}")))?;
        Ok(Self { folder: folder.clone(), kind: Kind::Own(child) })
    }

    /// One that a former agent started. Must be called within a tokio runtime.
    pub(super) fn adopted(folder: &Folder, pid: i32) -> Self {
        let pidfd = Pid::from_raw(pid).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
        // Looked at again: the id may have gone to a stranger before the descriptor was bound to it.
        let pidfd = pidfd.filter(|_| supervise::living(folder.path()) == Some(pid));
        Self { folder: folder.clone(), kind: pidfd.and_then(watch).unwrap_or(Kind::Adopted(pid)) }
    }

    /// One that has ended unobserved.
    pub(super) fn gone(folder: &Folder) -> Self {
        Self { folder: folder.clone(), kind: Kind::Gone }
    }

    /// Waits for its end. May be dropped and called again.
    pub(super) async fn ended(&mut self) {
        match &mut self.kind {
            // An error means that there is no such child any more: also an end.
            Kind::Own(child) => drop(child.wait().await),
            Kind::Watched(pidfd) => drop(pidfd.readable().await),
            Kind::Adopted(_) => {}
            Kind::Gone => return,
        }
        // Another supervisor may have been faster (see `start`): then that one is to be followed. The lock, not the process
        // id, says whether it lives: ids are used again.
        while let Some(pid) = supervise::living(self.folder.path()) {
            if !matches!(self.kind, Kind::Adopted(_)) {
                self.kind = Kind::Adopted(pid);
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// Asks it to end its job, politely first, with everything the job has started.
    pub(super) fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Ends the supervisor itself, which has not answered in time. Its job is then without one.
    pub(super) fn kill(&self) {
        self.signal(Signal::KILL);
    }

    fn signal(&self, signal: Signal) {
        let pid = match &self.kind {
            Kind::Watched(pidfd) => {
                // If it has just ended there is nothing left to ask for.
                let _ = pidfd_send_signal(pidfd.get_ref(), signal);
                return;
            }
            // Not yet waited for, so the id is still its own.
            Kind::Own(child) => child.id().and_then(|id| i32::try_from(id).ok()),
            Kind::Adopted(pid) => supervise::living(self.folder.path()).filter(|living| living == pid),
            Kind::Gone => None,
        };
        if let Some(pid) = pid.and_then(Pid::from_raw) {
            let _ = kill_process(pid, signal);
        }
    }
}

#[expect(
    deprecated,
    reason = "its flaw concerns types that may swap their descriptor, which an owned one cannot; its successor is unsafe"
)]
fn watch(pidfd: OwnedFd) -> Option<Kind> {
    AsyncFd::with_interest(pidfd, Interest::READABLE).ok().map(Kind::Watched)
}
