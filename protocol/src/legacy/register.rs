//! The registration: a JSON document whose parameters are pairs of a name and a JSON document *inside a string*. Both old
//! ends depend on that form; one of ours that sends an object instead is understood too.

use serde_json::{Map, Value, json};
use thiserror::Error;

use super::body::{Body, decode_bytes, push};
use super::types::look_up;
use super::{LegacyError, MAX_PARAMETERS, pyjson};
use crate::process::{
    DataType, InputDescription, Occurs, OutputDescription, ProcessDescription, ProcessId, Publication,
};

const TOPIC: &str = "register";

/// What an agent registers.
#[derive(Debug, Clone, PartialEq)]
pub struct Registration {
    /// Namespace and service.
    pub service: ProcessId,
    /// Title; never null (GeoServer drops the registration).
    pub title: String,
    /// Description; never null.
    pub description: String,
    /// Inputs: name and attributes (`type`, `title`, `description`, `default`, `min`, `max`, `input_mime_type`).
    pub inputs: Vec<(String, Value)>,
    /// Outputs: name and attributes (`type`, `title`, `description`, `output_mime_type`, `publish_*`).
    pub outputs: Vec<(String, Value)>,
}

/// Why a registration cannot become the description of a process.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RegistrationError {
    /// A parameter has no type, or one that is not in the table.
    #[error(
        "the type `{declared}` of `{parameter}` is not known; known are string, int, double, datetime, boolean, url, complex, media types and some more"
    )]
    Type {
        /// Which parameter.
        parameter: String,
        /// Its type.
        declared: String,
    },
    /// Two parameters of one direction have one name.
    #[error("`{0}` is declared twice")]
    Twice(String),
    /// A name that clients could not use.
    #[error(
        "`{0}` cannot be the name of a parameter: it is empty, longer than 256 bytes or holds control characters"
    )]
    Name(String),
}

impl Registration {
    /// The body.
    pub fn encode(&self) -> String {
        let pairs = |list: &[(String, Value)]| -> Value {
            list.iter().map(|(name, attributes)| json!([name, pyjson::write(attributes)])).collect()
        };
        let document = json!({
            "result_size": 0,
            "description": self.description,
            "title": self.title,
            "namespace": self.service.namespace(),
            "output": pairs(&self.outputs),
            "input": pairs(&self.inputs),
            "process_buffer": 0,
        });
        let mut body = format!("topic={TOPIC}&service={}", self.service.dotted());
        push(&mut body, "message", &pyjson::write(&document));
        body
    }

    pub(super) fn decode(body: &Body<'_>) -> Result<Self, LegacyError> {
        let fields = body.fields()?;
        let service = super::decode_value(Body::need(&fields, TOPIC, "service")?);
        let (namespace, name) = service
            .split_once('.')
            .ok_or_else(|| LegacyError::field(TOPIC, "service", "is not `namespace.service`"))?;
        let service = ProcessId::new(namespace, name)?;
        let bad = |why: String| LegacyError::field(TOPIC, "message", why);
        let message = Body::need(&fields, TOPIC, "message")?;
        let bytes = decode_bytes(message).ok_or_else(|| bad("is not percent-encoded".to_owned()))?;
        let document: Value =
            serde_json::from_slice(&bytes).map_err(|error| bad(format!("is no JSON document: {error}")))?;
        let Value::Object(document) = document else { return Err(bad("is no JSON object".to_owned())) };
        let text = |key: &str| document.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let title = text("title");
        Ok(Self {
            title: if title.trim().is_empty() { service.dotted() } else { title },
            description: text("description"),
            inputs: parameters(&document, "input").map_err(bad)?,
            outputs: parameters(&document, "output").map_err(bad)?,
            service,
        })
    }

    /// What clients may know of the process. An input with a default need not be given: whoever sends a request fills it
    /// in, because the Python agent does not.
    pub fn describe(&self) -> Result<ProcessDescription, RegistrationError> {
        let mut inputs: Vec<InputDescription> = Vec::with_capacity(self.inputs.len());
        for (name, attributes) in &self.inputs {
            if inputs.iter().any(|other| other.id == *name) {
                return Err(RegistrationError::Twice(name.clone()));
            }
            inputs.push(input(name, attributes)?);
        }
        let mut outputs: Vec<OutputDescription> = Vec::with_capacity(self.outputs.len());
        for (name, attributes) in &self.outputs {
            if outputs.iter().any(|other| other.id == *name) {
                return Err(RegistrationError::Twice(name.clone()));
            }
            outputs.push(output(name, attributes)?);
        }
        // The Python agent lists them in the order of a hash table.
        outputs.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(ProcessDescription {
            id: self.service.clone(),
            alias: None,
            title: self.title.clone(),
            summary: self.description.clone(),
            version: "1.0.0".to_owned(),
            keywords: Vec::new(),
            inputs,
            outputs,
            weight: 0.0,
            repeatable: false,
            max_running_time_s: 0,
            roles: Vec::new(),
        })
    }
}

