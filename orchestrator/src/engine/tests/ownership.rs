//! Jobs of other orchestrators, clocks that are set, and attempts that are lost.

use super::*;

#[test]
fn a_job_of_a_dead_orchestrator_is_claimed_at_an_agent_that_is_present() {
    let mut w = World::new();
    w.agent("a", 5);
    let id = w.execute(description("a:b", false));
    let waits = w.execute(description("c:d", false));
    let stored = [id, waits].map(|id| w.engine.job(id).unwrap().clone());
    let mut w = World::new();
    let a = w.agent("a", 5);
    for job in stored {
        w.engine.adopt(job.clone(), w.now, &mut w.out);
        w.engine.adopt(job, w.now, &mut w.out);
    }
    w.out.clear();
    w.engine.claim(w.now, &mut w.out);
    let claim = ToAgent::Invite { executions: vec![id.execution(1)] };
    assert_eq!(w.out[0], Action::Send(a.clone(), claim.clone()));
    // The claim was lost: it is made again.
    w.out.clear();
    w.pass(60_000);
    assert_eq!(w.out, [Action::Send(a.clone(), claim)]);
    w.out.clear();
    w.holds(&a, &[id.execution(1)], &[]);
    w.say(&a, FromAgent::Error { execution: id.execution(1), error: aborted() });
    assert_eq!(w.said(), ["save failed", "notify", "release", "discard", "a<finish"]);
    assert_eq!(w.engine.queued(), 1);
}

#[test]
fn abandoned_jobs_are_not_touched_any_more_and_take_no_place() {
    let mut w = World::new();
    let a = w.agent("a", 1);
    let id = w.execute(description("a:b", false));
    let waits = w.execute(description("a:b", false));
    w.out.clear();
    let mut expected = vec![id, waits];
    expected.sort();
    assert_eq!(w.engine.abandon(), expected);
    w.say(&a, FromAgent::Completed { execution: id.execution(1), outputs: vec![] });
    w.pass(10_000_000);
    assert_eq!(w.said(), ["inquire Ended"]);
    w.execute(description("a:b", false));
    assert_eq!(w.said()[0], "save dispatched");
}

#[test]
fn the_store_decides_about_executions_that_are_not_held() {
    let mut w = World::new();
    w.agent("a", 1);
    let id = w.execute(description("a:b", false));
    let mut job = w.engine.job(id).unwrap().clone();
    let (live, stale) = (id.execution(1), id.execution(2));
    let elsewhere = Some(ToAgent::Elsewhere { execution: live.clone() });
    assert_eq!(Question::Ended.answer(&live, Some(&job)), elsewhere);
    assert_eq!(Question::Held.answer(&live, Some(&job)), None);
    assert_eq!(
        Question::Ended.answer(&stale, Some(&job)),
        Some(ToAgent::Finish { execution: stale.clone() })
    );
    assert_eq!(Question::Held.answer(&stale, Some(&job)), Some(ToAgent::Abort { execution: stale }));
    assert_eq!(Question::Held.answer(&live, None), None);
    assert_eq!(Question::Ended.answer(&live, None), Some(ToAgent::Unknown { execution: live.clone() }));
    job.state = JobState::Dismissed { finished: w.now, receipt: None };
    assert_eq!(Question::Held.answer(&live, Some(&job)), Some(ToAgent::Abort { execution: live }));
}

#[test]
fn the_wall_clock_may_jump_both_ways() {
    let day = 24 * 3600 * 1000;
    for jump in [365 * day, -365 * day, 60_000, -60_000] {
        let mut w = World::new();
        w.now = Timestamp(1_800_000_000_000);
        let a = w.agent("a", 1);
        let runs = w.execute(description("a:b", false));
        let dismissed = w.execute(description("x:y", false));
        w.say(&a, FromAgent::Started { execution: runs.execution(1) });
        w.engine.agent_left(&a, w.now, &mut w.out);
        w.pass(1_000);
        w.now = w.now.shifted_ms(jump);
        w.engine.clock_set(jump);
        w.out.clear();
        w.pass(298_999);
        assert_eq!(w.said(), Vec::<String>::new(), "too early after a jump of {jump} ms");
        w.pass(1);
        assert_eq!(w.said()[0], "save failed", "too late after a jump of {jump} ms");
        w.pass(day as u64 - 310_000);
        assert_eq!(w.said(), Vec::<String>::new());
        w.pass(10_000);
        assert_eq!(w.said()[0], "save failed");
        assert!(w.engine.job(dismissed).is_none());
    }
}

