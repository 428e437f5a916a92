//! Limits in the engine: what may run, wait, last and be given out, where it may run, and what those who wait are told.

use std::collections::{BTreeMap, HashMap};

use wps_remote_protocol::Output;
use wps_remote_protocol::{Content, SharedFile, Value};

use super::*;
use crate::engine::job::{Bound, Count, Elsewhere, Scope, Size, Span, Terms};

fn user(name: &str) -> UserId {
    UserId(name.to_owned())
}

fn submit(w: &mut World, owner: &str, process: &str, terms: Terms) -> Result<JobId, QueueFull> {
    w.ids += 1;
    let id = JobId::new(uuid::Uuid::from_u128(w.ids));
    let new = Accepted {
        id,
        description: description(process, false).into(),
        inputs: vec![],
        form: Form::default(),
        owner: user(owner),
        role: None,
        terms: terms.into(),
    };
    w.engine.execute(new, w.now, &mut w.out).map(|()| id)
}

fn of_user(name: &str, max: u32) -> Bound {
    Bound { scope: Scope::User(user(name)), max, setting: "[limits] max_running_per_user".into() }
}

fn why(w: &World, id: JobId) -> String {
    w.engine.explain(id, w.now).unwrap().waiting.unwrap().to_string()
}

fn is_sent(w: &World, id: JobId) -> bool {
    matches!(w.engine.job(id).unwrap().state, JobState::Dispatched { .. })
}

#[test]
fn a_user_runs_no_more_than_allowed_and_others_pass() {
    let mut w = World::new();
    let a = w.agent("a", 10);
    let terms = |name: &str| Terms { running: vec![of_user(name, 2)], ..Terms::default() };
    let ann: Vec<JobId> = (0..4).map(|_| submit(&mut w, "ann", "a:b", terms("ann")).unwrap()).collect();
    let bob = submit(&mut w, "bob", "a:b", terms("bob")).unwrap();
    assert_eq!(ann.iter().map(|id| is_sent(&w, *id)).collect::<Vec<_>>(), [true, true, false, false]);
    assert!(is_sent(&w, bob));
    assert_eq!(
        why(&w, ann[2]),
        "waiting: `ann` has 2 job(s) running, and `[limits] max_running_per_user` allows 2"
    );
    // Her third job is sent as soon as one ends, without a tick.
    w.say(&a, FromAgent::Error { execution: ann[0].execution(1), error: aborted() });
    assert!(is_sent(&w, ann[2]) && !is_sent(&w, ann[3]));
    // Others that run elsewhere count too.
    w.say(&a, FromAgent::Error { execution: ann[1].execution(1), error: aborted() });
    assert!(is_sent(&w, ann[3]));
    let fifth = submit(&mut w, "ann", "a:b", terms("ann")).unwrap();
    let there = Elsewhere { count: Count { running: 1, queued: 0 }, waiting_at: 0 };
    w.engine.set_elsewhere(HashMap::from([(Scope::User(user("ann")), there)]), w.now, &mut w.out);
    w.say(&a, FromAgent::Error { execution: ann[2].execution(1), error: aborted() });
    assert!(!is_sent(&w, fifth));
    w.engine.set_elsewhere(HashMap::new(), w.now, &mut w.out);
    assert!(is_sent(&w, fifth));
}

#[test]
fn a_limit_of_a_process_holds_up_no_other() {
    let mut w = World::new();
    let a = w.agent("a", 10);
    w.say(&a, FromAgent::Register(Box::new(description("a:c", false))));
    let bound =
        Bound { scope: Scope::Process("a:b".into()), max: 1, setting: "[process a:b] max_running".into() };
    let terms = Terms { running: vec![bound], ..Terms::default() };
    let first = submit(&mut w, "ann", "a:b", terms.clone()).unwrap();
    let second = submit(&mut w, "bob", "a:b", terms).unwrap();
    let other = submit(&mut w, "bob", "a:c", Terms::default()).unwrap();
    assert!(is_sent(&w, first) && !is_sent(&w, second) && is_sent(&w, other));
    assert_eq!(
        why(&w, second),
        "waiting: the process `a:b` has 1 job(s) running, and `[process a:b] max_running` allows 1"
    );
    w.engine.dismiss(first, w.now, &mut w.out);
    assert!(!is_sent(&w, second), "it may run on for a while");
    w.say(&a, FromAgent::Error { execution: first.execution(1), error: aborted() });
    assert!(is_sent(&w, second));
}

