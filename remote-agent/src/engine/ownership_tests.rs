//! Whose an execution is, and who is told its ending when orchestrators take jobs over from each other.

use super::tests::{World, failed, id, peer, s};
use super::*;

#[test]
fn only_the_orchestrator_of_an_execution_can_say_that_nobody_waits_for_it() {
    let mut world = World::invited(&[("p", 1.0)]);
    world.run("e1", "p");
    world.engine.disowned(&peer("o"), &id("e1"), &mut world.out);
    world.nothing_else();
    world.happened("e1", Event::Ended(failed()));
    world.expect(&["o: error e1", "announce"]);
    world.engine.disowned(&peer("other"), &id("e1"), &mut world.out);
    world.nothing_else();
    world.engine.disowned(&peer("o"), &id("e1"), &mut world.out);
    world.expect(&["release e1"]);
}

#[test]
fn an_ending_whose_orchestrator_has_lost_the_job_is_told_to_everybody_there() {
    let mut world = World::invited(&[("p", 1.0)]);
    world.run("e1", "p");
    // The heir claims it; the one that it was taken from does not know that yet and claims it once more.
    world.claim("heir", &["e1"]);
    world.claim("o", &["e1"]);
    world.out.clear();
    world.elsewhere("o", "e1");
    world.nothing_else();
    world.happened("e1", Event::Ended(failed()));
    world.expect(&["o: error e1", "announce"]);
    // Only the word of the one that was told counts.
    world.elsewhere("heir", "e1");
    world.nothing_else();
    world.elsewhere("o", "e1");
    world.expect(&["heir: error e1", "o: error e1"]);
    // Said again it hurries nothing: an heir that is not there yet is waited for with growing pauses.
    world.elsewhere("o", "e1");
    world.nothing_else();
    world.now = s(2);
    world.tick();
    world.expect(&["heir: error e1", "o: error e1"]);
    world.invite("late");
    world.expect(&[
        "late: executions [e1]",
        "late: register test:p",
        "late: load 0",
        "heir: error e1",
        "late: error e1",
        "o: error e1",
    ]);
    // Whoever claims it is told again alone, and who has lost it can still say that there is no such job any more.
    world.claim("heir", &["e1"]);
    world.expect(&["heir: executions [e1]", "heir: register test:p", "heir: load 0", "heir: error e1"]);
    world.elsewhere("heir", "e1");
    world.expect(&["heir: error e1", "late: error e1", "o: error e1"]);
    world.engine.disowned(&peer("heir"), &id("e1"), &mut world.out);
    world.expect(&["release e1"]);
}

#[test]
fn a_claimed_execution_belongs_to_another_orchestrator_and_an_unknown_one_never_starts() {
    let mut world = World::invited(&[("p", 1.0)]);
    world.invite("heir");
    world.run("e1", "p");
    // The first one is still there, but it has lost the job to the other.
    world.claim("heir", &["e1", "e2"]);
    world.expect(&[
        "heir: executions [e1] not [e2]",
        "heir: register test:p",
        "heir: load 1",
        "heir: started e1",
    ]);
    world.happened("e1", Event::Ended(failed()));
    world.expect(&["heir: error e1", "announce"]);
    // The request of the one that died arrives after all.
    assert!(world.request("e2", "p").is_err());
    world.nothing_else();
}
