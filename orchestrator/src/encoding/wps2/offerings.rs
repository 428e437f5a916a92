//! What is offered, as WPS 2.0.2 words it: the capabilities and the process offerings.

use std::sync::Arc;

use wps_remote_protocol::{
    ComplexData, DataType, Format, InputDescription, LiteralData, OutputDescription, ProcessDescription,
};

use super::super::ows::{self, LANGUAGE, ServiceInfo};
use super::super::wps1::capabilities::or_else;
use super::super::wps1::describe::schema_media_type;
use super::super::xml::Writer;

/// How every process can be run and its results be sent.
const CONTROL: [(&str, &str); 2] =
    [("jobControlOptions", "sync-execute async-execute dismiss"), ("outputTransmission", "value reference")];

/// Writes the capabilities. `url` is the address of the service without query; `sequence` the `updateSequence`.
pub fn capabilities<'a>(
    info: &ServiceInfo,
    url: &str,
    sequence: u64,
    processes: impl Iterator<Item = &'a Arc<ProcessDescription>>,
) -> String {
    let mut writer = Writer::new();
    let sequence = sequence.to_string();
    let attributes = [("service", "WPS"), ("version", super::VERSION), ("updateSequence", sequence.as_str())];
    super::open_root(&mut writer, "wps:Capabilities", &attributes);
    ows::write_identification(&mut writer, info, &[super::VERSION, "1.0.0"]);
    ows::write_provider(&mut writer, info);
    // OGC 14-065r2 has no binding of Execute to key-value pairs.
    let operations = [
        ("GetCapabilities", true),
        ("DescribeProcess", true),
        ("Execute", false),
        ("GetStatus", true),
        ("GetResult", true),
        ("Dismiss", true),
    ];
    ows::write_operations(&mut writer, url, &operations);
    writer.open("ows:Languages", &[]).leaf("ows:Language", &[], LANGUAGE).close();
    writer.open("wps:Contents", &[]);
    for process in processes {
        open_with_properties(&mut writer, "wps:ProcessSummary", process);
        write_identity(&mut writer, process);
        writer.close();
    }
    writer.finish()
}

/// Writes the offerings of the given processes.
pub fn offerings(processes: &[Arc<ProcessDescription>]) -> String {
    let mut writer = Writer::new();
    super::open_root(&mut writer, "wps:ProcessOfferings", &[]);
    for process in processes {
        open_with_properties(&mut writer, "wps:ProcessOffering", process);
        writer.open("wps:Process", &[("xml:lang", LANGUAGE)]);
        write_identity(&mut writer, process);
        for input in &process.inputs {
            write_input(&mut writer, input);
        }
        for output in &process.outputs {
            write_output(&mut writer, output);
        }
        writer.close().close();
    }
    writer.finish()
}

fn open_with_properties(writer: &mut Writer, name: &'static str, process: &ProcessDescription) {
    let version = three_part(&process.version);
    writer.open(name, &[CONTROL[0], CONTROL[1], ("processVersion", &version)]);
}

/// The version in the only form that the schema of OWS Common takes, `\d+\.\d?\d\.\d?\d`.
fn three_part(version: &str) -> String {
    let mut parts = version.split('.').map(|part| {
        let digits: String = part.chars().take_while(char::is_ascii_digit).collect();
        digits.parse::<u32>().unwrap_or(0)
    });
    let mut next = || parts.next().unwrap_or(0);
    let (major, minor, patch) = (next(), next().min(99), next().min(99));
    format!("{major}.{minor}.{patch}")
}

fn write_identity(writer: &mut Writer, process: &ProcessDescription) {
    writer.leaf("ows:Title", &[], &or_else(&process.title, || process.id.dotted()));
    writer.leaf("ows:Abstract", &[], ows::or_dash(&process.summary));
    if !process.keywords.is_empty() {
        writer.open("ows:Keywords", &[]);
        for keyword in &process.keywords {
            writer.leaf("ows:Keyword", &[], keyword);
        }
        writer.close();
    }
    writer.leaf("ows:Identifier", &[], &process.identifier());
}

