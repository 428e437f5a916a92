//! What was recorded between the Python agent and a stand-in for GeoServer, once more with this machine in the place of the
//! agent: every order is taken as it was sent, and every report of the Python agent is said by ours, byte for byte where both
//! write alike and with the same meaning where ours is safer.

use std::collections::{BTreeMap, BTreeSet};

use wps_remote_protocol::legacy::{LegacyOutput, Occupant, Report};
use wps_remote_protocol::message::RefusalReason;
use wps_remote_protocol::{
    Content, ErrorKind, ExecutionError, FromAgent, Load, Output, Refusal, SharedFile, Value,
};

use super::tests::DESCRIPTOR;
use super::*;
use crate::descriptor::tests::good;

/// Scenario, `order` or `report`, occupant, body.
const RECORDED: &str = include_str!("../../../protocol/src/legacy/recorded.txt");
const ADMIN: &str = "admin@geoserver.test";
const NOW: Duration = Duration::ZERO;

struct Replay {
    machine: Machine,
    /// Requests that nobody has said anything about yet.
    asked: HashMap<ExecutionId, Asked>,
    counts: BTreeMap<&'static str, usize>,
}

impl Replay {
    fn new(services: &BTreeSet<String>) -> Self {
        let settings = Settings {
            domain: "geoserver.test".into(),
            muc_service: "conference.geoserver.test".into(),
            host: "vm".into(),
            shared: None,
            path_map: Vec::new(),
            result_names: false,
            pickle: true,
        };
        let mut machine = Machine::new(settings);
        let offer = |service: &String| {
            Offer::new(&good(&DESCRIPTOR.replace("service = Play", &format!("service = {service}"))), false)
        };
        machine.offer(services.iter().map(offer).collect());
        for service in services {
            let who = Who::Service(ProcessId::new("default", service).unwrap());
            machine.joined(&who, NOW);
            machine.occupant(&who, ADMIN, Standing { trusted: true }, NOW);
        }
        machine.take();
        Self { machine, asked: HashMap::new(), counts: BTreeMap::new() }
    }

    fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    fn order(&mut self, to: &Occupant, body: &str) {
        match to {
            Occupant::Master { service, .. } => {
                let who = Who::Service(ProcessId::new("default", service).unwrap());
                self.machine.message(&who, ADMIN, body, NOW);
            }
            Occupant::Job { execution, .. } => {
                let Ok(execution) = ExecutionId::new(execution) else { return };
                self.run(&execution);
                self.machine.message(&Who::Job(execution), ADMIN, body, NOW);
            }
            Occupant::Other => panic!("an order to nobody: {body}"),
        }
        for effect in self.machine.take() {
            match effect {
                Effect::Tell(Heard::Request(_, request, asked)) => {
                    self.count("request");
                    assert!(body.contains(request.execution.as_str()));
                    assert_eq!(request.base_url, "http://127.0.0.1:8080/geoserver/");
                    self.asked.insert(request.execution, asked);
                }
                Effect::Tell(Heard::GetLoad(asked)) => {
                    self.count("getloadavg");
                    assert_eq!(asked.nick, ADMIN);
                }
                Effect::Tell(Heard::Abort(_)) => self.count("abort"),
                Effect::Tell(Heard::Finish(_)) => self.count("finish"),
                Effect::Say { to, body, .. } => {
                    assert_eq!(to, ADMIN);
                    assert!(matches!(Report::decode(&body), Ok(Report::Register(_))), "{body}");
                    self.count("register");
                }
                Effect::Tell(Heard::Invited(_) | Heard::Left(_)) | Effect::Close(_) => {}
                Effect::Open { .. } | Effect::Warn(_) => panic!("{body}: {effect:?}"),
            }
        }
    }

    /// The job's occupant comes into the room.
    fn run(&mut self, execution: &ExecutionId) {
        if self.asked.remove(execution).is_some() {
            let who = Who::Job(execution.clone());
            self.machine.accepted(execution);
            self.machine.joined(&who, NOW);
            self.machine.occupant(&who, ADMIN, Standing { trusted: true }, NOW);
            assert!(
                matches!(self.machine.take().as_slice(), [Effect::Open { nick, .. }] if nick.ends_with("@vm"))
            );
        }
    }

    /// Lets the machine say it; gives the body, if it says anything.
    fn says(&mut self, execution: &ExecutionId, message: FromAgent) -> Option<String> {
        self.run(execution);
        self.machine.report(message, NOW);
        self.machine.take().into_iter().find_map(|effect| match effect {
            Effect::Say { who, body, .. } => {
                assert_eq!(who, Who::Job(execution.clone()));
                Some(body)
            }
            _ => None,
        })
    }

