//! The native dialect: every message of [`crate::message`] as one JSON object in a payload element of our namespace.
//! Knows names, versions and bounds; knows nothing of stanzas, rooms or sockets.
//!
//! A payload is `<NAME xmlns='urn:xmpp:wps-remote:1'><json xmlns='urn:xmpp:json:0'>{"v":1,…}</json></NAME>` (JSON
//! container as in XEP-0335). Messages that need an answer travel as IQ *set*, see [`carrier`]; the others as chat messages.

pub mod probe;

use std::collections::HashSet;

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use thiserror::Error;

use crate::message::{
    ExecutionError, ExecutionId, FromAgent, Load, LogLevel, MAX_CLAIMED, RefusalReason, Request, ToAgent,
};
use crate::process::{DataType, ProcessDescription, ProcessId, is_role};
use crate::value::{Content, Inputs, Outputs, Value};

/// Namespace of the payload elements.
pub const NS: &str = "urn:xmpp:wps-remote:1";
/// Versions of the dialect that this crate speaks, best first.
pub const VERSIONS: &[u32] = &[1];
/// Largest JSON text of one payload in bytes. Servers close a stream over 256 KiB, and XML escaping can add to this.
pub const MAX_JSON: usize = 160_000;
/// Largest number of inputs or outputs, declared or given.
pub const MAX_ITEMS: usize = 1_000;
/// Largest number of input values of one request; more do not fit into one payload, however short they are.
pub const MAX_VALUES: usize = 3_000;
/// Most bytes that the inputs of one request may need in a stanza: below [`MAX_JSON`], and the session sends at most 200,000.
pub const MAX_WIRE: usize = 150_000;
/// Longest log line or error text in bytes that is sent.
pub const MAX_TEXT: usize = 16 * 1024;

/// Characters that JSON leaves as they are and XML 1.0 (clause 2.2) forbids; control characters are escaped anyway.
const NOT_IN_XML: [char; 2] = ['\u{FFFE}', '\u{FFFF}'];

/// A payload: the element's name and its JSON text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payload {
    /// Local name of the element.
    pub name: &'static str,
    /// The text of its `json` child.
    pub json: String,
}

/// How a message travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carrier {
    /// IQ *set*: the peer answers with result (taken) or error (refused).
    Iq,
    /// A chat message: nobody answers, the next one makes up for a loss.
    Message,
}

/// Why a message cannot be written or read.
#[derive(Debug, Error)]
pub enum NativeError {
    /// The element is none of ours.
    #[error("unknown payload `{0}`")]
    UnknownPayload(String),
    /// The JSON text is too long.
    #[error(
        "payload `{name}` has {bytes} bytes, at most {MAX_JSON} are allowed: large data belongs in the shared folder"
    )]
    TooLarge {
        /// The payload.
        name: String,
        /// Its size.
        bytes: usize,
    },
    /// The JSON text is not what the payload must hold.
    #[error("payload `{name}` is not understood: {source}")]
    Json {
        /// The payload.
        name: String,
        /// What the reader says.
        source: serde_json::Error,
    },
    /// The peer writes a version that we do not read.
    #[error("payload `{name}` has version {version}, only {VERSIONS:?} is read here")]
    Version {
        /// The payload.
        name: String,
        /// Its version.
        version: u32,
    },
    /// The content breaks a rule that JSON cannot express.
    #[error("payload `{name}` is refused: {why}")]
    Content {
        /// The payload.
        name: String,
        /// The rule.
        why: String,
    },
}

/// What each side says of itself in its room presence.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Announcement {
    /// Versions of the dialect that it speaks.
    pub versions: Vec<u32>,
    /// Program and version, for people.
    pub software: String,
    /// Changes whenever the program starts anew.
    pub instance: String,
    /// An agent's load.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load: Option<Load>,
}

/// Which side a room presence announces.
#[derive(Debug, Clone, PartialEq)]
pub enum Peer {
    /// A remote agent.
    Agent(Announcement),
    /// An orchestrator.
    Orchestrator(Announcement),
}

/// The best version that both sides speak.
pub fn negotiate(theirs: &[u32]) -> Option<u32> {
    VERSIONS.iter().copied().find(|ours| theirs.contains(ours))
}

