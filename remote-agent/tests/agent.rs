//! The whole agent against a real XMPP server (the embedded one) and a stand-in for the orchestrator: what is said in which
//! order, who is obeyed, and that no job is lost when the agent is.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use common::{AGENT, eventually, is_alive, pids};
use rustix::process::{Pid, Signal, kill_process};
use tokio::sync::mpsc;
use tokio::time::timeout;
use wps_remote_protocol::native::{self, Announcement};
use wps_remote_protocol::{
    ErrorKind, ExecutionError, ExecutionId, FromAgent, Input, Request, ToAgent, Value,
};
use wps_remote_xmpp::muc::{self, Muc, MucConfig, MucEvent, RequestError, RequestToken, RoomConfig};
use wps_remote_xmpp::net::{Connector, Security, Trust};
use wps_remote_xmpp::server::{self, Accounts, Listen, Server, ServerConfig};
use wps_remote_xmpp::session::SessionConfig;
use wps_remote_xmpp::{BareJid, Jid, StanzaError, parse_payload, payload};

const DOMAIN: &str = "xmpp.test";
const NICK: &str = "agent@host";

struct Site {
    folder: tempfile::TempDir,
    _server: Server,
    address: SocketAddr,
}

impl Site {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let accounts = folder.path().join("accounts");
        for account in ["agent", "orchestrator", "stranger"] {
            Accounts::new(&accounts).set(account, &format!("password of {account}")).unwrap();
        }
        let listen = Listen { address: ([127, 0, 0, 1], 0).into(), security: Security::Plain };
        let server = server::start(ServerConfig {
            owners: vec!["orchestrator".into()],
            listen: vec![listen],
            ..ServerConfig::new(DOMAIN, &accounts)
        })
        .unwrap();
        let address = server.addresses()[0].address;
        fs::create_dir(folder.path().join("services")).unwrap();
        Self { folder, _server: server, address }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A service `test:NAME` whose program is a shell script in its working folder, with `$FOLDER` set and the input
    /// `text` as `$1`.
    fn service(&self, name: &str, body: &str) {
        let folder = self.path("services");
        let head = format!("FOLDER={}; cd \"$WPS_WORKDIR\"", self.folder.path().display());
        let program = common::script(&folder, &format!("{name}.sh"), &format!("{head}\n{body}"));
        let text = format!(
            "[DEFAULT]\nservice = {name}\nnamespace = test\ndescription = a test\nactive = true\n\
             executable_path = {folder}\nexecutable_cmd = {program}\noutput_dir = {out}\n\
             unique_execution_id = %(unique_exe_id)s\nworkdir = %(output_dir)s/%(unique_exe_id)s\n\
             max_running_time_seconds = 300\n\
             [Input1]\nclass = param\nname = text\ntype = string\ntitle = t\ndescription = d\nmin = 0\nmax = 1\n\
             [Action1]\nclass = cmdline\ninput_ref = text\ntemplate = value\n\
             [Output1]\nname = result\ntype = string\ntitle = r\ndescription = d\nfilepath = %(workdir)s/result.txt\n\
             [Logging]\nstdout_parser = [p (\\d+), l (.*)]\nstdout_action = [progress, log]\n",
            folder = folder.display(),
            program = program.display(),
            out = self.path("out").display(),
        );
        let draft = folder.join(format!(".{name}.draft"));
        fs::write(&draft, text).unwrap();
        fs::rename(draft, folder.join(format!("{name}.config"))).unwrap();
    }

    fn config(&self, extra: &str) -> PathBuf {
        let path = self.path("remote.config");
        let text = format!(
            "[DEFAULT]\naddress = 127.0.0.1\nport = {}\ntls = none\nallow_plaintext = true\ndomain = {DOMAIN}\n\
             user = agent\npassword = password of agent\nmucService = conference.{DOMAIN}\nagent_name = host\n\
             services_dir = {}\nresource_file_dir = {}\nkill_grace_seconds = 1\n{extra}\n",
            self.address.port(),
            self.path("services").display(),
            self.path("running").display(),
        );
        fs::write(&path, text).unwrap();
        path
    }

