//! The type table: which texts stand for which types, which MIME types and file extensions they bring. Tables only.

use wps_remote_protocol::LiteralType;
use wps_remote_protocol::ini::nearest;

use super::model::Kind;

/// What a `type` text stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TypeEntry {
    /// The kind of value.
    pub kind: Kind,
    /// MIME types of a document, the default first; empty for literals.
    pub media_types: Vec<String>,
    /// Whether GeoServer knows it.
    pub known_to_geoserver: bool,
}

const GML: [&str; 5] = [
    "application/xml",
    "application/gml-3.1.1",
    "application/gml-2.1.2",
    "text/xml; subtype=gml/3.1.1",
    "text/xml; subtype=gml/2.1.2",
];

/// Reference systems of a parameter that names none.
pub fn systems(kind: Kind) -> Vec<String> {
    if kind == Kind::Box { vec![crate::bbox::USUAL_SYSTEM.to_owned()] } else { Vec::new() }
}

/// Looks a type up: blanks around it and after `;` and capitals do not matter.
pub fn look_up(declared: &str) -> Option<TypeEntry> {
    let text = normalised(declared);
    let literal = match text.as_str() {
        "string" => Some(LiteralType::String),
        "url" | "uri" | "anyuri" => Some(LiteralType::Uri),
        "boolean" | "bool" => Some(LiteralType::Boolean),
        "byte" => Some(LiteralType::Byte),
        "short" => Some(LiteralType::Short),
        "int" | "integer" => Some(LiteralType::Integer),
        "long" => Some(LiteralType::Long),
        "char" => Some(LiteralType::Char),
        "float" => Some(LiteralType::Float),
        "double" => Some(LiteralType::Double),
        "datetime" => Some(LiteralType::DateTime),
        _ => None,
    };
    if let Some(literal) = literal {
        let known = !matches!(text.as_str(), "uri" | "anyuri" | "bool" | "integer");
        return Some(TypeEntry {
            kind: Kind::Literal(literal),
            media_types: Vec::new(),
            known_to_geoserver: known,
        });
    }
    if matches!(text.as_str(), "bbox" | "boundingbox") {
        return Some(TypeEntry { kind: Kind::Box, media_types: Vec::new(), known_to_geoserver: false });
    }
    let (bare, parameter) = text.split_once(';').unwrap_or((&text, ""));
    let stream = parameter == "stream";
    let (kind, list, known): (Kind, &[&str], bool) = match (bare, parameter) {
        ("complex", "") => (Kind::Binary, &["application/octet-stream"], true),
        ("application/xml" | "text/xml", "") => (Kind::Xml, &["application/xml", "text/xml"], true),
        ("text/xml", "subtype" | "subtype=gml/3.1.1" | "subtype=gml/2.1.2") => (Kind::Xml, &GML, true),
        ("application/gml-3.1.1" | "application/gml-2.1.2", "") => (Kind::Xml, &GML, true),
        ("application/json" | "application/owc", "") => {
            (Kind::Json, &["application/json", "application/vnd.geo+json"], true)
        }
        ("image/geotiff", _) if parameter.is_empty() || stream => {
            (Kind::Binary, &["image/geotiff", "image/tiff"], true)
        }
        ("application/zip", _) if parameter.is_empty() || stream => {
            (Kind::Binary, &["application/zip"], true)
        }
        ("application/x-netcdf", _) if parameter.is_empty() || stream => {
            (Kind::Binary, &["application/x-netcdf"], true)
        }
        ("video/mp4", _) if parameter.is_empty() || stream => (Kind::Binary, &["video/mp4"], true),
        _ => (kind_of_media_type(bare)?, &[], false),
    };
    let media_types = if list.is_empty() {
        vec![if stream { bare.to_owned() } else { text.clone() }]
    } else {
        list.iter().map(|media_type| (*media_type).to_owned()).collect()
    };
    Some(TypeEntry { kind, media_types, known_to_geoserver: known })
}

