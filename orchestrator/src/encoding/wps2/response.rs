//! StatusInfo and Result of WPS 2.0.2. Everything comes from the job as it is stored, so that the documents are the
//! same after a restart and when the process is no longer offered.

use wps_remote_protocol::{BoundingBox, DataType, Value};

use super::super::delivery::{self, Delivery, Files, Writing};
use super::super::wps1::describe::schema_media_type;
use super::super::xml::Writer;
use super::super::{Fault, iso_time};
use crate::engine::job::{Job, JobState, Timestamp};

/// The word for a job's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// What the state says.
    Actual,
    /// The answer to an asynchronous Execute says so, whatever has happened since.
    Accepted,
    /// The answer to Dismiss says so, even while the end is not confirmed.
    Dismissed,
}

/// Writes a StatusInfo. `now` is for estimates; `None` leaves them out.
pub fn status_info(job: &Job, status: Status, now: Option<Timestamp>) -> String {
    let mut writer = Writer::new();
    super::open_root(&mut writer, "wps:StatusInfo", &[]);
    let word = match (status, &job.state) {
        (Status::Accepted, _) => "Accepted",
        (Status::Dismissed, _) | (Status::Actual, JobState::Dismissed { .. }) => "Dismissed",
        (Status::Actual, JobState::Created | JobState::Accepted { .. } | JobState::Dispatched { .. }) => {
            "Accepted"
        }
        (Status::Actual, JobState::Running { .. } | JobState::Dismissing { .. }) => "Running",
        (Status::Actual, JobState::Successful { .. }) => "Succeeded",
        (Status::Actual, JobState::Failed { .. }) => "Failed",
    };
    writer.leaf("wps:JobID", &[], &job.id.to_string()).leaf("wps:Status", &[], word);
    if let Some(expires) = job.expires.filter(|_| matches!(word, "Succeeded" | "Failed")) {
        writer.leaf("wps:ExpirationDate", &[], &iso_time(expires));
    }
    let going = matches!(word, "Accepted" | "Running");
    if let (true, Some(now)) = (going, now) {
        if let Some(end) = estimate(job, now) {
            writer.leaf("wps:EstimatedCompletion", &[], &iso_time(end));
        }
        writer.leaf("wps:NextPoll", &[], &iso_time(now.plus_ms(pause_ms(job, now))));
    }
    if matches!(word, "Running" | "Succeeded") {
        writer.leaf("wps:PercentCompleted", &[], &job.percent().to_string());
    }
    writer.finish()
}

/// When the job will have ended if it goes on as it has so far.
fn estimate(job: &Job, now: Timestamp) -> Option<Timestamp> {
    let (JobState::Running { percent, .. }, Some(started)) = (&job.state, job.started) else { return None };
    let spent = now.since_ms(started);
    let percent = u64::from((*percent).min(100));
    (percent > 0 && spent > 0).then(|| now.plus_ms(spent.saturating_mul(100 - percent) / percent))
}

/// When to ask again: the longer a job has been there, the longer it may stay.
fn pause_ms(job: &Job, now: Timestamp) -> u64 {
    (now.since_ms(job.created) / 10).clamp(500, 10_000)
}

/// Writes a Result with the outputs that were asked for.
pub fn result(job: &Job, outputs_url: &str, files: &Files) -> String {
    let mut writer = Writer::new();
    super::open_root(&mut writer, "wps:Result", &[]);
    writer.leaf("wps:JobID", &[], &job.id.to_string());
    if let Some(expires) = job.expires {
        writer.leaf("wps:ExpirationDate", &[], &iso_time(expires));
    }
    for delivery in delivery::deliveries(job) {
        writer.open("wps:Output", &[("id", &delivery.output.id)]);
        if delivery.wants_link() || delivery.is_link(files) {
            write_link(&mut writer, job, delivery, outputs_url);
        } else {
            write_data(&mut writer, delivery, files);
        }
        writer.close();
    }
    writer.finish()
}

fn write_link(writer: &mut Writer, job: &Job, delivery: Delivery<'_>, outputs_url: &str) {
    let mut link = delivery.link(job, outputs_url);
    if matches!(delivery.output.value, Value::BoundingBox(_)) {
        // A box is written in another namespace than for WPS 1.0.0.
        link.push_str("?version=");
        link.push_str(super::VERSION);
    }
    let format = delivery.format();
    let mut attributes =
        vec![("xlink:href", link.as_str()), ("mimeType", schema_media_type(&format.media_type))];
    if let Some(schema) = &format.schema {
        attributes.push(("schema", schema));
    }
    writer.leaf("wps:Reference", &attributes, "");
}

