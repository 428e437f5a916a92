//! WPS 1.0.0 over HTTP: every operation, every form of answer, as clients in use ask for them.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use wps_remote_protocol::{Content, Output, Value};

use super::world::{World, read, world};
use crate::encoding::fixtures::{self, execution};
use crate::engine::job::{Failure, Job, JobState, Timestamp};
use crate::http::HttpConfig;

const HEAD: &str = r#"service="WPS" version="1.0.0" xmlns:wps="http://www.opengis.net/wps/1.0.0" xmlns:ows="http://www.opengis.net/ows/1.1""#;

pub fn done(outputs: Vec<Output>) -> JobState {
    JobState::Successful { outputs, finished: Timestamp(1_763_784_009_000) }
}

fn zip() -> Output {
    let content = Content::Bytes(b"PK\x03\x04\x00".to_vec());
    Output::new("result1", Value::Complex { content, media_type: "application/zip".into(), schema: None })
}

fn count() -> Output {
    Output::new("count", Value::literal("42"))
}

pub fn at_once(_: &Job) -> Option<JobState> {
    Some(done(vec![zip(), count()]))
}

pub fn never(_: &Job) -> Option<JobState> {
    None
}

fn running(percent: u8) -> JobState {
    JobState::Running { execution: execution(), percent, message: String::new(), lost_since: None }
}

/// The document that users of other orchestrators send, with this form of answer.
fn contour(form: &str) -> String {
    format!(
        r#"<?xml version="1.0" encoding="UTF-8"?><wps:Execute {HEAD}><ows:Identifier>default:GdalContour</ows:Identifier><wps:DataInputs><wps:Input><ows:Identifier>interval</ows:Identifier><wps:Data><wps:ComplexData mimeType="application/octet-stream"><![CDATA[150]]></wps:ComplexData></wps:Data></wps:Input></wps:DataInputs><wps:ResponseForm>{form}</wps:ResponseForm></wps:Execute>"#
    )
}

const RAW: &str = r#"<wps:RawDataOutput mimeType="application/octet-stream"><ows:Identifier>result1</ows:Identifier></wps:RawDataOutput>"#;
const STORED: &str = r#"<wps:ResponseDocument storeExecuteResponse="true" status="true" lineage="false"><wps:Output asReference="true"><ows:Identifier>result1</ows:Identifier></wps:Output></wps:ResponseDocument>"#;

async fn plain(plan: impl Fn(&Job) -> Option<JobState> + Send + Sync + 'static) -> World {
    world(HttpConfig::default(), plan).await
}

#[tokio::test]
async fn capabilities_on_every_address_and_by_every_method() {
    let world = plain(never).await;
    for path in ["/wps", "/ows", "/geoserver/ows", "/wps/1.0.0", "/wps/"] {
        let answer = world.get(&format!("{path}?service=wps&request=GetCapabilities&strict=true")).await;
        let text = answer.xml(200);
        assert!(text.contains("<ows:Identifier>default:GdalContour</ows:Identifier>"));
        assert!(text.contains("updateSequence=\"3\""));
        let address = format!("xlink:href=\"http://{}{}?\"", world.address, path.trim_end_matches('/'));
        assert!(text.contains(&address), "{address}\n{text}");
    }
    let document = "<wps:GetCapabilities xmlns:wps='http://www.opengis.net/wps/1.0.0' service='WPS'/>";
    assert!(world.post("/wps", document).await.xml(200).contains("<wps:Capabilities "));
    let head = world.send("HEAD", "/wps?service=WPS&request=GetCapabilities", &[], b"").await;
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert_eq!(head.header("content-type"), "text/xml");
    // A newer catalogue shows at once.
    world.catalogue.send_replace(Arc::new(super::world::catalogue([fixtures::everything()], 4)));
    let text = world.get("/wps?service=WPS&request=GetCapabilities").await;
    assert!(!text.text().contains("GdalContour") && text.text().contains("updateSequence=\"4\""));
    world.get("/wps?service=WPS&request=GetCapabilities&updateSequence=5").await.exception(
        400,
        "InvalidUpdateSequence",
        "updateSequence",
    );
}

