//! Documents of every state, held against golden files and the standard's schemas.

use std::sync::Arc;

use wps_remote_protocol::{ErrorKind, ExecutionError, Input, KillReceipt, Output, SharedFile};

use super::super::super::fixtures::{self, everything, execution, golden, job, valid, waiting};
use super::super::super::ows::ServiceInfo;
use super::super::super::{Face, FaultKind, ows};
use super::super::{capabilities, describe};
use super::*;
use crate::engine::job::{Failure, Form, Timestamp};

fn view(files: &Files) -> View<'_> {
    View {
        service_url: "http://h/wps",
        status_url: Some(
            "http://h/wps?service=WPS&version=1.0.0&request=GetExecutionStatus&executionId=67e55044-10b1-426f-9247-bb680e5fe0c8",
        ),
        outputs_url: "http://h/outputs",
        inputs_url: "http://h/inputs",
        files,
        percent_always: false,
        dismissing: false,
    }
}

fn check(name: &str, job: &Job, files: &Files) {
    let document = document(job, &view(files));
    golden(&format!("wps1/{name}.xml"), &document);
    valid(&document);
}

fn running(percent: u8, message: &str, lost: bool) -> JobState {
    JobState::Running {
        execution: execution(),
        percent,
        message: message.into(),
        lost_since: lost.then_some(Timestamp(1_763_784_002_000)),
    }
}

fn zip() -> Output {
    let file =
        SharedFile { path: format!("{}/result1/contour lines.zip", fixtures::id()), bytes: 3, sha256: None };
    Output::new(
        "result1",
        Value::Complex { content: Content::Shared(file), media_type: "application/zip".into(), schema: None },
    )
}

fn successful() -> JobState {
    let gml = "<?xml version=\"1.0\"?>\n<gml:Point xmlns:gml=\"http://www.opengis.net/gml\"><gml:pos>1 2</gml:pos></gml:Point>\n";
    JobState::Successful {
        outputs: vec![
            zip(),
            Output::new(
                "gml",
                Value::Complex {
                    content: Content::Text(gml.into()),
                    media_type: String::new(),
                    schema: None,
                },
            ),
            Output::new("count", Value::literal("42")),
            Output::new(
                "extent",
                Value::BoundingBox(BoundingBox {
                    crs: Some("EPSG:4326".into()),
                    lower: vec![-1.5, 2.0],
                    upper: vec![3.0, 4.25],
                }),
            ),
        ],
        finished: Timestamp(1_763_784_009_000),
    }
}

#[test]
fn every_state_is_a_valid_document() {
    let none = Files::new();
    check("accepted", &job(everything(), waiting()), &none);
    check("created", &job(everything(), JobState::Created), &none);
    check("dispatched", &job(everything(), JobState::Dispatched { execution: execution() }), &none);
    check("started", &job(everything(), running(100, "half & half", false)), &none);
    check("paused", &job(everything(), running(40, "", true)), &none);
    let dismissing = JobState::Dismissing { execution: execution(), since: Timestamp(1) };
    check("dismissing", &job(everything(), dismissing), &none);
    let failure = Failure::Execution(ExecutionError {
        kind: ErrorKind::Exited(3),
        text: "cannot open <file> & \u{1b}[31mgave up\u{0}".into(),
        receipt: None,
    });
    check(
        "failed",
        &job(everything(), JobState::Failed { failure, finished: Timestamp(1_763_784_003_000) }),
        &none,
    );
    let kind = ErrorKind::InvalidInput { code: "InvalidParameterValue".into(), locator: "level".into() };
    let failure = Failure::Execution(ExecutionError { kind, text: "too high".into(), receipt: None });
    check("failed-input", &job(everything(), JobState::Failed { failure, finished: Timestamp(9) }), &none);
    let receipt = KillReceipt {
        at_ms: 1_763_784_002_800,
        took_ms: 1200,
        forced_after_ms: Some(1000),
        found: 3,
        ended: 3,
        asked: 3,
        forced: 1,
        survivors: vec![],
    };
    let dismissed = JobState::Dismissed { finished: Timestamp(1_763_784_004_000), receipt: Some(receipt) };
    check("dismissed", &job(everything(), dismissed), &none);
}

#[test]
fn outputs_inline_by_reference_and_chosen() {
    let none = Files::new();
    let files = Files::from([(format!("{}/result1/contour lines.zip", fixtures::id()), vec![1, 2, 3])]);
    let mut done = job(everything(), successful());
    check("succeeded-inline", &done, &files);
    check("succeeded-too-large", &done, &none);
    let request =
        |id: &str, as_reference| OutputRequest { id: id.into(), as_reference, ..OutputRequest::default() };
    done.form.outputs = vec![request("count", true), request("result1", true), request("gml", true)];
    done.form.outputs[1].media_type = Some("application/octet-stream".into());
    done.form.lineage = true;
    done.inputs = vec![
        Input { id: "level".into(), value: Value::Literal { text: "5".into(), uom: Some("m".into()) } },
        Input {
            id: "doc".into(),
            value: Value::Complex {
                content: Content::Text("<a/>".into()),
                media_type: "text/xml; subtype=gml/3.1.1".into(),
                schema: None,
            },
        },
        Input {
            id: "image".into(),
            value: Value::Complex {
                content: Content::Bytes(vec![0, 255]),
                media_type: "image/tiff".into(),
                schema: None,
            },
        },
        Input { id: "doc".into(), value: Value::reference("http://h/a?b&c", "text/xml") },
        Input {
            id: "bbox".into(),
            value: Value::BoundingBox(BoundingBox {
                crs: None,
                lower: vec![0.0, 0.0],
                upper: vec![1.0, 1.0],
            }),
        },
    ];
    check("succeeded-reference-lineage", &done, &files);
    let mut waiting = job(everything(), waiting());
    waiting.form = Form { store: true, lineage: true, ..Form::default() };
    check("accepted-lineage", &waiting, &none);
}

