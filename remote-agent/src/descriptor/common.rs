//! What the loaders of both dialects share: gathering findings, resolving and reading keys, checks of values.

use std::path::{Path, PathBuf};

use wps_remote_protocol::ini::settings::boolean;
use wps_remote_protocol::ini::{Document, Finding, Template, Variables, bracket_list, nearest};
use wps_remote_protocol::{LiteralType, ProcessId, process::is_name};

use super::load::LoadContext;
use super::model::{Checks, InputSpec, Kind, Multi};
use super::paths;
use super::pattern::{Anchor, Pattern};
use crate::command::check;

/// Stands for the execution id where a descriptor's paths are checked before any run.
pub(super) const SAMPLE_ID: &str = "0000000000000000";

/// Stands for a process whose name is a fault already: what else is wrong with the file is told in the same breath.
pub(super) fn nobody() -> ProcessId {
    ProcessId::new("default", "nameless").expect("two simple names")
}

/// A descriptor file that is being read.
pub(super) struct Reading<'a> {
    pub doc: &'a Document,
    pub vars: Variables,
    pub context: &'a LoadContext,
    pub file: &'a Path,
    pub errors: Vec<Finding>,
    pub warnings: Vec<Finding>,
    /// What keys the section may have that is being read: another one there may be a misspelled one.
    pub known: &'static [&'static str],
}

impl Reading<'_> {
    /// The directory of the file.
    pub fn dir(&self) -> &Path {
        self.file.parent().unwrap_or(Path::new("."))
    }

    /// The line and name of a key that was written in the place of one that is missing, most likely.
    fn misspelled(&self, section: &str, wanted: &str) -> Option<(usize, String)> {
        let entries = &self.doc.section(section)?.entries;
        let strange = || entries.iter().filter(|entry| !self.known.contains(&entry.key.as_str()));
        let near = nearest(wanted, strange().map(|entry| entry.key.as_str()))?;
        strange().find(|entry| entry.key == near).map(|entry| (entry.line, entry.key.clone()))
    }

    pub(super) fn place(&self, finding: Finding, section: &str, key: &str) -> Finding {
        let entry = self.doc.section(section).and_then(|found| found.entry(key));
        let line =
            entry.map(|entry| entry.line).or_else(|| self.doc.section(section).map(|found| found.line));
        let finding = finding.at(line.unwrap_or(0)).section(section);
        if key.is_empty() { finding } else { finding.key(key) }
    }

    /// Records a reason why the file cannot be used.
    pub fn error(
        &mut self,
        code: &'static str,
        section: &str,
        key: &str,
        why: impl Into<String>,
        remedy: &str,
    ) {
        let finding = self.place(Finding::error(code, why).remedy(remedy), section, key);
        self.errors.push(finding);
    }

    /// Records something odd.
    pub fn warn(
        &mut self,
        code: &'static str,
        section: &str,
        key: &str,
        why: impl Into<String>,
        remedy: &str,
    ) {
        let finding = self.place(Finding::warning(code, why).remedy(remedy), section, key);
        self.warnings.push(finding);
    }

    /// A key of this very section, references resolved.
    pub fn template(&mut self, section: &str, key: &str) -> Option<Template> {
        self.doc.section(section)?.entry(key)?;
        match self.doc.resolve(section, key, &self.vars) {
            Ok(template) => template,
            Err(finding) => {
                self.errors.push(finding);
                None
            }
        }
    }

    /// A key of this very section as clients see it: what depends on the run stays as written.
    pub fn text(&mut self, section: &str, key: &str) -> Option<String> {
        self.template(section, key).map(|template| template.to_string())
    }

    /// A key that must be there.
    pub fn required(&mut self, section: &str, key: &str, remedy: &str) -> Option<String> {
        self.required_template(section, key, remedy).map(|template| template.to_string())
    }

    /// A key that must be there, with run variables.
    pub fn required_template(&mut self, section: &str, key: &str, remedy: &str) -> Option<Template> {
        let before = self.errors.len();
        let found = self.template(section, key);
        if found.is_none() && self.errors.len() == before {
            match self.misspelled(section, key) {
                None => self.error("missing-key", section, key, "is required", remedy),
                Some((line, written)) => {
                    let remedy = format!("did you mean it by `{written}` in line {line}?");
                    self.error("missing-key", section, key, "is required", &remedy);
                }
            }
        }
        found
    }

    /// A truth value of an extension key; absent = `default`.
    pub fn flag(&mut self, section: &str, key: &str, default: bool) -> bool {
        let Some(text) = self.text(section, key) else { return default };
        boolean(&text).unwrap_or_else(|| {
            self.error(
                "bad-value",
                section,
                key,
                format!("`{text}` is neither true nor false"),
                "write true or false",
            );
            default
        })
    }

    /// A whole number that is not negative.
    pub fn count(&mut self, section: &str, key: &str) -> Option<u64> {
        let text = self.text(section, key)?;
        match text.trim().parse() {
            Ok(number) => Some(number),
            Err(_) => {
                let why = format!("`{text}` is not a whole number from 0");
                self.error("bad-value", section, key, why, "write digits only");
                None
            }
        }
    }

    /// Warns of keys that are close to a known one but not it.
    pub fn unknown_keys(&mut self, section: &str, known: &'static [&'static str]) {
        self.known = known;
        let Some(found) = self.doc.section(section) else { return };
        for entry in &found.entries {
            if known.contains(&entry.key.as_str()) {
                continue;
            }
            let remedy = match nearest(&entry.key, known.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => "remove it, or see the descriptor reference for what is known".to_owned(),
            };
            self.warnings.push(
                Finding::warning("unknown-key", "is not known here and has no effect")
                    .at(entry.line)
                    .section(section)
                    .key(&entry.key)
                    .remedy(remedy),
            );
        }
    }

    /// Namespace and service.
    pub fn identity(&mut self, section: &str, namespace: &str, service: &str) -> Option<ProcessId> {
        for (key, text) in [("namespace", namespace), ("service", service)] {
            if !is_name(text) {
                let why = format!("`{text}` cannot be part of an address");
                self.error("bad-name", section, key, why, "use 1 to 64 of the characters A-Z a-z 0-9 _ -");
            }
        }
        ProcessId::new(namespace, service).ok()
    }

    /// A directory that must not depend on the run.
    pub fn fixed_dir(&mut self, section: &str, key: &str, template: &Template) -> PathBuf {
        let text = template.to_string();
        if !template.is_fixed() {
            let why = "depends on the run, but must be known before it".to_owned();
            self.error("depends-on-run", section, key, why, "remove the reference to unique_exe_id");
        }
        if !Path::new(&text).is_absolute() {
            let why = format!("`{text}` is relative; it is taken as relative to the descriptor");
            self.warn("relative-path", section, key, why, "write an absolute path");
        }
        paths::absolute(Path::new(&text), self.dir())
    }

    /// Comma separated words.
    pub fn words(&mut self, section: &str, key: &str) -> Vec<String> {
        self.text(section, key).map(|text| bracket_list(&text)).unwrap_or_default()
    }
}

