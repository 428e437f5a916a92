//! The machine under a clock of its own: discovery, trust, endings, and every quirk of the Python agent that can be told
//! by messages and presence alone.

use std::time::{Duration, Instant};

use wps_remote_protocol::legacy::{Registration, Report};
use wps_remote_protocol::{ErrorKind, FromAgent, Input, ProcessId, Request, ToAgent, Value};

use super::*;

const MASTER: &str = "Play@wps.test/master@vm";
const JOB: &str = "0123456789abcdef0123456789abcdef";

struct Bench {
    machine: Machine,
    begun: Instant,
    now: Instant,
}

fn id(text: &str) -> ExecutionId {
    ExecutionId::new(text).unwrap()
}

fn agent() -> AgentId {
    AgentId::new("default/Play@vm")
}

fn job_nick() -> String {
    format!("Play@wps.test/{JOB}@vm")
}

fn registration() -> String {
    Report::Register(Box::new(Registration {
        service: ProcessId::new("default", "Play").unwrap(),
        title: "Play".into(),
        description: String::new(),
        inputs: vec![("mode".into(), serde_json::json!({"type": "string", "default": "ok"}))],
        outputs: vec![("result1".into(), serde_json::json!({"type": "string"}))],
    }))
    .encode()
}

const LOAD: &str = "topic=loadavg&id=master&message=loadavg&result_vmem=%7B%22vmem_value%22%3A%205.6%7D&result_loadavg=%7B%22loadavg_value%22%3A%2010.5%7D";
const HIGH: &str = "topic=loadavg&id=master&message=loadavg&result_vmem=%7B%22vmem_value%22%3A%205.6%7D&result_loadavg=%7B%22loadavg_value%22%3A%2082.0%7D";

impl Bench {
    fn new() -> Self {
        let now = Instant::now();
        let config = LegacyConfig {
            rooms: vec!["default".into()],
            agents: LegacyAgents::parse(&["Play@*".into()]).unwrap(),
            ..LegacyConfig::default()
        };
        Self { machine: Machine::new(config), begun: now, now }
    }

    /// With an agent that is known, invited, registered and idle.
    fn ready() -> Self {
        let mut bench = Self::new();
        bench.join(MASTER);
        bench.order(ToAgent::Invite { executions: vec![] });
        bench.says(MASTER, &registration());
        bench.says(MASTER, LOAD);
        bench.take();
        bench
    }

    /// With a job that was sent.
    fn sent() -> Self {
        let mut bench = Self::ready();
        bench.order(ToAgent::Request(Box::new(Request {
            execution: id(JOB),
            process: ProcessId::new("default", "Play").unwrap(),
            inputs: vec![Input { id: "mode".into(), value: Value::literal("long:9") }],
            base_url: "http://127.0.0.1:8080/wps".into(),
        })));
        bench.machine.sent(&id(JOB), Ok("m7".into()));
        bench.take();
        bench
    }

    /// With a job whose occupant is in the room.
    fn running() -> Self {
        let mut bench = Self::sent();
        bench.join(&job_nick());
        bench.take();
        bench
    }

    fn join(&mut self, nick: &str) {
        self.machine.occupant("default", nick, None, true, self.now);
    }

    fn leave(&mut self, nick: &str) {
        self.machine.gone("default", nick, None, self.now);
    }

    fn order(&mut self, order: ToAgent) {
        self.machine.order(&agent(), order, self.now);
    }

    fn says(&mut self, nick: &str, body: &str) {
        self.machine.message("default", nick, body, self.now);
    }

    /// Second by second, the agent answering questions for its load.
    fn pass(&mut self, seconds: u64, answering: bool) -> Vec<String> {
        let mut all = Vec::new();
        for _ in 0..seconds {
            self.now += Duration::from_secs(1);
            self.machine.tick(self.now);
            for line in self.take() {
                if answering && line.contains("topic=getloadavg") {
                    self.says(MASTER, LOAD);
                }
                all.push(line);
            }
            all.extend(self.take());
        }
        all
    }

    fn completed(&self) -> String {
        format!(
            "topic=completed&id={JOB}&baseURL=http://x/&message=completed&result1={}",
            wps_remote_protocol::legacy::encode_value(
                r#"{"result1_value": "long\n", "result1_type": "textual", "result1_pub": false}"#
            )
        )
    }

