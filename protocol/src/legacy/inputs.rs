//! Inputs of a request as a pickled dict, both ways. Every value is a text, which works for each type at the Python agent;
//! several values of one input are a list.

use thiserror::Error;

use crate::pickle::Plain;
use crate::process::{DataType, ProcessDescription};
use crate::value::{BoundingBox, Content, Input, Inputs, Value};

/// Why inputs cannot travel in this dialect.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InputsError {
    /// A file that is not text.
    #[error("the input `{0}` is not text, and an agent of the old dialect takes nothing else")]
    NotText(String),
    /// A file in the shared folder, or one that was not fetched.
    #[error("the input `{0}` is too large for a message, and an agent of the old dialect takes no files")]
    File(String),
    /// A pickled value that is no input: a dict in a list, or a list in a list.
    #[error("the input `{0}` has a value of a kind that no input has")]
    Kind(String),
}

/// The dict of inputs of a request: those that were given and, because the Python agent fills in nothing, the defaults of
/// those that were not.
pub fn to_pickle(inputs: &Inputs, description: Option<&ProcessDescription>) -> Result<Plain, InputsError> {
    let mut dict: Vec<(String, Vec<Plain>)> = Vec::new();
    for input in inputs {
        let text = Plain::Text(text_of(input)?);
        match dict.iter_mut().find(|(id, _)| *id == input.id) {
            Some((_, values)) => values.push(text),
            None => dict.push((input.id.clone(), vec![text])),
        }
    }
    for declared in description.into_iter().flat_map(|description| &description.inputs) {
        let DataType::Literal(literal) = &declared.data else { continue };
        if let Some(default) = &literal.default
            && !dict.iter().any(|(id, _)| *id == declared.id)
        {
            dict.push((declared.id.clone(), vec![Plain::Text(default.clone())]));
        }
    }
    let pair = |(id, mut values): (String, Vec<Plain>)| {
        let value = if values.len() == 1 { values.remove(0) } else { Plain::List(values) };
        (Plain::Text(id), value)
    };
    Ok(Plain::Dict(dict.into_iter().map(pair).collect()))
}

fn text_of(input: &Input) -> Result<String, InputsError> {
    match input.value.resolved() {
        Value::Literal { text, .. } => Ok(text.clone()),
        Value::Complex { content: Content::Text(text), .. } => Ok(text.clone()),
        Value::Complex { content: Content::Bytes(bytes), .. } => {
            String::from_utf8(bytes.clone()).map_err(|_| InputsError::NotText(input.id.clone()))
        }
        Value::Complex { content: Content::Shared(_), .. } | Value::Reference { .. } => {
            Err(InputsError::File(input.id.clone()))
        }
        Value::BoundingBox(corners) => Ok(box_text(corners)),
    }
}

/// `x0,y0,x1,y1[,crs]`.
fn box_text(corners: &BoundingBox) -> String {
    let numbers = corners.lower.iter().chain(&corners.upper).map(f64::to_string);
    numbers.chain(corners.crs.clone()).collect::<Vec<_>>().join(",")
}

/// The inputs of a request that was read. Inputs that the description declares as documents become documents, all others
/// literals. `None` values are left out, as an orchestrator leaves out what a client did not give.
pub fn from_pickle(dict: &Plain, description: Option<&ProcessDescription>) -> Result<Inputs, InputsError> {
    let Plain::Dict(pairs) = dict else { return Err(InputsError::Kind(String::new())) };
    let mut inputs = Vec::new();
    for (key, value) in pairs {
        let id = scalar(key).ok_or_else(|| InputsError::Kind(String::new()))?;
        let values = match value {
            Plain::None => continue,
            Plain::List(values) | Plain::Tuple(values) => values.as_slice(),
            one => std::slice::from_ref(one),
        };
        let declared = description.and_then(|description| description.input(&id));
        let is_document = declared.is_some_and(|input| matches!(input.data, DataType::Complex(_)));
        for value in values {
            let value = match value {
                Plain::Bytes(bytes) if is_document && std::str::from_utf8(bytes).is_err() => Value::Complex {
                    content: Content::Bytes(bytes.clone()),
                    media_type: String::new(),
                    schema: None,
                },
                other => {
                    let text = scalar(other).ok_or_else(|| InputsError::Kind(id.clone()))?;
                    if is_document {
                        Value::Complex {
                            content: Content::Text(text),
                            media_type: String::new(),
                            schema: None,
                        }
                    } else {
                        Value::literal(text)
                    }
                }
            };
            inputs.push(Input { id: id.clone(), value });
        }
    }
    Ok(inputs)
}

/// A single value as the text that a client would have written.
fn scalar(value: &Plain) -> Option<String> {
    match value {
        Plain::Text(text) => Some(text.clone()),
        // A byte string of Python 2 is Latin-1 at worst: every byte a character.
        Plain::Bytes(bytes) => Some(match std::str::from_utf8(bytes) {
            Ok(text) => text.to_owned(),
            Err(_) => bytes.iter().map(|byte| char::from(*byte)).collect(),
        }),
        Plain::Int(number) => Some(number.to_string()),
        Plain::Float(number) => Some(number.to_string()),
        Plain::Bool(value) => Some(value.to_string()),
        Plain::DateTime(date) => Some(date.to_string()),
        Plain::None | Plain::List(_) | Plain::Tuple(_) | Plain::Dict(_) => None,
    }
}
