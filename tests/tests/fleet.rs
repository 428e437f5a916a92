//! Many agents at once, played by stand-ins: all are found with all that they offer, and work is spread over them within what
//! each can take. The large form is the bench `fleet`.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use e2e::client::{Execute, Status};
use e2e::fleet::{Fleet, Spec};
use e2e::xmpp::Prosody;
use e2e::{Site, skip, wait_until};

const LONG: Duration = Duration::from_secs(60);
const SPEC: Spec = Spec { agents: 60, processes: 10, places: 3, job: Duration::from_millis(300) };

fn found_and_used(site: &Site) {
    site.expect_warning("");
    let orchestrator = site.orchestrator().config("[limits]\nmax_queued = 500").start();
    let logins = (0..SPEC.agents).map(|n| site.bus().login(&format!("f{n:03}"))).collect();
    let fleet = Fleet::start(logins, SPEC);
    let figures = fleet.figures();
    let all = SPEC.agents * SPEC.processes;
    let known = wait_until(LONG, || (figures.registered.load(Relaxed) == all).then_some(()));
    assert!(known.is_some(), "{} of {all} processes are known", figures.registered.load(Relaxed));
    orchestrator.wait_until_offer(LONG, "ten processes", |offered| offered.len() == SPEC.processes);
    let present = wait_until(LONG, || orchestrator.agents_present(60).then_some(()));
    assert!(present.is_some(), "{:?} agents are present", orchestrator.metric("wps_agents"));

    let mut wps = orchestrator.wps();
    let jobs: Vec<String> =
        (0..200).map(|n| wps.submit(&Execute::new(&format!("fleet:P{}", n % 10)).stored())).collect();
    for job in &jobs {
        assert_eq!(wps.wait(job), Status::Succeeded);
    }
    assert_eq!(figures.over.load(Relaxed), 0, "an agent got more than it can take");
    let per_agent: Vec<u64> = figures.jobs.iter().map(|jobs| jobs.load(Relaxed)).collect();
    assert_eq!(per_agent.iter().sum::<u64>(), 200);
    let idle = per_agent.iter().filter(|jobs| **jobs == 0).count();
    assert!(idle <= SPEC.agents / 10, "{idle} agents got nothing: {per_agent:?}");
    // Gone at once: nothing is offered any more.
    drop(fleet);
    orchestrator.wait_until_offer(LONG, "nothing", <[String]>::is_empty);
}

#[test]
fn sixty_agents_are_found_and_share_the_work() {
    e2e::run("fleet", found_and_used);
}

#[test]
fn the_same_over_prosody() {
    match Prosody::start() {
        Some(server) => e2e::run_on("fleet-prosody", Box::new(server), found_and_used),
        None => skip("fleet-prosody", "prosody is not installed"),
    }
}