#[tokio::test]
async fn a_document_that_the_client_has_is_not_sent_again() {
    let world = plain(never).await;
    for query in [
        "version=1.0.0&request=GetCapabilities",
        "version=2.0.0&request=GetCapabilities",
        "version=1.0.0&request=DescribeProcess&identifier=all",
        "version=2.0.0&request=DescribeProcess&identifier=test:Everything",
    ] {
        let path = format!("/wps?service=WPS&{query}");
        let first = world.get(&path).await;
        first.xml(200);
        let tag = first.header("etag").to_owned();
        let again = world.send("GET", &path, &[("If-None-Match", &tag)], b"").await;
        assert_eq!((again.status, again.body.len(), again.header("etag")), (304, 0, tag.as_str()), "{query}");
        let other = world.send("GET", &path, &[("If-None-Match", "\"x\"")], b"").await;
        assert_eq!(other.xml(200), first.text(), "{query}");
        // A newer catalogue has documents of its own.
        let version = world.catalogue.borrow().version + 1;
        let mut changed = fixtures::everything();
        changed.title = format!("Changed {version}");
        world
            .catalogue
            .send_replace(Arc::new(super::world::catalogue([changed, fixtures::contour()], version)));
        let new = world.send("GET", &path, &[("If-None-Match", &tag)], b"").await;
        assert!(new.xml(200).contains(&format!("Changed {version}")), "{query}");
    }
}

#[tokio::test]
async fn bare_and_wrong_queries_get_reports() {
    let world = plain(never).await;
    world.get("/wps").await.exception(400, "MissingParameterValue", "service");
    world.get("/wps?service=WPS&request=Dance").await.exception(501, "OperationNotSupported", "Dance");
    world.get("/wps?service=WPS&request=GetCapabilities&AcceptVersions=3.0.0,0.0.1").await.exception(
        400,
        "VersionNegotiationFailed",
        "AcceptVersions",
    );
    world.get("/wps?service=WPS&request=DescribeProcess&version=3.0.0&identifier=all").await.exception(
        400,
        "InvalidParameterValue",
        "version",
    );
    world.send("DELETE", "/wps", &[], b"").await.exception(405, "OperationNotSupported", "DELETE");
    world.get("/wps/3.0.0").await.exception(404, "NoApplicableCode", "");
}

#[tokio::test]
async fn descriptions_of_one_some_and_all() {
    let world = plain(never).await;
    let describe = "/wps?service=WPS&version=1.0.0&request=DescribeProcess&identifier=";
    let one = world.get(&format!("{describe}default:GdalContour")).await;
    assert_eq!(one.xml(200).matches("<ProcessDescription ").count(), 1);
    let all = world.get(&format!("{describe}all")).await;
    assert_eq!(all.xml(200).matches("<ProcessDescription ").count(), 2);
    world.catalogue.send_replace(Arc::new(super::world::catalogue([fixtures::everything()], 4)));
    let fewer = world.get(&format!("{describe}all")).await;
    assert_eq!(
        fewer.xml(200).matches("<ProcessDescription ").count(),
        1,
        "what is kept is not older than the catalogue"
    );
    let wrong = world.get(&format!("{describe}test:Everything,no:Such")).await;
    assert!(wrong.exception(400, "InvalidParameterValue", "Identifier").contains("no:Such"));
}

#[tokio::test]
async fn a_synchronous_raw_answer_is_the_bare_result() {
    let world = plain(at_once).await;
    let headers = [("Content-Type", "application/xml"), ("Authorization", "Basic YWRtaW46Z2Vvc2VydmVy")];
    let answer = world.send("POST", "/geoserver/ows?strict=true", &headers, contour(RAW).as_bytes()).await;
    assert_eq!((answer.status, answer.body.as_slice()), (200, b"PK\x03\x04\x00".as_slice()));
    assert_eq!(answer.header("content-type"), "application/octet-stream");
    let query =
        "/wps?service=WPS&version=1.0.0&request=Execute&identifier=test:Everything&RawDataOutput=count";
    let literal = world.get(query).await;
    assert_eq!((literal.text(), literal.header("content-type")), ("42", "text/plain; charset=utf-8"));
    let missing = world.get(&query.replace("=count", "=gml")).await;
    missing.exception(500, "NoApplicableCode", "");
}

