//! Follows one execution on this host from its start to its ending: starts its supervisor, reads the program's output as
//! it grows, ends it on request, and turns the program's end into what the orchestrator is told. Knows no XMPP, no
//! capacity and no descriptor files.
//!
//! ```text
//!  New ──► prepare, folders, job.json ──► supervisor ─┐
//!  Adopted (a former agent started it) ───────────────┼─► follow ──► exit.json ──► outputs ──► ending.json
//!                                                     └─ abort, `abort` rule: SIGTERM to the supervisor
//! ```

pub mod stdout;
#[cfg(unix)]
pub mod unix;
#[cfg(unix)]
pub mod user;
#[cfg(windows)]
mod windows;

mod deliver;
mod ending;
mod follow;
#[cfg(unix)]
mod forks;
#[cfg(unix)]
mod supervisor;

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;
use tracing::info;
use wps_remote_protocol::{ErrorKind, ExecutionError, ExecutionId, LogLevel};

#[cfg(unix)]
pub use self::forks::Forks;
use self::stdout::{Counts, Decide};
#[cfg(unix)]
use self::supervisor::Supervisor;
#[cfg(unix)]
use self::unix as system;
#[cfg(windows)]
use self::windows::{self as system, Supervisor};
#[cfg(windows)]
pub use self::windows::{Forks, user};
use crate::config::Uploader;
use crate::supervise::{self, record::RunAs};
use crate::workdir::{Control, Ending, Folder, Record, WorkdirError};

/// The variable that holds the working folder: by it every process of an execution can be recognised on this host.
pub const WORKDIR_VARIABLE: &str = "WPS_WORKDIR";

/// What all executions of an agent share.
#[derive(Debug)]
pub struct Host {
    /// Where the control folders are.
    pub control: Control,
    /// Program and first arguments that run a supervisor; the control folder is added.
    pub supervisor: Vec<OsString>,
    /// The folder that the orchestrator also sees.
    pub shared: Option<PathBuf>,
    /// The server that outputs can be sent to.
    pub uploader: Option<Uploader>,
    /// Environment variables that no program may see.
    pub hidden_variables: Vec<String>,
    /// Makes supervisors at little cost; each is started as a program of its own where this is not kept.
    pub forks: Forks,
}

/// An execution that can be started.
pub struct Prepared {
    /// Its record.
    pub record: Record,
    /// Reads its output.
    pub rules: Box<dyn Decide>,
    /// Writes the files that the program finds in its working folder.
    pub fill: Box<dyn FnOnce() -> Result<(), ExecutionError> + Send>,
}

/// Makes an execution ready; runs where blocking is allowed.
pub type Prepare = Box<dyn FnOnce() -> Result<Prepared, ExecutionError> + Send>;

/// Where an execution begins.
pub enum Begin {
    /// From nothing.
    New(Prepare),
    /// Started by a former agent.
    Adopted {
        /// Its control folder.
        folder: Folder,
        /// Its record.
        record: Box<Record>,
        /// Reads its output.
        rules: Box<dyn Decide>,
    },
}

/// What happens to an execution.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// Its record is on disk and its supervisor runs.
    Started,
    /// How far it is.
    Progress(f64),
    /// A line for the job's log.
    Log(LogLevel, String),
    /// Its output was read to the end and met these rules; comes before the ending of a program that ran.
    Read(Counts),
    /// It is over; the last event.
    Ended(Ending),
}

/// Where events go: one bounded channel for all executions of the agent.
pub type Events = mpsc::Sender<(ExecutionId, Event)>;

/// Runs one execution to its end and reports everything to `events`. `abort` asks for its end; dropping the returned future
/// leaves the program running under its supervisor.
pub async fn run(
    host: Arc<Host>,
    execution: ExecutionId,
    begin: Begin,
    abort: CancellationToken,
    events: Events,
) {
    let ending = match start(&host, &execution, begin, &abort).await {
        Ok(running) => {
            // The channel is closed only when the agent stops; the program goes on without us then.
            if events.send((execution.clone(), Event::Started)).await.is_err() {
                return;
            }
            follow::follow(&host, running, &abort, &events).await
        }
        Err(error) => Ending::Failed(error),
    };
    let _ = events.send((execution, Event::Ended(ending))).await;
}

/// An execution whose supervisor has been started.
struct Running {
    folder: Folder,
    record: Record,
    rules: Box<dyn Decide>,
    supervisor: Supervisor,
    /// Bytes of output that a former agent has reported.
    reported: u64,
}

async fn start(
    host: &Arc<Host>,
    execution: &ExecutionId,
    begin: Begin,
    abort: &CancellationToken,
) -> Result<Running, ExecutionError> {
    let host = host.clone();
    let execution = execution.clone();
    let abort = abort.clone();
    let task = spawn_blocking(move || match begin {
        Begin::New(prepare) => {
            let Prepared { record, rules, fill } = prepare()?;
            if abort.is_cancelled() {
                return Err(not_started(ErrorKind::Aborted, "it was aborted before its program started"));
            }
            let folder = host.control.folder(&execution);
            folder.create(&record, || fill().map_err(Unready::Fill)).map_err(ExecutionError::from)?;
            if let Some(user) = &record.launch.run_as {
                let RunAs { name, uid, gid, groups, .. } = user;
                let program = record.launch.argv.first().map_or("", String::as_str);
                info!(execution.id = %execution, process.id = %record.process, %program, user = %name, uid, gid, ?groups, "the program runs as another user");
            }
            let supervisor = Supervisor::start(&host, &folder, &record.work_dir)?;
            Ok(Running { folder, record, rules, supervisor, reported: 0 })
        }
        Begin::Adopted { folder, record, rules } => {
            let reported = folder.position();
            let supervisor = match supervise::living(folder.path()) {
                Some(pid) => Supervisor::adopted(&folder, pid),
                None if folder.exit().is_ok() || supervise::has_begun(folder.path()) => {
                    Supervisor::gone(&folder)
                }
                // The former agent put the job down but did not come to start it. Should its supervisor be just about to
                // start after all, the lock lets only one of the two do so.
                None => Supervisor::start(&host, &folder, &record.work_dir)?,
            };
            Ok(Running { folder, record: *record, rules, supervisor, reported })
        }
    });
    task.await.unwrap_or_else(|error| {
        Err(not_started(ErrorKind::NotStarted, &format!("the agent failed to prepare it: {error}")))
    })
}

/// Why an execution's folder is not ready.
enum Unready {
    Folder(WorkdirError),
    Fill(ExecutionError),
}

impl From<WorkdirError> for Unready {
    fn from(error: WorkdirError) -> Self {
        Self::Folder(error)
    }
}

impl From<Unready> for ExecutionError {
    fn from(unready: Unready) -> Self {
        match unready {
            Unready::Folder(error) => not_started(ErrorKind::NotStarted, &error.to_string()),
            Unready::Fill(error) => error,
        }
    }
}

fn not_started(kind: ErrorKind, text: &str) -> ExecutionError {
    ExecutionError { kind, text: text.to_owned(), receipt: None }
}
