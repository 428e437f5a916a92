//! Explains descriptors to the people who write them: what each key means here, what would be announced, what would be run,
//! and every fault with its place and remedy. Gives texts and JSON; prints nothing, starts nothing.

pub mod doctor;
pub mod log;
mod meanings;
mod sample;
#[cfg(test)]
mod tests;

use std::fmt::Write;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value as Json, json};
use wps_remote_protocol::ini::{Document, Entry, Finding, IniError};
use wps_remote_protocol::{
    AllowedValues, DataType, ExecutionId, InputDescription, Occurs, OutputDescription, ProcessDescription,
};

use crate::command::{self, FileContent, Plan, PlannedFile, PrepareError, RunContext, program};
use crate::descriptor::load::{load_descriptor, read_document};
use crate::descriptor::{Dialect, LoadContext, ServiceDescriptor};

/// Most bytes of a copied file that a dry run shows.
const MAX_SHOWN: u64 = 1024 * 1024;

/// What is said about one file.
#[derive(Debug, Clone)]
pub struct Explanation {
    /// For people.
    pub text: String,
    /// For programs.
    pub json: Json,
    /// Whether the file can be used; a missing program does not count, since it may come.
    pub usable: bool,
    /// Whether there is anything to warn of.
    pub warned: bool,
}

/// Explains a descriptor key by key, with its command line for sample inputs, every fault, and what is likely to go wrong on
/// this host. `others` is said of it because of other files.
pub fn check(file: &Path, bytes: &[u8], context: &LoadContext, others: &[Finding]) -> Explanation {
    let loaded = load_descriptor(file, bytes, context);
    let document = read_document(file, bytes, context).ok();
    let mut text = String::new();
    let shown = file.display();
    match &loaded {
        Ok(descriptor) => line(
            &mut text,
            format_args!("{shown}: process {}, dialect {:?}", descriptor.id, descriptor.dialect),
        ),
        Err(_) => line(&mut text, format_args!("{shown}: cannot be used")),
    }
    let keys = document.as_ref().map(|(dialect, doc)| explain_keys(*dialect, doc, loaded.as_ref().ok()));
    for key in keys.iter().flatten() {
        line(&mut text, format_args!("  {:>4}  [{}] {} = {}", key.line, key.section, key.key, key.shown));
        line(&mut text, format_args!("        {}", key.meaning));
    }
    let mut json = json!({
        "file": file,
        "kind": "descriptor",
        "usable": loaded.is_ok(),
        "dialect": document.as_ref().map(|(dialect, _)| format!("{dialect:?}")),
        "process": null, "active": null, "description": null, "sample": null, "held": null,
        "keys": keys.iter().flatten().map(Key::json).collect::<Vec<_>>(),
    });
    let mut warned = true;
    match &loaded {
        Ok(descriptor) => {
            text.push_str(&about(descriptor));
            command_line(descriptor, &mut text, &mut json);
            put(&mut json, "process", json!(descriptor.id.to_string()));
            put(&mut json, "active", json!(descriptor.active));
            put(&mut json, "description", description_json(descriptor));
            let mut warnings = descriptor.warnings.clone();
            warnings.extend(doctor::examine(descriptor));
            warnings.extend(others.iter().cloned());
            warnings.sort_by_key(|finding| finding.line);
            warned = !warnings.is_empty();
            findings(&mut text, &mut json, "warnings", file, &warnings);
            findings(&mut text, &mut json, "errors", file, &[]);
            if !descriptor.active {
                line(&mut text, format_args!("\nThe service is switched off (active is not true)."));
            }
        }
        Err(error) => {
            let doc_warnings = document.as_ref().map(|(_, doc)| doc.warnings().to_vec()).unwrap_or_default();
            findings(&mut text, &mut json, "warnings", file, &doc_warnings);
            findings(&mut text, &mut json, "errors", file, &error.findings);
        }
    }
    Explanation { text, json, usable: loaded.is_ok(), warned }
}

