//! Inputs and consts of dialect A.

use wps_remote_protocol::LiteralType;
use wps_remote_protocol::ini::{Finding, bracket_list};

use crate::descriptor::common::{RawChecks, Reading, SAMPLE_ID, check_value, checks, multi, range};
use crate::descriptor::model::{Checks, ConstSpec, InputSpec, Kind, Multi, PassBy};
use crate::descriptor::types;

const INPUT_KEYS: [&str; 26] = [
    "class",
    "name",
    "type",
    "title",
    "description",
    "min",
    "max",
    "default",
    "input_mime_type",
    "formatter",
    "enum",
    "pattern",
    "min_length",
    "max_length",
    "range",
    "forbid",
    "multi",
    "missing",
    "allow_leading_dash",
    "allow_nan",
    "url_schemes",
    "max_bytes",
    "pass_by",
    "sensitive",
    "uom",
    "value",
];

/// Reads the sections in order.
pub(super) fn read(reading: &mut Reading<'_>, sections: &[String]) -> (Vec<InputSpec>, Vec<ConstSpec>) {
    let mut inputs: Vec<InputSpec> = Vec::new();
    let mut consts: Vec<ConstSpec> = Vec::new();
    for section in sections {
        reading.known = &INPUT_KEYS;
        let class = reading.required(section, "class", "add `class = param` or `class = const`");
        match class.as_deref() {
            Some("param") => {
                if let Some(input) = input(reading, section) {
                    let repeated = inputs.iter().position(|other| other.name == input.name);
                    if let Some(at) = repeated {
                        duplicate(reading, section, &input.name);
                        inputs.remove(at);
                    }
                    consts.retain(|other| other.name != input.name);
                    inputs.push(input);
                }
            }
            Some("const") => {
                if let Some(constant) = constant(reading, section) {
                    let taken = consts.iter().any(|other| other.name == constant.name)
                        || inputs.iter().any(|other| other.name == constant.name);
                    if taken {
                        duplicate(reading, section, &constant.name);
                    }
                    consts.retain(|other| other.name != constant.name);
                    inputs.retain(|other| other.name != constant.name);
                    consts.push(constant);
                }
            }
            Some(other) => {
                let why = format!("`{other}` is neither param nor const");
                reading.error(
                    "bad-class",
                    section,
                    "class",
                    why,
                    "write param for an input, const for a fixed value",
                );
            }
            None => {}
        }
    }
    (inputs, consts)
}

/// legacy: of two definitions with the same name the later one counts.
fn duplicate(reading: &mut Reading<'_>, section: &str, name: &str) {
    let why = format!("`{name}` is defined more than once; this definition counts");
    reading.warn("duplicate-name", section, "name", why, "give each input and const its own name");
}

fn kind(reading: &mut Reading<'_>, section: &str) -> Option<(String, types::TypeEntry)> {
    let declared = reading.required(section, "type", "add `type = string`, or another type")?;
    match types::look_up(&declared) {
        Some(entry) => Some((declared, entry)),
        None => {
            let why = format!("`{declared}` is not a type");
            reading.error("bad-type", section, "type", why, &types::remedy(&declared));
            None
        }
    }
}

fn name(reading: &mut Reading<'_>, section: &str) -> Option<String> {
    let name = reading.required(section, "name", "add `name = IDENTIFIER`")?;
    if name.is_empty() || name.len() > 256 || name.chars().any(|c| c.is_control()) {
        reading.error(
            "bad-name",
            section,
            "name",
            "is empty, too long or holds a control character",
            "use letters, digits and _",
        );
        return None;
    }
    Some(name)
}

