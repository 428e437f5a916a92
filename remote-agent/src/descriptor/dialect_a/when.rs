//! `when`: the condition under which an action is performed. `NAME`, `not NAME`, `NAME = TEXT`, `NAME != TEXT`.

use wps_remote_protocol::ini::nearest;

use crate::command::check;
use crate::descriptor::common::Reading;
use crate::descriptor::model::{Condition, InputSpec, Kind, ServiceDescriptor, Test};

/// Reads the key of an action's section, if it has one.
pub(super) fn read(
    reading: &mut Reading<'_>,
    section: &str,
    descriptor: &ServiceDescriptor,
) -> Option<Condition> {
    let text = reading.text(section, "when")?;
    match parse(&text, &descriptor.inputs) {
        Ok(condition) => Some(condition),
        Err((why, remedy)) => {
            reading.error("bad-condition", section, "when", why, &remedy);
            None
        }
    }
}

fn parse(text: &str, inputs: &[InputSpec]) -> Result<Condition, (String, String)> {
    let text = text.trim();
    let named = |name: &str| inputs.iter().position(|input| input.name == name.trim());
    // A name may hold any sign: the whole text is tried first.
    if let Some(input) = named(text) {
        return Ok(Condition { input, test: Test::Given, negated: false });
    }
    if let Some(input) = text.strip_prefix("not ").and_then(named) {
        return Ok(Condition { input, test: Test::Given, negated: true });
    }
    let split =
        |separator: &str| text.split_once(separator).map(|(name, wanted)| (name.trim(), wanted.trim()));
    let (name, wanted, negated) = match (split("!="), split("=")) {
        (Some((name, wanted)), _) => (name, Some(wanted), true),
        (None, Some((name, wanted))) => (name, Some(wanted), false),
        (None, None) => (text.strip_prefix("not ").unwrap_or(text).trim(), None, false),
    };
    let (Some(input), Some(wanted)) = (named(name), wanted) else {
        let remedy = match nearest(name, inputs.iter().map(|input| input.name.as_str())) {
            Some(near) => format!("did you mean `{near}`?"),
            None => "write NAME, not NAME, NAME = TEXT or NAME != TEXT with the name of an input".to_owned(),
        };
        return Err((format!("`{name}` is not an input"), remedy));
    };
    let spec = &inputs[input];
    let Kind::Literal(kind) = spec.kind else {
        let why = format!("`{name}` is a document, which is not compared with a text");
        return Err((why, format!("write `when = {name}` or `when = not {name}`")));
    };
    let wanted = check::literal(spec, kind, wanted).map_err(|why| {
        (
            format!("`{wanted}` can never be a value of `{name}`: {why}"),
            "write a value that the input accepts".to_owned(),
        )
    })?;
    Ok(Condition { input, test: Test::Equals(wanted), negated })
}
