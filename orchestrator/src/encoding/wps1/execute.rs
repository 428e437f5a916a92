//! The Execute request of WPS 1.0.0 (§10.2) from XML and from a query: inputs as typed values, the wanted form of the
//! answer. What a value may be is checked later, against the description.

use wps_remote_protocol::{DataType, Input, Inputs, ProcessDescription, Value};

use super::super::kvp::{self, Entry, Query};
use super::super::ows::{self, Lookup};
use super::super::values::{self, Given, Link};
use super::super::xml::{Characters, Content, Cursor, Element};
use super::super::{Fault, FaultKind, clip};
use crate::engine::job::{Form, OutputRequest};

/// Most inputs of one request.
pub const MAX_INPUTS: usize = 4096;
/// Most outputs that one request names.
pub const MAX_OUTPUTS: usize = 1024;

/// Attributes of the entries of `DataInputs` (§10.2.2.3 table 61), in lower case.
const INPUT_ATTRIBUTES: [&str; 7] = ["mimetype", "encoding", "schema", "uom", "datatype", "href", "method"];
/// Attributes of the entries of `ResponseDocument` and `RawDataOutput`.
const OUTPUT_ATTRIBUTES: [&str; 5] = ["mimetype", "encoding", "schema", "uom", "asreference"];

/// What is to be executed.
#[derive(Debug, Clone, PartialEq)]
pub struct Execute {
    /// Identifier of the process.
    pub process: String,
    /// Its inputs.
    pub inputs: Inputs,
    /// Shape of the answer.
    pub form: Form,
}

/// Reads the content of `wps:Execute`.
pub(super) fn from_xml(cursor: &mut Cursor<'_>, lookup: Lookup<'_>) -> Result<Execute, Fault> {
    let mut process = None;
    let mut inputs = Vec::new();
    let mut form = Form::default();
    while let Some(element) = cursor.child()? {
        match (element.name.as_str(), &process) {
            ("Identifier", None) => process = Some(ows::process(&cursor.text()?, lookup)?),
            ("DataInputs", Some((_, description))) => data_inputs(cursor, description, &mut inputs)?,
            // §10.2.1: the identifier comes first, and without it no value can be understood.
            ("DataInputs", None) => return Err(Fault::missing("Identifier")),
            ("ResponseForm", _) => form = response_form(cursor)?,
            _ => cursor.skip()?,
        }
    }
    let (process, _) = process.ok_or_else(|| Fault::missing("Identifier"))?;
    Ok(Execute { process, inputs, form })
}

fn data_inputs(
    cursor: &mut Cursor<'_>,
    description: &ProcessDescription,
    into: &mut Inputs,
) -> Result<(), Fault> {
    while let Some(element) = cursor.child()? {
        if element.name != "Input" {
            cursor.skip()?;
            continue;
        }
        if into.len() == MAX_INPUTS {
            return Err(too_many_inputs());
        }
        into.push(input(cursor, description)?);
    }
    Ok(())
}

fn too_many_inputs() -> Fault {
    Fault::at(FaultKind::TooManyInputs, "DataInputs", format!("there are more than {MAX_INPUTS} inputs"))
}

fn input(cursor: &mut Cursor<'_>, description: &ProcessDescription) -> Result<Input, Fault> {
    let mut id: Option<String> = None;
    let mut value = None;
    while let Some(element) = cursor.child()? {
        match (element.name.as_str(), &id) {
            ("Identifier", _) => id = Some(cursor.text()?.trim().to_owned()),
            ("Data" | "Reference", None) => return Err(no_input_id()),
            ("Data" | "Reference", Some(id)) if value.is_some() => return Err(several_values(id)),
            ("Data", Some(id)) => value = Some(data(cursor, id, description)?),
            ("Reference", Some(id)) => value = Some(reference(cursor, id, &element)?),
            _ => cursor.skip()?,
        }
    }
    let id = id.filter(|id| !id.is_empty()).ok_or_else(no_input_id)?;
    let value = value.ok_or_else(|| {
        Fault::at(FaultKind::MissingParameter, "Data", format!("the input `{}` has no data", clip(&id, 80)))
    })?;
    Ok(Input { id, value })
}

fn several_values(id: &str) -> Fault {
    let text =
        format!("the input `{}` has more than one value; several values are several inputs", clip(id, 80));
    Fault::at(FaultKind::WrongInputData, id, text)
}

