//! Values of inputs from the texts of a request, with the help of the input's declaration where the request leaves
//! something open: base64 or text, which MIME type, box or literal. Shared by all XML and KVP faces.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use wps_remote_protocol::{BoundingBox, Content, DataType, Format, Value};

use super::characters::Piece;
use super::xml::{Content as Xml, Cursor, Element};
use super::{Fault, FaultKind, clip};
use crate::matching::same_media_type;

/// Longest address of a reference in bytes.
const MAX_HREF: usize = 8192;

/// What a request says about the format of a complex value.
#[derive(Debug, Clone, Copy, Default)]
pub struct Given<'a> {
    /// MIME type.
    pub media_type: Option<&'a str>,
    /// Encoding.
    pub encoding: Option<&'a str>,
    /// Schema.
    pub schema: Option<&'a str>,
}

/// A complex value from the content of an element or a parameter.
pub fn complex(
    input: &str,
    content: Xml<'_>,
    given: Given<'_>,
    declared: Option<&DataType>,
) -> Result<Value, Fault> {
    let media_type = given.media_type.unwrap_or_default().trim().to_owned();
    let schema = given.schema.map(str::to_owned);
    let content = match encoding(input, given.encoding)? {
        Encoding::Base64 => Content::Bytes(base64(input, &content)?),
        Encoding::Plain => Content::Text(content.into_text()),
        Encoding::Unsaid if format_is_base64(&media_type, declared) => {
            // The client did not say base64, only the format's description does: what is none is taken as it is.
            match base64(input, &content) {
                Ok(bytes) => Content::Bytes(bytes),
                Err(_) => Content::Text(content.into_text()),
            }
        }
        Encoding::Unsaid => Content::Text(content.into_text()),
    };
    Ok(Value::Complex { content, media_type, schema })
}

/// Most headers that a reference may ask for.
const MAX_HEADERS: usize = 32;

/// A reference to data elsewhere.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Link {
    /// Address.
    pub href: Option<String>,
    /// MIME type that is expected.
    pub media_type: Option<String>,
    /// Encoding of what is there.
    pub encoding: Option<String>,
    /// Schema of what is there.
    pub schema: Option<String>,
    /// `GET` unless said otherwise, or a body is there.
    pub method: Option<String>,
    /// Headers to be sent.
    pub headers: Vec<(String, String)>,
    /// Body of a POST.
    pub body: Option<String>,
    /// Address of the body of a POST.
    pub body_href: Option<String>,
}

/// Checks a reference.
pub fn reference(input: &str, link: Link) -> Result<Value, Fault> {
    let wrong = |why: String| Fault::at(FaultKind::WrongInputData, input, format!("input `{input}`: {why}"));
    let href = link.href.as_deref().map(str::trim).filter(|href| !href.is_empty()).ok_or_else(|| {
        Fault::at(
            FaultKind::MissingParameter,
            "href",
            format!("the reference of the input `{input}` has no `href`"),
        )
    })?;
    let body_href = match link.body_href.as_deref().map(str::trim) {
        Some("") => {
            let text = format!("the body reference of the input `{input}` has no `href`");
            return Err(Fault::at(FaultKind::MissingParameter, "href", text));
        }
        other => other,
    };
    for href in [Some(href), body_href].into_iter().flatten() {
        if !is_address(href) {
            let shown = clip(href, 200);
            return Err(wrong(format!(
                "`{shown}` is no http, https or data address of at most {MAX_HREF} bytes"
            )));
        }
    }
    let has_body = link.body.is_some() || body_href.is_some();
    let post = match link.method.as_deref().map(str::trim) {
        None | Some("") => has_body,
        Some(method) if method.eq_ignore_ascii_case("get") => false,
        Some(method) if method.eq_ignore_ascii_case("post") => true,
        Some(method) => {
            return Err(wrong(format!("the method `{}` is neither GET nor POST", clip(method, 20))));
        }
    };
    encoding(input, link.encoding.as_deref())?;
    if link.body.is_some() && body_href.is_some() {
        return Err(wrong("the reference has both a body and a reference to one".to_owned()));
    }
    if link.headers.len() > MAX_HEADERS {
        return Err(wrong(format!("the reference has more than {MAX_HEADERS} headers")));
    }
    for (name, value) in &link.headers {
        let token =
            !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
        if !token || value.chars().any(char::is_control) || name.len() + value.len() > MAX_HREF {
            return Err(wrong(format!("`{}` is no usable header", clip(name, 80))));
        }
    }
    Ok(Value::Reference {
        href: href.to_owned(),
        media_type: link.media_type.unwrap_or_default().trim().to_owned(),
        encoding: link.encoding,
        schema: link.schema,
        headers: link.headers,
        body: (post && body_href.is_none()).then(|| link.body.unwrap_or_default()),
        body_href: body_href.filter(|_| post).map(str::to_owned),
        fetched: None,
    })
}

