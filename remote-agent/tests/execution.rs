//! One execution from start to ending, with real programs and a real supervisor: what the orchestrator is told, and that
//! another agent can go on where one was lost.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use common::{AGENT, eventually, is_alive, pids, script};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use wps_remote_agent::execution::stdout::{Decide, Verdict};
use wps_remote_agent::execution::{self, Begin, Event, Host, Prepared, WORKDIR_VARIABLE};
use wps_remote_agent::outputs::{Expected, Place};
use wps_remote_agent::supervise::record::{Launch, RunAs};
use wps_remote_agent::workdir::{Control, Ending, Found, LOG_FILE, Record};
use wps_remote_protocol::{
    DataType, ErrorKind, ExecutionError, ExecutionId, LiteralData, LiteralType, LogLevel, ProcessId, Value,
};

struct World {
    folder: tempfile::TempDir,
    program: PathBuf,
    max_running_time_s: u64,
}

impl World {
    fn new(body: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let program = script(folder.path(), "program.sh", body);
        Self { folder, program, max_running_time_s: 0 }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// An agent: it has the control folder as long as it lives.
    fn agent(&self) -> Arc<Host> {
        let control = eventually("the former agent lets go", 5, || Control::open(&self.path("control")).ok());
        Arc::new(Host {
            control,
            supervisor: vec![OsString::from(AGENT), OsString::from("supervise")],
            shared: None,
            uploader: None,
            hidden_variables: vec![],
            forks: Default::default(),
        })
    }

    fn record(&self, id: &str) -> Record {
        let work_dir = self.path("out").join(id);
        let env = [
            ("FOLDER", self.folder.path().to_str().unwrap()),
            (WORKDIR_VARIABLE, work_dir.to_str().unwrap()),
        ];
        Record {
            version: Record::VERSION,
            execution: ExecutionId::new(id).unwrap(),
            process: ProcessId::new("a", "b").unwrap(),
            originator: "orchestrator".into(),
            base_url: String::new(),
            weight: 1.0,
            accepted_ms: 0,
            extra_dir: None,
            keep: false,
            launch: Launch {
                argv: vec![self.program.to_str().unwrap().to_owned()],
                cwd: work_dir.clone(),
                env: env.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec(),
                env_remove: vec![],
                stdin: None,
                log: work_dir.join(LOG_FILE),
                log_limit_bytes: 1 << 20,
                max_running_time_s: self.max_running_time_s,
                grace_ms: 300,
                limits: Default::default(),
                run_as: None,
                cgroup: None,
            },
            stdout_result: None,
            outputs: vec![Expected {
                id: "result1".into(),
                place: Place::File(work_dir.join("result.txt")),
                data: DataType::Literal(LiteralData {
                    kind: LiteralType::String,
                    uom: None,
                    allowed: Default::default(),
                    default: None,
                }),
                optional: false,
                roots: vec![work_dir.clone()],
                min_bytes: 0,
                max_bytes: None,
                sidecars: false,
                upload: None,
                metadata: None,
            }],
            work_dir,
            rules: serde_json::Value::Null,
        }
    }

    fn begin(&self, id: &str) -> Begin {
        let record = self.record(id);
        Begin::New(Box::new(move || Ok(Prepared { record, rules: rules(), fill: Box::new(|| Ok(())) })))
    }
}

/// `p N` = progress, `a TEXT` = abort, `l TEXT` = log.
fn rules() -> Box<dyn Decide> {
    Box::new(|record: &str, _: bool| match record.split_once(' ') {
        Some(("p", number)) => number.parse().map_or(Verdict::Unmatched, Verdict::Progress),
        Some(("a", text)) => Verdict::Abort(text.to_owned()),
        Some(("l", text)) => Verdict::Log(LogLevel::Info, text.to_owned()),
        _ => Verdict::Unmatched,
    })
}

struct Followed {
    events: mpsc::Receiver<(ExecutionId, Event)>,
    abort: CancellationToken,
    task: tokio::task::JoinHandle<()>,
    seen: Vec<Event>,
}

impl Followed {
    fn start(host: &Arc<Host>, id: &str, begin: Begin) -> Self {
        let (sender, events) = mpsc::channel(64);
        let abort = CancellationToken::new();
        let id = ExecutionId::new(id).unwrap();
        let task = tokio::spawn(execution::run(host.clone(), id, begin, abort.clone(), sender));
        Self { events, abort, task, seen: vec![] }
    }

