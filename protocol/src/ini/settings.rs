//! Configuration of a program: sections whose keys are declared in a table with kind, default and one line of
//! documentation. From the same table come the checks, the commented sample, and the names of environment variables.
//! Reads neither the environment nor secret files itself: the caller lends it both.

mod sample;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use super::{DEFAULT_SECTION, Document, Finding, IniError, Variables, bracket_list, nearest};

/// What a value of a key may be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// Any text.
    Text,
    /// A whole number in this range.
    Integer {
        /// Smallest value.
        min: i64,
        /// Largest value.
        max: i64,
    },
    /// A finite number in this range.
    Number {
        /// Smallest value.
        min: f64,
        /// Largest value.
        max: f64,
    },
    /// `true`, `yes`, `on`, `1` or their opposites, in any capitals.
    Boolean,
    /// A path. Relative ones are for the caller to place.
    Path,
    /// `[a, b]`, or `a, b`.
    List,
    /// One of these words, in any capitals.
    Choice(&'static [&'static str]),
    /// A text that must not be shown. `STEM_file` names a file that holds it and `STEM_env` an environment variable,
    /// where `STEM` is this text (often the key itself). In one place only one of the three may be given; of the places
    /// the first counts: variables that override keys, the service manager's credential `STEM`, the file.
    Secret(&'static str),
}

/// A key that a program understands.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// Its name, lower case where case does not matter.
    pub name: &'static str,
    /// What its value may be.
    pub kind: Kind,
    /// Its value when it is not written; `None` = it may be absent.
    pub default: Option<&'static str>,
    /// Whether the program cannot do without it.
    pub required: bool,
    /// Unit of the value, such as `s` or `MiB`; empty = none.
    pub unit: &'static str,
    /// One line of documentation.
    pub doc: &'static str,
}

impl Key {
    /// A key that may be absent.
    pub const fn new(name: &'static str, kind: Kind, doc: &'static str) -> Self {
        Self { name, kind, default: None, required: false, unit: "", doc }
    }

    /// Sets the default, in the form in which it would be written.
    #[must_use]
    pub const fn or(mut self, default: &'static str) -> Self {
        self.default = Some(default);
        self
    }

    /// Marks the key as required.
    #[must_use]
    pub const fn required(mut self) -> Self {
        self.required = true;
        self
    }

    /// Sets the unit.
    #[must_use]
    pub const fn unit(mut self, unit: &'static str) -> Self {
        self.unit = unit;
        self
    }
}

/// A section that a program understands.
#[derive(Debug, Clone, Copy)]
pub struct Part {
    /// Its name. One that ends with ` NAME` stands for any number of sections: `role NAME` for `[role guest]` and so on,
    /// each with these keys; the environment overrides none of them.
    pub name: &'static str,
    /// What it is about; one or more lines.
    pub doc: &'static str,
    /// Its keys, in the order of the sample.
    pub keys: &'static [Key],
    /// Whether keys outside the table are accepted (a table of names chosen by the administrator).
    pub open: bool,
}

/// End of the name of a [`Part`] that stands for many sections.
const FAMILY: &str = " NAME";

impl Part {
    /// For a part that stands for many sections: what their names begin with, blank included.
    fn family(&self) -> Option<&'static str> {
        self.name.strip_suffix(FAMILY).map(|stem| &self.name[..=stem.len()])
    }

    /// Whether a section of a file is this part.
    fn covers(&self, section: &str) -> bool {
        match self.family() {
            Some(stem) => {
                section.strip_prefix(stem).is_some_and(|name| !name.is_empty() && name.trim() == name)
            }
            None => self.name == section,
        }
    }
}

/// Everything that a program understands.
#[derive(Debug, Clone, Copy)]
pub struct Schema {
    /// Beginning of environment variables: `ORCHESTRATOR` gives `ORCHESTRATOR_HTTP_LISTEN` for `[http] listen`; the
    /// section is left out for `[DEFAULT]`. Empty = no overriding.
    pub env_prefix: &'static str,
    /// The sections, in the order of the sample.
    pub parts: &'static [Part],
}