    /// What happened, a line for each effect; files are taken over on the spot.
    fn take(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        loop {
            let effects = self.machine.take();
            if effects.is_empty() {
                return lines;
            }
            for effect in effects {
                match effect {
                    Effect::Send { nick, order, .. } => {
                        lines.push(format!("to {nick}: {}", order.encode()));
                    }
                    Effect::Tell(Inbound::Message { message, .. }) => lines.push(told(&message)),
                    Effect::Tell(Inbound::Joined { agent, .. }) => lines.push(format!("joined {agent}")),
                    Effect::Tell(Inbound::Left { agent, .. }) => lines.push(format!("left {agent}")),
                    Effect::Tell(other) => lines.push(format!("{other:?}")),
                    Effect::Collect { execution, outputs, broken, description } => {
                        let files = self.machine.config.files.clone();
                        let result = collect(&files, &execution, &outputs, &broken, description.as_deref());
                        self.machine.collected(&execution, result);
                    }
                }
            }
        }
    }
}

fn told(message: &FromAgent) -> String {
    match message {
        FromAgent::Register(description) => format!("registered {}", description.id),
        FromAgent::Unregister(process) => format!("withdrawn {process}"),
        FromAgent::Executions { held, .. } => format!("holds {}", held.len()),
        FromAgent::Started { .. } => "started".into(),
        FromAgent::Progress { percent, .. } => format!("progress {percent}"),
        FromAgent::Log { text, .. } => format!("log {text}"),
        FromAgent::Completed { outputs, .. } => format!("completed {outputs:?}"),
        FromAgent::Error { error, .. } => format!("failed {:?} {}", error.kind, error.text),
        FromAgent::CannotExecute { refusal, .. } => format!("refused {:?}", refusal.reason),
        FromAgent::Load(load) => format!("load {} {}", load.cpu_percent, load.accepting),
    }
}

#[test]
fn an_agent_is_found_invited_and_registered() {
    let mut bench = Bench::new();
    bench.join(MASTER);
    assert_eq!(bench.take(), ["joined default/Play@vm"]);
    bench.order(ToAgent::Invite { executions: vec![] });
    assert_eq!(
        bench.take(),
        ["holds 0", &format!("to {MASTER}: topic=invite"), &format!("to {MASTER}: topic=getloadavg")]
    );
    bench.says(MASTER, &registration());
    bench.says(MASTER, LOAD);
    assert_eq!(bench.take(), ["registered default:Play", "load 10.5 true"]);
    bench.says(MASTER, HIGH);
    assert_eq!(bench.take(), ["load 82 false"], "the threshold itself is too much");
    bench.leave(MASTER);
    assert_eq!(bench.take(), ["left default/Play@vm"]);
}

#[test]
fn only_listed_agents_are_believed_and_only_about_themselves() {
    let mut bench = Bench::new();
    bench.join("Other@wps.test/master@vm");
    bench.says("Other@wps.test/master@vm", &registration());
    bench.says("admin@wps.test", &registration());
    bench.says(MASTER, &registration());
    assert_eq!(bench.take(), Vec::<String>::new(), "strangers, and one that never joined");
    let mut bench = Bench::ready();
    bench.says(MASTER, &registration().replace("default.Play", "default.Other"));
    bench.says(MASTER, "topic=request&id=x&message=cos%0Asystem%0A.");
    assert_eq!(bench.take(), Vec::<String>::new(), "another service, and a pickle");
    let config = LegacyConfig { accounts: vec!["a@wps.test".into()], ..bench.machine.config.clone() };
    let mut strict = Bench { machine: Machine::new(config), ..Bench::new() };
    strict.join(MASTER);
    strict.machine.occupant("default", MASTER, Some("b@wps.test".into()), true, strict.now);
    assert_eq!(strict.take(), Vec::<String>::new());
    strict.machine.occupant("default", MASTER, Some("a@wps.test".into()), true, strict.now);
    assert_eq!(strict.take(), ["joined default/Play@vm"]);
}