/// Writes a room presence payload.
pub fn encode_peer(peer: &Peer) -> Result<Payload, NativeError> {
    match peer {
        Peer::Agent(announcement) => encode("agent", announcement),
        Peer::Orchestrator(announcement) => encode("orchestrator", announcement),
    }
}

/// Reads a room presence payload. Newer versions in the list are no error: [`negotiate`] decides.
pub fn decode_peer(name: &str, json: &str) -> Result<Peer, NativeError> {
    let announcement: Announcement = decode(name, json)?;
    if announcement.software.len() > 200
        || announcement.instance.len() > 64
        || announcement.versions.len() > 32
    {
        return Err(content(name, "a text or list of the announcement is too long"));
    }
    if let Some(load) = &announcement.load {
        check_load(name, load)?;
    }
    match name {
        "agent" => Ok(Peer::Agent(announcement)),
        "orchestrator" => Ok(Peer::Orchestrator(announcement)),
        _ => Err(NativeError::UnknownPayload(name.to_owned())),
    }
}

/// How the payload with this name travels.
pub fn carrier(name: &str) -> Carrier {
    match name {
        "progress" | "log" | "started" => Carrier::Message,
        _ => Carrier::Iq,
    }
}

#[derive(Serialize, Deserialize)]
struct Envelope<T> {
    v: u32,
    #[serde(flatten)]
    body: T,
}

#[derive(Serialize, Deserialize)]
struct Empty {}

#[derive(Serialize, Deserialize)]
struct Which {
    execution: ExecutionId,
}

#[derive(Serialize, Deserialize)]
struct WhichProcess {
    process: ProcessId,
}

#[derive(Serialize, Deserialize)]
struct Claimed {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    executions: Vec<ExecutionId>,
}

#[derive(Serialize, Deserialize)]
struct Held {
    executions: Vec<ExecutionId>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    unknown: Vec<ExecutionId>,
}

#[derive(Serialize, Deserialize)]
struct Registered {
    process: ProcessDescription,
}

#[derive(Serialize, Deserialize)]
struct Progressed {
    execution: ExecutionId,
    percent: f64,
    #[serde(default)]
    message: String,
}

#[derive(Serialize, Deserialize)]
struct Logged {
    execution: ExecutionId,
    level: LogLevel,
    text: String,
}

#[derive(Serialize, Deserialize)]
struct Ended {
    execution: ExecutionId,
    outputs: Outputs,
}

#[derive(Serialize, Deserialize)]
struct Failed {
    execution: ExecutionId,
    error: ExecutionError,
}

/// Writes a message to an agent. `Finish` has no payload of its own here: it is the IQ *result* that answers `completed`
/// or `error`, and is written only when that request is no longer open.
pub fn encode_to_agent(message: &ToAgent) -> Result<Payload, NativeError> {
    match message {
        ToAgent::Invite { executions } => encode("invite", &Claimed { executions: executions.clone() }),
        ToAgent::Request(request) => {
            check_inputs("execute", &request.inputs)?;
            encode("execute", request.as_ref())
        }
        ToAgent::Abort { execution } => encode("abort", &Which { execution: execution.clone() }),
        ToAgent::Finish { execution } => encode("finish", &Which { execution: execution.clone() }),
        ToAgent::Elsewhere { execution } => encode("elsewhere", &Which { execution: execution.clone() }),
        ToAgent::Unknown { execution } => encode("unknown", &Which { execution: execution.clone() }),
        ToAgent::GetLoad => encode("get-load", &Empty {}),
    }
}

/// What a value needs in a stanza (bytes): its JSON, in which XML turns each quotation mark into six bytes.
pub fn wire_bytes(id: &str, value: &Value) -> usize {
    // What cannot be written at all is refused when it is.
    let json = serde_json::to_string(&(id, value)).unwrap_or_default();
    let more: usize = json
        .bytes()
        .map(|byte| match byte {
            b'"' | b'\'' => 5,
            b'&' => 4,
            b'<' | b'>' => 3,
            _ => 0,
        })
        .sum();
    // The object with `id` and `value` is 14 bytes longer than the pair and has four quotation marks more; each of the
    // escapes of what XML cannot carry needs three bytes more.
    json.len() + more + 34 + 3 * json.matches(NOT_IN_XML).count()
}