#[test]
fn no_more_wait_than_allowed() {
    let mut w = World::new();
    let terms = Terms { queued: vec![of_user("ann", 2)], ..Terms::default() };
    let first = submit(&mut w, "ann", "a:b", terms.clone()).unwrap();
    submit(&mut w, "ann", "a:b", terms.clone()).unwrap();
    w.out.clear();
    let full = submit(&mut w, "ann", "a:b", terms.clone()).unwrap_err();
    assert_eq!((full.queued, full.bound.map(|bound| bound.max)), (2, Some(2)));
    assert_eq!(w.said(), [] as [String; 0]);
    assert!(
        submit(&mut w, "bob", "a:b", Terms { queued: vec![of_user("bob", 2)], ..Terms::default() }).is_ok()
    );
    w.engine.dismiss(first, w.now, &mut w.out);
    assert!(submit(&mut w, "ann", "a:b", terms).is_ok());
}

#[test]
fn a_job_goes_only_where_its_label_is() {
    let mut w = World::new();
    let plain = w.agent("plain", 10);
    let needs = Terms { needs: vec!["gpu".into()], ..Terms::default() };
    let id = submit(&mut w, "ann", "a:b", needs.clone()).unwrap();
    assert!(!is_sent(&w, id));
    assert_eq!(why(&w, id), "waiting: no agent that offers this process has the label `gpu` that it needs");
    let other = submit(&mut w, "ann", "a:b", Terms::default()).unwrap();
    assert!(is_sent(&w, other), "one that needs nothing goes past it");
    let gpu = w.agent("gpu", 1);
    w.say(&gpu, FromAgent::Load(Load { labels: vec!["gpu".into()], ..load(1) }));
    assert_eq!(w.engine.job(id).unwrap().agent, Some(gpu));
    let second = submit(&mut w, "ann", "a:b", needs).unwrap();
    assert!(why(&w, second).contains("busy"), "{}", why(&w, second));
    let lines = w.engine.explain(second, w.now).unwrap().lines.join("\n");
    assert!(
        lines.contains("`plain` lacks the label `gpu`") && lines.contains("`gpu` is busy: 1 of 1"),
        "{lines}"
    );
    assert_eq!(w.engine.fleet().agent(&plain).unwrap().executions.len(), 1);
}

#[test]
fn a_drained_agent_keeps_what_it_has_and_gets_nothing_new() {
    let mut w = World::new();
    let a = w.agent("a", 10);
    let runs = submit(&mut w, "ann", "a:b", Terms::default()).unwrap();
    let drained = BTreeMap::from([(a.clone(), "new disk".to_owned()), (AgentId::new("b"), "gone".into())]);
    w.engine.set_drained(drained, w.now, &mut w.out);
    let id = submit(&mut w, "ann", "a:b", Terms::default()).unwrap();
    assert!(is_sent(&w, runs) && !is_sent(&w, id));
    assert_eq!(
        why(&w, id),
        "waiting: no agent that offers this process takes new work now (a is drained: new disk)"
    );
    // Also one that comes later, and one that comes back.
    let b = w.agent("b", 10);
    w.agent("a", 10);
    assert!(!is_sent(&w, id));
    w.engine.set_drained(BTreeMap::from([(a, "new disk".to_owned())]), w.now, &mut w.out);
    assert_eq!(w.engine.job(id).unwrap().agent, Some(b));
}

