//! How GeoServer's plugin reads what agents say, as far as is known of it: addresses cut at slashes, bodies at `&` and `=` as
//! Java's `split` does it, values by `URLDecoder`, documents by a JSON library that takes texts for values. What makes the
//! plugin drop a message, or fail a job, is an error here, in words. Shares no code with the product.

use std::collections::HashMap;

use serde_json::{Map, Value};

/// The types that the plugin knows; any other one makes it drop the registration.
const TYPES: [&str; 29] = [
    "string",
    "url",
    "boolean",
    "byte",
    "char",
    "short",
    "int",
    "long",
    "float",
    "double",
    "datetime",
    "complex",
    "application/xml",
    "text/xml",
    "text/xml;subtype=gml/3.1.1",
    "text/xml;subtype=gml/2.1.2",
    "text/xml;subtype",
    "application/gml-3.1.1",
    "application/gml-2.1.2",
    "application/json",
    "application/owc",
    "image/geotiff",
    "image/geotiff;stream",
    "application/zip",
    "application/zip;stream",
    "application/x-netcdf",
    "application/x-netcdf;stream",
    "video/mp4",
    "video/mp4;stream",
];

/// Whose address in a room it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Whose {
    /// A service's.
    Master {
        /// `namespace:service`.
        process: String,
    },
    /// A running job's.
    Job {
        /// `namespace:service`.
        process: String,
        /// Execution id.
        execution: String,
    },
    /// Another orchestrator's, or a stranger's.
    Stranger,
}

/// Reads the address of an occupant: everything is in its parts between slashes.
pub fn whose(address: &str) -> Whose {
    let parts: Vec<&str> = address.split('/').collect();
    let [room, account, resource] = parts[..] else { return Whose::Stranger };
    let service = account.split('@').next().unwrap_or_default();
    let process = match service.split_once('.') {
        Some((namespace, service)) => format!("{namespace}:{service}"),
        None => format!("{}:{service}", room.split('@').next().unwrap_or_default()),
    };
    match resource.rsplit_once('@') {
        Some((execution, _)) if !resource.starts_with("master") => {
            Whose::Job { process, execution: execution.to_owned() }
        }
        _ => Whose::Master { process },
    }
}

/// A message as the plugin understands it.
#[derive(Debug, Clone, PartialEq)]
pub enum Said {
    /// A process is offered.
    Register(Registered),
    /// The sender's process is offered no longer.
    Unregister,
    /// CPU and memory in per cent.
    Load(f64, f64),
    /// A request was refused.
    CantExec(String),
    /// A line of a job's log: execution, level, text.
    Log(String, String, String),
    /// Progress of a job.
    Progress(String, f64),
    /// A job failed: execution, text.
    Error(String, String),
    /// A job completed: execution and its outputs.
    Completed(String, Vec<(String, Value)>),
}

/// A registered process.
#[derive(Debug, Clone, PartialEq)]
pub struct Registered {
    /// Names and types of the inputs.
    pub inputs: Vec<(String, String)>,
    /// Names and types of the outputs.
    pub outputs: Vec<(String, String)>,
    /// Its description.
    pub description: String,
}

/// Reads a body, or says what the plugin would stumble over.
///
/// # Errors
/// See above; the text names the field.
pub fn read(body: &str) -> Result<Said, String> {
    let fields = split(body)?;
    let get = |key: &str| fields.get(key).map(String::as_str).ok_or_else(|| format!("no `{key}` in {body}"));
    let decoded =
        |key: &str| get(key).and_then(|value| url_decode(value).map_err(|why| format!("`{key}` {why}")));
    match get("topic")? {
        "register" => {
            get("service")?;
            register(&decoded("message")?).map(Said::Register)
        }
        "unregister" => Ok(Said::Unregister),
        "loadavg" => {
            of_the_master(get("id")?)?;
            let figure = |field: &str, key: &str| {
                let value: Value =
                    serde_json::from_str(&decoded(field)?).map_err(|error| format!("`{field}`: {error}"))?;
                // A cast to Double: a number without a point is an Integer.
                let number = value.get(key).filter(|number| number.is_f64()).and_then(Value::as_f64);
                number.ok_or_else(|| format!("`{key}` of `{field}` is no Double: {value}"))
            };
            Ok(Said::Load(figure("result_loadavg", "loadavg_value")?, figure("result_vmem", "vmem_value")?))
        }
        "cantexec" => {
            of_the_master(get("id")?)?;
            Ok(Said::CantExec(get("exec_id")?.to_owned()))
        }
        "log" => Ok(Said::Log(get("id")?.to_owned(), get("level")?.to_owned(), decoded("message")?)),
        "progress" => {
            let percent = get("message")?;
            let number = percent.parse().map_err(|_| format!("`{percent}` is no number"))?;
            Ok(Said::Progress(get("id")?.to_owned(), number))
        }
        "error" => Ok(Said::Error(get("id")?.to_owned(), decoded("message")?)),
        "completed" => {
            get("baseURL")?;
            if get("message")? != "completed" {
                return Err("completed without `message=completed`".to_owned());
            }
            let mut outputs = Vec::new();
            for (name, value) in fields.iter().filter(|(name, _)| name.starts_with("result")) {
                let text = url_decode(value).map_err(|why| format!("`{name}` {why}"))?;
                let json = serde_json::from_str(&text).map_err(|error| format!("`{name}`: {error}"))?;
                outputs.push((name.clone(), as_json_lib(json)));
            }
            outputs.sort_by(|one, other| one.0.cmp(&other.0));
            Ok(Said::Completed(get("id")?.to_owned(), outputs))
        }
        other => Err(format!("unknown topic `{other}`")),
    }
}

