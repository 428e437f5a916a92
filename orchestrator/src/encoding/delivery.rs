//! How an output of a finished job reaches a client: which ones were asked for, under which MIME type, as a link or
//! inside of a document, and in which writing. Shared by all faces; reads no file itself.

use std::collections::HashMap;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use wps_remote_protocol::{Content, DataType, Format, Output, OutputDescription, SharedFile, Value};

use super::{Fault, FaultKind, xml};
use crate::engine::job::{Job, JobState, OutputRequest};
use crate::matching;

/// Contents of result files that were read to stand in a document, by the path of the [`SharedFile`].
pub type Files = HashMap<String, Vec<u8>>;

/// Characters that stand unescaped in a segment of a path (RFC 3986 §2.3).
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// One output on its way to a client.
#[derive(Debug, Clone, Copy)]
pub struct Delivery<'a> {
    /// The job's output.
    pub output: &'a Output,
    /// Its declaration.
    pub declared: Option<&'a OutputDescription>,
    /// What the client wanted; absent = nothing in particular.
    pub wanted: Option<&'a OutputRequest>,
}

/// The outputs that the job's client asked for, in the order of its request; none before success.
pub fn deliveries(job: &Job) -> Vec<Delivery<'_>> {
    let JobState::Successful { outputs, .. } = &job.state else { return Vec::new() };
    let with = |output, wanted: Option<_>| {
        let output: &Output = output;
        Delivery { output, declared: job.description.output(&output.id), wanted }
    };
    if job.form.outputs.is_empty() {
        return outputs.iter().map(|output| with(output, None)).collect();
    }
    let find = |wanted: &&OutputRequest| outputs.iter().find(|output| output.id == wanted.id);
    job.form.outputs.iter().filter_map(|wanted| Some(with(find(&wanted)?, Some(wanted)))).collect()
}

/// One output by its identifier, whether it was asked for or not; the only one where none is named.
pub fn one<'a>(job: &'a Job, id: Option<&str>) -> Result<Delivery<'a>, Fault> {
    let JobState::Successful { outputs, .. } = &job.state else {
        return Err(not_ready(job));
    };
    let id = match id {
        Some(id) => id,
        None => match outputs.as_slice() {
            [only] => &only.id,
            _ => return Err(Fault::missing("outputId")),
        },
    };
    let output = outputs.iter().find(|output| output.id == id).ok_or_else(|| {
        let text = format!("the job has no output `{}`", super::clip(id, 80));
        Fault::at(FaultKind::NoSuchOutput, "outputId", text)
    })?;
    let wanted = job.form.outputs.iter().find(|wanted| wanted.id == id);
    Ok(Delivery { output, declared: job.description.output(id), wanted })
}

/// Why a job has no outputs (yet).
pub fn not_ready(job: &Job) -> Fault {
    match &job.state {
        JobState::Failed { failure, .. } => Fault::of_failure(failure),
        JobState::Dismissed { .. } | JobState::Dismissing { .. } => dismissed(job),
        state => Fault::new(
            FaultKind::ResultNotReady,
            format!("the job {} has not ended yet, it is {}", job.id, state.name()),
        ),
    }
}

/// What clients are told of a job that was given up.
pub fn dismissed(job: &Job) -> Fault {
    let mut text = format!("the job {} was dismissed", job.id);
    if let JobState::Dismissed { receipt: Some(receipt), .. } = &job.state {
        text.push_str(&format!("; {receipt}"));
    }
    Fault::new(FaultKind::JobFailed, text)
}

impl<'a> Delivery<'a> {
    /// The format of the answer: what was asked for, else what the agent said, else the declared default.
    pub fn format(&self) -> Format {
        let declared = match self.declared.map(|declared| &declared.data) {
            Some(DataType::Complex(complex)) => complex.formats.as_slice(),
            _ => &[],
        };
        let said = match &self.output.value {
            Value::Complex { media_type, .. } | Value::Reference { media_type, .. } => media_type.as_str(),
            Value::Literal { .. } => "text/plain",
            Value::BoundingBox(_) => "text/xml",
        };
        let wanted = self.wanted.and_then(|wanted| wanted.media_type.as_deref());
        let chosen = wanted.or(Some(said).filter(|said| !said.is_empty()));
        match chosen {
            // The declared format knows schema and encoding; the name stays as the client wrote it.
            Some(name) => {
                let known =
                    declared.iter().find(|format| matching::same_media_type(&format.media_type, name));
                let known = known.cloned().unwrap_or_else(|| Format::new(name));
                Format { media_type: name.to_owned(), ..known }
            }
            None => declared.first().cloned().unwrap_or_else(|| Format::new("application/octet-stream")),
        }
    }