    fn agent(&self) -> Agent {
        self.agent_with("")
    }

    fn agent_with(&self, extra: &str) -> Agent {
        let config = self.config(extra);
        let log = fs::File::options().create(true).append(true).open(self.path("agent.log")).unwrap();
        let child = Command::new(AGENT)
            .args(["run", "-v", "-r"])
            .arg(config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        Agent { child, log: self.path("agent.log") }
    }

    async fn orchestrator(&self) -> Orchestrator {
        Orchestrator::join(self, "orchestrator").await
    }
}

struct Agent {
    child: Child,
    log: PathBuf,
}

impl Agent {
    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    fn kill(mut self) {
        self.signal(Signal::KILL);
        self.child.wait().unwrap();
    }

    fn stop(mut self) {
        self.signal(Signal::TERM);
        let status = eventually("the agent stops", 20, || self.child.try_wait().unwrap());
        assert!(status.success(), "{status}");
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        if std::thread::panicking() {
            eprintln!("{}", fs::read_to_string(&self.log).unwrap_or_default());
        }
    }
}

struct Orchestrator {
    muc: Muc,
    events: mpsc::Receiver<MucEvent>,
    room: BareJid,
}

/// What an agent said, and the token if it waits for an answer.
type Said = (FromAgent, Option<RequestToken>);

impl Orchestrator {
    async fn join(site: &Site, account: &str) -> Self {
        let connector =
            Connector::tcp("127.0.0.1", site.address.port(), Security::Plain, &Trust::default()).unwrap();
        let jid: Jid = format!("{account}@{DOMAIN}").parse().unwrap();
        let room: BareJid = format!("management@conference.{DOMAIN}").parse().unwrap();
        let announcement = Announcement {
            versions: native::VERSIONS.to_vec(),
            software: "test".into(),
            instance: "1".into(),
            load: None,
        };
        let presence = native::encode_peer(&native::Peer::Orchestrator(announcement)).unwrap();
        let (muc, events) = muc::start(MucConfig {
            session: SessionConfig::new(jid, format!("password of {account}"), connector),
            rooms: vec![RoomConfig {
                room: room.clone(),
                nick: account.into(),
                password: None,
                create: account == "orchestrator",
            }],
            presence: vec![payload(presence.name, &presence.json)],
        });
        let mut orchestrator = Self { muc, events, room };
        orchestrator.until("the room", |event| matches!(event, MucEvent::Joined { .. }).then_some(())).await;
        orchestrator
    }

    async fn until<T>(&mut self, what: &str, mut wanted: impl FnMut(MucEvent) -> Option<T>) -> T {
        let wait = async {
            loop {
                if let Some(found) = wanted(self.events.recv().await.expect("the session goes on")) {
                    return found;
                }
            }
        };
        timeout(Duration::from_secs(20), wait).await.unwrap_or_else(|_| panic!("waited in vain for {what}"))
    }

    async fn agent_is_there(&mut self) {
        self.until("the agent", |event| match event {
            MucEvent::Occupant(occupant) if occupant.nick == NICK && occupant.fresh => Some(()),
            _ => None,
        })
        .await;
    }

    async fn agent_is_gone(&mut self) {
        self.until("the agent's leave", |event| match event {
            MucEvent::Gone { nick, .. } if nick == NICK => Some(()),
            _ => None,
        })
        .await;
    }