#[tokio::test]
async fn a_synchronous_document_holds_the_results() {
    let world = plain(at_once).await;
    for form in ["", "<wps:ResponseDocument/>"] {
        let answer = world.post("/wps", &contour(form)).await;
        let text = answer.xml(200);
        assert!(text.contains("<wps:ProcessSucceeded>"));
        assert!(
            text.contains("<wps:ComplexData mimeType=\"application/zip\" encoding=\"base64\">UEsDBAA=<"),
            "{text}"
        );
        assert!(!text.contains("statusLocation"), "nothing is stored");
    }
}

#[tokio::test]
async fn the_asynchronous_integration_test_of_other_orchestrators_passes() {
    let world = plain(never).await;
    let answer = world.post("/geoserver/ows?strict=true", &contour(STORED)).await;
    assert!(answer.xml(200).contains("<wps:ProcessAccepted>"));
    let location = answer.link("statusLocation", &world);
    assert!(
        location
            .starts_with("/geoserver/ows?service=WPS&version=1.0.0&request=GetExecutionStatus&executionId=")
    );
    let poll = async || {
        let answer = world.send("POST", &location, &[], b"").await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        (answer.attribute("percentCompleted"), answer)
    };
    assert_eq!(poll().await.0, "0");
    world.set(world.newest(), running(37)).await;
    assert_eq!(poll().await.0, "37");
    let text = world.get(&location).await;
    assert!(text.xml(200).contains("<wps:ProcessStarted percentCompleted=\"37\">"));
    let id = world.newest();
    let output = world.keep(id, "result1", "contour.zip", b"PK-content", "application/zip");
    world.set(id, done(vec![output])).await;
    let (percent, answer) = poll().await;
    assert_eq!(percent, "100");
    let download = world.get(&answer.link("href", &world)).await;
    assert_eq!(download.body, b"PK-content");
    assert_eq!(download.header("content-type"), "application/zip");
    // By GET the document is valid: no percentage where the schema has none, the location still there.
    let text = world.get(&location).await;
    assert!(text.xml(200).contains("<wps:ProcessSucceeded>") && text.text().contains("statusLocation="));
}

#[tokio::test]
async fn a_failure_is_a_document_or_a_report() {
    let world = plain(|_| Some(JobState::Failed { failure: Failure::NoAgent, finished: Timestamp(5) })).await;
    let document = world.post("/wps", &contour("")).await;
    assert!(document.xml(200).contains("<wps:ProcessFailed>"));
    let raw = world.post("/wps", &contour(RAW)).await;
    assert!(raw.exception(500, "NoApplicableCode", "").contains("no agent"));
    let id = world.newest();
    let result = world
        .get(&format!("/wps?service=WPS&request=GetExecutionResult&executionId={id}&outputId=result1"))
        .await;
    result.exception(500, "NoApplicableCode", "");
}

#[tokio::test]
async fn what_does_not_fit_is_refused_before_a_job_exists() {
    let world = plain(at_once).await;
    let run = "/wps?service=WPS&version=1.0.0&request=Execute&identifier=";
    let check = async |rest: &str, code: &str, locator: &str| {
        world.get(&format!("{run}{rest}")).await.exception(400, code, locator);
    };
    check("no:Such", "InvalidParameterValue", "Identifier").await;
    check("default:GdalContour", "MissingParameterValue", "interval").await;
    check("test:Everything&DataInputs=what=1", "InvalidParameterValue", "what").await;
    check("test:Everything&DataInputs=level=high", "InvalidParameterValue", "level").await;
    check("test:Everything&DataInputs=level=99999", "InvalidParameterValue", "level").await;
    check("test:Everything&ResponseDocument=what", "InvalidParameterValue", "what").await;
    check("test:Everything&RawDataOutput=gml@mimeType=image/png", "InvalidParameterValue", "gml").await;
    check("test:Everything&DataInputs=doc=x@mimeType=image/png", "InvalidParameterValue", "doc").await;
    check("test:Everything&status=true", "InvalidParameterValue", "status").await;
    assert!(world.accepted.lock().unwrap().is_empty());
    let head = world.send("HEAD", &format!("{run}test:Everything"), &[], b"").await;
    assert_eq!(head.status, 405, "HEAD starts nothing");
    assert!(world.accepted.lock().unwrap().is_empty());
    let busy = world.get(&format!("{run}test:Everything&DataInputs=name=x")).await;
    busy.exception(503, "ServerBusy", "");
    assert_eq!(busy.header("retry-after"), "5");
}

