//! Whom the bus believes: another member of the room claims to be the agent, announces what it may not, reports about
//! executions that are not its own, gives orders, repeats what was said; a second agent comes with the same name. All of it is
//! refused and told to the operator, and the job that runs meanwhile ends as it should. A new agent gets its account by a token.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, and so do its helpers")]

use std::collections::HashSet;
use std::process::Command;
use std::time::Duration;

use e2e::agent::{Agent, write_private};
use e2e::bus::Login;
use e2e::client::{Execute, Status, Wps};
use e2e::orchestrator::Orchestrator;
use e2e::program::{Program, binary};
use e2e::{Site, tell, wait_until};
use serde_json::Value;
use tokio::runtime::Runtime;
use tokio::sync::mpsc::Receiver;
use wps_remote_protocol::native::{self, Announcement, Payload, Peer};
use wps_remote_protocol::{
    ErrorKind, ExecutionError, ExecutionId, FromAgent, Inputs, Load, LogLevel, Outputs, ProcessDescription,
    Request, ToAgent,
};
use wps_remote_xmpp::muc::{self, Muc, MucConfig, MucEvent, RequestError, RoomConfig};
use wps_remote_xmpp::session::SessionConfig;
use wps_remote_xmpp::{BareJid, Jid, payload};

const SOON: Duration = Duration::from_secs(20);

/// Another member of the management room.
struct Member {
    muc: Muc,
    events: Receiver<MucEvent>,
    room: BareJid,
}

fn announcement(agent: bool, instance: &str) -> Payload {
    let load = Load {
        cpu_percent: 0.0,
        memory_percent: 0.0,
        cores: 64,
        capacity: 1e6,
        used: 0.0,
        running: 0,
        max_running: None,
        accepting: true,
        warning: None,
        refusing: None,
        labels: Vec::new(),
    };
    let announcement = Announcement {
        versions: native::VERSIONS.to_vec(),
        software: "impostor 1".to_owned(),
        instance: instance.to_owned(),
        load: agent.then_some(load),
    };
    native::encode_peer(&if agent { Peer::Agent(announcement) } else { Peer::Orchestrator(announcement) })
        .unwrap()
}

impl Member {
    fn enter(login: &Login, nick: &str, presence: Option<Payload>) -> Self {
        let jid: Jid = format!("{}@{}", login.user, login.domain).parse().unwrap();
        let room: BareJid = format!("management@{}", login.muc_domain).parse().unwrap();
        let (muc, events) = muc::start(MucConfig {
            session: SessionConfig::new(jid, login.password.clone(), login.connector.clone()),
            rooms: vec![RoomConfig {
                room: room.clone(),
                nick: nick.to_owned(),
                password: Some(login.room_password.clone()),
                create: false,
            }],
            presence: presence.iter().map(|p| payload(p.name, &p.json)).collect(),
        });
        Self { muc, events, room }
    }

    /// Waits for the join, or for the condition of its refusal.
    async fn admitted(&mut self) -> Result<HashSet<String>, String> {
        let waiting = async {
            while let Some(event) = self.events.recv().await {
                match event {
                    MucEvent::Joined { .. } => return Ok(()),
                    MucEvent::JoinRefused { condition, .. } => return Err(condition),
                    _ => {}
                }
            }
            panic!("the session ended")
        };
        tokio::time::timeout(SOON, waiting).await.expect("an answer to the join")?;
        // Who is there follows at once.
        let mut there = HashSet::new();
        while let Ok(Some(event)) = tokio::time::timeout(Duration::from_millis(500), self.events.recv()).await
        {
            if let MucEvent::Occupant(occupant) = event {
                there.insert(occupant.nick);
            }
        }
        Ok(there)
    }

    /// Asks an occupant, and gives the condition with which it refuses, or an empty text.
    async fn ask(&self, to: &str, said: &Payload) -> String {
        match self.muc.request(&self.room, to, payload(said.name, &said.json), SOON).await {
            Ok(_) => String::new(),
            Err(RequestError::Refused(error)) => error.condition,
            Err(error) => panic!("{to} does not answer: {error}"),
        }
    }
}

fn description(id: &str) -> ProcessDescription {
    let output = serde_json::json!({ "id": "r", "data": { "literal": { "kind": "string" } } });
    serde_json::from_value(serde_json::json!({ "id": id, "title": "T", "outputs": [output] })).unwrap()
}

