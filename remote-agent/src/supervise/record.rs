//! The papers of a supervised program, on disk: what is to be started (part of `job.json`) and how it ended
//! (`exit.json`). Knows how to write them so that a reader never sees half a file; knows nothing of processes.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use thiserror::Error;
use wps_remote_protocol::KillReceipt;

use crate::files;

/// Name of the job's record in its control folder.
pub const JOB_FILE: &str = "job.json";
/// Name of the record of the program's end in the control folder.
pub const EXIT_FILE: &str = "exit.json";
/// Name of the file that the supervisor holds locked as long as it lives; its text is the supervisor's process id.
pub const LOCK_FILE: &str = "supervisor.lock";
/// Name of the file that takes the supervisor's own troubles; exists only if there were any.
pub const TROUBLE_FILE: &str = "supervisor.log";

/// Largest record that is read back, in bytes: inputs and outputs are bounded on the wire, so this is generous.
const MAX_RECORD: u64 = 16 * 1024 * 1024;

/// The part of `job.json` that the supervisor reads.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobFile {
    /// What to start.
    pub launch: Launch,
}

/// What the supervisor starts and by which limits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Launch {
    /// The program, absolute, then its arguments. Never empty.
    pub argv: Vec<String>,
    /// Working directory.
    pub cwd: PathBuf,
    /// Environment variables that are set on top of the inherited ones.
    #[serde(default)]
    pub env: Vec<(String, String)>,
    /// Inherited variables that the program must not see (secrets of the agent).
    #[serde(default)]
    pub env_remove: Vec<String>,
    /// File for standard input; absent = the null device.
    #[serde(default)]
    pub stdin: Option<PathBuf>,
    /// File that takes standard output and standard error together.
    pub log: PathBuf,
    /// Most bytes that are written to `log`; the rest is read and dropped, so that the program never blocks.
    pub log_limit_bytes: u64,
    /// Longest running time in seconds; 0 = no limit.
    #[serde(default)]
    pub max_running_time_s: u64,
    /// Time between the polite and the hard way of ending, in milliseconds.
    pub grace_ms: u64,
    /// What the program may use.
    #[serde(default)]
    pub limits: Limits,
    /// As whom it runs; absent = as the supervisor.
    #[serde(default)]
    pub run_as: Option<RunAs>,
    /// Folder of the control groups below which the job gets one of its own; absent = it gets none.
    #[serde(default)]
    pub cgroup: Option<PathBuf>,
}

/// A user of the host, as numbers: names can change their meaning while a job runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunAs {
    /// Its name, for messages.
    pub name: String,
    /// User id.
    pub uid: u32,
    /// Id of the main group.
    pub gid: u32,
    /// Ids of all groups.
    pub groups: Vec<u32>,
    /// Home directory.
    pub home: PathBuf,
}

/// Resource limits of a program and all that it starts; absent = as the agent itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// CPU time of each process, in seconds.
    pub cpu_seconds: Option<u64>,
    /// Memory of the whole job where it has a control group, else address space of each process, in MiB.
    pub memory_mb: Option<u64>,
    /// Size of each written file, in MiB.
    pub file_mb: Option<u64>,
    /// Open files of each process.
    pub open_files: Option<u64>,
    /// Niceness, -20 to 19.
    pub nice: Option<i32>,
}

/// How a supervised program ended (`exit.json`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Exit {
    /// Which way.
    pub outcome: Outcome,
    /// Wall-clock time of the start, milliseconds since 1970.
    pub started_ms: i64,
    /// Wall-clock time of the end, milliseconds since 1970.
    pub ended_ms: i64,
    /// What was ended, if signals were sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receipt: Option<KillReceipt>,
    /// Bytes of output that were dropped because of the limit or a full disk.
    #[serde(default)]
    pub dropped_bytes: u64,
    /// The limit that has to do with the end, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exceeded: Option<String>,
    /// Why output could not be written, if it could not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_error: Option<String>,
}

/// The ways in which a supervised program ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// By itself, with this code.
    Exited(i32),
    /// By this signal, which the supervisor did not send.
    Signalled(i32),
    /// Ended by the supervisor at the limit of running time.
    TimedOut,
    /// Ended by the supervisor because the agent asked.
    Aborted,
    /// It never ran.
    NotStarted(String),
}

/// Why a record cannot be used.
#[derive(Debug, Error)]
pub enum RecordError {
    /// It cannot be read or written.
    #[error("{} cannot be {verb}: {source}", path.display())]
    Io {
        /// The record.
        path: PathBuf,
        /// `read` or `written`.
        verb: &'static str,
        /// What the system says.
        source: io::Error,
    },
    /// Its content is not what it must be.
    #[error("{} is damaged: {source}", path.display())]
    Json {
        /// The record.
        path: PathBuf,
        /// What the reader says.
        source: serde_json::Error,
    },
}

impl RecordError {
    /// Whether the record does not exist.
    pub fn is_absent(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }

    /// Whether the disk is full.
    pub fn is_disk_full(&self) -> bool {
        matches!(self, Self::Io { source, .. } if is_disk_full(source))
    }
}

/// Whether an error says that there is no room left.
pub fn is_disk_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Reads a record, bounded.
pub fn read<T: DeserializeOwned>(path: &Path) -> Result<T, RecordError> {
    let fail = |source| RecordError::Io { path: path.to_owned(), verb: "read", source };
    let mut bytes = Vec::new();
    File::open(path).and_then(|file| file.take(MAX_RECORD).read_to_end(&mut bytes)).map_err(fail)?;
    serde_json::from_slice(&bytes).map_err(|source| RecordError::Json { path: path.to_owned(), source })
}

/// Writes a record under a temporary name and renames it, so that a reader sees the old state or the new one, also after a
/// crash of the program; one of the host can lose it. Only the owner may read it: inputs can be confidential.
pub fn write<T: Serialize>(path: &Path, record: &T) -> Result<(), RecordError> {
    let json =
        serde_json::to_vec(record).map_err(|source| RecordError::Json { path: path.to_owned(), source })?;
    let temporary = path.with_extension("tmp");
    let attempt = || -> io::Result<()> {
        let mut file = files::options(0o600).write(true).create(true).truncate(true).open(&temporary)?;
        file.write_all(&json)?;
        // Windows renames no file that is open for writing.
        drop(file);
        files::replace(&temporary, path)
    };
    attempt().map_err(|source| {
        // A half-written temporary file on a full disk would only keep it full.
        let _ = fs::remove_file(&temporary);
        RecordError::Io { path: path.to_owned(), verb: "written", source }
    })
}
