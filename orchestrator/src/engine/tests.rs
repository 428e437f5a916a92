//! The engine by itself: stories with a virtual clock, each ending with "nothing else was emitted", and random sequences
//! of events that must keep the invariants of the module's documentation.

use std::collections::{HashMap, HashSet};

use proptest::prelude::*;
use wps_remote_protocol::{
    DataType, ErrorKind, ExecutionError, FromAgent, LiteralData, LiteralType, Load, OutputDescription,
    Refusal, message::RefusalReason,
};

use super::*;

fn description(name: &str, repeatable: bool) -> ProcessDescription {
    ProcessDescription {
        id: name.parse().unwrap(),
        alias: None,
        title: name.into(),
        summary: String::new(),
        version: "1.0.0".into(),
        keywords: vec![],
        inputs: vec![],
        outputs: vec![OutputDescription {
            id: "result".into(),
            title: None,
            summary: String::new(),
            data: DataType::Literal(LiteralData {
                kind: LiteralType::String,
                uom: None,
                allowed: Default::default(),
                default: None,
            }),
            optional: false,
            publication: None,
        }],
        weight: 10.0,
        repeatable,
        max_running_time_s: 0,
        roles: Vec::new(),
    }
}

fn load(max_running: u32) -> Load {
    Load {
        cpu_percent: 1.0,
        memory_percent: 1.0,
        cores: 2,
        capacity: 100.0,
        used: 0.0,
        running: 0,
        max_running: Some(max_running),
        accepting: true,
        warning: None,
        refusing: None,
        labels: Vec::new(),
    }
}

struct World {
    engine: Engine,
    now: Timestamp,
    out: Vec<Action>,
    ids: u128,
}

impl World {
    fn new() -> Self {
        Self {
            engine: Engine::new(Limits::default(), "http://x/wps".into()),
            now: Timestamp(1_000_000),
            out: vec![],
            ids: 0,
        }
    }

    fn agent(&mut self, name: &str, max_running: u32) -> AgentId {
        let agent = AgentId::new(name);
        self.engine.agent_joined(&agent, self.now, &mut self.out);
        self.holds(&agent, &[], &[]);
        self.say(&agent, FromAgent::Register(Box::new(description("a:b", false))));
        self.say(&agent, FromAgent::Load(load(max_running)));
        self.out.clear();
        agent
    }

    fn say(&mut self, agent: &AgentId, message: FromAgent) {
        self.engine.receive(agent, message, self.now, &mut self.out);
    }

    fn holds(&mut self, agent: &AgentId, held: &[ExecutionId], unknown: &[ExecutionId]) {
        self.say(agent, FromAgent::Executions { held: held.to_vec(), unknown: unknown.to_vec() });
    }

    fn execute(&mut self, description: ProcessDescription) -> JobId {
        self.ids += 1;
        let id = JobId::new(uuid::Uuid::from_u128(self.ids));
        let new = Accepted {
            id,
            description: description.into(),
            inputs: vec![],
            form: Form::default(),
            owner: UserId::anonymous(),
            role: None,
            terms: Arc::default(),
        };
        self.engine.execute(new, self.now, &mut self.out).unwrap();
        id
    }

    fn pass(&mut self, ms: u64) {
        self.now = self.now.plus_ms(ms);
        self.engine.tick(self.now, &mut self.out);
    }

    /// What was emitted, in short, and nothing is left.
    fn said(&mut self) -> Vec<String> {
        self.out
            .drain(..)
            .map(|action| match action {
                Action::Save(job) => format!("save {}", job.state.name()),
                Action::SaveSoon(_) => "soon".into(),
                Action::Send(agent, ToAgent::Request(r)) => format!("{agent}<execute {}", r.execution),
                Action::Send(agent, ToAgent::Abort { .. }) => format!("{agent}<abort"),
                Action::Send(agent, ToAgent::Finish { .. }) => format!("{agent}<finish"),
                Action::Send(agent, ToAgent::Invite { .. }) => format!("{agent}<invite"),
                Action::Send(agent, ToAgent::Elsewhere { .. }) => format!("{agent}<elsewhere"),
                Action::Send(agent, ToAgent::Unknown { .. }) => format!("{agent}<unknown"),
                Action::Inquire(_, _, question) => format!("inquire {question:?}"),
                Action::Send(agent, ToAgent::GetLoad) => format!("{agent}<get-load"),
                Action::Notify(_) => "notify".into(),
                Action::Collect(..) => "collect".into(),
                Action::Discard(_) => "discard".into(),
                Action::DiscardResults(_) => "discard-results".into(),
                Action::Catalogue => "catalogue".into(),
                Action::Release(_) => "release".into(),
            })
            .collect()
    }
}

