//! Whether one text is a value of an input's type and within its limits, and in which form it goes on. Knows nothing of
//! requests or command lines.

use std::cmp::Ordering;

use jiff::Timestamp;
use jiff::civil::{Date, DateTime};
use jiff::fmt::strtime::BrokenDownTime;
use wps_remote_protocol::LiteralType;

use super::xml;
use crate::bbox;
use crate::descriptor::model::{InputSpec, Kind};

/// Longest literal in characters unless the descriptor says otherwise.
pub const MAX_LENGTH: usize = 32_768;
/// Schemes of addresses unless the descriptor says otherwise.
pub const URL_SCHEMES: [&str; 4] = ["http", "https", "ftp", "s3"];

/// Checks a literal and gives the text that goes on: trimmed for numbers, `true` or `false` for booleans, by the
/// formatter for dates, else as received.
pub fn literal(spec: &InputSpec, kind: LiteralType, text: &str) -> Result<String, String> {
    let max_length = spec.checks.max_length.unwrap_or(MAX_LENGTH);
    let length = text.chars().count();
    if length > max_length {
        return Err(format!("has {length} characters; at most {max_length} are accepted"));
    }
    if let Some(bad) = text.chars().find(|c| c.is_control()) {
        return Err(format!(
            "holds the control character U+{:04X}, which a {} cannot have",
            u32::from(bad),
            spec.declared
        ));
    }
    if let Some(max) = spec.checks.max_bytes
        && text.len() as u64 > max
    {
        return Err(format!("has {} bytes; at most {max} are accepted", text.len()));
    }
    let text = typed(spec, kind, text)?;
    limits(spec, kind, &text)?;
    Ok(text)
}

fn typed(spec: &InputSpec, kind: LiteralType, text: &str) -> Result<String, String> {
    let trimmed = text.trim();
    match kind {
        LiteralType::String => Ok(text.to_owned()),
        LiteralType::Char if text.chars().count() == 1 => Ok(text.to_owned()),
        LiteralType::Char => Err("is not exactly one character".to_owned()),
        LiteralType::Uri => address(spec, trimmed).map(|()| trimmed.to_owned()),
        LiteralType::Boolean => match trimmed.to_ascii_lowercase().as_str() {
            "true" | "1" => Ok("true".to_owned()),
            "false" | "0" => Ok("false".to_owned()),
            _ => Err(format!("`{}` is neither true nor false", short(trimmed))),
        },
        LiteralType::Byte => integer(trimmed, i8::MIN.into(), i8::MAX.into()),
        LiteralType::Short => integer(trimmed, i16::MIN.into(), i16::MAX.into()),
        LiteralType::Integer => integer(trimmed, i32::MIN.into(), i32::MAX.into()),
        LiteralType::Long => integer(trimmed, i64::MIN, i64::MAX),
        LiteralType::Float | LiteralType::Double => match trimmed.parse::<f64>() {
            Ok(number) if number.is_finite() || spec.checks.allow_nan => Ok(trimmed.to_owned()),
            Ok(_) => Err(format!("`{}` is not a finite number", short(trimmed))),
            Err(_) => Err(format!("`{}` is not a number", short(trimmed))),
        },
        LiteralType::DateTime => date(spec.formatter.as_deref(), trimmed),
    }
}

fn integer(text: &str, min: i64, max: i64) -> Result<String, String> {
    match text.parse::<i64>() {
        Ok(number) if (min..=max).contains(&number) => Ok(text.to_owned()),
        Ok(_) => Err(format!("{} is not between {min} and {max}", short(text))),
        Err(_) => Err(format!("`{}` is not a whole number between {min} and {max}", short(text))),
    }
}

fn address(spec: &InputSpec, text: &str) -> Result<(), String> {
    if text.contains(char::is_whitespace) {
        return Err("holds a blank, which an address cannot have; write %20".to_owned());
    }
    let url =
        url::Url::parse(text).map_err(|error| format!("`{}` is not an address: {error}", short(text)))?;
    let schemes = &spec.checks.url_schemes;
    let allowed = if schemes.is_empty() {
        URL_SCHEMES.contains(&url.scheme())
    } else {
        schemes.iter().any(|scheme| scheme.eq_ignore_ascii_case(url.scheme()))
    };
    if allowed { Ok(()) } else { Err(format!("addresses with `{}:` are not accepted", url.scheme())) }
}