#[test]
fn a_job_runs_and_ends_once_however_often_it_says_so() {
    let mut bench = Bench::ready();
    bench.order(ToAgent::Request(Box::new(Request {
        execution: id(JOB),
        process: ProcessId::new("default", "Play").unwrap(),
        inputs: vec![],
        base_url: "http://127.0.0.1:8080/wps".into(),
    })));
    let sent = bench.take();
    assert!(
        sent[0].starts_with(&format!(
            "to {MASTER}: topic=request&id={JOB}&baseURL=http://127.0.0.1:8080/wps&message=%80%02%7Dq%00"
        )),
        "{sent:?}"
    );
    assert!(sent[0].contains("mode") && sent[0].contains("ok"), "the default is filled in: {sent:?}");
    bench.join(&job_nick());
    let began = bench.take();
    assert!(began[0] == "started" && began[1].contains("nothing is acknowledged"), "{began:?}");
    bench.says(&job_nick(), &format!("topic=progress&id={JOB}&message=250.0"));
    bench.says(&job_nick(), &format!("topic=progress&id={JOB}&message=-3.0"));
    bench.says(&job_nick(), &format!("topic=log&id={JOB}&level=INFO&message=fish & chips 50%"));
    assert_eq!(bench.take(), ["progress 100", "progress 0", "log fish & chips 50%"]);
    let completed = bench.completed();
    bench.says(&job_nick(), &completed);
    let ended = bench.take();
    assert!(
        ended.len() == 1 && ended[0].starts_with("completed") && ended[0].contains("long\\n"),
        "{ended:?}"
    );
    // Again, before the engine has stored it: nothing is answered yet.
    bench.says(&job_nick(), &completed);
    bench.says(&job_nick(), &format!("topic=error&id={JOB}&message=late"));
    assert_eq!(bench.take(), Vec::<String>::new());
    bench.order(ToAgent::Finish { execution: id(JOB) });
    let finish = format!("to {}: topic=finish", job_nick());
    assert_eq!(bench.take(), [finish.as_str()]);
    // The answer was lost: each repetition gets one.
    bench.says(&job_nick(), &completed);
    bench.says(&job_nick(), &completed);
    assert_eq!(bench.take(), [finish.as_str(), finish.as_str()]);
    bench.leave(&job_nick());
    assert_eq!(bench.pass(3600, true).iter().filter(|line| line.starts_with("failed")).count(), 0);
}

#[test]
fn the_first_ending_decides_and_later_ones_are_still_answered() {
    let mut bench = Bench::running();
    bench.says(
        &job_nick(),
        &format!("topic=error&id={JOB}&message=%22the%20model%20diverged%20%26%20x%3D1%22"),
    );
    assert_eq!(bench.take(), ["failed Reported the model diverged & x=1"]);
    bench.says(
        &job_nick(),
        &format!("topic=error&id={JOB}&message=%22process%20exit%20code%20is%203%3A%20failure%22"),
    );
    bench.says(MASTER, &format!("topic=error&id={JOB}&message=%22Process%20Play%20PId%201%20terminated%22"));
    assert_eq!(bench.take(), Vec::<String>::new());
    bench.order(ToAgent::Finish { execution: id(JOB) });
    assert_eq!(bench.take(), [format!("to {}: topic=finish", job_nick())]);
    let completed = bench.completed();
    bench.says(&job_nick(), &completed);
    assert_eq!(bench.take(), [format!("to {}: topic=finish", job_nick())]);
}

#[test]
fn errors_have_kinds_and_may_come_from_the_service_process() {
    for (text, kind) in [
        ("process exit code is 3: failure\nlog", ErrorKind::Exited(3)),
        ("process exit code is -9: failure", ErrorKind::Signalled(9)),
        (
            "process failure\ncannot set value [u'caf\\xe9'] for parameter mode with type string",
            ErrorKind::InvalidInput { code: "InvalidParameterValue".into(), locator: "mode".into() },
        ),
        (
            "Process Play PId 1 terminated with exit code -9 Exception: remote process exception.",
            ErrorKind::Reported,
        ),
    ] {
        let mut bench = Bench::sent();
        let report = Report::Error { execution: id(JOB), text: text.into() };
        bench.says(MASTER, &report.encode());
        let ended = bench.take();
        assert!(ended.last().unwrap().starts_with(&format!("failed {kind:?}")), "{ended:?}");
    }
}

