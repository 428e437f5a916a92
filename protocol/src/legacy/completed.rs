//! The outputs of a completion: one JSON object for each, whose keys all begin with the output's name.

use serde_json::{Map, Value};

use super::pyjson;

/// One output as the dialect carries it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct LegacyOutput {
    /// Its name; GeoServer takes only those that begin with `result`.
    pub name: String,
    /// `textual` (the value is the content), or an entry of the type table (the value is a path).
    pub kind: String,
    /// Content or path; for `application/owc` names of layers, each followed by `;`.
    pub value: String,
    /// Description.
    pub description: Option<String>,
    /// Title.
    pub title: Option<String>,
    /// Whether it shall become a layer. Absent means *yes* to GeoServer.
    pub publish: Option<bool>,
    /// Name of the layer.
    pub layer: Option<String>,
    /// Style.
    pub style: Option<String>,
    /// Workspace.
    pub workspace: Option<String>,
    /// Metadata, a blank if there is none.
    pub metadata: Option<String>,
}

impl LegacyOutput {
    /// The kind of a value that is its own content.
    pub const TEXTUAL: &str = "textual";

    /// A text as content.
    pub fn textual(name: &str, text: &str) -> Self {
        Self::new(name, Self::TEXTUAL, text)
    }

    /// A file of a type of the table, or an inline text.
    pub fn new(name: &str, kind: &str, value: &str) -> Self {
        Self { name: name.to_owned(), kind: kind.to_owned(), value: value.to_owned(), ..Self::default() }
    }

    /// Whether the value is the content itself.
    pub fn is_textual(&self) -> bool {
        self.kind == Self::TEXTUAL
    }

    /// The JSON text. What is absent is left out, because some versions of the plugin fail at `null`; `_pub` and
    /// `_metadata` are always there.
    pub(super) fn encode(&self) -> String {
        let mut object = Map::new();
        let mut put = |key: &str, value: Value| object.insert(format!("{}_{key}", self.name), value);
        put("value", self.value.as_str().into());
        put("type", self.kind.as_str().into());
        let texts = [
            ("description", &self.description),
            ("title", &self.title),
            ("layer_name", &self.layer),
            ("style", &self.style),
            ("workspace", &self.workspace),
        ];
        for (key, text) in texts {
            if let Some(text) = text {
                put(key, text.as_str().into());
            }
        }
        put("pub", self.publish.unwrap_or(false).into());
        put("metadata", self.metadata.as_deref().unwrap_or(" ").into());
        pyjson::write(&Value::Object(object))
    }

    /// Reads the JSON text of the output with this name, or says what is wrong with it.
    pub(super) fn decode(name: &str, json: &[u8]) -> Result<Self, String> {
        let object: Map<String, Value> =
            serde_json::from_slice(json).map_err(|error| format!("is no JSON object: {error}"))?;
        let get = |key: &str| object.get(&format!("{name}_{key}"));
        let text = |key: &str| get(key).and_then(Value::as_str).map(str::to_owned);
        let kind = text("type").filter(|kind| !kind.is_empty()).ok_or("has no type")?;
        let value = match get("value") {
            Some(Value::String(text)) => text.clone(),
            Some(other @ (Value::Number(_) | Value::Bool(_))) => other.to_string(),
            _ => return Err("has no value".to_owned()),
        };
        let publish = match get("pub") {
            Some(Value::Bool(publish)) => Some(*publish),
            Some(Value::String(text)) => Some(text.trim().eq_ignore_ascii_case("true")),
            _ => None,
        };
        Ok(Self {
            name: name.to_owned(),
            kind,
            value,
            description: text("description"),
            title: text("title"),
            publish,
            layer: text("layer_name"),
            style: text("style"),
            workspace: text("workspace"),
            metadata: text("metadata").filter(|text| !text.trim().is_empty()),
        })
    }
}