/// What is said of an agent's configuration, or of a file that is no descriptor at all.
pub fn findings_only(file: &Path, kind: &str, warnings: &[Finding], errors: &[Finding]) -> Explanation {
    let usable = errors.is_empty();
    let mut text =
        format!("{}: {kind}, {}\n", file.display(), if usable { "can be used" } else { "cannot be used" });
    let mut json = json!({
        "file": file, "kind": kind, "usable": usable, "dialect": null, "process": null, "active": null,
        "description": null, "sample": null, "held": null, "keys": [],
    });
    findings(&mut text, &mut json, "warnings", file, warnings);
    findings(&mut text, &mut json, "errors", file, errors);
    Explanation { text, json, usable, warned: !warnings.is_empty() }
}

/// Shows what would be announced of a descriptor.
pub fn describe(file: &Path, bytes: &[u8], context: &LoadContext) -> Explanation {
    match load_descriptor(file, bytes, context) {
        Ok(descriptor) => {
            let held = program::resolve(&descriptor).err();
            let mut text = about(&descriptor);
            let mut json = description_json(&descriptor);
            put(&mut json, "offered", json!(descriptor.active && held.is_none()));
            if !descriptor.active {
                line(&mut text, format_args!("Not announced: the service is switched off."));
                put(&mut json, "reason", json!("the service is switched off"));
            } else if let Some(held) = held {
                let where_ = format!("{}, line {}", file.display(), descriptor.program.line);
                line(&mut text, format_args!("Held back: {where_}: {held}."));
                put(&mut json, "reason", json!(held.to_string()));
            }
            Explanation { text, json, usable: true, warned: !descriptor.warnings.is_empty() }
        }
        Err(error) => Explanation {
            text: format!("{error}\n"),
            json: json!({ "file": file, "errors": error.findings.iter().map(finding_json).collect::<Vec<_>>() }),
            usable: false,
            warned: true,
        },
    }
}

/// The one JSON object of `try --dry-run`: `argv`, `cwd`, `env`, `files` and `warnings`, or `error`.
pub fn dry_run(descriptor: &ServiceDescriptor, outcome: &Result<Plan, PrepareError>) -> Json {
    let plan = match outcome {
        Ok(plan) => plan,
        Err(error) => return json!({ "error": refusal(error) }),
    };
    let env: Map<String, Json> = plan.env.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
    let mut warnings: Vec<Json> =
        descriptor.warnings.iter().chain(&plan.warnings).map(finding_json).collect();
    if let Some(held) = &plan.held {
        let finding = Finding::warning("program-missing", held.to_string())
            .at(descriptor.program.line)
            .key(descriptor.program.key)
            .remedy("install it, or correct the path; the process is not announced until then");
        warnings.push(finding_json(&finding));
    }
    json!({
        "argv": plan.argv(),
        "cwd": plan.cwd,
        "env": env,
        "files": plan.files.iter().map(file_json).collect::<Vec<_>>(),
        "stdin": plan.stdin.as_deref().map(String::from_utf8_lossy),
        "warnings": warnings,
    })
}

/// The `error` member of a dry run.
pub fn refusal(error: &PrepareError) -> Json {
    match error {
        PrepareError::Input(error) => {
            json!({ "code": error.code.as_str(), "locator": error.locator, "why": error.why })
        }
        PrepareError::Setup(why) => json!({ "code": "NoApplicableCode", "locator": null, "why": why }),
    }
}

/// The `error` member of a dry run of a descriptor that cannot be used.
pub fn unusable(error: &IniError) -> Json {
    let list: Vec<Json> = error.findings.iter().map(finding_json).collect();
    json!({ "error": { "code": "NoApplicableCode", "locator": null, "why": error.to_string(), "findings": list } })
}

/// A finding for programs.
pub fn finding_json(finding: &Finding) -> Json {
    json!({
        "code": finding.code,
        "line": finding.line,
        "section": finding.section,
        "key": finding.key,
        "text": finding.to_string(),
        "why": finding.why,
        "remedy": finding.remedy,
    })
}