fn input(reading: &mut Reading<'_>, section: &str) -> Option<InputSpec> {
    reading.unknown_keys(section, &INPUT_KEYS);
    let name = name(reading, section);
    let kind = kind(reading, section);
    let description = reading.required(section, "description", "add one sentence");
    let (declared, entry) = kind?;
    let min = match occurrences(reading, section, "min", 1) {
        min @ 0.. => u32::try_from(min).unwrap_or(u32::MAX),
        _ => {
            let why = "is below 0, which is read as 0";
            reading.warn("negative-count", section, "min", why, "write 0 if the value may be absent");
            0
        }
    };
    let unbounded = reading.text(section, "max").is_some_and(|text| text.trim() == "unbounded");
    let most = if unbounded { 0 } else { occurrences(reading, section, "max", 1) };
    let max = match most {
        _ if unbounded => None,
        max @ 1.. => Some(u32::try_from(max).unwrap_or(u32::MAX)),
        0 => {
            let why = "0 is read as unbounded (the old agent refused every value)";
            reading.warn("max-zero", section, "max", why, "write the largest number that makes sense");
            None
        }
        _ => {
            let why = "is below 0, which is read as unbounded (the old agent refused every value)";
            reading.warn("negative-count", section, "max", why, "write the largest number that makes sense");
            None
        }
    };
    if max.is_some_and(|max| max < min) {
        let why = "max is below min, so no number of values is right";
        reading.warn("min-above-max", section, "max", why, "raise max or lower min");
    }
    let declared_media_types = reading.text(section, "input_mime_type");
    let media_types = media_types(declared_media_types.as_deref(), &entry);
    let default_pass = match entry.kind {
        Kind::Literal(_) | Kind::Box | Kind::Json | Kind::Xml => PassBy::Value,
        Kind::Text | Kind::Binary => PassBy::File,
    };
    let mut spec = InputSpec {
        name: name?,
        title: reading.text(section, "title"),
        description: description?,
        declared,
        kind: entry.kind,
        media_types,
        declared_media_types,
        crs: types::systems(entry.kind),
        min,
        max,
        default: Vec::new(),
        formatter: reading.text(section, "formatter"),
        checks: Checks::default(),
        multi: multi_of(reading, section),
        pass_by: pass_by(reading, section, default_pass),
        sensitive: reading.flag(section, "sensitive", false),
        uom: reading.text(section, "uom"),
        missing_is_none: missing(reading, section),
        line: reading.doc.section(section).map_or(0, |section| section.line),
    };
    limits(reading, section, &mut spec);
    if let (Some(pattern), Kind::Literal(LiteralType::DateTime)) = (&spec.formatter, spec.kind)
        && let Err(why) = crate::command::check::is_date_pattern(pattern)
    {
        reading.error(
            "bad-value",
            section,
            "formatter",
            format!("`{pattern}` is not a date pattern: {why}"),
            "use strftime letters such as %Y-%m-%d",
        );
    }
    default(reading, section, &mut spec);
    Some(spec)
}

fn occurrences(reading: &mut Reading<'_>, section: &str, key: &str, default: i64) -> i64 {
    let Some(text) = reading.text(section, key) else { return default };
    text.trim().parse().unwrap_or_else(|_| {
        let why = format!("`{text}` is not a whole number");
        reading.error("bad-value", section, key, why, "write digits only");
        default
    })
}

fn multi_of(reading: &mut Reading<'_>, section: &str) -> Multi {
    let Some(text) = reading.text(section, "multi") else { return Multi::Repeat };
    multi(&text).unwrap_or_else(|| {
        let why = format!("`{text}` is not a way to pass several values");
        reading.error("bad-value", section, "multi", why, "write repeat, spread, json or join:SEPARATOR");
        Multi::Repeat
    })
}

fn pass_by(reading: &mut Reading<'_>, section: &str, default: PassBy) -> PassBy {
    match reading.text(section, "pass_by").as_deref() {
        None => default,
        Some("value") => PassBy::Value,
        Some("file") => PassBy::File,
        Some(other) => {
            let why = format!("`{other}` is neither value nor file");
            reading.error("bad-value", section, "pass_by", why, "write value or file");
            default
        }
    }
}

fn missing(reading: &mut Reading<'_>, section: &str) -> bool {
    match reading.text(section, "missing").as_deref() {
        None => false,
        Some("none" | "None") => true,
        Some(other) => {
            let why = format!("`{other}` is not known");
            reading.error("bad-value", section, "missing", why, "write none, or remove the key");
            false
        }
    }
}

fn limits(reading: &mut Reading<'_>, section: &str, spec: &mut InputSpec) {
    let whole = |number: Option<u64>| number.and_then(|number| usize::try_from(number).ok());
    spec.checks.min_length = whole(reading.count(section, "min_length"));
    spec.checks.max_length = whole(reading.count(section, "max_length"));
    spec.checks.max_bytes = reading.count(section, "max_bytes");
    spec.checks.forbid = reading.text(section, "forbid").filter(|text| !text.is_empty());
    spec.checks.allow_leading_dash = reading.flag(section, "allow_leading_dash", false);
    spec.checks.allow_nan = reading.flag(section, "allow_nan", false);
    let mut raw = RawChecks {
        pattern: reading.text(section, "pattern"),
        url_schemes: reading.words(section, "url_schemes"),
        ..RawChecks::default()
    };
    if let Some(text) = reading.text(section, "enum") {
        raw.allowed = enumeration(&text);
        if raw.allowed.is_empty() {
            reading.error("bad-value", section, "enum", "allows no value", "write [\"first\", \"second\"]");
        }
    }
    if let Some(text) = reading.text(section, "range") {
        raw.range = range(&text);
        if raw.range.is_none() {
            reading.error(
                "bad-value",
                section,
                "range",
                format!("`{text}` is not a range"),
                "write [lowest, highest]",
            );
        }
    }
    for (key, why) in checks(raw, spec.kind, &mut spec.checks) {
        reading.error("bad-value", section, key, why, "see the descriptor reference");
    }
    for allowed in spec.checks.allowed.clone() {
        if let Err(why) = check_value(spec, &allowed) {
            reading.error(
                "bad-value",
                section,
                "enum",
                format!("`{allowed}` is not acceptable itself: {why}"),
                "correct or remove it",
            );
        }
    }
}

