//! Chaos: real orchestrators, agents, an XMPP server and a database under load, while one of them after the other is killed, halted
//! or cut off, and brought back. Afterwards every job that a client was promised must have ended once, as its program did.
//!
//! ```sh
//! cargo run -p e2e --bin chaos -- --help
//! ```

mod client;
mod fault;
mod report;
mod scene;
mod service;

use std::time::{Duration, Instant};

pub use report::Report;

use crate::random::Random;
use crate::xmpp::{Ejabberd, Prosody};
use crate::{Site, tell};
use client::World;
use scene::Scene;

/// Longest time until everything has ended after the last fault.
const SETTLE: Duration = Duration::from_secs(180);

/// Which XMPP server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Xmpp {
    /// The one in the orchestrator: for one orchestrator only.
    Embedded,
    /// Prosody.
    Prosody,
    /// ejabberd.
    Ejabberd,
}

/// What is to happen.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Fewest jobs that are accepted.
    pub jobs: usize,
    /// Fewest faults.
    pub faults: usize,
    /// Orchestrators: several share a PostgreSQL, a single one has SQLite.
    pub nodes: usize,
    /// Agents.
    pub agents: usize,
    /// Clients, each with several jobs at once.
    pub clients: usize,
    /// The XMPP server.
    pub xmpp: Xmpp,
    /// Orchestrators are killed, and nothing else happens.
    pub kills_only: bool,
    /// Pause between two faults, in milliseconds, from and to.
    pub pause_ms: (u64, u64),
    /// Longest fault, in milliseconds.
    pub longest_ms: u64,
    /// When it all counts as stuck.
    pub limit: Duration,
    /// Of all that is random.
    pub seed: u64,
}

impl Plan {
    /// Two orchestrators on PostgreSQL, three agents, faults of all kinds.
    pub fn cluster(xmpp: Xmpp, jobs: usize, seed: u64) -> Self {
        Self {
            jobs,
            faults: jobs / 20,
            nodes: 2,
            agents: 3,
            clients: 8,
            xmpp,
            kills_only: false,
            pause_ms: (500, 4_000),
            longest_ms: 22_000,
            limit: Duration::from_secs(240 + jobs as u64),
            seed,
        }
    }

    /// One orchestrator on SQLite that is killed so many times, while jobs run.
    pub fn single(kills: usize, seed: u64) -> Self {
        Self {
            jobs: kills,
            faults: kills,
            nodes: 1,
            agents: 2,
            clients: 4,
            xmpp: Xmpp::Embedded,
            kills_only: true,
            pause_ms: (50, 4_000),
            longest_ms: 50,
            limit: Duration::from_secs(120 + 5 * kills as u64),
            seed,
        }
    }
}

/// Carries a plan out on a site of its own; the report if all is well, or what this machine lacks.
///
/// # Errors
/// What is not installed here.
///
/// # Panics
/// If anything of what clients were promised did not come true: with the report, and the folder with all logs is kept. Or if
/// programs cannot be started at all, or something of them is left behind.
pub fn run(name: &str, plan: &Plan) -> Result<Report, &'static str> {
    let mut report = None;
    let mut story = |site: &Site| report = Some(happen(site, plan));
    match plan.xmpp {
        Xmpp::Embedded => crate::run(name, |site| story(site)),
        Xmpp::Prosody => {
            let server = Prosody::start().ok_or("prosody is not installed")?;
            crate::run_on(name, Box::new(server), |site| story(site));
        }
        Xmpp::Ejabberd => {
            let server = Ejabberd::start().ok_or("ejabberd is not installed")?;
            crate::run_on(name, Box::new(server), |site| story(site));
        }
    }
    report.unwrap_or(Err("nothing happened"))
}

fn happen(site: &Site, plan: &Plan) -> Result<Report, &'static str> {
    let begun = Instant::now();
    let mut random = Random::new(plan.seed);
    let mut scene = Scene::set(site, plan)?;
    let world = World::new(scene.addresses(), plan.clone());
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..plan.clients)
            .map(|n| {
                let world = &world;
                scope.spawn(move || client::serve(world, n))
            })
            .collect();
        let mut next = Instant::now() + random.pause(plan.pause_ms.0, plan.pause_ms.1);
        let mut told = Instant::now();
        while (world.accepted() < plan.jobs || scene.faults() < plan.faults) && begun.elapsed() < plan.limit {
            if Instant::now() >= next {
                scene.strike(&mut random, begun.elapsed());
                next = Instant::now() + random.pause(plan.pause_ms.0, plan.pause_ms.1);
            }
            scene.tend();
            if told.elapsed() > Duration::from_secs(30) {
                told = Instant::now();
                let (accepted, ended) = (world.accepted(), world.ended());
                tell(&format!(
                    "after {} s: {} faults, {accepted} jobs accepted, {ended} ended",
                    begun.elapsed().as_secs(),
                    scene.faults()
                ));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        scene.heal();
        world.enough();
        let last = Instant::now();
        while clients.iter().any(|client| !client.is_finished()) {
            scene.tend();
            if last.elapsed() > SETTLE {
                world.give_up();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    });
    let unsettled = scene.settle(SETTLE);
    let report = report::judge(&world, &mut scene, unsettled, begun.elapsed());
    assert!(report.is_good(), "{report}");
    Ok(report)
}
