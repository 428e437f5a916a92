//! Several agents with the same process: work is spread, waits when all are full, and survives the loss of one.

use std::collections::BTreeMap;
use std::time::Duration;

use e2e::Site;
use e2e::agent::Agent;
use e2e::client::{Execute, Status, document, output};
use e2e::fixtures::{WAITING, descriptor};

const LONG: Duration = Duration::from_secs(30);

/// An agent with `test:Wait`, whose result tells where it ran.
fn waiting_agent<'a>(site: &'a Site, name: &str, parallel: u32) -> Agent<'a> {
    site.agent(name)
        .config(&format!("max_parallel_jobs = {parallel}"))
        .file("wait.ini", &descriptor("Wait", "wait.sh", ""))
        .file("wait.sh", WAITING)
        .start()
}

fn started(status: &Status) -> bool {
    matches!(status, Status::Started(_))
}

#[test]
fn work_is_spread_and_waits_when_all_agents_are_full() {
    e2e::run("spread", |site| {
        let orchestrator = site.orchestrator().start();
        let agents = [waiting_agent(site, "a", 2), waiting_agent(site, "b", 2)];
        orchestrator.wait_for(&["test:Wait"]);
        e2e::wait_until(LONG, || orchestrator.agents_present(2).then_some(())).expect("two agents");
        let mut wps = orchestrator.wps();

        // The second job goes to the other agent although the first agent has room: it is the least loaded.
        let mut jobs = Vec::new();
        for _ in 0..2 {
            jobs.push(wps.submit(&Execute::new("test:Wait").stored()));
        }
        for job in &jobs {
            wps.wait_until(job, LONG, started);
        }
        for _ in 0..2 {
            jobs.push(wps.submit(&Execute::new("test:Wait").stored()));
        }
        for job in &jobs {
            wps.wait_until(job, LONG, started);
        }
        // Four run, so two more wait.
        let queued: Vec<String> = (0..2).map(|_| wps.submit(&Execute::new("test:Wait").stored())).collect();
        for job in &queued {
            assert_eq!(wps.status(job), Status::Accepted);
        }
        for agent in &agents {
            agent.write("release", "");
        }
        let mut places: BTreeMap<String, usize> = BTreeMap::new();
        for (number, job) in jobs.iter().chain(&queued).enumerate() {
            assert_eq!(wps.wait(job), Status::Succeeded);
            let response = document(&wps.fetch(job), "ExecuteResponse");
            let place = output(&response, "result").text_of("ComplexData").unwrap().to_owned();
            if number < 2 {
                assert!(places.insert(place.clone(), 1).is_none(), "the first two ran at the same agent");
            } else {
                *places.entry(place).or_default() += 1;
            }
        }
        assert_eq!(places.len(), 2);
        assert!(places.values().all(|count| *count >= 2), "{places:?}");
    });
}

#[test]
fn a_killed_agent_takes_its_job_up_again_when_it_is_back() {
    e2e::run("re-adopt", |site| {
        site.expect_warning("agent");
        let orchestrator = site.orchestrator().start();
        let agent = waiting_agent(site, "a", 2);
        orchestrator.wait_for(&["test:Wait"]);
        let mut wps = orchestrator.wps();
        let job = wps.submit(&Execute::new("test:Wait").stored());
        wps.wait_until(&job, LONG, started);

        let agent = agent.kill_and_restart();
        orchestrator.wait_for(&["test:Wait"]);
        assert!(!wps.status(&job).is_final(), "the job is lost: {:?}", wps.status(&job));
        agent.write("release", "");
        assert_eq!(wps.wait(&job), Status::Succeeded);
    });
}

#[test]
fn a_job_that_ends_while_its_agent_is_away_is_not_lost() {
    e2e::run("ends-alone", |site| {
        site.expect_warning("agent");
        let orchestrator = site.orchestrator().start();
        let agent = waiting_agent(site, "a", 2);
        orchestrator.wait_for(&["test:Wait"]);
        let mut wps = orchestrator.wps();
        let job = wps.submit(&Execute::new("test:Wait").stored());
        wps.wait_until(&job, LONG, started);

        agent.program().kill();
        agent.write("release", "");
        let script = agent.services().join("wait.sh");
        let ended = e2e::wait_until(LONG, || {
            e2e::program::processes_with(&script.to_string_lossy()).is_empty().then_some(())
        });
        assert!(ended.is_some(), "the program did not end");
        let _agent = agent.kill_and_restart();
        assert_eq!(wps.wait(&job), Status::Succeeded);
    });
}

#[test]
fn jobs_of_an_agent_that_stays_away_fail_and_others_go_on() {
    e2e::run("lost", |site| {
        site.expect_warning("agent");
        site.expect_warning("test:Wait");
        let orchestrator = site.orchestrator().config("[limits]\nagent_lost_timeout_s = 1").start();
        let lost = waiting_agent(site, "a", 1);
        orchestrator.wait_for(&["test:Wait"]);
        let mut wps = orchestrator.wps();
        let job = wps.submit(&Execute::new("test:Wait").stored());
        wps.wait_until(&job, LONG, started);

        let other = waiting_agent(site, "b", 1);
        e2e::wait_until(LONG, || orchestrator.agents_present(2).then_some(())).expect("two agents");
        let release = lost.services().join("release");
        lost.kill();
        wps.wait_until(&job, LONG, |status| matches!(status, Status::Paused(_)) || status.is_final());
        let last = wps.wait(&job);
        assert!(matches!(last, Status::Failed(_)), "{last:?}");
        // Its program goes on under the supervisor, which nobody asks any more.
        std::fs::write(release, "").unwrap();
        other.write("release", "");
        let job = wps.submit(&Execute::new("test:Wait").stored());
        assert_eq!(wps.wait(&job), Status::Succeeded);
    });
}