/// A JSON list, or a list in brackets.
fn enumeration(text: &str) -> Vec<String> {
    match serde_json::from_str::<Vec<serde_json::Value>>(text) {
        Ok(list) => list.iter().map(scalar_text).collect(),
        Err(_) => bracket_list(text),
    }
}

/// The text of a JSON scalar as a client would give it.
pub(in crate::descriptor) fn scalar_text(value: &serde_json::Value) -> String {
    match value {
        serde_json::Value::String(text) => text.clone(),
        serde_json::Value::Number(number) => crate::command::check::number_text(number),
        other => other.to_string(),
    }
}

/// The old agent only advertised the default, so a wrong one must not keep the file from loading.
fn default(reading: &mut Reading<'_>, section: &str, spec: &mut InputSpec) {
    let Some(text) = reading.text(section, "default") else { return };
    if text.is_empty() && spec.kind != Kind::Literal(LiteralType::String) {
        return;
    }
    // What depends on the run is filled in then; clients see it as it is written.
    let sample = text.replace("%(unique_exe_id)s", SAMPLE_ID);
    match check_value(spec, &sample) {
        Ok(()) => spec.default = vec![text],
        Err(why) => {
            let why = format!("`{text}` is not acceptable itself ({why}), so there is no default");
            reading.warn("bad-default", section, "default", why, "write a value that the input accepts");
        }
    }
}

/// The MIME list as written, or that of the type.
pub(in crate::descriptor) fn media_types(written: Option<&str>, entry: &types::TypeEntry) -> Vec<String> {
    let list: Vec<String> = match written {
        Some(text) if entry.kind.is_complex() => {
            bracket_list(text).into_iter().filter(|t| !t.is_empty()).collect()
        }
        _ => Vec::new(),
    };
    if list.is_empty() { entry.media_types.clone() } else { list }
}

fn constant(reading: &mut Reading<'_>, section: &str) -> Option<ConstSpec> {
    reading.unknown_keys(section, &INPUT_KEYS);
    let name = name(reading, section);
    let kind = kind(reading, section);
    let description = reading.required(section, "description", "add one sentence");
    let value = reading.required_template(section, "value", "add `value = …`");
    let (declared, entry) = kind?;
    description?;
    let (name, value) = (name?, value?);
    let text = value.to_string();
    // A text is a text whatever will be filled in; another type is checked if the value is known already.
    let fault = match entry.kind {
        Kind::Literal(LiteralType::String) | Kind::Text | Kind::Binary => no_control(&text),
        _ if !value.is_fixed() => no_control(&text),
        kind => check_const(&name, &declared, kind, &text),
    };
    let fault = fault.err();
    if let Some(why) = fault {
        let line = reading.doc.section(section).and_then(|s| s.entry("value")).map_or(0, |entry| entry.line);
        reading.errors.push(
            Finding::error("bad-value", why)
                .at(line)
                .section(section)
                .key("value")
                .remedy("correct the value or the type"),
        );
    }
    Some(ConstSpec { name, kind: entry.kind, value })
}

fn no_control(text: &str) -> Result<(), String> {
    if text.chars().any(char::is_control) { Err("holds a control character".to_owned()) } else { Ok(()) }
}

/// Whether a constant is what its type says. Of a text nothing is asked but that it holds no control character.
pub(in crate::descriptor) fn check_const(
    name: &str,
    declared: &str,
    kind: Kind,
    text: &str,
) -> Result<(), String> {
    no_control(text)?;
    match kind {
        Kind::Literal(LiteralType::String) | Kind::Text | Kind::Binary => Ok(()),
        kind => check_value(&bare(name, declared, kind, ""), text),
    }
}

/// An input without limits, to check a value of the descriptor itself.
fn bare(name: &str, declared: &str, kind: Kind, description: &str) -> InputSpec {
    let checks = Checks {
        url_schemes: ["http", "https", "ftp", "s3", "file"].map(str::to_owned).to_vec(),
        ..Checks::default()
    };
    InputSpec {
        name: name.to_owned(),
        title: None,
        description: description.to_owned(),
        declared: declared.to_owned(),
        kind,
        media_types: Vec::new(),
        declared_media_types: None,
        crs: types::systems(kind),
        min: 1,
        max: Some(1),
        default: Vec::new(),
        formatter: None,
        checks,
        multi: Multi::Repeat,
        pass_by: PassBy::Value,
        sensitive: false,
        uom: None,
        missing_is_none: false,
        line: 0,
    }
}
