//! Inputs that a descriptor would accept, as far as they can be guessed: to show a command line.

use wps_remote_protocol::{Content, Input, Inputs, LiteralType, Value};

use crate::command::check;
use crate::descriptor::model::{InputSpec, Kind, ServiceDescriptor};

/// A value for each input that has no default, as often as it is required and at least once.
pub(super) fn inputs(descriptor: &ServiceDescriptor) -> Inputs {
    let mut inputs = Inputs::new();
    for spec in descriptor.inputs.iter().filter(|spec| spec.default.is_empty()) {
        for _ in 0..spec.min.clamp(1, 100) {
            let Some(value) = value(spec) else { continue };
            inputs.push(Input { id: spec.name.clone(), value });
        }
    }
    inputs
}

/// The first guess that passes the input's checks; for an optional input nothing if none does.
fn value(spec: &InputSpec) -> Option<Value> {
    let document = |text: &str| Value::Complex {
        content: Content::Text(text.to_owned()),
        media_type: String::new(),
        schema: None,
    };
    match spec.kind {
        Kind::Literal(kind) => {
            let fits =
                guesses(spec, kind).into_iter().find(|guess| check::literal(spec, kind, guess).is_ok());
            match fits {
                Some(text) => Some(Value::literal(text)),
                None if spec.min == 0 => None,
                // Refused with the reason, which tells more than a missing value.
                None => Some(Value::literal("sample")),
            }
        }
        Kind::Json => Some(document("{}")),
        Kind::Xml => Some(document("<sample/>")),
        Kind::Text | Kind::Binary => Some(document("sample")),
        Kind::Box => Some(Value::literal("0,0,1,1")),
    }
}

fn guesses(spec: &InputSpec, kind: LiteralType) -> Vec<String> {
    let mut guesses: Vec<String> = spec.checks.allowed.clone();
    if let Some((low, high)) = &spec.checks.range {
        guesses.extend(low.iter().chain(high).cloned());
    }
    let usual: &[&str] = match kind {
        LiteralType::String => &["sample", "A", "1", "EPSG:4326", "A=1"],
        LiteralType::Char => &["x"],
        LiteralType::Uri => &["https://example.org/sample", "file:///sample"],
        LiteralType::Boolean => &["true"],
        LiteralType::Byte | LiteralType::Short | LiteralType::Integer | LiteralType::Long => &["1", "0"],
        LiteralType::Float | LiteralType::Double => &["1.5", "1"],
        LiteralType::DateTime => &["2024-05-01T12:00:00Z", "2024-05-01T12:00:00"],
    };
    guesses.extend(usual.iter().map(|text| (*text).to_owned()));
    guesses
}
