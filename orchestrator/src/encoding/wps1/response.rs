//! The ExecuteResponse of WPS 1.0.0 (§10.3) of a job in any state. Everything comes from the job as it is stored, so that
//! the document is the same after a restart and when the process is no longer offered.

use wps_remote_protocol::{BoundingBox, Content, DataType, Format, OutputDescription, Value};

use super::super::delivery::{self, Delivery, Files, Writing};
use super::super::ows::{self, OWS_1_1};
use super::super::xml::{self, Writer};
use super::super::{Fault, iso_time, state_time};
use super::capabilities::write_brief;
use super::describe::{schema_media_type, write_names};
use crate::engine::job::{Job, JobState, OutputRequest};

/// What a document needs beside the job.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    /// Address of the service, without query.
    pub service_url: &'a str,
    /// Address of the job's status document, if the answer is to name it.
    pub status_url: Option<&'a str>,
    /// Address below which outputs are.
    pub outputs_url: &'a str,
    /// Address below which inputs of jobs are that repeat them.
    pub inputs_url: &'a str,
    /// Result files that stand in the document.
    pub files: &'a Files,
    /// The client asks by POST: then it gets a percentage in every state, which the schema does not allow but a client
    /// in use reads.
    pub percent_always: bool,
    /// The client has just given the job up: say so, even while its end is not confirmed.
    pub dismissing: bool,
}

/// Writes the document.
pub fn document(job: &Job, view: &View<'_>) -> String {
    let mut writer = Writer::new();
    let instance = format!("{}?service=WPS&version=1.0.0&request=GetCapabilities", view.service_url);
    let mut attributes = vec![("serviceInstance", instance.as_str())];
    if let Some(url) = view.status_url {
        attributes.push(("statusLocation", url));
    }
    super::open_root(&mut writer, "wps:ExecuteResponse", "wpsExecute_response.xsd", &attributes);
    writer.open("wps:Process", &[("wps:processVersion", &job.description.version)]);
    write_brief(&mut writer, &job.description);
    writer.close();
    write_status(&mut writer, job, view);
    if job.form.lineage {
        write_lineage(&mut writer, job, view);
    }
    let deliveries = delivery::deliveries(job);
    if !deliveries.is_empty() {
        writer.open("wps:ProcessOutputs", &[]);
        for delivery in deliveries {
            write_output(&mut writer, job, delivery, view);
        }
        writer.close();
    }
    writer.finish()
}

/// The answer to GeoServer's GetExecutions: process and status of each job.
pub fn list(jobs: &[Job], status_url: impl Fn(&Job) -> String) -> String {
    let mut writer = Writer::new();
    let count = jobs.len().to_string();
    super::open_root(&mut writer, "wps:GetExecutionsResponse", "wpsAll.xsd", &[("count", &count)]);
    let files = Files::new();
    for job in jobs {
        let url = status_url(job);
        writer.open("wps:ExecuteResponse", &[("executionId", &job.id.to_string()), ("statusLocation", &url)]);
        writer.open("wps:Process", &[("wps:processVersion", &job.description.version)]);
        write_brief(&mut writer, &job.description);
        writer.close();
        let view = View {
            service_url: "",
            status_url: None,
            outputs_url: "",
            inputs_url: "",
            files: &files,
            percent_always: false,
            dismissing: false,
        };
        write_status(&mut writer, job, &view);
        writer.close();
    }
    writer.finish()
}

fn write_status(writer: &mut Writer, job: &Job, view: &View<'_>) {
    let time = iso_time(state_time(job));
    writer.open("wps:Status", &[("creationTime", &time)]);
    let percent = job.percent().to_string();
    // Without `status`, a stored response stays as it was first until the end (§10.2.1 table 50).
    let frozen = job.form.store && !job.form.status && !job.state.is_final();
    match &job.state {
        _ if view.dismissing && !job.state.is_final() => write_failed(writer, &delivery::dismissed(job)),
        JobState::Created => accepted(writer, view, "created"),
        JobState::Accepted { waiting } => accepted(writer, view, &waiting.to_string()),
        JobState::Dispatched { execution } => {
            accepted(writer, view, &format!("sent to the agent `{}`", execution.agent));
        }
        JobState::Running { .. } | JobState::Dismissing { .. } if frozen => {
            accepted(writer, view, "accepted")
        }
        JobState::Running { execution, lost_since: Some(_), .. } => {
            let text = format!("the agent `{}` is away; waiting for it to come back", execution.agent);
            writer.leaf("wps:ProcessPaused", &[("percentCompleted", &percent)], &text);
        }
        JobState::Running { message, .. } => {
            let text = if message.trim().is_empty() { "running" } else { message };
            writer.leaf("wps:ProcessStarted", &[("percentCompleted", &percent)], text);
        }
        JobState::Dismissing { .. } => {
            let why = job.overdue.as_ref().map(|limit| format!("being ended: {}", limit.text()));
            let text = why.as_deref().unwrap_or("being dismissed");
            writer.leaf("wps:ProcessStarted", &[("percentCompleted", &percent)], text);
        }
        JobState::Successful { .. } => {
            let attributes: &[_] = if view.percent_always { &[("percentCompleted", "100")] } else { &[] };
            writer.leaf("wps:ProcessSucceeded", attributes, "succeeded");
        }
        JobState::Failed { failure, .. } => write_failed(writer, &Fault::of_failure(failure)),
        JobState::Dismissed { .. } => write_failed(writer, &delivery::dismissed(job)),
    }
    writer.close();
}

