//! Dialect A: `[DEFAULT]`, and sections whose names hold `input`, `const`, `action` or `output`. Reads what the Python
//! agent read, in its order, and warns wherever a literal reading is not what the author most likely meant.

mod actions;
mod inputs;
mod outputs;
mod when;

pub(super) use inputs::{check_const, scalar_text};

use std::cmp::Ordering;
use std::path::Path;
use std::sync::Arc;

use wps_remote_protocol::ini::{DEFAULT_SECTION, Template, nearest};

use super::common::{self, Reading, SAMPLE_ID};
use super::logging;
use super::model::{Dialect, ServiceDescriptor};
use super::paths;

/// Keys of `[DEFAULT]` that mean something; all others are variables of the author.
const DEFAULT_KEYS: [&str; 27] = [
    "service",
    "namespace",
    "description",
    "active",
    "output_dir",
    "max_running_time_seconds",
    "executable_path",
    "executable_cmd",
    "workdir",
    "process_weight",
    "unique_execution_id",
    "servicePassword",
    "sharedir",
    "load_average_scan_minutes",
    "process_blacklist",
    "title",
    "version",
    "keywords",
    "sort",
    "cwd",
    "private_tmp",
    "allow_batch",
    "weight_command",
    "retry_safe",
    "debug",
    "capacity",
    "load_threshold",
];

/// What a section is, by the letters in its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Roles {
    input: bool,
    output: bool,
    action: bool,
}

impl Roles {
    fn of(name: &str) -> Self {
        let name = name.to_lowercase();
        Self {
            input: name.contains("input") || name.contains("const"),
            output: name.contains("output"),
            action: name.contains("action"),
        }
    }

    fn count(self) -> usize {
        [self.input, self.output, self.action].into_iter().filter(|role| *role).count()
    }
}

/// Reads the descriptor; faults are gathered in `reading`.
pub(super) fn read(reading: &mut Reading<'_>) -> Option<ServiceDescriptor> {
    let d = DEFAULT_SECTION;
    reading.doc.section(d)?;
    reading.known = &DEFAULT_KEYS;
    // legacy: one reference in [DEFAULT] that cannot be resolved makes the whole file unusable.
    for entry in &reading.doc.section(d)?.entries {
        reading.template(d, &entry.key);
    }
    if !reading.errors.is_empty() {
        return None;
    }
    let service = reading.required(d, "service", "add `service = NAME`");
    let namespace =
        reading.required(d, "namespace", "add `namespace = NAME`; it is also the name of the room");
    let id = match (&namespace, &service) {
        (Some(namespace), Some(service)) => reading.identity(d, namespace, service),
        _ => None,
    };
    let description = reading.required(d, "description", "add one sentence that says what the process does");
    let active = active(reading);
    reading.required(d, "max_running_time_seconds", "add `max_running_time_seconds = 3600`");
    let max_running = reading.max_running(d, None);

    let output_dir = match reading.template(d, "output_dir") {
        Some(template) => reading.fixed_dir(d, "output_dir", &template),
        None => reading.context.work_root.clone(),
    };
    let workdir = reading.required_template(d, "workdir", "add `workdir = %(output_dir)s/%(unique_exe_id)s`");
    let extra_dir = workdir.and_then(|template| extra_dir(reading, &output_dir, template));
    let path_key =
        reading.required_template(d, "executable_path", "add the working directory of the program");
    let cwd = reading.template(d, "cwd").or_else(|| path_key.clone());
    reading.required_template(d, "executable_cmd", "add the program and its fixed arguments");
    let mut words = reading.command_line(d, "executable_cmd");
    if let Some(path) = path_key.as_ref().filter(|path| !is_absolute(path)) {
        relative_executable(reading, path, &mut words);
    }
    let mut program = reading.program(d, "executable_cmd", words, false);
    program.allow_batch = reading.flag(d, "allow_batch", false);
    let weight_command = reading.doc.section(d).and_then(|section| section.entry("weight_command")).is_some();
    let weight_command = weight_command
        .then(|| reading.command_line(d, "weight_command").iter().map(ToString::to_string).collect());

    let sections = ordered_sections(reading);
    let (inputs, consts) = inputs::read(reading, &sections.inputs);
    let outputs = outputs::read(reading, &sections.outputs);
    let mut descriptor = ServiceDescriptor {
        source: reading.file.to_path_buf(),
        dialect: Dialect::A,
        hash: String::new(),
        id: id.unwrap_or_else(common::nobody),
        title: reading.text(d, "title"),
        description: description.unwrap_or_default(),
        active,
        version: reading.text(d, "version"),
        keywords: reading.words(d, "keywords"),
        repeatable: reading.flag(d, "retry_safe", false),
        program,
        cwd,
        output_dir,
        extra_dir,
        max_running,
        weight: reading.weight(d),
        weight_command,
        env: reading.environment(),
        private_tmp: reading.flag(d, "private_tmp", false),
        limits: reading.limits(),
        roles: reading.access(),
        inputs,
        consts,
        actions: Vec::new(),
        outputs,
        rules: Arc::new(logging::read(reading, "Logging")),
        // In old files the name may be a variable of the author with any text.
        debug: reading.text(d, "debug").is_some_and(|text| text.trim().eq_ignore_ascii_case("true")),
        allowed_paths: reading.context.allowed_paths.clone(),
        legacy_sizes: (0, 0),
        warnings: Vec::new(),
    };
    // A separate work directory of the run is as good a place as the run directory itself.
    descriptor.actions = actions::read(reading, &sections.actions, &descriptor);
    outputs::check_places(reading, &descriptor);
    odd_text(reading, &sections);
    mistyped_defaults(reading);
    mistyped_sections(reading);
    Some(descriptor)
}

