//! What is registered of a descriptor: the keys of the Python agent, and nothing that the plugin's JSON library or its type
//! table would stumble over. Pure conversions.

use serde_json::{Map, Value, json};
use wps_remote_protocol::legacy::{Registration, look_up};
use wps_remote_protocol::{LiteralType, ProcessDescription, ProcessId};

use crate::descriptor::model::{Kind, OutputSpec, Place, ServiceDescriptor};

/// A process as it is offered to GeoServers.
#[derive(Debug, Clone, PartialEq)]
pub struct Offer {
    pub(super) registration: Registration,
    pub(super) description: ProcessDescription,
    outputs: Vec<OfferedOutput>,
}

/// What is told of an output with each of its values.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct OfferedOutput {
    name: String,
    /// An entry of the plugin's type table.
    pub(super) kind: String,
    pub(super) title: Option<String>,
    pub(super) description: Option<String>,
    pub(super) publish: bool,
    pub(super) layer: Option<String>,
    pub(super) style: Option<String>,
    pub(super) workspace: Option<String>,
    /// Folder on the upload server.
    pub(super) upload: Option<String>,
    /// The value of a map context: names of layers.
    pub(super) layers: Option<String>,
}

impl Offer {
    /// Of a descriptor. `result_names`: outputs are called `result_NAME` where the plugin would drop them otherwise.
    pub fn new(descriptor: &ServiceDescriptor, result_names: bool) -> Self {
        let inputs = descriptor.legacy_inputs().into_iter().zip(&descriptor.inputs).map(
            |((name, attributes), spec)| {
                let kind = known_type(&spec.declared, spec.kind);
                let mut attributes = safe(attributes, &kind, &spec.declared, "input_mime_type");
                // Absent is what the plugin takes for unbounded.
                if spec.max.is_none() {
                    attributes.shift_remove("max");
                }
                for ours in ["enum", "range", "uom", "min_length", "max_length"] {
                    attributes.shift_remove(ours);
                }
                (name, Value::Object(attributes))
            },
        );
        let mut outputs = Vec::new();
        let registered = descriptor.legacy_outputs().into_iter().zip(&descriptor.outputs).map(
            |((name, attributes), spec)| {
                let kind = known_type(&spec.declared, spec.kind);
                outputs.push(offered(spec, &kind, &attributes));
                let attributes = safe(attributes, &kind, &spec.declared, "output_mime_type");
                (result_name(&name, result_names), Value::Object(attributes))
            },
        );
        let registered = registered.collect();
        let registration = Registration {
            service: descriptor.id.clone(),
            title: plain_text(&descriptor.shown_title()),
            description: plain_text(&descriptor.description),
            inputs: inputs.collect(),
            outputs: registered,
        };
        Self { registration, description: descriptor.description(), outputs }
    }

    /// Which process.
    pub fn id(&self) -> &ProcessId {
        &self.registration.service
    }

    pub(super) fn output(&self, name: &str) -> Option<&OfferedOutput> {
        self.outputs.iter().find(|output| output.name == name)
    }
}

fn offered(spec: &OutputSpec, kind: &str, attributes: &Value) -> OfferedOutput {
    let composed = spec.place == Place::Composed;
    let list = |key: &str| attributes.get(key).and_then(Value::as_str).map(str::to_owned);
    let publish = match spec.publish.as_layer.as_deref() {
        Some(text) => text.trim().eq_ignore_ascii_case("true"),
        None => composed,
    };
    let hints = &spec.publish;
    let (style, workspace) = if composed {
        (list("default_styles"), list("target_workspaces"))
    } else {
        (hints.style.clone(), hints.workspace.clone())
    };
    OfferedOutput {
        name: spec.name.clone(),
        kind: kind.to_owned(),
        title: spec.title.as_deref().map(plain_text),
        description: spec.description.as_deref().map(plain_text),
        publish,
        layer: hints.layer.clone(),
        style,
        workspace,
        upload: spec.upload.clone().flatten(),
        layers: composed.then(|| list("files_to_publish").unwrap_or_default()),
    }
}

/// The plugin drops outputs whose names do not begin with `result`.
pub(super) fn result_name(name: &str, wanted: bool) -> String {
    if wanted && !name.starts_with("result") { format!("result_{name}") } else { name.to_owned() }
}

/// A text that the plugin's JSON library takes for a text: what looks like a JSON value, the word `null` and the beginning
/// of a function become such values there, even inside of quotes, unless a blank follows.
pub(super) fn plain_text(text: &str) -> String {
    let enclosed = |open: char, close: char| text.starts_with(open) && text.ends_with(close);
    let odd = enclosed('{', '}') || enclosed('[', ']') || text == "null" || text.starts_with("function");
    if odd { format!("{text} ") } else { text.to_owned() }
}

/// The declared type if the plugin knows it letter for letter, else the one of its table that means the same: for a single
/// type that it does not know it drops the whole registration.
fn known_type(declared: &str, kind: Kind) -> String {
    if look_up(declared, None).is_some_and(|found| found.known_to_geoserver) {
        return declared.to_owned();
    }
    // A media type with a blank after its semicolon, or with capitals.
    let tidy: String = declared.to_ascii_lowercase().split(';').map(str::trim).collect::<Vec<_>>().join(";");
    if look_up(&tidy, None).is_some_and(|found| found.known_to_geoserver) {
        return tidy;
    }
    let known = match kind {
        Kind::Literal(literal) => match literal {
            LiteralType::Uri => "url",
            LiteralType::Boolean => "boolean",
            LiteralType::Byte => "byte",
            LiteralType::Char => "char",
            LiteralType::Short => "short",
            LiteralType::Integer => "int",
            LiteralType::Long => "long",
            LiteralType::Float => "float",
            LiteralType::Double => "double",
            LiteralType::DateTime => "datetime",
            LiteralType::String => "string",
        },
        Kind::Json => "application/json",
        Kind::Xml => "application/xml",
        Kind::Text | Kind::Binary => "complex",
        Kind::Box => "string",
    };
    known.to_owned()
}

/// The attributes of a parameter with a known type and harmless texts; what the type's name does not say any more, its media
/// type does.
fn safe(attributes: Value, kind: &str, declared: &str, mime_key: &str) -> Map<String, Value> {
    let Value::Object(mut attributes) = attributes else { return Map::new() };
    if kind != declared {
        attributes.insert("type".to_owned(), json!(kind));
        let is_document = kind.contains('/') || kind == "complex";
        if is_document && declared.contains('/') && attributes.get(mime_key).is_some_and(Value::is_null) {
            attributes.insert(mime_key.to_owned(), json!(declared));
        }
    }
    for (_, value) in &mut attributes {
        if let Value::String(text) = value {
            *value = json!(plain_text(text));
        }
    }
    attributes
}
