//! What was recorded between the Python agent and a stand-in for GeoServer is replayed both ways; the rest are properties
//! and single quirks.

use std::collections::BTreeSet;

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::message::{ExecutionId, LogLevel};
use crate::process::{DataType, LiteralType, ProcessId};
use crate::value::{Input, Value};

/// Scenario, `order` or `report`, occupant, body; from the recordings of the unmodified agent 2.17.0.
const RECORDED: &str = include_str!("recorded.txt");

struct Line {
    scenario: &'static str,
    is_order: bool,
    nick: &'static str,
    body: String,
}

fn recorded() -> Vec<Line> {
    let lines = RECORDED.lines().map(|line| {
        let mut cells = line.split('\t');
        let mut cell = || cells.next().unwrap();
        let (scenario, direction, address) = (cell(), cell(), cell());
        let (_, nick) = address.split_once('/').unwrap();
        let body = cell().replace("\\n", "\n").replace("\\t", "\t").replace("\\\\", "\\");
        Line { scenario, is_order: direction == "order", nick, body }
    });
    lines.collect()
}

fn id(text: &str) -> ExecutionId {
    ExecutionId::new(text).unwrap()
}

#[test]
fn recorded_orders_are_read_and_written_byte_for_byte() {
    let mut exact = 0;
    let mut scenarios = BTreeSet::new();
    for line in recorded().into_iter().filter(|line| line.is_order) {
        let order = Order::decode(&line.body).unwrap_or_else(|error| panic!("{}: {error}", line.body));
        let written = order.encode();
        assert_eq!(Order::decode(&written).as_ref(), Ok(&order));
        // Scenario 27 tried other encodings and pickles than GeoServer's on purpose.
        if line.scenario == "27-percent-encoding" && written != line.body {
            continue;
        }
        assert_eq!(written, line.body, "{}", line.scenario);
        exact += 1;
        scenarios.insert(line.scenario);
        let to = Occupant::read(line.nick);
        match order {
            Order::Finish | Order::Abort => assert!(matches!(to, Occupant::Job { .. }), "{}", line.nick),
            _ => assert!(matches!(to, Occupant::Master { .. }), "{}", line.nick),
        }
    }
    assert!(exact >= 90 && scenarios.len() >= 20, "{exact} orders of {} scenarios", scenarios.len());
}

#[test]
fn recorded_reports_are_read_and_registrations_written_byte_for_byte() {
    let mut topics = BTreeSet::new();
    for line in recorded().into_iter().filter(|line| !line.is_order) {
        let body = &line.body;
        let topic = body.split('&').next().unwrap().to_owned();
        // The one line that GeoServer drops too: a log line without text is read here, as an empty line.
        let report = Report::decode(body).unwrap_or_else(|error| panic!("{body}: {error}"));
        match &report {
            Report::Register(registration) => {
                let description = registration.describe().unwrap();
                assert_eq!(description.id.namespace(), "default");
                assert!(!description.outputs.is_empty());
            }
            Report::Completed { outputs, broken, base_url, .. } => {
                assert!(broken.is_empty() && !outputs.is_empty(), "{body}");
                assert_eq!(base_url, "http://127.0.0.1:8080/geoserver/");
            }
            _ => {}
        }
        let written_alike =
            matches!(report, Report::Register(_) | Report::Progress { .. } | Report::CannotExecute { .. });
        if written_alike {
            assert_eq!(report.encode(), *body);
        }
        // What we write means the same to ourselves; only an empty text becomes a blank.
        if !body.ends_with("&message=") {
            assert_eq!(Report::decode(&report.encode()), Ok(report), "{body}");
        }
        topics.insert(topic);
    }
    let expected = ["cantexec", "completed", "error", "loadavg", "log", "progress", "register"];
    assert!(topics.iter().map(|topic| topic.trim_start_matches("topic=")).eq(expected), "{topics:?}");
}

