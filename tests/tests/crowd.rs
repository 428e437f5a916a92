//! 500 clients submit and ask at once: none of them ever hears that a job that was accepted a moment ago is unknown, not on
//! another orchestrator either.

use std::net::SocketAddr;
use std::sync::{Barrier, Mutex};
use std::time::Duration;

use e2e::Site;
use e2e::client::{Execute, Wps, document, execution_id};
use e2e::fixtures::{HELLO, descriptor};
use e2e::http::{Answer, Http};
use e2e::postgres::Postgres;
use e2e::xmpp::Prosody;

const CLIENTS: usize = 500;
/// Looks at each job, by every client at every orchestrator, right after it was accepted.
const LOOKS: usize = 3;
/// 500 connections at once may wait for a loaded machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// Asks until the answer is not "busy" (503).
fn patient(mut ask: impl FnMut() -> Answer) -> Answer {
    let asked = e2e::wait_until(PATIENCE, || Some(ask()).filter(|answer| answer.status != 503));
    asked.expect("the orchestrator is not busy for ever")
}

/// Jobs run meanwhile, so that every state is met: in memory, on its way into the store, and in the store only.
fn crowd(site: &Site, nodes: &[SocketAddr]) {
    let together = Barrier::new(CLIENTS);
    let wrong = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for n in 0..CLIENTS {
            let (together, wrong) = (&together, &wrong);
            let client = move || {
                together.wait();
                let mut own = Wps::new(nodes[n % nodes.len()]);
                // "Try again later" is an honest answer to a crowd.
                let answer = patient(|| own.execute(&Execute::new("test:Hello").stored()));
                let location =
                    document(&answer, "ExecuteResponse").attribute("statusLocation").map(str::to_owned);
                let location = location.expect("an accepted job has a statusLocation");
                let path = own.target(&location);
                let id = execution_id(&location);
                for node in nodes.iter().cycle().skip(n + 1).take(LOOKS * nodes.len()) {
                    let mut http = Http::new(*node).patience(PATIENCE);
                    let status = format!("/wps?service=WPS&version=2.0.0&request=GetStatus&jobId={id}");
                    for (target, root) in [(&path, "ExecuteResponse"), (&status, "StatusInfo")] {
                        let answer = patient(|| http.get(target).expect("the orchestrator answers"));
                        if answer.status != 200 || !answer.text().contains(root) {
                            let said =
                                format!("{target} on {node}: HTTP {} {}", answer.status, answer.text());
                            wrong.lock().expect("no client panics while it writes").push(said);
                        }
                    }
                }
            };
            std::thread::Builder::new()
                .stack_size(256 * 1024)
                .spawn_scoped(scope, client)
                .expect("a thread can be started");
        }
    });
    let wrong = wrong.into_inner().expect("no client panics while it writes");
    assert!(
        wrong.is_empty(),
        "{} of {}: {}",
        wrong.len(),
        site.name(),
        wrong[..wrong.len().min(5)].join("\n")
    );
}

fn agent(site: &Site) -> e2e::agent::Agent<'_> {
    site.agent("a")
        .config("max_parallel_jobs = 4\nload_threshold = 100")
        .file("hello.ini", &descriptor("Hello", "hello.sh", ""))
        .file("hello.sh", HELLO)
        .start()
}

#[test]
fn five_hundred_clients_never_hear_that_their_job_is_unknown() {
    e2e::run("crowd", |site| {
        let orchestrator = site.orchestrator().start();
        let _agent = agent(site);
        orchestrator.wait_for(&["test:Hello"]);
        crowd(site, &[orchestrator.address()]);
    });
}

#[test]
fn five_hundred_clients_of_two_orchestrators_never_hear_that_their_job_is_unknown() {
    let name = "crowd-cluster";
    let postgres = match Postgres::start() {
        Ok(postgres) => postgres,
        Err(why) => return e2e::skip(name, why),
    };
    let Some(prosody) = Prosody::start() else { return e2e::skip(name, "prosody is not installed") };
    e2e::run_on(name, Box::new(prosody), |site| {
        // On a machine that is busy with 500 clients a sign of life may come late.
        site.expect_warning("");
        let nodes = ["a", "b"].map(|name| site.orchestrator().named(name).sharing(&postgres).start());
        let _agent = agent(site);
        nodes.iter().for_each(|node| node.wait_for(&["test:Hello"]));
        crowd(site, &nodes.each_ref().map(|node| node.address()));
    });
}
