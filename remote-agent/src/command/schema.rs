//! Checks a document against a JSON Schema file, drafts 4 to 2020-12. Schemas are read from disk only; nothing is fetched.

use std::path::Path;

use serde_json::Value;

use super::values::read_bounded;

/// Largest schema file in bytes.
const MAX_SCHEMA: u64 = 1024 * 1024;

/// Reads and compiles a schema; the error says why it cannot be used.
pub(crate) fn load(path: &Path) -> Result<jsonschema::Validator, String> {
    let bytes = read_bounded(path, MAX_SCHEMA)?;
    let schema: Value =
        serde_json::from_slice(&bytes).map_err(|error| format!("{} is not JSON: {error}", path.display()))?;
    // legacy: a schema without `$schema` is draft 4, and formats are hints only.
    let mut options = jsonschema::options();
    let named = schema.get("$schema").and_then(Value::as_str);
    if named.is_none() {
        options = options.with_draft(jsonschema::Draft::Draft4);
    }
    if named.is_none_or(|name| name.contains("draft-04")) {
        options = options.should_validate_formats(false);
    }
    options.build(&schema).map_err(|error| format!("{} is not a usable schema: {error}", path.display()))
}

/// Checks a document; the error names the first fault and its place.
pub(super) fn check(schema: &jsonschema::Validator, document: &Value) -> Result<(), String> {
    schema.validate(document).map_err(|error| {
        let place = error.instance_path.to_string();
        let place = if place.is_empty() { "/".to_owned() } else { place };
        let text: String = error.to_string().chars().take(300).collect();
        format!("does not satisfy the JSON schema at {place}: {text}")
    })
}
