//! Inputs as a JSON object gives them (`try --inputs FILE`, tests): numbers, texts, lists, documents.

use serde_json::{Map, Value as Json};
use wps_remote_protocol::{Content, Input, Inputs, Value};

use super::check::number_text;
use crate::descriptor::model::ServiceDescriptor;

/// A value, or a list of values, for each input. For a document that is wanted once, a list is the document itself.
pub fn inputs(descriptor: &ServiceDescriptor, object: &Map<String, Json>) -> Inputs {
    let mut inputs = Inputs::new();
    for (id, given) in object {
        let spec = descriptor.inputs.iter().find(|input| input.name == *id);
        let document = spec.is_some_and(|spec| spec.kind.is_complex());
        let whole = document && spec.is_some_and(|spec| spec.max == Some(1));
        let mut put = |value: &Json| inputs.push(Input { id: id.clone(), value: one(value, document) });
        match given {
            Json::Array(values) if !whole => values.iter().for_each(&mut put),
            Json::Null => {}
            value => put(value),
        }
    }
    inputs
}

/// One value as a client would send it.
pub fn one(value: &Json, document: bool) -> Value {
    let text = match value {
        Json::String(text) => text.clone(),
        Json::Number(number) if !document => number_text(number),
        other => other.to_string(),
    };
    if document {
        Value::Complex { content: Content::Text(text), media_type: String::new(), schema: None }
    } else {
        Value::literal(text)
    }
}
