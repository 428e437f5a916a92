//! How an operator on the same host talks to a running agent: one JSON line asks, one JSON line answers. Knows what can be
//! asked and who may ask; what is answered is the driver's. The way between the two programs is `transport`, the only part
//! that differs between systems.
//!
//! The socket lies in the agent's own folder of records (`resource_file_dir`), which belongs to exactly one agent and its
//! user. Whoever may write there can do worse than to drain an agent, so no password is needed.

#[cfg(unix)]
#[path = "control/unix.rs"]
mod transport;
#[cfg(windows)]
#[path = "control/windows.rs"]
mod transport;

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tracing::{debug, info, warn};
use wps_remote_protocol::{ExecutionId, Load, ProcessId};

/// Longest question, in bytes.
const MAX_ORDER: u64 = 4096;
/// Longest answer, in bytes: some thousand jobs.
const MAX_REPORT: u64 = 16 << 20;
/// Operators that are served at a time.
const AT_ONCE: usize = 8;
/// Longest time for a question and its answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// The file that says that the agent takes no new work, also after a restart.
const DRAIN_MARK: &str = "draining";

/// What an operator can ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Order {
    /// How the agent is.
    Status,
    /// Take no new work, or take it again.
    Drain {
        /// Whether to drain.
        on: bool,
    },
    /// Read the configuration again.
    Reload,
}

/// What an agent answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// How the agent is, after the order was carried out.
    Report(Box<Report>),
    /// What a reload has changed.
    Reloaded(Reloaded),
    /// The order could not be carried out.
    Failed(String),
}

/// How an agent is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Version of the program.
    pub version: String,
    /// Process id of the agent.
    pub pid: u32,
    /// Its name in the management room.
    pub nick: String,
    /// How long it runs, in seconds.
    pub uptime_s: u64,
    /// Orchestrators that have invited it and are present.
    pub orchestrators: Vec<String>,
    /// Whether it takes no new work until told otherwise.
    pub draining: bool,
    /// Load and capacity, as orchestrators see them.
    pub load: Load,
    /// Processes that are offered.
    pub processes: Vec<ProcessId>,
    /// Jobs that are held: running, or ended and not yet taken by an orchestrator.
    pub jobs: Vec<JobReport>,
}

impl Report {
    /// Jobs that run.
    pub fn running(&self) -> usize {
        self.jobs.iter().filter(|job| job.state != JobState::Ended).count()
    }

    /// Endings that no orchestrator has taken yet.
    pub fn undelivered(&self) -> usize {
        self.jobs.len() - self.running()
    }
}

/// One job of an agent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobReport {
    /// Which execution.
    pub execution: ExecutionId,
    /// Of which process.
    pub process: ProcessId,
    /// For whom.
    pub orchestrator: String,
    /// How far it is.
    pub state: JobState,
    /// Its last progress, in percent.
    pub percent: Option<f64>,
    /// Units of capacity that it takes.
    pub weight: f64,
    /// When it was accepted, in milliseconds since 1970; `None` = not known any more.
    pub accepted_ms: Option<i64>,
}

/// Where a job is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    /// It is being prepared, or a former agent's job is being taken over.
    Starting,
    /// Its program runs.
    Running,
    /// It is over; no orchestrator has said yet that it is stored there.
    Ended,
}

/// What a reload has changed, by keys of `remote.config`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloaded {
    /// These hold now.
    pub applied: Vec<String>,
    /// These hold after a restart.
    pub restart: Vec<String>,
}

/// An order on its way to whoever carries it out.
#[derive(Debug)]
pub struct Asked {
    /// The order.
    pub order: Order,
    /// Where the answer goes; nobody listens any more if it fails.
    pub reply: oneshot::Sender<Answer>,
}

/// Who carries out which orders.
#[derive(Debug, Clone)]
pub struct Desks {
    /// Everything but reloads.
    pub driver: mpsc::Sender<Asked>,
    /// Reloads.
    pub reload: mpsc::Sender<Asked>,
}