#[test]
fn an_adopted_job_is_not_ended_by_a_clock_that_was_wrong() {
    let mut w = World::new();
    w.now = Timestamp(1_800_000_000_000);
    let id = w.execute(description("a:b", false));
    for created in [0, u64::MAX] {
        let job = Job { created: Timestamp(created), ..w.engine.job(id).unwrap().clone() };
        let mut w = World::new();
        w.now = Timestamp(1_800_000_000_000);
        w.engine.adopt(job, w.now, &mut w.out);
        w.out.clear();
        w.pass(299_999);
        assert_eq!(w.said(), Vec::<String>::new());
        w.pass(24 * 3600 * 1000);
        assert_eq!(w.said()[0], "save failed");
    }
}

#[test]
fn the_answer_to_an_older_invitation_says_nothing_of_jobs_that_were_claimed_later() {
    let mut w = World::new();
    w.agent("a", 5);
    let id = w.execute(description("a:b", false));
    let stored = w.engine.job(id).unwrap().clone();
    let mut w = World::new();
    let a = AgentId::new("a");
    w.engine.agent_joined(&a, w.now, &mut w.out);
    w.engine.adopt(stored, w.now, &mut w.out);
    w.engine.claim(w.now, &mut w.out);
    // The second invitation, or its answer, is lost.
    w.holds(&a, &[], &[]);
    w.out.clear();
    w.pass(60_000);
    assert_eq!(w.said(), ["a<invite"]);
    w.holds(&a, &[], &[id.execution(1)]);
    assert!(matches!(w.engine.job(id).unwrap().state, JobState::Accepted { .. }));
    w.pass(60_000);
    assert!(!w.said().contains(&"a<invite".to_owned()));
}

#[test]
fn a_job_that_goes_back_into_the_queue_is_not_ended_by_a_clock_that_was_set() {
    let mut w = World::new();
    w.now = Timestamp(1_800_000_000_000);
    let a = w.agent("a", 5);
    let id = w.execute(description("a:b", false));
    let week = 7 * 24 * 3600 * 1000;
    w.now = w.now.shifted_ms(week);
    w.engine.clock_set(week);
    let refusal = Refusal { reason: RefusalReason::Capacity, text: "full".into() };
    w.say(&a, FromAgent::CannotExecute { execution: id.execution(1), refusal });
    w.out.clear();
    w.pass(1);
    assert_eq!(w.said(), Vec::<String>::new());
}

#[test]
fn a_lost_attempt_is_repeated_a_bounded_number_of_times_and_only_if_the_descriptor_says_so() {
    for (repeatable, runs) in [(true, 3), (false, 1)] {
        let mut w = World::new();
        let id = {
            w.agent("a", 1);
            w.execute(description("a:b", repeatable))
        };
        let mut started = Vec::new();
        for attempt in 1.. {
            let Some(execution) = w.engine.job(id).and_then(|job| job.state.execution()).cloned() else {
                break;
            };
            assert_eq!(execution.id, id.execution(attempt));
            w.say(&execution.agent, FromAgent::Started { execution: execution.id.clone() });
            started.push(execution.id.clone());
            // Its agent comes back without it: nobody knows how far the program came.
            w.engine.agent_joined(&execution.agent, w.now, &mut w.out);
            w.holds(&execution.agent, &[], &[execution.id]);
            w.say(&execution.agent, FromAgent::Register(Box::new(description("a:b", repeatable))));
            w.say(&execution.agent, FromAgent::Load(load(1)));
        }
        assert_eq!(started.len(), runs, "repeatable: {repeatable}");
        let last = w.out.iter().rev().find_map(|action| match action {
            Action::Save(job) => Some(job.state.clone()),
            _ => None,
        });
        assert!(matches!(last, Some(JobState::Failed { failure: Failure::Interrupted(_), .. })), "{last:?}");
    }
}

#[test]
fn places_that_another_orchestrator_has_taken_are_counted() {
    let mut w = World::new();
    let a = w.agent("a", 4);
    let first = w.execute(description("a:b", false));
    w.say(&a, FromAgent::Load(Load { running: 3, used: 30.0, ..load(4) }));
    w.out.clear();
    // Three run, of which one is ours; one more is sent, and then it is full.
    let second = w.execute(description("a:b", false));
    let third = w.execute(description("a:b", false));
    let state = |w: &World, id| w.engine.job(id).unwrap().state.name();
    assert_eq!((state(&w, second), state(&w, third)), ("dispatched", "accepted"));
    w.say(&a, FromAgent::Error { execution: first.execution(1), error: aborted() });
    assert_eq!(state(&w, third), "dispatched");
}