fn is_address(href: &str) -> bool {
    let scheme = href.split_once(':').map(|(scheme, _)| scheme.to_ascii_lowercase());
    match scheme.as_deref() {
        Some("http" | "https") => href.contains("://") && href.len() <= MAX_HREF,
        // The data itself; the size of the request bounds it.
        Some("data") => true,
        _ => false,
    }
}

/// A box from an element with two corners.
pub fn box_element(cursor: &mut Cursor<'_>, input: &str, element: &Element) -> Result<Value, Fault> {
    let (mut lower, mut upper) = (String::new(), String::new());
    while let Some(corner) = cursor.child()? {
        match corner.name.as_str() {
            "LowerCorner" => lower = cursor.text()?,
            "UpperCorner" => upper = cursor.text()?,
            _ => cursor.skip()?,
        }
    }
    corners(input, element.trimmed("crs"), &lower, &upper)
}

/// A box that came by reference: a document of one element of either version, or the list of the key-value form.
pub fn box_document(input: &str, bytes: &[u8]) -> Result<Value, Fault> {
    let wrong = |why: String| Fault::at(FaultKind::WrongInputData, input, format!("input `{input}`: {why}"));
    let first = bytes.iter().find(|byte| !byte.is_ascii_whitespace());
    if !matches!(first, Some(b'<' | 0xEF | 0xFE | 0xFF)) {
        let text = std::str::from_utf8(bytes).map_err(|_| wrong("what was fetched is no text".to_owned()))?;
        return box_list(input, text.trim());
    }
    let mut cursor = Cursor::new(bytes).map_err(|error| wrong(error.to_string()))?;
    let root = cursor.root().map_err(|error| wrong(error.to_string()))?;
    match root.name.as_str() {
        "BoundingBox" | "WGS84BoundingBox" | "BoundingBoxData" => {
            let value = box_element(&mut cursor, input, &root)?;
            cursor.finish().map_err(|error| wrong(error.to_string()))?;
            Ok(value)
        }
        other => Err(wrong(format!("what was fetched is no bounding box, but `{}`", clip(other, 80)))),
    }
}

/// A box from two corners.
pub fn corners(input: &str, crs: Option<&str>, lower: &str, upper: &str) -> Result<Value, Fault> {
    let lower = numbers(input, lower.split_whitespace())?;
    let upper = numbers(input, upper.split_whitespace())?;
    bounding_box(input, crs, lower, upper)
}

/// A box from the list of the key-value form: corners, then reference system and dimensions if they are given
/// (OGC 06-121r3 §10.2.3).
pub fn box_list(input: &str, text: &str) -> Result<Value, Fault> {
    let parts: Vec<&str> = text.split(',').map(str::trim).collect();
    let crs_at = parts.iter().position(|part| part.parse::<f64>().is_err()).unwrap_or(parts.len());
    let corners = numbers(input, parts[..crs_at].iter().copied())?;
    if corners.len() % 2 != 0 || parts.len() > crs_at + 2 {
        return Err(bad_box(input, text));
    }
    if let Some(dimensions) = parts.get(crs_at + 1)
        && dimensions.parse::<usize>().ok() != Some(corners.len() / 2)
    {
        return Err(bad_box(input, text));
    }
    let (lower, upper) = corners.split_at(corners.len() / 2);
    let crs = parts.get(crs_at).copied().filter(|crs| !crs.is_empty());
    bounding_box(input, crs, lower.to_vec(), upper.to_vec())
}

