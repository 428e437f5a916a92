//! WPS 2.0.2 over HTTP: every operation, mode and form of answer, as the conformance suite and clients ask for them.

use std::time::Duration;

use wps_remote_protocol::{Output, Value};

use super::world::{World, world};
use super::wps::{at_once, done, never};
use crate::encoding::fixtures::execution;
use crate::engine::job::{Failure, JobState, Timestamp};
use crate::http::HttpConfig;

const HEAD: &str = r#"service="WPS" version="2.0.0" xmlns:wps="http://www.opengis.net/wps/2.0" xmlns:ows="http://www.opengis.net/ows/2.0""#;

fn execute(attributes: &str, inside: &str) -> String {
    format!(
        "<wps:Execute {HEAD} {attributes}><ows:Identifier>test:Everything</ows:Identifier>{inside}</wps:Execute>"
    )
}

fn with_job(operation: &str, id: impl std::fmt::Display) -> String {
    format!("<wps:{operation} {HEAD}><wps:JobID>{id}</wps:JobID></wps:{operation}>")
}

fn by_query(operation: &str, id: impl std::fmt::Display) -> String {
    format!("/wps?SERVICE=WPS&VERSION=2.0.0&REQUEST={operation}&JOBID={id}")
}

const COUNT: &str = "<wps:Output id='count'/>";

async fn plain(plan: impl Fn(&crate::engine::job::Job) -> Option<JobState> + Send + Sync + 'static) -> World {
    world(HttpConfig::default(), plan).await
}

#[tokio::test]
async fn versions_are_told_apart_on_one_address() {
    let world = plain(never).await;
    for path in [
        "/wps?service=WPS&request=GetCapabilities&AcceptVersions=2.0.0",
        "/wps?service=WPS&request=GetCapabilities&AcceptVersions=9.9.9,2.0.0,1.0.0",
        "/wps?Service=WPS&Request=GetCapabilities&Version=2.0.0",
        "/wps/2.0.0?service=WPS&request=GetCapabilities",
        "/ows?service=wps&request=getcapabilities&version=2.0.0",
    ] {
        let answer = world.get(path).await;
        assert!(answer.xml(200).contains("<wps:Contents>"), "{path}");
    }
    for path in [
        "/wps?service=WPS&request=GetCapabilities",
        "/wps?service=WPS&request=GetCapabilities&AcceptVersions=1.0.0,2.0.0",
        "/wps/2.0.0?service=WPS&request=GetCapabilities&version=1.0.0",
    ] {
        assert!(world.get(path).await.xml(200).contains("<wps:ProcessOfferings>"), "{path}");
    }
    let bare = "<wps:GetCapabilities service='WPS' xmlns:wps='http://www.opengis.net/wps/2.0'/>";
    assert!(world.post("/wps", bare).await.xml(200).contains("<wps:Contents>"));
    let wrong = world.get("/wps/2.0.0?service=WPS&request=GetCapabilities&AcceptVersions=3.0.0").await;
    assert!(wrong.exception(400, "VersionNegotiationFailed", "AcceptVersions").contains("ows/2.0"));
    let describe = world.get("/wps?Service=WPS&Version=2.0.0&Request=DescribeProcess&Identifier=ALL").await;
    assert_eq!(describe.xml(200).matches("<wps:ProcessOffering ").count(), 2);
    let none = world.get("/wps?Service=WPS&Version=2.0.0&Request=DescribeProcess&Identifier=a:b").await;
    none.exception(400, "NoSuchProcess", "a:b");
}

#[tokio::test]
async fn synchronous_answers() {
    let world = plain(at_once).await;
    let document = world.post("/wps", &execute("mode='sync' response='document'", "")).await;
    assert!(document.xml(200).contains("<wps:Result ") && document.text().contains("<wps:LiteralValue "));
    let raw = world.post("/wps", &execute("mode='sync' response='raw'", COUNT)).await;
    assert!(raw.text().contains(">42</wps:LiteralValue>"));
    assert_eq!(raw.header("content-type"), "text/xml");
    let text = world
        .post(
            "/wps",
            &execute("mode='sync' response='raw'", "<wps:Output id='count' mimeType='text/plain'/>"),
        )
        .await;
    assert_eq!((text.text(), text.header("content-type")), ("42", "text/plain; charset=utf-8"));
    let reference = world
        .post("/wps", &execute("mode='sync'", "<wps:Output id='count' transmission='reference'/>"))
        .await;
    assert!(reference.xml(200).contains("<wps:Reference "));
    assert_eq!(world.get(&reference.link("xlink:href", &world)).await.text(), "42");
    let many = world.post("/wps", &execute("mode='sync' response='raw'", "")).await;
    many.exception(400, "TooManyOutputs", "result1, gml, count, extent");
}

