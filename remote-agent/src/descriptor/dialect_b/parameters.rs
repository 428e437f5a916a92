//! The JSON objects of `[Input]` and `[Output]`.

use serde_json::{Map, Value};
use wps_remote_protocol::ini::{Entry, Finding, Template, nearest};

use super::json;
use crate::bbox;
use crate::command::template::{self, Style};
use crate::descriptor::common::{RawChecks, Reading, check_value, checks, multi};
use crate::descriptor::dialect_a::{check_const, scalar_text};
use crate::descriptor::model::{
    Action, ActionKind, Checks, ConstSpec, InputSpec, Kind, Multi, Operand, OutputSpec, PassBy, Place,
    Publish, Word,
};
use crate::descriptor::words::template_words;
use crate::descriptor::{paths, types};

const INPUT_MEMBERS: [&str; 27] = [
    "type",
    "title",
    "description",
    "min",
    "max",
    "default",
    "enum",
    "pattern",
    "min_length",
    "max_length",
    "range",
    "forbid",
    "allow_leading_dash",
    "allow_nan",
    "url_schemes",
    "formatter",
    "sensitive",
    "uom",
    "max_bytes",
    "mime",
    "crs",
    "arg",
    "alias",
    "multi",
    "flag",
    "pass_by",
    "const",
];

const OUTPUT_MEMBERS: [&str; 15] = [
    "type",
    "title",
    "description",
    "mime",
    "crs",
    "file",
    "source",
    "required",
    "publish",
    "backup",
    "upload",
    "upload_root",
    "sidecars",
    "min_bytes",
    "max_bytes",
];

/// What `[Input]` gives.
#[derive(Default)]
pub(super) struct Found {
    pub inputs: Vec<InputSpec>,
    pub consts: Vec<ConstSpec>,
    pub actions: Vec<Action>,
}

/// One object that is being read.
struct Object<'r, 'a> {
    reading: &'r mut Reading<'a>,
    section: &'static str,
    id: String,
    line: usize,
    members: Map<String, Value>,
}

impl<'r, 'a> Object<'r, 'a> {
    fn open(
        reading: &'r mut Reading<'a>,
        section: &'static str,
        entry: &Entry,
        known: &[&str],
    ) -> Option<Self> {
        let fault = |code, why: String, remedy: &str| {
            Finding::error(code, why).at(entry.line).section(section).key(&entry.key).remedy(remedy)
        };
        if let Some(earlier) = entry.replaced {
            let why = format!("is defined more than once (first in line {earlier})");
            reading.errors.push(fault("duplicate-name", why, "give each its own name"));
            return None;
        }
        let good = entry.key.len() <= 64
            && entry.key.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && entry.key.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b));
        if !good {
            let why = "is not a usable name".to_owned();
            reading.errors.push(fault(
                "bad-name",
                why,
                "use 1 to 64 of A-Z a-z 0-9 _ . - and begin with a letter or _",
            ));
            return None;
        }
        let members = match json::object(&entry.value) {
            Ok(members) => members,
            Err(why) => {
                reading.errors.push(fault(
                    "bad-object",
                    why,
                    "correct the JSON (quotes around names and texts, commas between members)",
                ));
                return None;
            }
        };
        for name in members.keys().filter(|name| !known.contains(&name.as_str())) {
            let near = nearest(name, known.iter().copied());
            let remedy =
                near.map_or_else(|| "remove it".to_owned(), |near| format!("did you mean `{near}`?"));
            reading.warnings.push(
                Finding::warning("unknown-member", format!("member `{name}` is not known and has no effect"))
                    .at(entry.line)
                    .section(section)
                    .key(&entry.key)
                    .remedy(remedy),
            );
        }
        Some(Self { reading, section, id: entry.key.clone(), line: entry.line, members })
    }

    fn error(&mut self, member: &str, why: impl Into<String>, remedy: &str) {
        let why = format!("member `{member}` {}", why.into());
        self.reading.errors.push(
            Finding::error("bad-value", why).at(self.line).section(self.section).key(&self.id).remedy(remedy),
        );
    }

    fn warn(&mut self, code: &'static str, why: impl Into<String>, remedy: &str) {
        let finding = Finding::warning(code, why).at(self.line).section(self.section).key(&self.id);
        self.reading.warnings.push(finding.remedy(remedy));
    }

    fn member(&self, name: &str) -> Option<&Value> {
        self.members.get(name).filter(|value| !value.is_null())
    }

    fn text(&mut self, name: &str) -> Option<String> {
        match self.member(name)? {
            Value::String(text) => Some(text.clone()),
            other => {
                let why = format!("is {other}, not a text");
                self.error(name, why, "write it in quotes");
                None
            }
        }
    }

    fn flag(&mut self, name: &str, default: bool) -> bool {
        match self.member(name) {
            None => default,
            Some(Value::Bool(value)) => *value,
            Some(other) => {
                let why = format!("is {other}, not a truth value");
                self.error(name, why, "write true or false without quotes");
                default
            }
        }
    }

    fn count(&mut self, name: &str) -> Option<u64> {
        let value = self.member(name)?;
        let number = value.as_u64();
        if number.is_none() {
            let why = format!("is {value}, not a whole number from 0");
            self.error(name, why, "write digits without quotes");
        }
        number
    }

    fn texts(&mut self, name: &str) -> Vec<String> {
        match self.member(name) {
            None => Vec::new(),
            Some(Value::Array(list)) => list.iter().map(scalar_text).collect(),
            Some(Value::String(text)) => text.split(',').map(|part| part.trim().to_owned()).collect(),
            Some(other) => {
                let why = format!("is {other}, neither a text nor a list");
                self.error(name, why, "write [\"first\", \"second\"]");
                Vec::new()
            }
        }
    }

    fn kind(&mut self) -> Option<(String, types::TypeEntry)> {
        let declared = self.text("type").unwrap_or_else(|| "string".to_owned());
        let entry = types::look_up(&declared);
        if entry.is_none() {
            let why = format!("is `{declared}`, which is not a type");
            self.error("type", why, &types::remedy(&declared));
        }
        entry.map(|entry| (declared, entry))
    }

    fn systems(&mut self, kind: Kind) -> Vec<String> {
        let systems = self.texts("crs");
        if kind != Kind::Box || systems.is_empty() {
            return types::systems(kind);
        }
        if let Some(bad) = systems.iter().find(|system| !bbox::is_system(system)) {
            let why = format!("has `{bad}`, which names no reference system");
            self.error("crs", why, "write [\"EPSG:4326\"]");
        }
        systems
    }

    fn media_types(&mut self, entry: &types::TypeEntry) -> (Vec<String>, Option<String>) {
        let list = self.texts("mime");
        let written = (!list.is_empty()).then(|| list.join(","));
        let list = if list.is_empty() || !entry.kind.is_complex() { entry.media_types.clone() } else { list };
        (list, written)
    }
}

