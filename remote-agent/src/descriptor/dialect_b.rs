//! Dialect B: `[Description]`, `[Options]`, `[Input]`, `[Output]`, where each input and output is one JSON object.

mod json;
mod parameters;

use std::path::PathBuf;
use std::sync::Arc;

use wps_remote_protocol::ini::{DEFAULT_SECTION, Document, Finding, Template, Variable};

use super::common::{self, Reading};
use super::logging;
use super::model::{Dialect, ServiceDescriptor};
use crate::rules::Rules;

/// Sections in any capitals, and whether their keys are, too.
pub(super) const SECTIONS: &[(&str, bool)] = &[
    ("Description", true),
    ("Options", true),
    ("Logging", true),
    ("Limits", true),
    ("Access", true),
    ("Environment", false),
    ("Input", false),
    ("Output", false),
];

const DESCRIPTION_KEYS: [&str; 11] = [
    "service",
    "namespace",
    "title",
    "description",
    "executable",
    "process_buffer",
    "result_size",
    "active",
    "version",
    "keywords",
    "retry_safe",
];

const OPTION_KEYS: [&str; 11] = [
    "customargs",
    "argformat",
    "debug",
    "max_running_time_seconds",
    "process_weight",
    "output_dir",
    "cwd",
    "share_results",
    "private_tmp",
    "allow_batch",
    "weight_command",
];

/// Longest run in seconds unless the descriptor says otherwise.
const MAX_RUNNING: u64 = 3600;

/// Reads the descriptor; faults are gathered in `reading`.
pub(super) fn read(reading: &mut Reading<'_>) -> Option<ServiceDescriptor> {
    let (d, o) = ("Description", "Options");
    reading.vars = std::mem::take(&mut reading.vars).with("workdir", Variable::AtRun);
    reading.unknown_keys(o, &OPTION_KEYS);
    reading.unknown_keys(d, &DESCRIPTION_KEYS);
    stray_sections(reading);
    let service = reading.required(d, "service", "add `service = NAME`");
    let namespace = reading.text(d, "namespace").unwrap_or_else(|| "default".to_owned());
    let id = service.as_deref().and_then(|service| reading.identity(d, &namespace, service));
    let executable = reading.required_template(d, "executable", "add the path of the program");
    let mut words: Vec<Template> =
        executable.into_iter().filter(|path| !path.to_string().is_empty()).collect();
    words.extend(reading.command_line(o, "customargs"));
    let mut program = reading.program(d, "executable", words, true);
    program.allow_batch = reading.flag(o, "allow_batch", false);

    let output_dir = match reading.template(o, "output_dir") {
        Some(template) => reading.fixed_dir(o, "output_dir", &template),
        None => reading.context.work_root.clone(),
    };
    let weight_command = reading.doc.section(o).and_then(|section| section.entry("weight_command")).is_some();
    let weight_command = weight_command
        .then(|| reading.command_line(o, "weight_command").iter().map(ToString::to_string).collect());
    let share = share_results(reading);
    let format = argument_format(reading);
    let found = parameters::inputs(reading, &format);
    let outputs = parameters::outputs(reading, share);
    let rules = match reading.doc.section("Logging") {
        Some(_) => logging::read(reading, "Logging"),
        None => Rules::simple(),
    };
    let debug = strict_bool(reading, o, "debug", false);
    let rules = Rules { log_unmatched: rules.log_unmatched || debug, ..rules };
    Some(ServiceDescriptor {
        source: reading.file.to_path_buf(),
        dialect: Dialect::B,
        hash: String::new(),
        id: id.unwrap_or_else(common::nobody),
        title: reading.text(d, "title"),
        description: reading.text(d, "description").unwrap_or_default(),
        active: strict_bool(reading, d, "active", true),
        version: reading.text(d, "version"),
        keywords: reading.words(d, "keywords"),
        repeatable: reading.flag(d, "retry_safe", false),
        program,
        cwd: reading.template(o, "cwd"),
        output_dir,
        extra_dir: None,
        max_running: reading.max_running(o, Some(MAX_RUNNING)),
        weight: reading.weight(o),
        weight_command,
        env: reading.environment(),
        private_tmp: reading.flag(o, "private_tmp", false),
        limits: reading.limits(),
        roles: reading.access(),
        inputs: found.inputs,
        consts: found.consts,
        actions: found.actions,
        outputs,
        rules: Arc::new(rules),
        debug,
        allowed_paths: reading.context.allowed_paths.clone(),
        legacy_sizes: (whole(reading, d, "process_buffer"), whole(reading, d, "result_size")),
        warnings: Vec::new(),
    })
}

/// A section that dialect B does not know has no effect; a near miss is most likely a typing error.
fn stray_sections(reading: &mut Reading<'_>) {
    let known = || SECTIONS.iter().map(|(name, _)| *name);
    let doc: &Document = reading.doc;
    for section in doc.sections() {
        if known().any(|name| name == section.name) || section.name == DEFAULT_SECTION {
            continue;
        }
        let near = wps_remote_protocol::ini::nearest(&section.name, known());
        let remedy = near.map_or_else(|| "remove it".to_owned(), |near| format!("did you mean [{near}]?"));
        reading.warnings.push(
            Finding::warning("unknown-section", "is not known in this form of descriptor and has no effect")
                .at(section.line)
                .section(&section.name)
                .remedy(remedy),
        );
    }
}

/// `true` or `false` in any capitals, nothing else.
fn strict_bool(reading: &mut Reading<'_>, section: &str, key: &str, default: bool) -> bool {
    let Some(text) = reading.text(section, key) else { return default };
    match text.trim().to_ascii_lowercase().as_str() {
        "true" => true,
        "false" => false,
        _ => {
            let why = format!("`{text}` is neither true nor false");
            reading.error("bad-value", section, key, why, "write True or False");
            default
        }
    }
}

fn whole(reading: &mut Reading<'_>, section: &str, key: &str) -> i64 {
    let Some(text) = reading.text(section, key) else { return 0 };
    text.trim().parse().unwrap_or_else(|_| {
        let why = format!("`{text}` is not a whole number");
        reading.error("bad-value", section, key, why, "write digits only");
        0
    })
}

/// Whether file outputs go to the shared folder.
fn share_results(reading: &mut Reading<'_>) -> bool {
    let shared: Option<PathBuf> = reading.context.shared_dir.clone();
    let Some(text) = reading.text("Options", "share_results") else { return shared.is_some() };
    match text.trim().to_ascii_lowercase().as_str() {
        "auto" => shared.is_some(),
        "true" => true,
        "false" => false,
        _ => {
            let why = format!("`{text}` is not known");
            reading.error("bad-value", "Options", "share_results", why, "write auto, true or false");
            false
        }
    }
}

/// The template of all arguments: raw text, so that it can be split before references are resolved.
fn argument_format(reading: &mut Reading<'_>) -> String {
    let entry = reading.doc.section("Options").and_then(|section| section.entry("argformat"));
    entry.map_or_else(|| "--key=value".to_owned(), |entry| entry.value.clone())
}
