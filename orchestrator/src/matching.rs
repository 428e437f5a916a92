//! Holds a request against the description of its process: unknown, missing and surplus inputs, literal values of the
//! wrong type, formats and outputs that do not exist. Pure; knows no document format.

use thiserror::Error;
use wps_remote_protocol::{
    AllowedValues, DataType, Format, Input, Inputs, LiteralData, LiteralType, OutputDescription,
    ProcessDescription, Value,
};

use crate::engine::job::Form;

/// The media type of bytes that are nothing in particular.
pub const OCTETS: &str = "application/octet-stream";

/// What does not fit.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Mismatch {
    /// The process has no such input.
    #[error("process `{process}` has no input `{input}`; it has: {known}")]
    UnknownInput {
        /// The process.
        process: String,
        /// The input.
        input: String,
        /// Its inputs.
        known: String,
    },
    /// A mandatory input is absent.
    #[error("input `{input}` is missing: it needs at least {min} value(s)")]
    MissingInput {
        /// The input.
        input: String,
        /// How many values it needs.
        min: u32,
    },
    /// There are more values than allowed.
    #[error("input `{input}` has {given} values, at most {max} are allowed")]
    TooManyValues {
        /// The input.
        input: String,
        /// Values given.
        given: usize,
        /// Values allowed.
        max: u32,
    },
    /// A value is not acceptable.
    #[error("input `{input}`: {why}")]
    BadValue {
        /// The input.
        input: String,
        /// What is wrong with it.
        why: String,
    },
    /// A complex value comes in a format that the input does not support.
    #[error("input `{input}` does not support the format `{format}`; it supports: {supported}")]
    InputFormat {
        /// The input.
        input: String,
        /// The format.
        format: String,
        /// What it supports.
        supported: String,
    },
    /// The process has no such output.
    #[error("process `{process}` has no output `{output}`; it has: {known}")]
    UnknownOutput {
        /// The process.
        process: String,
        /// The output.
        output: String,
        /// Its outputs.
        known: String,
    },
    /// A raw answer holds one output only.
    #[error("a raw answer holds exactly one output, but these would result: {0}; name one")]
    RawNeedsOne(String),
    /// An output is wanted in a format that it does not have.
    #[error("output `{output}` cannot be delivered as `{format}`; it can be delivered as: {supported}")]
    OutputFormat {
        /// The output.
        output: String,
        /// The format.
        format: String,
        /// What it supports.
        supported: String,
    },
    /// An output is wanted in an encoding that it does not have.
    #[error("output `{output}` cannot be delivered in the encoding `{encoding}`; {supported}")]
    OutputEncoding {
        /// The output.
        output: String,
        /// The encoding.
        encoding: String,
        /// What would do.
        supported: &'static str,
    },
}

/// Checks inputs and form against the description, and fills in the default media types of complex inputs.
pub fn fit(description: &ProcessDescription, inputs: &mut Inputs, form: &Form) -> Result<(), Mismatch> {
    for input in inputs.iter_mut() {
        let declared = description.input(&input.id).ok_or_else(|| Mismatch::UnknownInput {
            process: description.identifier(),
            input: short(&input.id),
            known: names(description.inputs.iter().map(|i| i.id.as_str())),
        })?;
        fit_value(&input.id, &declared.data, &mut input.value)?;
    }
    for declared in &description.inputs {
        let given = inputs.iter().filter(|input| input.id == declared.id).count();
        let has_default = matches!(&declared.data, DataType::Literal(LiteralData { default: Some(_), .. }));
        if given == 0 && has_default {
            continue;
        }
        if (given as u64) < u64::from(declared.occurs.min) {
            return Err(Mismatch::MissingInput { input: declared.id.clone(), min: declared.occurs.min });
        }
        if let Some(max) = declared.occurs.max
            && given as u64 > u64::from(max)
        {
            return Err(Mismatch::TooManyValues { input: declared.id.clone(), given, max });
        }
    }
    fit_outputs(description, form)
}

/// Checks a literal or box that was fetched: until then nobody knew its value.
pub fn fit_fetched(description: &ProcessDescription, input: &Input) -> Result<(), Mismatch> {
    let Value::Reference { .. } = &input.value else { return Ok(()) };
    let bad = |why: String| Mismatch::BadValue { input: input.id.clone(), why };
    match (description.input(&input.id).map(|declared| &declared.data), input.value.resolved()) {
        (Some(DataType::Literal(literal)), Value::Literal { text, .. }) => {
            fit_literal(literal, text).map_err(bad)
        }
        (Some(DataType::BoundingBox(_)), Value::BoundingBox(_)) | (Some(DataType::Complex(_)) | None, _) => {
            Ok(())
        }
        (Some(DataType::Literal(_) | DataType::BoundingBox(_)), _) => {
            Err(bad("what was fetched is no text".to_owned()))
        }
    }
}