#[test]
fn endings_are_believed_only_from_the_occupant_that_runs_the_job() {
    let mut bench = Bench::running();
    let completed = bench.completed();
    // The service process, a job of another host, another job of the same agent, somebody without a room.
    let other = "Play@wps.test/ffffffffffffffffffffffffffffffff@vm";
    let elsewhere = format!("Play@wps.test/{JOB}@evil");
    bench.join(other);
    bench.join(&elsewhere);
    bench.take();
    for nick in [MASTER, other, &elsewhere, "stranger", "Play@wps.test/x@y"] {
        bench.says(nick, &completed);
        bench.says(nick, &format!("topic=progress&id={JOB}&message=99.0"));
        bench.says(nick, &format!("topic=log&id={JOB}&level=INFO&message=lie"));
    }
    for nick in [other, &elsewhere, "stranger"] {
        bench.says(nick, &format!("topic=error&id={JOB}&message=lie"));
        bench.says(nick, &format!("topic=cantexec&id=master&message=cantexec&output=x&exec_id={JOB}"));
    }
    assert_eq!(bench.take(), Vec::<String>::new());
    bench.says(&job_nick(), &completed);
    assert!(bench.take()[0].starts_with("completed"));
}

#[test]
fn a_refusal_counts_only_before_the_job_is_seen() {
    let cantexec = format!("topic=cantexec&id=master&message=cantexec&output=Cannot%20Execute&exec_id={JOB}");
    let mut bench = Bench::sent();
    bench.says(MASTER, &cantexec);
    assert_eq!(bench.take(), ["refused Capacity"]);
    let mut bench = Bench::running();
    bench.says(MASTER, &cantexec);
    assert_eq!(bench.take(), Vec::<String>::new());
    let mut bench = Bench::sent();
    bench.machine.bounced(Some("m7"), "item-not-found");
    assert_eq!(bench.take(), ["refused Capacity"]);
}

#[test]
fn silence_has_limits() {
    // No sign of a request: a malformed one gets no answer at all (quirk 7).
    let mut bench = Bench::sent();
    assert!(!bench.pass(59, true).iter().any(|line| line.starts_with("failed")));
    let said = bench.pass(2, true);
    assert!(said.iter().any(|line| line.starts_with("failed Lost there was no sign")), "{said:?}");
    // The process of the job leaves without a word.
    let mut bench = Bench::running();
    bench.leave(&job_nick());
    assert!(!bench.pass(299, true).iter().any(|line| line.starts_with("failed")));
    let said = bench.pass(2, true);
    assert!(
        said.iter().any(|line| line.starts_with("failed Lost its process at the agent has left")),
        "{said:?}"
    );
    // It comes back: after a short outage of the server.
    let mut bench = Bench::running();
    bench.leave(&job_nick());
    bench.pass(100, true);
    bench.join(&job_nick());
    assert!(!bench.pass(2000, true).iter().any(|line| line.starts_with("failed")), "it may run for ever");
    // While we were away nobody could be heard.
    let mut bench = Bench::running();
    bench.machine.unreachable(None, bench.now);
    bench.now += Duration::from_secs(3000);
    bench.machine.in_room("default", bench.now);
    bench.join(MASTER);
    assert!(!bench.pass(200, true).iter().any(|line| line.starts_with("failed")));
}

#[test]
fn an_abort_waits_for_its_occupant_and_its_leaving_is_the_ending() {
    let mut bench = Bench::sent();
    bench.order(ToAgent::Abort { execution: id(JOB) });
    assert_eq!(bench.take(), Vec::<String>::new(), "nobody to say it to");
    bench.join(&job_nick());
    let said = bench.take();
    assert_eq!(said.last().unwrap(), &format!("to {}: topic=abort", job_nick()));
    bench.leave(&job_nick());
    let said = bench.take();
    assert!(said[0].starts_with("failed Aborted") && said[0].contains("does not tell"), "{said:?}");
}

#[test]
fn after_our_restart_jobs_are_taken_up_and_results_of_before_are_not_lost() {
    let mut bench = Bench::new();
    bench.join(MASTER);
    bench.join(&job_nick());
    let completed = bench.completed();
    // Before the engine has said what it holds, there is no telling: no finish, no loss.
    bench.says(&job_nick(), &completed);
    assert_eq!(bench.take(), ["joined default/Play@vm"]);
    bench.order(ToAgent::Invite { executions: vec![id(JOB)] });
    let said = bench.take();
    assert!(said.contains(&"started".to_owned()), "{said:?}");
    bench.says(&job_nick(), &completed);
    assert!(bench.take().iter().any(|line| line.starts_with("completed")));
    // A job that is not ours any more is told to finish.
    let mut bench = Bench::new();
    bench.join(&job_nick());
    bench.order(ToAgent::Invite { executions: vec![] });
    bench.take();
    bench.says(&job_nick(), &completed);
    assert_eq!(bench.take(), [format!("to {}: topic=finish", job_nick())]);
}

