//! Outputs that are values rather than files: their texts must be what their types say. Reads nothing.

use wps_remote_protocol::{LiteralType, Value};

use super::{Expected, Fault};
use crate::bbox;

/// Longest text of a bounding box, in bytes.
pub(super) const MAX_BOX: u64 = 4096;

/// A text stays as it is; every other type is trimmed and must be readable as what it claims to be.
pub(super) fn checked_literal(spec: &Expected, kind: LiteralType, text: String) -> Result<String, Fault> {
    let trimmed = text.trim();
    let good = match kind {
        LiteralType::String => return Ok(text),
        LiteralType::Char => trimmed.chars().count() == 1,
        LiteralType::Uri => !trimmed.is_empty() && !trimmed.chars().any(char::is_whitespace),
        LiteralType::DateTime => !trimmed.is_empty(),
        LiteralType::Boolean => matches!(trimmed, "true" | "false" | "0" | "1"),
        LiteralType::Byte => trimmed.parse::<i8>().is_ok(),
        LiteralType::Short => trimmed.parse::<i16>().is_ok(),
        LiteralType::Integer => trimmed.parse::<i32>().is_ok(),
        LiteralType::Long => trimmed.parse::<i64>().is_ok(),
        LiteralType::Float | LiteralType::Double => trimmed.parse::<f64>().is_ok(),
    };
    if good {
        Ok(trimmed.to_owned())
    } else {
        let text = trimmed.chars().take(60).collect();
        Err(Fault::Literal { id: spec.id.clone(), kind: kind.xs_name(), text })
    }
}

/// A bounding box as programs write one.
pub(super) fn bounding_box(spec: &Expected, text: &str) -> Result<Value, Fault> {
    bbox::parse(text).map(Value::BoundingBox).ok_or_else(|| no_box(spec, text))
}

/// The fault that an output is none.
pub(super) fn no_box(spec: &Expected, text: &str) -> Fault {
    let text = text.trim().chars().take(60).collect();
    Fault::Literal { id: spec.id.clone(), kind: bbox::FORM, text }
}