fn no_input_id() -> Fault {
    Fault::at(FaultKind::MissingParameter, "Identifier", "an input has no identifier, or not before its data")
}

fn data(cursor: &mut Cursor<'_>, id: &str, description: &ProcessDescription) -> Result<Value, Fault> {
    let declared = description.input(id).map(|input| &input.data);
    let mut value = None;
    while let Some(element) = cursor.child()? {
        match element.name.as_str() {
            "LiteralData" => {
                let uom = element.trimmed("uom").map(str::to_owned);
                value = Some(Value::Literal { text: cursor.text()?, uom });
            }
            "ComplexData" => {
                let content = cursor.content()?;
                value = Some(values::complex(id, content, given(&element), declared)?);
            }
            // The first name is the standard's, the second that of old browser clients.
            "BoundingBoxData" | "BoundingBox" => value = Some(values::box_element(cursor, id, &element)?),
            _ => cursor.skip()?,
        }
    }
    value.ok_or_else(|| {
        let text = format!(
            "the data of the input `{}` holds neither LiteralData nor ComplexData nor BoundingBoxData",
            clip(id, 80)
        );
        Fault::at(FaultKind::MissingParameter, "Data", text)
    })
}

fn given(element: &Element) -> Given<'_> {
    Given {
        media_type: element.trimmed("mimeType").or_else(|| element.trimmed("format")),
        encoding: element.trimmed("encoding"),
        schema: element.trimmed("schema"),
    }
}