/// Everything that an agent could say about an execution.
fn reports(execution: &ExecutionId) -> Vec<FromAgent> {
    let execution = || execution.clone();
    let error = ExecutionError { kind: ErrorKind::Lost, text: "gone".to_owned(), receipt: None };
    vec![
        FromAgent::Progress { execution: execution(), percent: 99.0, message: "forged".to_owned() },
        FromAgent::Log { execution: execution(), level: LogLevel::Info, text: "forged".to_owned() },
        FromAgent::Completed { execution: execution(), outputs: Outputs::default() },
        FromAgent::Error { execution: execution(), error },
    ]
}

fn operator(orchestrator: &Orchestrator<'_>) -> Value {
    let answer = orchestrator.wps().http.get("/agents").unwrap();
    serde_json::from_slice(&answer.body).unwrap()
}

/// How often something of this kind was not believed, by the figures of the orchestrator.
fn doubts(orchestrator: &Orchestrator<'_>, what: &str) -> f64 {
    orchestrator.metric(&format!("wps_bus_not_believed_total{{what=\"{what}\"}}")).unwrap_or(0.0)
}

/// A second agent with the same name, and the same account: kept out, seen, or without work.
fn twin(site: &Site, orchestrator: &Orchestrator<'_>, agent: &Agent<'_>, wps: &mut Wps) {
    let second = site.agent("second").service("echo");
    let config = std::fs::read_to_string(agent.config_file()).unwrap();
    let folder = site.make_folder("second");
    let second_config = folder.join("same-name.config");
    let running = folder.join("running");
    let config = config
        .lines()
        .filter(|line| !line.starts_with("resource_file_dir"))
        .map(|line| format!("{line}\n"))
        .collect::<String>()
        + &format!("resource_file_dir = {}\n", running.display());
    drop(second);
    write_private(&second_config, &config).unwrap();
    let mut command = Command::new(binary("wps-remote-agent"));
    command.args(["run", "--config"]).arg(&second_config);
    let log = site.folder().join("same-name.log");
    let twin = Program::start("same-name", command, &log).unwrap();
    let noticed = wait_until(SOON, || {
        let kept_out = twin.log().contains("another agent has our name");
        let seen = operator(orchestrator)["not_believed"].to_string().contains("two agents use this name");
        (kept_out || seen).then_some(if kept_out { "kept out" } else { "seen" })
    });
    // Prosody shows of two sessions of one account under one name only the first, which alone gets requests.
    let prosody = site.name().ends_with("Prosody");
    let noticed = noticed.or_else(|| prosody.then_some("not shown, and gets no work"));
    assert!(noticed.is_some(), "{}\n{}", twin.tail(), operator(orchestrator));
    tell(&format!("a second agent with the same name on {}: {}", site.name(), noticed.unwrap_or_default()));
    let location = wps.submit(&Execute::new("demo:Sleep").literal("seconds", "1").stored());
    assert!(wps.wait(&location) == Status::Succeeded, "the first agent goes on");
    assert!(twin.stop().success());
    assert!(wait_until(SOON, || orchestrator.agents_present(1).then_some(())).is_some());
}

