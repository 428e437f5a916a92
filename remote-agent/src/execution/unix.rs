//! Processes as Unix has them: the descendants of a process, by /proc, and signals to them that cannot hit a stranger
//! who got a recycled process id. Knows nothing of jobs. The Windows counterpart (job objects) takes this file's place there.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open, pidfd_send_signal};
use wps_remote_protocol::KillReceipt;

use super::WORKDIR_VARIABLE;

/// How long processes without a supervisor are hunted.
const HUNT: Duration = Duration::from_secs(5);

/// One process as seen at one moment. Its id together with its start time names it for ever.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Seen {
    /// Process id.
    pub pid: i32,
    /// Start time in clock ticks since boot.
    pub started: u64,
    /// Parent's process id.
    pub parent: i32,
    /// Process group.
    pub group: i32,
    /// State letter of proc(5): `R`, `S`, `D`, `Z`, `T` …
    pub state: char,
    /// CPU time that it has used, in clock ticks.
    pub cpu: u64,
    /// The command's short name.
    pub name: String,
}

impl Seen {
    /// Whether it has ended and only waits to be collected.
    pub fn is_zombie(&self) -> bool {
        matches!(self.state, 'Z' | 'X')
    }
}

/// Reads one process's line of proc(5).
pub fn look(pid: i32) -> Option<Seen> {
    let bytes = fs::read(format!("/proc/{pid}/stat")).ok()?;
    parse_stat(pid, &String::from_utf8_lossy(&bytes))
}

/// Every process that is a child, grandchild … of `root`, `root` excluded. Children that `root` adopted because it is
/// their subreaper are included, since they are its children then.
pub fn descendants(root: i32) -> io::Result<Vec<Seen>> {
    let mut by_parent: HashMap<i32, Vec<Seen>> = HashMap::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let pid = entry.file_name().to_str().and_then(|name| name.parse().ok());
        if let Some(seen) = pid.and_then(look) {
            by_parent.entry(seen.parent).or_default().push(seen);
        }
    }
    let mut found = Vec::new();
    let mut parents = vec![root];
    while let Some(parent) = parents.pop() {
        for child in by_parent.remove(&parent).unwrap_or_default() {
            parents.push(child.pid);
            found.push(child);
        }
    }
    Ok(found)
}

/// Every process, except this one, whose environment at its start held `name=value`. For what is left of a job whose
/// supervisor was killed: nobody can be asked for its descendants any more.
pub fn with_environment(name: &str, value: &str) -> Vec<Seen> {
    let wanted = format!("{name}={value}");
    let me = std::process::id().to_string();
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let mut found = Vec::new();
    for entry in entries.flatten() {
        let Some(pid) =
            entry.file_name().to_str().filter(|name| *name != me).and_then(|name| name.parse().ok())
        else {
            continue;
        };
        let Ok(environment) = fs::read(entry.path().join("environ")) else { continue };
        if environment.split(|byte| *byte == 0).any(|entry| entry == wanted.as_bytes()) {
            found.extend(look(pid).filter(|seen| !seen.is_zombie()));
        }
    }
    found
}

/// Sends a signal to exactly this process; `false` if it is gone, or if the system forbids it.
pub fn signal(seen: &Seen, signal: Signal) -> bool {
    let Some(pid) = Pid::from_raw(seen.pid) else { return false };
    match pidfd_open(pid, PidfdFlags::empty()) {
        // The descriptor is bound to whoever has the id now; the start time tells whether that is still the one we saw.
        Ok(fd) => {
            look(seen.pid).is_some_and(|now| now.started == seen.started)
                && pidfd_send_signal(fd, signal).is_ok()
        }
        Err(rustix::io::Errno::SRCH) => false,
        // Kernels before 5.3, or a sandbox that hides the call.
        Err(_) => {
            look(seen.pid).is_some_and(|now| now.started == seen.started) && kill_process(pid, signal).is_ok()
        }
    }
}

/// Opens a file to read; not what a link in its place leads to, and not a pipe that would let us wait.
pub fn open_itself(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::ErrorKind::InvalidInput.into()) }
}