#[test]
fn what_we_write_survives_the_splitting_of_both_old_readers() {
    let nasty = "a=b&c 100% +plus+ \"é漢😀\"\n\ttab topic=error ";
    let reports = [
        Report::Log { execution: id("e1"), level: LogLevel::Error, text: nasty.to_owned() },
        Report::Log { execution: id("e1"), level: LogLevel::Info, text: String::new() },
        Report::Error { execution: id("e1"), text: nasty.to_owned() },
        Report::Completed {
            execution: id("e1"),
            base_url: String::new(),
            outputs: vec![LegacyOutput::textual("result", nasty)],
            broken: vec![],
        },
        Report::Load(LegacyLoad { cpu_percent: 50.0, memory_percent: 0.0 }),
    ];
    for report in reports {
        let body = report.encode();
        assert!(body.is_ascii() && !body.contains(['+', ' ', '\n']), "{body}");
        for part in body.split('&') {
            // GeoServer: exactly one `=`, and something on both sides of it.
            let cut: Vec<&str> = part.split('=').collect();
            assert!(cut.len() == 2 && !cut[0].is_empty() && !cut[1].is_empty(), "{part} in {body}");
            assert!(body::decode_bytes(cut[1]).is_some(), "{part}");
        }
        assert_eq!(body.matches("topic=").count(), 1, "{body}");
    }
    assert!(Report::Load(LegacyLoad { cpu_percent: 50.0, memory_percent: 1.0 }).encode().contains("50.0"));
}

#[test]
fn unescaped_log_lines_are_read_whole_and_cannot_forge_fields() {
    let read = |body: &str| match Report::decode(body) {
        Ok(Report::Log { text, level, .. }) => (level, text),
        other => panic!("{other:?}"),
    };
    let raw = [
        "reading http://x/wps?service=WPS&request=Execute 100% of it",
        "a=b",
        "fish & chips",
        "",
        "half done 50%",
        "a+b",
        "x &topic=error&message=injected",
        "café 漢字 😀 log line",
    ];
    for text in raw {
        assert_eq!(
            read(&format!("topic=log&id=e1&level=WARN&message={text}")),
            (LogLevel::Warning, text.to_owned())
        );
    }
    assert_eq!(
        read("topic=log&id=e1&level=INFO&message=50%25%20done"),
        (LogLevel::Info, "50% done".to_owned())
    );
    assert!(matches!(Report::decode("topic=log&id=e1&level=INFO"), Err(LegacyError::Missing { .. })));
    assert!(matches!(Report::decode("x topic=error&id=e1"), Err(LegacyError::NoTopic)));
}

#[test]
fn errors_are_read_in_both_forms() {
    let text = |body: &str| match Report::decode(body) {
        Ok(Report::Error { text, .. }) => text,
        other => panic!("{other:?}"),
    };
    assert_eq!(text("topic=error&id=e1&message=%22a%20%26%20b%5Cn%22"), "a & b\n");
    assert_eq!(text("topic=error&id=e1&message=plain%20text"), "plain text");
    assert_eq!(
        text("topic=error&id=e1&message=Critical error while encoding outuput!"),
        "Critical error while encoding outuput!"
    );
    assert_eq!(text("topic=error&id=e1"), "");
}

#[test]
fn nicknames_and_resources_are_as_the_old_ends_cut_them() {
    let master = nick("Play", "geoserver.test", &master_resource("vm"));
    assert_eq!(master, "Play@geoserver.test/master@vm");
    assert_eq!(
        Occupant::read(&master),
        Occupant::Master { service: "Play".into(), namespace: None, host: "vm".into() }
    );
    let job = nick("Play", "geoserver.test", &job_resource("a77a6558d7e2ce3", "vm"));
    assert_eq!(job, "Play@geoserver.test/a77a6558d7e2ce3@vm");
    assert_eq!(
        Occupant::read(&job),
        Occupant::Job {
            service: "Play".into(),
            namespace: None,
            execution: "a77a6558d7e2ce3".into(),
            host: "vm".into()
        }
    );
    assert_eq!(
        Occupant::read("ns.Play@d/master"),
        Occupant::Master { service: "Play".into(), namespace: Some("ns".into()), host: String::new() }
    );
    for other in ["admin@geoserver.test", "admin", "a/b/c", "", "/", "@d/x@y", "Play@d/"] {
        assert_eq!(Occupant::read(other), Occupant::Other, "{other}");
    }
    assert_eq!(master_resource("my/ho@st x"), "master@my-ho-st-x");
    assert!(matches!(Occupant::read("P@d/e@x@vm"), Occupant::Job { execution, .. } if execution == "e@x"));
}