/// Whether values can go out in one request, so that a client is told before its job is accepted.
pub fn fit_together<'a>(inputs: impl Iterator<Item = (&'a str, &'a Value)>) -> Result<(), NativeError> {
    let (mut values, mut bytes) = (0, 0);
    for (id, value) in inputs {
        values += 1;
        bytes += wire_bytes(id, value);
        if values > MAX_VALUES {
            return Err(content("execute", format!("more than {MAX_VALUES} input values")));
        }
        if bytes > MAX_WIRE {
            return Err(content(
                "execute",
                format!("its input values take more than {MAX_WIRE} bytes of a message"),
            ));
        }
    }
    Ok(())
}

/// Reads a message to an agent.
pub fn decode_to_agent(name: &str, json: &str) -> Result<ToAgent, NativeError> {
    Ok(match name {
        "invite" => {
            let executions = decode::<Claimed>(name, json)?.executions;
            if executions.len() > MAX_CLAIMED {
                return Err(content(name, format!("more than {MAX_CLAIMED} executions")));
            }
            ToAgent::Invite { executions }
        }
        "execute" => {
            let request: Request = decode(name, json)?;
            check_inputs(name, &request.inputs)?;
            ToAgent::Request(Box::new(request))
        }
        "abort" => ToAgent::Abort { execution: decode::<Which>(name, json)?.execution },
        "finish" => ToAgent::Finish { execution: decode::<Which>(name, json)?.execution },
        "elsewhere" => ToAgent::Elsewhere { execution: decode::<Which>(name, json)?.execution },
        "unknown" => ToAgent::Unknown { execution: decode::<Which>(name, json)?.execution },
        "get-load" => decode::<Empty>(name, json).map(|_| ToAgent::GetLoad)?,
        _ => return Err(NativeError::UnknownPayload(name.to_owned())),
    })
}

/// Writes a message from an agent. A refusal (`CannotExecute`) is the IQ *error* that answers `execute`, see
/// [`refusal_condition`]; it has no payload.
pub fn encode_from_agent(message: &FromAgent) -> Result<Payload, NativeError> {
    match message {
        FromAgent::Register(process) => encode("register", &Registered { process: process.as_ref().clone() }),
        FromAgent::Unregister(process) => encode("unregister", &WhichProcess { process: process.clone() }),
        FromAgent::Executions { held, unknown } => {
            encode("executions", &Held { executions: held.clone(), unknown: unknown.clone() })
        }
        FromAgent::Started { execution } => encode("started", &Which { execution: execution.clone() }),
        FromAgent::Progress { execution, percent, message } => encode(
            "progress",
            &Progressed { execution: execution.clone(), percent: *percent, message: cut(message, MAX_TEXT) },
        ),
        FromAgent::Log { execution, level, text } => {
            encode("log", &Logged { execution: execution.clone(), level: *level, text: cut(text, MAX_TEXT) })
        }
        FromAgent::Completed { execution, outputs } => {
            check_outputs("completed", outputs)?;
            encode("completed", &Ended { execution: execution.clone(), outputs: outputs.clone() })
        }
        FromAgent::Error { execution, error } => {
            let error = ExecutionError { text: cut(&error.text, MAX_TEXT), ..error.clone() };
            encode("error", &Failed { execution: execution.clone(), error })
        }
        FromAgent::CannotExecute { .. } => Err(NativeError::UnknownPayload("cannot-execute".to_owned())),
        FromAgent::Load(load) => encode("load", load),
    }
}