/// What to write instead of a text that is no type.
pub fn remedy(declared: &str) -> String {
    const USUAL: [&str; 24] = [
        "string",
        "url",
        "boolean",
        "byte",
        "short",
        "int",
        "long",
        "char",
        "float",
        "double",
        "datetime",
        "bbox",
        "complex",
        "text/plain",
        "text/xml",
        "text/csv",
        "application/json",
        "application/xml",
        "application/zip",
        "application/owc",
        "application/x-netcdf",
        "image/geotiff",
        "image/png",
        "video/mp4",
    ];
    match nearest(declared, USUAL) {
        Some(near) => format!("did you mean `{near}`?"),
        None => {
            "use string, int, float, boolean, datetime, url … or a MIME type such as image/geotiff".to_owned()
        }
    }
}

fn normalised(declared: &str) -> String {
    declared.trim().to_ascii_lowercase().split(';').map(str::trim).collect::<Vec<_>>().join(";")
}

/// Which sort of document a `type/subtype` is; `None` if the text is none.
pub fn kind_of_media_type(media_type: &str) -> Option<Kind> {
    let bare = media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let (class, subtype) = bare.split_once('/')?;
    let token = |text: &str| {
        !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&b))
    };
    if !token(class) || !token(subtype) {
        return None;
    }
    Some(if subtype == "json" || subtype.ends_with("+json") {
        Kind::Json
    } else if subtype == "xml" || subtype.ends_with("+xml") || subtype.starts_with("gml") {
        Kind::Xml
    } else if class == "text" {
        Kind::Text
    } else {
        Kind::Binary
    })
}

/// File extension of a value, without dot.
pub fn extension(kind: Kind, media_types: &[String]) -> &'static str {
    let bare = media_types.first().map(|first| first.split(';').next().unwrap_or_default().trim());
    match (kind, bare.unwrap_or_default()) {
        (Kind::Literal(_) | Kind::Box, _) => "txt",
        (_, "image/geotiff" | "image/tiff") => "tif",
        (_, "image/png") => "png",
        (_, "image/jpeg") => "jpg",
        (_, "application/zip") => "zip",
        (_, "application/x-netcdf" | "application/netcdf") => "nc",
        (_, "video/mp4") => "mp4",
        (_, "text/csv") => "csv",
        (_, "text/html") => "html",
        (_, "application/pdf") => "pdf",
        (_, "application/geopackage+sqlite3") => "gpkg",
        (_, "application/geo+json" | "application/vnd.geo+json") => "json",
        (Kind::Json, _) => "json",
        (Kind::Xml, _) => "xml",
        (Kind::Text, _) => "txt",
        (Kind::Binary, _) => "bin",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_complete_and_forgiving_about_blanks_and_capitals() {
        let check = |text: &str, kind: Kind, first: &str, known: bool| {
            let entry = look_up(text).unwrap_or_else(|| panic!("{text}"));
            assert_eq!((entry.kind, entry.known_to_geoserver), (kind, known), "{text}");
            assert_eq!(entry.media_types.first().map_or("", String::as_str), first, "{text}");
        };
        check("string", Kind::Literal(LiteralType::String), "", true);
        check(" Int ", Kind::Literal(LiteralType::Integer), "", true);
        check("datetime", Kind::Literal(LiteralType::DateTime), "", true);
        check("Complex", Kind::Binary, "application/octet-stream", true);
        check("text/xml; subtype=gml/3.1.1", Kind::Xml, "application/xml", true);
        check("image/geotiff;stream", Kind::Binary, "image/geotiff", true);
        check("application/owc", Kind::Json, "application/json", true);
        check("application/json", Kind::Json, "application/json", true);
        check("BBox", Kind::Box, "", false);
        check("image/png", Kind::Binary, "image/png", false);
        check("image/png;stream", Kind::Binary, "image/png", false);
        check("text/csv", Kind::Text, "text/csv", false);
        check("application/geo+json", Kind::Json, "application/geo+json", false);
        check("application/gml+xml; version=3.2", Kind::Xml, "application/gml+xml;version=3.2", false);
        for bad in ["", "java.lang.String", "number", "a/", "/b", "a/b c"] {
            assert_eq!(look_up(bad), None, "{bad}");
        }
    }

    #[test]
    fn extensions_follow_the_type() {
        let of = |text: &str| {
            let entry = look_up(text).unwrap();
            extension(entry.kind, &entry.media_types)
        };
        assert_eq!(
            [of("string"), of("image/geotiff"), of("application/owc"), of("text/csv"), of("complex")],
            ["txt", "tif", "json", "csv", "bin"]
        );
    }
}