/// Reads `[Input]`.
pub(super) fn inputs(reading: &mut Reading<'_>, format: &str) -> Found {
    let mut found = Found::default();
    let Some(section) = reading.doc.section("Input") else { return found };
    for entry in &section.entries {
        let Some(mut object) = Object::open(reading, "Input", entry, &INPUT_MEMBERS) else { continue };
        let operand = if object.member("const").is_some() {
            let Some(constant) = constant(&mut object) else { continue };
            found.consts.push(constant);
            Operand::Const(found.consts.len() - 1)
        } else {
            let Some(input) = input(&mut object) else { continue };
            found.inputs.push(input);
            Operand::Input(found.inputs.len() - 1)
        };
        let flag = object.flag("flag", false);
        let words = words(&mut object, format);
        if !words.is_empty() {
            let what = ActionKind::CommandLine { operand, words, flag };
            found.actions.push(Action { what, when: None, line: entry.line, section: "Input".to_owned() });
        }
    }
    found
}

/// The words of the parameter's own template, or of `argformat`.
fn words(object: &mut Object<'_, '_>, format: &str) -> Vec<Word> {
    let alias = object.text("alias").unwrap_or_else(|| object.id.clone());
    let own = object.text("arg");
    // `argformat` stands in [Options], where references are resolved; `arg` is taken as it is.
    let templates = match &own {
        Some(text) => Ok(template::raw_words(text).into_iter().map(Template::literal).collect()),
        None => {
            let reading = &object.reading;
            template_words(reading.doc, "Options", format, &reading.vars, Style::WholeWords)
        }
    };
    let templates: Vec<Template> = match templates {
        Ok(templates) => templates,
        Err(finding) => {
            object.reading.errors.push(finding.section("Options").key("argformat"));
            return Vec::new();
        }
    };
    let parsed = template::parse(&templates, Style::WholeWords, &Template::literal(alias));
    for (code, why) in parsed.oddities {
        object.warn(code, why, "write {key} and {value} to be clear");
    }
    parsed.words
}