fn active(reading: &mut Reading<'_>) -> bool {
    let d = DEFAULT_SECTION;
    let text = reading.required(d, "active", "add `active = true`").unwrap_or_default();
    let text = text.trim().to_ascii_lowercase();
    if text != "true" && text != "false" && !text.is_empty() {
        let why = format!("`{text}` is neither true nor false; the service is off");
        reading.warn("active-not-boolean", d, "active", why, "write true or false");
    }
    text == "true"
}

fn is_absolute(template: &Template) -> bool {
    Path::new(&template.to_string()).is_absolute()
        // A path that begins with a run variable is as absolute as what it will be.
        || matches!(template.pieces().first(), Some(wps_remote_protocol::ini::Piece::Variable(_)))
}

/// legacy: a relative `executable_path` is replaced by the absolute one wherever it stands in the command line.
fn relative_executable(reading: &mut Reading<'_>, path: &Template, words: &mut [Template]) {
    let text = path.to_string();
    let why = format!("`{text}` is relative; it is taken as relative to the descriptor");
    reading.warn("relative-path", DEFAULT_SECTION, "executable_path", why, "write an absolute path");
    if text.is_empty() || text == "." || text == "./" {
        return;
    }
    let absolute = paths::absolute(Path::new(&text), reading.dir()).to_string_lossy().into_owned();
    let prefix = text.trim_end_matches('/');
    for word in words.iter_mut() {
        let Some(fixed) = word.fixed() else { continue };
        let at = fixed.find('=').map_or(0, |at| at + 1);
        for start in [0, at] {
            if let Some(rest) = fixed[start..].strip_prefix(prefix)
                && (rest.is_empty() || rest.starts_with('/'))
            {
                *word = Template::literal(format!("{}{absolute}{rest}", &fixed[..start]));
                break;
            }
        }
    }
}