#[test]
fn jobs_outlive_their_service_process() {
    let mut bench = Bench::running();
    bench.leave(MASTER);
    assert_eq!(bench.take(), ["withdrawn default:Play", "load 0 false"]);
    let completed = bench.completed();
    bench.says(&job_nick(), &completed);
    assert!(bench.take()[0].starts_with("completed"));
    bench.order(ToAgent::Finish { execution: id(JOB) });
    bench.take();
    bench.leave(&job_nick());
    assert_eq!(bench.take(), ["left default/Play@vm"]);
}

#[test]
fn a_ghost_gets_no_work_and_twins_do_not_make_a_storm() {
    let mut bench = Bench::ready();
    let said = bench.pass(95, false);
    assert!(said.contains(&"withdrawn default:Play".to_owned()), "{said:?}");
    assert!(said.contains(&"load 10.5 false".to_owned()), "{said:?}");
    bench.says(MASTER, LOAD);
    let said = bench.take();
    assert!(said.contains(&format!("to {MASTER}: topic=invite")), "{said:?}");
    let mut bench = Bench::ready();
    let mut invitations = 0;
    for _ in 0..50 {
        bench.leave(MASTER);
        bench.join(MASTER);
        bench.order(ToAgent::Invite { executions: vec![] });
        bench.now += Duration::from_secs(2);
        invitations += bench.take().iter().filter(|line| line.ends_with("topic=invite")).count();
    }
    assert!(invitations <= 50, "{invitations}");
    assert!(bench.begun < bench.now);
}

#[test]
fn result_files_are_taken_only_from_below_the_roots() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    for folder in ["root/job", "shared", "secret", "up"] {
        std::fs::create_dir_all(path(folder)).unwrap();
    }
    std::fs::write(path("root/job/out.tif"), b"tif").unwrap();
    std::fs::write(path("secret/key"), b"key").unwrap();
    std::fs::write(path("up/sent.tif"), b"sent").unwrap();
    std::os::unix::fs::symlink(path("secret/key"), path("root/job/link")).unwrap();
    let files = LegacyFiles {
        roots: vec![path("root")],
        base: Some(path("up")),
        path_map: vec![("/srv/out".into(), path("root"))],
        shared: Some(path("shared")),
    };
    let try_path = |named: &str| {
        let output = LegacyOutput::new("result1", "image/geotiff", named);
        collect(&files, &id(JOB), &[output], &[], None)
    };
    let good = |named: &str| {
        std::fs::remove_dir_all(path("shared").join(JOB)).ok();
        let (outputs, _) = try_path(named).unwrap_or_else(|error| panic!("{named}: {error:?}"));
        let Value::Complex { content: wps_remote_protocol::Content::Shared(file), .. } = &outputs[0].value
        else {
            panic!("{outputs:?}")
        };
        assert!(file.path.starts_with(&format!("{JOB}/")));
        std::fs::read(path("shared").join(&file.path)).unwrap()
    };
    assert_eq!(good(path("root/job/out.tif").to_str().unwrap()), b"tif");
    assert_eq!(good("/srv/out/job/out.tif"), b"tif");
    assert_eq!(good("sent.tif"), b"sent");
    assert_eq!(good("/sent.tif"), b"sent");
    assert_eq!(good("job/out.tif"), b"tif");
    for bad in [
        path("secret/key").to_str().unwrap(),
        path("root/job/link").to_str().unwrap(),
        path("root/../secret/key").to_str().unwrap(),
        "/etc/passwd",
        "../secret/key",
        "/srv/out/../secret/key",
        "",
        path("root/job").to_str().unwrap(),
        "/srv/outside/x",
    ] {
        let (output, why) = try_path(bad).unwrap_err();
        assert_eq!(output, "result1");
        assert!(!why.is_empty(), "{bad}");
    }
}