fn input(object: &mut Object<'_, '_>) -> Option<InputSpec> {
    let (declared, entry) = object.kind()?;
    let (media_types, declared_media_types) = object.media_types(&entry);
    let crs = object.systems(entry.kind);
    let default = match object.member("default").cloned() {
        None => Vec::new(),
        Some(Value::Array(list)) => list.iter().map(scalar_text).collect(),
        Some(Value::Object(_)) if entry.kind != Kind::Json => {
            object.error("default", "is an object", "write a text, a number or a truth value");
            Vec::new()
        }
        Some(scalar) => vec![scalar_text(&scalar)],
    };
    let few = |number: Option<u64>| number.map(|number| u32::try_from(number).unwrap_or(u32::MAX));
    let max = match object.member("max") {
        Some(Value::String(text)) if text == "unbounded" => None,
        _ => match few(object.count("max")) {
            Some(0) => None,
            Some(max) => Some(max),
            None => Some(1),
        },
    };
    let min = few(object.count("min")).unwrap_or(u32::from(default.is_empty()));
    if max.is_some_and(|max| max < min) {
        object.error("max", "is below `min`", "raise max or lower min");
    }
    let default_pass = if entry.kind.is_complex() { PassBy::File } else { PassBy::Value };
    let pass_by = match object.text("pass_by").as_deref() {
        None => default_pass,
        Some("value") => PassBy::Value,
        Some("file") => PassBy::File,
        Some(other) => {
            let why = format!("is `{other}`");
            object.error("pass_by", why, "write \"value\" or \"file\"");
            default_pass
        }
    };
    let several = match object.text("multi") {
        None => Multi::Repeat,
        Some(text) => multi(&text).unwrap_or_else(|| {
            object.error("multi", format!("is `{text}`"), "write repeat, spread, json or join:SEPARATOR");
            Multi::Repeat
        }),
    };
    let length = |number: Option<u64>| number.and_then(|number| usize::try_from(number).ok());
    let mut spec = InputSpec {
        name: object.id.clone(),
        title: Some(object.text("title").unwrap_or_else(|| object.id.clone())),
        description: object.text("description").unwrap_or_default(),
        declared,
        kind: entry.kind,
        media_types,
        declared_media_types,
        crs,
        min,
        max,
        default: Vec::new(),
        formatter: object.text("formatter"),
        checks: Checks {
            min_length: length(object.count("min_length")),
            max_length: length(object.count("max_length")),
            forbid: object.text("forbid").filter(|text| !text.is_empty()),
            allow_leading_dash: object.flag("allow_leading_dash", false),
            allow_nan: object.flag("allow_nan", false),
            max_bytes: object.count("max_bytes"),
            ..Checks::default()
        },
        multi: several,
        pass_by,
        sensitive: object.flag("sensitive", false),
        uom: object.text("uom"),
        missing_is_none: false,
        line: object.line,
    };
    limits(object, &mut spec);
    if spec.max.is_some_and(|max| default.len() > max as usize) {
        object.error("default", "has more values than `max`", "raise max or shorten the list");
    }
    for text in &default {
        if let Err(why) = check_value(&spec, text) {
            object.error(
                "default",
                format!("is not acceptable itself: {why}"),
                "write a value that the input accepts",
            );
        }
    }
    spec.default = default;
    if object.flag("flag", false) && spec.kind != Kind::Literal(wps_remote_protocol::LiteralType::Boolean) {
        object.error("flag", "makes sense for booleans only", "set \"type\": \"boolean\"");
    }
    Some(spec)
}

fn limits(object: &mut Object<'_, '_>, spec: &mut InputSpec) {
    let end = |value: &Value| (!value.is_null()).then(|| scalar_text(value));
    let range = match object.member("range") {
        None => None,
        Some(Value::Array(list)) if list.len() == 2 => Some((end(&list[0]), end(&list[1]))),
        Some(_) => {
            object.error("range", "is not a pair", "write [lowest, highest]; null is open");
            None
        }
    };
    let allowed = match object.member("enum") {
        Some(Value::Array(list)) if !list.is_empty() => list.iter().map(scalar_text).collect(),
        Some(_) => {
            object.error("enum", "is not a list of values", "write [\"first\", \"second\"]");
            Vec::new()
        }
        None => Vec::new(),
    };
    let raw = RawChecks {
        allowed,
        pattern: object.text("pattern"),
        range,
        url_schemes: object.texts("url_schemes"),
    };
    for (key, why) in checks(raw, spec.kind, &mut spec.checks) {
        object.error(key, why, "see the descriptor reference");
    }
    for allowed in spec.checks.allowed.clone() {
        if let Err(why) = check_value(spec, &allowed) {
            object.error(
                "enum",
                format!("has `{allowed}`, which is not acceptable itself: {why}"),
                "correct or remove it",
            );
        }
    }
    if let (Some(pattern), Kind::Literal(wps_remote_protocol::LiteralType::DateTime)) =
        (&spec.formatter, spec.kind)
        && let Err(why) = crate::command::check::is_date_pattern(pattern)
    {
        object.error(
            "formatter",
            format!("is not a date pattern: {why}"),
            "use strftime letters such as %Y-%m-%d",
        );
    }
}

