//! The type table of GeoServer's plugin: which texts stand for which types. Tables only.

use crate::process::{AllowedValues, ComplexData, DataType, Format, LiteralData, LiteralType};

/// What the text of a `type` stands for.
#[derive(Debug, Clone, PartialEq)]
pub struct LegacyType {
    /// In our words.
    pub data: DataType,
    /// Whether GeoServer knows the text exactly as it stands; it looks at every blank and capital, and drops the whole
    /// registration for a type that it does not know.
    pub known_to_geoserver: bool,
}

/// The texts that GeoServer knows.
const KNOWN: [&str; 29] = [
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
const XML: [&str; 2] = ["application/xml", "text/xml"];
const GML: [&str; 5] = [
    "application/xml",
    "application/gml-3.1.1",
    "application/gml-2.1.2",
    "text/xml; subtype=gml/3.1.1",
    "text/xml; subtype=gml/2.1.2",
];

/// Looks a type up. `mime` replaces the types of a document, as `input_mime_type` and `output_mime_type` do. `None` for a
/// text that is neither in the table nor a media type.
pub fn look_up(declared: &str, mime: Option<&str>) -> Option<LegacyType> {
    let text = normalised(declared);
    let known_to_geoserver = KNOWN.contains(&declared) || declared.eq_ignore_ascii_case("complex");
    let literal = match text.as_str() {
        "string" | "str" => Some(LiteralType::String),
        "url" | "uri" | "anyuri" => Some(LiteralType::Uri),
        "boolean" | "bool" => Some(LiteralType::Boolean),
        "byte" => Some(LiteralType::Byte),
        "char" => Some(LiteralType::Char),
        "short" => Some(LiteralType::Short),
        "int" | "integer" => Some(LiteralType::Integer),
        "long" => Some(LiteralType::Long),
        "float" => Some(LiteralType::Float),
        "double" => Some(LiteralType::Double),
        "datetime" => Some(LiteralType::DateTime),
        _ => None,
    };
    if let Some(kind) = literal {
        let data =
            DataType::Literal(LiteralData { kind, uom: None, allowed: AllowedValues::Any, default: None });
        return Some(LegacyType { data, known_to_geoserver });
    }
    let (bare, parameter) = text.split_once(';').unwrap_or((&text, ""));
    let table: &[&str] = match bare {
        "complex" => &["application/octet-stream"],
        "text/xml" if parameter.starts_with("subtype") => &GML,
        "application/gml-3.1.1" | "application/gml-2.1.2" => &GML,
        "application/xml" | "text/xml" => &XML,
        "application/json" | "application/owc" => &["application/json", "application/vnd.geo+json"],
        "image/geotiff" => &["image/geotiff", "image/tiff"],
        "application/zip" => &["application/zip"],
        "application/x-netcdf" => &["application/x-netcdf"],
        "video/mp4" => &["video/mp4"],
        _ => &[],
    };
    if table.is_empty() && !is_media_type(bare) {
        return None;
    }
    let named: Vec<&str> = mime
        .into_iter()
        .flat_map(|list| list.split(','))
        .map(str::trim)
        .filter(|media_type| is_media_type(media_type.split(';').next().unwrap_or_default().trim()))
        .collect();
    let formats = match (named.is_empty(), table.is_empty()) {
        (false, _) => named.into_iter().map(Format::new).collect(),
        (true, false) => table.iter().map(|media_type| Format::new(media_type)).collect(),
        (true, true) => vec![Format::new(if parameter == "stream" { bare } else { &text })],
    };
    Some(LegacyType { data: DataType::Complex(ComplexData { formats, max_bytes: None }), known_to_geoserver })
}

fn normalised(declared: &str) -> String {
    declared.trim().to_ascii_lowercase().split(';').map(str::trim).collect::<Vec<_>>().join(";")
}

/// Whether the text is `type/subtype` of the characters that RFC 6838, section 4.2, allows.
fn is_media_type(text: &str) -> bool {
    let token = |text: &str| {
        (1..=127).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&b))
    };
    text.split_once('/').is_some_and(|(class, subtype)| token(class) && token(subtype))
}