fn aborted() -> ExecutionError {
    ExecutionError { kind: ErrorKind::Aborted, text: "aborted".into(), receipt: None }
}

#[test]
fn a_job_goes_its_usual_way() {
    let mut w = World::new();
    let a = w.agent("a", 2);
    let id = w.execute(description("a:b", false));
    let e = id.execution(1);
    assert_eq!(w.said(), ["save dispatched".to_string(), format!("a<execute {e}"), "notify".into()]);
    w.say(&a, FromAgent::Started { execution: e.clone() });
    assert_eq!(w.said(), ["soon", "notify"]);
    w.say(&a, FromAgent::Progress { execution: e.clone(), percent: 40.9, message: "m".into() });
    w.say(&a, FromAgent::Progress { execution: e.clone(), percent: 20.0, message: "n".into() });
    assert_eq!(w.engine.job(id).unwrap().percent(), 40);
    w.out.clear();
    w.say(&a, FromAgent::Completed { execution: e.clone(), outputs: vec![] });
    w.say(&a, FromAgent::Completed { execution: e.clone(), outputs: vec![] });
    assert_eq!(w.said(), ["collect"]);
    w.engine.collected(&e, Ok(vec![]), w.now, &mut w.out);
    let expires = w.out.iter().find_map(|a| if let Action::Save(job) = a { job.expires } else { None });
    assert_eq!(expires, Some(w.now.plus_ms(7 * 24 * 3600 * 1000)));
    assert_eq!(w.said(), ["save successful", "notify", "release", "discard", "a<finish"]);
    w.say(&a, FromAgent::Completed { execution: e, outputs: vec![] });
    assert_eq!(w.said(), ["inquire Ended"]);
}

#[test]
fn jobs_wait_and_say_why() {
    let mut w = World::new();
    let a = w.agent("a", 1);
    let first = w.execute(description("a:b", false));
    w.out.clear();
    let second = w.execute(description("a:b", false));
    assert_eq!(w.said(), ["save accepted", "notify"]);
    assert!(matches!(w.engine.job(second).unwrap().state, JobState::Accepted { waiting: Waiting::AllBusy }));
    w.say(&a, FromAgent::Error { execution: first.execution(1), error: aborted() });
    assert_eq!(
        w.said(),
        [
            "save failed".to_string(),
            "notify".into(),
            "release".into(),
            "discard".into(),
            "save dispatched".into(),
            format!("a<execute {}", second.execution(1)),
            "notify".into(),
            "a<finish".into()
        ]
    );
    w.engine.agent_left(&a, w.now, &mut w.out);
    w.out.clear();
    let third = w.execute(description("a:b", false));
    assert!(matches!(w.engine.job(third).unwrap().state, JobState::Accepted { waiting: Waiting::NoAgent }));
}

#[test]
fn a_burst_spreads_over_the_agents() {
    let mut w = World::new();
    let (a, b) = (w.agent("a", 10), w.agent("b", 10));
    for _ in 0..10 {
        w.execute(description("a:b", false));
    }
    let at = |agent: &AgentId| w.engine.fleet().agent(agent).unwrap().executions.len();
    assert_eq!((at(&a), at(&b)), (5, 5));
}