/// What the caller lends: the environment and the reading of secret files.
pub struct Surroundings<'a> {
    /// An environment variable, if it is set.
    pub env: &'a dyn Fn(&str) -> Option<String>,
    /// The content of a file, or why it cannot be read.
    pub file: &'a dyn Fn(&str) -> Result<String, String>,
    /// A secret of this name that the service manager hands over, if it does, or why it cannot be read.
    pub credential: &'a dyn Fn(&str) -> Option<Result<String, String>>,
}

/// A text that must not be shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text. Never for a log.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// This line of the file.
    Line(usize),
    /// This environment variable.
    Environment(String),
    /// This credential of the service manager.
    Credential(String),
    /// The table.
    Default,
}

#[derive(Clone)]
struct Setting {
    text: String,
    origin: Origin,
    hidden: bool,
}

impl fmt::Debug for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = if self.hidden { "…" } else { &self.text };
        write!(f, "{text:?} ({:?})", self.origin)
    }
}

/// The values of a program's configuration, checked against their kinds.
#[derive(Debug, Clone)]
pub struct Settings {
    values: BTreeMap<(String, String), Setting>,
    open: BTreeMap<String, Vec<(String, String)>>,
    members: BTreeMap<String, Vec<String>>,
    warnings: Vec<Finding>,
}

impl Schema {
    /// Checks a file and fills in defaults. All faults are reported at once; names outside the table are faults.
    pub fn read(&self, doc: &Document, around: &Surroundings<'_>) -> Result<Settings, IniError> {
        self.check(doc, around, false)
    }

    /// As [`read`](Self::read), but names outside the table are warnings only: for files that were written for a program
    /// which ignored them. A key that another one refers to is the author's own variable.
    pub fn read_leniently(&self, doc: &Document, around: &Surroundings<'_>) -> Result<Settings, IniError> {
        self.check(doc, around, true)
    }

    fn check(&self, doc: &Document, around: &Surroundings<'_>, lenient: bool) -> Result<Settings, IniError> {
        let mut reading = Reading {
            schema: self,
            doc,
            around,
            errors: Vec::new(),
            notes: Vec::new(),
            values: BTreeMap::new(),
        };
        let mut open = BTreeMap::new();
        let mut warnings = doc.warnings().to_vec();
        reading.unknown_names(lenient);
        if lenient {
            warnings.extend(reading.errors.drain(..).map(|finding| Finding { fatal: false, ..finding }));
        }
        let mut members = BTreeMap::<String, Vec<String>>::new();
        for part in self.parts {
            let mut sections = vec![part.name.to_owned()];
            if let Some(stem) = part.family() {
                let named =
                    doc.sections().iter().map(|section| &section.name).filter(|name| part.covers(name));
                sections = named.cloned().collect();
                let names = sections.iter().map(|name| name[stem.len()..].to_owned()).collect();
                members.insert(part.name.to_owned(), names);
            }
            for section in &sections {
                for key in part.keys {
                    match key.kind {
                        Kind::Secret(stem) => reading.secret(section, key, stem),
                        _ => reading.plain(section, key),
                    }
                }
            }
            if part.open {
                open.insert(part.name.to_owned(), reading.open_keys(part));
            }
        }
        if !reading.errors.is_empty() {
            reading.errors.sort_by_key(|finding| finding.line);
            return Err(doc.error(reading.errors));
        }
        warnings.append(&mut reading.notes);
        Ok(Settings { values: reading.values, open, members, warnings })
    }

    /// The environment variable that overrides a key.
    pub fn env_name(&self, section: &str, key: &str) -> String {
        let section = if section == DEFAULT_SECTION { String::new() } else { format!("_{section}") };
        format!("{}{section}_{key}", self.env_prefix)
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' })
            .collect()
    }
}

struct Reading<'a> {
    schema: &'a Schema,
    doc: &'a Document,
    around: &'a Surroundings<'a>,
    errors: Vec<Finding>,
    /// What is unwise.
    notes: Vec<Finding>,
    values: BTreeMap<(String, String), Setting>,
}

