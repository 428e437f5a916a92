//! Requests of WPS: queries, and documents of both versions.

use std::sync::{Arc, OnceLock};

use wps_orchestrator::encoding::kvp::Query;
use wps_orchestrator::encoding::xml::Cursor;
use wps_orchestrator::encoding::{Face, Fault, ows, wps1, wps2};
use wps_orchestrator::engine::job::Form;
use wps_orchestrator::matching;
use wps_remote_protocol::{
    AllowedValues, BoundingBoxData, ComplexData, Content, DataType, Format, InputDescription, Inputs,
    LiteralData, LiteralType, Occurs, OutputDescription, ProcessDescription, Value,
};

/// Declarations that captured content inherits, and what an encoding may add (bytes).
const ADDED: usize = 2 << 20;

/// Queries: whatever one holds, each version answers with a request or with a report that is a document.
pub fn kvp(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let query = match Query::parse(text) {
        Ok(query) => query,
        Err(fault) => return told(&fault),
    };
    match wps1::request::from_kvp(&query, &lookup) {
        Ok(wps1::request::Request::Execute(asked)) => {
            taken(&asked.process, asked.inputs, &asked.form, text.len())
        }
        Ok(_) => {}
        Err(fault) => told(&fault),
    }
    if let Err(fault) = wps2::request::from_kvp(&query) {
        told(&fault);
    }
}

/// Documents of WPS 1.0.0.
pub fn wps1(data: &[u8]) {
    match wps1::request::from_xml(data, &lookup) {
        Ok(wps1::request::Request::Execute(asked)) => {
            taken(&asked.process, asked.inputs, &asked.form, data.len())
        }
        Ok(_) => {}
        Err(fault) => told(&fault),
    }
}

/// Documents of WPS 2.0.2.
pub fn wps2(data: &[u8]) {
    match wps2::request::from_xml(data, &lookup) {
        Ok(wps2::request::Request::Execute(asked)) => {
            taken(&asked.process, asked.inputs, &asked.form, data.len())
        }
        Ok(_) => {}
        Err(fault) => told(&fault),
    }
}

/// A refusal says why, at bounded length, in a document that can be read.
fn told(fault: &Fault) {
    assert!(!fault.text.is_empty());
    for face in [Face::Wps1, Face::Wps2] {
        let report = ows::exception_report(fault, face);
        assert!(report.len() < 100_000, "{} bytes", report.len());
        let mut cursor = Cursor::new(report.as_bytes()).expect("a report is in UTF-8");
        assert_eq!(cursor.root().expect("a report has a root").name, "ExceptionReport");
        cursor.finish().expect("a report is well-formed");
    }
}

/// What was understood names a known process and is not larger than what was sent; checking it ends.
fn taken(process: &str, mut inputs: Inputs, form: &Form, sent: usize) {
    let description = lookup(process).expect("a process that is not offered is refused");
    let bytes: usize = inputs.iter().map(|input| size(&input.value)).sum();
    assert!(bytes <= 3 * sent + ADDED, "{bytes} bytes from {sent}");
    if let Err(mismatch) = matching::fit(&description, &mut inputs, form) {
        told(&mismatch.into());
    }
}

fn size(value: &Value) -> usize {
    match value {
        Value::Literal { text, .. } => text.len(),
        Value::Complex { content: Content::Text(text), .. } => text.len(),
        Value::Complex { content: Content::Bytes(bytes), .. } => bytes.len(),
        Value::Complex { content: Content::Shared(_), .. } => panic!("a client names no file of ours"),
        Value::BoundingBox(_) => 64,
        Value::Reference { href, body, headers, fetched, .. } => {
            assert!(fetched.is_none(), "nothing is fetched while a request is read");
            let scheme = href.split(':').next().unwrap_or_default().to_ascii_lowercase();
            assert!(["http", "https", "data"].contains(&scheme.as_str()), "{href}");
            let headers: usize = headers.iter().map(|(name, value)| name.len() + value.len()).sum();
            href.len() + headers + body.as_ref().map_or(0, String::len)
        }
    }
}

/// One process, `a:b`, with an input and an output of each kind.
fn lookup(id: &str) -> Option<Arc<ProcessDescription>> {
    static KNOWN: OnceLock<Arc<ProcessDescription>> = OnceLock::new();
    (id == "a:b").then(|| KNOWN.get_or_init(|| Arc::new(process())).clone())
}

fn process() -> ProcessDescription {
    let mut encoded = Format::new("image/tiff");
    encoded.encoding = Some("base64".to_owned());
    let data = || {
        [
            DataType::Literal(LiteralData {
                kind: LiteralType::Double,
                uom: Some("m".to_owned()),
                allowed: AllowedValues::Range { min: Some("0".to_owned()), max: None },
                default: Some("1".to_owned()),
            }),
            DataType::Complex(ComplexData {
                formats: vec![Format::new("text/xml"), encoded.clone()],
                max_bytes: Some(1000),
            }),
            DataType::BoundingBox(BoundingBoxData { crs: vec!["EPSG:4326".to_owned()] }),
        ]
    };
    let ids = ["l", "c", "x"];
    let input = |(id, data): (&str, DataType)| InputDescription {
        id: id.to_owned(),
        title: None,
        summary: String::new(),
        occurs: Occurs { min: 0, max: Some(2) },
        data,
    };
    let output = |(id, data): (&str, DataType)| OutputDescription {
        id: id.to_owned(),
        title: None,
        summary: String::new(),
        data,
        optional: false,
        publication: None,
    };
    ProcessDescription {
        id: "a:b".parse().expect("an identifier"),
        alias: None,
        title: "A".to_owned(),
        summary: String::new(),
        version: "1.0.0".to_owned(),
        keywords: Vec::new(),
        inputs: ids.into_iter().zip(data()).map(input).collect(),
        outputs: ids.into_iter().zip(data()).map(output).collect(),
        weight: 1.0,
        repeatable: false,
        max_running_time_s: 0,
        roles: Vec::new(),
    }
}