    /// The next message of the agent; requests other than endings are answered at once.
    async fn next(&mut self) -> Said {
        let muc = self.muc.clone();
        self.until("a message of the agent", |event| match event {
            MucEvent::Message { payloads, .. } => {
                let (name, json) = parse_payload(payloads.first()?)?;
                Some((native::decode_from_agent(&name, &json).unwrap(), None))
            }
            MucEvent::Request { payload, token, .. } => {
                let (name, json) = parse_payload(&payload)?;
                let message = native::decode_from_agent(&name, &json).unwrap();
                if matches!(message, FromAgent::Completed { .. } | FromAgent::Error { .. }) {
                    return Some((message, Some(token)));
                }
                muc.respond(token, Ok(None));
                Some((message, None))
            }
            _ => None,
        })
        .await
    }

    async fn next_that<T>(&mut self, wanted: impl Fn(FromAgent) -> Option<T>) -> T {
        loop {
            if let Some(found) = wanted(self.next().await.0) {
                return found;
            }
        }
    }

    /// The next ending, confirmed.
    async fn ending(&mut self) -> FromAgent {
        loop {
            if let (ending, Some(token)) = self.next().await {
                self.muc.respond(token, Ok(None));
                return ending;
            }
        }
    }

    async fn error(&mut self) -> ExecutionError {
        match self.ending().await {
            FromAgent::Error { error, .. } => error,
            other => panic!("{other:?}"),
        }
    }

    async fn ask(&self, message: &ToAgent) -> Result<Option<wps_remote_xmpp::Element>, RequestError> {
        let written = native::encode_to_agent(message).unwrap();
        let element = payload(written.name, &written.json);
        self.muc.request(&self.room, NICK, element, Duration::from_secs(10)).await
    }

    async fn invite(&mut self) -> (Vec<ExecutionId>, Vec<String>) {
        self.ask(&ToAgent::Invite { executions: vec![] }).await.unwrap();
        let (mut held, mut offered) = (vec![], vec![]);
        loop {
            match self.next().await.0 {
                FromAgent::Executions { held: executions, .. } => held = executions,
                FromAgent::Register(process) => offered.push(process.id.to_string()),
                FromAgent::Load(_) => return (held, offered),
                // Messages need no answer and may overtake requests.
                FromAgent::Started { .. } | FromAgent::Progress { .. } => {}
                other => panic!("not part of the agreed order: {other:?}"),
            }
        }
    }