#[test]
fn a_refusal_goes_elsewhere_or_waits() {
    let mut w = World::new();
    let a = w.agent("a", 5);
    let id = w.execute(description("a:b", false));
    w.out.clear();
    let refusal = Refusal { reason: RefusalReason::Capacity, text: "full".into() };
    w.say(&a, FromAgent::CannotExecute { execution: id.execution(1), refusal });
    assert_eq!(w.said(), ["save accepted", "notify"]);
    w.pass(1_999);
    assert_eq!(w.said(), Vec::<String>::new());
    w.pass(1);
    assert_eq!(
        w.said(),
        ["save dispatched".to_string(), format!("a<execute {}", id.execution(2)), "notify".into()]
    );
}

#[test]
fn a_dismissed_job_is_aborted_even_when_its_agent_was_away() {
    let mut w = World::new();
    let a = w.agent("a", 5);
    let id = w.execute(description("a:b", false));
    w.say(&a, FromAgent::Started { execution: id.execution(1) });
    w.engine.agent_left(&a, w.now, &mut w.out);
    w.out.clear();
    assert!(w.engine.dismiss(id, w.now, &mut w.out));
    assert_eq!(w.said(), ["save dismissing"]);
    w.engine.agent_joined(&a, w.now.plus_ms(5), &mut w.out);
    w.holds(&a, &[id.execution(1)], &[]);
    assert_eq!(w.said(), ["a<invite", "a<abort"]);
    w.say(&a, FromAgent::Error { execution: id.execution(1), error: aborted() });
    assert_eq!(w.said(), ["save dismissed", "notify", "release", "discard", "a<finish"]);
}

#[test]
fn a_silent_agent_does_not_hold_a_dismissal_up() {
    let mut w = World::new();
    let a = w.agent("a", 5);
    let id = w.execute(description("a:b", false));
    w.engine.dismiss(id, w.now, &mut w.out);
    let stored = w.engine.job(id).unwrap().clone();
    w.out.clear();
    w.pass(59_999);
    assert_eq!(w.said(), Vec::<String>::new());
    w.pass(1);
    assert_eq!(w.said(), ["save dismissed", "notify", "release"]);

    let mut w = World::new();
    w.engine.adopt(stored, w.now, &mut w.out);
    w.engine.agent_joined(&a, w.now, &mut w.out);
    w.holds(&a, &[id.execution(1)], &[]);
    w.out.clear();
    w.pass(60_000);
    assert_eq!(w.said(), ["save dismissed", "notify", "release"]);
}

#[test]
fn a_lost_agent_fails_its_jobs_in_time_unless_they_can_be_repeated() {
    for (repeatable, end) in [(false, "save failed"), (true, "save accepted")] {
        let mut w = World::new();
        let a = w.agent("a", 5);
        let id = w.execute(description("a:b", repeatable));
        w.say(&a, FromAgent::Started { execution: id.execution(1) });
        w.engine.agent_left(&a, w.now, &mut w.out);
        w.out.clear();
        w.pass(299_999);
        assert_eq!(w.said(), Vec::<String>::new());
        w.pass(1);
        assert_eq!(w.said()[0], end);
    }
}

#[test]
fn after_an_outage_of_ours_the_catalogue_stays_and_jobs_go_on() {
    let mut w = World::new();
    let a = w.agent("a", 5);
    let id = w.execute(description("a:b", false));
    w.say(&a, FromAgent::Started { execution: id.execution(1) });
    w.engine.disconnected(w.now, &mut w.out);
    assert!(w.engine.offers(&"a:b".parse().unwrap()));
    w.out.clear();
    w.now = w.now.plus_ms(3_000);
    w.engine.agent_joined(&a, w.now, &mut w.out);
    assert!(w.engine.offers(&"a:b".parse().unwrap()));
    w.holds(&a, &[id.execution(1)], &[]);
    w.say(&a, FromAgent::Load(load(5)));
    assert!(matches!(w.engine.job(id).unwrap().state, JobState::Running { lost_since: None, .. }));
    w.engine.disconnected(w.now, &mut w.out);
    w.pass(20_000);
    assert!(!w.engine.offers(&"a:b".parse().unwrap()));
}