fn of_the_master(id: &str) -> Result<(), String> {
    if id == "master" { Ok(()) } else { Err(format!("`id` is `{id}` instead of `master`")) }
}

/// Java's `body.split("&")`, each part `split("=")`, of which the first two are kept: trailing empty texts do not exist, and a
/// part without a second one makes the plugin drop the whole message.
fn split(body: &str) -> Result<HashMap<String, String>, String> {
    let mut fields = HashMap::new();
    for part in body.trim_end_matches('&').split('&') {
        let mut cut = part.trim_end_matches('=').split('=');
        match (cut.next(), cut.next()) {
            (Some(key), Some(value)) => fields.insert(key.to_owned(), value.to_owned()),
            _ => return Err(format!("wrong message: the part `{part}` has no value")),
        };
    }
    Ok(fields)
}

/// `java.net.URLDecoder`.
fn url_decode(value: &str) -> Result<String, String> {
    let mut bytes = Vec::new();
    let mut rest = value.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'+' => bytes.push(b' '),
            b'%' => {
                let digits: Vec<u8> = rest.by_ref().take(2).collect();
                let hex = std::str::from_utf8(&digits).ok().filter(|hex| hex.len() == 2);
                let decoded = hex.and_then(|hex| u8::from_str_radix(hex, 16).ok());
                bytes.push(decoded.ok_or_else(|| format!("has a stray per cent sign: {value}"))?);
            }
            other => bytes.push(other),
        }
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// What json-lib makes of a document: a text that looks like a value becomes that value.
fn as_json_lib(value: Value) -> Value {
    match value {
        Value::String(text) => {
            let enclosed = |open: char, close: char| text.starts_with(open) && text.ends_with(close);
            if text == "null" || text.starts_with("function") && text.ends_with('}') {
                return Value::Null;
            }
            if enclosed('{', '}') || enclosed('[', ']') {
                return serde_json::from_str(&text).map_or(Value::String(text), as_json_lib);
            }
            Value::String(text)
        }
        Value::Array(list) => list.into_iter().map(as_json_lib).collect(),
        Value::Object(object) => {
            let members = object.into_iter().map(|(key, value)| (key, as_json_lib(value)));
            Value::Object(members.collect::<Map<_, _>>())
        }
        other => other,
    }
}

fn register(message: &str) -> Result<Registered, String> {
    let document: Value = serde_json::from_str(message).map_err(|error| format!("registration: {error}"))?;
    let parameters = |key: &str| -> Result<Vec<(String, String)>, String> {
        let list = document.get(key).and_then(Value::as_array).ok_or_else(|| format!("no list `{key}`"))?;
        list.iter().map(|pair| parameter(pair).map_err(|why| format!("a pair of `{key}` {why}"))).collect()
    };
    let (inputs, outputs) = (parameters("input")?, parameters("output")?);
    let text = |key: &str| match document.get(key).cloned().map(as_json_lib) {
        Some(Value::String(text)) => Ok(text),
        other => Err(format!("`{key}` is no text: {other:?}")),
    };
    text("title")?;
    Ok(Registered { inputs, outputs, description: text("description")? })
}

fn parameter(pair: &Value) -> Result<(String, String), String> {
    let Some([Value::String(name), attributes]) = pair.as_array().map(Vec::as_slice) else {
        return Err(format!("is no pair of a name and its attributes: {pair}"));
    };
    // The plugin would take an object as well, but nothing else that reads registrations was ever shown one.
    let Value::String(text) = attributes else {
        return Err(format!("has a second element that is no document in a text: {attributes}"));
    };
    let Value::Object(attributes) = as_json_lib(Value::String(text.clone())) else {
        return Err(format!("has a second element that holds no object: {text}"));
    };
    for bound in ["min", "max"] {
        if attributes.get(bound).is_some_and(|value| !value.is_i64()) {
            return Err(format!("`{name}`: `{bound}` is no Integer: {}", attributes[bound]));
        }
    }
    let kind = attributes.get("type").and_then(Value::as_str).unwrap_or_default();
    if !TYPES.contains(&kind) {
        return Err(format!("`{name}`: class not found: {kind}"));
    }
    Ok((name.clone(), kind.to_owned()))
}

/// The content of an output: of a text itself, else what lies at its path.
///
/// # Errors
/// What would make the plugin fail the job.
pub fn content(name: &str, output: &Value) -> Result<Vec<u8>, String> {
    let member = |key: &str| output.get(format!("{name}_{key}")).filter(|value| !value.is_null());
    let kind =
        member("type").and_then(Value::as_str).ok_or_else(|| format!("`{name}` has no type: {output}"))?;
    let value = member("value").ok_or_else(|| format!("`{name}` has no value: {output}"))?;
    let text = value.as_str().ok_or_else(|| format!("the value of `{name}` is no text: {value}"))?;
    if member("pub").is_none() {
        return Err(format!("`{name}` does not say whether it is to be published, which means yes"));
    }
    match kind {
        "textual" => Ok(text.as_bytes().to_vec()),
        known if TYPES.contains(&known) && text.starts_with('/') => {
            std::fs::read(text).map_err(|error| format!("`{name}`: {text}: {error}"))
        }
        other => Err(format!("`{name}`: nothing can be opened as `{other}` at `{text}`")),
    }
}
