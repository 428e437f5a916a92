//! The engine with a virtual clock: every test ends with "nothing else was emitted".

use std::collections::HashSet;

use proptest::prelude::*;
use wps_remote_protocol::{ErrorKind, ExecutionError};

use super::*;

pub(super) fn settings() -> Settings {
    Settings {
        capacity: 100.0,
        max_running: None,
        load_threshold: 100.0,
        cores: 2,
        keep_endings: Duration::from_secs(3600),
        labels: vec![],
    }
}

fn process(name: &str, weight: f64) -> ProcessDescription {
    ProcessDescription {
        id: ProcessId::new("test", name).unwrap(),
        alias: None,
        title: name.into(),
        summary: String::new(),
        version: "1".into(),
        keywords: vec![],
        inputs: vec![],
        outputs: vec![],
        weight,
        repeatable: false,
        max_running_time_s: 0,
        roles: Vec::new(),
    }
}

pub(super) fn peer(name: &str) -> Peer {
    Peer(name.into())
}

pub(super) fn id(name: &str) -> ExecutionId {
    ExecutionId::new(name).unwrap()
}

pub(super) fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub(super) fn failed() -> Ending {
    Ending::Failed(ExecutionError { kind: ErrorKind::Exited(1), text: "x".into(), receipt: None })
}

pub(super) struct World {
    pub(super) engine: Engine,
    pub(super) out: Actions,
    pub(super) now: Duration,
}

impl World {
    pub(super) fn new(settings: Settings, processes: &[(&str, f64)]) -> Self {
        let mut world = Self { engine: Engine::new(settings), out: vec![], now: s(0) };
        let offered = processes.iter().map(|(name, weight)| process(name, *weight)).collect();
        world.engine.offer(offered, &mut world.out);
        world.nothing_else();
        world
    }

    pub(super) fn invited(processes: &[(&str, f64)]) -> Self {
        let mut world = Self::new(settings(), processes);
        world.invite("o");
        world.out.clear();
        world
    }

    pub(super) fn invite(&mut self, name: &str) {
        self.claim(name, &[]);
    }

    pub(super) fn claim(&mut self, name: &str, executions: &[&str]) {
        let claimed: Vec<ExecutionId> = executions.iter().map(|execution| id(execution)).collect();
        self.engine.invite(peer(name), &claimed, self.now, &mut self.out);
    }

    pub(super) fn elsewhere(&mut self, by: &str, execution: &str) {
        self.engine.elsewhere(&peer(by), &id(execution), self.now, &mut self.out);
    }

    pub(super) fn request(&mut self, execution: &str, name: &str) -> Result<Answer, Refusal> {
        let process = ProcessId::new("test", name).unwrap();
        let request = Request { execution: id(execution), process, inputs: vec![], base_url: String::new() };
        self.engine.request(peer("o"), request, self.now, &mut self.out)
    }

    pub(super) fn happened(&mut self, execution: &str, event: Event) {
        self.engine.happened(&id(execution), event, self.now, &mut self.out);
    }

    pub(super) fn tick(&mut self) -> Option<Duration> {
        self.engine.tick(self.now, &mut self.out)
    }

    pub(super) fn run(&mut self, execution: &str, name: &str) {
        assert_eq!(self.request(execution, name), Ok(Answer::Later));
        self.happened(execution, Event::Started);
        self.out.clear();
    }

    pub(super) fn taken(&mut self) -> Vec<String> {
        self.out.drain(..).map(|action| describe(&action)).collect()
    }

    pub(super) fn expect(&mut self, expected: &[&str]) {
        assert_eq!(self.taken(), expected);
    }

    pub(super) fn nothing_else(&mut self) {
        self.expect(&[]);
    }
}

