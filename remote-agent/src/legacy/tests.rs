//! The machine with a virtual clock: what it is told and what it says, body by body.

use wps_remote_protocol::legacy::{LegacyOutput, Report};
use wps_remote_protocol::message::RefusalReason;
use wps_remote_protocol::{
    Content, ErrorKind, ExecutionError, FromAgent, Load, LogLevel, Output, Refusal, SharedFile, Value,
};

use super::*;
use crate::descriptor::tests::good as descriptor_of;

pub(super) const DESCRIPTOR: &str = "[DEFAULT]
service = Play
namespace = default
description = [draft]
active = true
executable_path = /bin
executable_cmd = true
output_dir = /tmp
workdir = %(output_dir)s/%(unique_exe_id)s
max_running_time_seconds = 60
[Input1]
class = param
name = mode
type = string
title = Mode
description = How to behave
min = 1
max = 1
default = ok
[Input2]
class = param
name = words
type = string
description = Words
min = 0
max = -1
[Output1]
name = result1
type = string
title = The text
description = Text result
filepath = out.txt
[Output2]
name = result2
type = image/geotiff
description = null
filepath = dem.tif
publish_as_layer = true
publish_layer_name = dem
[Output3]
name = picture
type = image/png
description = A picture
filepath = p.png
";
const ADMIN: &str = "admin@d";

fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn id(text: &str) -> ExecutionId {
    ExecutionId::new(text).unwrap()
}

fn play() -> ProcessId {
    ProcessId::new("default", "Play").unwrap()
}

fn service() -> Who {
    Who::Service(play())
}

fn job(text: &str) -> Who {
    Who::Job(id(text))
}

fn admin() -> Peer {
    Peer(format!("default@rooms.d/{ADMIN}"))
}

struct World {
    machine: Machine,
    now: Duration,
}

impl World {
    /// The service is in its room.
    fn new() -> Self {
        let settings = Settings {
            domain: "d".into(),
            muc_service: "rooms.d".into(),
            host: "vm".into(),
            shared: Some("/shared".into()),
            path_map: vec![("/shared".into(), "/mnt/host".into())],
            result_names: true,
            pickle: true,
        };
        let mut machine = Machine::new(settings);
        machine.offer(vec![Offer::new(&descriptor_of(DESCRIPTOR), true)]);
        let mut world = Self { machine, now: s(0) };
        let opened = Effect::Open {
            who: service(),
            namespace: "default".into(),
            resource: "master-default-Play@vm".into(),
            nick: "Play@d/master@vm".into(),
        };
        assert_eq!(world.machine.take(), [opened]);
        world.machine.joined(&service(), s(0));
        world
    }

    /// And GeoServer too.
    fn met() -> Self {
        let mut world = Self::new();
        world.comes(&service(), ADMIN, true);
        world
    }

    fn comes(&mut self, who: &Who, nick: &str, trusted: bool) {
        self.machine.occupant(who, nick, Standing { trusted }, self.now);
    }

    fn hears(&mut self, who: &Who, nick: &str, body: &str) {
        self.machine.message(who, nick, body, self.now);
    }

    /// A job of GeoServer, taken, with its occupant in the room.
    fn running(execution: &str) -> Self {
        let mut world = Self::met();
        world.hears(&service(), ADMIN, &request(execution));
        world.machine.accepted(&id(execution));
        world.machine.joined(&job(execution), world.now);
        world.comes(&job(execution), ADMIN, true);
        world.machine.take();
        world
    }

    fn report(&mut self, message: FromAgent) {
        self.machine.report(message, self.now);
    }

    /// What was said since, as session and body; everything else that happened as its own text.
    fn effects(&mut self) -> Vec<String> {
        let effects = self.machine.take();
        effects
            .into_iter()
            .map(|effect| match effect {
                Effect::Say { who: Who::Service(_), to, body } => format!("service to {to}: {body}"),
                Effect::Say { who: Who::Job(id), to, body } => format!("{id} to {to}: {body}"),
                Effect::Open { nick, resource, .. } => format!("open {nick} as {resource}"),
                Effect::Close(who) => format!("close {who:?}"),
                Effect::Tell(heard) => match heard {
                    Heard::Invited(peer) => format!("invited {peer}"),
                    Heard::Left(peer) => format!("left {peer}"),
                    Heard::Request(_, request, _) => format!("request {}", request.execution),
                    Heard::Abort(id) => format!("abort {id}"),
                    Heard::Finish(id) => format!("finish {id}"),
                    Heard::GetLoad(_) => "load?".to_owned(),
                },
                Effect::Warn(text) => format!("warn {text}"),
            })
            .collect()
    }

