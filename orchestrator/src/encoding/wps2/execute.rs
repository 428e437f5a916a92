//! The Execute request of WPS 2.0.2: inputs as typed values, wanted outputs, mode and form of the answer. What a
//! value may be is checked later, against the description.

use wps_remote_protocol::{DataType, Input, Inputs, ProcessDescription, Value};

use super::super::ows::{self, Lookup};
use super::super::values::{self, Given, Link};
use super::super::wps1::execute::{MAX_INPUTS, MAX_OUTPUTS};
use super::super::xml::{Content, Cursor, Element};
use super::super::{Fault, FaultKind, clip};
use crate::engine::job::{Form, OutputRequest};

/// What is to be executed, and when the answer comes.
#[derive(Debug, Clone, PartialEq)]
pub struct Execute {
    /// Identifier of the process.
    pub process: String,
    /// Its inputs.
    pub inputs: Inputs,
    /// Shape of the answer.
    pub form: Form,
    /// When it comes.
    pub mode: Mode,
}

/// When an answer comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// With the end of the job.
    Sync,
    /// At once.
    Async,
    /// As we like.
    Auto,
}

/// Reads the content of `wps:Execute`.
pub(super) fn from_xml(
    cursor: &mut Cursor<'_>,
    root: &Element,
    lookup: Lookup<'_>,
) -> Result<Execute, Fault> {
    // The schema demands both attributes; clients leave them out all the same.
    let mode = match root.trimmed("mode") {
        None | Some("sync") => Mode::Sync,
        Some("async") => Mode::Async,
        Some("auto") => Mode::Auto,
        Some(other) => {
            let text = format!("the mode `{}` is none of sync, async, auto", clip(other, 80));
            return Err(Fault::at(FaultKind::NoSuchMode, "mode", text));
        }
    };
    let raw = match root.trimmed("response") {
        None | Some("document") => false,
        Some("raw") => true,
        Some(other) => {
            let text = format!("the response `{}` is neither raw nor document", clip(other, 80));
            return Err(Fault::invalid("response", text));
        }
    };
    let mut process = None;
    let mut inputs = Vec::new();
    let mut outputs = Vec::new();
    while let Some(element) = cursor.child()? {
        match (element.name.as_str(), &process) {
            ("Identifier", None) => process = Some(ows::process(&cursor.text()?, lookup)?),
            ("Input", Some((_, description))) => {
                if inputs.len() == MAX_INPUTS {
                    let text = format!("there are more than {MAX_INPUTS} inputs");
                    return Err(Fault::at(FaultKind::TooManyInputs, "Input", text));
                }
                inputs.push(input(cursor, &element, description)?);
            }
            // the identifier comes first, and without it no value can be understood.
            ("Input", None) => return Err(Fault::missing("Identifier")),
            ("Output", _) => {
                if outputs.len() == MAX_OUTPUTS {
                    let text = format!("more than {MAX_OUTPUTS} outputs are named");
                    return Err(Fault::at(FaultKind::TooManyOutputs, "Output", text));
                }
                outputs.push(output(cursor, &element)?);
            }
            _ => cursor.skip()?,
        }
    }
    let (process, _) = process.ok_or_else(|| Fault::missing("Identifier"))?;
    let kept = mode != Mode::Sync;
    let form = Form { raw, store: kept, status: kept, lineage: false, outputs };
    Ok(Execute { process, inputs, form, mode })
}

fn input(
    cursor: &mut Cursor<'_>,
    element: &Element,
    description: &ProcessDescription,
) -> Result<Input, Fault> {
    let id = element.trimmed("id").ok_or_else(|| Fault::missing("id"))?.to_owned();
    let mut value = None;
    while let Some(child) = cursor.child()? {
        match child.name.as_str() {
            "Data" | "Reference" if value.is_some() => {
                let text = format!(
                    "the input `{}` has more than one value; several values are several inputs",
                    clip(&id, 80)
                );
                return Err(Fault::at(FaultKind::WrongInputData, id, text));
            }
            "Data" => value = Some(data(cursor, &child, &id, description)?),
            "Reference" => value = Some(reference(cursor, &child, &id)?),
            "Input" => {
                let text = format!("the input `{}` has no inputs of its own", clip(&id, 80));
                return Err(Fault::at(FaultKind::NoSuchInput, child.trimmed("id").unwrap_or(&id), text));
            }
            _ => cursor.skip()?,
        }
    }
    let value = value.ok_or_else(|| {
        Fault::at(FaultKind::MissingParameter, "Data", format!("the input `{}` has no data", clip(&id, 80)))
    })?;
    Ok(Input { id, value })
}