/// `workdir`, when it is not the run directory itself.
fn extra_dir(reading: &mut Reading<'_>, output_dir: &Path, template: Template) -> Option<Template> {
    let sample = template.fill(|_| Some(SAMPLE_ID.to_owned()));
    let sample = paths::absolute(Path::new(&sample), reading.dir());
    if sample == output_dir.join(SAMPLE_ID) {
        return None;
    }
    let ends_in_id = sample.file_name().is_some_and(|name| name == SAMPLE_ID);
    let allowed = reading.context.allowed_paths.iter().any(|root| sample.starts_with(root));
    if !ends_in_id && !allowed && !sample.starts_with(output_dir) {
        let why = format!("{} lies outside output_dir and is not a directory of one run", template);
        reading.error(
            "path-outside",
            DEFAULT_SECTION,
            "workdir",
            why,
            "write `%(output_dir)s/%(unique_exe_id)s`, or add the directory to allowed_paths in remote.config",
        );
        return None;
    }
    let why = format!("differs from the run directory {}", output_dir.join("<execution id>").display());
    reading.warn(
        "workdir-differs",
        DEFAULT_SECTION,
        "workdir",
        why,
        "write `%(output_dir)s/%(unique_exe_id)s`",
    );
    Some(template)
}

#[derive(Debug, Default)]
struct Sections {
    inputs: Vec<String>,
    outputs: Vec<String>,
    actions: Vec<String>,
}

/// The sections of each role, in byte order of their names or in natural order if the file asks for it.
fn ordered_sections(reading: &mut Reading<'_>) -> Sections {
    let natural = match reading.text(DEFAULT_SECTION, "sort").as_deref() {
        None | Some("byte" | "text" | "") => false,
        Some("natural") => true,
        Some(other) => {
            let why = format!("`{other}` is not an order of sections");
            reading.error("bad-value", DEFAULT_SECTION, "sort", why, "write natural, or remove the key");
            false
        }
    };
    let mut found = Sections::default();
    let doc = reading.doc;
    for section in doc.sections().iter().filter(|section| section.name != DEFAULT_SECTION) {
        let name = section.name.as_str();
        let roles = Roles::of(name);
        if roles.count() == 0 {
            continue;
        }
        let plain = ["input", "const", "output", "action"].iter().any(|role| {
            let lower = name.to_lowercase();
            lower
                .strip_prefix(role)
                .is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-'))
        });
        if !plain {
            let why = "is taken for an input, const, output or action because of the letters in its name";
            reading.warn(
                "role-by-substring",
                name,
                "",
                why,
                "name it Input…, Const…, Output… or Action…, or something without these words",
            );
        }
        if roles.count() > 1 {
            if roles.action {
                let why = "is read both as an action and as an input or output, and cannot be both";
                reading.error("several-roles", name, "", why, "rename the section");
                continue;
            }
            let why = "is read in several roles because of the letters in its name";
            reading.warn("several-roles", name, "", why, "rename the section");
        }
        if roles.input {
            found.inputs.push(name.to_owned());
        }
        if roles.output {
            found.outputs.push(name.to_owned());
        }
        if roles.action {
            found.actions.push(name.to_owned());
        }
    }
    for list in [&mut found.inputs, &mut found.outputs, &mut found.actions] {
        list.sort();
        let mut other = list.clone();
        other.sort_by(|a, b| natural_order(a, b));
        if *list != other {
            if natural {
                *list = other;
            } else {
                let at = list.iter().zip(&other).position(|(a, b)| a != b).unwrap_or(0);
                let why = format!(
                    "comes here because names are ordered as texts, not by their numbers ([{}] would be expected)",
                    other[at]
                );
                reading.warn(
                    "text-order",
                    &list[at].clone(),
                    "",
                    why,
                    "use two digits in all names, or set `sort = natural` in [DEFAULT]",
                );
            }
        }
    }
    found
}

