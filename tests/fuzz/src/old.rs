//! What strangers in the rooms of the old dialect can send: pickles and bodies.

use std::time::{Duration, Instant};

use wps_remote_protocol::legacy::{Occupant, Order, Report, from_pickle};
use wps_remote_protocol::pickle;

/// No pickle takes long, and what was read means the same when it is written and read again.
pub fn pickle(data: &[u8]) {
    let begun = Instant::now();
    let read = pickle::read(data);
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    if let Ok(value) = read {
        // Compared as text: a number that is none equals nothing, not even itself.
        let again = pickle::read(&pickle::write(&value));
        assert_eq!(format!("{again:?}"), format!("{:?}", Ok::<_, pickle::PickleError>(&value)));
        let _ = from_pickle(&value, None);
    }
}

/// What was understood is written so that it is understood again, and without what either old reader stumbles over.
pub fn legacy_body(data: &[u8]) {
    let Ok(body) = std::str::from_utf8(data) else { return };
    let _ = Occupant::read(body);
    if let Ok(report) = Report::decode(body) {
        if let Report::Register(registration) = &report {
            let _ = registration.describe();
        }
        let written = report.encode();
        let again = Report::decode(&written).expect("what we write can be read");
        assert_eq!(again.encode(), written);
    }
    if let Ok(order) = Order::decode(body) {
        let written = order.encode();
        assert!(
            written.is_ascii() && written.split('&').all(|part| part.matches('=').count() == 1),
            "{written}"
        );
        assert_eq!(Order::decode(&written).expect("what we write can be read").encode(), written);
    }
}