/// `wps:Data`: a `wps:LiteralValue`, an `ows:BoundingBox`, or whatever the format says.
fn data(
    cursor: &mut Cursor<'_>,
    element: &Element,
    id: &str,
    description: &ProcessDescription,
) -> Result<Value, Fault> {
    let declared = description.input(id).map(|input| &input.data);
    let content = cursor.content()?;
    if let Content::Markup(markup) = &content
        && let Some(value) = wrapped(markup, id)?
    {
        return Ok(value);
    }
    match declared {
        Some(DataType::Literal(_)) => Ok(Value::literal(content.into_text())),
        Some(DataType::BoundingBox(_)) => values::box_list(id, content.into_text().trim()),
        Some(DataType::Complex(_)) | None => {
            let given = Given {
                media_type: element.trimmed("mimeType"),
                encoding: element.trimmed("encoding"),
                schema: element.trimmed("schema"),
            };
            values::complex(id, content, given, declared)
        }
    }
}

/// The value, if the content is one of the two elements that hold literals and boxes.
fn wrapped(markup: &str, id: &str) -> Result<Option<Value>, Fault> {
    let mut cursor = Cursor::new(markup.as_bytes())?;
    let Ok(root) = cursor.root() else { return Ok(None) };
    match (root.namespace.as_str(), root.name.as_str()) {
        (super::WPS_2_0, "LiteralValue") => {
            let uom = root.trimmed("uom").map(str::to_owned);
            Ok(Some(Value::Literal { text: cursor.text()?, uom }))
        }
        (super::OWS_2_0 | ows::OWS_1_1, "BoundingBox" | "WGS84BoundingBox") => {
            values::box_element(&mut cursor, id, &root).map(Some)
        }
        _ => Ok(None),
    }
}

fn reference(cursor: &mut Cursor<'_>, element: &Element, id: &str) -> Result<Value, Fault> {
    let text = |name: &str| element.trimmed(name).map(str::to_owned);
    let mut link = Link {
        href: text("href"),
        media_type: text("mimeType"),
        encoding: text("encoding"),
        schema: text("schema"),
        ..Link::default()
    };
    while let Some(child) = cursor.child()? {
        match child.name.as_str() {
            "Body" => link.body = Some(cursor.content()?.into_text()),
            "BodyReference" => {
                link.body_href = Some(child.attribute("href").unwrap_or_default().to_owned());
                cursor.skip()?;
            }
            _ => cursor.skip()?,
        }
    }
    values::reference(id, link)
}

fn output(cursor: &mut Cursor<'_>, element: &Element) -> Result<OutputRequest, Fault> {
    let id = element.trimmed("id").ok_or_else(|| Fault::missing("id"))?.to_owned();
    while let Some(child) = cursor.child()? {
        if child.name == "Output" {
            let text = format!("the output `{}` has no outputs of its own", clip(&id, 80));
            return Err(Fault::at(FaultKind::NoSuchOutput, child.trimmed("id").unwrap_or(&id), text));
        }
        cursor.skip()?;
    }
    let as_reference = match element.trimmed("transmission") {
        None | Some("value") => false,
        Some("reference") => true,
        Some(other) => {
            let text = format!("the transmission `{}` is neither value nor reference", clip(other, 80));
            return Err(Fault::invalid("transmission", text));
        }
    };
    let text = |name: &str| element.trimmed(name).map(str::to_owned);
    let (media_type, encoding, schema) = (text("mimeType"), text("encoding"), text("schema"));
    Ok(OutputRequest { id, as_reference, media_type, encoding, schema, uom: None })
}
