//! The self-description that an agent announces: which process, which inputs and outputs, of which types. Knows nothing
//! of how it is written on a wire or in a document.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Longest `namespace` or service name, in bytes (they become parts of addresses and file names).
pub const MAX_NAME: usize = 64;

/// Identifies a process: the namespace and the service of its descriptor. Clients see `namespace:service`.
///
/// Both parts match `[A-Za-z0-9_-]{1,64}`: legacy peers cut addresses at `.`, `@` and `/`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ProcessId {
    namespace: String,
    name: String,
}

/// Why a text is not a process identifier.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ProcessIdError {
    /// There is no colon between the two parts.
    #[error("process identifier `{0}` is not of the form `namespace:service`")]
    NoColon(String),
    /// One part is empty, too long or holds a character that addresses cannot carry.
    #[error("`{0}` is not a usable name: 1 to {MAX_NAME} of the characters A-Z a-z 0-9 _ - are allowed")]
    BadName(String),
}

impl ProcessId {
    /// Checks both parts.
    pub fn new(namespace: &str, name: &str) -> Result<Self, ProcessIdError> {
        for part in [namespace, name] {
            if !is_name(part) {
                return Err(ProcessIdError::BadName(part.chars().take(80).collect()));
            }
        }
        Ok(Self { namespace: namespace.to_owned(), name: name.to_owned() })
    }

    /// The namespace, `gdal` in `gdal:Contour`.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The service, `Contour` in `gdal:Contour`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The form `namespace.service` that the legacy dialect and titles use.
    pub fn dotted(&self) -> String {
        format!("{}.{}", self.namespace, self.name)
    }
}

/// Whether a text can be a namespace or a service name.
pub fn is_name(text: &str) -> bool {
    (1..=MAX_NAME).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

impl fmt::Display for ProcessId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.namespace, self.name)
    }
}

impl FromStr for ProcessId {
    type Err = ProcessIdError;
    fn from_str(text: &str) -> Result<Self, ProcessIdError> {
        let (namespace, name) =
            text.split_once(':').ok_or_else(|| ProcessIdError::NoColon(text.chars().take(80).collect()))?;
        Self::new(namespace, name)
    }
}

impl TryFrom<String> for ProcessId {
    type Error = ProcessIdError;
    fn try_from(text: String) -> Result<Self, ProcessIdError> {
        text.parse()
    }
}

impl From<ProcessId> for String {
    fn from(id: ProcessId) -> String {
        id.to_string()
    }
}

/// Everything that clients may know of a process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProcessDescription {
    /// Who it is.
    pub id: ProcessId,
    /// Another identifier under which an orchestrator offers it; agents announce none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alias: Option<String>,
    /// Short name for people; `namespace.service` when the descriptor has none.
    pub title: String,
    /// One paragraph (`ows:Abstract`); may be empty.
    #[serde(default)]
    pub summary: String,
    /// Version of the process as its author writes it, not of our software.
    #[serde(default = "default_version")]
    pub version: String,
    /// Free keywords.
    #[serde(default)]
    pub keywords: Vec<String>,
    /// Inputs in the descriptor's order; ids are unique.
    #[serde(default)]
    pub inputs: Vec<InputDescription>,
    /// Outputs in the descriptor's order; ids are unique.
    #[serde(default)]
    pub outputs: Vec<OutputDescription>,
    /// What one execution costs of its agent's capacity (units; 0 = nothing).
    #[serde(default)]
    pub weight: f64,
    /// Whether a job may be started anew after its agent vanished.
    #[serde(default)]
    pub repeatable: bool,
    /// The descriptor's limit for one execution in seconds; 0 = none.
    #[serde(default)]
    pub max_running_time_s: u64,
    /// Of these roles a client must have one to run it; empty = no role is needed. Enforced by the orchestrator, which
    /// knows the clients.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub roles: Vec<String>,
}

/// Whether a text can name a role: 1 to 64 letters, digits and `. _ - : @`.
pub fn is_role(text: &str) -> bool {
    (1..=64).contains(&text.chars().count())
        && text.chars().all(|c| c.is_alphanumeric() || matches!(c, '.' | '_' | '-' | ':' | '@'))
}

fn default_version() -> String {
    "1.0.0".to_owned()
}

impl ProcessDescription {
    /// The identifier that clients see: the alias, if it is offered under one.
    pub fn identifier(&self) -> String {
        self.alias.clone().unwrap_or_else(|| self.id.to_string())
    }

    /// The input with this id.
    pub fn input(&self, id: &str) -> Option<&InputDescription> {
        self.inputs.iter().find(|input| input.id == id)
    }

    /// The output with this id.
    pub fn output(&self, id: &str) -> Option<&OutputDescription> {
        self.outputs.iter().find(|output| output.id == id)
    }
}

/// One declared input.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InputDescription {
    /// Identifier that clients use.
    pub id: String,
    /// Short name for people, if any.
    #[serde(default)]
    pub title: Option<String>,
    /// One paragraph; may be empty.
    #[serde(default)]
    pub summary: String,
    /// How many values are allowed.
    #[serde(default)]
    pub occurs: Occurs,
    /// What a value may be.
    pub data: DataType,
}

/// One declared output.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutputDescription {
    /// Identifier that clients use.
    pub id: String,
    /// Short name for people, if any.
    #[serde(default)]
    pub title: Option<String>,
    /// One paragraph; may be empty.
    #[serde(default)]
    pub summary: String,
    /// What the value is.
    pub data: DataType,
    /// Whether a successful job may lack it.
    #[serde(default)]
    pub optional: bool,
    /// Hints of the descriptor's author for publishing the result as a layer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub publication: Option<Publication>,
}

