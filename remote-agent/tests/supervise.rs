//! The supervisor against real processes: every way to end, every way to hide from being ended.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use common::{AGENT, eventually, is_alive, memory_kib, pids, script};
use rustix::process::{Pid, Signal, kill_process};
use wps_remote_agent::supervise::record::{EXIT_FILE, Exit, JOB_FILE, Limits, Outcome};

struct Job {
    folder: tempfile::TempDir,
    argv: Vec<String>,
    max_running_time_s: u64,
    grace_ms: u64,
    log_limit_bytes: u64,
    limits: Limits,
}

struct Supervised {
    child: Child,
    folder: PathBuf,
}

impl Job {
    fn new(body: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let program = script(folder.path(), "program.sh", body);
        Self {
            folder,
            argv: vec![program.to_str().unwrap().to_owned()],
            max_running_time_s: 0,
            grace_ms: 300,
            log_limit_bytes: 1 << 20,
            limits: Limits::default(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn start(&self) -> Supervised {
        let job = serde_json::json!({ "launch": {
            "argv": self.argv, "cwd": self.folder.path(), "env": [["FOLDER", self.folder.path()]],
            "log": self.path("stdout.log"), "log_limit_bytes": self.log_limit_bytes,
            "max_running_time_s": self.max_running_time_s, "grace_ms": self.grace_ms,
            "limits": self.limits,
        }});
        fs::write(self.path(JOB_FILE), job.to_string()).unwrap();
        let child = Command::new(AGENT).arg("supervise").arg(self.folder.path()).spawn().unwrap();
        Supervised { child, folder: self.folder.path().to_owned() }
    }

    fn run(&self) -> Exit {
        self.start().wait()
    }

    fn output(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.path("stdout.log")).unwrap()).into_owned()
    }
}

impl Supervised {
    fn wait(&mut self) -> Exit {
        let status = eventually("the supervisor ends", 30, || self.child.try_wait().unwrap());
        let trouble = fs::read_to_string(self.folder.join("supervisor.log")).unwrap_or_default();
        assert!(status.success(), "{status}: {trouble}");
        serde_json::from_slice(&fs::read(self.folder.join(EXIT_FILE)).unwrap()).unwrap()
    }

    fn abort(&mut self) -> Exit {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(pid, Signal::TERM).unwrap();
        self.wait()
    }