/// Reads a message from an agent.
pub fn decode_from_agent(name: &str, json: &str) -> Result<FromAgent, NativeError> {
    Ok(match name {
        "register" => {
            let process = decode::<Registered>(name, json)?.process;
            check_description(name, &process)?;
            FromAgent::Register(Box::new(process))
        }
        "unregister" => FromAgent::Unregister(decode::<WhichProcess>(name, json)?.process),
        "executions" => {
            let Held { executions: held, unknown } = decode(name, json)?;
            FromAgent::Executions { held, unknown }
        }
        "started" => FromAgent::Started { execution: decode::<Which>(name, json)?.execution },
        "progress" => {
            let Progressed { execution, percent, message } = decode(name, json)?;
            if !percent.is_finite() {
                return Err(content(name, "`percent` is not a finite number"));
            }
            FromAgent::Progress {
                execution,
                percent: percent.clamp(0.0, 100.0),
                message: cut(&message, MAX_TEXT),
            }
        }
        "log" => {
            let Logged { execution, level, text } = decode(name, json)?;
            FromAgent::Log { execution, level, text: cut(&text, MAX_TEXT) }
        }
        "completed" => {
            let Ended { execution, outputs } = decode(name, json)?;
            check_outputs(name, &outputs)?;
            FromAgent::Completed { execution, outputs }
        }
        "error" => {
            let Failed { execution, mut error } = decode(name, json)?;
            error.text = cut(&error.text, MAX_TEXT);
            if let Some(receipt) = &mut error.receipt {
                receipt.survivors.truncate(100);
            }
            FromAgent::Error { execution, error }
        }
        "load" => {
            let load: Load = decode(name, json)?;
            check_load(name, &load)?;
            FromAgent::Load(load)
        }
        _ => return Err(NativeError::UnknownPayload(name.to_owned())),
    })
}

/// The stanza error condition (RFC 6120 §8.3.3) that carries a refusal.
pub fn refusal_condition(reason: RefusalReason) -> &'static str {
    match reason {
        RefusalReason::Capacity | RefusalReason::Load | RefusalReason::Blacklist => "resource-constraint",
        RefusalReason::Draining => "service-unavailable",
        RefusalReason::NoSuchProcess => "item-not-found",
        RefusalReason::Undeliverable => "bad-request",
    }
}

/// The inverse of [`refusal_condition`], as far as it can be told. A condition that is none of ours comes from a server or
/// room on the way: it passes with time.
pub fn refusal_reason(condition: &str) -> RefusalReason {
    match condition {
        "service-unavailable" => RefusalReason::Draining,
        "item-not-found" => RefusalReason::NoSuchProcess,
        "bad-request" => RefusalReason::Undeliverable,
        _ => RefusalReason::Capacity,
    }
}

fn encode<T: Serialize>(name: &'static str, body: &T) -> Result<Payload, NativeError> {
    let mut json = serde_json::to_string(&Envelope { v: VERSIONS[0], body })
        .map_err(|source| NativeError::Json { name: name.to_owned(), source })?;
    // XML cannot carry these two, JSON can: unescaped they would keep the whole stanza from being written.
    if json.contains(NOT_IN_XML) {
        json = json.replace('\u{FFFE}', "\\ufffe").replace('\u{FFFF}', "\\uffff");
    }
    if json.len() > MAX_JSON {
        return Err(NativeError::TooLarge { name: name.to_owned(), bytes: json.len() });
    }
    Ok(Payload { name, json })
}

fn decode<T: DeserializeOwned>(name: &str, json: &str) -> Result<T, NativeError> {
    let fail = |source| NativeError::Json { name: name.to_owned(), source };
    // A little more than we write ourselves: other writers escape differently.
    if json.len() > 2 * MAX_JSON {
        return Err(NativeError::TooLarge { name: name.to_owned(), bytes: json.len() });
    }
    let mut object: serde_json::Map<String, serde_json::Value> = serde_json::from_str(json).map_err(fail)?;
    let version =
        object.remove("v").and_then(|v| v.as_u64()).and_then(|v| u32::try_from(v).ok()).unwrap_or(0);
    if !VERSIONS.contains(&version) {
        return Err(NativeError::Version { name: name.to_owned(), version });
    }
    serde_json::from_value(serde_json::Value::Object(object)).map_err(fail)
}

/// Longest text of a refusal in a load, in bytes: it is in every presence.
const MAX_REFUSAL: usize = 1000;

fn content(name: &str, why: impl Into<String>) -> NativeError {
    NativeError::Content { name: name.to_owned(), why: why.into() }
}

fn check_load(name: &str, load: &Load) -> Result<(), NativeError> {
    let figures = [load.cpu_percent, load.memory_percent, load.capacity, load.used];
    if load.refusing.as_ref().is_some_and(|refusal| refusal.text.len() > MAX_REFUSAL) {
        return Err(content(name, format!("a refusal is longer than {MAX_REFUSAL} bytes")));
    }
    if figures.iter().all(|f| f.is_finite() && *f >= 0.0) {
        Ok(())
    } else {
        Err(content(name, "a figure of the load is not a finite, non-negative number"))
    }
}