fn write_data(writer: &mut Writer, delivery: Delivery<'_>, files: &Files) {
    let declared = delivery.declared.map(|declared| &declared.data);
    match &delivery.output.value {
        Value::Literal { text, uom } => {
            writer.open("wps:Data", &[("mimeType", "text/xml")]);
            write_literal(writer, &[], text, uom.as_deref(), declared);
            writer.close();
        }
        Value::BoundingBox(area) => {
            writer.open("wps:Data", &[("mimeType", "text/xml")]);
            write_box(writer, &[], area, declared);
            writer.close();
        }
        Value::Complex { schema, .. } => {
            let format = delivery.format();
            let wanted = delivery.wanted.and_then(|wanted| wanted.encoding.as_deref());
            let writing = delivery::writing(delivery.bytes(files).unwrap_or_default(), &format, wanted);
            let mut attributes = vec![("mimeType", schema_media_type(&format.media_type))];
            if matches!(writing, Writing::Base64(_)) {
                attributes.push(("encoding", "base64"));
            }
            if let Some(schema) = format.schema.as_ref().or(schema.as_ref()) {
                attributes.push(("schema", schema));
            }
            match writing {
                Writing::Text(text) => writer.leaf("wps:Data", &attributes, text),
                Writing::Markup(markup) => writer.leaf_markup("wps:Data", &attributes, markup),
                Writing::Base64(bytes) => writer.leaf_base64("wps:Data", &attributes, bytes),
            };
        }
        // A reference is never data; callers write it as such.
        Value::Reference { .. } => {}
    }
}

fn write_literal(
    writer: &mut Writer,
    extra: &[(&str, &str)],
    text: &str,
    uom: Option<&str>,
    declared: Option<&DataType>,
) {
    let literal = match declared {
        Some(DataType::Literal(literal)) => Some(literal),
        _ => None,
    };
    let name = literal.map_or("string", |literal| literal.kind.xs_name());
    let kind = format!("http://www.w3.org/2001/XMLSchema#{name}");
    let mut attributes = extra.to_vec();
    attributes.push(("dataType", &kind));
    if let Some(uom) = uom.or(literal.and_then(|literal| literal.uom.as_deref())) {
        attributes.push(("uom", uom));
    }
    writer.leaf("wps:LiteralValue", &attributes, text);
}

fn write_box(writer: &mut Writer, extra: &[(&str, &str)], area: &BoundingBox, declared: Option<&DataType>) {
    let default = match declared {
        Some(DataType::BoundingBox(data)) => data.crs.first().map(String::as_str),
        _ => None,
    };
    // a box without reference system means nothing.
    let crs = area.crs.as_deref().or(default).unwrap_or("EPSG:4326");
    let corner = |numbers: &[f64]| numbers.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    let dimensions = area.lower.len().to_string();
    let mut attributes = extra.to_vec();
    attributes.extend([("crs", crs), ("dimensions", dimensions.as_str())]);
    writer.open("ows:BoundingBox", &attributes);
    writer.leaf("ows:LowerCorner", &[], &corner(&area.lower)).leaf(
        "ows:UpperCorner",
        &[],
        &corner(&area.upper),
    );
    writer.close();
}

/// A literal or box as a document of its own, for raw answers; `None` for other values.
pub fn raw_document(delivery: &Delivery<'_>) -> Option<String> {
    let declared = delivery.declared.map(|declared| &declared.data);
    let mut writer = Writer::new();
    match &delivery.output.value {
        Value::Literal { text, uom } => {
            write_literal(&mut writer, &[("xmlns:wps", super::WPS_2_0)], text, uom.as_deref(), declared);
        }
        Value::BoundingBox(area) => write_box(&mut writer, &[("xmlns:ows", super::OWS_2_0)], area, declared),
        Value::Complex { .. } | Value::Reference { .. } => return None,
    }
    Some(writer.finish())
}

/// Whether the job can still be asked for: a dismissed one cannot.
pub fn known(job: &Job) -> Result<(), Fault> {
    match job.state {
        JobState::Dismissed { .. } => Err(Fault::no_such_job(&job.id.to_string())),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
