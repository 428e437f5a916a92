//! Whether a program ended because of one of its limits, and which one. Says only what is known; where a limit may be the
//! reason but need not, it is named as what was in force.

use std::fs;
use std::path::Path;

use super::cgroup::Group;
use super::record::{Launch, Outcome};
use super::restrict::LAST_SECONDS;

/// SIGXCPU and SIGXFSZ, by which the system tells that a limit is exceeded; SIGKILL; the two by which allocators give up.
const CPU: i32 = 24;
const FILE_SIZE: i32 = 25;
const KILLED: i32 = 9;
const BY_ALLOCATOR: [i32; 3] = [6, 11, 7];
/// What shells add to the signal that ended their last command, to make an exit code of it.
const SHELL: i32 = 128;
/// The system counts CPU time for limits more finely than it shows it.
const ACCOUNT_MS: u64 = 250;
/// Most files that are looked at.
const FILES: usize = 10_000;

/// The words for a failure's text, if a limit has to do with it. `cpu_ms`: CPU time of the program itself.
pub(super) fn exceeded(
    launch: &Launch,
    outcome: &Outcome,
    cpu_ms: Option<u64>,
    group: Option<&Group>,
) -> Option<String> {
    let limits = &launch.limits;
    let (signal, in_shell) = match outcome {
        Outcome::Signalled(signal) => (*signal, false),
        Outcome::Exited(code) if *code > SHELL => (*code - SHELL, true),
        Outcome::Exited(code) if *code != 0 => (0, false),
        _ => return None,
    };
    let by = |what: String| {
        if in_shell {
            format!("a program that it started exceeded {what}")
        } else {
            format!("exceeded {what}")
        }
    };
    if let Some(mb) = limits.memory_mb.filter(|_| group.is_some_and(Group::ran_out_of_memory)) {
        return Some(format!("exceeded memory_mb = {mb}"));
    }
    if let Some(most) = limits.cpu_seconds {
        // One that takes no notice of the signal is killed a little later.
        let all = most.saturating_add(LAST_SECONDS).saturating_mul(1000);
        let killed = signal == KILLED && cpu_ms.is_some_and(|used| used + ACCOUNT_MS >= all);
        if signal == CPU || killed {
            return Some(by(format!("cpu_seconds = {most}")));
        }
    }
    if let Some(mb) = limits.file_mb {
        if signal == FILE_SIZE {
            return Some(by(format!("output_mb = {mb}")));
        }
        // A program that takes no notice of the signal sees an error when it writes on.
        let full = launch.log.parent().and_then(|folder| file_of(folder, mb.saturating_mul(1024 * 1024)));
        if let Some(name) = full {
            return Some(format!("file {name} has reached output_mb = {mb}"));
        }
    }
    // The system only refuses memory; what a program makes of that is its own affair.
    let mb = limits.memory_mb.filter(|_| !group.is_some_and(Group::limits_memory))?;
    (signal == 0 || in_shell || BY_ALLOCATOR.contains(&signal))
        .then(|| format!("limit memory_mb = {mb} was in force"))
}

/// The name of a file of exactly this size in a folder or below it.
fn file_of(folder: &Path, bytes: u64) -> Option<String> {
    let mut folders = vec![folder.to_owned()];
    let mut seen = 0;
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            seen += 1;
            if seen > FILES {
                return None;
            }
            // Of the entry itself: links are not followed.
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.is_dir() {
                folders.push(entry.path());
            } else if metadata.is_file() && metadata.len() == bytes {
                return Some(entry.file_name().to_string_lossy().into_owned());
            }
        }
    }
    None
}
