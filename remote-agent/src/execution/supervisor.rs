//! The agent's end of a supervisor: starts it, notices its end, asks it to end its job. It may be our child, or that of a
//! former agent, or already gone.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::time::sleep;
use wps_remote_protocol::{ErrorKind, ExecutionError};

use super::{Host, not_started};
use crate::supervise;
use crate::workdir::Folder;

/// How often a supervisor that is not our child is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// One supervisor.
pub(super) struct Supervisor {
    folder: Folder,
    kind: Kind,
}

enum Kind {
    Own(Child),
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
    /// Starts one for a job whose record is on disk. Must be called within a tokio runtime.
    pub(super) fn spawn(host: &Host, folder: &Folder, work_dir: &Path) -> Result<Self, ExecutionError> {
        let fail = |why: String| not_started(ErrorKind::NotStarted, &why);
        let mut command = command(host)
            .ok_or_else(|| fail("the agent does not know how to start a supervisor".to_owned()))?;
        let child = command.arg(folder.path()).current_dir(work_dir).stdin(Stdio::null()).spawn();
        let child =
            child.map_err(|error| fail(format!("the job's supervisor cannot be started: {error}")))?;
        Ok(Self::own(folder, child))
    }

    /// One that is our child already.
    pub(super) fn own(folder: &Folder, child: Child) -> Self {
        Self { folder: folder.clone(), kind: Kind::Own(child) }
    }

    /// One that a former agent started.
    pub(super) fn adopted(folder: &Folder, pid: i32) -> Self {
        Self { folder: folder.clone(), kind: Kind::Adopted(pid) }
    }

    /// One that has ended unobserved.
    pub(super) fn gone(folder: &Folder) -> Self {
        Self { folder: folder.clone(), kind: Kind::Gone }
    }

    /// Waits for its end. May be dropped and called again.
    pub(super) async fn ended(&mut self) {
        match &mut self.kind {
            Kind::Own(child) => {
                // An error means that there is no such child any more: also an end.
                let _ = child.wait().await;
                // Another supervisor may have been faster (see `start`): then that one is to be followed.
                match supervise::living(self.folder.path()) {
                    Some(pid) => self.kind = Kind::Adopted(pid),
                    None => return,
                }
            }
            Kind::Adopted(_) => {}
            Kind::Gone => return,
        }
        // The lock, not the process id, says whether it lives: ids are used again.
        while supervise::living(self.folder.path()).is_some() {
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
            // Not yet waited for, so the id is still its own.
            Kind::Own(child) => child.id().and_then(|id| i32::try_from(id).ok()),
            Kind::Adopted(pid) => supervise::living(self.folder.path()).filter(|living| living == pid),
            Kind::Gone => None,
        };
        if let Some(pid) = pid.and_then(Pid::from_raw) {
            // If it has just ended there is nothing left to ask for.
            let _ = kill_process(pid, signal);
        }
    }
}