#[test]
fn a_request_that_never_arrived_is_sent_again() {
    let mut w = World::new();
    let a = w.agent("a", 5);
    let id = w.execute(description("a:b", false));
    w.engine.agent_left(&a, w.now, &mut w.out);
    w.now = w.now.plus_ms(10);
    w.engine.agent_joined(&a, w.now, &mut w.out);
    w.out.clear();
    w.holds(&a, &[], &[id.execution(1)]);
    assert_eq!(w.said(), ["save accepted", "notify"]);
    w.say(&a, FromAgent::Register(Box::new(description("a:b", false))));
    w.say(&a, FromAgent::Load(load(5)));
    assert!(w.said().contains(&format!("a<execute {}", id.execution(2))));
}

#[test]
fn stored_jobs_are_adopted_and_found_again() {
    let mut w = World::new();
    let a = w.agent("a", 5);
    let id = w.execute(description("a:b", false));
    let stored = w.engine.job(id).unwrap().clone();
    let mut w = World::new();
    w.engine.adopt(stored, w.now, &mut w.out);
    w.engine.agent_joined(&a, w.now.plus_ms(1), &mut w.out);
    w.out.clear();
    w.holds(&a, &[id.execution(1)], &[]);
    w.say(&a, FromAgent::Completed { execution: id.execution(1), outputs: vec![] });
    assert_eq!(w.said().last().unwrap(), "collect");
}

#[test]
fn a_late_start_of_a_job_that_was_given_up_is_asked_about() {
    let mut w = World::new();
    let a = w.agent("a", 5);
    let id = w.execute(description("a:b", false));
    w.engine.dismiss(id, w.now, &mut w.out);
    let lost = ExecutionError { kind: ErrorKind::Lost, ..aborted() };
    w.say(&a, FromAgent::Error { execution: id.execution(1), error: lost });
    w.out.clear();
    w.say(&a, FromAgent::Started { execution: id.execution(1) });
    assert_eq!(w.said(), ["inquire Held"]);
}

#[test]
fn results_that_cannot_be_taken_over_are_discarded_with_the_stored_failure_only() {
    let mut w = World::new();
    let a = w.agent("a", 5);
    let id = w.execute(description("a:b", false));
    w.say(&a, FromAgent::Completed { execution: id.execution(1), outputs: vec![] });
    w.out.clear();
    w.engine.collected(&id.execution(1), Err("gone".into()), w.now, &mut w.out);
    assert_eq!(w.said(), ["discard-results", "save failed", "notify", "release", "discard", "a<finish"]);
}

#[test]
fn an_agent_that_is_back_at_the_last_moment_may_say_what_it_holds() {
    let mut w = World::new();
    let a = w.agent("a", 5);
    let id = w.execute(description("a:b", false));
    w.say(&a, FromAgent::Started { execution: id.execution(1) });
    w.engine.agent_left(&a, w.now, &mut w.out);
    w.pass(299_000);
    w.engine.agent_joined(&a, w.now, &mut w.out);
    w.out.clear();
    w.pass(29_999);
    assert_eq!(w.said(), Vec::<String>::new());
    // One that comes and goes without a word gains no more.
    w.engine.agent_left(&a, w.now, &mut w.out);
    w.engine.agent_joined(&a, w.now, &mut w.out);
    w.out.clear();
    w.pass(1);
    assert_eq!(w.said()[0], "save failed");
}