#[test]
fn the_second_element_of_a_pair_is_a_document_in_a_string() {
    let registration = Registration {
        service: ProcessId::new("default", "Many").unwrap(),
        title: "Many".into(),
        description: "ä".into(),
        inputs: vec![("n".into(), json!({"type": "int", "default": "3", "min": 1, "max": 1}))],
        outputs: vec![("result1".into(), json!({"type": "string"}))],
    };
    let body = registration.encode();
    let message = decode_value(body.split("&message=").nth(1).unwrap());
    let document: serde_json::Value = serde_json::from_str(&message).unwrap();
    assert!(document["input"][0][1].is_string() && document["output"][0][1].is_string(), "{message}");
    assert!(message.contains("\\u00e4"), "only ASCII: {message}");
    let Ok(Report::Register(read)) = Report::decode(&body) else { panic!("{body}") };
    assert_eq!(*read, registration);
    // An object instead of the string is understood as well.
    let as_object = message.replace("\"{\\\"type\\\": \\\"string\\\"}\"", "{\"type\": \"string\"}");
    assert_ne!(as_object, message);
    let body = format!("topic=register&service=default.Many&message={}", encode_value(&as_object));
    assert_eq!(Report::decode(&body), Ok(Report::Register(Box::new(registration))));
}

#[test]
fn registrations_become_descriptions() {
    let line = recorded().into_iter().find(|line| line.body.contains("service=default.Many")).unwrap();
    let Ok(Report::Register(registration)) = Report::decode(&line.body) else { panic!() };
    let description = registration.describe().unwrap();
    assert_eq!(description.title, "default.Many");
    let mut kinds = BTreeSet::new();
    for input in &description.inputs {
        if let DataType::Literal(literal) = &input.data {
            kinds.insert(literal.kind.xs_name());
        }
    }
    assert!(kinds.contains("string") && kinds.contains("float") && kinds.contains("dateTime"), "{kinds:?}");
    let tif = description.output("result4").unwrap();
    let DataType::Complex(complex) = &tif.data else { panic!("{tif:?}") };
    assert_eq!(complex.formats[0].media_type, "image/geotiff");
    assert_eq!(tif.publication.as_ref().unwrap().layer.as_deref(), Some("dem"));
    let bad = |kind: &str| Registration {
        service: ProcessId::new("a", "B").unwrap(),
        title: String::new(),
        description: String::new(),
        inputs: vec![("x".into(), json!({"type": kind}))],
        outputs: vec![],
    };
    assert!(
        bad("java.lang.Runtime").describe().unwrap_err().to_string().contains("`java.lang.Runtime` of `x`")
    );
    assert!(bad("STRING ").describe().is_ok());
    let twice = Registration { inputs: vec![("x".into(), json!({"type": "int"})); 2], ..bad("int") };
    assert_eq!(twice.describe(), Err(RegistrationError::Twice("x".into())));
    for (min, max, occurs) in [(json!(0), json!(3), (0, Some(3))), (json!("2"), json!(-1), (2, None))] {
        let inputs = vec![("x".into(), json!({"type": "int", "min": min, "max": max}))];
        let found = Registration { inputs, ..bad("int") }.describe().unwrap().inputs[0].occurs;
        assert_eq!((found.min, found.max), occurs);
    }
}

