//! The supervisor of one job: a small process of its own that starts the program, keeps its output and its time, ends
//! everything it has started, and writes down how it ended. It outlives the agent, talks to nobody, and knows only the
//! job's control folder.
//!
//! ```text
//!  lock ──► start ──► running ──┬─ program ended ──────────► end left-overs ─┐
//!             │                 ├─ deadline ──► TERM, grace, KILL ───────────┼─► exit.json
//!             └─ cannot start   └─ SIGTERM  ──► TERM, grace, KILL ───────────┘
//! ```

mod asked;
#[cfg(unix)]
pub mod cgroup;
pub mod record;

#[cfg(unix)]
mod exceeded;
#[cfg(unix)]
mod fork;
mod pump;
#[cfg(unix)]
mod restrict;
#[cfg(unix)]
mod serve;
#[cfg(unix)]
mod start;
#[cfg(unix)]
mod tree;
#[cfg(windows)]
mod windows;

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout};

use self::asked::Requests;
#[cfg(windows)]
pub use self::asked::ask;
use self::cgroup::Group;
use self::pump::Pumped;
use self::record::{EXIT_FILE, Exit, JOB_FILE, JobFile, LOCK_FILE, Launch, Outcome, TROUBLE_FILE};
#[cfg(unix)]
pub(crate) use self::serve::MAX_NAME;
use self::tree::Tree;
#[cfg(windows)]
pub use self::windows::cgroup;
#[cfg(windows)]
use self::windows::{exceeded, serve, start, tree};
use crate::files;

/// The subcommand that runs a supervisor.
pub const SUBCOMMAND: &str = "supervise";

/// Stands for the control folder: the process becomes a server that splits off a supervisor for each job.
pub const SERVE: &str = "--serve";

/// How often and how long a lock is looked at that is held by somebody without a name.
const PROBES: u32 = 50;
const PROBE: Duration = Duration::from_millis(2);

/// How long processes that outlive their program get to end by themselves: they had their chance while it ran.
const LEFTOVER_GRACE: Duration = Duration::from_secs(1);
/// How long the last output may take to reach the log file after all writers are gone.
const LAST_OUTPUT: Duration = Duration::from_secs(10);
/// The same when a process could not be ended and may hold the output open for ever.
const LAST_OUTPUT_WITH_SURVIVORS: Duration = Duration::from_millis(500);

/// Whether the program was called as a supervisor. `main` asks this before it starts anything heavy.
pub fn is_wanted(args: &[OsString]) -> bool {
    args.get(1).is_some_and(|word| word == SUBCOMMAND)
}

/// Runs a supervisor: `args` are the program's arguments, `<program> supervise <control folder>`, or [`SERVE`] in the
/// folder's place. Exit code 0: the ending is written, or the server's agent is gone; 3: another supervisor has the job or had it; 1: trouble, written to the control folder; 2: wrong call.
pub fn main(args: &[OsString]) -> ExitCode {
    let [_, _, folder] = args else {
        // Nobody reads this unless it was called by hand.
        let _ = writeln!(io::stderr(), "usage: wps-remote-agent supervise <control folder of a job>");
        return ExitCode::from(2);
    };
    // A session of its own: no terminal and no signal to the agent's group reaches the job.
    let own_session = tree::own_session();
    let folder = if folder == SERVE {
        match serve::serve() {
            Ok(Some(folder)) => folder,
            Ok(None) => return ExitCode::SUCCESS,
            Err(_) => return ExitCode::FAILURE,
        }
    } else {
        PathBuf::from(folder)
    };
    let folder = folder.as_path();
    match supervise(folder, own_session) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(3),
        Err(trouble) => {
            let file = files::options(0o600).append(true).create(true).open(folder.join(TROUBLE_FILE));
            let _ = file.and_then(|mut file| writeln!(file, "{trouble}"));
            ExitCode::FAILURE
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error("the supervisor's lock cannot be taken: {0}")]
    Lock(io::Error),
    #[error("the supervisor cannot be set up: {0}")]
    SetUp(io::Error),
    #[error(transparent)]
    Record(#[from] record::RecordError),
}

/// `false` if the job is someone else's or has ended.
fn supervise(folder: &Path, own_session: bool) -> Result<bool, Trouble> {
    let Some(_lock) = take_lock(&folder.join(LOCK_FILE)).map_err(Trouble::Lock)? else { return Ok(false) };
    let exit_file = folder.join(EXIT_FILE);
    if exit_file.exists() {
        return Ok(false);
    }
    let started_ms = wall_clock_ms();
    let not_started = |why: String| Exit {
        outcome: Outcome::NotStarted(why),
        started_ms,
        ended_ms: wall_clock_ms(),
        receipt: None,
        dropped_bytes: 0,
        exceeded: None,
        log_error: None,
    };
    let exit = match record::read::<JobFile>(&folder.join(JOB_FILE)) {
        Err(error) => not_started(error.to_string()),
        Ok(job) => {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Trouble::SetUp)?;
            match runtime.block_on(run(&job.launch, folder, own_session)).map_err(Trouble::SetUp)? {
                Ok(Run { outcome, receipt, pumped, exceeded }) => Exit {
                    outcome,
                    started_ms,
                    ended_ms: wall_clock_ms(),
                    receipt,
                    dropped_bytes: pumped.dropped_bytes,
                    exceeded,
                    log_error: pumped.error,
                },
                Err(start) => not_started(start.to_string()),
            }
        }
    };
    // Not synced: that would cost more than the whole job, for endings that the orchestrator has stored a moment later.
    // The agent syncs those that nobody takes.
    record::write(&exit_file, &exit)?;
    Ok(true)
}