fn bounding_box(input: &str, crs: Option<&str>, lower: Vec<f64>, upper: Vec<f64>) -> Result<Value, Fault> {
    if lower.len() != upper.len() || !(2..=3).contains(&lower.len()) {
        return Err(bad_box(input, &format!("{} and {} numbers", lower.len(), upper.len())));
    }
    let crs = crs.map(str::trim).filter(|crs| !crs.is_empty()).map(str::to_owned);
    Ok(Value::BoundingBox(BoundingBox { crs, lower, upper }))
}

fn bad_box(input: &str, text: &str) -> Fault {
    let text = format!(
        "input `{input}`: `{}` is no bounding box; two corners of two or three numbers each are needed",
        clip(text, 100)
    );
    Fault::at(FaultKind::WrongInputData, input, text)
}

fn numbers<'a>(input: &str, texts: impl Iterator<Item = &'a str>) -> Result<Vec<f64>, Fault> {
    let mut list = Vec::new();
    for text in texts {
        match text.parse::<f64>() {
            Ok(number) if number.is_finite() && list.len() < 6 => list.push(number),
            _ => return Err(bad_box(input, text)),
        }
    }
    Ok(list)
}

enum Encoding {
    Base64,
    Plain,
    Unsaid,
}

fn encoding(input: &str, given: Option<&str>) -> Result<Encoding, Fault> {
    let given = given.unwrap_or_default().trim();
    match given.to_ascii_lowercase().as_str() {
        "" => Ok(Encoding::Unsaid),
        "base64" => Ok(Encoding::Base64),
        "utf-8" | "utf8" | "us-ascii" | "none" | "raw" | "text" => Ok(Encoding::Plain),
        _ => Err(Fault::at(
            FaultKind::NoSuchFormat,
            input,
            format!("input `{input}`: the encoding `{}` is not known; use `base64` or none", clip(given, 80)),
        )),
    }
}

fn format_is_base64(media_type: &str, declared: Option<&DataType>) -> bool {
    let Some(DataType::Complex(complex)) = declared else { return false };
    let format: Option<&Format> = if media_type.is_empty() {
        complex.formats.first()
    } else {
        complex.formats.iter().find(|format| same_media_type(&format.media_type, media_type))
    };
    format.and_then(|format| format.encoding.as_deref()).is_some_and(|e| e.eq_ignore_ascii_case("base64"))
}

/// Decodes from where the characters are in the request, without a copy of them: values of many megabytes come this way.
fn base64(input: &str, content: &Xml<'_>) -> Result<Vec<u8>, Fault> {
    const CHUNK: usize = 32 * 1024;
    let wrong = |why: String| {
        Fault::at(
            FaultKind::WrongInputData,
            input,
            format!("input `{input}`: the value is not base64: {why}"),
        )
    };
    let characters = match content {
        Xml::Text(characters) => characters,
        Xml::Markup(_) => return Err(wrong("it holds elements".to_owned())),
    };
    let mut bytes = Vec::with_capacity(characters.max_len() / 4 * 3 + 3);
    let mut chunk = Vec::with_capacity(CHUNK);
    let decode = |chunk: &mut Vec<u8>, bytes: &mut Vec<u8>| {
        let decoded = STANDARD.decode_vec(&*chunk, bytes).map_err(|error| wrong(error.to_string()));
        chunk.clear();
        decoded
    };
    for piece in characters.pieces() {
        let mut digits = [0; 4];
        let digits = match piece {
            Piece::Characters(text) => text.as_bytes(),
            Piece::Referenced(character) => character.encode_utf8(&mut digits).as_bytes(),
        };
        for byte in digits.iter().filter(|byte| !byte.is_ascii_whitespace()) {
            chunk.push(*byte);
            // Multiples of four characters decode on their own; padding in a middle one is an error, as it should be.
            if chunk.len() == CHUNK {
                decode(&mut chunk, &mut bytes)?;
            }
        }
    }
    decode(&mut chunk, &mut bytes)?;
    Ok(bytes)
}
