//! Orchestrators of both dialects at one engine: shared capacity, and jobs that are nobody else's.

use super::tests::{World, failed, id, peer, s, settings};
use super::*;

const GEOSERVER: &str = "default@conference.example.org/admin@example.org";
const OTHER: &str = "default@conference.example.org/other@example.org";

fn ask(world: &mut World, from: &str, execution: &str) -> Result<Answer, Refusal> {
    let process = ProcessId::new("test", "heavy").unwrap();
    let request = Request { execution: id(execution), process, inputs: vec![], base_url: String::new() };
    world.engine.request(peer(from), request, world.now, &mut world.out)
}

fn both() -> World {
    let mut world = World::new(settings(), &[("heavy", 60.0)]);
    world.invite("o");
    world.invite(GEOSERVER);
    world.out.clear();
    world
}

#[test]
fn capacity_is_shared_by_both_dialects() {
    let mut world = both();
    assert_eq!(ask(&mut world, GEOSERVER, "g1"), Ok(Answer::Later));
    assert_eq!(ask(&mut world, "o", "n1").unwrap_err().reason, RefusalReason::Capacity);
    world.happened("g1", Event::Ended(failed()));
    // What was refused is sent again under another name.
    assert_eq!(ask(&mut world, "o", "n2"), Ok(Answer::Later));
    assert_eq!(ask(&mut world, GEOSERVER, "g2").unwrap_err().reason, RefusalReason::Capacity);
}

#[test]
fn endings_of_one_dialect_never_go_to_the_other() {
    let mut world = both();
    ask(&mut world, GEOSERVER, "g1").unwrap();
    world.out.clear();
    world.engine.peer_left(&peer(GEOSERVER));
    world.happened("g1", Event::Ended(failed()));
    assert!(!world.taken().iter().any(|line| line.contains("error")), "the native one is not told");
    world.invite(OTHER);
    assert!(!world.taken().iter().any(|line| line.contains("error")), "nor is another GeoServer");
    world.now += s(5);
    world.invite(GEOSERVER);
    assert!(world.taken().contains(&format!("{GEOSERVER}: error g1")));

    ask(&mut world, "o", "n1").unwrap();
    world.engine.offline();
    world.out.clear();
    world.happened("n1", Event::Ended(failed()));
    world.now += s(5);
    world.tick();
    assert!(!world.taken().iter().any(|line| line.contains("error n1")), "GeoServer is not told of it");
}

#[test]
fn nobody_takes_over_the_execution_of_a_geoserver() {
    let mut world = both();
    ask(&mut world, GEOSERVER, "g1").unwrap();
    world.out.clear();
    for stranger in ["o", OTHER] {
        assert_eq!(ask(&mut world, stranger, "g1").unwrap_err().reason, RefusalReason::Undeliverable);
    }
    world.claim("o", &["g1"]);
    assert!(world.taken().contains(&"o: executions [g1] not [g1]".to_owned()));
    world.happened("g1", Event::Started);
    assert_eq!(world.taken()[0], format!("{GEOSERVER}: started g1"));
}

#[test]
fn a_lost_management_room_is_not_a_lost_geoserver() {
    let mut world = both();
    ask(&mut world, GEOSERVER, "g1").unwrap();
    world.out.clear();
    world.engine.offline();
    world.happened("g1", Event::Ended(failed()));
    assert!(world.taken().contains(&format!("{GEOSERVER}: error g1")));
}

#[test]
fn an_ending_that_no_geoserver_comes_for_is_given_up() {
    let mut world = both();
    ask(&mut world, GEOSERVER, "g1").unwrap();
    ask(&mut world, "o", "n1").unwrap_err();
    world.engine.peer_left(&peer(GEOSERVER));
    world.happened("g1", Event::Ended(failed()));
    world.out.clear();
    world.now += s(3599);
    world.tick();
    world.nothing_else();
    world.now += s(1);
    world.tick();
    world.expect(&["give up g1"]);
    assert_eq!(ask(&mut world, GEOSERVER, "g1"), Ok(Answer::Known), "it is never started again");
}