/// The names that a key of the table brings with it.
fn names_of(key: &Key) -> Vec<String> {
    let mut names = vec![key.name.to_owned()];
    if let Kind::Secret(stem) = key.kind {
        names.extend([format!("{stem}_file"), format!("{stem}_env")]);
    }
    names
}

impl Reading<'_> {
    fn unknown_names(&mut self, lenient: bool) {
        let parts = self.schema.parts;
        let all = self.doc.sections().iter().flat_map(|section| &section.entries);
        let all: Vec<String> = all.map(|entry| entry.value.to_lowercase()).collect();
        let is_variable =
            |key: &str| lenient && all.iter().any(|value| value.contains(&format!("%({key})s")));
        for section in self.doc.sections() {
            let Some(part) = parts.iter().find(|part| part.covers(&section.name)) else {
                let known = parts.iter().map(|part| part.name);
                let mut finding = Finding::error("unknown-section", "is not a section of this file")
                    .at(section.line)
                    .section(&section.name);
                finding.remedy = Some(match nearest(&section.name, known.clone()) {
                    Some(near) => format!("did you mean [{near}]?"),
                    None => format!("known sections: {}", known.collect::<Vec<_>>().join(", ")),
                });
                self.errors.push(finding);
                continue;
            };
            let known: Vec<String> = part.keys.iter().flat_map(names_of).collect();
            for entry in &section.entries {
                if part.open || known.contains(&entry.key) || is_variable(&entry.key) {
                    continue;
                }
                let remedy = match nearest(&entry.key, known.iter().map(String::as_str)) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => match parts.iter().find(|part| part.keys.iter().any(|key| key.name == entry.key))
                    {
                        Some(other) => format!("it belongs into [{}]", other.name),
                        None => "remove it, or print the commented sample to see what is known".to_owned(),
                    },
                };
                self.errors.push(
                    Finding::error("unknown-key", "is not a key of this section")
                        .at(entry.line)
                        .section(&section.name)
                        .key(&entry.key)
                        .remedy(remedy),
                );
            }
        }
    }

    /// The text of a key and where it comes from: environment, then file.
    fn written(&mut self, section: &str, name: &str) -> Option<(String, Origin)> {
        self.overriding(section, name).or_else(|| self.in_file(section, name))
    }

    fn overriding(&self, section: &str, name: &str) -> Option<(String, Origin)> {
        let variable = self.schema.env_name(section, name);
        let alone = self.schema.parts.iter().any(|part| part.name == section);
        let text =
            (alone && !self.schema.env_prefix.is_empty()).then(|| (self.around.env)(&variable)).flatten()?;
        Some((text, Origin::Environment(variable)))
    }

    fn in_file(&mut self, section: &str, name: &str) -> Option<(String, Origin)> {
        // A key of [DEFAULT] is visible everywhere for references, but only [DEFAULT] itself is configured by it.
        let line = self.doc.section(section).and_then(|section| section.entry(name))?.line;
        match self.doc.resolve(section, name, &Variables::default()) {
            Ok(template) => template.map(|template| (template.to_string(), Origin::Line(line))),
            Err(finding) => {
                self.errors.push(finding);
                None
            }
        }
    }

    fn plain(&mut self, section: &str, key: &Key) {
        let before = self.errors.len();
        let found = self.written(section, key.name);
        let (text, origin) = match (found, key.default) {
            (Some(found), _) => found,
            (None, Some(default)) => (default.to_owned(), Origin::Default),
            (None, None) => {
                if key.required && self.errors.len() == before {
                    self.missing(section, key);
                }
                return;
            }
        };
        match checked(key.kind, &text) {
            Ok(text) => self.put(section, key, text, origin, false),
            Err(why) => self.wrong(section, key, &origin, why),
        }
    }

    fn secret(&mut self, section: &str, key: &Key, stem: &str) {
        let names = [key.name.to_owned(), format!("{stem}_file"), format!("{stem}_env")];
        let overriding = names.each_ref().map(|name| self.overriding(section, name));
        if overriding.iter().any(Option::is_some) {
            return self.take_secret(section, key, stem, overriding);
        }
        let in_file = names.each_ref().map(|name| self.in_file(section, name));
        let Some(handed) = (self.around.credential)(stem) else {
            return self.take_secret(section, key, stem, in_file);
        };
        let origin = Origin::Credential(stem.to_owned());
        match handed {
            Ok(text) => self.put_secret(section, key, &text, origin),
            Err(error) => self.wrong(section, key, &origin, format!("cannot be read: {error}")),
        }
        if let Some((_, Origin::Line(line))) = in_file.into_iter().flatten().next() {
            let why = format!("is not used: the credential `{stem}` of the service manager comes first");
            let finding = Finding::warning("unused-secret", why).at(line).section(section).key(key.name);
            self.notes.push(finding.remedy("remove it from the file"));
        }
    }

    /// Of one place: the text itself, a file that holds it, a variable that holds it.
    fn take_secret(&mut self, section: &str, key: &Key, stem: &str, given: [Option<(String, Origin)>; 3]) {
        if given.iter().flatten().count() > 1 {
            let why = format!("is given more than once ({}, {stem}_file, {stem}_env)", key.name);
            let origin = given.into_iter().flatten().next().map_or(Origin::Default, |(_, origin)| origin);
            return self.wrong(section, key, &origin, why);
        }
        let [direct, file, env] = given;
        if let Some((text, origin)) = direct {
            return self.put(section, key, text, origin, true);
        }
        if let Some((path, origin)) = file {
            return match (self.around.file)(&path) {
                Ok(text) => self.put_secret(section, key, &text, origin),
                Err(error) => self.wrong(section, key, &origin, format!("{path} cannot be read: {error}")),
            };
        }
        if let Some((variable, origin)) = env {
            return match (self.around.env)(&variable) {
                Some(text) => self.put_secret(section, key, &text, origin),
                None => {
                    self.wrong(section, key, &origin, format!("environment variable {variable} is not set"))
                }
            };
        }
        match key.default {
            Some(default) => self.put(section, key, default.to_owned(), Origin::Default, true),
            None if key.required => self.missing(section, key),
            None => {}
        }
    }

    /// A secret that was written elsewhere: without the line end that editors and `echo` add. An empty one is a mistake there.
    fn put_secret(&mut self, section: &str, key: &Key, text: &str, origin: Origin) {
        match text.trim_end_matches(['\r', '\n']) {
            "" => self.wrong(section, key, &origin, "is empty".to_owned()),
            text => self.put(section, key, text.to_owned(), origin, true),
        }
    }

    fn open_keys(&mut self, part: &Part) -> Vec<(String, String)> {
        let mut keys = Vec::new();
        for entry in self.doc.section(part.name).map(|section| section.entries.as_slice()).unwrap_or_default()
        {
            if part.keys.iter().any(|key| names_of(key).contains(&entry.key)) {
                continue;
            }
            match self.doc.resolve(part.name, &entry.key, &Variables::default()) {
                Ok(value) => keys.push((entry.key.clone(), value.map(|v| v.to_string()).unwrap_or_default())),
                Err(finding) => self.errors.push(finding),
            }
        }
        keys
    }

    fn put(&mut self, section: &str, key: &Key, text: String, origin: Origin, hidden: bool) {
        self.values.insert((section.to_owned(), key.name.to_owned()), Setting { text, origin, hidden });
    }

    fn wrong(&mut self, section: &str, key: &Key, origin: &Origin, why: String) {
        let mut finding = Finding::error("bad-value", why).section(section).key(key.name);
        match origin {
            Origin::Line(line) => finding.line = *line,
            Origin::Environment(variable) => finding.why = format!("{} (from {variable})", finding.why),
            Origin::Credential(name) => finding.why = format!("{} (credential {name})", finding.why),
            Origin::Default => {}
        }
        let unit = if key.unit.is_empty() { String::new() } else { format!(" ({})", key.unit) };
        self.errors.push(finding.remedy(format!("{}{unit}", key.doc)));
    }

    fn missing(&mut self, section: &str, key: &Key) {
        let line = self.doc.section(section).map_or(0, |section| section.line);
        self.errors.push(
            Finding::error("missing-key", "is required")
                .at(line)
                .section(section)
                .key(key.name)
                .remedy(format!("add `{} = …`: {}", key.name, key.doc)),
        );
    }
}

