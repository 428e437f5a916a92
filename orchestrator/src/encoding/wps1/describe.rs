//! The process descriptions of WPS 1.0.0 (§9.3). Elements below `ProcessDescription` are in no namespace, as the schema
//! has it and clients expect.

use std::sync::Arc;

use wps_remote_protocol::{
    ComplexData, DataType, Format, InputDescription, LiteralData, OutputDescription, ProcessDescription,
};

use super::super::ows;
use super::super::xml::Writer;
use super::capabilities::{or_else, write_brief};

/// What stands for "any number of values": the schema knows no `unbounded`.
const MANY: u32 = 2_147_483_647;

/// Writes the document about the given processes.
pub fn document(processes: &[Arc<ProcessDescription>]) -> String {
    let mut writer = Writer::new();
    super::open_root(&mut writer, "wps:ProcessDescriptions", "wpsDescribeProcess_response.xsd", &[]);
    for process in processes {
        write_process(&mut writer, process);
    }
    writer.finish()
}

fn write_process(writer: &mut Writer, process: &ProcessDescription) {
    writer.open(
        "ProcessDescription",
        &[("wps:processVersion", &process.version), ("storeSupported", "true"), ("statusSupported", "true")],
    );
    write_brief(writer, process);
    if !process.inputs.is_empty() {
        writer.open("DataInputs", &[]);
        for input in &process.inputs {
            write_input(writer, input);
        }
        writer.close();
    }
    writer.open("ProcessOutputs", &[]);
    for output in &process.outputs {
        write_output(writer, output);
    }
    writer.close().close();
}

fn write_input(writer: &mut Writer, input: &InputDescription) {
    // A default makes the input optional, whatever the descriptor says.
    let has_default = matches!(&input.data, DataType::Literal(LiteralData { default: Some(_), .. }));
    let min = if has_default { 0 } else { input.occurs.min }.to_string();
    let max = input.occurs.max.unwrap_or(MANY).clamp(1, MANY).to_string();
    writer.open("Input", &[("minOccurs", &min), ("maxOccurs", &max)]);
    write_names(writer, &input.id, input.title.as_deref(), &input.summary);
    match &input.data {
        DataType::Literal(literal) => {
            writer.open("LiteralData", &[]);
            write_literal(writer, literal);
            ows::write_allowed(writer, &literal.allowed);
            if let Some(default) = &literal.default {
                writer.leaf("DefaultValue", &[], default);
            }
            writer.close();
        }
        DataType::Complex(complex) => {
            let megabytes = complex.max_bytes.map(|bytes| bytes.div_ceil(1 << 20).to_string());
            match &megabytes {
                Some(megabytes) => writer.open("ComplexData", &[("maximumMegabytes", megabytes)]),
                None => writer.open("ComplexData", &[]),
            };
            write_formats(writer, complex);
            writer.close();
        }
        DataType::BoundingBox(data) => {
            writer.open("BoundingBoxData", &[]);
            write_systems(writer, &data.crs);
            writer.close();
        }
    }
    writer.close();
}

fn write_output(writer: &mut Writer, output: &OutputDescription) {
    writer.open("Output", &[]);
    write_names(writer, &output.id, output.title.as_deref(), &output.summary);
    match &output.data {
        DataType::Literal(literal) => {
            writer.open("LiteralOutput", &[]);
            write_literal(writer, literal);
            writer.close();
        }
        DataType::Complex(complex) => {
            writer.open("ComplexOutput", &[]);
            write_formats(writer, complex);
            writer.close();
        }
        DataType::BoundingBox(data) => {
            writer.open("BoundingBoxOutput", &[]);
            write_systems(writer, &data.crs);
            writer.close();
        }
    }
    writer.close();
}

/// Identifier, title (the identifier where there is none) and abstract if there is one.
pub(super) fn write_names(writer: &mut Writer, id: &str, title: Option<&str>, summary: &str) {
    writer.leaf("ows:Identifier", &[], id);
    writer.leaf("ows:Title", &[], &or_else(title.unwrap_or_default(), || id.to_owned()));
    if !summary.trim().is_empty() {
        writer.leaf("ows:Abstract", &[], summary);
    }
}

fn write_literal(writer: &mut Writer, literal: &LiteralData) {
    let name = literal.kind.xs_name();
    let reference = format!("http://www.w3.org/TR/xmlschema-2/#{name}");
    writer.leaf("ows:DataType", &[("ows:reference", &reference)], name);
    if let Some(uom) = &literal.uom {
        writer.open("UOMs", &[]);
        writer.open("Default", &[]).leaf("ows:UOM", &[], uom).close();
        writer.open("Supported", &[]).leaf("ows:UOM", &[], uom).close().close();
    }
}

fn write_formats(writer: &mut Writer, complex: &ComplexData) {
    let default = complex.default_format();
    writer.open("Default", &[]);
    write_format(writer, &default);
    writer.close().open("Supported", &[]);
    write_format(writer, &default);
    for format in complex.formats.iter().skip(1) {
        write_format(writer, format);
    }
    writer.close();
}

fn write_format(writer: &mut Writer, format: &Format) {
    writer.open("Format", &[]).leaf("MimeType", &[], schema_media_type(&format.media_type));
    if let Some(encoding) = &format.encoding {
        writer.leaf("Encoding", &[], encoding);
    }
    if let Some(schema) = &format.schema {
        writer.leaf("Schema", &[], schema);
    }
    writer.close();
}

/// The MIME type, if the schema of OWS Common can hold it (it lists the top-level types); else what every format can be
/// had as.
pub(in crate::encoding) fn schema_media_type(media_type: &str) -> &str {
    const KNOWN: [&str; 8] =
        ["application", "audio", "image", "text", "video", "message", "multipart", "model"];
    match media_type.split_once('/') {
        Some((top, rest)) if KNOWN.contains(&top) && !rest.trim().is_empty() && !rest.contains('\n') => {
            media_type
        }
        _ => "application/octet-stream",
    }
}

fn write_systems(writer: &mut Writer, systems: &[String]) {
    let default = systems.first().map_or("EPSG:4326", String::as_str);
    writer.open("Default", &[]).leaf("CRS", &[], default).close().open("Supported", &[]).leaf(
        "CRS",
        &[],
        default,
    );
    for system in systems.iter().skip(1) {
        writer.leaf("CRS", &[], system);
    }
    writer.close();
}
