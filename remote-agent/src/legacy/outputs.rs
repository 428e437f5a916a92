//! Outputs as the plugin reads them: texts as `textual`, files by a path that GeoServer can open, names and types that it
//! knows. Pure conversions.

use wps_remote_protocol::legacy::LegacyOutput;
use wps_remote_protocol::{BoundingBox, Content, ExecutionId, Output, Outputs, Value};

use super::registration::{OfferedOutput, plain_text};
use super::{Offer, Settings};
use crate::config::mapped;

/// The outputs of a completed job. What the descriptor says of them is absent if it is gone meanwhile.
pub(super) fn write(
    outputs: &Outputs,
    execution: &ExecutionId,
    offer: Option<&Offer>,
    settings: &Settings,
) -> Vec<LegacyOutput> {
    let written = outputs.iter().map(|output| {
        let declared = offer.and_then(|offer| offer.output(&output.id));
        one(output, execution, declared, settings)
    });
    written.collect()
}

fn one(
    output: &Output,
    execution: &ExecutionId,
    declared: Option<&OfferedOutput>,
    settings: &Settings,
) -> LegacyOutput {
    let name = super::registration::result_name(&output.id, settings.result_names);
    let root = declared.and_then(|declared| declared.upload.as_deref()).unwrap_or_default();
    let (is_text, value) = match &output.value {
        Value::Complex { content: Content::Shared(file), .. } => {
            let path = settings.shared.as_deref().unwrap_or(std::path::Path::new("")).join(&file.path);
            (false, mapped(&settings.path_map, &path.to_string_lossy()))
        }
        Value::Reference { href, .. } => (false, uploaded(href, execution, root)),
        Value::Literal { text, .. } | Value::Complex { content: Content::Text(text), .. } => {
            (true, text.clone())
        }
        Value::Complex { content: Content::Bytes(bytes), .. } => {
            (true, String::from_utf8_lossy(bytes).into_owned())
        }
        Value::BoundingBox(corners) => (true, box_text(corners)),
    };
    let composed = declared.and_then(|declared| declared.layers.clone());
    let (kind, value) = match (&composed, is_text) {
        (Some(layers), _) => (declared.map_or("application/owc", |declared| &declared.kind), layers.clone()),
        (None, true) => (LegacyOutput::TEXTUAL, plain_text(&value)),
        (None, false) => (declared.map_or("complex", |declared| &declared.kind), value),
    };
    let mut written = LegacyOutput::new(&name, kind, &value);
    written.publish = Some(declared.is_some_and(|declared| declared.publish));
    written.metadata = output.metadata.clone().filter(|text| !text.is_empty());
    if let Some(declared) = declared {
        written.title.clone_from(&declared.title);
        written.description.clone_from(&declared.description);
        written.layer.clone_from(&declared.layer);
        written.style.clone_from(&declared.style);
        written.workspace.clone_from(&declared.workspace);
    }
    written
}

/// What lies on an upload server is named by its path there: GeoServer looks for it below `uploadedFilesBasePath`.
fn uploaded(href: &str, execution: &ExecutionId, root: &str) -> String {
    let folder = format!("/{execution}/");
    let tail = href.find(&folder).map_or(href, |at| &href[at + 1..]);
    let tail = percent_encoding::percent_decode_str(tail).decode_utf8_lossy();
    match root.trim_matches('/') {
        "" => tail.into_owned(),
        root => format!("{root}/{tail}"),
    }
}

/// `x0,y0,x1,y1[,crs]`.
fn box_text(corners: &BoundingBox) -> String {
    let numbers = corners.lower.iter().chain(&corners.upper).map(f64::to_string);
    numbers.chain(corners.crs.clone()).collect::<Vec<_>>().join(",")
}
