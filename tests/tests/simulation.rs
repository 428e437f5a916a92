//! Both engines in worlds of chance (see `e2e::simulation`): a seeded run, bounded by operations and time; every plan that ever
//! broke an invariant, again; and the proof that a broken rule is noticed.
//!
//! `WPS_SIMULATION_SECONDS` and `WPS_SIMULATION_SEED` make another run of the first test.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, and so do its helpers")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use e2e::simulation::store::{Failed, Store as Model};
use e2e::simulation::{Plan, Sabotage, World, random::Random, run, shrink};
use wps_orchestrator::engine::Accepted;
use wps_orchestrator::engine::job::{Form, Job, JobId, JobState, Timestamp, UserId, Waiting};
use wps_orchestrator::store::{Durability, Lease, Store, StoreError};

/// Operations of one world.
const LENGTH: usize = 300;
/// Operations after which the run ends on a fast machine.
const OPERATIONS: usize = 200_000;

fn seeds() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("simulation/seeds")
}

fn number(name: &str, usual: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

#[test]
fn no_job_is_lost_run_twice_or_ended_twice_whatever_happens() {
    let (first, seconds) = (number("WPS_SIMULATION_SEED", 1), number("WPS_SIMULATION_SECONDS", 60));
    let begun = Instant::now();
    let (mut operations, mut worlds, mut jobs) = (0, 0, 0);
    while operations < OPERATIONS && begun.elapsed() < Duration::from_secs(seconds) {
        let plan = Plan::by_chance(first + worlds, LENGTH);
        let outcome = run(&plan);
        if let Some(violation) = &outcome.violation {
            let small = shrink(&plan, Sabotage::Nothing, violation, 500);
            let text = serde_json::to_string(&small).unwrap();
            let file = std::env::temp_dir().join(format!("wps-simulation-seed-{}.json", plan.seed));
            std::fs::write(&file, &text).unwrap();
            panic!(
                "seed {}: {violation}\n{} operations are needed for it, kept in {}; once it is understood, keep it in tests/simulation/seeds:\n{text}",
                plan.seed,
                small.steps.len(),
                file.display()
            );
        }
        operations += outcome.operations;
        jobs += outcome.endings.values().sum::<u64>();
        worlds += 1;
    }
    e2e::tell(&format!(
        "simulation: seeds {first} to {}, {operations} operations, {jobs} jobs",
        first + worlds - 1
    ));
    assert!(jobs > 100, "almost nothing was simulated");
}

#[test]
fn the_same_plan_makes_the_same_history() {
    let plan = Plan::by_chance(42, LENGTH);
    let once = World::run(&plan, Sabotage::Nothing, true);
    let again = World::run(&plan, Sabotage::Nothing, true);
    assert!(once.trace.len() > 1_000);
    assert_eq!(once.trace, again.trace);
}

#[test]
fn what_broke_an_invariant_once_does_so_no_more() {
    let mut replayed = 0;
    for entry in std::fs::read_dir(seeds()).unwrap() {
        let path = entry.unwrap().path();
        let plan: Plan = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        assert_eq!(run(&plan).violation, None, "{}", path.display());
        replayed += 1;
    }
    assert!(replayed > 0);
}

#[test]
fn a_broken_rule_is_noticed_and_cut_down_to_a_short_story() {
    // Chance meets the late claim too seldom: its kept plan shows it, see below.
    for (name, sabotage) in Sabotage::ALL.into_iter().filter(|(_, rule)| *rule != Sabotage::ForgetTheHeir) {
        let found = (1..400).find_map(|seed| {
            let plan = Plan::by_chance(seed, LENGTH);
            World::run(&plan, sabotage, false).violation.map(|violation| (plan, violation))
        });
        let (plan, violation) = found.unwrap_or_else(|| panic!("`{name}` was not noticed"));
        let small = shrink(&plan, sabotage, &violation, 60);
        assert!(small.steps.len() < plan.steps.len(), "`{name}`: nothing could be left out");
        assert!(
            World::run(&small, sabotage, false).violation.is_some(),
            "`{name}`: the short story is another one"
        );
        e2e::tell(&format!("{name}: seed {}, {} operations: {violation}", plan.seed, small.steps.len()));
    }
}

#[test]
fn a_job_whose_heir_is_not_told_its_ending_is_noticed() {
    let kept = "a-late-claim-of-a-fenced-orchestrator-keeps-no-ending-from-its-heir.json";
    let text = std::fs::read_to_string(seeds().join(kept)).unwrap();
    let plan: Plan = serde_json::from_str(&text).unwrap();
    let violation = World::run(&plan, Sabotage::ForgetTheHeir, false).violation.unwrap_or_default();
    assert!(violation.contains("never ended (running)"), "{violation}");
}

fn job(number: u64, version: u64, state: JobState) -> Job {
    let description = serde_json::from_value(serde_json::json!({
        "id": "a:b", "title": "t", "inputs": [], "outputs": []
    }));
    let new = Accepted {
        id: JobId::new(uuid::Uuid::from_u64_pair(1, number)),
        description: description.unwrap(),
        inputs: vec![],
        form: Form::default(),
        owner: UserId::anonymous(),
        role: None,
        terms: std::sync::Arc::default(),
    };
    Job { state, version, ..new.into_job(Timestamp(1_000 + number)) }
}

/// The simulated store against the real one on SQLite, through the same calls by chance.
#[tokio::test]
async fn the_simulated_store_does_what_the_real_one_does() {
    for seed in 1..=20 {
        let folder = tempfile::tempdir().unwrap();
        let real = Store::sqlite(&folder.path().join("jobs.sqlite"), Durability::Normal).await.unwrap();
        let mut model = Model::default();
        let mut random = Random::new(seed);
        real.enter("n0").await.unwrap();
        let mut lease = model.enter("n0", true);
        // A database leaves numbers out as it likes, but never gives one to two nodes.
        let mut numbers = BTreeMap::new();
        for _ in 0..60 {
            match random.below(9) {
                0..4 => {
                    let state = match random.below(3) {
                        0 => JobState::Dismissed { finished: Timestamp(9), receipt: None },
                        _ => JobState::Accepted { waiting: Waiting::Turn },
                    };
                    let jobs = [job(random.below(6), random.below(5), state)];
                    let saved = match real.save(&jobs).await {
                        Ok(()) => Ok(()),
                        Err(StoreError::Fenced) => Err(Failed::Fenced),
                        Err(error) => panic!("{error}"),
                    };
                    let modelled = model.save(lease, &jobs);
                    // That the job is another node's only PostgreSQL says, see the store's own tests; SQLite has one node. It
                    // is not stored either way, which is compared below.
                    let is_foreign = modelled == Err(Failed::Fenced) && model.holds(lease);
                    if !is_foreign {
                        assert_eq!(saved, modelled, "seed {seed}");
                    }
                }
                4 => {
                    let id = job(random.below(6), 0, JobState::Created).id;
                    real.ask_dismissal(id).await.unwrap();
                    model.ask_dismissal(id);
                }
                5 => {
                    real.leave().await.unwrap();
                    model.leave(lease);
                }
                6 => {
                    let name = ["n0", "n1"][random.below(2) as usize];
                    let entered = real.enter_again(name).await.is_ok();
                    let modelled = model.enter_again(name);
                    assert_eq!(entered, modelled.is_some(), "seed {seed}");
                    lease = modelled.unwrap_or(lease);
                }
                7 => {
                    real.enter("n0").await.unwrap();
                    lease = model.enter("n0", true);
                }
                _ => {
                    let adopted = real.adopt(10).await.unwrap().0;
                    let mut names: Vec<JobId> = adopted.iter().map(|job| job.id).collect();
                    names.sort();
                    let mut modelled: Vec<JobId> = model.adopt(lease, 10).iter().map(|job| job.id).collect();
                    modelled.sort();
                    assert_eq!(names, modelled, "seed {seed}");
                }
            }
            let Lease { id, generation } = real.lease();
            assert_eq!(generation, lease.generation, "seed {seed}");
            assert_eq!(*numbers.entry(id).or_insert(lease.id), lease.id, "seed {seed}");
            compare(&real, &model, lease, seed).await;
        }
        let modelled: BTreeSet<i64> = numbers.values().copied().collect();
        assert_eq!(modelled.len(), numbers.len(), "seed {seed}");
    }
}

async fn compare(real: &Store, model: &Model, lease: Lease, seed: u64) {
    let active = real.active().await.unwrap().0;
    assert_eq!(active, model.active(lease), "seed {seed}");
    let mut asked = real.asked_dismissals().await.unwrap();
    asked.sort();
    let mut modelled = model.asked_dismissals(lease);
    modelled.sort();
    assert_eq!(asked, modelled, "seed {seed}");
    for number in 0..6 {
        let id = job(number, 0, JobState::Created).id;
        assert_eq!(real.load(id).await.unwrap().as_ref(), model.load(id), "seed {seed}");
    }
}
