//! Both directions of the native dialect: what is written is read back, what is hostile is refused by name.

use proptest::prelude::*;

use super::*;
use crate::message::{ErrorKind, KillReceipt};
use crate::process::{InputDescription, LiteralData, LiteralType, Occurs, OutputDescription, Publication};
use crate::value::{BoundingBox, Input, Output, SharedFile};

fn execution() -> ExecutionId {
    ExecutionId::new("e-1").unwrap()
}

fn description() -> ProcessDescription {
    let data = DataType::Literal(LiteralData {
        kind: LiteralType::Double,
        uom: Some("m".into()),
        allowed: Default::default(),
        default: Some("50".into()),
    });
    ProcessDescription {
        id: "gdal:Contour".parse().unwrap(),
        alias: None,
        title: "Contour".into(),
        summary: "lines ÄÖ <&>".into(),
        version: "1.0.0".into(),
        keywords: vec!["dem".into()],
        inputs: vec![InputDescription {
            id: "interval".into(),
            title: None,
            summary: String::new(),
            occurs: Occurs::default(),
            data: data.clone(),
        }],
        outputs: vec![OutputDescription {
            id: "result".into(),
            title: None,
            summary: String::new(),
            data,
            optional: false,
            publication: Some(Publication {
                layer: Some("l".into()),
                layers: vec!["a".into()],
                ..Default::default()
            }),
        }],
        weight: 10.0,
        repeatable: false,
        max_running_time_s: 60,
        roles: vec!["surveyor".into()],
    }
}

fn load() -> Load {
    Load {
        cpu_percent: 1.5,
        memory_percent: 20.0,
        cores: 2,
        capacity: 100.0,
        used: 0.0,
        running: 0,
        max_running: Some(4),
        accepting: true,
        warning: Some("little space".into()),
        refusing: None,
        labels: vec!["gpu".into()],
    }
}

#[test]
fn messages_from_agents_come_back_as_they_were() {
    let file = SharedFile { path: "e-1/result/a b.gml".into(), bytes: 9, sha256: None };
    for message in [
        FromAgent::Register(Box::new(description())),
        FromAgent::Unregister("gdal:Contour".parse().unwrap()),
        FromAgent::Executions { held: vec![execution()], unknown: vec![] },
        FromAgent::Executions { held: vec![], unknown: vec![execution()] },
        FromAgent::Started { execution: execution() },
        FromAgent::Progress { execution: execution(), percent: 12.5, message: "half".into() },
        FromAgent::Log { execution: execution(), level: LogLevel::Warning, text: "a&b=c%".into() },
        FromAgent::Completed {
            execution: execution(),
            outputs: vec![Output {
                metadata: Some("{}".into()),
                side_files: vec![file.clone()],
                ..Output::new(
                    "result",
                    Value::Complex {
                        content: Content::Shared(file),
                        media_type: "text/xml".into(),
                        schema: None,
                    },
                )
            }],
        },
        FromAgent::Error {
            execution: execution(),
            error: ExecutionError {
                kind: ErrorKind::InvalidInput { code: "InvalidParameterValue".into(), locator: "x".into() },
                text: "no".into(),
                receipt: Some(Box::new(KillReceipt {
                    took_ms: 3,
                    asked: 2,
                    forced: 1,
                    ..KillReceipt::default()
                })),
            },
        },
        FromAgent::Load(load()),
    ] {
        let payload = encode_from_agent(&message).unwrap();
        assert_eq!(decode_from_agent(payload.name, &payload.json).unwrap(), message);
    }
}

