//! The supervisor against real processes: every way to end, every way to hide from being ended.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use common::{AGENT, eventually, is_alive, memory_kib, pids, script};
use rustix::process::{Pid, Signal, kill_process};
use wps_remote_agent::supervise::record::{EXIT_FILE, Exit, JOB_FILE, Limits, Outcome, RunAs};

struct Job {
    folder: tempfile::TempDir,
    argv: Vec<String>,
    max_running_time_s: u64,
    grace_ms: u64,
    log_limit_bytes: u64,
    limits: Limits,
    stdin: Option<PathBuf>,
    run_as: Option<RunAs>,
    cgroup: Option<PathBuf>,
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
            stdin: None,
            run_as: None,
            cgroup: None,
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
            "limits": self.limits, "stdin": self.stdin, "run_as": self.run_as, "cgroup": self.cgroup,
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
    assert!(peak < 4096, "the supervisor had {peak} KiB of private memory");
}

#[test]
fn limits_hold_from_the_first_instruction_for_the_program_and_what_it_starts() {
    let mut job = Job::new("ulimit -n; sh -c 'ulimit -n; ulimit -t; ulimit -v; ulimit -f'; nice");
    job.limits = Limits {
        open_files: Some(64),
        cpu_seconds: Some(77),
        memory_mb: Some(500),
        file_mb: Some(3),
        nice: Some(5),
    };
    assert_eq!(job.run().outcome, Outcome::Exited(0));
    // dash counts files in blocks of 512 bytes.
    assert_eq!(job.output(), "64\n64\n77\n512000\n6144\n5\n");
    // The supervisor itself is not limited: a log beyond the limit of files is written.
    let mut job = Job::new("head -c 3000000 /dev/zero; exit 3");
    (job.limits.file_mb, job.log_limit_bytes) = (Some(1), 1 << 30);
    let exit = job.run();
    assert_eq!((exit.outcome, exit.exceeded, exit.dropped_bytes), (Outcome::Exited(3), None, 0));
    assert_eq!(job.output().len(), 3_000_000);
}

#[test]
fn an_end_by_a_limit_names_the_limit() {
    let check = |body: &str, limits: Limits, outcome: Outcome, words: &str| {
        let mut job = Job::new(body);
        job.limits = limits;
        let exit = job.run();
        assert_eq!((exit.outcome, exit.exceeded.as_deref()), (outcome, Some(words)), "{body}");
    };
    let cpu = || Limits { cpu_seconds: Some(1), ..Limits::default() };
    check("while :; do :; done", cpu(), Outcome::Signalled(24), "exceeded cpu_seconds = 1");
    let stubborn = "trap '' XCPU; while :; do :; done";
    check(stubborn, cpu(), Outcome::Signalled(9), "exceeded cpu_seconds = 1");
    let below = "sh -c 'while :; do :; done'; exit $?";
    check(below, cpu(), Outcome::Exited(152), "a program that it started exceeded cpu_seconds = 1");
    let size = || Limits { file_mb: Some(1), ..Limits::default() };
    let large = "exec head -c 2000000 /dev/zero > $FOLDER/large";
    check(large, size(), Outcome::Signalled(25), "exceeded output_mb = 1");
    let ignoring = "trap '' XFSZ; head -c 2000000 /dev/zero > $FOLDER/large";
    check(ignoring, size(), Outcome::Exited(1), "file large has reached output_mb = 1");
    let memory = || Limits { memory_mb: Some(64), ..Limits::default() };
    let hungry = "exec dd if=/dev/zero of=/dev/null bs=200M count=1";
    check(hungry, memory(), Outcome::Exited(1), "limit memory_mb = 64 was in force");
    // One that has nothing to do with it is not blamed.
    let mut job = Job::new("exit 0");
    job.limits = Limits { cpu_seconds: Some(1), memory_mb: Some(64), file_mb: Some(1), ..Limits::default() };
    assert_eq!(job.run().exceeded, None);
    job = Job::new("kill -9 $$");
    job.limits = cpu();
    let exit = job.run();
    assert_eq!((exit.outcome, exit.exceeded), (Outcome::Signalled(9), None));
}

#[test]
fn a_limit_above_what_the_system_allows_leaves_the_stricter_one() {
    let mut job = Job::new("ulimit -n");
    job.limits.open_files = Some(u64::MAX / 2);
    assert_eq!(job.run().outcome, Outcome::Exited(0));
    assert!(job.output().trim().parse::<u64>().unwrap() < u64::MAX / 2, "{}", job.output());
}

#[test]
fn a_broken_pipe_ends_a_program_as_usual() {
    let job = Job::new(
        "ignored=$(sed -n 's/^SigIgn:.//p' /proc/self/status); echo $((0x$ignored & 0x1000)); yes | head -1; exit 3",
    );
    assert_eq!(job.run().outcome, Outcome::Exited(3));
    // Bit 12 is that of SIGPIPE; a `yes` that got an error instead would say so.
    assert_eq!(job.output(), "0\ny\n");
}