    /// Whether the client asked for a link.
    pub fn wants_link(&self) -> bool {
        self.wanted.is_some_and(|wanted| wanted.as_reference)
    }

    /// Whether the client asked for base64.
    pub fn wants_base64(&self) -> bool {
        let encoding = self.wanted.and_then(|wanted| wanted.encoding.as_deref());
        encoding.is_some_and(|encoding| encoding.trim().eq_ignore_ascii_case("base64"))
    }

    /// The file that holds the output, if it is one.
    pub fn file(&self) -> Option<&'a SharedFile> {
        match &self.output.value {
            Value::Complex { content: Content::Shared(file), .. } => Some(file),
            _ => None,
        }
    }

    /// Whether the answer is a link: it was asked for, or the content is too large to stand in a document (its file has
    /// not been read). Literals and boxes are never links (OGC 05-007r7 §10.3.1 table 58).
    pub fn is_link(&self, files: &Files) -> bool {
        match &self.output.value {
            Value::Reference { .. } => true,
            Value::Complex { content, .. } => {
                let unread = matches!(content, Content::Shared(file) if !files.contains_key(&file.path));
                unread || self.wants_link()
            }
            Value::Literal { .. } | Value::BoundingBox(_) => false,
        }
    }

    /// The last segment of its address: the name of its file, or one made of the identifier and the format.
    pub fn file_name(&self) -> String {
        if let Some(file) = self.file() {
            return file.path.rsplit('/').next().unwrap_or_default().to_owned();
        }
        let format = self.format();
        let plain: String = self
            .output
            .id
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '_' })
            .collect();
        format!("{}.{}", plain.trim_start_matches('.'), extension(&format.media_type))
    }

    /// Its address below `outputs_url`.
    pub fn link(&self, job: &Job, outputs_url: &str) -> String {
        if let Value::Reference { href, .. } = &self.output.value {
            return href.clone();
        }
        let id = utf8_percent_encode(&self.output.id, SEGMENT);
        let name = self.file_name();
        let name = utf8_percent_encode(&name, SEGMENT);
        format!("{outputs_url}/{}/{id}/{name}", job.id)
    }

    /// The bytes of a complex value that is not a file, or is one that has been read.
    pub fn bytes<'f>(&self, files: &'f Files) -> Option<&'f [u8]>
    where
        'a: 'f,
    {
        match &self.output.value {
            Value::Complex { content: Content::Text(text), .. } => Some(text.as_bytes()),
            Value::Complex { content: Content::Bytes(bytes), .. } => Some(bytes),
            Value::Complex { content: Content::Shared(file), .. } => files.get(&file.path).map(Vec::as_slice),
            Value::Literal { .. } | Value::BoundingBox(_) | Value::Reference { .. } => None,
        }
    }
}

/// How bytes stand in an XML document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writing<'a> {
    /// As characters.
    Text(&'a str),
    /// As elements.
    Markup(&'a str),
    /// As base64.
    Base64(&'a [u8]),
}

/// Chooses the writing: base64 when it was asked for or nothing else is possible, elements for well-formed XML.
pub fn writing<'a>(bytes: &'a [u8], format: &Format, wanted_encoding: Option<&str>) -> Writing<'a> {
    let encoding = wanted_encoding.or(format.encoding.as_deref()).unwrap_or_default();
    if encoding.eq_ignore_ascii_case("base64") {
        return Writing::Base64(bytes);
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return Writing::Base64(bytes) };
    if format.is_xml() {
        return xml::embeddable(text).map_or(Writing::Text(text), Writing::Markup);
    }
    // Characters that XML cannot hold would be lost.
    if format.is_text() && text.chars().all(xml::is_xml_char) {
        Writing::Text(text)
    } else {
        Writing::Base64(bytes)
    }
}

fn extension(media_type: &str) -> &'static str {
    let bare = media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match bare.as_str() {
        "text/plain" => "txt",
        "text/csv" => "csv",
        "text/html" => "html",
        "application/zip" => "zip",
        "application/pdf" => "pdf",
        "application/json" => "json",
        "image/tiff" => "tif",
        "image/png" => "png",
        "image/jpeg" => "jpg",
        _ if bare.ends_with("json") => "json",
        _ if bare.ends_with("xml") || bare.starts_with("application/gml") => "xml",
        _ => "bin",
    }
}