#[test]
fn messages_to_agents_come_back_as_they_were() {
    let request = Request {
        execution: execution(),
        process: "gdal:Contour".parse().unwrap(),
        inputs: vec![
            Input { id: "interval".into(), value: Value::literal("50") },
            Input {
                id: "box".into(),
                value: Value::BoundingBox(BoundingBox {
                    crs: None,
                    lower: vec![1.0, 2.0],
                    upper: vec![3.0, 4.0],
                }),
            },
        ],
        base_url: "http://127.0.0.1/wps".into(),
    };
    for message in [
        ToAgent::Invite { executions: vec![] },
        ToAgent::Invite { executions: vec![execution()] },
        ToAgent::Unknown { execution: execution() },
        ToAgent::Elsewhere { execution: execution() },
        ToAgent::Request(Box::new(request)),
        ToAgent::Abort { execution: execution() },
        ToAgent::Finish { execution: execution() },
        ToAgent::GetLoad,
    ] {
        let payload = encode_to_agent(&message).unwrap();
        assert_eq!(decode_to_agent(payload.name, &payload.json).unwrap(), message);
    }
    for peer in [
        Peer::Agent(Announcement {
            versions: vec![7, 1],
            software: "a 1".into(),
            instance: "i".into(),
            load: Some(load()),
        }),
        Peer::Orchestrator(Announcement {
            versions: vec![1],
            software: "o 1".into(),
            instance: "j".into(),
            load: None,
        }),
    ] {
        let payload = encode_peer(&peer).unwrap();
        assert_eq!(decode_peer(payload.name, &payload.json).unwrap(), peer);
    }
    assert_eq!((negotiate(&[9, 1]), negotiate(&[2])), (Some(1), None));
}

/// A program may print anything that is UTF-8; a stanza may not hold all of it.
#[test]
fn payloads_hold_only_what_xml_can_carry() {
    let text = "a\u{FFFF}b\u{FFFE}\u{1}\u{0}\u{7f}\u{85}\r\n\t\u{10FFFF}\u{FDD0}";
    let message = FromAgent::Log { execution: execution(), level: LogLevel::Info, text: text.to_owned() };
    let payload = encode_from_agent(&message).unwrap();
    let carried =
        |c: char| matches!(c, ' '..='\u{D7FF}' | '\u{E000}'..='\u{FFFD}' | '\u{10000}'..='\u{10FFFF}');
    assert!(payload.json.chars().all(carried), "{}", payload.json);
    assert_eq!(decode_from_agent(payload.name, &payload.json).unwrap(), message);
}

#[test]
fn thousands_of_values_pass() {
    let input = |n: usize| Input { id: "x".into(), value: Value::literal((n % 10).to_string()) };
    let request = |n: usize| Request {
        execution: execution(),
        process: "a:b".parse().unwrap(),
        inputs: (0..n).map(input).collect(),
        base_url: String::new(),
    };
    let encoded = |n| encode_to_agent(&ToAgent::Request(Box::new(request(n))));
    let payload = encoded(MAX_VALUES).unwrap();
    decode_to_agent(payload.name, &payload.json).unwrap();
    let error = encoded(MAX_VALUES + 1).unwrap_err().to_string();
    assert!(error.contains("3000 input values"), "{error}");
}

/// What is said to fit can be written, also where each byte of a value needs two or six in JSON.
#[test]
fn what_fits_together_can_be_sent() {
    for (n, text, fits) in [
        (1300, "abc".to_owned(), true),
        (3001, "".to_owned(), false),
        (3, "x".repeat(32_000), true),
        (3, "\"".repeat(32_000), false),
        (1, "\u{FFFF}".repeat(30_000), false),
    ] {
        let inputs: Vec<_> =
            (0..n).map(|_| Input { id: "many".into(), value: Value::literal(&text) }).collect();
        let told = fit_together(inputs.iter().map(|input| (input.id.as_str(), &input.value)));
        let request = Request {
            execution: execution(),
            process: "a:b".parse().unwrap(),
            inputs,
            base_url: "x".repeat(300),
        };
        let sent = encode_to_agent(&ToAgent::Request(Box::new(request)));
        assert_eq!(told.is_ok(), fits, "{n} {}", text.len());
        if let (true, Ok(sent)) = (fits, &sent) {
            assert!(sent.json.replace('"', "&quot;").len() < 200_000);
        }
        assert!(sent.is_ok() || !fits, "{sent:?}");
    }
}