fn constant(object: &mut Object<'_, '_>) -> Option<ConstSpec> {
    let (declared, entry) = object.kind()?;
    let text = match object.member("const") {
        Some(Value::Array(_) | Value::Object(_)) | None => {
            object.error("const", "is not a single value", "write a text, a number or a truth value");
            return None;
        }
        Some(scalar) => scalar_text(scalar),
    };
    if let Err(why) = check_const(&object.id, &declared, entry.kind, &text) {
        object.error("const", format!("cannot be used: {why}"), "correct the value or the type");
        return None;
    }
    Some(ConstSpec { name: object.id.clone(), kind: entry.kind, value: Template::literal(text) })
}

/// Reads `[Output]`. `share` = file outputs go to the shared folder unless they say otherwise.
pub(super) fn outputs(reading: &mut Reading<'_>, share: bool) -> Vec<OutputSpec> {
    let Some(section) = reading.doc.section("Output") else { return Vec::new() };
    let uploads = reading.context.uploads;
    let mut outputs: Vec<OutputSpec> = Vec::new();
    for entry in &section.entries {
        let Some(mut object) = Object::open(reading, "Output", entry, &OUTPUT_MEMBERS) else { continue };
        let Some(output) = output(&mut object, share, uploads) else { continue };
        if output.place == Place::Stdout && outputs.iter().any(|other| other.place == Place::Stdout) {
            object.error(
                "source",
                "is stdout for more than one output",
                "only one output can be the standard output",
            );
        }
        outputs.push(output);
    }
    outputs
}

fn output(object: &mut Object<'_, '_>, share: bool, uploads: bool) -> Option<OutputSpec> {
    let (declared, entry) = object.kind()?;
    let (media_types, declared_media_types) = object.media_types(&entry);
    let crs = object.systems(entry.kind);
    let file = object.text("file");
    let place = match (object.text("source").as_deref(), file) {
        (Some("stdout"), None) => Place::Stdout,
        (Some("file" | "json") | None, None) => Place::Contract,
        (Some("file") | None, Some(file)) => {
            if !paths::is_inner(&file) || file.rsplit_once('/').is_some_and(|(dir, _)| dir.contains('*')) {
                object.error(
                    "file",
                    format!("is `{file}`"),
                    "write a path below the run directory; * may stand in its last part",
                );
            }
            if file.contains('*') { Place::Matching(file) } else { Place::File(Template::literal(file)) }
        }
        (Some("stdout" | "json"), Some(_)) => {
            object.error("source", "contradicts `file`", "keep one of the two");
            Place::Contract
        }
        (Some(other), _) => {
            let why = format!("is `{other}`");
            object.error("source", why, "write \"file\", \"json\" or \"stdout\"");
            Place::Contract
        }
    };
    let upload = object.flag("upload", false).then(|| object.text("upload_root"));
    if upload.is_some() && !uploads {
        let why = "no upload server is configured; the file goes the usual way";
        object.warn("no-uploader", why, "add [UPLOADER] to remote.config");
    }
    let publish = match object.member("publish").cloned() {
        None => Publish::default(),
        Some(Value::Object(hints)) => {
            let hint = |name: &str| hints.get(name).and_then(Value::as_str).map(str::to_owned);
            Publish {
                as_layer: Some("true".to_owned()),
                layer: hint("layer"),
                style: hint("style"),
                workspace: hint("workspace"),
                metadata: hint("metadata").map(Template::literal),
            }
        }
        Some(_) => {
            object.error("publish", "is not an object", "write {\"layer\": \"…\", \"style\": \"…\"}");
            Publish::default()
        }
    };
    let sidecars = match object.text("sidecars").as_deref() {
        None => false,
        Some("stem") => true,
        Some(other) => {
            object.error("sidecars", format!("is `{other}`"), "write \"stem\", or remove it");
            false
        }
    };
    Some(OutputSpec {
        name: object.id.clone(),
        title: Some(object.text("title").unwrap_or_else(|| object.id.clone())),
        description: Some(object.text("description").unwrap_or_default()),
        // Whoever wants an upload wants it instead, unless it says both.
        backup: object.flag("backup", share && entry.kind.is_complex() && upload.is_none()),
        kind: entry.kind,
        declared,
        media_types,
        declared_media_types,
        crs,
        place,
        required: object.flag("required", true),
        min_bytes: object.count("min_bytes"),
        max_bytes: object.count("max_bytes"),
        sidecars,
        upload,
        publish,
        layers: Vec::new(),
        line: object.line,
    })
}
