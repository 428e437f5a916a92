//! Documents of every state, held against golden files and the standard's schemas.

use std::sync::Arc;

use wps_remote_protocol::{Content, Output, SharedFile};

use super::super::super::fixtures::{self, everything, execution, golden, job, valid, waiting};
use super::super::super::ows::{self, ServiceInfo};
use super::super::super::{Face, FaultKind};
use super::super::offerings;
use super::*;
use crate::engine::job::{Failure, OutputRequest};

const NOW: Timestamp = Timestamp(1_763_784_060_000);

fn running(percent: u8) -> JobState {
    JobState::Running { execution: execution(), percent, message: String::new(), lost_since: None }
}

fn successful() -> JobState {
    let complex = |content| Value::Complex { content, media_type: String::new(), schema: None };
    let file = SharedFile { path: format!("{}/result1/lines.zip", fixtures::id()), bytes: 3, sha256: None };
    let outputs = [
        ("result1", complex(Content::Shared(file))),
        ("gml", complex(Content::Text("<?xml version=\"1.0\"?><g:P xmlns:g=\"urn:g\"/>".into()))),
        ("count", Value::literal("42")),
        (
            "extent",
            Value::BoundingBox(BoundingBox { crs: None, lower: vec![-1.5, 2.0], upper: vec![3.0, 4.25] }),
        ),
    ];
    JobState::Successful {
        outputs: outputs.into_iter().map(|(id, value)| Output::new(id, value)).collect(),
        finished: Timestamp(1_763_784_009_000),
    }
}

fn check(name: &str, document: &str) {
    golden(&format!("wps2/{name}.xml"), document);
    valid(document);
}

#[test]
fn every_state_is_a_valid_status() {
    let status = |state: JobState| {
        let mut job = job(everything(), state);
        job.started = Some(Timestamp(1_763_784_030_000));
        status_info(&job, Status::Actual, Some(NOW))
    };
    check("accepted", &status(waiting()));
    check("running", &status(running(40)));
    check("dismissing", &status(JobState::Dismissing { execution: execution(), since: Timestamp(1) }));
    check("succeeded", &status(successful()));
    check("failed", &status(JobState::Failed { failure: Failure::NoAgent, finished: Timestamp(9) }));
    check("dismissed", &status(JobState::Dismissed { finished: Timestamp(9), receipt: None }));
    // 40 % in 30 s leave 45 s.
    let text = status(running(40));
    assert!(text.contains("<wps:EstimatedCompletion>2025-11-22T04:01:45.000Z<"), "{text}");
    assert!(!status(running(0)).contains("EstimatedCompletion"));
}

#[test]
fn an_ended_job_tells_until_when_it_is_kept() {
    let mut job = job(everything(), successful());
    job.expires = Some(NOW.plus_ms(86_400_000));
    let line = format!("<wps:ExpirationDate>{}</wps:ExpirationDate>", iso_time(NOW.plus_ms(86_400_000)));
    let status = status_info(&job, Status::Actual, Some(NOW));
    check("status-expiring", &status);
    assert!(status.contains(&line), "{status}");
    assert!(result(&job, "http://h/outputs", &Files::default()).contains(&line));
    job.state = running(3);
    assert!(!status_info(&job, Status::Actual, Some(NOW)).contains("ExpirationDate"));
}

#[test]
fn the_answer_to_an_asynchronous_execute_says_accepted_whatever_has_happened() {
    let text = status_info(&job(everything(), successful()), Status::Accepted, Some(NOW));
    assert!(text.contains("<wps:Status>Accepted</wps:Status>"), "{text}");
    let text = status_info(&job(everything(), running(3)), Status::Dismissed, None);
    assert!(text.contains("<wps:Status>Dismissed</wps:Status>") && !text.contains("NextPoll"), "{text}");
}

#[test]
fn results_by_value_and_by_reference() {
    let files = Files::from([(format!("{}/result1/lines.zip", fixtures::id()), vec![1, 2, 3])]);
    let mut done = job(everything(), successful());
    check("result-value", &result(&done, "http://h/outputs", &files));
    let request = |id: &str| OutputRequest { id: id.into(), as_reference: true, ..OutputRequest::default() };
    done.form.outputs = ["count", "result1", "extent"].map(request).into();
    check("result-reference", &result(&done, "http://h/outputs", &files));
}

#[test]
fn raw_literals_and_boxes_are_documents_of_their_own() {
    let done = job(everything(), successful());
    let documents: Vec<_> = delivery::deliveries(&done).iter().map(raw_document).collect();
    assert_eq!((&documents[0], &documents[1]), (&None, &None));
    let literal = documents[2].as_deref().unwrap();
    assert!(
        literal.contains("<wps:LiteralValue xmlns:wps=\"http://www.opengis.net/wps/2.0\"")
            && literal.contains(">42<")
    );
    valid(
        &literal
            .replace("<wps:LiteralValue ", "<wps:LiteralValue xmlns:ows=\"http://www.opengis.net/ows/2.0\" "),
    );
    assert!(documents[3].as_deref().unwrap().contains("crs=\"EPSG:4326\""), "the declared system stands in");
}

#[test]
fn capabilities_and_offerings_are_valid() {
    let mut odd = fixtures::contour();
    odd.version = "v3-beta".into();
    odd.keywords = vec!["a".into(), "b & c".into()];
    let processes = [Arc::new(everything()), Arc::new(odd)];
    let info =
        ServiceInfo { contact: "A. Person".into(), email: "a@example.org".into(), ..ServiceInfo::default() };
    check("capabilities", &offerings::capabilities(&info, "http://h/wps", 7, processes.iter()));
    let text = offerings::offerings(&processes);
    check("offerings", &text);
    for part in
        ["<wps:LiteralData>", "<wps:ComplexData>", "<wps:BoundingBoxData>", "processVersion=\"0.0.0\""]
    {
        assert!(text.contains(part), "{part}");
    }
}

#[test]
fn reports_are_in_the_words_of_this_version() {
    let text = ows::exception_report(&Fault::at(FaultKind::NoSuchInput, "a<b", "no input `a<b`"), Face::Wps2);
    check("exception", &text);
    let missing = ows::exception_report(&Fault::no_such_job("x"), Face::Wps2);
    assert!(missing.contains("exceptionCode=\"NoSuchJob\" locator=\"JobID\""), "{missing}");
    valid(&missing);
}