/// The text in the form that the getters of [`Settings`] rely on.
fn checked(kind: Kind, text: &str) -> Result<String, String> {
    match kind {
        Kind::Text | Kind::List | Kind::Secret(_) => Ok(text.to_owned()),
        Kind::Path if text.is_empty() => Err("is an empty path".to_owned()),
        Kind::Path => Ok(text.to_owned()),
        Kind::Integer { min, max } => match text.parse::<i64>() {
            Ok(number) if (min..=max).contains(&number) => Ok(number.to_string()),
            Ok(_) => Err(format!("`{text}` is not between {min} and {max}")),
            Err(_) => Err(format!("`{text}` is not a whole number")),
        },
        Kind::Number { min, max } => match text.parse::<f64>() {
            Ok(number) if number.is_finite() && (min..=max).contains(&number) => Ok(number.to_string()),
            Ok(_) => Err(format!("`{text}` is not between {min} and {max}")),
            Err(_) => Err(format!("`{text}` is not a number")),
        },
        Kind::Boolean => match boolean(text) {
            Some(value) => Ok(value.to_string()),
            None => Err(format!("`{text}` is neither true nor false")),
        },
        Kind::Choice(words) => match words.iter().find(|word| word.eq_ignore_ascii_case(text)) {
            Some(word) => Ok((*word).to_owned()),
            None => Err(format!("`{text}` is not one of {}", words.join(", "))),
        },
    }
}