/// The lock says "a supervisor lives", whatever happens to process ids; its text says which one.
fn take_lock(path: &Path) -> io::Result<Option<File>> {
    let mut patience = PROBES;
    let mut file = loop {
        match files::hold(path)? {
            Some(file) => break file,
            // An agent that looks whether somebody lives holds the lock for a moment; a supervisor names itself in it.
            None if patience > 0 && fs::metadata(path)?.len() == 0 => {
                patience -= 1;
                std::thread::sleep(PROBE);
            }
            None => return Ok(None),
        }
    };
    file.write_all(format!("{}\n", std::process::id()).as_bytes())?;
    Ok(Some(file))
}

/// Whether a supervisor holds the lock of this control folder; if so, its process id.
pub fn living(folder: &Path) -> Option<i32> {
    let path = folder.join(LOCK_FILE);
    for _ in 0..PROBES {
        if !files::is_held(&path) {
            return None;
        }
        let text = fs::read_to_string(&path).ok()?;
        if let Some(pid) = text.strip_suffix('\n').and_then(|pid| pid.parse().ok()) {
            return Some(pid);
        }
        // It has just taken the lock and is about to write its name, or somebody else looks.
        std::thread::sleep(PROBE);
    }
    None
}

/// Whether a supervisor has ever taken this job.
pub fn has_begun(folder: &Path) -> bool {
    // Created before it is locked, named after that: an empty one is nobody's yet.
    fs::metadata(folder.join(LOCK_FILE)).is_ok_and(|metadata| metadata.len() > 0)
}

struct Run {
    outcome: Outcome,
    receipt: Option<wps_remote_protocol::KillReceipt>,
    pumped: Pumped,
    exceeded: Option<String>,
}

enum Cause {
    Ended,
    Deadline,
    Asked,
}

async fn run(
    launch: &Launch,
    folder: &Path,
    own_session: bool,
) -> io::Result<Result<Run, start::StartError>> {
    // Listeners first: a request to end that comes while the program starts must not be lost.
    let mut requests = Requests::listen(folder)?;
    let ready = tree::prepare()?;

    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    // Without one, limits are those of each process, and the end takes a few rounds.
    let group =
        launch.cgroup.as_ref().and_then(|parent| Group::create(parent, &name, launch.limits.memory_mb).ok());
    let (main, output) = match start::start(launch, group.as_ref()).await {
        Ok(started) => started,
        Err(error) => {
            if let Some(group) = group {
                group.remove();
            }
            return Ok(Err(error));
        }
    };
    let mut tree = Tree::new(main, ready, own_session, group);
    let deadline = (launch.max_running_time_s > 0)
        .then(|| Instant::now().checked_add(Duration::from_secs(launch.max_running_time_s)))
        .flatten();
    let timer = async {
        match deadline {
            Some(at) => sleep_until(at).await,
            None => std::future::pending().await,
        }
    };
    let mut cause = tokio::select! {
        biased;
        _ = tree.main_ended() => Cause::Ended,
        () = requests.next() => Cause::Asked,
        () = timer => Cause::Deadline,
    };
    let own_end = tree.ended();
    if own_end.is_some() {
        cause = Cause::Ended;
    }
    let grace = Duration::from_millis(launch.grace_ms);
    let receipt = match cause {
        Cause::Ended => tree.end(grace.min(LEFTOVER_GRACE)).await,
        // The receipt of a deliberate end is owed even if the program was gone by itself in the last moment.
        Cause::Deadline | Cause::Asked => Some(tree.end(grace).await.unwrap_or_default()),
    };
    let survivors = receipt.as_ref().is_some_and(|receipt| !receipt.survivors.is_empty());
    let patience = if survivors { LAST_OUTPUT_WITH_SURVIVORS } else { LAST_OUTPUT };
    let pumped = match timeout(patience, output).await {
        Ok(Ok(pumped)) => pumped,
        _ => Pumped {
            dropped_bytes: 0,
            error: Some("the end of the output could not be written in time".to_owned()),
        },
    };
    let outcome = match (cause, own_end) {
        (Cause::Deadline, _) => Outcome::TimedOut,
        (Cause::Asked, _) => Outcome::Aborted,
        (Cause::Ended, status) => status.map_or(Outcome::Exited(-1), tree::outcome_of),
    };
    let exceeded = exceeded::exceeded(launch, &outcome, tree.cpu_ms(), tree.group());
    if let Some(group) = tree.into_group() {
        group.remove();
    }
    Ok(Ok(Run { outcome, receipt, pumped, exceeded }))
}

#[expect(
    clippy::disallowed_methods,
    reason = "the supervisor is a driver: its record carries the wall clock"
)]
fn wall_clock_ms() -> i64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