    fn expect(&mut self, expected: &[&str]) {
        assert_eq!(self.effects(), expected);
    }
}

/// `{"mode": "ok"}` as GeoServer writes it.
fn request(execution: &str) -> String {
    format!(
        "topic=request&id={execution}&baseURL=http://h/geoserver/&message=%80%02%7Dq%00%28X%04%00%00%00modeq%01X%02%00%00%00okq%02u."
    )
}

fn completed(execution: &str, outputs: Vec<Output>) -> FromAgent {
    FromAgent::Completed { execution: id(execution), outputs }
}

fn failed(execution: &str, kind: ErrorKind, text: &str) -> FromAgent {
    let error = ExecutionError { kind, text: text.into(), receipt: None };
    FromAgent::Error { execution: id(execution), error }
}

#[test]
fn an_invitation_is_answered_at_any_time_with_what_the_plugin_can_read() {
    let mut world = World::met();
    for _ in 0..2 {
        world.hears(&service(), ADMIN, "topic=invite");
    }
    let said: Vec<String> =
        world.effects().into_iter().filter(|line| line.starts_with("service to")).collect();
    assert_eq!(said.len(), 2);
    let Ok(Report::Register(read)) = Report::decode(said[0].trim_start_matches("service to admin@d: "))
    else {
        panic!("{said:?}")
    };
    assert_eq!((read.title.as_str(), read.description.as_str()), ("default.Play", "[draft] "));
    let attributes = |list: &[(String, serde_json::Value)], name: &str| {
        list.iter().find(|(other, _)| other == name).unwrap_or_else(|| panic!("{name}")).1.clone()
    };
    let mode = attributes(&read.inputs, "mode");
    let keys: Vec<&str> = mode.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(keys, ["type", "title", "default", "description", "min", "max", "input_mime_type"]);
    let words = attributes(&read.inputs, "words");
    assert!(words.get("max").is_none() && words["min"].is_i64(), "absent is unbounded: {words}");
    assert_eq!(attributes(&read.outputs, "result2")["description"], "null ");
    let picture = attributes(&read.outputs, "result_picture");
    assert_eq!(
        (picture["type"].as_str(), picture["output_mime_type"].as_str()),
        (Some("complex"), Some("image/png"))
    );
}

#[test]
fn a_job_has_an_occupant_of_its_own_and_what_it_says_waits_for_that() {
    let mut world = World::met();
    world.hears(&service(), ADMIN, &request("e1"));
    world.expect(&[&format!("invited {}", admin().0), "request e1"]);
    world.machine.accepted(&id("e1"));
    world.expect(&["open Play@d/e1@vm as e1@vm"]);
    world.report(FromAgent::Started { execution: id("e1") });
    let text = "a=b & 50% é".to_owned();
    world.report(FromAgent::Log { execution: id("e1"), level: LogLevel::Warning, text });
    world.report(FromAgent::Progress { execution: id("e1"), percent: 25.0, message: String::new() });
    world.report(completed("e1", vec![Output::new("result1", Value::literal("fine"))]));
    world.machine.joined(&job("e1"), world.now);
    world.expect(&[]);
    world.comes(&job("e1"), ADMIN, true);
    let output = LegacyOutput {
        title: Some("The text".into()),
        description: Some("Text result".into()),
        publish: Some(false),
        ..LegacyOutput::textual("result1", "fine")
    };
    let ending = Report::Completed {
        execution: id("e1"),
        base_url: "http://h/geoserver/".into(),
        outputs: vec![output],
        broken: vec![],
    };
    world.expect(&[
        "e1 to admin@d: topic=log&id=e1&level=WARNING&message=a%3Db%20%26%2050%25%20%C3%A9",
        "e1 to admin@d: topic=progress&id=e1&message=25.0",
        &format!("e1 to admin@d: {}", ending.encode()),
    ]);
    // The engine repeats earlier than the plugin likes; `finish` ends it.
    world.now = s(4);
    world.report(completed("e1", vec![]));
    world.expect(&[]);
    world.now = s(10);
    world.report(completed("e1", vec![]));
    assert_eq!(world.effects().len(), 1);
    world.hears(&job("e1"), ADMIN, "topic=finish");
    world.expect(&["finish e1", &format!("close {:?}", job("e1"))]);
}

