//! Requests that are weighed first: nothing is promised before, the true weight counts afterwards.

use std::time::Duration;

use wps_remote_protocol::ProcessDescription;

use super::*;
use crate::engine::Settings;

struct World {
    engine: Engine,
    out: Actions,
}

impl World {
    fn new() -> Self {
        let settings = Settings {
            capacity: 10.0,
            max_running: None,
            load_threshold: 100.0,
            cores: 2,
            keep_endings: Duration::from_secs(3600),
            labels: vec![],
        };
        let mut engine = Engine::new(settings);
        let id = ProcessId::new("test", "p").unwrap();
        let process = ProcessDescription {
            id: id.clone(),
            alias: None,
            title: "p".into(),
            summary: String::new(),
            version: "1".into(),
            keywords: vec![],
            inputs: vec![],
            outputs: vec![],
            weight: 1.0,
            repeatable: false,
            max_running_time_s: 0,
            roles: vec![],
        };
        let mut out = Actions::new();
        engine.weigh_first(BTreeSet::from([id]));
        engine.offer(vec![process], &mut out);
        assert_eq!(out, []);
        Self { engine, out }
    }

    fn request(&mut self, name: &str) -> Result<Answer, Refusal> {
        let process = ProcessId::new("test", "p").unwrap();
        let request = Request { execution: id(name), process, inputs: vec![], base_url: String::new() };
        self.engine.request(Peer("o".into()), request, Duration::ZERO, &mut self.out)
    }

    fn weighed(&mut self, name: &str, weight: Result<f64, String>) {
        self.engine.weighed(&id(name), weight, &mut self.out);
    }

    fn expect(&mut self, expected: &[&str]) {
        let said: Vec<String> = self
            .out
            .drain(..)
            .map(|action| match action {
                Action::Weigh(request) => format!("weigh {}", request.execution),
                Action::Start(_, request) => format!("start {}", request.execution),
                Action::Refuse(id, refusal) => format!("refuse {id}: {}", refusal.text),
                Action::Announce => "announce".into(),
                other => format!("{other:?}"),
            })
            .collect();
        assert_eq!(said, expected);
    }
}

fn id(name: &str) -> ExecutionId {
    ExecutionId::new(name).unwrap()
}

#[test]
fn the_weight_that_was_found_counts() {
    let mut world = World::new();
    assert_eq!(world.request("a"), Ok(Answer::Later));
    assert_eq!(world.request("b"), Ok(Answer::Later));
    assert_eq!(world.request("a"), Ok(Answer::Later), "asked again while it is weighed");
    world.expect(&["weigh a", "weigh b"]);
    assert_eq!((world.engine.live(), world.engine.held()), (0, vec![]), "nothing is taken before");
    world.weighed("a", Ok(7.0));
    world.expect(&["start a", "announce"]);
    assert_eq!(world.engine.weight_of(&id("a")), Some(7.0));
    world.weighed("b", Ok(4.0));
    world.expect(&["refuse b: capacity 10 has 3 units left, 4 are needed"]);
    world.weighed("b", Ok(1.0));
    world.expect(&[]);
    assert_eq!(world.engine.load().used, 7.0);
}

#[test]
fn what_cannot_be_weighed_is_refused_with_the_reason() {
    let mut world = World::new();
    assert_eq!(world.request("a"), Ok(Answer::Later));
    world.weighed("a", Err("weight_command failed".into()));
    world.expect(&["weigh a", "refuse a: the weight of the job is not known: weight_command failed"]);
}

#[test]
fn one_that_is_given_up_meanwhile_never_starts() {
    let mut world = World::new();
    assert_eq!(world.request("a"), Ok(Answer::Later));
    world.out.clear();
    assert_eq!(world.engine.abort(&id("a"), Duration::ZERO, &mut world.out), Ok(()));
    world.expect(&["refuse a: it was given up before it was taken"]);
    world.weighed("a", Ok(1.0));
    world.expect(&[]);
    assert_eq!(world.request("b"), Ok(Answer::Later));
    world.out.clear();
    world.engine.offline();
    world.weighed("b", Ok(1.0));
    world.expect(&[]);
}

#[test]
fn what_is_refused_in_any_case_is_not_weighed_and_floods_are_bounded() {
    let mut world = World::new();
    for n in 0..WEIGHING {
        assert_eq!(world.request(&format!("a{n}")), Ok(Answer::Later));
    }
    let refusal = world.request("more").unwrap_err();
    assert_eq!(refusal.reason, RefusalReason::Load);
    world.out.clear();
    world.engine.drain(true, &mut world.out);
    world.expect(&["announce"]);
    assert_eq!(world.request("late").unwrap_err().reason, RefusalReason::Draining);
    world.weighed("a0", Ok(1.0));
    world.expect(&["refuse a0: the agent is draining: it finishes its jobs and takes no new ones"]);
    assert_eq!(world.engine.load().refusing.map(|refusal| refusal.reason), Some(RefusalReason::Draining));
}