fn describe(action: &Action) -> String {
    match action {
        Action::Send(peer, message) => {
            let what = match message {
                FromAgent::Register(process) => format!("register {}", process.id),
                FromAgent::Unregister(process) => format!("unregister {process}"),
                FromAgent::Executions { held, unknown } => {
                    let names = |ids: &[ExecutionId]| {
                        ids.iter().map(ExecutionId::as_str).collect::<Vec<_>>().join(" ")
                    };
                    match unknown.as_slice() {
                        [] => format!("executions [{}]", names(held)),
                        unknown => format!("executions [{}] not [{}]", names(held), names(unknown)),
                    }
                }
                FromAgent::Started { execution } => format!("started {execution}"),
                FromAgent::Progress { execution, percent, .. } => format!("progress {execution} {percent}"),
                FromAgent::Log { execution, text, .. } => format!("log {execution} {text}"),
                FromAgent::Completed { execution, .. } => format!("completed {execution}"),
                FromAgent::Error { execution, .. } => format!("error {execution}"),
                FromAgent::CannotExecute { execution, .. } => format!("cannot {execution}"),
                FromAgent::Load(load) => format!("load {}", load.running),
            };
            format!("{peer}: {what}")
        }
        Action::Taken(id) => format!("taken {id}"),
        Action::Weigh(request) => format!("weigh {}", request.execution),
        Action::Refuse(id, refusal) => format!("refuse {id} {:?}", refusal.reason),
        Action::Start(_, request) => format!("start {}", request.execution),
        Action::Abort(id) => format!("abort {id}"),
        Action::Release(id) => format!("release {id}"),
        Action::GiveUp(id) => format!("give up {id}"),
        Action::Announce => "announce".into(),
    }
}

#[test]
fn the_plain_path() {
    let mut world = World::invited(&[("p", 1.0)]);
    assert_eq!(world.request("e1", "p"), Ok(Answer::Later));
    world.expect(&["start e1", "announce"]);
    world.happened("e1", Event::Started);
    world.expect(&["o: started e1", "taken e1"]);
    world.happened("e1", Event::Progress(5.0));
    world.happened("e1", Event::Log(LogLevel::Info, "hello".into()));
    world.expect(&["o: progress e1 5", "o: log e1 hello"]);
    world.happened("e1", Event::Ended(Ending::Completed(vec![])));
    world.expect(&["o: completed e1", "announce"]);
    assert_eq!(world.engine.finish(&id("e1"), &mut world.out), Ok(()));
    world.expect(&["release e1"]);
    assert_eq!(world.tick(), None);
    assert_eq!(world.engine.held(), []);
    world.nothing_else();
}

#[test]
fn an_invitation_is_answered_in_the_agreed_order() {
    let mut world = World::new(settings(), &[("b", 0.0), ("a", 0.0)]);
    assert_eq!(world.request("e1", "a"), Ok(Answer::Later));
    world.happened("e1", Event::Started);
    world.happened("e1", Event::Progress(7.0));
    assert_eq!(world.request("e2", "a"), Ok(Answer::Later));
    world.happened("e2", Event::Ended(failed()));
    world.out.clear();
    world.invite("o");
    world.expect(&[
        "o: executions [e1 e2]",
        "o: register test:a",
        "o: register test:b",
        "o: load 1",
        "o: started e1",
        "o: progress e1 7",
        "o: error e2",
    ]);
}

#[test]
fn a_repeated_request_never_starts_a_second_run() {
    let mut world = World::invited(&[("p", 1.0)]);
    world.run("e1", "p");
    assert_eq!(world.request("e1", "p"), Ok(Answer::Known));
    world.nothing_else();
    world.happened("e1", Event::Ended(failed()));
    world.out.clear();
    assert_eq!(world.request("e1", "p"), Ok(Answer::Known));
    world.expect(&["o: error e1"]);
    assert_eq!(world.engine.finish(&id("e1"), &mut world.out), Ok(()));
    world.out.clear();
    assert_eq!(world.request("e1", "p"), Ok(Answer::Known));
    world.nothing_else();
}

#[test]
fn a_request_that_is_still_being_prepared_is_answered_with_the_first() {
    let mut world = World::invited(&[("p", 1.0)]);
    assert_eq!(world.request("e1", "p"), Ok(Answer::Later));
    world.out.clear();
    assert_eq!(world.request("e1", "p"), Ok(Answer::Later));
    world.nothing_else();
    world.happened("e1", Event::Ended(failed()));
    world.expect(&["taken e1", "o: error e1", "announce"]);
}

#[test]
fn endings_are_repeated_with_growing_pauses_until_finish() {
    let mut world = World::invited(&[("p", 1.0)]);
    world.run("e1", "p");
    world.happened("e1", Event::Ended(failed()));
    world.out.clear();
    let mut times = vec![];
    let mut next = world.tick().unwrap();
    while next < s(300) {
        world.now = next;
        next = world.tick().unwrap();
        world.expect(&["o: error e1"]);
        times.push(world.now.as_secs());
    }
    assert_eq!(times, [2, 6, 14, 30, 62, 122, 182, 242]);
    assert_eq!(world.engine.finish(&id("e1"), &mut world.out), Ok(()));
    world.expect(&["release e1"]);
    assert_eq!(world.tick(), None);
}