#[test]
fn files_are_paths_and_texts_are_no_json() {
    let shared = |path: &str| Value::Complex {
        content: Content::Shared(SharedFile { path: path.into(), bytes: 1, sha256: None }),
        media_type: String::new(),
        schema: None,
    };
    let outputs = vec![
        Output::new("result1", Value::literal("{\"a\": 1}")),
        Output::new("result2", shared("e1/result2/dem.tif")),
        Output::new("picture", shared("/abs/p.png")),
        Output {
            metadata: Some("words".into()),
            ..Output::new("gone", Value::reference("ftp://h/up/e1/gone/a%20b.tif", ""))
        },
    ];
    let settings = World::new().machine.settings.clone();
    let offer = Offer::new(&descriptor_of(DESCRIPTOR), true);
    let written = outputs::write(&outputs, &id("e1"), Some(&offer), &settings);
    let seen: Vec<_> = written
        .iter()
        .map(|output| (output.name.as_str(), output.kind.as_str(), output.value.as_str(), output.publish))
        .collect();
    assert_eq!(
        seen,
        [
            ("result1", "textual", "{\"a\": 1} ", Some(false)),
            ("result2", "image/geotiff", "/mnt/host/e1/result2/dem.tif", Some(true)),
            ("result_picture", "complex", "/abs/p.png", Some(false)),
            ("result_gone", "complex", "e1/gone/a b.tif", Some(false)),
        ]
    );
    assert_eq!(written[1].layer.as_deref(), Some("dem"));
    assert_eq!(written[3].metadata.as_deref(), Some("words"));
}

#[test]
fn an_error_is_said_once_and_has_arrived_unless_it_comes_back() {
    let mut world = World::running("e1");
    world.report(failed("e1", ErrorKind::Exited(3), "process exit code is 3"));
    world.expect(&["e1 to admin@d: topic=error&id=e1&message=process%20exit%20code%20is%203"]);
    assert_eq!(world.machine.tick(s(0)), Some(s(2)));
    world.machine.bounced(&job("e1"));
    assert_eq!(world.machine.tick(s(2)), None, "it came back");
    world.now = s(3);
    world.report(failed("e1", ErrorKind::Exited(3), "again"));
    assert_eq!(world.effects().len(), 1);
    assert_eq!(world.machine.tick(s(5)), None);
    world.expect(&["finish e1", &format!("close {:?}", job("e1"))]);
}

#[test]
fn an_abort_ends_the_job_and_its_occupant_leaves_without_a_word() {
    for order in ["topic=abort", "topic=finish"] {
        let mut world = World::running("e1");
        world.hears(&job("e1"), ADMIN, order);
        world.expect(&["abort e1"]);
        world.report(FromAgent::Progress { execution: id("e1"), percent: 1.0, message: String::new() });
        world.expect(&[]);
        world.report(failed("e1", ErrorKind::Aborted, "aborted on request"));
        world.expect(&["finish e1", &format!("close {:?}", job("e1"))]);
    }
    let mut world = World::running("e1");
    for order in ["topic=abort", "topic=finish"] {
        world.hears(&service(), ADMIN, order);
    }
    world.expect(&[]);
}

#[test]
fn only_the_one_that_asked_ends_a_job_while_it_is_there() {
    let mut world = World::running("e1");
    world.comes(&job("e1"), "other@d", true);
    world.hears(&job("e1"), "other@d", "topic=abort");
    assert!(
        world.effects().iter().any(|line| line.starts_with("warn") && line.contains("may not order job e1"))
    );
    for who in [job("e1"), service()] {
        world.machine.gone(&who, ADMIN);
    }
    world.machine.take();
    world.hears(&job("e1"), "other@d", "topic=abort");
    world.expect(&["abort e1"]);
}

#[test]
fn strangers_are_named_once_and_never_obeyed() {
    let mut world = World::new();
    world.comes(&service(), "eve@d", false);
    for body in ["topic=invite", "topic=invite", &request("e1"), "hello"] {
        world.hears(&service(), "eve@d", body);
    }
    let lines = world.effects();
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(
        lines[0].contains("default@rooms.d/eve@d") && lines[0].contains("trusted_orchestrators"),
        "{lines:?}"
    );
    world.comes(&service(), ADMIN, true);
    world.hears(&service(), ADMIN, "topic=request&id=e1&baseURL=u&message=cos%0Asystem%0A%28S%27id%27%0AtR.");
    let lines = world.effects();
    assert!(lines[0].contains("admin@d") && lines[0].contains("os.system"), "{lines:?}");
    assert_eq!(lines.len(), 1);
}