/// A list of pairs whose second element is an object, or a string that holds one.
fn parameters(document: &Map<String, Value>, key: &str) -> Result<Vec<(String, Value)>, String> {
    let list = match document.get(key) {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Array(list)) => list,
        Some(_) => return Err(format!("has an `{key}` that is no list")),
    };
    if list.len() > MAX_PARAMETERS {
        return Err(format!("has more than {MAX_PARAMETERS} entries in `{key}`"));
    }
    list.iter().map(|pair| parameter(pair).ok_or_else(|| format!("has a broken pair in `{key}`"))).collect()
}

fn parameter(pair: &Value) -> Option<(String, Value)> {
    let [Value::String(name), attributes] = pair.as_array()?.as_slice() else { return None };
    let attributes = match attributes {
        Value::Object(_) => attributes.clone(),
        Value::String(text) => serde_json::from_str(text).ok().filter(Value::is_object)?,
        _ => return None,
    };
    Some((name.clone(), attributes))
}

fn text(attributes: &Value, key: &str) -> Option<String> {
    attributes.get(key).and_then(Value::as_str).filter(|text| !text.trim().is_empty()).map(str::to_owned)
}

fn data(name: &str, attributes: &Value, mime: &str) -> Result<DataType, RegistrationError> {
    if name.is_empty() || name.len() > 256 || name.chars().any(char::is_control) {
        return Err(RegistrationError::Name(name.chars().take(80).collect()));
    }
    let declared = text(attributes, "type").unwrap_or_default();
    let mime = text(attributes, mime);
    look_up(&declared, mime.as_deref()).map(|found| found.data).ok_or_else(|| RegistrationError::Type {
        parameter: name.to_owned(),
        declared: declared.chars().take(80).collect(),
    })
}

/// A number, or a text that is one.
fn number(attributes: &Value, key: &str) -> Option<i64> {
    let value = attributes.get(key)?;
    value.as_i64().or_else(|| value.as_str()?.trim().parse().ok())
}

fn input(name: &str, attributes: &Value) -> Result<InputDescription, RegistrationError> {
    let mut data = data(name, attributes, "input_mime_type")?;
    // A default is always a text or null in the dialect; a number is tolerated.
    let default = match attributes.get("default") {
        Some(Value::String(text)) => Some(text.clone()),
        Some(Value::Number(number)) => Some(number.to_string()),
        Some(Value::Bool(value)) => Some(value.to_string()),
        _ => None,
    };
    let has_default = default.is_some();
    if let DataType::Literal(literal) = &mut data {
        literal.default = default;
    }
    let min = if has_default { 0 } else { number(attributes, "min").unwrap_or(1).clamp(0, 1_000_000) };
    let min = u32::try_from(min).unwrap_or(0);
    // Absent or negative means unbounded (GeoServer).
    let max = number(attributes, "max").filter(|max| *max >= 0);
    let max = max.map(|max| u32::try_from(max).unwrap_or(u32::MAX).max(min).max(1));
    Ok(InputDescription {
        id: name.to_owned(),
        title: text(attributes, "title"),
        summary: text(attributes, "description").unwrap_or_default(),
        occurs: Occurs { min, max },
        data,
    })
}

fn output(name: &str, attributes: &Value) -> Result<OutputDescription, RegistrationError> {
    let publish = text(attributes, "publish_as_layer");
    let wanted = publish.is_some_and(|text| text.trim().eq_ignore_ascii_case("true"));
    Ok(OutputDescription {
        id: name.to_owned(),
        title: text(attributes, "title"),
        summary: text(attributes, "description").unwrap_or_default(),
        data: data(name, attributes, "output_mime_type")?,
        optional: false,
        publication: wanted.then(|| Publication {
            layer: text(attributes, "publish_layer_name"),
            style: text(attributes, "publish_default_style"),
            workspace: text(attributes, "publish_target_workspace"),
            layers: Vec::new(),
        }),
    })
}