/// A moment: with or without an offset from UTC.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Moment {
    Local(DateTime),
    Absolute(Timestamp),
}

fn date(formatter: Option<&str>, text: &str) -> Result<String, String> {
    let wrong = || match formatter {
        Some(pattern) => {
            format!("`{}` is neither an ISO 8601 date and time nor of the form {pattern}", short(text))
        }
        None => format!("`{}` is not an ISO 8601 date and time such as 2024-05-01T12:00:00Z", short(text)),
    };
    let Some(pattern) = formatter else {
        return moment(text).map(|_| text.to_owned()).ok_or_else(wrong);
    };
    let mut parts = match iso_parts(text) {
        Some(parts) => parts,
        None => BrokenDownTime::parse(pattern, text).map_err(|_| wrong())?,
    };
    if parts.offset().is_none() && pattern.contains("%z") {
        // A pattern with an offset needs one; a date without is meant as UTC.
        parts.set_offset(Some(jiff::tz::Offset::UTC));
    }
    parts.to_string(pattern).map_err(|error| format!("cannot be written as {pattern}: {error}"))
}

fn iso_parts(text: &str) -> Option<BrokenDownTime> {
    let local: DateTime = wall_clock(text)?;
    let mut parts = BrokenDownTime::from(local);
    if let Ok(pieces) = jiff::fmt::temporal::Pieces::parse(text)
        && let Some(offset) = pieces.to_numeric_offset()
    {
        parts.set_offset(Some(offset));
    }
    Some(parts)
}

/// The date and time as written, whatever the offset.
fn wall_clock(text: &str) -> Option<DateTime> {
    let pieces = jiff::fmt::temporal::Pieces::parse(text).ok()?;
    if pieces.time_zone_annotation().is_some() {
        return None;
    }
    Some(DateTime::from_parts(pieces.date(), pieces.time().unwrap_or_default()))
}

fn moment(text: &str) -> Option<Moment> {
    if let Ok(absolute) = text.parse::<Timestamp>() {
        return Some(Moment::Absolute(absolute));
    }
    wall_clock(text).map(Moment::Local).or_else(|| text.parse::<Date>().ok().map(|d| Moment::Local(d.into())))
}

/// Whether a `strftime` pattern can be used at all.
pub fn is_date_pattern(pattern: &str) -> Result<(), String> {
    let sample = jiff::civil::date(2024, 5, 1).at(12, 30, 15, 0);
    let mut parts = BrokenDownTime::from(sample);
    parts.set_offset(Some(jiff::tz::Offset::UTC));
    parts.to_string(pattern).map(drop).map_err(|error| error.to_string())
}

/// `None` = the two cannot be compared.
fn compare(kind: LiteralType, a: &str, b: &str) -> Option<Ordering> {
    match kind {
        LiteralType::Byte | LiteralType::Short | LiteralType::Integer | LiteralType::Long => {
            let (a, b) = (a.trim(), b.trim());
            match (a.parse::<i64>(), b.parse::<i64>()) {
                (Ok(a), Ok(b)) => Some(a.cmp(&b)),
                _ => a.parse::<f64>().ok()?.partial_cmp(&b.parse::<f64>().ok()?),
            }
        }
        LiteralType::Float | LiteralType::Double => {
            a.trim().parse::<f64>().ok()?.partial_cmp(&b.trim().parse::<f64>().ok()?)
        }
        LiteralType::DateTime => match (moment(a.trim())?, moment(b.trim())?) {
            (Moment::Absolute(a), Moment::Absolute(b)) => Some(a.cmp(&b)),
            (Moment::Local(a), Moment::Local(b)) => Some(a.cmp(&b)),
            // One of the two has no offset: both are compared as the clock shows them.
            _ => Some(wall_clock(a.trim())?.cmp(&wall_clock(b.trim())?)),
        },
        LiteralType::Boolean => {
            let truth = |text: &str| matches!(text.trim().to_ascii_lowercase().as_str(), "true" | "1");
            Some(truth(a).cmp(&truth(b)))
        }
        LiteralType::String | LiteralType::Char | LiteralType::Uri => Some(a.cmp(b)),
    }
}