    async fn execute(&self, execution: &str, service: &str, text: Option<&str>) -> Result<(), StanzaError> {
        let input = text.map(|text| Input { id: "text".into(), value: Value::literal(text) });
        let request = Request {
            execution: id(execution),
            process: format!("test:{service}").parse().unwrap(),
            inputs: input.into_iter().collect(),
            base_url: "http://localhost/wps".into(),
        };
        match self.ask(&ToAgent::Request(Box::new(request))).await {
            Ok(_) => Ok(()),
            Err(RequestError::Refused(error)) => Err(error),
            Err(other) => panic!("{other}"),
        }
    }
}

fn id(text: &str) -> ExecutionId {
    ExecutionId::new(text).unwrap()
}

fn completed(message: &FromAgent) -> &str {
    match message {
        FromAgent::Completed { outputs, .. } => match &outputs[0].value {
            Value::Literal { text, .. } => text,
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_from_invitation_to_finish() {
    let site = Site::new();
    site.service("Echo", "echo 'p 10'; echo 'l hello'; printf '%s' \"$1\" > result.txt; echo 'p 100'");
    let mut orchestrator = site.orchestrator().await;
    let agent = site.agent();
    orchestrator.agent_is_there().await;
    assert_eq!(orchestrator.invite().await, (vec![], vec!["test:Echo".to_owned()]));

    let hostile = "a b \"'`$(id)` äöü 漢";
    orchestrator.execute("e1", "Echo", Some(hostile)).await.unwrap();
    let mut seen = vec![];
    let ending = loop {
        match orchestrator.next().await {
            (ending, Some(token)) => {
                orchestrator.muc.respond(token, Ok(None));
                break ending;
            }
            (message, None) => seen.push(message),
        }
    };
    assert_eq!(completed(&ending), hostile);
    assert_eq!(seen.first(), Some(&FromAgent::Started { execution: id("e1") }));
    assert!(seen.iter().any(|m| matches!(m, FromAgent::Log { text, .. } if text == "hello")), "{seen:?}");
    assert!(
        seen.iter().any(|m| matches!(m, FromAgent::Progress { percent, .. } if *percent == 100.0)),
        "{seen:?}"
    );
    let finished = site.path("running/e1/finished");
    eventually("the ending is known to be stored", 10, || finished.exists().then_some(()));
    // Known and finished: taken without a second run.
    orchestrator.execute("e1", "Echo", None).await.unwrap();
    assert_eq!(orchestrator.execute("e2", "Nothing", None).await.unwrap_err().condition, "item-not-found");
    agent.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_agent_loses_no_job_and_runs_none_twice() {
    let site = Site::new();
    site.service(
        "Wait",
        "echo $$ >> $FOLDER/pids; while [ ! -e $FOLDER/go ]; do sleep 0.02; done; echo done > result.txt",
    );
    let mut orchestrator = site.orchestrator().await;
    let agent = site.agent();
    orchestrator.agent_is_there().await;
    orchestrator.invite().await;
    for execution in ["e1", "e2", "e3"] {
        orchestrator.execute(execution, "Wait", None).await.unwrap();
    }
    let running =
        eventually("three programs run", 10, || Some(pids(&site.path("pids"))).filter(|p| p.len() == 3));
    agent.kill();
    orchestrator.agent_is_gone().await;
    assert!(running.iter().all(|pid| is_alive(*pid)));
    // One job ends while no agent is there, the others after the next one has come.
    let agent = site.agent();
    orchestrator.agent_is_there().await;
    let (held, _) = orchestrator.invite().await;
    assert_eq!(held, [id("e1"), id("e2"), id("e3")]);
    // Asked again, as an orchestrator does that does not know whether its request arrived.
    orchestrator.execute("e2", "Wait", None).await.unwrap();
    agent.kill();
    orchestrator.agent_is_gone().await;
    fs::write(site.path("go"), "").unwrap();
    eventually("the jobs end without an agent", 10, || {
        ["e1", "e2", "e3"]
            .iter()
            .all(|e| site.path("running").join(e).join("exit.json").exists())
            .then_some(())
    });
    let agent = site.agent();
    orchestrator.agent_is_there().await;
    orchestrator.ask(&ToAgent::Invite { executions: vec![] }).await.unwrap();
    let mut ended = vec![];
    while ended.len() < 3 {
        let ending = orchestrator.ending().await;
        assert_eq!(completed(&ending), "done\n");
        if let FromAgent::Completed { execution, .. } = ending {
            ended.push(execution);
        }
    }
    ended.sort();
    assert_eq!(ended, [id("e1"), id("e2"), id("e3")]);
    assert_eq!(pids(&site.path("pids")).len(), 3, "each program ran once");
    agent.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_orderly_stop_leaves_jobs_running_and_an_abort_afterwards_ends_them() {
    let site = Site::new();
    site.service("Stubborn", "trap '' TERM; echo $$ > $FOLDER/pids; while :; do sleep 1; done");
    let mut orchestrator = site.orchestrator().await;
    let agent = site.agent();
    orchestrator.agent_is_there().await;
    orchestrator.invite().await;
    orchestrator.execute("e1", "Stubborn", None).await.unwrap();
    let running =
        eventually("the program runs", 10, || Some(pids(&site.path("pids"))).filter(|p| !p.is_empty()));
    agent.stop();
    orchestrator.agent_is_gone().await;
    assert!(is_alive(running[0]));
    let agent = site.agent();
    orchestrator.agent_is_there().await;
    orchestrator.invite().await;
    orchestrator.ask(&ToAgent::Abort { execution: id("e1") }).await.unwrap();
    let error = orchestrator.error().await;
    assert_eq!(error.kind, ErrorKind::Aborted);
    let receipt = error.receipt.unwrap();
    assert!(receipt.forced >= 1 && receipt.survivors.is_empty(), "{receipt:?}");
    assert!(!is_alive(running[0]));
    match orchestrator.ask(&ToAgent::Abort { execution: id("unknown") }).await {
        Err(RequestError::Refused(error)) => assert_eq!(error.condition, "item-not-found"),
        other => panic!("{other:?}"),
    }
    agent.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_are_not_obeyed() {
    let site = Site::new();
    site.service("Echo", "echo x > result.txt");
    let mut orchestrator = site.orchestrator().await;
    let agent = site.agent();
    orchestrator.agent_is_there().await;
    let stranger = Orchestrator::join(&site, "stranger").await;
    assert_eq!(stranger.execute("e1", "Echo", None).await.unwrap_err().condition, "forbidden");
    for message in
        [ToAgent::Invite { executions: vec![] }, ToAgent::GetLoad, ToAgent::Abort { execution: id("e1") }]
    {
        match stranger.ask(&message).await {
            Err(RequestError::Refused(error)) => assert_eq!(error.condition, "forbidden"),
            other => panic!("{other:?}"),
        }
    }
    agent.stop();
    let log = fs::read_to_string(site.path("agent.log")).unwrap();
    assert_eq!(log.matches("add its account to `trusted_orchestrators`").count(), 1, "{log}");

    let agent = site.agent_with(&format!("trusted_orchestrators = stranger@{DOMAIN}"));
    orchestrator.agent_is_there().await;
    // The list names accounts, which the room discloses to moderators only: so the name counts here.
    drop(agent);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_descriptor_is_announced_and_a_full_agent_refuses() {
    let site = Site::new();
    let mut orchestrator = site.orchestrator().await;
    let agent = site.agent_with("max_parallel_jobs = 1");
    orchestrator.agent_is_there().await;
    assert_eq!(orchestrator.invite().await, (vec![], vec![]));
    site.service("Late", "while [ ! -e $FOLDER/go ]; do sleep 0.02; done; echo x > result.txt");
    let process = orchestrator
        .next_that(|message| match message {
            FromAgent::Register(process) => Some(process.id.to_string()),
            _ => None,
        })
        .await;
    assert_eq!(process, "test:Late");
    orchestrator.execute("e1", "Late", None).await.unwrap();
    let refusal = orchestrator.execute("e2", "Late", None).await.unwrap_err();
    assert_eq!(refusal.condition, "resource-constraint");
    assert!(refusal.text.contains("all 1 places"), "{refusal}");
    fs::remove_file(site.path("services/Late.config")).unwrap();
    let gone = orchestrator
        .next_that(|message| match message {
            FromAgent::Unregister(process) => Some(process.to_string()),
            _ => None,
        })
        .await;
    assert_eq!(gone, "test:Late");
    // What runs goes on, although its descriptor is gone.
    fs::write(site.path("go"), "").unwrap();
    assert_eq!(completed(&orchestrator.ending().await), "x\n");
    agent.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_input_is_an_ending_with_its_name() {
    let site = Site::new();
    site.service("Echo", "echo x > result.txt");
    let mut orchestrator = site.orchestrator().await;
    let agent = site.agent();
    orchestrator.agent_is_there().await;
    orchestrator.invite().await;
    orchestrator.execute("e1", "Echo", Some("a\tb")).await.unwrap();
    let error = orchestrator.error().await;
    assert_eq!(
        error.kind,
        ErrorKind::InvalidInput { code: "InvalidParameterValue".into(), locator: "text".into() }
    );
    agent.stop();
}

#[test]
fn a_second_agent_with_the_same_records_refuses_to_start() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let _inside = runtime.enter();
    let site = Site::new();
    let first = site.agent();
    eventually("the first agent has its folder", 10, || {
        site.path("running/agent.lock").exists().then_some(())
    });
    let second = Command::new(AGENT).args(["run", "-r"]).arg(site.config("")).output().unwrap();
    assert_eq!(second.status.code(), Some(100));
    let text = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(text.contains("another agent works with"), "{text}");
    drop(first);
}

/// A pipe that is named like a descriptor would keep a reader waiting for ever.
#[test]
fn a_pipe_in_the_folder_does_not_stop_the_check() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe.ini");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let good = "[Description]\nservice = Echo\nnamespace = demo\nexecutable = /bin/echo\n[Output]\nx = {}\n";
    fs::write(folder.path().join("ok.ini"), good).unwrap();
    for (place, code, part) in [(folder.path(), 0, "demo:Echo"), (&pipe, 2, "no regular file")] {
        let output = Command::new("timeout").arg("20").arg(AGENT).arg("check").arg(place).output().unwrap();
        let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert_eq!(output.status.code(), Some(code), "{text}");
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn wrong_calls_have_their_exit_codes() {
    let code = |args: &[&str]| {
        let output = Command::new(AGENT).args(args).current_dir(std::env::temp_dir()).output().unwrap();
        output.status.code()
    };
    assert_eq!(code(&["--version"]), Some(0));
    assert_eq!(code(&["run", "-r", "/nowhere/remote.config"]), Some(100));
    assert_eq!(code(&["nonsense"]), Some(2));
    assert_eq!(code(&["try", "/nowhere/x.ini"]), Some(2));
    assert_eq!(code(&["config"]), Some(0));
    assert_eq!(code(&["supervise"]), Some(2));
    assert!(Path::new(AGENT).exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_million_lines_cost_little_memory_and_delay_no_kill() {
    let site = Site::new();
    // In ten parts, a second apart; then it waits to be killed while the agent may still read.
    site.service(
        "Flood",
        "awk 'BEGIN { for (i = 1; i <= 1000000; i++) { print \"l line \" i \" of a very talkative program\"; \
         if (i % 100000 == 0) { fflush(); system(\"sleep 0.9\") } } }'; touch $FOLDER/written; exec sleep 60",
    );
    let mut orchestrator = site.orchestrator().await;
    let agent = site.agent();
    orchestrator.agent_is_there().await;
    orchestrator.invite().await;
    let before = common::memory_kib(agent.child.id());
    let begun = std::time::Instant::now();
    orchestrator.execute("e1", "Flood", None).await.unwrap();
    let written = site.path("written");
    let (mut lines, mut peak) = (0, 0);
    while !written.exists() {
        assert!(begun.elapsed() < Duration::from_secs(120), "the program does not come to its end");
        if let Ok((FromAgent::Log { .. }, _)) = timeout(Duration::from_millis(50), orchestrator.next()).await
        {
            lines += 1;
        }
        peak = peak.max(common::memory_kib(agent.child.id()).1);
    }
    let took = begun.elapsed();
    let asked = std::time::Instant::now();
    orchestrator.ask(&ToAgent::Abort { execution: id("e1") }).await.unwrap();
    let error = orchestrator.error().await;
    let killed = asked.elapsed();
    assert_eq!(error.kind, ErrorKind::Aborted);
    assert_eq!(error.receipt.unwrap().survivors, Vec::<String>::new());
    let grown = peak.max(common::memory_kib(agent.child.id()).1).saturating_sub(before.1);
    eprintln!(
        "a million lines in {:.1} s: the agent grew by {:.1} MiB, told {lines} of them, and was rid of the job {} ms after the abort",
        took.as_secs_f64(),
        grown as f64 / 1024.0,
        killed.as_millis()
    );
    assert!(grown < 30 * 1024, "{grown} KiB");
    // One second of grace is configured; `sleep` needs none of it.
    assert!(killed < Duration::from_secs(3), "{killed:?}");
    agent.stop();
}
