//! Where an execution lives on disk: its working folder (created here, never an existing one), its control folder with
//! the records from which a restarted agent goes on, and their removal when all is over. Knows no processes and no wire.
//!
//! ```text
//! <output_dir>/<execution>/            the program's own: its files, stdout.log
//! <resource_file_dir>/<execution>/     ours: job.json, then exit.json (supervisor), ending.json (outbox), finished
//! ```

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use thiserror::Error;
use wps_remote_protocol::{ExecutionError, ExecutionId, Outputs, ProcessId};

use crate::files;
use crate::outputs::Expected;
use crate::supervise;
use crate::supervise::record::{self, EXIT_FILE, Exit, JOB_FILE, Launch, RecordError, RunAs};

const ENDING_FILE: &str = "ending.json";
const FINISHED_FILE: &str = "finished";
const POSITION_FILE: &str = "position.json";
const INSTANCE_LOCK: &str = "agent.lock";
/// Name of the file in the working folder that takes the program's output.
pub const LOG_FILE: &str = "stdout.log";

/// Version of the record's form; a record of another version is left alone.
const RECORD_VERSION: u32 = 1;

/// `job.json`: all that a later agent must know of an execution.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Form of this record.
    pub version: u32,
    /// Which execution.
    pub execution: ExecutionId,
    /// Of which process.
    pub process: ProcessId,
    /// Room nickname of the orchestrator that asked for it.
    pub originator: String,
    /// Public address of the orchestrator's service, as the request named it; GeoServer wants to hear it again.
    #[serde(default)]
    pub base_url: String,
    /// Units of capacity it takes.
    pub weight: f64,
    /// Wall-clock time of acceptance, milliseconds since 1970.
    pub accepted_ms: i64,
    /// The working folder, created for this execution.
    pub work_dir: PathBuf,
    /// A second folder that was created for it, where the descriptor has a `workdir` elsewhere.
    #[serde(default)]
    pub extra_dir: Option<PathBuf>,
    /// Both are left when the record is removed: the descriptor is being debugged.
    #[serde(default)]
    pub keep: bool,
    /// What the supervisor starts.
    pub launch: Launch,
    /// File that gets the program's output without the records that a rule consumed, if that is a result.
    #[serde(default)]
    pub stdout_result: Option<PathBuf>,
    /// What must be there at the end.
    pub outputs: Vec<Expected>,
    /// How its output lines are read, as the descriptor said it when the execution began.
    #[serde(default)]
    pub rules: serde_json::Value,
}

impl Record {
    /// The form that this program writes.
    pub const VERSION: u32 = RECORD_VERSION;
}

/// `ending.json`: what is told to the orchestrator, again and again until it says that it is stored there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// Well, with these outputs.
    Completed(Outputs),
    /// Badly.
    Failed(ExecutionError),
}

/// Why a folder cannot be used.
#[derive(Debug, Error)]
pub enum WorkdirError {
    /// The folder is there already.
    #[error("folder {} exists already: an execution never uses a folder that was not made for it", .0.display())]
    Exists(PathBuf),
    /// It cannot be made, read or removed.
    #[error("{what} {} cannot be {verb}: {source}", path.display())]
    Io {
        /// What it is for.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// What was tried.
        verb: &'static str,
        /// What the system says.
        source: io::Error,
    },
    /// A record is at fault.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// Another agent works in the same control folder.
    #[error(
        "another agent works with {} already: stop it, or give this one a `resource_file_dir` of its own", .0.display()
    )]
    InUse(PathBuf),
}

/// The folder that holds the control folders of all executions, locked for this agent.
#[derive(Debug)]
pub struct Control {
    root: PathBuf,
    _lock: File,
}

/// The control folder of one execution.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Folder {
    path: PathBuf,
}

/// What a control folder says at the start of an agent.
#[derive(Debug)]
pub enum Found {
    /// It runs, or may have ended without an agent's notice.
    Open(Folder, Box<Record>),
    /// It ended; the orchestrator does not know yet.
    Ended(Folder, Box<Record>, Ending),
    /// It ended and the orchestrator knows.
    Finished(ExecutionId),
}