#[tokio::test]
async fn a_job_that_takes_too_long_for_its_request_can_be_followed() {
    let config = HttpConfig { sync_timeout: Duration::from_millis(50), ..HttpConfig::default() };
    let world = world(config, |_| Some(running(10))).await;
    let answer = world.post("/wps", &contour("")).await;
    assert!(answer.xml(200).contains("<wps:ProcessStarted percentCompleted=\"10\">"));
    let location = answer.link("statusLocation", &world);
    assert!(world.get(&location).await.xml(200).contains("ProcessStarted"));
    let raw = world.post("/wps", &contour(RAW)).await;
    let id = world.newest().to_string();
    assert!(raw.exception(500, "NoApplicableCode", "").contains(&id), "it says where to follow the job");
    assert!(world.dismissed.lock().unwrap().is_empty(), "it goes on");
}

#[tokio::test]
async fn an_accepted_job_is_not_denied_because_the_store_went_away() {
    let config = HttpConfig {
        settle: Duration::from_millis(500),
        sync_timeout: Duration::from_millis(500),
        ..HttpConfig::default()
    };
    for (form, accepted) in [(STORED, 200), (RAW, 500)] {
        let world = world(config.clone(), never).await;
        let away = async {
            world.until("the job", |world| !world.accepted.lock().unwrap().is_empty()).await;
            // As if another orchestrator had taken the job over, and then the database had gone.
            world.live.write().unwrap().clear();
            world.store.close().await;
        };
        let request = contour(form);
        let (answer, ()) = tokio::join!(world.post("/wps", &request), away);
        let id = world.newest().to_string();
        match accepted {
            200 => assert!(answer.xml(200).contains(&id)),
            code => assert!(answer.exception(code, "NoApplicableCode", "").contains(&id)),
        }
        assert!(world.dismissed.lock().unwrap().is_empty(), "it goes on");
    }
}

#[tokio::test]
async fn whoever_waits_for_bytes_when_we_stop_is_told_why_and_where_to_follow_the_job() {
    let world = world(HttpConfig::default(), never).await;
    let stop = async {
        world.until("the job", |world| !world.accepted.lock().unwrap().is_empty()).await;
        world.shutdown.cancel();
    };
    let request = contour(RAW);
    let (answer, ()) = tokio::join!(world.post("/wps", &request), stop);
    let said = answer.exception(500, "NoApplicableCode", "");
    assert!(
        said.contains("stops before the job has ended") && said.contains(&world.newest().to_string()),
        "{said}"
    );
    assert!(world.dismissed.lock().unwrap().is_empty(), "it goes on");
}

#[tokio::test]
async fn a_quick_job_is_done_when_an_asynchronous_answer_settles() {
    let config = HttpConfig { settle: Duration::from_secs(5), ..HttpConfig::default() };
    let world = world(config, at_once).await;
    assert!(world.post("/wps", &contour(STORED)).await.xml(200).contains("<wps:ProcessSucceeded>"));
}

