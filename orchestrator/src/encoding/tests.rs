//! The fault table and the small helpers.

use super::*;

#[test]
fn each_mismatch_blames_the_right_thing() {
    let unknown = Mismatch::UnknownInput { process: "a:b".into(), input: "x".into(), known: "y".into() };
    let fault = Fault::from(unknown);
    assert_eq!((fault.kind.wps1(), fault.locator.as_deref()), (("InvalidParameterValue", 400), Some("x")));
    let fault = Fault::from(Mismatch::MissingInput { input: "x".into(), min: 1 });
    assert_eq!((fault.kind.wps1(), fault.locator.as_deref()), (("MissingParameterValue", 400), Some("x")));
    let fault = Fault::from(Mismatch::RawNeedsOne("a, b".into()));
    assert_eq!(fault.kind.wps1().0, "InvalidParameterValue");
}

#[test]
fn an_agent_may_blame_an_input() {
    use wps_remote_protocol::{ErrorKind, ExecutionError};
    let blame = |code: &str| {
        let kind = ErrorKind::InvalidInput { code: code.into(), locator: "x".into() };
        Fault::of_failure(&Failure::Execution(ExecutionError { kind, text: "why".into(), receipt: None }))
    };
    assert_eq!(blame("MissingParameterValue").kind.wps1().0, "MissingParameterValue");
    assert_eq!(blame("InvalidParameterValue").kind.wps1().0, "InvalidParameterValue");
    assert_eq!(blame("anything").locator.as_deref(), Some("x"));
    let crash = Fault::of_failure(&Failure::NoAgent);
    assert_eq!((crash.kind.wps1(), crash.locator), (("NoApplicableCode", 500), None));
}

#[test]
fn times_are_utc_with_milliseconds() {
    assert_eq!(iso_time(Timestamp(1_763_784_000_007)), "2025-11-22T04:00:00.007Z");
    assert_eq!(iso_time(Timestamp(0)), "1970-01-01T00:00:00.000Z");
    assert_eq!(iso_time(Timestamp(u64::MAX)), "9999-12-31T23:59:59.999Z");
}

#[test]
fn texts_of_clients_are_clipped_at_characters() {
    assert_eq!(clip("äöü", 2), "äö…");
    assert_eq!(clip("äöü", 3), "äöü");
}