#[tokio::test]
async fn an_asynchronous_job_from_acceptance_to_release() {
    let world = plain(never).await;
    let accepted = world.post("/wps", &execute("mode='async' response='document'", "")).await;
    assert!(
        accepted.xml(200).contains("<wps:Status>Accepted</wps:Status>")
            && accepted.text().contains("NextPoll")
    );
    let id = world.newest();
    world.post("/wps", &with_job("GetResult", id)).await.exception(400, "ResultNotReady", "JobID");
    let state =
        JobState::Running { execution: execution(), percent: 30, message: String::new(), lost_since: None };
    world.set(id, state).await;
    let status = world.get(&by_query("GetStatus", id)).await;
    assert!(status.xml(200).contains("<wps:Status>Running</wps:Status>"));
    assert!(status.text().contains("<wps:PercentCompleted>30</wps:PercentCompleted>"));
    // The same job on the other face.
    let old = world
        .get(&format!("/wps?service=WPS&version=1.0.0&request=GetExecutionStatus&executionId={id}"))
        .await;
    assert!(old.xml(200).contains("<wps:ProcessStarted percentCompleted=\"30\">"));
    let output = world.keep(id, "result1", "lines.zip", b"PK", "application/zip");
    world.set(id, done(vec![output, Output::new("count", Value::literal("42"))])).await;
    assert!(world.post("/wps", &with_job("GetStatus", id)).await.xml(200).contains(">Succeeded<"));
    assert!(world.get(&by_query("GetResult", id)).await.xml(200).contains(">42</wps:LiteralValue>"));
    // After a restart as well.
    world.restart();
    assert!(world.get(&by_query("GetResult", id)).await.xml(200).contains(">42</wps:LiteralValue>"));
    assert!(world.post("/wps", &with_job("Dismiss", id)).await.xml(200).contains(">Dismissed<"));
    world.get(&by_query("GetStatus", id)).await.exception(400, "NoSuchJob", "JobID");
    assert!(!world.results.store().join(id.to_string()).exists(), "its results are released");
}

#[tokio::test]
async fn a_running_job_is_dismissed_and_then_unknown() {
    let world = plain(never).await;
    world.post("/wps", &execute("mode='async'", "")).await;
    let id = world.newest();
    assert!(world.get(&by_query("Dismiss", id)).await.xml(200).contains(">Dismissed<"));
    assert_eq!(*world.dismissed.lock().unwrap(), [id]);
    for operation in ["GetStatus", "GetResult", "Dismiss"] {
        world.get(&by_query(operation, id)).await.exception(400, "NoSuchJob", "JobID");
        world.post("/wps", &with_job(operation, id)).await.exception(400, "NoSuchJob", "JobID");
    }
    let other = world
        .get(&format!("/wps?service=WPS&version=1.0.0&request=GetExecutionStatus&executionId={id}"))
        .await;
    assert!(other.xml(200).contains("was dismissed"), "the other face still knows it");
}

#[tokio::test]
async fn a_failure_is_told_by_status_and_result() {
    let world = plain(|_| Some(JobState::Failed { failure: Failure::NoAgent, finished: Timestamp(5) })).await;
    world.post("/wps", &execute("mode='async'", "")).await.xml(200);
    let id = world.newest();
    world.until("the end", |world| world.live.read().unwrap()[&id].borrow().state.is_final()).await;
    assert!(world.get(&by_query("GetStatus", id)).await.xml(200).contains(">Failed<"));
    world.get(&by_query("GetResult", id)).await.exception(500, "InternalServerError", "");
    world.post("/wps", &execute("mode='sync'", "")).await.exception(500, "InternalServerError", "");
}

#[tokio::test]
async fn raw_asynchronous_results_are_raw() {
    let config = HttpConfig { settle: Duration::from_secs(5), ..HttpConfig::default() };
    let world = world(config, at_once).await;
    let accepted = world.post("/wps", &execute("mode='async' response='raw'", COUNT)).await;
    assert!(accepted.xml(200).contains(">Accepted<"), "though it has settled already");
    let result = world.get(&by_query("GetResult", world.newest())).await;
    assert!(result.text().contains("<wps:LiteralValue "), "{}", result.text());
}

#[tokio::test]
async fn auto_is_synchronous_for_the_quick() {
    let world = plain(at_once).await;
    assert!(world.post("/wps", &execute("mode='auto'", "")).await.xml(200).contains("<wps:Result "));
    let slow = plain(never).await;
    assert!(slow.post("/wps", &execute("mode='auto'", "")).await.xml(200).contains(">Accepted<"));
    assert!(slow.dismissed.lock().unwrap().is_empty());
}

#[tokio::test]
async fn exceptions_are_in_the_words_of_this_version() {
    let world = plain(at_once).await;
    let check = async |inside: &str, code: &str, locator: &str| {
        world.post("/wps", &execute("", inside)).await.exception(400, code, locator);
    };
    check("<wps:Input id='what'><wps:Data>1</wps:Data></wps:Input>", "NoSuchInput", "what").await;
    check("<wps:Input id='level'><wps:Data>high</wps:Data></wps:Input>", "WrongInputData", "level").await;
    let loopback = "<wps:Input id='doc'><wps:Reference xlink:href='http://127.0.0.1:1/x' xmlns:xlink='http://www.w3.org/1999/xlink'/></wps:Input>";
    check(loopback, "DataNotAccessible", "doc").await;
    check("<wps:Output id='what'/>", "NoSuchOutput", "what").await;
    check("<wps:Output id='gml' mimeType='image/png'/>", "NoSuchFormat", "gml").await;
    let run = "/wps?service=WPS&version=2.0.0&request=Execute&identifier=test:Everything";
    world.get(run).await.exception(501, "OperationNotSupported", "Execute");
    let head = world.send("HEAD", &by_query("Dismiss", "x"), &[], b"").await;
    assert_eq!(head.status, 400);
    assert!(world.accepted.lock().unwrap().is_empty());
}