fn limits(spec: &InputSpec, kind: LiteralType, text: &str) -> Result<(), String> {
    let checks = &spec.checks;
    if !checks.allowed.is_empty()
        && !checks.allowed.iter().any(|allowed| compare(kind, text, allowed) == Some(Ordering::Equal))
    {
        return Err(format!("`{}` is not one of: {}", short(text), checks.allowed.join(", ")));
    }
    if let Some((low, high)) = &checks.range {
        let below =
            |low: &str| !matches!(compare(kind, text, low), Some(Ordering::Greater | Ordering::Equal));
        let above = |high: &str| !matches!(compare(kind, text, high), Some(Ordering::Less | Ordering::Equal));
        if low.as_deref().is_some_and(below) || high.as_deref().is_some_and(above) {
            let end = |end: &Option<String>| end.clone().unwrap_or_else(|| "…".to_owned());
            return Err(format!("{} is not in the range {} to {}", short(text), end(low), end(high)));
        }
    }
    patterns(spec, text)
}

/// The limits that hold for literals and documents alike.
fn patterns(spec: &InputSpec, text: &str) -> Result<(), String> {
    if let Some(min) = spec.checks.min_length
        && text.chars().count() < min
    {
        return Err(format!("has fewer than {min} characters"));
    }
    if let Some(pattern) = &spec.checks.pattern
        && !pattern.is_match(text)
    {
        return Err(format!("`{}` does not match the pattern {}", short(text), pattern.source()));
    }
    match &spec.checks.forbid {
        Some(forbidden) if text.contains(forbidden.as_str()) => Err(format!("must not hold `{forbidden}`")),
        _ => Ok(()),
    }
}

/// Checks the text of a document of a kind: the input's own, or that of another format that the input takes.
pub fn document(spec: &InputSpec, kind: Kind, text: &str) -> Result<(), String> {
    if text.contains('\0') {
        return Err("holds a NUL character".to_owned());
    }
    match kind {
        Kind::Json => serde_json::from_str::<serde::de::IgnoredAny>(text)
            .map(drop)
            .map_err(|error| format!("is not JSON: {error}"))?,
        Kind::Xml => xml::check(text)?,
        Kind::Text | Kind::Binary | Kind::Literal(_) | Kind::Box => {}
    }
    if let Some(max) = spec.checks.max_length
        && text.chars().count() > max
    {
        return Err(format!("has more than {max} characters"));
    }
    if !spec.checks.allowed.is_empty() && !spec.checks.allowed.iter().any(|allowed| allowed == text) {
        return Err(format!("`{}` is not one of: {}", short(text), spec.checks.allowed.join(", ")));
    }
    patterns(spec, text)
}

/// Whether an input asks more of a document than its type: then the text of every one must be looked at.
pub fn asks_of_text(spec: &InputSpec) -> bool {
    let checks = &spec.checks;
    checks.pattern.is_some()
        || checks.forbid.is_some()
        || checks.min_length.is_some()
        || checks.max_length.is_some()
        || !checks.allowed.is_empty()
}

/// Checks the text of a bounding box and gives it the form in which programs see it.
pub fn bounding_box(spec: &InputSpec, text: &str) -> Result<String, String> {
    let area = bbox::parse(text).ok_or_else(|| format!("`{}` is not {}", short(text), bbox::FORM))?;
    bbox::text(&area, &spec.crs)
}

/// A number as text: whole ones in decimal, floats in the shortest form that reads back, with `.0` for whole numbers; a
/// double that is exactly a float in the float's shortest form (undoes the widening of Java's floats).
pub fn number_text(number: &serde_json::Number) -> String {
    if let Some(whole) = number.as_i64() {
        return whole.to_string();
    }
    if let Some(whole) = number.as_u64() {
        return whole.to_string();
    }
    let double = number.as_f64().unwrap_or(f64::NAN);
    #[expect(clippy::cast_possible_truncation, reason = "whether it loses anything is what is asked")]
    let float = double as f32;
    if f64::from(float) == double && float.is_finite() { format!("{float:?}") } else { format!("{double:?}") }
}

fn short(text: &str) -> String {
    let start: String = text.chars().take(60).collect();
    if start.len() < text.len() { format!("{start}…") } else { start }
}