#[derive(Debug, Clone)]
enum Op {
    Join(u8),
    Leave(u8),
    Offline,
    Execute(bool),
    Dismiss(u8),
    Started(u8),
    Completed(u8),
    Failed(u8),
    Refuse(u8),
    Collected(u8, bool),
    Load(u8, u32),
    Held(u8, bool),
    Pass(u32),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        (0u8..3).prop_map(Op::Join),
        (0u8..3).prop_map(Op::Leave),
        Just(Op::Offline),
        any::<bool>().prop_map(Op::Execute),
        any::<bool>().prop_map(Op::Execute),
        any::<bool>().prop_map(Op::Execute),
        any::<u8>().prop_map(Op::Dismiss),
        any::<u8>().prop_map(Op::Started),
        any::<u8>().prop_map(Op::Completed),
        any::<u8>().prop_map(Op::Completed),
        any::<u8>().prop_map(Op::Failed),
        any::<u8>().prop_map(Op::Refuse),
        (any::<u8>(), any::<bool>()).prop_map(|(n, ok)| Op::Collected(n, ok)),
        (0u8..3, 0u32..4).prop_map(|(a, n)| Op::Load(a, n)),
        (0u8..3, any::<bool>()).prop_map(|(a, all)| Op::Held(a, all)),
        (0u32..400_000).prop_map(Op::Pass),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn invariants_hold_in_any_order_of_events(ops in prop::collection::vec(op(), 1..120)) {
        let mut w = World::new();
        let mut sent: Vec<(AgentId, ExecutionId)> = vec![];
        let mut collects: Vec<ExecutionId> = vec![];
        let mut stored: HashMap<JobId, Job> = HashMap::new();
        let mut ids: Vec<JobId> = vec![];
        let agent = |n: u8| AgentId::new(format!("agent{n}"));
        for op in ops {
            let pick = |n: u8| (!sent.is_empty()).then(|| sent[n as usize % sent.len()].clone());
            match op {
                Op::Join(n) => { let a = agent(n); w.engine.agent_joined(&a, w.now, &mut w.out); }
                Op::Leave(n) => w.engine.agent_left(&agent(n), w.now, &mut w.out),
                Op::Offline => w.engine.disconnected(w.now, &mut w.out),
                Op::Execute(repeatable) => ids.push(w.execute(description("a:b", repeatable))),
                Op::Dismiss(n) => if !ids.is_empty() { let id = ids[n as usize % ids.len()]; w.engine.dismiss(id, w.now, &mut w.out); },
                Op::Started(n) => if let Some((a, e)) = pick(n) { w.say(&a, FromAgent::Started { execution: e }) },
                Op::Completed(n) => if let Some((a, e)) = pick(n) { w.say(&a, FromAgent::Completed { execution: e, outputs: vec![] }) },
                Op::Failed(n) => if let Some((a, e)) = pick(n) { w.say(&a, FromAgent::Error { execution: e, error: aborted() }) },
                Op::Refuse(n) => if let Some((a, e)) = pick(n) {
                    let refusal = Refusal { reason: RefusalReason::Load, text: "no".into() };
                    w.say(&a, FromAgent::CannotExecute { execution: e, refusal });
                },
                Op::Collected(n, ok) => if !collects.is_empty() {
                    let e = collects.remove(n as usize % collects.len());
                    w.engine.collected(&e, if ok { Ok(vec![]) } else { Err("gone".into()) }, w.now, &mut w.out);
                },
                Op::Load(n, max) => w.say(&agent(n), FromAgent::Load(load(max))),
                Op::Held(n, all) => {
                    let a = agent(n);
                    let held = if all { sent.iter().filter(|(b, _)| *b == a).map(|(_, e)| e.clone()).collect() } else { vec![] };
                    let unknown: Vec<_> = if all { vec![] } else { sent.iter().filter(|(b, _)| *b == a).map(|(_, e)| e.clone()).collect() };
                    w.say(&a, FromAgent::Executions { held, unknown });
                    w.say(&a, FromAgent::Register(Box::new(description("a:b", false))));
                }
                Op::Pass(ms) => w.pass(u64::from(ms)),
            }
            let mut saved_now: HashSet<JobId> = HashSet::new();
            for action in w.out.drain(..).collect::<Vec<_>>() {
                match action {
                    Action::Save(job) => {
                        if let Some(old) = stored.get(&job.id) {
                            prop_assert!(!old.state.is_final(), "a final state changed");
                            prop_assert!(job.version > old.version);
                        }
                        if let Some(execution) = job.state.execution() {
                            prop_assert_eq!(job.agent.as_ref(), Some(&execution.agent));
                        }
                        prop_assert!(job.agent.is_some() || !matches!(job.state, JobState::Successful { .. }), "the agent is forgotten");
                        saved_now.insert(job.id);
                        stored.insert(job.id, *job);
                    }
                    Action::Send(a, ToAgent::Request(r)) => {
                        let job = stored.values().find(|job| job.state.execution().is_some_and(|x| x.id == r.execution));
                        prop_assert!(job.is_some(), "sent before it was saved");
                        let there = w.engine.fleet().agent(&a);
                        prop_assert!(there.is_some_and(|x| x.ready), "sent to an agent that is not ready");
                        let there = there.unwrap();
                        let max = there.load.as_ref().and_then(|l| l.max_running).unwrap_or(0) as usize;
                        prop_assert!(there.executions.len() <= max, "above the capacity");
                        sent.push((a, r.execution));
                    }
                    Action::Notify(id) => prop_assert!(stored.contains_key(&id), "told before it was saved"),
                    Action::Collect(_, e, _) => collects.push(e),
                    Action::Release(id) => prop_assert!(stored[&id].state.is_final() && w.engine.job(id).is_none()),
                    Action::SaveSoon(_) | Action::Send(..) | Action::Discard(_) | Action::DiscardResults(_) | Action::Inquire(..) | Action::Catalogue => {}
                }
            }
            let live: Vec<_> = w.engine.jobs().filter_map(|job| job.state.execution().map(|e| e.id.clone())).collect();
            prop_assert_eq!(live.iter().collect::<HashSet<_>>().len(), live.len(), "one live execution per job");
        }
        // Time goes on and nobody says anything: every job still ends.
        for e in collects { w.engine.collected(&e, Ok(vec![]), w.now, &mut w.out); }
        for n in 0..3 { w.engine.agent_left(&agent(n), w.now, &mut w.out); }
        for _ in 0..4 { w.pass(30 * 3600 * 1000); }
        for action in w.out.drain(..).collect::<Vec<_>>() {
            if let Action::Save(job) = action { stored.insert(job.id, *job); }
        }
        for id in ids { prop_assert!(stored[&id].state.is_final(), "job {} is still {}", id, stored[&id].state.name()); }
    }
}