fn fit_outputs(description: &ProcessDescription, form: &Form) -> Result<(), Mismatch> {
    for wanted in &form.outputs {
        let declared = description.output(&wanted.id).ok_or_else(|| Mismatch::UnknownOutput {
            process: description.identifier(),
            output: short(&wanted.id),
            known: names(description.outputs.iter().map(|o| o.id.as_str())),
        })?;
        fit_output(declared, wanted.media_type.as_deref(), wanted.encoding.as_deref())?;
    }
    if form.raw {
        let all = description.outputs.iter().map(|output| output.id.as_str());
        let wanted = form.outputs.iter().map(|output| output.id.as_str());
        let ids: Vec<&str> = if form.outputs.is_empty() { all.collect() } else { wanted.collect() };
        if ids.len() != 1 {
            return Err(Mismatch::RawNeedsOne(names(ids.into_iter())));
        }
    }
    Ok(())
}

/// Whether an output can be delivered under a media type and in an encoding.
pub fn fit_output(
    declared: &OutputDescription,
    media_type: Option<&str>,
    encoding: Option<&str>,
) -> Result<(), Mismatch> {
    let supported: Vec<&str> = match &declared.data {
        DataType::Complex(complex) => complex.formats.iter().map(|f| f.media_type.as_str()).collect(),
        // As a text, and as an element of WPS 2.0.
        DataType::Literal(_) => vec!["text/plain", "text/xml"],
        DataType::BoundingBox(_) => vec!["text/xml"],
    };
    if let Some(wanted) = media_type {
        // Everything can be had as a plain stream of bytes, whatever it is declared as: clients of today ask for that.
        let octets = same_media_type(wanted, OCTETS);
        // A text has its character set as a parameter.
        let literal = matches!(declared.data, DataType::Literal(_));
        let bare = if literal { wanted.split(';').next().unwrap_or_default() } else { wanted };
        if !octets && !supported.iter().any(|known| same_media_type(known, bare)) {
            return Err(Mismatch::OutputFormat {
                output: declared.id.clone(),
                format: short(wanted),
                supported: names(supported.into_iter()),
            });
        }
    }
    let Some(wanted) = encoding else { return Ok(()) };
    let is = |known: &str| known.eq_ignore_ascii_case(wanted.trim());
    let fits = is("utf-8")
        || is("utf8")
        || match &declared.data {
            DataType::Complex(complex) => {
                is("base64") || complex.formats.iter().filter_map(|f| f.encoding.as_deref()).any(is)
            }
            DataType::Literal(_) | DataType::BoundingBox(_) => false,
        };
    if fits {
        return Ok(());
    }
    let supported = match &declared.data {
        DataType::Complex(_) => "base64 is possible, or none",
        DataType::Literal(_) | DataType::BoundingBox(_) => "it has none",
    };
    Err(Mismatch::OutputEncoding { output: declared.id.clone(), encoding: short(wanted), supported })
}

fn fit_value(id: &str, declared: &DataType, value: &mut Value) -> Result<(), Mismatch> {
    let bad = |why: String| Mismatch::BadValue { input: id.to_owned(), why };
    match (declared, value) {
        (DataType::Literal(literal), Value::Literal { text, uom }) => {
            if let (Some(given), Some(known)) = (uom.as_deref(), literal.uom.as_deref())
                && given != known
            {
                return Err(bad(format!("the unit is `{known}`, not `{}`", short(given))));
            }
            fit_literal(literal, text).map_err(bad)
        }
        (
            DataType::Complex(complex),
            Value::Complex { media_type, .. } | Value::Reference { media_type, .. },
        ) => {
            if media_type.is_empty() {
                *media_type = complex.default_format().media_type;
            }
            // Raw bytes may be anything: many clients send `application/octet-stream` for want of a better name.
            let octets = media_type.eq_ignore_ascii_case("application/octet-stream");
            if octets || complex.formats.iter().any(|f| same_media_type(&f.media_type, media_type)) {
                return Ok(());
            }
            Err(Mismatch::InputFormat {
                input: id.to_owned(),
                format: short(media_type),
                supported: names(complex.formats.iter().map(|f| f.media_type.as_str())),
            })
        }
        (DataType::BoundingBox(_), Value::BoundingBox(_)) => Ok(()),
        // What it is shows when it has been fetched.
        (DataType::Literal(_) | DataType::BoundingBox(_), Value::Reference { .. }) => Ok(()),
        (DataType::Literal(literal), value @ Value::Complex { .. }) => {
            // A client that knows the input as a document sends its text as ComplexData: its meaning is plain.
            let text = match &*value {
                Value::Complex { content: wps_remote_protocol::Content::Text(text), .. } => text.clone(),
                _ => return Err(bad("a literal is expected, not a document".to_owned())),
            };
            fit_literal(literal, &text).map_err(bad)?;
            *value = Value::literal(text);
            Ok(())
        }
        (DataType::Complex(complex), value @ Value::Literal { .. }) => {
            let text = match &*value {
                Value::Literal { text, .. } => text.clone(),
                _ => String::new(),
            };
            *value = Value::Complex {
                content: wps_remote_protocol::Content::Text(text),
                media_type: complex.default_format().media_type,
                schema: None,
            };
            Ok(())
        }
        (DataType::Literal(_), Value::BoundingBox(_)) => {
            Err(bad("a literal is expected, not a bounding box".into()))
        }
        (DataType::Complex(_), Value::BoundingBox(_)) => {
            Err(bad("a document is expected, not a bounding box".into()))
        }
        (DataType::BoundingBox(_), _) => Err(bad("a bounding box is expected".into())),
    }
}