#[test]
fn a_request_without_capacity_is_answered_by_the_service() {
    let refused = |reason| {
        let mut world = World::met();
        world.hears(&service(), ADMIN, &request("e1"));
        let Some(Effect::Tell(Heard::Request(_, _, asked))) = world.machine.take().pop() else { panic!() };
        world.machine.refused(&asked, &Refusal { reason, text: "no room".into() });
        world.effects()
    };
    let cantexec =
        "service to admin@d: topic=cantexec&id=master&message=cantexec&output=Cannot%20Execute&exec_id=e1";
    assert_eq!(refused(RefusalReason::Capacity), [cantexec]);
    assert_eq!(refused(RefusalReason::Draining), [cantexec]);
    let gone = "service to admin@d: topic=error&id=e1&message=no%20room";
    assert_eq!(refused(RefusalReason::NoSuchProcess), [gone]);
    // After it was weighed.
    let mut world = World::running("e1");
    world.machine.refused_later(&id("e1"), &Refusal { reason: RefusalReason::Capacity, text: String::new() });
    world.expect(&[&format!("close {:?}", job("e1")), cantexec]);
}

#[test]
fn the_load_has_decimal_points_and_hides_whoever_takes_nothing() {
    let mut world = World::met();
    let asked = Asked { service: play(), nick: ADMIN.into(), execution: None };
    let load = Load {
        cpu_percent: 50.0,
        memory_percent: 7.0,
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
    world.machine.tell_load(&asked, &load);
    let said = world.effects();
    assert!(
        said[0].contains("loadavg_value%22%3A%2050.0") && said[0].contains("vmem_value%22%3A%207.0"),
        "{said:?}"
    );
    let draining = Refusal { reason: RefusalReason::Draining, text: String::new() };
    world.machine.tell_load(&asked, &Load { refusing: Some(draining), ..load });
    assert!(world.effects()[0].contains("loadavg_value%22%3A%20100.0"));
}

#[test]
fn what_is_offered_changes_while_geoserver_is_there() {
    let mut world = World::met();
    world.hears(&service(), ADMIN, "topic=invite");
    world.machine.take();
    let changed = DESCRIPTOR.replace("How to behave", "How to misbehave");
    world.machine.offer(vec![Offer::new(&descriptor_of(&changed), true)]);
    let said = world.effects();
    assert_eq!(said[0], "service to admin@d: topic=unregister");
    assert!(
        said[1].starts_with("service to admin@d: topic=register&") && said[1].contains("misbehave"),
        "{said:?}"
    );
    world.machine.offer(vec![]);
    world.expect(&[&format!("left {}", admin().0), &format!("close {:?}", service())]);
}

#[test]
fn a_geoserver_that_comes_back_gets_the_ending_again() {
    let mut world = World::running("e1");
    world.report(completed("e1", vec![]));
    assert_eq!(world.effects().len(), 1);
    for who in [service(), job("e1")] {
        world.machine.gone(&who, ADMIN);
    }
    world.expect(&[&format!("left {}", admin().0)]);
    world.now = s(1);
    for who in [service(), job("e1")] {
        world.comes(&who, ADMIN, true);
    }
    assert_eq!(world.effects().len(), 1, "another appearance");
    // A former agent's job is taken up in its own name.
    world.machine.adopt(id("e2"), play(), admin(), "http://h/".into());
    world.expect(&["open Play@d/e2@vm as e2@vm"]);
}

#[test]
fn outputs_that_are_too_large_end_the_job_in_words() {
    let mut world = World::running("e1");
    world.report(completed("e1", vec![Output::new("result1", Value::literal("long"))]));
    let Some(Effect::Say { body, .. }) = world.machine.take().pop() else { panic!() };
    world.machine.unsayable(&job("e1"), &body, "it is too big", world.now);
    let said = world.effects();
    assert!(
        said[0].starts_with("e1 to admin@d: topic=error&id=e1") && said[0].contains("too%20big"),
        "{said:?}"
    );
}
