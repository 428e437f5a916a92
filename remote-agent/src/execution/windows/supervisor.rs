//! The agent's end of a supervisor: starts it, notices its end, asks it to end its job. It may be our child, or that of a
//! former agent, or already gone.

use std::io;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::{Child, Command};
use tokio::time::sleep;
use wps_remote_protocol::{ErrorKind, ExecutionError};

use crate::execution::{Host, not_started};
use crate::supervise;
use crate::winapi::host;
use crate::workdir::Folder;

/// How often a supervisor that is not our child is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// A console of its own that nobody sees: Ctrl-C in the agent's does not reach it, and it can send one to its program.
const CREATE_NO_WINDOW: u32 = 0x0800_0000;
/// Out of a job object that the agent itself may be in: it must not end with the agent.
const CREATE_BREAKAWAY_FROM_JOB: u32 = 0x0100_0000;

/// One supervisor.
pub(in crate::execution) struct Supervisor {
    folder: Folder,
    kind: Kind,
}

enum Kind {
    /// Our child.
    Own(Box<Child>),
    /// Somebody else's, known by its lock.
    Adopted(i32),
    Gone,
}

impl Supervisor {
    /// Starts one for a job whose record is on disk. Must be called within a tokio runtime.
    pub(in crate::execution) fn start(
        host: &Host,
        folder: &Folder,
        work_dir: &Path,
    ) -> Result<Self, ExecutionError> {
        let fail = |why: String| not_started(ErrorKind::NotStarted, &why);
        let [program, arguments @ ..] = host.supervisor.as_slice() else {
            return Err(fail("the agent does not know how to start a supervisor".to_owned()));
        };
        let mut command = Command::new(program);
        command.args(arguments).arg(folder.path()).current_dir(work_dir);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        for name in &host.hidden_variables {
            command.env_remove(name);
        }
        let child = match command.creation_flags(CREATE_NO_WINDOW | CREATE_BREAKAWAY_FROM_JOB).spawn() {
            // Whoever holds the agent's job object does not let anybody out.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                command.creation_flags(CREATE_NO_WINDOW).spawn()
            }
            result => result,
        };
        let child =
            child.map_err(|error| fail(format!("the job's supervisor cannot be started: {error}")))?;
        Ok(Self { folder: folder.clone(), kind: Kind::Own(Box::new(child)) })
    }

    /// One that a former agent started.
    pub(in crate::execution) fn adopted(folder: &Folder, pid: i32) -> Self {
        Self { folder: folder.clone(), kind: Kind::Adopted(pid) }
    }

    /// One that has ended unobserved.
    pub(in crate::execution) fn gone(folder: &Folder) -> Self {
        Self { folder: folder.clone(), kind: Kind::Gone }
    }

    /// Waits for its end. May be dropped and called again.
    pub(in crate::execution) async fn ended(&mut self) {
        match &mut self.kind {
            // An error means that there is no such child any more: also an end.
            Kind::Own(child) => drop(child.wait().await),
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
    pub(in crate::execution) fn terminate(&self) {
        if let Err(error) = supervise::ask(self.folder.path()) {
            // It is killed after a while.
            tracing::warn!(folder = %self.folder.path().display(), "the supervisor cannot be asked to end its job: {error}");
        }
    }

    /// Ends the supervisor itself, which has not answered in time, and with it all that it has started.
    pub(in crate::execution) fn kill(&mut self) {
        match &mut self.kind {
            // If it has just ended there is nothing left to end.
            Kind::Own(child) => drop(child.start_kill()),
            Kind::Adopted(pid) => {
                let living = supervise::living(self.folder.path()).filter(|living| living == pid);
                if let Some(pid) = living.and_then(|pid| u32::try_from(pid).ok()) {
                    drop(host::terminate(pid));
                }
            }
            Kind::Gone => {}
        }
    }
}