#[test]
fn types_of_the_table_and_media_types_are_known() {
    for text in ["string", "complex", "COMPLEX", "text/xml;subtype=gml/3.1.1", "image/geotiff;stream"] {
        assert!(look_up(text, None).unwrap().known_to_geoserver, "{text}");
    }
    for text in ["text/xml; subtype=gml/3.1.1", "String", "image/png", "bool"] {
        assert!(!look_up(text, None).unwrap().known_to_geoserver, "{text}");
    }
    assert_eq!(look_up("number", None), None);
    let DataType::Complex(replaced) =
        look_up("text/xml", Some("application/gml-3.1.1, text/xml")).unwrap().data
    else {
        panic!()
    };
    assert_eq!(replaced.formats[0].media_type, "application/gml-3.1.1");
    let DataType::Literal(literal) = look_up("datetime", None).unwrap().data else { panic!() };
    assert_eq!(literal.kind, LiteralType::DateTime);
}

#[test]
fn requests_carry_texts_lists_and_the_defaults_of_what_is_absent() {
    let registration = Registration {
        service: ProcessId::new("default", "Many").unwrap(),
        title: String::new(),
        description: String::new(),
        inputs: vec![
            ("n".into(), json!({"type": "int", "default": "3"})),
            ("words".into(), json!({"type": "string", "max": 5})),
        ],
        outputs: vec![],
    };
    let description = registration.describe().unwrap();
    let given = |id: &str, text: &str| Input { id: id.into(), value: Value::literal(text) };
    let inputs = vec![given("words", "one"), given("words", "two & three")];
    let dict = to_pickle(&inputs, Some(&description)).unwrap();
    let request = LegacyRequest {
        execution: id("0123456789abcdef-1"),
        base_url: "http://h:8080/wps?a=b&c=d".into(),
        inputs: dict,
    };
    let body = Order::Request(request).encode();
    // The Python agent: every part has exactly one `=`, and all is ASCII.
    assert!(body.is_ascii() && body.split('&').all(|part| part.matches('=').count() == 1), "{body}");
    let Ok(Order::Request(read)) = Order::decode(&body) else { panic!("{body}") };
    assert_eq!(read.base_url, "http://h:8080/wps");
    let expected = vec![given("words", "one"), given("words", "two & three"), given("n", "3")];
    assert_eq!(from_pickle(&read.inputs, Some(&description)), Ok(expected));
    assert!(Order::decode("topic=request&id=../../x&baseURL=u&message=N.").is_err());
    assert!(Order::decode("topic=request&id=e1&baseURL=u&message=N.").is_err());
    let evil = "topic=request&id=e1&baseURL=u&message=cos%0Asystem%0A%28S%27id%27%0AtR.";
    assert!(matches!(Order::decode(evil), Err(LegacyError::Pickle(_))));
}

proptest! {
    #[test]
    fn values_survive(text in ".{0,200}") {
        let encoded = encode_value(&text);
        prop_assert!(encoded.is_ascii() && !encoded.contains(['&', '=', '+', ' ']));
        let decoded = decode_value(&encoded);
        prop_assert!(decoded == text || text.is_empty() && decoded == " ");
    }

    #[test]
    fn no_body_makes_a_reader_panic(body in "(topic=(register|log|completed|error|loadavg|request|cantexec|progress)[&=%a-z0-9{}\"+ ]{0,120})|.{0,80}") {
        let _ = Report::decode(&body);
        let _ = Order::decode(&body);
        let _ = Occupant::read(&body);
    }

    #[test]
    fn outputs_survive(value in ".{0,60}", title in proptest::option::of("[^\\s].{0,20}"), publish in any::<bool>()) {
        let output = LegacyOutput {
            title, publish: Some(publish), ..LegacyOutput::textual("result1", &value)
        };
        let report = Report::Completed {
            execution: id("e1"), base_url: "http://x/".into(), outputs: vec![output], broken: vec![],
        };
        prop_assert_eq!(Report::decode(&report.encode()), Ok(report));
    }
}