    async fn next(&mut self) -> Event {
        let event = tokio::time::timeout(Duration::from_secs(20), self.events.recv())
            .await
            .expect("an event in 20 s");
        self.seen.push(event.unwrap().1);
        self.seen.last().unwrap().clone()
    }

    async fn until(&mut self, wanted: impl Fn(&Event) -> bool) {
        while !wanted(&self.next().await) {}
    }

    async fn ending(&mut self) -> Ending {
        loop {
            if let Event::Ended(ending) = self.next().await {
                return ending;
            }
        }
    }

    async fn error(&mut self) -> ExecutionError {
        match self.ending().await {
            Ending::Failed(error) => error,
            other => panic!("{other:?}"),
        }
    }

    /// As kill -9 does to an agent: nothing is tidied up.
    async fn lose(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

async fn run(body: &str) -> (World, Followed, Ending) {
    let world = World::new(body);
    let mut followed = Followed::start(&world.agent(), "e1", world.begin("e1"));
    let ending = followed.ending().await;
    (world, followed, ending)
}

async fn fails(body: &str) -> ExecutionError {
    match run(body).await.2 {
        Ending::Failed(error) => error,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_good_program_gives_its_outputs_and_its_progress() {
    let (world, followed, ending) =
        run("echo 'l hello'; printf 'p 10\\rp 20\\rp 100\\r'; printf 'the result' > result.txt").await;
    let Ending::Completed(outputs) = ending.clone() else { panic!("{ending:?}") };
    assert_eq!((outputs[0].id.as_str(), &outputs[0].value), ("result1", &Value::literal("the result")));
    let seen = &followed.seen;
    assert_eq!(seen.first(), Some(&Event::Started));
    assert!(seen.contains(&Event::Log(LogLevel::Info, "hello".into())), "{seen:?}");
    assert!(seen.contains(&Event::Progress(100.0)), "the last value always: {seen:?}");
    let folder = world.path("control").join("e1");
    assert!(folder.join("ending.json").exists() && folder.join("exit.json").exists());
}

#[tokio::test]
async fn failures_are_told_apart_and_quote_the_last_lines() {
    let error = fails("echo first; echo last; exit 3").await;
    assert_eq!(error.kind, ErrorKind::Exited(3));
    assert_eq!(error.text, "process exit code is 3: failure\nfirst\nlast");
    let error = fails("kill -ABRT $$").await;
    assert_eq!(error.kind, ErrorKind::Signalled(6));
    assert!(error.text.starts_with("process exit code is -6: failure (SIGABRT)"));
    let error = fails("echo working; exit 0").await;
    assert_eq!(error.kind, ErrorKind::OutputMissing("result1".into()));
    assert!(error.text.contains("result.txt but was not written\nworking"), "{}", error.text);
}

/// A memory group with this limit, where the machine lets us have one (cgroup v1 or v2).
fn memory_group(bytes: u64) -> Option<PathBuf> {
    let name = format!("wps-test-oom-{}", std::process::id());
    for (root, limit) in
        [("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")]
    {
        let folder = Path::new(root).join(&name);
        if fs::create_dir(&folder).is_err() {
            continue;
        }
        if folder.join(limit).exists() && fs::write(folder.join(limit), bytes.to_string()).is_ok() {
            return Some(folder);
        }
        let _ = fs::remove_dir(&folder);
    }
    None
}

/// No limit of the job explains it: the host itself, or somebody on it, has ended the program.
#[tokio::test]
async fn a_program_that_the_system_kills_for_memory_is_told_as_killed_by_others() {
    let check = |error: ExecutionError| {
        assert_eq!(error.kind, ErrorKind::Signalled(9));
        assert!(
            error.text.starts_with("process exit code is -9: failure (SIGKILL, not sent by the agent"),
            "{}",
            error.text
        );
        assert!(error.text.contains("out of memory") && error.text.ends_with("\nworking"), "{}", error.text);
    };
    check(fails("echo working; kill -9 $$").await);
    let Some(group) = memory_group(32 << 20) else {
        eprintln!("SKIPPED the OOM killer itself: no memory control group may be made here");
        return;
    };
    let join = format!("echo $$ > {}/cgroup.procs", group.display());
    check(fails(&format!("{join}; echo working; exec dd if=/dev/zero of=/dev/null bs=200M count=1")).await);
    // Its last process may not have been collected yet.
    eventually("the group is empty", 10, || fs::remove_dir(&group).ok());
}

#[tokio::test]
async fn a_program_that_cannot_start_is_told_with_its_path() {
    let mut world = World::new("");
    world.program = world.path("absent");
    let error = Followed::start(&world.agent(), "e1", world.begin("e1")).error().await;
    assert_eq!(error.kind, ErrorKind::NotStarted);
    assert!(error.text.contains("absent does not exist"), "{}", error.text);
}

#[tokio::test]
async fn a_refused_preparation_is_an_ending() {
    let world = World::new("");
    let refusal = ExecutionError {
        kind: ErrorKind::InvalidInput { code: "InvalidParameterValue".into(), locator: "x".into() },
        text: "no".into(),
        receipt: None,
    };
    let given = refusal.clone();
    let begin = Begin::New(Box::new(move || Err(given)));
    assert_eq!(Followed::start(&world.agent(), "e1", begin).error().await, refusal);
}

#[tokio::test]
async fn an_abort_ends_the_tree_and_gives_a_receipt() {
    let world = World::new("trap '' TERM; echo $$ > $FOLDER/pids; echo 'l ready'; while :; do sleep 1; done");
    let mut followed = Followed::start(&world.agent(), "e1", world.begin("e1"));
    followed.until(|event| matches!(event, Event::Log(..))).await;
    followed.abort.cancel();
    let error = followed.error().await;
    assert_eq!(error.kind, ErrorKind::Aborted);
    let receipt = error.receipt.unwrap();
    assert!(receipt.forced >= 1 && receipt.survivors.is_empty(), "{receipt:?}");
    assert!(
        followed.seen.iter().any(|e| matches!(e, Event::Log(_, text) if text.contains("process(es) found")))
    );
    assert!(pids(&world.path("pids")).iter().all(|pid| !is_alive(*pid)));
}

#[tokio::test]
async fn an_abort_at_any_moment_of_the_start_leaves_nothing() {
    for delay in [0, 1, 2, 4, 8] {
        let world = World::new("echo $$ > $FOLDER/pids; exec sleep 60");
        let mut followed = Followed::start(&world.agent(), "e1", world.begin("e1"));
        tokio::time::sleep(Duration::from_millis(delay)).await;
        followed.abort.cancel();
        assert_eq!(followed.error().await.kind, ErrorKind::Aborted, "after {delay} ms");
        assert!(pids(&world.path("pids")).iter().all(|pid| !is_alive(*pid)), "after {delay} ms");
    }
}

#[tokio::test]
async fn an_abort_rule_ends_the_program_once() {
    let error = fails("echo 'a out of memory'; echo 'a again'; echo x > result.txt; sleep 60").await;
    assert_eq!(error.kind, ErrorKind::Reported);
    assert!(error.text.starts_with("out of memory\n"), "{}", error.text);
    assert!(error.receipt.is_some());
    let error = fails("echo 'a out of memory'; echo x > result.txt; exit 0").await;
    assert_eq!(error.kind, ErrorKind::Reported, "never completed, even if the program was faster");
}

#[tokio::test]
async fn the_running_time_is_limited() {
    let mut world = World::new("exec sleep 60");
    world.max_running_time_s = 1;
    let error = Followed::start(&world.agent(), "e1", world.begin("e1")).error().await;
    assert_eq!(error.kind, ErrorKind::TimedOut);
    assert_eq!(error.text, "maximum running time of 1 s exceeded");
}

#[tokio::test]
async fn another_agent_takes_over_a_running_job() {
    let world = World::new(
        "echo 'l before'; echo 'p 30'; while [ ! -e $FOLDER/go ]; do sleep 0.02; done; echo 'l after'; echo x > result.txt",
    );
    let mut first = Followed::start(&world.agent(), "e1", world.begin("e1"));
    first.until(|event| matches!(event, Event::Progress(_))).await;
    let position = world.path("control").join("e1/position.json");
    while !position.exists() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    first.lose().await;

    let mut second = adopt(&world, world.agent());
    second.until(|event| matches!(event, Event::Progress(_))).await;
    fs::write(world.path("go"), "").unwrap();
    assert!(matches!(second.ending().await, Ending::Completed(_)));
    let logs: Vec<_> = second.seen.iter().filter(|event| matches!(event, Event::Log(..))).collect();
    assert_eq!(logs, [&Event::Log(LogLevel::Info, "after".into())], "what was told is not told again");
}

#[tokio::test]
async fn another_agent_delivers_what_ended_in_between_and_aborts_what_runs() {
    let world = World::new("while [ ! -e $FOLDER/go ]; do sleep 0.02; done; exit 7");
    let mut first = Followed::start(&world.agent(), "e1", world.begin("e1"));
    first.until(|event| *event == Event::Started).await;
    first.lose().await;
    fs::write(world.path("go"), "").unwrap();
    let exit = world.path("control").join("e1/exit.json");
    eventually("the program ends without an agent", 10, || exit.exists().then_some(()));
    let error = adopt(&world, world.agent()).error().await;
    assert_eq!(error.kind, ErrorKind::Exited(7));

    let world = World::new("echo $$ > $FOLDER/pids; exec sleep 60");
    let mut first = Followed::start(&world.agent(), "e1", world.begin("e1"));
    first.until(|event| *event == Event::Started).await;
    eventually("the program runs", 10, || (!pids(&world.path("pids")).is_empty()).then_some(()));
    first.lose().await;
    let mut second = adopt(&world, world.agent());
    second.until(|event| *event == Event::Started).await;
    second.abort.cancel();
    assert_eq!(second.error().await.kind, ErrorKind::Aborted);
    assert!(pids(&world.path("pids")).iter().all(|pid| !is_alive(*pid)));
}

#[tokio::test]
async fn a_killed_supervisor_is_a_lost_job_that_leaves_nothing_behind() {
    let world =
        World::new("setsid sleep 61 & echo $! > $FOLDER/pids; echo $$ >> $FOLDER/pids; echo 'l ready'; wait");
    let mut followed = Followed::start(&world.agent(), "e1", world.begin("e1"));
    followed.until(|event| matches!(event, Event::Log(..))).await;
    let lock = fs::read_to_string(world.path("control").join("e1/supervisor.lock")).unwrap();
    let supervisor = rustix::process::Pid::from_raw(lock.trim().parse().unwrap()).unwrap();
    rustix::process::kill_process(supervisor, rustix::process::Signal::KILL).unwrap();
    let error = followed.error().await;
    assert_eq!(error.kind, ErrorKind::Lost);
    assert!(error.text.contains("what was left of the program was ended"), "{}", error.text);
    assert!(pids(&world.path("pids")).iter().all(|pid| !is_alive(*pid)));
}

#[tokio::test]
async fn a_job_put_down_but_not_started_is_started_by_the_next_agent() {
    let world = World::new("echo once >> $FOLDER/runs; echo x > result.txt");
    {
        let host = world.agent();
        let record = world.record("e1");
        let folder = host.control.folder(&record.execution);
        folder.create::<wps_remote_agent::workdir::WorkdirError>(&record, || Ok(())).unwrap();
    }
    assert!(matches!(adopt(&world, world.agent()).ending().await, Ending::Completed(_)));
    assert_eq!(fs::read_to_string(world.path("runs")).unwrap(), "once\n");
}

fn adopt(world: &World, host: Arc<Host>) -> Followed {
    let (found, strange) = host.control.scan().unwrap();
    assert_eq!(strange, Vec::<String>::new());
    let Some(Found::Open(folder, record)) = found.into_iter().next() else { panic!("nothing to adopt") };
    assert_eq!(*record, world.record("e1"));
    Followed::start(&host, "e1", Begin::Adopted { folder, record, rules: rules() })
}

#[tokio::test]
async fn a_taken_folder_is_not_used() {
    let world = World::new("exit 0");
    fs::create_dir_all(world.path("out/e1")).unwrap();
    let error = Followed::start(&world.agent(), "e1", world.begin("e1")).error().await;
    assert_eq!(error.kind, ErrorKind::NotStarted);
    assert!(error.text.contains("exists already"), "{}", error.text);
}

/// The fork server of this world's agent.
fn server(world: &World) -> Option<i32> {
    let folder = world.path("control");
    let pids = fs::read_dir("/proc").unwrap().flatten();
    pids.filter_map(|entry| entry.file_name().to_string_lossy().parse().ok()).find(|pid: &i32| {
        let text = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        text.ends_with(b"supervise\0--serve\0")
            && fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd == folder)
    })
}

fn kill(pid: i32) {
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

async fn completed_text(host: &Arc<Host>, world: &World, id: &str) -> String {
    let mut followed = Followed::start(host, id, world.begin(id));
    let Ending::Completed(outputs) = followed.ending().await else { panic!("{:?}", followed.seen) };
    let Value::Literal { text, .. } = &outputs[0].value else { panic!() };
    text.clone()
}

#[tokio::test]
async fn the_fork_server_splits_off_supervisors_and_is_replaced_when_it_has_died() {
    let body = "(tr '\\0' ' ' < /proc/$PPID/cmdline; readlink /proc/$PPID/cwd; readlink /proc/$$/fd/0; ls /proc/$$/fd \
        | wc -w) > result.txt";
    let world = World::new(body);
    let host = world.agent();
    host.forks.keep(&host);
    let first = eventually("there is a server", 5, || server(&world));
    let text = completed_text(&host, &world, "e1").await;
    assert!(text.contains("supervise --serve") && text.contains("control/e1"), "{text}");
    assert!(text.contains("/dev/null"), "the program has the agent's socket: {text}");
    eventually("the ended supervisor is collected", 5, || {
        let zombie = |pid: &i32| {
            fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") Z "))
        };
        let children = fs::read_to_string(format!("/proc/{first}/task/{first}/children")).unwrap_or_default();
        (!children.split_whitespace().filter_map(|pid| pid.parse().ok()).any(|pid: i32| zombie(&pid)))
            .then_some(())
    });

    // One that has died unnoticed costs nobody a job.
    kill(first);
    eventually("it is dead", 5, || server(&world).is_none_or(|pid| pid != first).then_some(()));
    let text = completed_text(&host, &world, "e2").await;
    assert!(text.contains("supervise --serve") && text.contains("control/e2"), "{text}");

    // And without its agent it goes.
    eventually("there is a server again", 5, || server(&world).filter(|pid| *pid != first));
    drop(host);
    eventually("no server waits for an agent that has gone", 5, || server(&world).is_none().then_some(()));
}

#[tokio::test]
async fn a_hanging_fork_server_costs_a_moment_and_no_job() {
    let world = World::new("echo once >> $FOLDER/runs; echo x > result.txt");
    let host = world.agent();
    host.forks.keep(&host);
    let first = eventually("there is a server", 5, || server(&world));
    let pid = rustix::process::Pid::from_raw(first).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
    assert_eq!(completed_text(&host, &world, "e1").await.trim(), "x");
    eventually("the server that was given up ends", 5, || (!is_alive(first)).then_some(()));
    assert_eq!(fs::read_to_string(world.path("runs")).unwrap(), "once\n");
}

#[tokio::test]
async fn supervisors_outlive_their_server() {
    let world =
        World::new("echo 'l ready'; while [ ! -e $FOLDER/go ]; do sleep 0.02; done; echo x > result.txt");
    let host = world.agent();
    host.forks.keep(&host);
    let first = eventually("there is a server", 5, || server(&world));
    let mut followed = Followed::start(&host, "e1", world.begin("e1"));
    followed.until(|event| matches!(event, Event::Log(..))).await;
    kill(first);
    fs::write(world.path("go"), "").unwrap();
    assert!(matches!(followed.ending().await, Ending::Completed(_)));
}

/// A small disk in memory, until dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: PathBuf) -> Option<Self> {
        fs::create_dir_all(&at).unwrap();
        let mut mount = std::process::Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=256k,mode=0700", "tmpfs"]).arg(&at);
        let mounted = mount.stderr(std::process::Stdio::null()).status().is_ok_and(|status| status.success());
        mounted.then_some(Self(at))
    }

