//! The short form of the chaos, see `chaos/main.rs` for the long one: everything is killed, halted or cut off in the middle of
//! work, and every job that a client was promised ends once, as its program did.

use e2e::chaos::{self, Plan, Xmpp};
use e2e::random::seed;

fn survives(name: &str, plan: Plan) {
    e2e::tell(&format!("{name}: WPS_TEST_SEED={}", plan.seed));
    match chaos::run(name, &plan) {
        Ok(report) => e2e::tell(&report.to_string()),
        Err(why) => e2e::skip(name, why),
    }
}

#[test]
fn two_orchestrators_on_postgres_survive_everything() {
    let plan =
        Plan { pause_ms: (200, 2_000), longest_ms: 4_000, ..Plan::cluster(Xmpp::Prosody, 200, seed()) };
    survives("chaos-cluster", plan);
}

#[test]
fn an_orchestrator_on_sqlite_is_killed_again_and_again() {
    survives("chaos-single", Plan::single(30, seed()));
}