#[tokio::test]
async fn a_client_that_goes_away_takes_its_job_with_it() {
    let world = plain(never).await;
    let body = contour(RAW);
    let mut stream = TcpStream::connect(world.address).await.unwrap();
    let head = format!("POST /wps HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    stream.write_all(head.as_bytes()).await.unwrap();
    world.until("the job", |world| !world.accepted.lock().unwrap().is_empty()).await;
    assert!(world.dismissed.lock().unwrap().is_empty());
    drop(stream);
    world.until("the dismissal", |world| *world.dismissed.lock().unwrap() == [world.newest()]).await;
}

#[tokio::test]
async fn the_end_of_the_service_tells_waiting_clients_where_to_look() {
    let world = plain(never).await;
    let (answer, ()) = tokio::join!(async { world.post("/wps", &contour("")).await }, async {
        world.until("the job", |world| !world.accepted.lock().unwrap().is_empty()).await;
        world.shutdown.cancel();
    });
    assert!(answer.xml(200).contains("statusLocation="));
    tokio::time::timeout(Duration::from_secs(5), world.served).await.unwrap().unwrap();
    assert!(world.dismissed.lock().unwrap().is_empty(), "the job goes on");
    assert!(TcpStream::connect(world.address).await.is_err(), "nobody listens any more");
}

#[tokio::test]
async fn status_documents_survive_a_restart_and_the_process() {
    let world = plain(never).await;
    let location = world.post("/wps", &contour(STORED)).await.link("statusLocation", &world);
    let id = world.newest();
    let output = world.keep(id, "result1", "contour.zip", b"PK", "application/zip");
    world.set(id, done(vec![output])).await;
    let before = world.get(&location).await;
    world.restart();
    let after = world.get(&location).await;
    assert_eq!(before.xml(200), after.xml(200));
    assert_eq!(world.get(&after.link("href", &world)).await.body, b"PK");
    world.get(&location.replace(&id.to_string(), &fixtures::id().to_string())).await.exception(
        400,
        "InvalidParameterValue",
        "executionId",
    );
}

#[tokio::test]
async fn raw_answers_come_in_the_wanted_encoding_or_not_at_all() {
    let world = plain(at_once).await;
    let run = "/wps?service=WPS&version=1.0.0&request=Execute&identifier=test:Everything&RawDataOutput=";
    let zip = world.get(&format!("{run}result1@encoding=Base64")).await;
    assert_eq!((zip.text(), zip.header("content-type")), ("UEsDBAA=", "application/zip"));
    assert_eq!((zip.header("content-length"), zip.header("etag")), ("8", ""));
    assert_eq!(world.get(&format!("{run}result1@encoding=utf-8")).await.body, b"PK\x03\x04\x00");
    let count = world.get(&format!("{run}count@mimeType=application/octet-stream")).await;
    assert_eq!((count.text(), count.header("content-type")), ("42", "application/octet-stream"));
    for wanted in ["result1@encoding=gzip", "count@encoding=base64", "count@mimeType=image/png"] {
        let refused = world.get(&format!("{run}{wanted}")).await;
        refused.exception(400, "InvalidParameterValue", wanted.split('@').next().unwrap());
    }
    let second = "<wps:Execute service='WPS' version='2.0.0' response='raw' xmlns:wps='http://www.opengis.net/wps/2.0' \
                  xmlns:ows='http://www.opengis.net/ows/2.0'><ows:Identifier>test:Everything</ows:Identifier><wps:Output id='result1' \
                  encoding='base64'/></wps:Execute>";
    assert_eq!(world.post("/wps", second).await.text(), "UEsDBAA=");
    let second = second.replace("id='result1' encoding='base64'", "id='count' mimeType='application/json'");
    world.post("/wps", &second).await.exception(400, "NoSuchFormat", "count");
}

#[tokio::test]
async fn dismissing_results_and_lists() {
    let world = plain(never).await;
    let location = world.post("/wps", &contour(STORED)).await.link("statusLocation", &world);
    let id = world.newest();
    let result = format!(
        "/wps?service=WPS&version=1.0.0&request=GetExecutionResult&executionId={id}&outputId=result1"
    );
    world.get(&result).await.exception(400, "NoApplicableCode", "executionId");
    let dismiss = format!("/wps?service=WPS&version=1.0.0&request=Dismiss&executionId={id}");
    assert_eq!(world.send("HEAD", &dismiss, &[], b"").await.status, 405, "HEAD changes nothing");
    let answer = world.get(&dismiss).await;
    assert!(answer.xml(200).contains("<wps:ProcessFailed>") && answer.text().contains("was dismissed"));
    assert!(world.get(&location).await.xml(200).contains("was dismissed"));
    world.get(&dismiss.replace(&id.to_string(), &fixtures::id().to_string())).await.exception(
        400,
        "InvalidParameterValue",
        "executionId",
    );

    world.post("/wps", &contour(STORED)).await;
    let id = world.newest();
    let output = world.keep(id, "result1", "contour.zip", b"PK", "application/zip");
    world.set(id, done(vec![output, count()])).await;
    let result = format!("/wps?service=WPS&version=1.0.0&request=GetExecutionResult&executionId={id}");
    for named in ["application/zip", "application/octet-stream"] {
        let zip = world.get(&format!("{result}&outputId=result1&mimetype={named}")).await;
        assert_eq!((zip.body.as_slice(), zip.header("content-type")), (b"PK".as_slice(), named));
    }
    // A client must not make a page of what is none.
    let page = world.get(&format!("{result}&outputId=result1&mimetype=text/html")).await;
    page.exception(400, "InvalidParameterValue", "result1");
    assert_eq!(world.send("POST", &format!("{result}&outputId=count"), &[], b"").await.text(), "42");
    world.get(&format!("{result}&outputId=no")).await.exception(400, "InvalidParameterValue", "outputId");
    world.get(&result).await.exception(400, "MissingParameterValue", "outputId");
    let list = world.get("/wps?service=WPS&version=1.0.0&request=GetExecutions").await;
    assert_eq!(
        (list.status, list.text().matches("<wps:ExecuteResponse ").count()),
        (200, 2),
        "{}",
        list.text()
    );
}

#[tokio::test]
async fn posts_without_a_body_are_refused_except_for_polls() {
    let world = plain(never).await;
    for query in [
        "request=GetCapabilities",
        "version=1.0.0&request=DescribeProcess",
        "request=DescribeProcess&identifier=JTS:Invalid",
        "",
    ] {
        let answer = world.send("POST", &format!("/wps?service=wps&{query}"), &[], b"").await;
        answer.exception(400, "NoApplicableCode", "");
    }
}

#[tokio::test]
async fn the_body_wins_over_the_query() {
    let world = plain(at_once).await;
    let answer = world.post("/wps?service=WPS&version=1.0.0&REQUEST=GetCapabilities", &contour("")).await;
    assert!(answer.xml(200).contains("<wps:ExecuteResponse "));
}

#[tokio::test]
async fn quirk_11_content_types_do_not_matter() {
    let world = plain(at_once).await;
    let body = format!("\u{FEFF}{}", contour(""));
    for kind in [
        "text/xml",
        "application/xml;charset=UTF-8",
        "application/x-www-form-urlencoded",
        "text/plain",
        "weird",
    ] {
        let answer = world.send("POST", "/wps", &[("Content-Type", kind)], body.as_bytes()).await;
        assert_eq!(answer.status, 200, "{kind}");
    }
    assert_eq!(world.send("POST", "/wps", &[], body.as_bytes()).await.status, 200);
    assert_eq!(
        world
            .send(
                "POST",
                "/wps",
                &[],
                format!("\r\n {}", contour("").replace("<?xml version=\"1.0\" encoding=\"UTF-8\"?>", ""))
                    .as_bytes()
            )
            .await
            .status,
        200
    );
    let zipped = world.send("POST", "/wps", &[("Content-Encoding", "gzip")], b"\x1f\x8b").await;
    zipped.exception(400, "NoApplicableCode", "");
}

#[tokio::test]
async fn links_follow_the_public_address() {
    let config =
        HttpConfig { public_url: Some("https://gis.example/wps-service".into()), ..HttpConfig::default() };
    let world = world(config, at_once).await;
    let answer = world.post("/wps", &contour(STORED)).await;
    assert!(answer.attribute("statusLocation").starts_with("https://gis.example/wps-service/wps?"));
}

#[tokio::test]
async fn two_requests_share_a_connection() {
    let world = plain(never).await;
    let mut stream = TcpStream::connect(world.address).await.unwrap();
    let one = "GET /wps?service=WPS&request=GetCapabilities HTTP/1.1\r\nHost: a.example:81\r\n\r\n";
    let two = "GET /wps HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
    stream.write_all(format!("{one}{two}").as_bytes()).await.unwrap();
    let answers = read(&mut stream).await;
    let text = String::from_utf8_lossy(&answers.body).into_owned();
    assert!(
        text.contains("xlink:href=\"http://a.example:81/wps?\"") && text.contains("MissingParameterValue")
    );
}
