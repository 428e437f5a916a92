//! Descriptions, jobs and helpers that the tests of all encodings share: golden files and validation with the
//! standards' own schemas where those are at hand.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use wps_remote_protocol::{
    AgentId, AllowedValues, BoundingBoxData, ComplexData, DataType, Format, InputDescription, LiteralData,
    LiteralType, Occurs, OutputDescription, ProcessDescription,
};

use crate::engine::Accepted;
use crate::engine::job::{Execution, Form, Job, JobId, JobState, Timestamp, UserId, Waiting};

pub fn literal(kind: LiteralType) -> DataType {
    DataType::Literal(LiteralData { kind, uom: None, allowed: AllowedValues::Any, default: None })
}

pub fn complex(formats: &[&str]) -> DataType {
    DataType::Complex(ComplexData {
        formats: formats.iter().map(|f| Format::new(f)).collect(),
        max_bytes: None,
    })
}

pub fn input(id: &str, min: u32, max: Option<u32>, data: DataType) -> InputDescription {
    InputDescription { id: id.into(), title: None, summary: String::new(), occurs: Occurs { min, max }, data }
}

pub fn output(id: &str, data: DataType) -> OutputDescription {
    OutputDescription {
        id: id.into(),
        title: None,
        summary: String::new(),
        data,
        optional: false,
        publication: None,
    }
}

pub fn process(
    id: &str,
    inputs: Vec<InputDescription>,
    outputs: Vec<OutputDescription>,
) -> ProcessDescription {
    let id: wps_remote_protocol::ProcessId = id.parse().unwrap();
    ProcessDescription {
        title: id.dotted(),
        id,
        alias: None,
        summary: String::new(),
        version: "1.0.0".into(),
        keywords: vec![],
        inputs,
        outputs,
        weight: 1.0,
        repeatable: false,
        max_running_time_s: 0,
        roles: Vec::new(),
    }
}

/// A process with an input and an output of each kind.
pub fn everything() -> ProcessDescription {
    let level = DataType::Literal(LiteralData {
        kind: LiteralType::Double,
        uom: Some("m".into()),
        allowed: AllowedValues::Range { min: Some("0".into()), max: Some("9000".into()) },
        default: Some("10".into()),
    });
    let mode = DataType::Literal(LiteralData {
        kind: LiteralType::String,
        uom: None,
        allowed: AllowedValues::Values(vec!["fast".into(), "good & slow".into()]),
        default: None,
    });
    let mut base64 = Format::new("image/tiff");
    base64.encoding = Some("base64".into());
    let image = DataType::Complex(ComplexData { formats: vec![base64], max_bytes: Some(5_000_000) });
    let crs = vec!["EPSG:4326".to_owned(), "urn:ogc:def:crs:EPSG:6.6:4326".to_owned()];
    let area = DataType::BoundingBox(BoundingBoxData { crs });
    let mut described = process(
        "test:Everything",
        vec![
            input("level", 1, Some(1), level),
            input("mode", 0, Some(1), mode),
            input("name", 0, None, literal(LiteralType::String)),
            input(
                "doc",
                0,
                Some(1),
                complex(&["text/xml; subtype=gml/3.1.1", "application/json", "text/plain"]),
            ),
            input("image", 0, Some(1), image),
            input("bbox", 0, Some(1), area.clone()),
        ],
        vec![
            output("result1", complex(&["application/zip"])),
            output("gml", complex(&["text/xml; subtype=gml/3.1.1"])),
            output("count", literal(LiteralType::Integer)),
            output("extent", area),
        ],
    );
    described.title = "Everything <at once>".into();
    described.summary = "Takes & gives one of each kind.".into();
    described.inputs[0].title = Some("Level".into());
    described.inputs[0].summary = "Height of the first line.".into();
    described.outputs[0].title = Some("Result".into());
    described
}

/// The process of the integration test that other orchestrators' users know.
pub fn contour() -> ProcessDescription {
    process(
        "default:GdalContour",
        vec![input("interval", 1, Some(1), complex(&["application/octet-stream"]))],
        vec![output("result1", complex(&["application/zip"]))],
    )
}

pub fn lookup(id: &str) -> Option<Arc<ProcessDescription>> {
    match id {
        "test:Everything" => Some(Arc::new(everything())),
        "default:GdalContour" => Some(Arc::new(contour())),
        _ => None,
    }
}