#[test]
fn an_ending_waits_for_somebody_and_goes_out_with_the_next_invitation() {
    let mut world = World::invited(&[("p", 1.0)]);
    world.run("e1", "p");
    world.engine.offline();
    world.happened("e1", Event::Log(LogLevel::Info, "nobody hears this".into()));
    world.happened("e1", Event::Ended(failed()));
    world.expect(&["announce"]);
    for _ in 0..20 {
        world.now = world.tick().unwrap();
    }
    world.nothing_else();
    // Another orchestrator may have taken the job over.
    world.invite("other");
    let sent = world.taken();
    assert_eq!(sent.iter().filter(|what| *what == "other: error e1").count(), 1, "{sent:?}");
    world.invite("o");
    assert!(world.taken().contains(&"o: error e1".to_owned()));
}

#[test]
fn refusals_say_why_and_start_nothing() {
    let mut number = 100;
    let mut check = |world: &mut World, name: &str, reason: RefusalReason, word: &str| {
        number += 1;
        let refusal = world.request(&format!("e{number}"), name).unwrap_err();
        assert!(refusal.reason == reason && refusal.text.contains(word), "{refusal:?}");
        world.nothing_else();
    };
    let mut world = World::invited(&[("heavy", 15.0), ("free", 0.0)]);
    check(&mut world, "unknown", RefusalReason::NoSuchProcess, "test:unknown");
    for n in 0..6 {
        world.run(&format!("e{n}"), "heavy");
    }
    check(&mut world, "heavy", RefusalReason::Capacity, "10 units left, 15 are needed");
    assert_eq!(world.request("e7", "free"), Ok(Answer::Later));
    world.out.clear();

    let mut world = World::new(Settings { max_running: Some(1), ..settings() }, &[("free", 0.0)]);
    world.run("e1", "free");
    check(&mut world, "free", RefusalReason::Capacity, "all 1 places");
    assert!(!world.engine.load().accepting);

    let mut world = World::new(Settings { load_threshold: 80.0, ..settings() }, &[("free", 0.0)]);
    let measured = Measured { cpu_percent: 10.0, memory_percent: 81.0, ..Default::default() };
    world.engine.measure(measured, &mut world.out);
    world.expect(&["announce"]);
    check(&mut world, "free", RefusalReason::Load, "memory load 81 %");
    let measured = Measured { blacklisted: Some("firefox".into()), ..Default::default() };
    world.engine.measure(measured, &mut world.out);
    world.out.clear();
    check(&mut world, "free", RefusalReason::Blacklist, "firefox");

    let mut world = World::invited(&[("free", 0.0)]);
    world.run("e1", "free");
    world.engine.drain(true, &mut world.out);
    world.expect(&["announce"]);
    check(&mut world, "free", RefusalReason::Draining, "takes no new ones");
    assert_eq!(world.request("e1", "free"), Ok(Answer::Known), "what is held stays held");

    let mut world = World::new(Settings { capacity: 0.0, ..settings() }, &[("free", 0.0)]);
    check(&mut world, "free", RefusalReason::Capacity, "capacity 0");
}

#[test]
fn capacity_that_is_freed_is_given_again() {
    let mut world = World::invited(&[("all", 100.0)]);
    world.run("e1", "all");
    assert!(world.request("e2", "all").is_err());
    world.happened("e1", Event::Ended(failed()));
    world.out.clear();
    assert_eq!(world.request("e3", "all"), Ok(Answer::Later));
}

#[test]
fn aborts_reach_what_lives_and_only_that() {
    let mut world = World::invited(&[("p", 1.0)]);
    assert_eq!(world.engine.abort(&id("e0"), s(0), &mut world.out), Err(NotHeld));
    assert_eq!(world.request("e1", "p"), Ok(Answer::Later));
    world.out.clear();
    assert_eq!(world.engine.abort(&id("e1"), s(0), &mut world.out), Ok(()));
    world.expect(&["abort e1"]);
    world.happened("e1", Event::Started);
    world.happened("e1", Event::Ended(failed()));
    world.out.clear();
    assert_eq!(world.engine.abort(&id("e1"), s(0), &mut world.out), Ok(()));
    world.expect(&["o: error e1"]);
    assert_eq!(world.engine.finish(&id("e1"), &mut world.out), Ok(()));
    world.out.clear();
    assert_eq!(world.engine.abort(&id("e1"), s(0), &mut world.out), Ok(()));
    world.nothing_else();
}