/// Why an agent could not be asked.
#[derive(Debug, Error)]
pub enum ControlError {
    /// Nobody listens.
    #[error("no agent answers at {}: {source}; is `wps-remote-agent run` running with this configuration?", path.display())]
    Absent {
        /// Where it would.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// It must not be asked by this user.
    #[error("{} is the agent's own: {source}; ask as the agent's user, or as root", path.display())]
    Forbidden {
        /// Where.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// It listens but does not answer.
    #[error("the agent at {} does not answer as it should: {why}", path.display())]
    Broken {
        /// Where.
        path: PathBuf,
        /// What went wrong.
        why: String,
    },
}

/// Whether the agent is to take no new work: a file, so that a restart, an upgrade or a crash does not open a host again
/// that an administrator has closed.
#[derive(Debug, Clone)]
pub struct DrainMark(PathBuf);

impl DrainMark {
    /// Of the agent with this folder of records.
    pub fn of(folder: &Path) -> Self {
        Self(folder.join(DRAIN_MARK))
    }

    /// Whether it is set.
    pub fn is_set(&self) -> bool {
        self.0.exists()
    }

    /// Sets or removes it, durably.
    pub fn set(&self, on: bool) -> io::Result<()> {
        if on {
            let mut file = File::create(&self.0)?;
            file.write_all(b"This agent takes no new work. `wps-remote-agent drain --undo` ends that.\n")?;
            file.sync_all()?;
        } else if let Err(error) = std::fs::remove_file(&self.0)
            && error.kind() != io::ErrorKind::NotFound
        {
            return Err(error);
        }
        self.0.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
    }
}

/// Listens for operators and passes their orders on, until it is dropped. Gives the task; an agent that cannot listen works
/// all the same, and says so.
pub fn listen(folder: &Path, desks: Desks) -> impl Future<Output = ()> + Send + use<> {
    let mark = DrainMark::of(folder);
    let listener = match transport::listen(folder) {
        Ok(listener) => Some(listener),
        Err(error) => {
            warn!("`status` and `drain` cannot reach this agent: {error}");
            None
        }
    };
    async move {
        let Some(mut listener) = listener else { return };
        let places = Arc::new(Semaphore::new(AT_ONCE));
        loop {
            let stream = match transport::accept(&mut listener).await {
                Ok(Some(stream)) => stream,
                Ok(None) => continue,
                Err(error) => {
                    debug!("an operator could not connect: {error}");
                    // Out of descriptors, most likely: trying at once would only turn in circles.
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    continue;
                }
            };
            // Whoever finds no place is turned away by the end of the connection.
            let Ok(place) = places.clone().try_acquire_owned() else { continue };
            let (desks, mark) = (desks.clone(), mark.clone());
            tokio::spawn(async move {
                if timeout(PATIENCE, serve(stream, desks, mark)).await.is_err() {
                    debug!("an operator took too long");
                }
                drop(place);
            });
        }
    }
}

async fn serve(mut stream: impl AsyncRead + AsyncWrite + Unpin, desks: Desks, mark: DrainMark) {
    let answer = match line(&mut stream, MAX_ORDER).await {
        Ok(text) => match serde_json::from_str::<Order>(&text) {
            Ok(order) => carry_out(order, &desks, mark).await,
            Err(error) => Answer::Failed(format!("the order is not understood: {error}")),
        },
        Err(error) => Answer::Failed(format!("the order cannot be read: {error}")),
    };
    let Ok(mut text) = serde_json::to_string(&answer) else { return };
    text.push('\n');
    // An operator who has gone does not want to know.
    let _ = stream.write_all(text.as_bytes()).await;
    let _ = stream.shutdown().await;
}

async fn carry_out(order: Order, desks: &Desks, mark: DrainMark) -> Answer {
    if let Order::Drain { on } = order {
        info!("{}", if on { "an operator drains the agent" } else { "an operator ends the draining" });
        // On disk before it holds: an answer promises that it survives.
        match spawn_blocking(move || mark.set(on)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Answer::Failed(format!("it would not survive a restart: {error}")),
            Err(error) => return Answer::Failed(error.to_string()),
        }
    }
    let (reply, answer) = oneshot::channel();
    let desk = match order {
        Order::Status | Order::Drain { .. } => &desks.driver,
        Order::Reload => &desks.reload,
    };
    if desk.send(Asked { order, reply }).await.is_err() {
        return Answer::Failed("the agent is stopping".to_owned());
    }
    answer.await.unwrap_or_else(|_| Answer::Failed("the agent is stopping".to_owned()))
}

/// Asks the agent with this folder of records.
pub async fn ask(folder: &Path, order: Order) -> Result<Answer, ControlError> {
    let path = transport::address(folder);
    let broken = |why: String| ControlError::Broken { path: path.clone(), why };
    let mut stream = transport::connect(folder).await.map_err(|source| match source.kind() {
        io::ErrorKind::PermissionDenied => ControlError::Forbidden { path: path.clone(), source },
        _ => ControlError::Absent { path: path.clone(), source },
    })?;
    let exchange = async {
        let mut text = serde_json::to_string(&order)?;
        text.push('\n');
        stream.write_all(text.as_bytes()).await?;
        line(&mut stream, MAX_REPORT).await
    };
    let text = match timeout(PATIENCE, exchange).await {
        Ok(Ok(text)) => text,
        Ok(Err(error)) => return Err(broken(error.to_string())),
        Err(_) => return Err(broken(format!("nothing within {} s", PATIENCE.as_secs()))),
    };
    serde_json::from_str(&text).map_err(|error| broken(error.to_string()))
}

/// Up to the first line end, at most `most` bytes.
async fn line(stream: &mut (impl AsyncRead + Unpin), most: u64) -> io::Result<String> {
    let mut bytes = Vec::new();
    let mut piece = [0_u8; 4096];
    loop {
        let read = stream.read(&mut piece).await?;
        let piece = piece.get(..read).unwrap_or_default();
        let end = piece.iter().position(|byte| *byte == b'\n');
        bytes.extend_from_slice(piece.get(..end.unwrap_or(read)).unwrap_or_default());
        if bytes.len() as u64 > most {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("longer than {most} bytes")));
        }
        if end.is_some() {
            return String::from_utf8(bytes)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error));
        }
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}