impl Control {
    /// Takes the folder for this agent alone; creates its last level if missing.
    pub fn open(root: &Path) -> Result<Self, WorkdirError> {
        let fail = |verb| {
            move |source| WorkdirError::Io { what: "control folder", path: root.to_owned(), verb, source }
        };
        match files::folder(0o700).create(root) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(fail("created")(error)),
            Ok(()) | Err(_) => {}
        }
        let root = files::canonical(root).map_err(fail("resolved"))?;
        match files::hold(&root.join(INSTANCE_LOCK)).map_err(fail("locked"))? {
            Some(lock) => Ok(Self { root, _lock: lock }),
            None => Err(WorkdirError::InUse(root)),
        }
    }

    /// Where it is.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The control folder that belongs to an execution, whether it exists or not.
    pub fn folder(&self, execution: &ExecutionId) -> Folder {
        Folder { path: self.root.join(execution.as_str()) }
    }

    /// Everything that former agents have left here. What is damaged or not ours is named in the second list and left
    /// alone.
    pub fn scan(&self) -> Result<(Vec<Found>, Vec<String>), WorkdirError> {
        let mut found = Vec::new();
        let mut strange = Vec::new();
        for folder in self.folders()? {
            let execution = folder.path.file_name().and_then(|name| ExecutionId::new(name.to_str()?).ok());
            let Some(execution) = execution else {
                strange.push(format!("{} is none of ours and left alone", folder.path.display()));
                continue;
            };
            if folder.finished_at().is_some() {
                found.push(Found::Finished(execution));
                continue;
            }
            match folder.record() {
                Ok(record) if record.version != RECORD_VERSION || record.execution != execution => {
                    strange.push(format!("the record in {} is of another kind", folder.path.display()));
                }
                Ok(record) => found.push(match folder.ending() {
                    Ok(ending) => Found::Ended(folder, Box::new(record), ending),
                    Err(error) => {
                        if !error.is_absent() {
                            strange.push(error.to_string());
                        }
                        Found::Open(folder, Box::new(record))
                    }
                }),
                // The agent ended before the job was put down completely; nothing was started or promised.
                Err(error) if error.is_absent() => folder.remove_if_empty(),
                Err(error) => strange.push(error.to_string()),
            }
        }
        Ok((found, strange))
    }

    /// Removes the folders of executions that were finished at least `retention` before `now`; gives what was removed
    /// and what could not be.
    pub fn sweep(
        &self,
        retention: Duration,
        now: SystemTime,
    ) -> Result<(Vec<ExecutionId>, Vec<WorkdirError>), WorkdirError> {
        let (mut removed, mut failed) = (Vec::new(), Vec::new());
        for folder in self.folders()? {
            let due = folder
                .finished_at()
                .is_some_and(|at| now.duration_since(at).is_ok_and(|age| age >= retention));
            // A mark can be wrong, a lock that is held cannot.
            if !due || supervise::living(&folder.path).is_some() {
                continue;
            }
            match folder.remove() {
                Ok(Some(execution)) => removed.push(execution),
                Ok(None) => {}
                Err(error) => failed.push(error),
            }
        }
        Ok((removed, failed))
    }

    fn folders(&self) -> Result<Vec<Folder>, WorkdirError> {
        let fail = |source| WorkdirError::Io {
            what: "control folder",
            path: self.root.clone(),
            verb: "listed",
            source,
        };
        let mut folders = Vec::new();
        for entry in fs::read_dir(&self.root).map_err(fail)? {
            let entry = entry.map_err(fail)?;
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                folders.push(Folder { path: entry.path() });
            }
        }
        Ok(folders)
    }
}

impl Folder {
    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes the control folder and the working folder, lets `fill` write files into the latter, and puts down the record.
    /// When the record exists the job is promised: everything it needs is on disk.
    pub fn create<E: From<WorkdirError>>(
        &self,
        record: &Record,
        fill: impl FnOnce() -> Result<(), E>,
    ) -> Result<(), E> {
        make(&self.path, "control folder", 0o700)?;
        if let Some(parent) = record.work_dir.parent() {
            let fail = |source| WorkdirError::Io {
                what: "output folder",
                path: parent.to_owned(),
                verb: "created",
                source,
            };
            // Another user must be able to pass, though not to look around.
            let mode = if record.launch.run_as.is_some() { 0o711 } else { 0o770 };
            files::folder(mode).recursive(true).create(parent).map_err(fail)?;
        }
        if let Err(error) = make(&record.work_dir, "working folder", 0o770) {
            self.remove_if_empty();
            return Err(error.into());
        }
        let made = fill().and_then(|()| {
            if let Some(user) = &record.launch.run_as {
                give(&record.work_dir, user)?;
            }
            Ok(record::write(&self.path.join(JOB_FILE), record).map_err(WorkdirError::from)?)
        });
        if made.is_err() {
            // Both were made a moment ago, for this alone, and no record will lead anybody here to tidy up.
            let _ = remove_tree(&record.work_dir, "working folder");
            let _ = self.remove_control();
        }
        made
    }

    /// The record.
    pub fn record(&self) -> Result<Record, RecordError> {
        record::read(&self.path.join(JOB_FILE))
    }

    /// How the program ended.
    pub fn exit(&self) -> Result<Exit, RecordError> {
        record::read(&self.path.join(EXIT_FILE))
    }