#[test]
fn an_agent_cannot_give_a_process_another_name() {
    let mut w = World::new();
    let agent = w.agent("a", 1);
    let named = ProcessDescription { alias: Some("org.example.Other".into()), ..description("a:b", true) };
    w.say(&agent, FromAgent::Register(Box::new(named)));
    let names: Vec<_> = w.engine.fleet().catalogue().map(|(_, process)| process.identifier()).collect();
    assert_eq!(names, ["a:b"]);
}

mod limits;
mod ownership;
mod simulation;

#[test]
fn who_waits_is_told_why_the_agents_take_nothing() {
    let mut w = World::new();
    let (a, b) = (w.agent("a", 4), w.agent("b", 4));
    let told = |w: &World, id| match &w.engine.job(id).unwrap().state {
        JobState::Accepted { waiting } => waiting.to_string(),
        other => panic!("{other:?}"),
    };
    let refusing = |reason, text: &str| {
        let refusing = Some(Refusal { reason, text: text.into() });
        FromAgent::Load(Load { accepting: false, refusing, ..load(4) })
    };
    w.say(&a, refusing(RefusalReason::Draining, "x"));
    w.say(&b, refusing(RefusalReason::Load, "CPU load 97 % is above 90 %"));
    let id = w.execute(description("a:b", false));
    let expected =
        "waiting: no agent that offers this process takes new work now (a is draining, b is overloaded)";
    assert_eq!(told(&w, id), expected);
    w.out.clear();
    w.say(&b, refusing(RefusalReason::Load, "CPU load 98 % is above 90 %"));
    assert_eq!(w.said(), [] as [String; 0], "a figure that moves is not worth telling");
    w.say(&b, FromAgent::Load(load(4)));
    assert!(matches!(w.engine.job(id).unwrap().state, JobState::Dispatched { .. }));
}
