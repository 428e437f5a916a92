//! What a job costs to be accepted durably, in SQLite and in PostgreSQL, and how soon another orchestrator has the jobs of one
//! that died.

use std::time::{Duration, Instant};

use e2e::client::Execute;
use e2e::postgres::Postgres;
use e2e::xmpp::Prosody;
use e2e::{Site, skip, tell, wait_until};

use super::{SLEEP, parallel};

const LONG: Duration = Duration::from_secs(60);
/// Nodes that die, one after the other.
const DEATHS: usize = 5;
/// An agent that offers its processes and runs none.
const NOTHING: &str = "capacity = 0";

/// Jobs per second from 16 clients. The agent takes none, so the jobs wait: what is measured is their way into the store.
pub fn accepted(count: usize) {
    let all = |site: &Site, what: &str, postgres: Option<&Postgres>| {
        site.expect_warning("");
        let builder = site.orchestrator().config("[limits]\nmax_queued = 1000000");
        let orchestrator = match postgres {
            Some(postgres) => builder.sharing(postgres).start(),
            None => builder.start(),
        };
        let agent = site.agent("a").config(NOTHING).file("sleep.ini", SLEEP).start();
        orchestrator.wait_for(&["bench:Sleep"]);
        let address = orchestrator.address();
        let stored = Execute::new("bench:Sleep").stored();
        let measured = parallel(16, count, |client| drop(client.wps(address).submit(&stored)));
        measured.print(&format!("accepted durably, {what}, 16 clients"), None);
        drop(agent);
    };
    e2e::run("bench-sqlite", |site| all(site, "SQLite", None));
    match Postgres::start() {
        Ok(postgres) => e2e::run("bench-postgres", |site| all(site, "PostgreSQL", Some(&postgres))),
        Err(why) => skip("accepted durably, PostgreSQL", why),
    }
}

/// From `kill -9` of a node to the moment at which another has its 50 jobs.
pub fn adoption() {
    let postgres = match Postgres::start() {
        Ok(postgres) => postgres,
        Err(why) => return skip("adoption", why),
    };
    let Some(prosody) = Prosody::start() else { return skip("adoption", "prosody is not installed") };
    e2e::run_on("bench-adoption", Box::new(prosody), |site| {
        site.expect_warning("");
        let heir = site.orchestrator().named("heir").sharing(&postgres).start();
        let _agent = site.agent("a").config(NOTHING).file("sleep.ini", SLEEP).start();
        heir.wait_for(&["bench:Sleep"]);
        let mut times = Vec::new();
        for n in 1..=DEATHS {
            let dies = site.orchestrator().named(&format!("dies{n}")).sharing(&postgres).start();
            dies.wait_for(&["bench:Sleep"]);
            let mut wps = dies.wps();
            for _ in 0..50 {
                wps.submit(&Execute::new("bench:Sleep").stored());
            }
            dies.kill();
            let begun = Instant::now();
            let taken = || heir.program().log().matches("are taken over jobs=50").count() >= n;
            let adopted = wait_until(LONG, || taken().then(|| begun.elapsed()));
            times.push(adopted.expect("the jobs are taken over"));
        }
        times.sort();
        tell(&format!(
            "adoption of 50 jobs after the death of a node, lease 2 s: {:.2} to {:.2} s, median {:.2} s",
            times[0].as_secs_f64(),
            times[DEATHS - 1].as_secs_f64(),
            times[DEATHS / 2].as_secs_f64()
        ));
    });
}