/// `wps:Reference` (§10.2.1 table 54): an address, perhaps headers, perhaps a body.
fn reference(cursor: &mut Cursor<'_>, id: &str, element: &Element) -> Result<Value, Fault> {
    let text = |name: &str| element.trimmed(name).map(str::to_owned);
    let mut link = Link {
        href: text("href"),
        media_type: text("mimeType"),
        encoding: text("encoding"),
        schema: text("schema"),
        method: text("method"),
        ..Link::default()
    };
    while let Some(child) = cursor.child()? {
        match child.name.as_str() {
            "Header" => {
                let part = |name: &str| child.attribute(name).unwrap_or_default().to_owned();
                link.headers.push((part("key"), part("value")));
                cursor.skip()?;
            }
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

fn response_form(cursor: &mut Cursor<'_>) -> Result<Form, Fault> {
    let mut form = Form::default();
    let mut document = false;
    while let Some(element) = cursor.child()? {
        match element.name.as_str() {
            "RawDataOutput" if document => return Err(both_forms()),
            "ResponseDocument" if form.raw => return Err(both_forms()),
            "RawDataOutput" if form.raw => return Err(several_raw()),
            "ResponseDocument" if document => {
                return Err(Fault::invalid("ResponseDocument", "there is more than one ResponseDocument"));
            }
            "RawDataOutput" => {
                form.raw = true;
                form.outputs = vec![output(cursor, &element)?];
            }
            "ResponseDocument" => {
                document = true;
                form.store = flag(&element, "storeExecuteResponse")?;
                form.status = flag(&element, "status")?;
                form.lineage = flag(&element, "lineage")?;
                while let Some(element) = cursor.child()? {
                    if element.name != "Output" {
                        cursor.skip()?;
                        continue;
                    }
                    if form.outputs.len() == MAX_OUTPUTS {
                        return Err(too_many_outputs());
                    }
                    form.outputs.push(output(cursor, &element)?);
                }
            }
            _ => cursor.skip()?,
        }
    }
    checked(form)
}

/// §10.2.1 table 49: one form or the other.
fn both_forms() -> Fault {
    Fault::invalid("RawDataOutput", "RawDataOutput and ResponseDocument exclude each other")
}

fn several_raw() -> Fault {
    Fault::at(FaultKind::TooManyOutputs, "RawDataOutput", "a raw answer holds exactly one output")
}

fn too_many_outputs() -> Fault {
    Fault::invalid("ResponseDocument", format!("more than {MAX_OUTPUTS} outputs are named"))
}

fn output(cursor: &mut Cursor<'_>, element: &Element) -> Result<OutputRequest, Fault> {
    let mut id = String::new();
    while let Some(child) = cursor.child()? {
        if child.name == "Identifier" {
            id = cursor.text()?.trim().to_owned();
        } else {
            cursor.skip()?;
        }
    }
    if id.is_empty() {
        return Err(Fault::at(FaultKind::MissingParameter, "Identifier", "an output has no identifier"));
    }
    Ok(OutputRequest {
        id,
        as_reference: flag(element, "asReference")?,
        media_type: element.trimmed("mimeType").map(str::to_owned),
        encoding: element.trimmed("encoding").map(str::to_owned),
        schema: element.trimmed("schema").map(str::to_owned),
        uom: element.trimmed("uom").map(str::to_owned),
    })
}

fn flag(element: &Element, name: &str) -> Result<bool, Fault> {
    element.trimmed(name).map_or(Ok(false), |text| kvp::boolean(name, text))
}

/// §10.2.1 table 50: a status can be renewed only in a document that is kept.
fn checked(form: Form) -> Result<Form, Fault> {
    if form.status && !form.store {
        let text = "`status` needs `storeExecuteResponse`: a status can be renewed only in a stored response";
        return Err(Fault::invalid("status", text));
    }
    Ok(form)
}

/// Reads an Execute from a query (§10.2.2).
pub(super) fn from_kvp(query: &Query, lookup: Lookup<'_>) -> Result<Execute, Fault> {
    let (process, description) = ows::process(&query.need("Identifier")?, lookup)?;
    let entries = query.entries("DataInputs", &INPUT_ATTRIBUTES)?;
    if entries.len() > MAX_INPUTS {
        return Err(too_many_inputs());
    }
    let mut inputs = Vec::with_capacity(entries.len());
    for entry in entries {
        let declared = description.input(&entry.id).map(|input| &input.data);
        let value = entry_value(&entry, declared)?;
        inputs.push(Input { id: entry.id, value });
    }
    let raw = query.entries("RawDataOutput", &OUTPUT_ATTRIBUTES)?;
    let document = query.entries("ResponseDocument", &OUTPUT_ATTRIBUTES)?;
    if !raw.is_empty() && !document.is_empty() {
        return Err(both_forms());
    }
    if raw.len() > 1 {
        return Err(several_raw());
    }
    if document.len() > MAX_OUTPUTS {
        return Err(too_many_outputs());
    }
    let form = Form {
        raw: !raw.is_empty(),
        store: query.flag("storeExecuteResponse")?,
        status: query.flag("status")?,
        lineage: query.flag("lineage")?,
        outputs: raw.iter().chain(&document).map(output_entry).collect::<Result<_, _>>()?,
    };
    Ok(Execute { process, inputs, form: checked(form)? })
}

fn entry_value(entry: &Entry, declared: Option<&DataType>) -> Result<Value, Fault> {
    let id = &entry.id;
    if let Some(href) = entry.attribute("href") {
        let text = |name: &str| entry.attribute(name).map(str::to_owned);
        let link = Link {
            href: Some(href.to_owned()),
            media_type: text("mimetype"),
            encoding: text("encoding"),
            schema: text("schema"),
            method: text("method"),
            ..Link::default()
        };
        return values::reference(id, link);
    }
    let text = entry.value.clone().ok_or_else(|| {
        Fault::invalid("DataInputs", format!("`{}` has no value: write `id=value`", clip(id, 80)))
    })?;
    match declared {
        Some(DataType::BoundingBox(_)) => values::box_list(id, &text),
        Some(DataType::Complex(_)) => {
            let given = Given {
                media_type: entry.attribute("mimetype"),
                encoding: entry.attribute("encoding"),
                schema: entry.attribute("schema"),
            };
            values::complex(id, Content::Text(Characters::plain(text)), given, declared)
        }
        Some(DataType::Literal(_)) | None => {
            Ok(Value::Literal { text, uom: entry.attribute("uom").map(str::to_owned) })
        }
    }
}

fn output_entry(entry: &Entry) -> Result<OutputRequest, Fault> {
    Ok(OutputRequest {
        id: entry.id.clone(),
        as_reference: match entry.attribute("asreference") {
            Some(text) => kvp::boolean("asReference", text)?,
            None => false,
        },
        media_type: entry.attribute("mimetype").map(str::to_owned),
        encoding: entry.attribute("encoding").map(str::to_owned),
        schema: entry.attribute("schema").map(str::to_owned),
        uom: entry.attribute("uom").map(str::to_owned),
    })
}