fn accepted(writer: &mut Writer, view: &View<'_>, text: &str) {
    let attributes: &[_] = if view.percent_always { &[("percentCompleted", "0")] } else { &[] };
    writer.leaf("wps:ProcessAccepted", attributes, text);
}

fn write_failed(writer: &mut Writer, fault: &Fault) {
    writer.open("wps:ProcessFailed", &[]);
    ows::write_report(writer, fault);
    writer.close();
}

/// A copy of what the client asked for (§10.3.1 table 56).
fn write_lineage(writer: &mut Writer, job: &Job, view: &View<'_>) {
    if !job.inputs.is_empty() {
        writer.open("wps:DataInputs", &[]);
        for (n, input) in job.inputs.iter().enumerate() {
            writer.open("wps:Input", &[]);
            let declared = job.description.input(&input.id);
            write_names(writer, &input.id, declared.and_then(|d| d.title.as_deref()), "");
            let media_type = match &input.value {
                Value::Complex { media_type, .. } => media_type.as_str(),
                _ => "text/plain",
            };
            match &input.value {
                Value::Reference { .. } => write_reference(writer, &input.value),
                // Too large to stand here.
                Value::Complex { content: Content::Shared(file), .. }
                    if !view.files.contains_key(&file.path) =>
                {
                    let link = format!("{}/{}/{n}", view.inputs_url, job.id);
                    let media_type = schema_media_type(media_type);
                    writer.leaf("wps:Reference", &[("xlink:href", &link), ("mimeType", media_type)], "");
                }
                value => {
                    let (format, data) = (Format::new(media_type), declared.map(|d| &d.data));
                    write_data(writer, value, data, &format, None, view.files);
                }
            }
            writer.close();
        }
        writer.close();
    }
    let all: Vec<OutputRequest>;
    let wanted = if job.form.outputs.is_empty() {
        let plain =
            |output: &OutputDescription| OutputRequest { id: output.id.clone(), ..OutputRequest::default() };
        all = job.description.outputs.iter().map(plain).collect();
        &all
    } else {
        &job.form.outputs
    };
    if wanted.is_empty() {
        return;
    }
    writer.open("wps:OutputDefinitions", &[]);
    for output in wanted {
        let mut attributes = vec![("asReference", if output.as_reference { "true" } else { "false" })];
        if let Some(media_type) = &output.media_type {
            attributes.push(("mimeType", schema_media_type(media_type)));
        }
        for (name, value) in
            [("encoding", &output.encoding), ("schema", &output.schema), ("uom", &output.uom)]
        {
            if let Some(value) = value {
                attributes.push((name, value));
            }
        }
        writer.open("wps:Output", &attributes).leaf("ows:Identifier", &[], &output.id).close();
    }
    writer.close();
}

/// An input by reference as the client gave it, without headers that prove who it is: the document may be read by others.
fn write_reference(writer: &mut Writer, value: &Value) {
    let Value::Reference { href, media_type, encoding, schema, headers, body, body_href, .. } = value else {
        return;
    };
    let mut attributes = vec![("xlink:href", href.as_str())];
    if body.is_some() || body_href.is_some() {
        attributes.push(("method", "POST"));
    }
    if !media_type.is_empty() {
        attributes.push(("mimeType", schema_media_type(media_type)));
    }
    for (name, value) in [("encoding", encoding), ("schema", schema)] {
        if let Some(value) = value {
            attributes.push((name, value));
        }
    }
    if headers.is_empty() && body.is_none() && body_href.is_none() {
        writer.leaf("wps:Reference", &attributes, "");
        return;
    }
    writer.open("wps:Reference", &attributes);
    let secret = |name: &str| {
        ["authorization", "cookie", "proxy-authorization"]
            .iter()
            .any(|known| name.eq_ignore_ascii_case(known))
    };
    for (key, value) in headers.iter().filter(|(key, _)| !secret(key)) {
        writer.leaf("wps:Header", &[("key", key), ("value", value)], "");
    }
    if let Some(body) = body {
        match xml::embeddable(body) {
            Some(markup) => writer.leaf_markup("wps:Body", &[], markup),
            None => writer.leaf("wps:Body", &[], body),
        };
    }
    if let Some(href) = body_href {
        writer.leaf("wps:BodyReference", &[("xlink:href", href)], "");
    }
    writer.close();
}

