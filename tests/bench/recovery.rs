//! How soon everything is in service again: a hundred agents after the return of the XMPP server, and an orchestrator with
//! 100,000 stored jobs after its own.

use std::process::Command;
use std::time::{Duration, Instant};

use e2e::agent::Agent;
use e2e::client::{Execute, Status};
use e2e::fixtures::{HELLO, descriptor};
use e2e::orchestrator::Orchestrator;
use e2e::postgres::Postgres;
use e2e::xmpp::{Ejabberd, Prosody, XmppServer};
use e2e::{Site, root, skip, tell, wait_until};

const AGENTS: usize = 100;
/// Kills of the XMPP server.
const DEATHS: usize = 3;
const LONG: Duration = Duration::from_secs(180);
const STORED: u32 = 100_000;

/// From the moment at which the killed XMPP server can be reached again until work is sent to each of 100 agents.
pub fn reconnect() {
    let servers: [(&str, Option<Box<dyn XmppServer>>); 2] = [
        ("Prosody", Prosody::start().map(|server| Box::new(server) as Box<dyn XmppServer>)),
        ("ejabberd", Ejabberd::start().map(|server| Box::new(server) as Box<dyn XmppServer>)),
    ];
    for (label, server) in servers {
        let Some(server) = server else {
            skip("reconnect", &format!("{label} is not installed"));
            continue;
        };
        e2e::run_on("bench-reconnect", server, |site| {
            site.expect_warning("");
            let orchestrator = site.orchestrator().start();
            let _agents: Vec<Agent<'_>> = (0..AGENTS).map(|n| agent(site, n)).collect();
            ready(&orchestrator);
            let mut times = Vec::new();
            for _ in 0..DEATHS {
                site.bus().server().kill();
                let away = wait_until(LONG, || (count_ready(&orchestrator) == 0).then_some(()));
                away.expect("that the server is away is noticed");
                site.bus().server().restart();
                let begun = Instant::now();
                ready(&orchestrator);
                times.push(begun.elapsed());
            }
            times.sort();
            tell(&format!(
                "{AGENTS} agents in service again after the return of {label}: {:.1} to {:.1} s, median {:.1} s",
                times[0].as_secs_f64(),
                times[DEATHS - 1].as_secs_f64(),
                times[DEATHS / 2].as_secs_f64()
            ));
        });
    }
}

fn agent(site: &Site, n: usize) -> Agent<'_> {
    let service = descriptor(&format!("P{n:03}"), "hello.sh", "");
    site.agent(&format!("a{n:03}")).file("hello.ini", &service).file("hello.sh", HELLO).start()
}

fn ready(orchestrator: &Orchestrator<'_>) {
    let all = wait_until(LONG, || (count_ready(orchestrator) == AGENTS).then_some(()));
    assert!(all.is_some(), "{} of {AGENTS} agents are in service", count_ready(orchestrator));
}

/// Agents that work is sent to, by the view of operators, which is renewed every second.
fn count_ready(orchestrator: &Orchestrator<'_>) -> usize {
    let Ok(answer) = orchestrator.wps().http.get("/agents") else { return 0 };
    let view: serde_json::Value = serde_json::from_slice(&answer.body).expect("agents are told as JSON");
    let agents = view["agents"].as_array().expect("a list of agents");
    agents.iter().filter(|agent| agent["ready"] == true).count()
}

/// From the start of the program to its first good answer, with 100,000 jobs in the store.
pub fn start() {
    e2e::run("bench-start", |site| {
        site.expect_warning("");
        let orchestrator = site.orchestrator().start();
        let _agent = site.agent("a").service("echo").start();
        one_job(&orchestrator);
        let store = orchestrator.config_file().with_file_name("data").join("jobs.sqlite");
        let orchestrator = started(orchestrator, "SQLite, 1 stored job");
        let fill = root().join("tests/bench/fill.py");
        let filled = Command::new("python3").arg(fill).arg(&store).arg(STORED.to_string()).output();
        match filled {
            Ok(output) if output.status.success() => {
                started(orchestrator, &format!("SQLite, {STORED} stored jobs"));
            }
            Ok(output) => panic!("{}", String::from_utf8_lossy(&output.stderr)),
            Err(error) => skip("start", &format!("no python3 to fill the store with: {error}")),
        }
    });
    let postgres = match Postgres::start() {
        Ok(postgres) => postgres,
        Err(why) => return skip("start with PostgreSQL", why),
    };
    let Some(prosody) = Prosody::start() else { return skip("start", "prosody is not installed") };
    e2e::run_on("bench-start-postgres", Box::new(prosody), |site| {
        site.expect_warning("");
        let orchestrator = site.orchestrator().sharing(&postgres).start();
        let _agent = site.agent("a").service("echo").start();
        one_job(&orchestrator);
        postgres.query(&format!(
            "INSERT INTO jobs (id, process, owner, created, state, finished, version, document, node)
             SELECT new.id, process, owner, created, state, finished, version, replace(document, jobs.id, new.id), node
             FROM jobs, (SELECT gen_random_uuid()::text AS id FROM generate_series(2, {STORED})) AS new"
        ));
        started(orchestrator, &format!("PostgreSQL, {STORED} stored jobs"));
    });
}

fn one_job(orchestrator: &Orchestrator<'_>) {
    orchestrator.wait_for(&["demo:Echo"]);
    let mut wps = orchestrator.wps();
    let job = wps.submit(&Execute::new("demo:Echo").literal("text", "x").stored());
    assert_eq!(wps.wait(&job), Status::Succeeded);
}

fn started<'a>(mut orchestrator: Orchestrator<'a>, what: &str) -> Orchestrator<'a> {
    let mut times = Vec::new();
    for _ in 0..3 {
        let begun;
        (orchestrator, begun) = orchestrator.kill_and_restart_timed();
        times.push(begun);
    }
    times.sort();
    let seconds = |n: usize| times[n].as_secs_f64();
    tell(&format!("start to the first good answer, {what}: {:.2} to {:.2} s", seconds(0), seconds(2)));
    orchestrator
}