    fn fill(&self) -> PathBuf {
        let path = self.0.join("filling");
        let mut file = fs::File::create(&path).unwrap();
        while std::io::Write::write_all(&mut file, &[0; 4096]).is_ok() {}
        path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[tokio::test]
async fn a_full_disk_is_a_clear_failure_and_the_next_job_is_well() {
    let world = World::new("echo some words; head -c 1000000 /dev/zero > result.txt");
    let Some(disk) = SmallDisk::mount(world.path("out")) else {
        eprintln!("SKIPPED a_full_disk_is_a_clear_failure_and_the_next_job_is_well: no disk may be mounted");
        return;
    };
    // The program meets it: its words are kept.
    let host = world.agent();
    let error = Followed::start(&host, "e1", world.begin("e1")).error().await;
    assert_eq!(error.kind, ErrorKind::Exited(1));
    assert!(error.text.contains("No space left on device"), "{}", error.text);
    // Its output does: that is said, too.
    let _ = fs::remove_dir_all(world.path("out/e1"));
    let filling = disk.fill();
    script(world.folder.path(), "program.sh", "echo some words; exit 4");
    let error = Followed::start(&host, "e2", world.begin("e2")).error().await;
    let told = matches!(error.kind, ErrorKind::Exited(4) | ErrorKind::NotStarted);
    assert!(told && error.text.contains("No space left on device"), "{error:?}");
    fs::remove_file(filling).unwrap();
    drop(disk);

    // The agent meets it before the start: nothing is left behind.
    let Some(disk) = SmallDisk::mount(world.path("records")) else { return };
    let control = eventually("the folder is free", 5, || Control::open(&world.path("records")).ok());
    let host = Arc::new(Host {
        control,
        supervisor: host.supervisor.clone(),
        shared: None,
        uploader: None,
        hidden_variables: vec![],
        forks: Default::default(),
    });
    let filling = disk.fill();
    let error = Followed::start(&host, "e3", world.begin("e3")).error().await;
    assert_eq!(error.kind, ErrorKind::NotStarted);
    assert!(error.text.contains("job.json cannot be written: No space left on device"), "{}", error.text);
    assert!(!world.path("out/e3").exists());
    fs::remove_file(filling).unwrap();
    script(world.folder.path(), "program.sh", "echo x > result.txt");
    assert!(matches!(Followed::start(&host, "e3", world.begin("e3")).ending().await, Ending::Completed(_)));
    drop(host);
}

#[tokio::test]
async fn another_user_owns_the_folder_and_can_neither_read_our_records_nor_lead_us_elsewhere() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED another_user_owns_the_folder: only root may change users");
        return;
    }
    let world = World::new(
        "cat $FOLDER/control/e1/job.json; cat in.txt; echo more >> in.txt; id -u; rm stdout.log; ln -s $FOLDER/secret stdout.log; \
         ln -s $FOLDER/secret result.txt; exit 3",
    );
    fs::set_permissions(world.folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(world.path("secret"), "our secret").unwrap();
    fs::set_permissions(world.path("secret"), fs::Permissions::from_mode(0o600)).unwrap();
    let user = RunAs { name: "nobody".into(), uid: 65534, gid: 65534, groups: vec![65534], home: "/".into() };
    let begin = |id: &str| {
        let mut record = world.record(id);
        record.launch.run_as = Some(user.clone());
        let input = record.work_dir.join("in.txt");
        let fill = Box::new(move || {
            fs::write(input, "given\n").unwrap();
            Ok(())
        });
        Begin::New(Box::new(move || Ok(Prepared { record, rules: rules(), fill })))
    };
    let host = world.agent();
    let error = Followed::start(&host, "e1", begin("e1")).error().await;
    assert_eq!(error.kind, ErrorKind::Exited(3), "{}", error.text);
    assert!(!error.text.contains("our secret"), "{}", error.text);
    let work_dir = world.path("out/e1");
    assert_eq!(fs::metadata(&work_dir).unwrap().uid(), 65534);
    assert_eq!(fs::read_to_string(work_dir.join("in.txt")).unwrap(), "given\nmore\n", "its input is its own");

    script(world.folder.path(), "program.sh", "rm -f result.txt; ln -s $FOLDER/secret result.txt");
    let error = Followed::start(&host, "e2", begin("e2")).error().await;
    assert_eq!(error.kind, ErrorKind::OutputMissing("result1".into()));
    assert!(error.text.contains("outside of the allowed folders"), "{}", error.text);
}

#[tokio::test]
async fn a_result_of_which_a_part_was_dropped_is_no_result() {
    let world = World::new("head -c 5000 /dev/zero | tr '\\0' x");
    let mut record = world.record("e1");
    let captured = record.work_dir.join("stdout.result");
    record.launch.log_limit_bytes = 4000;
    record.outputs[0].place = Place::File(captured.clone());
    record.stdout_result = Some(captured);
    let begin =
        Begin::New(Box::new(move || Ok(Prepared { record, rules: rules(), fill: Box::new(|| Ok(())) })));
    let error = Followed::start(&world.agent(), "e1", begin).error().await;
    assert_eq!(error.kind, ErrorKind::OutputMissing("result1".into()));
    assert!(
        error.text.contains("1000 bytes of that were lost: at most 4000 bytes are kept"),
        "{}",
        error.text
    );
}