/// `repeat`, `spread`, `json` or `join:SEP`.
pub(super) fn multi(text: &str) -> Option<Multi> {
    match text.trim() {
        "repeat" => Some(Multi::Repeat),
        "spread" => Some(Multi::Spread),
        "json" => Some(Multi::Json),
        other => other.strip_prefix("join:").map(|separator| Multi::Join(separator.to_owned())),
    }
}

/// The attributes of an input that limit its values, as texts, from either dialect.
#[derive(Debug, Default)]
pub(super) struct RawChecks {
    pub allowed: Vec<String>,
    pub pattern: Option<String>,
    pub range: Option<(Option<String>, Option<String>)>,
    pub url_schemes: Vec<String>,
}

/// Compiles and checks them against the type; each fault is a key and a reason.
pub(super) fn checks(raw: RawChecks, kind: Kind, into: &mut Checks) -> Vec<(&'static str, String)> {
    let mut faults = Vec::new();
    if let Some(source) = raw.pattern {
        match Pattern::new(&source, Anchor::Whole) {
            Ok(pattern) => into.pattern = Some(pattern),
            Err(why) => faults.push(("pattern", why)),
        }
    }
    if let Some(range) = raw.range {
        let ordered = matches!(
            kind,
            Kind::Literal(
                LiteralType::Byte
                    | LiteralType::Short
                    | LiteralType::Integer
                    | LiteralType::Long
                    | LiteralType::Float
                    | LiteralType::Double
                    | LiteralType::DateTime
            )
        );
        let number = |text: &String| {
            matches!(kind, Kind::Literal(LiteralType::DateTime))
                || text.parse::<f64>().is_ok_and(f64::is_finite)
        };
        if !ordered {
            faults.push(("range", "makes sense for numbers and dates only".to_owned()));
        } else if ![&range.0, &range.1].into_iter().flatten().all(number) {
            faults.push(("range", "its ends are not numbers".to_owned()));
        } else {
            into.range = Some(range);
        }
    }
    into.allowed = raw.allowed;
    into.url_schemes = raw.url_schemes;
    faults
}

/// Whether a value of the descriptor itself is acceptable.
pub(super) fn check_value(spec: &InputSpec, text: &str) -> Result<(), String> {
    match spec.kind {
        Kind::Literal(kind) => check::literal(spec, kind, text).map(drop),
        Kind::Json | Kind::Xml | Kind::Text | Kind::Binary => check::document(spec, spec.kind, text),
        Kind::Box => check::bounding_box(spec, text).map(drop),
    }
}

/// A range `[lo, hi]`; an empty end, `null` or `*` is open.
pub(super) fn range(text: &str) -> Option<(Option<String>, Option<String>)> {
    let list = bracket_list(text);
    let [low, high] = list.as_slice() else { return None };
    let end = |text: &String| {
        (!matches!(text.as_str(), "" | "null" | "*")).then(|| text.trim_matches('"').to_owned())
    };
    Some((end(low), end(high)))
}