#[test]
fn a_stored_response_without_status_stays_as_it_was_first() {
    let mut started = job(everything(), running(40, "x", false));
    started.form.status = false;
    let text = document(&started, &view(&Files::new()));
    assert!(text.contains("<wps:ProcessAccepted>") && !text.contains("ProcessStarted"), "{text}");
    // A job that nobody asked to store is shown as it is when somebody asks.
    started.form.store = false;
    assert!(
        document(&started, &view(&Files::new())).contains("<wps:ProcessStarted percentCompleted=\"40\">")
    );
}

#[test]
fn polls_by_post_get_a_percentage_in_every_state() {
    let files = Files::new();
    let view = View { percent_always: true, ..view(&files) };
    let states = [(waiting(), "\"0\""), (running(100, "", false), "\"99\""), (successful(), "\"100\"")];
    for (state, percent) in states {
        let text = document(&job(everything(), state), &view);
        assert!(text.contains(&format!("percentCompleted={percent}")), "{text}");
    }
}

#[test]
fn whoever_dismisses_is_told_so_at_once() {
    let files = Files::new();
    let view = View { dismissing: true, ..view(&files) };
    let state = JobState::Dismissing { execution: execution(), since: Timestamp(1) };
    let text = document(&job(everything(), state), &view);
    assert!(text.contains("<wps:ProcessFailed>") && text.contains("was dismissed"), "{text}");
    valid(&text);
    let text = document(&job(everything(), successful()), &view);
    assert!(text.contains("ProcessSucceeded"), "what has ended stays as it is");
}

#[test]
fn process_and_status_come_in_the_order_that_clients_count_on() {
    let text = document(&job(everything(), waiting()), &view(&Files::new()));
    let after_declaration = text.strip_prefix("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n").unwrap();
    assert!(after_declaration.starts_with("<wps:ExecuteResponse "));
    assert!(text.find("<wps:Process ").unwrap() < text.find("<wps:Status ").unwrap());
}

#[test]
fn names_that_are_no_names_are_escaped_in_links() {
    let mut done = job(everything(), successful());
    let JobState::Successful { outputs, .. } = &mut done.state else { panic!() };
    outputs.truncate(2);
    outputs[1].id = "../a b/ü".into();
    done.form.outputs =
        vec![OutputRequest { id: "../a b/ü".into(), as_reference: true, ..OutputRequest::default() }];
    let text = document(&done, &view(&Files::new()));
    let link = format!("http://h/outputs/{}/..%2Fa%20b%2F%C3%BC/_a_b__.bin", fixtures::id());
    assert!(text.contains(&link), "{text}");
}

#[test]
fn text_that_xml_cannot_hold_becomes_base64() {
    let format = Format::new("text/plain");
    assert_eq!(delivery::writing(b"a\x01b", &format, None), Writing::Base64(b"a\x01b"));
    assert_eq!(delivery::writing(b"a<b", &format, None), Writing::Text("a<b"));
    assert_eq!(delivery::writing(b"a", &format, Some("base64")), Writing::Base64(b"a"));
    assert_eq!(delivery::writing(&[0xFF], &format, None), Writing::Base64(&[0xFF]));
    let xml = Format::new("text/xml");
    assert_eq!(delivery::writing(b"<a/>", &xml, None), Writing::Markup("<a/>"));
    assert_eq!(delivery::writing(b"<a>", &xml, None), Writing::Text("<a>"));
}

#[test]
fn capabilities_and_descriptions_are_valid() {
    let mut info = ServiceInfo { summary: String::new(), ..ServiceInfo::default() };
    let processes = [Arc::new(everything()), Arc::new(fixtures::contour())];
    let text = capabilities::document(&info, "http://h/wps", 7, processes.iter());
    golden("wps1/capabilities.xml", &text);
    valid(&text);
    info.site = "http://example.org/".into();
    info.contact = "A. Person".into();
    info.position = "Operator".into();
    info.phone = "+00 0".into();
    info.email = "a@example.org".into();
    info.keywords.clear();
    valid(&capabilities::document(&info, "http://h/wps", 7, processes.iter()));
    let none = capabilities::document(&info, "http://h/wps", 0, [].iter());
    assert!(none.contains("<wps:ProcessOfferings>"));
    let text = describe::document(&processes);
    golden("wps1/descriptions.xml", &text);
    valid(&text);
}

#[test]
fn every_kind_of_exception_is_a_valid_report() {
    let fault = Fault::at(FaultKind::NoSuchInput, "a<b\"", "the input `a<b\"` & others\u{0}");
    let text = ows::exception_report(&fault, Face::Wps1);
    golden("wps1/exception.xml", &text);
    valid(&text);
    let plain = ows::exception_report(&Fault::malformed("x".repeat(100_000)), Face::Wps1);
    assert!(plain.len() < 20_000, "texts are bounded");
    valid(&plain);
}

#[test]
fn the_validation_notices_what_is_wrong() {
    let good = document(&job(everything(), waiting()), &view(&Files::new()));
    let wrong = good.replace("wps:ProcessAccepted", "wps:ProcessDelayed");
    match fixtures::validate("wps/1.0.0/wpsAll.xsd", &wrong) {
        Ok(validated) => assert!(!validated, "a wrong document passed"),
        Err(why) => assert!(why.contains("ProcessDelayed"), "{why}"),
    }
}