fn write_output(writer: &mut Writer, job: &Job, delivery: Delivery<'_>, view: &View<'_>) {
    writer.open("wps:Output", &[]);
    let declared = delivery.declared;
    let title = declared.and_then(|declared| declared.title.as_deref());
    let summary = declared.map_or("", |declared| declared.summary.as_str());
    write_names(writer, &delivery.output.id, title, summary);
    let format = delivery.format();
    if delivery.is_link(view.files) {
        let link = delivery.link(job, view.outputs_url);
        let mut attributes =
            vec![("href", link.as_str()), ("mimeType", schema_media_type(&format.media_type))];
        if let Some(schema) = &format.schema {
            attributes.push(("schema", schema));
        }
        writer.leaf("wps:Reference", &attributes, "");
    } else {
        let encoding = delivery.wanted.and_then(|wanted| wanted.encoding.as_deref());
        let data = declared.map(|declared| &declared.data);
        write_data(writer, &delivery.output.value, data, &format, encoding, view.files);
    }
    writer.close();
}

/// `wps:Data` with a value of an input or an output.
fn write_data(
    writer: &mut Writer,
    value: &Value,
    declared: Option<&DataType>,
    format: &Format,
    encoding: Option<&str>,
    files: &Files,
) {
    writer.open("wps:Data", &[]);
    match value {
        Value::Literal { text, uom } => {
            let kind = match declared {
                Some(DataType::Literal(literal)) => format!("xs:{}", literal.kind.xs_name()),
                _ => "xs:string".to_owned(),
            };
            let mut attributes = vec![("dataType", kind.as_str())];
            let declared_uom = match declared {
                Some(DataType::Literal(literal)) => literal.uom.as_deref(),
                _ => None,
            };
            if let Some(uom) = uom.as_deref().or(declared_uom) {
                attributes.push(("uom", uom));
            }
            writer.leaf("wps:LiteralData", &attributes, text);
        }
        Value::BoundingBox(area) => write_box(writer, "wps:BoundingBoxData", &[], area),
        Value::Complex { content, schema, .. } => {
            let bytes: &[u8] = match content {
                Content::Text(text) => text.as_bytes(),
                Content::Bytes(bytes) => bytes,
                Content::Shared(file) => files.get(&file.path).map_or(&[], Vec::as_slice),
            };
            write_complex(writer, bytes, format, schema.as_deref(), encoding);
        }
        // A reference is never data; callers write it as such.
        Value::Reference { .. } => {}
    }
    writer.close();
}

fn write_complex(
    writer: &mut Writer,
    bytes: &[u8],
    format: &Format,
    schema: Option<&str>,
    encoding: Option<&str>,
) {
    let mut attributes = vec![("mimeType", schema_media_type(&format.media_type))];
    let writing = delivery::writing(bytes, format, encoding);
    if matches!(writing, Writing::Base64(_)) {
        attributes.push(("encoding", "base64"));
    }
    if let Some(schema) = format.schema.as_deref().or(schema) {
        attributes.push(("schema", schema));
    }
    match writing {
        Writing::Text(text) => writer.leaf("wps:ComplexData", &attributes, text),
        Writing::Markup(markup) => writer.leaf_markup("wps:ComplexData", &attributes, markup),
        Writing::Base64(bytes) => writer.leaf_base64("wps:ComplexData", &attributes, bytes),
    };
}

fn write_box(writer: &mut Writer, name: &'static str, extra: &[(&str, &str)], area: &BoundingBox) {
    let dimensions = area.lower.len().to_string();
    let mut attributes = extra.to_vec();
    if let Some(crs) = &area.crs {
        attributes.push(("crs", crs));
    }
    attributes.push(("dimensions", &dimensions));
    writer.open(name, &attributes);
    writer.leaf("ows:LowerCorner", &[], &corner(&area.lower)).leaf(
        "ows:UpperCorner",
        &[],
        &corner(&area.upper),
    );
    writer.close();
}

fn corner(numbers: &[f64]) -> String {
    numbers.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

/// A bounding box as a document of its own, for raw answers.
pub fn box_document(area: &BoundingBox) -> String {
    let mut writer = Writer::new();
    write_box(&mut writer, "ows:BoundingBox", &[("xmlns:ows", OWS_1_1)], area);
    writer.finish()
}

#[cfg(test)]
mod tests;