/// Reads a truth value in the spellings that configuration files use.
pub fn boolean(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" | "1" => Some(true),
        "false" | "no" | "off" | "0" => Some(false),
        _ => None,
    }
}

impl Settings {
    fn setting(&self, section: &str, key: &str) -> Option<&Setting> {
        self.values.get(&(section.to_owned(), key.to_owned()))
    }

    /// The text of a key, if it is written or has a default.
    pub fn text(&self, section: &str, key: &str) -> Option<&str> {
        self.setting(section, key).map(|setting| setting.text.as_str())
    }

    /// The text of a key that is required or has a default in the table; empty if the table says neither.
    pub fn string(&self, section: &str, key: &str) -> String {
        self.text(section, key).unwrap_or_default().to_owned()
    }

    /// A whole number.
    pub fn integer(&self, section: &str, key: &str) -> Option<i64> {
        self.text(section, key).and_then(|text| text.parse().ok())
    }

    /// A finite number.
    pub fn number(&self, section: &str, key: &str) -> Option<f64> {
        self.text(section, key).and_then(|text| text.parse().ok())
    }

    /// A truth value; a key that is absent and has no default is false.
    pub fn is_true(&self, section: &str, key: &str) -> bool {
        self.text(section, key) == Some("true")
    }

    /// A path.
    pub fn path(&self, section: &str, key: &str) -> Option<PathBuf> {
        self.text(section, key).map(PathBuf::from)
    }

    /// A list; absent = empty.
    pub fn list(&self, section: &str, key: &str) -> Vec<String> {
        self.text(section, key).map(bracket_list).unwrap_or_default()
    }

    /// A secret, whatever its source.
    pub fn secret(&self, section: &str, key: &str) -> Option<Secret> {
        self.text(section, key).map(Secret::new)
    }

    /// Where the value of a key comes from.
    pub fn origin(&self, section: &str, key: &str) -> Option<&Origin> {
        self.setting(section, key).map(|setting| &setting.origin)
    }

    /// Keys and values of an open section, in file order.
    pub fn open(&self, section: &str) -> &[(String, String)] {
        self.open.get(section).map(Vec::as_slice).unwrap_or_default()
    }

    /// The names of the sections that a part such as `role NAME` stands for, in file order.
    pub fn members(&self, part: &str) -> &[String] {
        self.members.get(part).map(Vec::as_slice).unwrap_or_default()
    }

    /// What was unwise but readable.
    pub fn warnings(&self) -> &[Finding] {
        &self.warnings
    }
}