    fn report(&mut self, recorded: &str) {
        let report = Report::decode(recorded).unwrap();
        match report {
            // Written byte for byte by the codec's own test; here it is that of another descriptor.
            Report::Register(_) | Report::Unregister(_) => {}
            Report::Load(told) => {
                let asked = Asked {
                    service: ProcessId::new("default", "Play").unwrap(),
                    nick: ADMIN.into(),
                    execution: None,
                };
                let load = Load {
                    cpu_percent: told.cpu_percent,
                    memory_percent: told.memory_percent,
                    cores: 2,
                    capacity: 1.0,
                    used: 0.0,
                    running: 0,
                    max_running: None,
                    accepting: true,
                    warning: None,
                    refusing: None,
                    labels: Vec::new(),
                };
                self.machine.tell_load(&asked, &load);
                let Some(Effect::Say { body, .. }) = self.machine.take().pop() else { panic!() };
                assert_eq!(Report::decode(&body), Ok(Report::Load(told)));
                self.count("loadavg");
            }
            Report::CannotExecute { execution } => {
                let Some(asked) = self.asked.remove(&execution) else { return };
                let refusal = Refusal { reason: RefusalReason::Capacity, text: String::new() };
                self.machine.refused(&asked, &refusal);
                let Some(Effect::Say { who, body, .. }) = self.machine.take().pop() else { panic!() };
                assert_eq!((who, body.as_str()), (Who::Service(asked.service), recorded));
                self.count("cantexec");
            }
            Report::Log { execution, level, text } => {
                let message = FromAgent::Log { execution: execution.clone(), level, text: text.clone() };
                let Some(body) = self.says(&execution, message) else { return };
                let text = if text.is_empty() { " ".to_owned() } else { text };
                assert_eq!(Report::decode(&body), Ok(Report::Log { execution, level, text }), "{recorded}");
                self.count("log");
            }
            Report::Progress { execution, percent } => {
                let message =
                    FromAgent::Progress { execution: execution.clone(), percent, message: String::new() };
                if let Some(body) = self.says(&execution, message) {
                    assert_eq!(body, recorded);
                    self.count("progress");
                }
            }
            Report::Error { execution, text } => {
                let error = ExecutionError { kind: ErrorKind::Exited(1), text: text.clone(), receipt: None };
                let message = FromAgent::Error { execution: execution.clone(), error };
                if let Some(body) = self.says(&execution, message) {
                    assert_eq!(Report::decode(&body), Ok(Report::Error { execution, text }));
                    self.count("error");
                }
            }
            Report::Completed { execution, base_url, outputs, .. } => {
                let told = outputs.iter().map(output).collect();
                let message = FromAgent::Completed { execution: execution.clone(), outputs: told };
                let Some(body) = self.says(&execution, message) else { return };
                let Ok(Report::Completed { base_url: echo, outputs: said, .. }) = Report::decode(&body)
                else {
                    panic!("{body}")
                };
                assert_eq!(echo, base_url);
                let values = |outputs: &[LegacyOutput]| -> Vec<(String, String)> {
                    outputs.iter().map(|one| (one.name.clone(), one.value.clone())).collect()
                };
                assert_eq!(values(&said), values(&outputs));
                self.count("completed");
            }
        }
    }
}

fn output(recorded: &LegacyOutput) -> Output {
    let value = if recorded.is_textual() {
        Value::literal(recorded.value.clone())
    } else {
        let file = SharedFile { path: recorded.value.clone(), bytes: 0, sha256: None };
        Value::Complex { content: Content::Shared(file), media_type: String::new(), schema: None }
    };
    Output::new(recorded.name.clone(), value)
}

#[test]
fn every_recording_is_replayed_with_this_agent_in_the_place_of_the_python_one() {
    let unescape = |text: &str| text.replace("\\n", "\n").replace("\\t", "\t").replace("\\\\", "\\");
    let lines: Vec<(&str, bool, Occupant, String)> = RECORDED
        .lines()
        .map(|line| {
            let cells: Vec<&str> = line.split('\t').collect();
            let (_, nick) = cells[2].split_once('/').unwrap();
            (cells[0], cells[1] == "order", Occupant::read(nick), unescape(cells[3]))
        })
        .collect();
    let services: BTreeSet<String> = lines
        .iter()
        .filter_map(|(_, _, occupant, _)| match occupant {
            Occupant::Master { service, .. } | Occupant::Job { service, .. } => Some(service.clone()),
            Occupant::Other => None,
        })
        .collect();
    let scenarios: BTreeSet<&str> = lines.iter().map(|(scenario, ..)| *scenario).collect();
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for scenario in &scenarios {
        let mut replay = Replay::new(&services);
        for (_, is_order, occupant, body) in lines.iter().filter(|(of, ..)| of == scenario) {
            if *is_order { replay.order(occupant, body) } else { replay.report(body) }
        }
        for (what, count) in replay.counts {
            *counts.entry(what).or_default() += count;
        }
    }
    assert!(scenarios.len() >= 20, "{scenarios:?}");
    let topics: Vec<&str> = counts.keys().copied().collect();
    let expected = [
        "abort",
        "cantexec",
        "completed",
        "error",
        "finish",
        "getloadavg",
        "loadavg",
        "log",
        "progress",
        "register",
        "request",
    ];
    assert_eq!(topics, expected, "{counts:?}");
    assert!(counts["request"] >= 30 && counts["progress"] >= 50, "{counts:?}");
}