pub fn job(description: ProcessDescription, state: JobState) -> Job {
    let new = Accepted {
        id: id(),
        description: description.into(),
        inputs: vec![],
        form: Form { store: true, status: true, ..Form::default() },
        owner: UserId::anonymous(),
        role: None,
        terms: Default::default(),
    };
    Job { state, version: 1, ..new.into_job(Timestamp(1_763_784_000_000)) }
}

pub fn id() -> JobId {
    "67e55044-10b1-426f-9247-bb680e5fe0c8".parse().unwrap()
}

pub fn execution() -> Execution {
    Execution {
        id: id().execution(1),
        agent: AgentId::new("gis@host1"),
        attempt: 1,
        sent: Timestamp(1_763_784_000_500),
    }
}

pub fn waiting() -> JobState {
    JobState::Accepted { waiting: Waiting::Turn }
}

/// Holds a document against `tests/golden/<name>`; `UPDATE_GOLDEN=1` writes it anew.
pub fn golden(name: &str, document: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, document).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(document, expected, "{} differs; UPDATE_GOLDEN=1 renews it", path.display());
}

/// The folder with the published schemas, if there is one.
fn schemas() -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/schemas");
    let folder = std::env::var_os("WPS_TEST_SCHEMAS").map_or(beside, PathBuf::from);
    folder.join("schemas.opengis.net").is_dir().then(|| folder.canonicalize().unwrap())
}

static COUNTER: AtomicU32 = AtomicU32::new(0);

/// Validates a document strictly against a schema such as `wps/1.0.0/wpsAll.xsd`. `Ok(false)` = could not be tried.
pub fn validate(schema: &str, document: &str) -> Result<bool, String> {
    let Some(folder) = schemas() else {
        eprintln!("skipped: no schemas (set WPS_TEST_SCHEMAS to their folder)");
        return Ok(false);
    };
    let temp = std::env::temp_dir().join(format!(
        "wps-validate-{}-{}",
        std::process::id(),
        COUNTER.fetch_add(1, Ordering::Relaxed)
    ));
    std::fs::create_dir_all(&temp).unwrap();
    let base = folder.display();
    let catalog = format!(
        r#"<?xml version="1.0"?>
<catalog xmlns="urn:oasis:names:tc:entity:xmlns:xml:catalog">
<rewriteURI uriStartString="http://schemas.opengis.net/" rewritePrefix="file://{base}/schemas.opengis.net/"/>
<rewriteSystem systemIdStartString="http://schemas.opengis.net/" rewritePrefix="file://{base}/schemas.opengis.net/"/>
<rewriteURI uriStartString="http://www.w3.org/" rewritePrefix="file://{base}/w3c/"/>
<rewriteSystem systemIdStartString="http://www.w3.org/" rewritePrefix="file://{base}/w3c/"/>
</catalog>"#
    );
    std::fs::write(temp.join("catalog.xml"), catalog).unwrap();
    std::fs::write(temp.join("document.xml"), document).unwrap();
    let output = Command::new("xmllint")
        .args(["--nonet", "--noout", "--schema"])
        .arg(folder.join("schemas.opengis.net").join(schema))
        .arg(temp.join("document.xml"))
        .env("XML_CATALOG_FILES", temp.join("catalog.xml"))
        .output();
    std::fs::remove_dir_all(&temp).unwrap();
    match output {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            eprintln!("skipped: xmllint is not installed (package libxml2-utils)");
            Ok(false)
        }
        Err(error) => Err(error.to_string()),
        Ok(output) if output.status.success() => Ok(true),
        Ok(output) => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

/// Asserts that a document of either version is valid.
pub fn valid(document: &str) {
    let report = document.contains("<ows:ExceptionReport xmlns");
    let schema = match (report, document.contains("=\"http://www.opengis.net/ows/2.0\"")) {
        (true, false) => "ows/1.1.0/owsAll.xsd",
        (true, true) => "ows/2.0/owsAll.xsd",
        (false, false) => "wps/1.0.0/wpsAll.xsd",
        (false, true) => "wps/2.0/wps.xsd",
    };
    if let Err(why) = validate(schema, document) {
        panic!("{why}\n{document}");
    }
}