#[test]
fn times_end_jobs_and_say_which_limit_it_was() {
    let span = |ms: u64, key: &str| Some(Span { ms, setting: format!("[role guest] {key}") });
    let failure = |w: &mut World| {
        let last = w.out.iter().rev().find_map(|action| match action {
            Action::Save(job) => Some(job.state.clone()),
            _ => None,
        });
        match last {
            Some(JobState::Failed { failure, .. }) => failure.text(),
            other => panic!("{other:?}"),
        }
    };
    // In the queue.
    let mut w = World::new();
    let terms = Terms { queue_time: span(5_000, "max_queue_time_s"), ..Terms::default() };
    let id = submit(&mut w, "ann", "a:b", terms).unwrap();
    w.pass(4_999);
    assert!(w.engine.job(id).is_some());
    w.pass(1);
    assert_eq!(
        failure(&mut w),
        "the job waited in the queue for 5 s, which is as long as `[role guest] max_queue_time_s` allows (waiting: no agent \
         that offers this process is online); ask for it again later, or ask the operator for a higher limit"
    );
    // At the agent, counted from the start of the program.
    let mut w = World::new();
    let a = w.agent("a", 1);
    let terms = Terms { run_time: span(3_000, "max_run_time_s"), ..Terms::default() };
    let id = submit(&mut w, "ann", "a:b", terms).unwrap();
    w.pass(10_000);
    w.say(&a, FromAgent::Started { execution: id.execution(1) });
    w.pass(2_999);
    w.out.clear();
    w.pass(1);
    assert_eq!(w.said(), ["save dismissing", "a<abort"]);
    w.say(&a, FromAgent::Error { execution: id.execution(1), error: aborted() });
    assert!(
        failure(&mut w)
            .contains("the job ran for 3 s, which is as long as `[role guest] max_run_time_s` allows")
    );
    // In all; what has completed in the last moment counts.
    let mut w = World::new();
    let a = w.agent("a", 1);
    let terms = Terms { total_time: span(9_000, "max_total_time_s"), ..Terms::default() };
    let first = submit(&mut w, "ann", "a:b", terms.clone()).unwrap();
    let second = submit(&mut w, "ann", "a:b", terms).unwrap();
    w.say(&a, FromAgent::Completed { execution: first.execution(1), outputs: vec![] });
    w.pass(8_999);
    w.out.clear();
    w.pass(1);
    assert!(failure(&mut w).contains("max_total_time_s"));
    assert!(w.engine.job(second).is_none());
    w.engine.collected(&first.execution(1), Ok(vec![]), w.now, &mut w.out);
    assert!(w.said().contains(&"save successful".to_owned()));
}

#[test]
fn a_job_gives_out_no_more_than_allowed() {
    let mut w = World::new();
    let a = w.agent("a", 1);
    let output = Some(Size { bytes: 1_000, setting: "[limits] max_output_mb".into() });
    let terms = Terms { output, ..Terms::default() };
    for (bytes, ends) in [(1_000, "collect"), (1_001, "save failed")] {
        let id = submit(&mut w, "ann", "a:b", terms.clone()).unwrap();
        w.say(&a, FromAgent::Started { execution: id.execution(1) });
        w.out.clear();
        let file = SharedFile { path: format!("{}/result/r", id.execution(1)), bytes, sha256: None };
        let value =
            Value::Complex { content: Content::Shared(file), media_type: "text/xml".into(), schema: None };
        let outputs = vec![Output::new("result", value)];
        w.say(&a, FromAgent::Completed { execution: id.execution(1), outputs });
        let said = w.said();
        assert_eq!(said[0], ends);
        if ends == "collect" {
            w.engine.collected(&id.execution(1), Ok(vec![]), w.now, &mut w.out);
        } else {
            assert!(
                said.contains(&"discard".to_owned()) && said.contains(&"a<finish".to_owned()),
                "{said:?}"
            );
        }
        w.out.clear();
    }
}

#[test]
fn old_figures_are_not_believed() {
    let mut w = World::new();
    let (a, b) = (w.agent("a", 10), w.agent("b", 10));
    w.say(&b, FromAgent::Load(Load { cpu_percent: 60.0, ..load(10) }));
    w.now = w.now.plus_ms(35_001);
    w.say(&b, FromAgent::Load(Load { cpu_percent: 60.0, ..load(10) }));
    let id = submit(&mut w, "ann", "a:b", Terms::default()).unwrap();
    assert_eq!(w.engine.job(id).unwrap().agent, Some(b), "the report of the other one is old");
    w.say(&a, FromAgent::Load(load(10)));
    let id = submit(&mut w, "ann", "a:b", Terms::default()).unwrap();
    assert_eq!(w.engine.job(id).unwrap().agent, Some(a));
    let chosen = w.engine.job(id).unwrap().chosen.clone().unwrap();
    assert!(chosen.contains("least loaded of 2 that could take it"), "{chosen}");
}

#[test]
fn equal_agents_take_turns() {
    let mut w = World::new();
    let agents = [w.agent("a", 10), w.agent("b", 10), w.agent("c", 10)];
    let mut seen = HashSet::new();
    for n in 0..3 {
        // A load that flickers does not decide.
        w.say(&agents[0], FromAgent::Load(Load { cpu_percent: 0.1 * f64::from(n), ..load(10) }));
        let id = submit(&mut w, "ann", "a:b", Terms::default()).unwrap();
        let at = w.engine.job(id).unwrap().agent.clone().unwrap();
        w.say(&at, FromAgent::Error { execution: id.execution(1), error: aborted() });
        seen.insert(at);
    }
    assert_eq!(seen.len(), 3);
}
