//! A real program under test: started with its output in a file, watched, and stopped. Knows nothing of what it does.

use std::fs::{self, File};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::wait_until;

/// Longest orderly end of a program.
const STOP: Duration = Duration::from_secs(20);

/// A started program. Dropping it kills it.
#[derive(Debug)]
pub struct Program {
    name: String,
    log: PathBuf,
    pid: u32,
    state: Mutex<State>,
}

#[derive(Debug)]
enum State {
    Running(Child),
    /// Ended because the test asked for it, or the end was noticed and reported.
    Ended(ExitStatus),
}

impl Program {
    /// Starts a command; both its outputs go to `log`, which is appended to.
    pub fn start(name: &str, mut command: Command, log: &Path) -> io::Result<Self> {
        let file = File::options().create(true).append(true).open(log)?;
        command
            .stdin(Stdio::null())
            .stdout(Stdio::from(file.try_clone()?))
            .stderr(Stdio::from(file))
            // Signals that the terminal sends to the test run are not for it.
            .process_group(0);
        let child = command.spawn()?;
        let pid = child.id();
        Ok(Self { name: name.to_owned(), log: log.to_owned(), pid, state: Mutex::new(State::Running(child)) })
    }

    /// What the test calls it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Process id of the program itself.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Everything it wrote so far.
    pub fn log(&self) -> String {
        fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// The status if it is not running any more.
    pub fn ended(&self) -> Option<ExitStatus> {
        let mut state = self.lock();
        match &mut *state {
            State::Ended(status) => Some(*status),
            State::Running(child) => match child.try_wait() {
                Ok(Some(status)) => {
                    *state = State::Ended(status);
                    Some(status)
                }
                _ => None,
            },
        }
    }

    /// Asks it to end (SIGTERM) and waits; kills it when it does not.
    ///
    /// # Panics
    /// If it had ended before or had to be killed.
    pub fn stop(&self) -> ExitStatus {
        assert!(self.ended().is_none(), "{} had ended already:\n{}", self.name, self.tail());
        self.signal(Signal::TERM);
        let ended = wait_until(STOP, || self.ended());
        if ended.is_none() {
            self.kill();
        }
        ended.unwrap_or_else(|| {
            panic!("{} did not end within {STOP:?} after SIGTERM:\n{}", self.name, self.tail())
        })
    }

    /// Kills it at once (SIGKILL).
    pub fn kill(&self) {
        let mut state = self.lock();
        if let State::Running(child) = &mut *state {
            let _ = child.kill();
            if let Ok(status) = child.wait() {
                *state = State::Ended(status);
            }
        }
    }

    /// Sends a signal to the program alone.
    pub fn signal(&self, signal: Signal) {
        if self.ended().is_none()
            && let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw)
        {
            let _ = kill_process(pid, signal);
        }
    }

    /// The last lines of its log, for messages.
    pub fn tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }

    /// Resident memory in bytes.
    pub fn resident(&self) -> u64 {
        resident(self.pid)
    }

    /// The most memory, in bytes, that was resident since the last [`Self::forget_peak`], or since the start.
    pub fn peak(&self) -> u64 {
        status_kib(self.pid, "VmHWM:") * 1024
    }

    /// From here on [`Self::peak`] counts anew. Tells whether the system allows that (proc(5), `clear_refs`).
    pub fn forget_peak(&self) -> bool {
        fs::write(format!("/proc/{}/clear_refs", self.pid), "5").is_ok()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Resident memory of a process in bytes; 0 when it is gone.
pub fn resident(pid: u32) -> u64 {
    status_kib(pid, "VmRSS:") * 1024
}

/// Processor time that a process has used so far; zero when it is gone. Linux counts it in hundredths of a second.
pub fn cpu_time(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name, which may hold anything, ends with the last bracket (proc(5)).
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks: u64 =
        fields.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    Duration::from_millis(10 * ticks)
}

/// A line of `/proc/<pid>/status` that counts KiB; 0 when the process is gone.
fn status_kib(pid: u32, name: &str) -> u64 {
    fs::read_to_string(format!("/proc/{pid}/status"))
        .ok()
        .and_then(|status| {
            let line = status.lines().find(|line| line.starts_with(name))?;
            line.split_whitespace().nth(1)?.parse::<u64>().ok()
        })
        .unwrap_or(0)
}

/// Memory of a process in bytes, in which a page that `n` processes share counts as an `n`th; 0 when it is gone.
pub fn proportional(pid: u32) -> u64 {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

/// Processes (not zombies) that have this text in their command line or the path of their working directory, with their
/// command line; the test run itself left out.
pub fn processes_with(marker: &str) -> Vec<(u32, String)> {
    let own = std::process::id();
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok())
        .filter(|pid| *pid != own)
        .filter_map(|pid| {
            // A zombie has neither any more.
            let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            let folder = fs::read_link(format!("/proc/{pid}/cwd")).unwrap_or_default();
            (line.contains(marker) || folder.to_string_lossy().contains(marker)).then_some((pid, line))
        })
        .collect()
}

/// Path of a product's program: `NAME_BIN` if that is set (an installed package, say), else the one of this build, which is
/// brought up to date once in each test run, unless `WPS_TESTS_BUILT` says that it is.
pub fn binary(name: &str) -> PathBuf {
    let variable = format!("{}_BIN", name.to_ascii_uppercase().replace('-', "_"));
    if let Some(path) = std::env::var_os(&variable) {
        return PathBuf::from(path);
    }
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(build).join(name)
}

/// Builds the programs in the profile of the tests, beside the tests.
fn build() -> PathBuf {
    let tests = std::env::current_exe().expect("the path of this test is known");
    // target/debug/deps/dismiss-0123 → target/debug; a program of this crate lies one level higher.
    let folder = tests.parent().expect("a program lies in a folder");
    let folder =
        if folder.ends_with("deps") { folder.parent().expect("`deps` lies in a folder") } else { folder };
    if std::env::var_os("WPS_TESTS_BUILT").is_some() {
        return folder.to_owned();
    }
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        // The whole workspace: the features of dependencies depend on what is selected.
        .args(["build", "--quiet", "--workspace", "--bins"])
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    if folder.ends_with("release") {
        cargo.arg("--release");
    }
    if let Some(target) = folder.parent() {
        cargo.env("CARGO_TARGET_DIR", target);
    }
    let output = cargo.output().expect("cargo can be started");
    assert!(
        output.status.success(),
        "the programs do not build:\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    folder.to_owned()
}