fn file_json(file: &PlannedFile) -> Json {
    let bytes = match &file.content {
        FileContent::Bytes(bytes) => Some(bytes.clone()),
        FileContent::CopyOf(from) => read(from),
    };
    let mut json = match bytes.as_deref().map(std::str::from_utf8) {
        Some(Ok(text)) => json!({ "path": file.path, "content": text }),
        Some(Err(_)) => {
            json!({ "path": file.path, "content_base64": bytes.map(|bytes| STANDARD.encode(bytes)) })
        }
        None => json!({ "path": file.path, "content": null }),
    };
    if let FileContent::CopyOf(from) = &file.content {
        put(&mut json, "copy_of", json!(from));
    }
    json
}

fn read(path: &Path) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(MAX_SHOWN + 1).read_to_end(&mut bytes).ok()?;
    (bytes.len() as u64 <= MAX_SHOWN).then_some(bytes)
}

/// One key of the file and what it means.
struct Key {
    line: usize,
    section: String,
    key: String,
    value: String,
    shown: String,
    meaning: String,
}

impl Key {
    fn json(&self) -> Json {
        json!({
            "line": self.line, "section": self.section, "key": self.key, "value": self.value, "meaning": self.meaning,
        })
    }
}

fn explain_keys(dialect: Dialect, doc: &Document, descriptor: Option<&ServiceDescriptor>) -> Vec<Key> {
    let mut keys = Vec::new();
    for section in doc.sections() {
        for entry in &section.entries {
            let secret = descriptor.is_some_and(|descriptor| is_secret(descriptor, &section.entries));
            keys.push(Key {
                line: entry.line,
                section: section.name.clone(),
                key: entry.key.clone(),
                value: entry.value.clone(),
                shown: shorten(&entry.value, secret && entry.key == "value"),
                meaning: meanings::of(dialect, &section.name, entry, doc),
            });
        }
    }
    keys.sort_by_key(|key| key.line);
    keys
}

/// Whether a section defines an input that must not be shown.
fn is_secret(descriptor: &ServiceDescriptor, entries: &[Entry]) -> bool {
    let name = entries.iter().find(|entry| entry.key == "name").map(|entry| entry.value.as_str());
    descriptor.inputs.iter().any(|input| input.sensitive && Some(input.name.as_str()) == name)
}

fn shorten(value: &str, secret: bool) -> String {
    if secret {
        return "****".to_owned();
    }
    let one_line = value.replace('\n', " ⏎ ");
    let short: String = one_line.chars().take(100).collect();
    if short.len() < one_line.len() { format!("{short}…") } else { short }
}

fn about(descriptor: &ServiceDescriptor) -> String {
    let description = descriptor.description();
    let mut text = String::new();
    line(&mut text, format_args!("\n{} - {}", description.id, description.title));
    if !description.summary.is_empty() {
        line(&mut text, format_args!("{}", description.summary));
    }
    line(&mut text, format_args!("Inputs:{}", if description.inputs.is_empty() { " none" } else { "" }));
    for input in &description.inputs {
        line(&mut text, format_args!("  {}", input_line(input)));
    }
    line(&mut text, format_args!("Outputs:{}", if description.outputs.is_empty() { " none" } else { "" }));
    for output in &description.outputs {
        line(&mut text, format_args!("  {}", output_line(output)));
    }
    text
}

fn data(data: &DataType) -> String {
    match data {
        DataType::Literal(literal) => {
            let mut text = literal.kind.xs_name().to_owned();
            if let Some(uom) = &literal.uom {
                let _ = write!(text, " in {uom}");
            }
            match &literal.allowed {
                AllowedValues::Any => {}
                AllowedValues::Values(values) => {
                    let _ = write!(text, ", one of {}", values.join(", "));
                }
                AllowedValues::Range { min, max } => {
                    let end = |end: &Option<String>| end.clone().unwrap_or_else(|| "…".to_owned());
                    let _ = write!(text, ", {} to {}", end(min), end(max));
                }
            }
            if let Some(default) = &literal.default {
                let _ = write!(text, ", default `{default}`");
            }
            text
        }
        DataType::Complex(complex) => {
            complex.formats.iter().map(|format| format.media_type.as_str()).collect::<Vec<_>>().join(", ")
        }
        DataType::BoundingBox(bbox) => format!("bounding box in {}", bbox.crs.join(", ")),
    }
}