/// The `publish_*` hints of an output.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Publication {
    /// Layer name.
    pub layer: Option<String>,
    /// Style name.
    pub style: Option<String>,
    /// Target workspace.
    pub workspace: Option<String>,
    /// Of a map context: ids of the outputs that are its layers, in order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub layers: Vec<String>,
}

/// How many values an input takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Occurs {
    /// At least so many; 0 = may be absent.
    pub min: u32,
    /// At most so many; `None` = unbounded.
    pub max: Option<u32>,
}

impl Default for Occurs {
    fn default() -> Self {
        Self { min: 1, max: Some(1) }
    }
}

/// The three kinds of data of WPS (OGC 05-007r7 §9.3, OGC 14-065r2 §7.3).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DataType {
    /// A number, a text, a date: one string with a type.
    Literal(LiteralData),
    /// A document or file in one of several formats.
    Complex(ComplexData),
    /// A bounding box.
    BoundingBox(BoundingBoxData),
}

/// A literal: its type and what limits its values.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LiteralData {
    /// The type of the text.
    pub kind: LiteralType,
    /// Unit of measure.
    #[serde(default)]
    pub uom: Option<String>,
    /// Which values are allowed.
    #[serde(default)]
    pub allowed: AllowedValues,
    /// What the agent uses when the input is absent, as the descriptor's author wrote it.
    #[serde(default)]
    pub default: Option<String>,
}

/// The literal types of the descriptor language (reference: the type table of the crate's README).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LiteralType {
    /// Any Unicode text without control characters.
    String,
    /// One character.
    Char,
    /// A URL.
    Uri,
    /// `true` or `false`.
    Boolean,
    /// 8 bits, signed.
    Byte,
    /// 16 bits, signed.
    Short,
    /// 32 bits, signed.
    Integer,
    /// 64 bits, signed.
    Long,
    /// 32-bit floating point.
    Float,
    /// 64-bit floating point.
    Double,
    /// ISO 8601 date and time.
    DateTime,
}

impl LiteralType {
    /// The local name in XML Schema, `double` for `xs:double`.
    pub fn xs_name(self) -> &'static str {
        match self {
            Self::String | Self::Char => "string",
            Self::Uri => "anyURI",
            Self::Boolean => "boolean",
            Self::Byte => "byte",
            Self::Short => "short",
            Self::Integer => "integer",
            Self::Long => "long",
            Self::Float => "float",
            Self::Double => "double",
            Self::DateTime => "dateTime",
        }
    }
}

/// Limits of a literal.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AllowedValues {
    /// Everything that the type allows.
    #[default]
    Any,
    /// One of these texts.
    Values(Vec<String>),
    /// A closed interval; an end that is missing is open to infinity.
    Range {
        /// Smallest value.
        min: Option<String>,
        /// Largest value.
        max: Option<String>,
    },
}

/// A document: its formats.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ComplexData {
    /// Supported formats, the default first; never empty (see [`ComplexData::default_format`]).
    pub formats: Vec<Format>,
    /// Largest accepted size in bytes, if limited.
    #[serde(default)]
    pub max_bytes: Option<u64>,
}

impl ComplexData {
    /// The format that holds when a client names none.
    pub fn default_format(&self) -> Format {
        self.formats.first().cloned().unwrap_or_else(|| Format::new("application/octet-stream"))
    }
}

/// A format of complex data.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Format {
    /// MIME type, possibly with parameters.
    pub media_type: String,
    /// Encoding such as `base64`; absent = raw or UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encoding: Option<String>,
    /// Schema URL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<String>,
}

impl Format {
    /// A format that is only a MIME type.
    pub fn new(media_type: &str) -> Self {
        Self { media_type: media_type.to_owned(), encoding: None, schema: None }
    }

    /// Whether the content is text that can stand in an XML document as it is.
    pub fn is_text(&self) -> bool {
        let bare = self.media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        bare.starts_with("text/")
            || bare.ends_with("+xml")
            || bare.ends_with("+json")
            || bare.starts_with("application/gml")
            || matches!(bare.as_str(), "application/xml" | "application/json")
    }

    /// Whether the content is XML.
    pub fn is_xml(&self) -> bool {
        let bare = self.media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        bare.ends_with("/xml") || bare.ends_with("+xml") || bare.starts_with("application/gml")
    }
}

/// A bounding box: its coordinate reference systems.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BoundingBoxData {
    /// Supported systems, the default first; never empty.
    pub crs: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_are_checked_both_ways() {
        let id: ProcessId = "gdal:Contour".parse().unwrap();
        assert_eq!((id.namespace(), id.name()), ("gdal", "Contour"));
        assert_eq!((id.to_string(), id.dotted()), ("gdal:Contour".into(), "gdal.Contour".into()));
        for bad in ["Contour", ":x", "x:", "a.b:c", "a:b:c", "a b:c", "ä:c", &format!("a:{}", "x".repeat(65))]
        {
            assert!(bad.parse::<ProcessId>().is_err(), "{bad}");
        }
        assert!(serde_json::from_str::<ProcessId>("\"a/b:c\"").is_err());
    }

    #[test]
    fn text_formats_are_recognised() {
        for text in ["text/xml; subtype=gml/3.1.1", "application/vnd.geo+json", "application/gml-3.1.1"] {
            assert!(Format::new(text).is_text(), "{text}");
        }
        assert!(!Format::new("image/tiff").is_text());
        assert!(Format::new("application/gml+xml; version=3.2").is_xml());
        assert!(!Format::new("text/plain").is_xml());
    }
}