    /// Process ids that the script wrote to `pids`, once there are `count`.
    fn pids(&self, count: usize) -> Vec<i32> {
        let path = self.folder.join("pids");
        eventually("the script writes its process ids", 10, || Some(pids(&path)).filter(|p| p.len() >= count))
    }
}

impl Drop for Supervised {
    fn drop(&mut self) {
        // A test that failed half-way must not leave its processes behind.
        if let (Ok(None), Some(pid)) =
            (self.child.try_wait(), i32::try_from(self.child.id()).ok().and_then(Pid::from_raw))
        {
            let _ = kill_process(pid, Signal::TERM);
            let _ = self.child.wait();
        }
    }
}

fn assert_gone(pids: &[i32]) {
    let left: Vec<_> = pids.iter().filter(|pid| is_alive(**pid)).collect();
    assert!(left.is_empty(), "still alive: {left:?} of {pids:?}");
}

#[test]
fn exit_codes_and_output_are_kept() {
    let job = Job::new("echo out; echo err >&2; exit 3");
    let exit = job.run();
    assert_eq!((exit.outcome, exit.receipt), (Outcome::Exited(3), None));
    assert!(exit.ended_ms >= exit.started_ms && exit.started_ms > 1_600_000_000_000);
    assert_eq!(job.output(), "out\nerr\n");
}

#[test]
fn a_signal_is_told_from_an_exit_code() {
    assert_eq!(Job::new("kill -SEGV $$").run().outcome, Outcome::Signalled(11));
    assert_eq!(Job::new("exit 139").run().outcome, Outcome::Exited(139));
}

#[test]
fn what_cannot_start_says_why_and_names_the_path() {
    let check = |argv: Vec<String>, prepare: &dyn Fn(&Path), expected: &str| {
        let mut job = Job::new("exit 0");
        prepare(&job.path("program.sh"));
        if !argv.is_empty() {
            job.argv = argv;
        }
        let Outcome::NotStarted(why) = job.run().outcome else { panic!("{expected}: it was started") };
        assert!(why.contains(expected), "{why}");
    };
    check(vec!["/nowhere/program".into()], &|_| (), "program /nowhere/program does not exist");
    check(vec!["/dev/null".into()], &|_| (), "/dev/null may not be executed");
    check(
        vec![],
        &|path| fs::write(path, "\u{1}\u{2}").unwrap(),
        "neither a binary for this machine nor a script",
    );
    check(
        vec![],
        &|path| fs::write(path, "#!/no/such/shell\n").unwrap(),
        "the interpreter that its first line",
    );
    check(vec!["/bin/true".into(), "a\0b".into()], &|_| (), "argument 1 of /bin/true holds a NUL");
    check(vec!["/bin/true".into(), "x".repeat(3_000_000)], &|_| (), "too long");
}

#[test]
fn arguments_arrive_byte_for_byte() {
    let mut job = Job::new(r#"for a in "$@"; do printf '%s\0' "$a"; done"#);
    let hostile =
        ["a b", "", "\"'`$(id)`", "line1\nline2\r\n", "--flag; rm -rf /", "äöü 漢字 🌍", "\t*?[x]\\"];
    job.argv.extend(hostile.iter().map(|text| (*text).to_owned()));
    assert_eq!(job.run().outcome, Outcome::Exited(0));
    let expected: String = hostile.iter().map(|text| format!("{text}\0")).collect();
    assert_eq!(fs::read_to_string(job.path("stdout.log")).unwrap(), expected);
}

#[test]
fn standard_input_is_empty_not_open() {
    let job = Job::new("cat; echo done");
    assert_eq!(job.run().outcome, Outcome::Exited(0));
    assert_eq!(job.output(), "done\n");
}

#[test]
fn the_deadline_ends_the_program() {
    let mut job = Job::new("echo $$ >> $FOLDER/pids; exec sleep 60");
    job.max_running_time_s = 1;
    let begun = Instant::now();
    let exit = job.run();
    assert_eq!(exit.outcome, Outcome::TimedOut);
    let receipt = exit.receipt.unwrap();
    assert_eq!((receipt.asked, receipt.forced, receipt.survivors.len()), (1, 0, 0));
    assert!((1..5).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
    assert_gone(&pids(&job.path("pids")));
}

#[test]
fn children_that_ignore_the_polite_signal_are_killed() {
    let job = Job::new(
        "trap '' TERM; for i in 1 2 3; do sh -c 'trap \"\" TERM; echo $$ >> $FOLDER/pids; while :; do sleep 1; done' & done
         echo $$ >> $FOLDER/pids; while :; do sleep 1; done",
    );
    let mut supervised = job.start();
    let pids = supervised.pids(4);
    let exit = supervised.abort();
    assert_eq!(exit.outcome, Outcome::Aborted);
    let receipt = exit.receipt.unwrap();
    assert!(receipt.asked >= 4 && receipt.forced >= 4, "{receipt:?}");
    assert!(receipt.took_ms >= 300 && receipt.took_ms < 5_000 && receipt.survivors.is_empty(), "{receipt:?}");
    assert_gone(&pids);
}

#[test]
fn a_polite_program_is_not_killed_and_may_tidy_up() {
    let mut job = Job::new(
        "trap 'echo tidied; kill $! 2> /dev/null; exit 0' TERM; echo $$ >> $FOLDER/pids; sleep 60 & wait",
    );
    job.grace_ms = 10_000;
    let mut supervised = job.start();
    supervised.pids(1);
    let exit = supervised.abort();
    let receipt = exit.receipt.unwrap();
    assert_eq!((exit.outcome, receipt.forced), (Outcome::Aborted, 0));
    assert!(receipt.took_ms < 5_000, "{receipt:?}");
    assert_eq!(job.output(), "tidied\n");
}

#[test]
fn double_forks_with_their_own_session_do_not_escape() {
    let job = Job::new(
        "(setsid sh -c 'trap \"\" TERM HUP; (sh -c \"trap \\\"\\\" TERM; echo \\$\\$ >> $FOLDER/pids; while :; do sleep 1; done\" &) ; \
         echo $$ >> $FOLDER/pids; while :; do sleep 1; done' &) ; echo $$ >> $FOLDER/pids; exec sleep 60",
    );
    let mut supervised = job.start();
    let pids = supervised.pids(3);
    let exit = supervised.abort();
    assert_eq!(exit.outcome, Outcome::Aborted);
    assert!(exit.receipt.unwrap().survivors.is_empty());
    assert_gone(&pids);
}

#[test]
fn stopped_processes_are_ended_too() {
    let job = Job::new(
        "sh -c 'echo $$ >> $FOLDER/pids; kill -STOP $$; sleep 60' & echo $$ >> $FOLDER/pids; wait; sleep 60",
    );
    let mut supervised = job.start();
    let pids = supervised.pids(2);
    let exit = supervised.abort();
    assert_eq!(exit.outcome, Outcome::Aborted);
    assert_gone(&pids);
}

#[test]
fn a_fork_storm_is_ended() {
    // Bounded by its own depth: if the test fails, the machine survives.
    let job = Job::new(
        "cat > $FOLDER/storm.sh <<'END'
trap '' TERM
echo $$ >> $FOLDER/pids
n=$1
while [ $n -gt 0 ]; do n=$((n-1)); sh $FOLDER/storm.sh $n & done
while :; do sleep 1; done
END
exec sh $FOLDER/storm.sh 7",
    );
    let mut supervised = job.start();
    supervised.pids(40);
    let exit = supervised.abort();
    assert_eq!(exit.outcome, Outcome::Aborted);
    let receipt = exit.receipt.unwrap();
    assert!(receipt.forced >= 40 && receipt.survivors.is_empty(), "{receipt:?}");
    assert_gone(&pids(&job.path("pids")));
}

#[test]
fn a_left_over_grandchild_neither_delays_nor_survives() {
    let mut job = Job::new(
        "(setsid sh -c 'echo $$ >> $FOLDER/pids; exec sleep 60' &); while [ ! -s $FOLDER/pids ]; do :; done; exit 4",
    );
    job.grace_ms = 10_000;
    let begun = Instant::now();
    let exit = job.run();
    assert_eq!(exit.outcome, Outcome::Exited(4));
    assert_eq!(exit.receipt.unwrap().forced, 0);
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert_gone(&pids(&job.path("pids")));
}

#[test]
fn a_closed_output_is_no_end() {
    let job = Job::new("echo first; exec >&- 2>&-; sleep 0.3; exit 5");
    assert_eq!(job.run().outcome, Outcome::Exited(5));
    assert_eq!(job.output(), "first\n");
}

#[test]
fn a_gigabyte_of_output_costs_neither_memory_nor_disk() {
    let mut job = Job::new("head -c 1073741824 /dev/zero; exit 6");
    job.log_limit_bytes = 1 << 20;
    let mut supervised = job.start();
    let id = supervised.child.id();
    let mut peak = 0;
    let exit = eventually("the supervisor ends", 60, || {
        peak = peak.max(memory_kib(id).1);
        supervised.child.try_wait().unwrap().map(|_| supervised.wait())
    });
    assert_eq!((exit.outcome, exit.dropped_bytes), (Outcome::Exited(6), (1 << 30) - (1 << 20)));
    assert!(fs::metadata(job.path("stdout.log")).unwrap().len() < (1 << 20) + 200);
    assert!(peak < 2048, "the supervisor had {peak} KiB of private memory");
}

#[test]
fn limits_hold_for_the_program_and_what_it_starts() {
    // The limits come right after the start, so the program gives them a moment before it looks.
    let mut job = Job::new("sleep 0.3; sh -c 'ulimit -n; ulimit -t; ulimit -v'; nice");
    job.limits = Limits {
        open_files: Some(64),
        cpu_seconds: Some(77),
        memory_mb: Some(500),
        nice: Some(5),
        ..Limits::default()
    };
    assert_eq!(job.run().outcome, Outcome::Exited(0));
    assert_eq!(job.output(), "64\n77\n512000\n5\n");
}

#[test]
fn a_job_is_never_supervised_twice() {
    let job = Job::new("echo $$ >> $FOLDER/pids; while [ ! -e $FOLDER/go ]; do sleep 0.02; done; echo once");
    let mut first = job.start();
    first.pids(1);
    let second = Command::new(AGENT).arg("supervise").arg(job.folder.path()).status().unwrap();
    assert_eq!(second.code(), Some(3));
    fs::write(job.path("go"), "").unwrap();
    assert_eq!(first.wait().outcome, Outcome::Exited(0));
    let third = Command::new(AGENT).arg("supervise").arg(job.folder.path()).status().unwrap();
    assert_eq!(third.code(), Some(3));
    assert_eq!(job.output(), "once\n");
}

#[test]
fn a_damaged_record_is_an_ending_with_its_reason() {
    let job = Job::new("exit 0");
    fs::write(job.path(JOB_FILE), "{\"launch\":").unwrap();
    let child = Command::new(AGENT).arg("supervise").arg(job.folder.path()).spawn().unwrap();
    let exit = Supervised { child, folder: job.folder.path().to_owned() }.wait();
    let Outcome::NotStarted(why) = exit.outcome else { panic!() };
    assert!(why.contains("job.json is damaged"), "{why}");
}