fn input_line(input: &InputDescription) -> String {
    let count = match input.occurs {
        Occurs { min: 1, max: Some(1) } => "required".to_owned(),
        Occurs { min: 0, max: Some(1) } => "optional".to_owned(),
        Occurs { min, max: None } => format!("{min} or more times"),
        Occurs { min, max: Some(max) } if min == max => format!("{min} times"),
        Occurs { min, max: Some(max) } => format!("{min} to {max} times"),
    };
    format!("{} ({count}): {} - {}", input.id, data(&input.data), input.summary)
}

fn output_line(output: &OutputDescription) -> String {
    let optional = if output.optional { " (may be absent)" } else { "" };
    format!("{}{optional}: {} - {}", output.id, data(&output.data), output.summary)
}

fn description_json(descriptor: &ServiceDescriptor) -> Json {
    let description: ProcessDescription = descriptor.description();
    serde_json::to_value(description).unwrap_or(Json::Null)
}

/// The command line for sample inputs, and whether its program is there.
fn command_line(descriptor: &ServiceDescriptor, text: &mut String, json: &mut Json) {
    let Ok(execution) = ExecutionId::new("sample-run") else { return };
    let inputs = sample::inputs(descriptor);
    let mut outcome = command::prepare(descriptor, &RunContext::new(execution), &inputs);
    if let Ok(plan) = &mut outcome {
        // What was made up here is no secret; a default of the file may be one.
        let made_up = |secret: &String| {
            inputs.iter().any(|input| input.value == wps_remote_protocol::Value::literal(secret))
        };
        plan.sensitive.retain(|secret| !made_up(secret));
    }
    line(text, format_args!("Command line for sample inputs:"));
    match &outcome {
        Ok(plan) => {
            line(text, format_args!("  {}", plan.masked(&quoted(&plan.argv()))));
            line(text, format_args!("  in {}", plan.cwd.display()));
            for file in &plan.files {
                line(text, format_args!("  writes {}", file.path.display()));
            }
            if let Some(held) = &plan.held {
                line(
                    text,
                    format_args!(
                        "Held back: line {}: {held}. The process is announced as soon as it can be started.",
                        descriptor.program.line
                    ),
                );
            }
        }
        Err(error) => line(text, format_args!("  none: {error}")),
    }
    put(json, "sample", dry_run(descriptor, &outcome));
    let held = outcome.as_ref().ok().and_then(|plan| plan.held.as_ref()).map(ToString::to_string);
    put(json, "held", json!(held));
}

fn findings(text: &mut String, json: &mut Json, name: &str, file: &Path, list: &[Finding]) {
    let placed = |finding: &Finding| {
        let mut json = finding_json(finding);
        put(&mut json, "place", json!(place(file, finding)));
        json
    };
    put(json, name, list.iter().map(placed).collect());
    if list.is_empty() {
        return;
    }
    line(
        text,
        format_args!("\n{} {}:", list.len(), if list.len() == 1 { &name[..name.len() - 1] } else { name }),
    );
    for finding in list {
        let without_line = Finding { line: 0, ..finding.clone() };
        line(text, format_args!("  {}: {without_line} ({})", place(file, finding), finding.code));
    }
}

/// `file:line`, which editors jump to; the file alone if no line is meant.
fn place(file: &Path, finding: &Finding) -> String {
    match finding.line {
        0 => file.display().to_string(),
        line => format!("{}:{line}", file.display()),
    }
}

/// For the eyes: how a shell would have to be given these arguments. No shell ever gets them.
pub fn quoted(argv: &[String]) -> String {
    let word = |text: &String| {
        let plain = |c: char| c.is_alphanumeric() || "-_./=:,@%+".contains(c);
        if !text.is_empty() && text.chars().all(plain) {
            text.clone()
        } else {
            format!("'{}'", text.replace('\'', r"'\''"))
        }
    };
    argv.iter().map(word).collect::<Vec<_>>().join(" ")
}

fn line(text: &mut String, args: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{args}");
}

fn put(json: &mut Json, name: &str, value: Json) {
    if let Json::Object(object) = json {
        object.insert(name.to_owned(), value);
    }
}