#[test]
fn another_user_gets_the_program_and_nothing_of_ours() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED another_user_gets_the_program_and_nothing_of_ours: only root may change users");
        return;
    }
    let nobody =
        RunAs { name: "nobody".into(), uid: 65534, gid: 65534, groups: vec![65534], home: "/".into() };
    let mut job = Job::new("id -u; id -g; id -G; grep -E '^(Uid|CapEff)' /proc/self/status | tr '\\t' ' '");
    job.run_as = Some(nobody.clone());
    fs::set_permissions(job.folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let exit = job.run();
    assert_eq!(exit.outcome, Outcome::Exited(0), "{}", job.output());
    let expected = "65534\n65534\n65534\nUid: 65534 65534 65534 65534\nCapEff: 0000000000000000\n";
    assert_eq!(job.output(), expected);

    let mut job = Job::new("echo ran");
    job.run_as = Some(nobody);
    fs::set_permissions(job.folder.path(), fs::Permissions::from_mode(0o700)).unwrap();
    let Outcome::NotStarted(why) = job.run().outcome else { panic!("{}", job.output()) };
    assert!(why.contains("user `nobody` cannot enter the working directory"), "{why}");
}

/// A folder of control groups that may be used here, with `memory` if that is to be limited.
fn control_groups(name: &str, memory: bool) -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let line = mounts.lines().find(|line| line.contains(" - cgroup2 "))?;
    let mount = PathBuf::from(line.split(' ').nth(4)?);
    let controllers = fs::read_to_string(mount.join("cgroup.controllers")).unwrap_or_default();
    if memory && !controllers.split_whitespace().any(|name| name == "memory") {
        return None;
    }
    let folder = mount.join(format!("wps-test-{name}-{}", std::process::id()));
    fs::create_dir(&folder).ok()?;
    if memory && fs::write(folder.join("cgroup.subtree_control"), "+memory").is_err() {
        fs::remove_dir(&folder).unwrap();
        return None;
    }
    Some(folder)
}

#[test]
fn a_control_group_holds_the_job_and_is_gone_with_it() {
    let Some(folder) = control_groups("holds", false) else {
        eprintln!(
            "SKIPPED a_control_group_holds_the_job_and_is_gone_with_it: no cgroup v2 that may be written"
        );
        return;
    };
    let mut job = Job::new(
        "grep ^0:: /proc/self/cgroup; trap '' TERM; (setsid sh -c 'trap \"\" TERM; echo $$ >> $FOLDER/pids; \
         while :; do sleep 1; done' &); echo $$ >> $FOLDER/pids; while :; do sleep 1; done",
    );
    job.cgroup = Some(folder.clone());
    let mut supervised = job.start();
    let pids = supervised.pids(2);
    let exit = supervised.abort();
    let receipt = exit.receipt.unwrap();
    assert_eq!((exit.outcome, receipt.survivors.len()), (Outcome::Aborted, 0));
    assert_gone(&pids);
    assert!(job.output().contains("/job-"), "{}", job.output());
    let left: Vec<_> = fs::read_dir(&folder).unwrap().flatten().filter(|e| e.path().is_dir()).collect();
    assert!(left.is_empty(), "{left:?}");
    fs::remove_dir(&folder).unwrap();
}

#[test]
fn a_job_that_uses_up_its_memory_is_told_by_name() {
    let Some(folder) = control_groups("memory", true) else {
        eprintln!(
            "SKIPPED a_job_that_uses_up_its_memory_is_told_by_name: no cgroup v2 with `memory` that may be written"
        );
        return;
    };
    let mut job = Job::new("exec dd if=/dev/zero of=/dev/null bs=200M count=1");
    (job.cgroup, job.limits.memory_mb) = (Some(folder.clone()), Some(32));
    let exit = job.run();
    assert_eq!(
        (exit.outcome, exit.exceeded.as_deref()),
        (Outcome::Signalled(9), Some("exceeded memory_mb = 32"))
    );
    fs::remove_dir(&folder).unwrap();
}

#[test]
fn a_program_that_never_reads_a_large_input_ends_as_it_likes() {
    let mut job = Job::new("echo started; exit 7");
    let input = job.path("stdin");
    fs::write(&input, vec![b'x'; 50_000_000]).unwrap();
    job.stdin = Some(input);
    assert_eq!(job.run().outcome, Outcome::Exited(7));
    let mut job = Job::new("exec sleep 60");
    job.stdin = Some(job.path("program.sh"));
    job.max_running_time_s = 1;
    assert_eq!(job.run().outcome, Outcome::TimedOut);
}

#[test]
fn a_receipt_says_when_and_how_many() {
    let mut job = Job::new(
        "sh -c 'trap \"\" TERM; echo $$ >> $FOLDER/pids; while :; do sleep 1; done' & sleep 60 & echo $! >> $FOLDER/pids; wait",
    );
    job.grace_ms = 400;
    let mut supervised = job.start();
    supervised.pids(2);
    let exit = supervised.abort();
    let receipt = exit.receipt.unwrap();
    assert!((exit.started_ms..=exit.ended_ms).contains(&receipt.at_ms), "{receipt:?}");
    let forced_after = receipt.forced_after_ms.unwrap();
    assert!(forced_after >= 400 && forced_after <= receipt.took_ms, "{receipt:?}");
    assert!(receipt.found >= 3 && receipt.ended == receipt.found && receipt.forced >= 1, "{receipt:?}");
    let text = receipt.to_string();
    assert!(text.ends_with("; none is left") && text.contains("killed after"), "{text}");
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