/// Title (the identifier where there is none), abstract if there is one, identifier.
fn write_names(writer: &mut Writer, id: &str, title: Option<&str>, summary: &str) {
    writer.leaf("ows:Title", &[], &or_else(title.unwrap_or_default(), || id.to_owned()));
    if !summary.trim().is_empty() {
        writer.leaf("ows:Abstract", &[], summary);
    }
    writer.leaf("ows:Identifier", &[], id);
}

fn write_input(writer: &mut Writer, input: &InputDescription) {
    // A default makes the input optional, whatever the descriptor says.
    let has_default = matches!(&input.data, DataType::Literal(LiteralData { default: Some(_), .. }));
    let min = if has_default { 0 } else { input.occurs.min }.to_string();
    let max = input.occurs.max.map_or_else(|| "unbounded".to_owned(), |max| max.max(1).to_string());
    writer.open("wps:Input", &[("minOccurs", &min), ("maxOccurs", &max)]);
    write_names(writer, &input.id, input.title.as_deref(), &input.summary);
    write_data(writer, &input.data);
    writer.close();
}

fn write_output(writer: &mut Writer, output: &OutputDescription) {
    writer.open("wps:Output", &[]);
    write_names(writer, &output.id, output.title.as_deref(), &output.summary);
    write_data(writer, &output.data);
    writer.close();
}

fn write_data(writer: &mut Writer, data: &DataType) {
    match data {
        DataType::Literal(literal) => write_literal(writer, literal),
        DataType::Complex(complex) => {
            writer.open("wps:ComplexData", &[]);
            write_formats(writer, complex);
            writer.close();
        }
        DataType::BoundingBox(data) => {
            writer.open("wps:BoundingBoxData", &[]);
            writer.leaf("wps:Format", &[("mimeType", "text/xml"), ("default", "true")], "");
            let fallback = ["EPSG:4326".to_owned()];
            let systems = if data.crs.is_empty() { &fallback[..] } else { &data.crs };
            for (n, system) in systems.iter().enumerate() {
                let attributes: &[_] = if n == 0 { &[("default", "true")] } else { &[] };
                writer.leaf("wps:SupportedCRS", attributes, system);
            }
            writer.close();
        }
    }
}

fn write_literal(writer: &mut Writer, literal: &LiteralData) {
    writer.open("wps:LiteralData", &[]);
    writer.leaf("wps:Format", &[("mimeType", "text/plain"), ("default", "true")], "");
    writer.leaf("wps:Format", &[("mimeType", "text/xml")], "");
    // In no namespace: the schema has it so.
    writer.open("LiteralDataDomain", &[("default", "true")]);
    ows::write_allowed(writer, &literal.allowed);
    let name = literal.kind.xs_name();
    let reference = format!("http://www.w3.org/2001/XMLSchema#{name}");
    writer.leaf("ows:DataType", &[("ows:reference", &reference)], name);
    if let Some(uom) = &literal.uom {
        writer.leaf("ows:UOM", &[], uom);
    }
    if let Some(default) = &literal.default {
        writer.leaf("ows:DefaultValue", &[], default);
    }
    writer.close().close();
}

fn write_formats(writer: &mut Writer, complex: &ComplexData) {
    let megabytes = complex.max_bytes.map(|bytes| bytes.div_ceil(1 << 20).max(1).to_string());
    let write = |writer: &mut Writer, format: &Format, default: bool| {
        let mut attributes = vec![("mimeType", schema_media_type(&format.media_type))];
        for (name, value) in
            [("encoding", &format.encoding), ("schema", &format.schema), ("maximumMegabytes", &megabytes)]
        {
            if let Some(value) = value {
                attributes.push((name, value));
            }
        }
        if default {
            attributes.push(("default", "true"));
        }
        writer.leaf("wps:Format", &attributes, "");
    };
    write(writer, &complex.default_format(), true);
    for format in complex.formats.iter().skip(1) {
        write(writer, format, false);
    }
}