/// Whether a text is a value of the type and within its limits. The agent checks again, with the descriptor's own rules.
fn fit_literal(literal: &LiteralData, text: &str) -> Result<(), String> {
    let trimmed = text.trim();
    let shown = short(text);
    let number = || trimmed.parse::<f64>().ok().filter(|n| n.is_finite());
    let integer = |low: i64, high: i64| trimmed.parse::<i64>().is_ok_and(|n| (low..=high).contains(&n));
    let fits = match literal.kind {
        LiteralType::String | LiteralType::DateTime => true,
        LiteralType::Uri => !trimmed.is_empty() && !trimmed.contains(char::is_whitespace),
        LiteralType::Char => text.chars().count() == 1,
        LiteralType::Boolean => {
            ["true", "false", "1", "0"].iter().any(|word| trimmed.eq_ignore_ascii_case(word))
        }
        LiteralType::Byte => integer(i64::from(i8::MIN), i64::from(i8::MAX)),
        LiteralType::Short => integer(i64::from(i16::MIN), i64::from(i16::MAX)),
        LiteralType::Integer => integer(i64::from(i32::MIN), i64::from(i32::MAX)),
        LiteralType::Long => integer(i64::MIN, i64::MAX),
        // Whether `nan` is welcome is the descriptor's word (`allow_nan`), so it passes here.
        LiteralType::Float | LiteralType::Double => trimmed.parse::<f64>().is_ok(),
    };
    if !fits {
        return Err(format!("`{shown}` is not of the type {}", literal.kind.xs_name()));
    }
    match &literal.allowed {
        AllowedValues::Any => Ok(()),
        AllowedValues::Values(values) => {
            let same = |value: &String| {
                value == text
                    || (!matches!(literal.kind, LiteralType::String | LiteralType::Char)
                        && (value == trimmed || value.parse::<f64>().is_ok_and(|v| number() == Some(v))))
            };
            if values.iter().any(same) {
                Ok(())
            } else {
                Err(format!("`{shown}` is not one of: {}", names(values.iter().map(String::as_str))))
            }
        }
        AllowedValues::Range { min, max } => {
            let end = |text: &Option<String>| text.as_deref().and_then(|t| t.trim().parse::<f64>().ok());
            let below = end(min).zip(number()).is_some_and(|(min, n)| n < min);
            let above = end(max).zip(number()).is_some_and(|(max, n)| n > max);
            if below || above {
                let end = |text: &Option<String>| text.clone().unwrap_or_else(|| "any".to_owned());
                Err(format!("{shown} is outside of the range {} to {}", end(min), end(max)))
            } else {
                Ok(())
            }
        }
    }
}

/// Whether two MIME types mean the same format: blanks and capitals do not count.
pub fn same_media_type(a: &str, b: &str) -> bool {
    let plain = |text: &str| text.split_whitespace().collect::<String>().to_ascii_lowercase();
    plain(a) == plain(b)
}

/// The format of an output that fits a wanted media type, else its default.
pub fn output_format(formats: &[Format], wanted: Option<&str>) -> Option<Format> {
    wanted
        .and_then(|wanted| formats.iter().find(|f| same_media_type(&f.media_type, wanted)))
        .or_else(|| formats.first())
        .cloned()
}

fn names<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let list: Vec<&str> = names.take(50).collect();
    if list.is_empty() { "none".to_owned() } else { list.join(", ") }
}

fn short(text: &str) -> String {
    let mut cut: String = text.chars().take(100).collect();
    if cut.len() < text.len() {
        cut.push('…');
    }
    cut
}

#[cfg(test)]
mod tests;