fn check_description(name: &str, process: &ProcessDescription) -> Result<(), NativeError> {
    if process.inputs.len() > MAX_ITEMS || process.outputs.len() > MAX_ITEMS {
        return Err(content(name, format!("more than {MAX_ITEMS} inputs or outputs")));
    }
    if !process.weight.is_finite() || process.weight < 0.0 {
        return Err(content(name, "`weight` is not a finite, non-negative number"));
    }
    if process.outputs.is_empty() {
        return Err(content(name, "a process needs at least one output"));
    }
    if process.roles.len() > MAX_ITEMS || !process.roles.iter().all(|role| is_role(role)) {
        return Err(content(name, "`roles` has too many roles, or a text that cannot name one"));
    }
    let inputs = process.inputs.iter().map(|i| (&i.id, &i.data));
    let mut seen = HashSet::new();
    for (id, data) in inputs {
        check_parameter(name, id, data)?;
        if !seen.insert(id) {
            return Err(content(name, format!("input `{id}` is declared twice")));
        }
    }
    let mut seen = HashSet::new();
    for output in &process.outputs {
        check_parameter(name, &output.id, &output.data)?;
        if !seen.insert(&output.id) {
            return Err(content(name, format!("output `{}` is declared twice", output.id)));
        }
    }
    Ok(())
}

fn check_parameter(name: &str, id: &str, data: &DataType) -> Result<(), NativeError> {
    if id.is_empty() || id.len() > 256 || id.chars().any(char::is_control) {
        return Err(content(
            name,
            "a parameter's id is empty, longer than 256 bytes, or holds control characters",
        ));
    }
    let empty = match data {
        DataType::Literal(_) => false,
        DataType::Complex(complex) => complex.formats.is_empty(),
        DataType::BoundingBox(bbox) => bbox.crs.is_empty(),
    };
    if empty {
        Err(content(name, format!("parameter `{id}` names no format or reference system")))
    } else {
        Ok(())
    }
}

fn check_inputs(name: &str, inputs: &Inputs) -> Result<(), NativeError> {
    if inputs.len() > MAX_VALUES {
        return Err(content(name, format!("more than {MAX_VALUES} input values")));
    }
    inputs.iter().try_for_each(|input| check_value(name, &input.id, &input.value))
}

fn check_outputs(name: &str, outputs: &Outputs) -> Result<(), NativeError> {
    if outputs.len() > MAX_ITEMS {
        return Err(content(name, format!("more than {MAX_ITEMS} outputs")));
    }
    for output in outputs {
        check_value(name, &output.id, &output.value)?;
        if output.side_files.len() > MAX_ITEMS
            || !output.side_files.iter().all(|file| is_relative(&file.path))
        {
            let why = format!("`{}` has too many side files, or one outside of the shared folder", output.id);
            return Err(content(name, why));
        }
    }
    Ok(())
}

fn check_value(name: &str, id: &str, value: &Value) -> Result<(), NativeError> {
    match value {
        Value::Complex { content: Content::Shared(file), .. } if !is_relative(&file.path) => {
            Err(content(name, format!("`{id}` names a file outside of the shared folder")))
        }
        Value::BoundingBox(bbox) => {
            let corners = bbox.lower.iter().chain(&bbox.upper);
            let good = bbox.lower.len() == bbox.upper.len()
                && (2..=3).contains(&bbox.lower.len())
                && corners.into_iter().all(|n| n.is_finite());
            if good { Ok(()) } else { Err(content(name, format!("`{id}` is not a bounding box"))) }
        }
        _ => Ok(()),
    }
}

/// Whether a path stays below the folder that it is joined to: relative, `/`-separated, no `..`, no empty or control part.
pub fn is_relative(path: &str) -> bool {
    path.len() <= 1024
        && path.split('/').all(|part| {
            !part.is_empty()
                && part != "."
                && part != ".."
                && !part.contains(['\\', ':'])
                && !part.chars().any(char::is_control)
        })
}

/// At most `max` bytes of a text, cut at a character, with a mark where something is missing.
pub fn cut(text: &str, max: usize) -> String {
    if text.len() <= max {
        return text.to_owned();
    }
    let mut end = max.saturating_sub(4);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}…", &text[..end])
}

#[cfg(test)]
mod tests;