/// Ends the processes of a job that has no supervisor any more; they are known by their environment. `at_ms`: the wall
/// clock.
pub(super) fn end_orphans(work_dir: &Path, at_ms: i64) -> Option<KillReceipt> {
    let begun = Instant::now();
    let mut receipt = KillReceipt { at_ms, forced_after_ms: Some(0), ..KillReceipt::default() };
    let mut known = std::collections::HashSet::new();
    loop {
        let left = with_environment(WORKDIR_VARIABLE, &work_dir.to_string_lossy());
        if left.is_empty() || begun.elapsed() >= HUNT {
            receipt.survivors = left
                .iter()
                .take(100)
                .map(|seen| format!("{} {} {}", seen.pid, seen.name, seen.state))
                .collect();
            break;
        }
        for seen in &left {
            signal(seen, Signal::STOP);
        }
        for seen in left {
            signal(&seen, Signal::KILL);
            known.insert((seen.pid, seen.started));
        }
        sleep(Duration::from_millis(10));
    }
    receipt.forced = u32::try_from(known.len()).unwrap_or(u32::MAX);
    receipt.found = receipt.forced;
    receipt.ended = receipt.forced.saturating_sub(u32::try_from(receipt.survivors.len()).unwrap_or(u32::MAX));
    receipt.took_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    (receipt.forced > 0 || !receipt.survivors.is_empty()).then_some(receipt)
}

/// What an exit code means that the system itself has set: there is none.
pub(super) fn exit_note(_code: i32) -> Option<&'static str> {
    None
}

/// The usual name of a signal, for people.
pub fn signal_name(number: i32) -> &'static str {
    match number {
        1 => "SIGHUP",
        2 => "SIGINT",
        3 => "SIGQUIT",
        4 => "SIGILL",
        5 => "SIGTRAP",
        6 => "SIGABRT",
        7 => "SIGBUS",
        8 => "SIGFPE",
        9 => "SIGKILL",
        10 => "SIGUSR1",
        11 => "SIGSEGV",
        12 => "SIGUSR2",
        13 => "SIGPIPE",
        14 => "SIGALRM",
        15 => "SIGTERM",
        24 => "SIGXCPU",
        25 => "SIGXFSZ",
        31 => "SIGSYS",
        _ => "a signal without a common name",
    }
}

/// The second field, the name, is in parentheses and may itself hold blanks and parentheses.
fn parse_stat(pid: i32, line: &str) -> Option<Seen> {
    let open = line.find('(')?;
    let close = line.rfind(')')?;
    let mut rest = line.get(close + 1..)?.split_ascii_whitespace();
    let state = rest.next()?.chars().next()?;
    let parent = rest.next()?.parse().ok()?;
    let group = rest.next()?.parse().ok()?;
    // Fields 14 and 15 of proc_pid_stat(5), then 22.
    let (user, system): (u64, u64) = (rest.nth(8)?.parse().ok()?, rest.next()?.parse().ok()?);
    let started = rest.nth(6)?.parse().ok()?;
    Some(Seen {
        pid,
        started,
        parent,
        group,
        state,
        cpu: user + system,
        name: line.get(open + 1..close)?.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_parentheses_and_blanks_do_not_shift_the_fields() {
        let line = "42 (a) b (c)) S 7 42 42 0 -1 4194304 1 0 0 0 30 5 0 0 20 0 1 0 987654 0 0";
        let seen = parse_stat(42, line).unwrap();
        assert_eq!(
            (seen.parent, seen.state, seen.started, seen.cpu, seen.name.as_str()),
            (7, 'S', 987_654, 35, "a) b (c)")
        );
        assert_eq!(parse_stat(42, "42 (x) S"), None);
        assert_eq!(parse_stat(42, ""), None);
    }

    #[test]
    fn a_child_is_found_and_a_changed_start_time_protects_a_stranger() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let me = i32::try_from(std::process::id()).unwrap();
        let id = i32::try_from(child.id()).unwrap();
        let seen = descendants(me).unwrap().into_iter().find(|seen| seen.pid == id).unwrap();
        let stranger = Seen { started: seen.started + 1, ..seen.clone() };
        assert!(!signal(&stranger, Signal::KILL));
        assert!(child.try_wait().unwrap().is_none(), "the stranger was hit");
        assert!(signal(&seen, Signal::KILL));
        assert!(!child.wait().unwrap().success());
        assert!(!signal(&seen, Signal::KILL), "it is gone");
    }
}