    /// What is to be told to the orchestrator.
    pub fn ending(&self) -> Result<Ending, RecordError> {
        record::read(&self.path.join(ENDING_FILE))
    }

    /// Puts down what is to be told to the orchestrator. Not synced, see [`Folder::make_durable`].
    pub fn write_ending(&self, ending: &Ending) -> Result<(), RecordError> {
        record::write(&self.path.join(ENDING_FILE), ending)
    }

    /// How many bytes of the output were reported by a former agent.
    pub fn position(&self) -> u64 {
        record::read(&self.path.join(POSITION_FILE)).unwrap_or(0)
    }

    /// Puts down how many bytes of the output were reported.
    pub fn write_position(&self, bytes: u64) -> Result<(), RecordError> {
        record::write(&self.path.join(POSITION_FILE), &bytes)
    }

    /// Marks that the orchestrator has the ending: from now on the folders may be removed after the retention time.
    pub fn mark_finished(&self) -> Result<(), WorkdirError> {
        let path = self.path.join(FINISHED_FILE);
        match File::create(&path) {
            Ok(_) => Ok(()),
            // Nothing was ever put down for it: refused before it began.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(source) => Err(WorkdirError::Io { what: "mark", path, verb: "written", source }),
        }
    }

    /// Syncs the ending, unless it is known to be stored elsewhere by now: it must survive a crash of the host.
    pub fn make_durable(&self) -> io::Result<()> {
        if self.finished_at().is_some() {
            return Ok(());
        }
        for name in [JOB_FILE, EXIT_FILE, ENDING_FILE] {
            match files::sync(&self.path.join(name)) {
                // An execution that never started has no exit record.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                result => result?,
            }
        }
        match files::sync_folder(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result,
        }
    }

    fn finished_at(&self) -> Option<SystemTime> {
        fs::metadata(self.path.join(FINISHED_FILE)).ok()?.modified().ok()
    }

    fn remove(&self) -> Result<Option<ExecutionId>, WorkdirError> {
        let record = match self.record() {
            Ok(record) => record,
            Err(error) if error.is_absent() => {
                self.remove_control()?;
                return Ok(None);
            }
            Err(error) => return Err(error.into()),
        };
        // The record says what we created; the name is checked again because what follows cannot be undone.
        let ours = |folder: &&PathBuf| {
            folder.is_absolute() && folder.file_name().is_some_and(|name| name == record.execution.as_str())
        };
        let folders = std::iter::once(&record.work_dir).chain(&record.extra_dir);
        for folder in folders.filter(|_| !record.keep).filter(ours) {
            remove_tree(folder, "working folder")?;
        }
        self.remove_control()?;
        Ok(Some(record.execution))
    }

    fn remove_control(&self) -> Result<(), WorkdirError> {
        remove_tree(&self.path, "control folder")
    }

    /// Only ever removes an empty folder.
    fn remove_if_empty(&self) {
        let _ = fs::remove_dir(&self.path);
    }
}

/// Makes the user the owner of a folder and of all in it; nothing of that user runs in it yet. Links are not followed.
fn give(path: &Path, user: &RunAs) -> Result<(), WorkdirError> {
    let fail = |source| WorkdirError::Io {
        what: "working folder",
        path: path.to_owned(),
        verb: "given to its user",
        source,
    };
    files::give(path, user.uid, user.gid).map_err(fail)?;
    if fs::symlink_metadata(path).map_err(fail)?.is_dir() {
        for entry in fs::read_dir(path).map_err(fail)? {
            give(&entry.map_err(fail)?.path(), user)?;
        }
    }
    Ok(())
}

/// Links are removed, never followed.
fn remove_tree(path: &Path, what: &'static str) -> Result<(), WorkdirError> {
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => {}
        // A link or file that took the folder's place is not ours to judge; a missing one is gone already.
        Ok(_) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => {
            return Err(WorkdirError::Io { what, path: path.to_owned(), verb: "examined", source });
        }
    }
    fs::remove_dir_all(path).map_err(|source| WorkdirError::Io {
        what,
        path: path.to_owned(),
        verb: "removed",
        source,
    })
}

fn make(path: &Path, what: &'static str, mode: u32) -> Result<(), WorkdirError> {
    let fail = |verb| move |source| WorkdirError::Io { what, path: path.to_owned(), verb, source };
    match files::folder(mode).create(path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            return Err(WorkdirError::Exists(path.to_owned()));
        }
        Err(error) => return Err(fail("created")(error)),
    }
    // Whatever the umask of the service is: the group that shares results must get in, others must not.
    files::set_mode(path, mode).map_err(fail("given its permissions"))
}

#[cfg(test)]
mod tests;
