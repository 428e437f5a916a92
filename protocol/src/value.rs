//! Values on their way: what a client gives to a process and what a process gives back. Large content is never carried
//! here; it lies in the shared folder and is named by a relative path.

use serde::{Deserialize, Serialize};

/// Inputs in the order of the request; the same id several times = several values.
pub type Inputs = Vec<Input>;
/// Outputs in the order of the descriptor.
pub type Outputs = Vec<Output>;

/// One value for one input.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// Identifier of the input.
    pub id: String,
    /// Its value.
    pub value: Value,
}

/// One output with its value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Output {
    /// Identifier of the output.
    pub id: String,
    /// Its value.
    pub value: Value,
    /// What the program says about it (the text of the file that the descriptor's `publish_metadata` names), for whoever
    /// publishes it as a layer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<String>,
    /// Files that belong to it, beside it in the shared folder: the `.dbf` and `.shx` of a `.shp`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub side_files: Vec<SharedFile>,
}

impl Output {
    /// A value without metadata and side files.
    pub fn new(id: impl Into<String>, value: Value) -> Self {
        Self { id: id.into(), value, metadata: None, side_files: Vec::new() }
    }
}

/// A value of one of the three kinds, or a reference to one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Value {
    /// A text with a literal type.
    Literal {
        /// The value as text.
        text: String,
        /// Unit of measure that the client or the descriptor named.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        uom: Option<String>,
    },
    /// A document or file.
    Complex {
        /// Where its bytes are.
        content: Content,
        /// MIME type, as the client or the descriptor named it; empty = the default of the description.
        #[serde(default)]
        media_type: String,
        /// Schema that the client named.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        schema: Option<String>,
    },
    /// A bounding box.
    BoundingBox(BoundingBox),
    /// A document that lies elsewhere and must be fetched.
    Reference {
        /// `http` or `https` address.
        href: String,
        /// MIME type that the client expects; empty = the default of the description.
        #[serde(default)]
        media_type: String,
        /// Encoding of what is there, as the client named it; what is fetched is decoded.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        encoding: Option<String>,
        /// Schema that the client named.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        schema: Option<String>,
        /// Headers that the client wants to be sent with the request.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        headers: Vec<(String, String)>,
        /// POST instead of GET, with this body.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        body: Option<String>,
        /// POST with what is at this address as the body.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        body_href: Option<String>,
        /// What the orchestrator fetched: the value that the process gets.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        fetched: Option<Box<Value>>,
    },
}

impl Value {
    /// A literal without unit.
    pub fn literal(text: impl Into<String>) -> Self {
        Self::Literal { text: text.into(), uom: None }
    }

    /// A reference that is to be fetched by GET.
    pub fn reference(href: impl Into<String>, media_type: impl Into<String>) -> Self {
        Self::Reference {
            href: href.into(),
            media_type: media_type.into(),
            encoding: None,
            schema: None,
            headers: Vec::new(),
            body: None,
            body_href: None,
            fetched: None,
        }
    }

    /// The value that a process gets: what was fetched instead of a reference.
    pub fn resolved(&self) -> &Self {
        match self {
            Self::Reference { fetched: Some(value), .. } => value.resolved(),
            _ => self,
        }
    }

    /// How many bytes it takes on the wire, roughly: what bounds are checked against.
    pub fn inline_bytes(&self) -> usize {
        match self {
            Self::Literal { text, .. } => text.len(),
            Self::Complex { content: Content::Text(text), .. } => text.len(),
            Self::Complex { content: Content::Bytes(bytes), .. } => bytes.len() * 4 / 3 + 4,
            Self::Complex { content: Content::Shared(file), .. } => file.path.len() + 32,
            Self::BoundingBox(_) => 128,
            Self::Reference { fetched: Some(value), .. } => value.inline_bytes(),
            Self::Reference { href, .. } => href.len(),
        }
    }
}

/// The bytes of a complex value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Content {
    /// UTF-8 text.
    Text(String),
    /// Any bytes (base64 on the wire).
    #[serde(with = "base64_text")]
    Bytes(Vec<u8>),
    /// A file in the folder that both sides share.
    Shared(SharedFile),
}

/// A file in the shared folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SharedFile {
    /// Path below the shared folder, with `/`, never absolute, never with `..` (checked by the native codec).
    pub path: String,
    /// Size in bytes when it was written.
    pub bytes: u64,
    /// SHA-256 of the content, lower-case hex, when the writer computed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
}

/// A box in some coordinate reference system (OWS Common, OGC 06-121r3 §10.2).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BoundingBox {
    /// Reference system; absent = the default of the description.
    #[serde(default)]
    pub crs: Option<String>,
    /// Lower corner; two or three finite numbers.
    pub lower: Vec<f64>,
    /// Upper corner; as many numbers as the lower one.
    pub upper: Vec<f64>,
}

mod base64_text {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&STANDARD.encode(bytes))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        STANDARD.decode(String::deserialize(from)?).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_travel_as_base64() {
        let value = Value::Complex {
            content: Content::Bytes(vec![0, 255, 7]),
            media_type: "image/tiff".into(),
            schema: None,
        };
        let json = serde_json::to_string(&value).unwrap();
        assert!(json.contains("\"AP8H\""), "{json}");
        assert_eq!(serde_json::from_str::<Value>(&json).unwrap(), value);
    }
}