#[test]
fn hostile_payloads_are_refused_by_name() {
    for (name, json, part) in [
        ("execute", r#"{"v":2,"execution":"e","process":"a:b"}"#, "version 2"),
        ("execute", r#"{"execution":"e","process":"a:b"}"#, "version 0"),
        ("execute", r#"{"v":1,"execution":"../x","process":"a:b"}"#, "execution id"),
        ("execute", r#"{"v":1,"execution":"e","process":"ab"}"#, "namespace:service"),
        ("execute", r#"{"v":1,"execution":"e","process":"a:b","extra":1}"#, "extra"),
        ("execute", r#"[1]"#, "map"),
        ("explode", r#"{"v":1}"#, "unknown payload"),
        (
            "execute",
            r#"{"v":1,"execution":"e","process":"a:b","inputs":[{"id":"x","value":{"complex":{"content":{"shared":{"path":"../etc/passwd","bytes":1}}}}}]}"#,
            "outside of the shared folder",
        ),
        (
            "execute",
            r#"{"v":1,"execution":"e","process":"a:b","inputs":[{"id":"x","value":{"bounding_box":{"lower":[1],"upper":[2]}}}]}"#,
            "bounding box",
        ),
    ] {
        let error = decode_to_agent(name, json).unwrap_err().to_string();
        assert!(error.contains(part), "{json}: {error}");
    }
    let huge = format!(r#"{{"v":1,"execution":"{}"}}"#, "x".repeat(3 * MAX_JSON));
    assert!(matches!(decode_to_agent("abort", &huge), Err(NativeError::TooLarge { .. })));
    let deep = format!(r#"{{"v":1,"execution":{}1{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
    assert!(matches!(decode_to_agent("abort", &deep), Err(NativeError::Json { .. })));
    assert!(decode_from_agent("progress", r#"{"v":1,"execution":"e","percent":1e999}"#).is_err());
}

#[test]
fn descriptions_must_hold_together() {
    for (change, part) in [
        (
            (|d: &mut ProcessDescription| d.outputs.clear()) as fn(&mut ProcessDescription),
            "at least one output",
        ),
        (|d| d.inputs.push(d.inputs[0].clone()), "declared twice"),
        (|d| d.inputs[0].id = "a\nb".into(), "control characters"),
        (|d| d.weight = -1.0, "weight"),
    ] {
        let mut process = description();
        change(&mut process);
        let payload = encode_from_agent(&FromAgent::Register(Box::new(process))).unwrap();
        let error = decode_from_agent(payload.name, &payload.json).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn refusals_survive_as_conditions() {
    for reason in [
        RefusalReason::Capacity,
        RefusalReason::Draining,
        RefusalReason::NoSuchProcess,
        RefusalReason::Undeliverable,
    ] {
        assert_eq!(refusal_reason(refusal_condition(reason)), reason);
    }
}

proptest! {
    #[test]
    fn reading_never_panics(name in "[a-z-]{0,12}", json in "\\PC{0,300}") {
        let _ = decode_to_agent(&name, &json);
        let _ = decode_from_agent(&name, &json);
        let _ = decode_peer(&name, &json);
    }

    #[test]
    fn cutting_keeps_characters_whole(text in "\\PC{0,80}", max in 4usize..60) {
        let short = cut(&text, max);
        prop_assert!(short.len() <= max || short == text);
    }

    #[test]
    fn literals_survive_byte_for_byte(text in any::<String>()) {
        let request = Request {
            execution: execution(),
            process: "a:b".parse().unwrap(),
            inputs: vec![Input { id: "x".into(), value: Value::literal(text) }],
            base_url: String::new(),
        };
        let message = ToAgent::Request(Box::new(request));
        if let Ok(payload) = encode_to_agent(&message) {
            prop_assert_eq!(decode_to_agent(payload.name, &payload.json).unwrap(), message);
        }
    }
}