fn story(site: &Site) {
    site.expect_warning("appears under the name of an agent of another account");
    site.expect_warning("may not announce");
    site.expect_warning("reports about the execution");
    site.expect_warning("speaks like an agent and is none");
    site.expect_warning("an order was refused");
    site.expect_warning("two agents use this name");
    site.expect_warning("another agent has our name");
    site.expect_warning("the orchestrator did not take it");
    site.expect_warning("refuses to serve this orchestrator");
    let orchestrator = site.orchestrator().config("[agents]\na = demo\neve = evil").start();
    let agent = site.agent("a").service("sleep").config("agent_name = host").start();
    orchestrator.wait_for(&["demo:Sleep"]);
    let runtime = Runtime::new().unwrap();
    let login = site.bus().login("eve");
    let mut wps = orchestrator.wps();
    let location = wps.submit(&Execute::new("demo:Sleep").literal("seconds", "12").stored());
    wps.wait_until(&location, SOON, |status| matches!(status, Status::Started(_)));
    // What operators see is renewed once a second.
    let execution =
        wait_until(SOON, || operator(&orchestrator)["agents"][0]["running"][0].as_str().map(str::to_owned));
    let execution = ExecutionId::new(&execution.unwrap()).unwrap();

    // The name of the agent is taken as long as it is there.
    let refused = runtime
        .block_on(async { Member::enter(&login, "a@host", Some(announcement(true, "i1"))).admitted().await });
    assert_eq!(refused.unwrap_err(), "conflict");

    // Under another name of the agent's account: no agent, and whatever it says is not heard.
    let before = doubts(&orchestrator, "stranger");
    runtime.block_on(async {
        let mut eve = Member::enter(&login, "a@elsewhere", Some(announcement(true, "i2")));
        assert!(eve.admitted().await.unwrap().contains("a@host"));
        for report in reports(&execution) {
            let said = native::encode_from_agent(&report).unwrap();
            assert_eq!(eve.ask("orchestrator", &said).await, "not-allowed", "{report:?}");
        }
        let registers = FromAgent::Register(Box::new(description("demo:Sleep")));
        let said = native::encode_from_agent(&registers).unwrap();
        assert_eq!(eve.ask("orchestrator", &said).await, "not-allowed");
        eve.muc.close().await;
    });
    assert!(doubts(&orchestrator, "name") >= 1.0);
    assert_eq!(doubts(&orchestrator, "stranger") - before, 5.0);
    assert!(orchestrator.agents_present(1));

    // As an agent of its own account: it announces what was granted to it and nothing else, and reports about nobody else's
    // executions.
    runtime.block_on(async {
        let mut eve = Member::enter(&login, "eve@host", Some(announcement(true, "i3")));
        eve.admitted().await.unwrap();
        for (process, condition) in
            [("demo:Sleep", "forbidden"), ("demo:Other", "forbidden"), ("evil:Twin", "")]
        {
            let registers = FromAgent::Register(Box::new(description(process)));
            let said = native::encode_from_agent(&registers).unwrap();
            let answered = wait_for_answer(&eve, &said).await;
            assert_eq!(answered, condition, "{process}");
        }
        for report in reports(&execution) {
            let said = native::encode_from_agent(&report).unwrap();
            assert_eq!(eve.ask("orchestrator", &said).await, "forbidden", "{report:?}");
            // Also as a message, which nobody answers.
            let _ = eve.muc.send(&eve.room, "orchestrator", payload(said.name, &said.json));
        }
        // Orders to the agent: this member is no orchestrator, whatever it says of itself.
        let presence = announcement(false, "i4");
        eve.muc.set_presence(vec![payload(presence.name, &presence.json)]).unwrap();
        let request = Request {
            execution: ExecutionId::new("forged-1").unwrap(),
            process: "demo:Sleep".parse().unwrap(),
            inputs: Inputs::default(),
            base_url: String::new(),
        };
        for order in [
            ToAgent::Invite { executions: Vec::new() },
            ToAgent::Request(Box::new(request)),
            ToAgent::Abort { execution: execution.clone() },
            ToAgent::Finish { execution: execution.clone() },
            ToAgent::GetLoad,
        ] {
            let said = native::encode_to_agent(&order).unwrap();
            assert_eq!(eve.ask("a@host", &said).await, "forbidden", "{order:?}");
        }
        eve.muc.close().await;
    });
    assert_eq!(doubts(&orchestrator, "process"), 2.0);
    let reported = wait_until(SOON, || (doubts(&orchestrator, "report") >= 8.0).then_some(()));
    assert!(reported.is_some(), "{} reports were not believed", doubts(&orchestrator, "report"));

    // The job went on, and ends with the result of its own program.
    assert!(wps.wait(&location) == Status::Succeeded);
    let ended = wps.fetch(&location).text();
    assert!(ended.contains("12") && !ended.contains("forged"), "{ended}");

    // Everything once more, from the account that had it granted and from the other one: nothing changes.
    runtime.block_on(async {
        let mut eve = Member::enter(&login, "eve@host", Some(announcement(true, "i5")));
        eve.admitted().await.unwrap();
        for report in reports(&execution) {
            let said = native::encode_from_agent(&report).unwrap();
            assert!(!wait_for_answer(&eve, &said).await.is_empty(), "{report:?}");
        }
        eve.muc.close().await;
    });
    assert_eq!(wps.fetch(&location).text(), ended);

    // ejabberd lets a second session of the same account in, and shows the later one as if the first had started anew.
    if !site.name().ends_with("ejabberd") {
        twin(site, &orchestrator, &agent, &mut wps);
    }

    let (_, listed, _) = orchestrator.command(&["agents"], "");
    for (what, sender) in [("name", "a@elsewhere"), ("process", "eve@host"), ("report", "eve@host")] {
        let line = listed.lines().find(|line| line.starts_with(what) && line.contains(sender));
        assert!(line.is_some_and(|line| line.contains("eve@")), "{what} of {sender}:\n{listed}");
    }
    tell(&format!(
        "not believed on {}: names {}, processes {}, reports {}, strangers {}",
        site.name(),
        doubts(&orchestrator, "name"),
        doubts(&orchestrator, "process"),
        doubts(&orchestrator, "report"),
        doubts(&orchestrator, "stranger")
    ));
}

