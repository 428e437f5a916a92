//! What refusals and silence of agents mean.

use super::*;

#[test]
fn what_a_room_says_of_an_agent_that_has_gone_is_not_the_agents_word() {
    let said = |condition: &str, by_peer| {
        let error = StanzaError { by_peer, ..StanzaError::new(condition, "") };
        refusal(&RequestError::Refused(error)).map(|refusal| refusal.reason)
    };
    assert_eq!(said("item-not-found", true), Some(RefusalReason::NoSuchProcess));
    assert_eq!(said("item-not-found", false), Some(RefusalReason::Capacity), "it still offers the process");
    assert_eq!(said("service-unavailable", true), Some(RefusalReason::Draining));
    assert_eq!(said("service-unavailable", false), None, "the request may have arrived");
}

#[test]
fn only_heartbeats_in_a_row_tell_that_an_agent_is_gone() {
    let mut agent = Present {
        instance: String::new(),
        former: Vec::new(),
        software: String::new(),
        account: None,
        appearance: 1,
        misses: 0,
        silent: false,
        endings: HashMap::new(),
    };
    assert!((0..500).all(|_| !agent.counts_as_gone(false, true)), "late answers to a burst");
    assert!(!agent.counts_as_gone(true, true));
    assert!(!agent.counts_as_gone(false, false), "any answer tells that it is there");
    assert!(!agent.counts_as_gone(true, true));
    assert!(!agent.counts_as_gone(false, true));
    assert!(agent.counts_as_gone(true, true));
}