#[test]
fn a_finish_of_what_runs_or_is_unknown_changes_nothing() {
    let mut world = World::invited(&[("p", 1.0)]);
    world.run("e1", "p");
    assert_eq!(world.engine.finish(&id("e1"), &mut world.out), Ok(()));
    assert_eq!(world.engine.finish(&id("e2"), &mut world.out), Err(NotHeld));
    world.nothing_else();
    assert_eq!(world.engine.held(), [id("e1")]);
}

#[test]
fn echoes_after_the_end_change_nothing() {
    let mut world = World::invited(&[("p", 1.0)]);
    world.run("e1", "p");
    world.happened("e1", Event::Ended(failed()));
    world.out.clear();
    world.happened("e1", Event::Started);
    world.happened("e1", Event::Progress(1.0));
    world.happened("e1", Event::Ended(Ending::Completed(vec![])));
    world.happened("e2", Event::Ended(failed()));
    world.nothing_else();
}

#[test]
fn a_changed_catalogue_is_told_to_those_who_were_invited() {
    let mut world = World::invited(&[("a", 0.0), ("b", 0.0), ("c", 0.0)]);
    world.run("e1", "a");
    world.engine.offer(vec![process("b", 0.0), process("c", 2.0), process("d", 0.0)], &mut world.out);
    world.expect(&["o: unregister test:a", "o: register test:c", "o: register test:d"]);
    assert_eq!(world.engine.live(), 1);
    world.engine.peer_left(&peer("o"));
    world.engine.offer(vec![], &mut world.out);
    world.nothing_else();
}

#[test]
fn a_later_agent_goes_on_where_the_former_was_lost() {
    let mut world = World::new(settings(), &[]);
    let process = ProcessId::new("test", "gone").unwrap();
    world.engine.adopt(id("e1"), process.clone(), peer("o"), 30.0);
    world.engine.adopt_ended(id("e2"), process, peer("o"), failed(), s(0));
    world.engine.adopt_finished(id("e3"));
    assert_eq!(world.engine.load().used, 30.0);
    world.invite("o");
    world.expect(&["o: executions [e1 e2]", "o: load 1", "o: error e2"]);
    world.happened("e1", Event::Started);
    world.expect(&["o: started e1", "taken e1"]);
    assert_eq!(world.request("e3", "gone"), Ok(Answer::Known));
}

#[test]
fn what_was_refused_or_given_up_never_starts_when_its_request_comes_late_or_twice() {
    let mut world = World::invited(&[("all", 100.0)]);
    // The abort has overtaken the request.
    assert_eq!(world.engine.abort(&id("e1"), s(0), &mut world.out), Err(NotHeld));
    assert!(world.request("e1", "all").is_err());
    world.run("e2", "all");
    assert!(world.request("e3", "all").is_err());
    world.happened("e2", Event::Ended(failed()));
    world.out.clear();
    // Its job has gone elsewhere since.
    assert!(world.request("e3", "all").is_err());
    assert!(world.request("e3", "all").is_err());
    world.nothing_else();
    assert_eq!(world.request("e4", "all"), Ok(Answer::Later));
}

#[derive(Debug, Clone)]
enum Step {
    Claim(u8, u8),
    Disown(u8, u8),
    Elsewhere(u8, u8),
    Invite(u8),
    Leave(u8),
    Offline,
    Request(u8, u8),
    Abort(u8),
    Finish(u8),
    Happened(u8, u8),
    Wait(u16),
    Drain(bool),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..2u8).prop_map(Step::Invite),
        (0..2u8, 0..8u8).prop_map(|(n, e)| Step::Claim(n, e)),
        (0..2u8, 0..8u8).prop_map(|(n, e)| Step::Disown(n, e)),
        (0..2u8, 0..8u8).prop_map(|(n, e)| Step::Elsewhere(n, e)),
        (0..2u8).prop_map(Step::Leave),
        Just(Step::Offline),
        (0..8u8, 0..3u8).prop_map(|(e, p)| Step::Request(e, p)),
        (0..8u8).prop_map(Step::Abort),
        (0..8u8).prop_map(Step::Finish),
        (0..8u8, 0..4u8).prop_map(|(e, what)| Step::Happened(e, what)),
        (0..5000u16).prop_map(Step::Wait),
        any::<bool>().prop_map(Step::Drain),
    ]
}