/// Digits compare as numbers, everything else byte by byte.
fn natural_order(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a, b);
    loop {
        match (a.chars().next(), b.chars().next()) {
            (None, None) => return Ordering::Equal,
            (None, _) => return Ordering::Less,
            (_, None) => return Ordering::Greater,
            (Some(x), Some(y)) if x.is_ascii_digit() && y.is_ascii_digit() => {
                let digits = |text: &str| text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
                let (i, j) = (digits(a), digits(b));
                let (x, y) = (a[..i].trim_start_matches('0'), b[..j].trim_start_matches('0'));
                let order = x.len().cmp(&y.len()).then_with(|| x.cmp(y)).then_with(|| i.cmp(&j));
                if order != Ordering::Equal {
                    return order;
                }
                (a, b) = (&a[i..], &b[j..]);
            }
            (Some(x), Some(y)) if x == y => (a, b) = (&a[x.len_utf8()..], &b[y.len_utf8()..]),
            (Some(_), Some(_)) => return a.as_bytes().cmp(b.as_bytes()),
        }
    }
}

/// GeoServer's JSON library turns such texts into JSON values, which breaks the registration there.
fn odd_text(reading: &mut Reading<'_>, sections: &Sections) {
    let odd = |text: &str| text.starts_with(['[', '{']) || text == "null";
    let d = DEFAULT_SECTION.to_owned();
    let places = std::iter::once((&d, &["description", "title"][..]))
        .chain(sections.inputs.iter().map(|section| (section, &["description", "title", "default"][..])))
        .chain(sections.outputs.iter().map(|section| (section, &["description", "title"][..])));
    for (section, keys) in places {
        for key in keys {
            // Resolved for the descriptor already, so without a fault.
            if reading.text(section, key).is_some_and(|text| odd(text.trim())) {
                let why = "looks like JSON, which breaks the registration at a GeoServer";
                reading.warn("json-like-text", section, key, why, "begin with a word");
            }
        }
    }
}

/// A section that nobody reads is nobody's business, unless its name is nearly one that is read.
fn mistyped_sections(reading: &mut Reading<'_>) {
    const SPECIAL: [&str; 5] = ["DEFAULT", "Logging", "Environment", "Limits", "Access"];
    const ROLES: [&str; 4] = ["Input", "Const", "Output", "Action"];
    let doc = reading.doc;
    for section in doc.sections() {
        let name = section.name.as_str();
        let any_case =
            ["environment", "limits", "access"].iter().any(|known| name.eq_ignore_ascii_case(known));
        if SPECIAL.contains(&name) || any_case || Roles::of(name).count() > 0 {
            continue;
        }
        let stem = name.trim_end_matches(|c: char| c.is_ascii_digit());
        let near = match nearest(name, SPECIAL) {
            Some(near) => Some(near.to_owned()),
            None => nearest(stem, ROLES).map(|role| format!("{role}{}", &name[stem.len()..])),
        };
        if let Some(near) = near {
            let why = "is not a section that is read";
            reading.warn("unknown-section", name, "", why, &format!("did you mean [{near}]?"));
        }
    }
}

/// A key of `[DEFAULT]` that nobody refers to and that is nearly a known one is most likely a typing error.
fn mistyped_defaults(reading: &mut Reading<'_>) {
    let Some(section) = reading.doc.section(DEFAULT_SECTION) else { return };
    let all: Vec<&str> =
        reading.doc.sections().iter().flat_map(|s| s.entries.iter().map(|e| e.value.as_str())).collect();
    for entry in &section.entries {
        let known = DEFAULT_KEYS.contains(&entry.key.as_str());
        let used = all.iter().any(|value| value.contains(&format!("%({})s", entry.key)));
        if known || used {
            continue;
        }
        if let Some(near) = nearest(&entry.key, DEFAULT_KEYS) {
            reading.warn(
                "unknown-key",
                DEFAULT_SECTION,
                &entry.key,
                "is not known and nothing refers to it",
                &format!("did you mean `{near}`?"),
            );
        }
    }
}