/// The answer of the orchestrator; right after an agent has appeared it may not know it yet.
async fn wait_for_answer(eve: &Member, said: &Payload) -> String {
    for _ in 0..100 {
        let answer = eve.ask("orchestrator", said).await;
        if answer != "not-allowed" {
            return answer;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    "not-allowed".to_owned()
}

#[test]
fn nobody_is_believed_beyond_its_own_account() {
    e2e::run_over_every_server("impostors", story);
}

#[test]
fn an_agent_enrols_with_a_token_that_opens_once() {
    e2e::run("enrolment", |site| {
        site.expect_warning("may not announce");
        site.expect_warning("the orchestrator did not take it");
        site.expect_warning("refuses to serve this orchestrator");
        site.expect_warning("an XMPP login was refused");
        let orchestrator = site.orchestrator().start();
        let (done, token, said) =
            orchestrator.command(&["accounts", "enrol", "gpu", "--namespaces", "demo", "--hours", "1"], "");
        assert!(done && token.starts_with("wpse_"), "{token}{said}");
        let (again, _, said) = orchestrator.command(&["accounts", "enrol", "gpu"], "");
        assert!(!again && said.contains("--again"), "{said}");
        let (_, listed, _) = orchestrator.command(&["accounts", "list"], "");
        assert!(listed.contains("gpu  waits to be enrolled until 2"), "{listed}");

        let folder = site.make_folder("gpu");
        let (token_file, config) = (folder.join("token"), folder.join("remote.config"));
        std::fs::write(&token_file, &token).unwrap();
        let enrol = |arguments: &[&str]| {
            let mut command = Command::new(binary("wps-remote-agent"));
            command
                .arg("enrol")
                .arg("--token-file")
                .arg(&token_file)
                .arg("--config")
                .arg(&config)
                .args(arguments);
            let output = command.output().unwrap();
            let text = [output.stdout, output.stderr].concat();
            (output.status.success(), String::from_utf8_lossy(&text).into_owned())
        };
        // What is waiting may do nothing else: not even the room is open to it.
        let (done, said) = enrol(&[]);
        assert!(done && said.contains("enrolled as gpu@"), "{said}");
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(std::fs::metadata(&config).unwrap().permissions().mode() & 0o777, 0o600);
        let (done, said) = enrol(&[]);
        assert!(!done && said.contains("--force"), "{said}");
        let written = std::fs::read_to_string(&config).unwrap();
        assert!(
            written.contains("tls = starttls") && written.contains("tls_fingerprint_sha256"),
            "{written}"
        );

        // It serves, over TLS to the pinned certificate, what it was enrolled for.
        for (name, namespace) in [("good", "demo"), ("bad", "other")] {
            let services = site.make_folder("gpu/services");
            let text = format!(
                "[Description]\nservice = {name}\nnamespace = {namespace}\nexecutable = run.sh\n\n[Output]\nresult = {{\"type\": \"string\", \"file\": \"r\"}}\n"
            );
            std::fs::write(services.join(format!("{name}.ini")), text).unwrap();
            let script = services.join("run.sh");
            std::fs::write(&script, "#!/bin/sh\necho done > r\n").unwrap();
            std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        let mut command = Command::new(binary("wps-remote-agent"));
        command.args(["run", "--config"]).arg(&config);
        let agent = Program::start("gpu", command, &site.folder().join("gpu.log")).unwrap();
        orchestrator.wait_for(&["demo:good"]);
        let refused = wait_until(SOON, || {
            operator(&orchestrator)["not_believed"].to_string().contains("other:bad").then_some(())
        });
        assert!(refused.is_some(), "{}", agent.tail());
        assert!(!orchestrator.wps().processes().unwrap().contains(&"other:bad".to_owned()));

        // The token is spent, here and everywhere.
        let spent = folder.join("spent.config");
        let mut command = Command::new(binary("wps-remote-agent"));
        command.args(["enrol", "--token", token.trim(), "--config"]).arg(&spent);
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains("not enrolled"), "{said}");
        assert!(!spent.exists());
        assert!(agent.stop().success());

        // No secret is in any log.
        let secrets: Vec<&str> = written
            .lines()
            .filter_map(|line| line.split_once(" = "))
            .filter(|(key, _)| matches!(*key, "password" | "mucServicePassword"))
            .map(|(_, secret)| secret)
            .chain([token.trim()])
            .collect();
        assert_eq!(secrets.len(), 3);
        let logs = orchestrator.program().log() + &agent.log() + &said;
        for secret in secrets {
            assert!(!logs.contains(secret), "a secret is in a log");
        }
    });
}