proptest! {
    /// Whatever happens: capacity holds, nothing is started twice, every ending is told until it is finished and never
    /// after, and messages go only to who is there.
    #[test]
    fn invariants_hold_over_any_history(steps in proptest::collection::vec(step(), 1..200)) {
        let settings = Settings { capacity: 10.0, max_running: Some(4), load_threshold: 100.0, cores: 1, keep_endings: Duration::from_secs(3600), labels: vec![] };
        let mut world = World::new(settings, &[("p0", 0.0), ("p1", 3.0), ("p2", 6.0)]);
        let mut started = HashSet::new();
        let mut released = HashSet::new();
        let mut present = HashSet::new();
        for step in steps {
            match step {
                Step::Invite(n) => {
                    present.insert(peer(&format!("o{n}")));
                    world.invite(&format!("o{n}"));
                }
                Step::Claim(n, e) => {
                    present.insert(peer(&format!("o{n}")));
                    world.claim(&format!("o{n}"), &[&format!("e{e}")]);
                }
                Step::Disown(n, e) => {
                    world.engine.disowned(&peer(&format!("o{n}")), &id(&format!("e{e}")), &mut world.out);
                }
                Step::Elsewhere(n, e) => world.elsewhere(&format!("o{n}"), &format!("e{e}")),
                Step::Leave(n) => {
                    present.remove(&peer(&format!("o{n}")));
                    world.engine.peer_left(&peer(&format!("o{n}")));
                }
                Step::Offline => {
                    present.clear();
                    world.engine.offline();
                }
                Step::Request(e, p) => {
                    let _ = world.request(&format!("e{e}"), &format!("p{p}"));
                }
                Step::Abort(e) => {
                    let _ = world.engine.abort(&id(&format!("e{e}")), world.now, &mut world.out);
                }
                Step::Finish(e) => {
                    let _ = world.engine.finish(&id(&format!("e{e}")), &mut world.out);
                }
                Step::Happened(e, what) => world.happened(&format!("e{e}"), match what {
                    0 => Event::Started,
                    1 => Event::Progress(50.0),
                    2 => Event::Log(LogLevel::Info, "x".into()),
                    _ => Event::Ended(failed()),
                }),
                Step::Wait(ms) => {
                    world.now += Duration::from_millis(ms.into());
                    let next = world.tick();
                    prop_assert!(next.is_none_or(|next| next > world.now), "a deadline in the past would spin");
                }
                Step::Drain(on) => world.engine.drain(on, &mut world.out),
            }
            for action in std::mem::take(&mut world.out) {
                match action {
                    Action::Start(_, request) => prop_assert!(started.insert(request.execution), "started twice"),
                    Action::Release(execution) => prop_assert!(released.insert(execution), "released twice"),
                    Action::Send(to, FromAgent::Completed { execution, .. } | FromAgent::Error { execution, .. }) => {
                        prop_assert!(present.contains(&to) && !released.contains(&execution));
                    }
                    Action::Send(to, _) => prop_assert!(present.contains(&to), "{to} is not there"),
                    Action::Taken(_) | Action::Abort(_) | Action::Announce | Action::Weigh(_) | Action::Refuse(..) | Action::GiveUp(_) => {}
                }
            }
            let load = world.engine.load();
            prop_assert!(load.used <= 10.0 && load.running <= 4);
        }
        // Time goes on, everybody is there: what has ended is told and can be finished.
        world.invite("o0");
        for execution in world.engine.held() {
            world.engine.happened(&execution, Event::Ended(failed()), world.now, &mut world.out);
        }
        world.out.clear();
        world.now += s(61);
        world.tick();
        let told: HashSet<ExecutionId> = world.out.iter().filter_map(|action| match action {
            Action::Send(_, FromAgent::Error { execution, .. }) => Some(execution.clone()),
            _ => None,
        }).collect();
        prop_assert_eq!(told, world.engine.held().into_iter().collect::<HashSet<_>>());
    }
}

#[test]
fn a_full_disk_is_announced_at_once_and_so_is_its_end() {
    let mut world = World::new(settings(), &[("free", 0.0)]);
    let mut out = Actions::new();
    world.engine.measure(Measured::default(), &mut out);
    out.clear();
    let full = |text: &str| Measured { warning: Some(text.into()), ..Measured::default() };
    world.engine.measure(full("only 3 MiB are left"), &mut out);
    assert_eq!(out, [Action::Announce]);
    assert_eq!(world.engine.load().warning.as_deref(), Some("only 3 MiB are left"));
    world.engine.measure(full("only 2 MiB are left"), &mut out);
    assert_eq!(out.len(), 1, "figures are told with the heartbeat");
    world.engine.measure(Measured::default(), &mut out);
    assert_eq!(out, [Action::Announce, Action::Announce]);
}
