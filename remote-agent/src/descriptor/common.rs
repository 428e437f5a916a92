//! What the loaders of both dialects share: gathering findings, resolving and reading keys, the sections that both have.

use std::path::{Path, PathBuf};

use wps_remote_protocol::ini::settings::boolean;
use wps_remote_protocol::ini::{Document, Finding, Piece, Template, Variables, bracket_list, nearest};
use wps_remote_protocol::{LiteralType, ProcessId, process::is_name};

use super::load::LoadContext;
use super::model::{Checks, InputSpec, Kind, Limits, Multi, ProgramLine};
use super::paths;
use super::pattern::{Anchor, Pattern};
use crate::command::check;
use crate::command::template::{raw_words, reference};

/// Stands for the execution id where a descriptor's paths are checked before any run.
pub(super) const SAMPLE_ID: &str = "0000000000000000";

/// A descriptor file that is being read.
pub(super) struct Reading<'a> {
    pub doc: &'a Document,
    pub vars: Variables,
    pub context: &'a LoadContext,
    pub file: &'a Path,
    pub errors: Vec<Finding>,
    pub warnings: Vec<Finding>,
}

impl Reading<'_> {
    /// The directory of the file.
    pub fn dir(&self) -> &Path {
        self.file.parent().unwrap_or(Path::new("."))
    }

    fn place(&self, finding: Finding, section: &str, key: &str) -> Finding {
        let entry = self.doc.section(section).and_then(|found| found.entry(key));
        let line =
            entry.map(|entry| entry.line).or_else(|| self.doc.section(section).map(|found| found.line));
        finding.at(line.unwrap_or(0)).section(section).key(key)
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
            self.error("missing-key", section, key, "is required", remedy);
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
    pub fn unknown_keys(&mut self, section: &str, known: &[&str]) {
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

    /// `[Environment]`.
    pub fn environment(&mut self) -> Vec<(String, Template)> {
        let Some(section) = self.doc.section_any_case("environment") else { return Vec::new() };
        let mut env = Vec::new();
        for entry in section.entries.clone() {
            let good = entry.key.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
                && entry.key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
            if !good {
                let why = "is not a name of an environment variable";
                self.error("bad-name", &section.name, &entry.key, why, "use letters, digits and _ only");
            }
            if let Some(value) = self.template(&section.name, &entry.key) {
                env.push((entry.key, value));
            }
        }
        env
    }

    /// `[Limits]`.
    pub fn limits(&mut self) -> Limits {
        let Some(section) = self.doc.section_any_case("limits") else { return Limits::default() };
        let name = section.name.clone();
        self.unknown_keys(&name, &["cpu_seconds", "memory_mb", "output_mb", "open_files", "nice"]);
        let nice = self.text(&name, "nice").and_then(|text| {
            let number = text.trim().parse().ok().filter(|number| (-20..=19).contains(number));
            if number.is_none() {
                let why = format!("`{text}` is not a number from -20 to 19");
                self.error("bad-value", &name, "nice", why, "higher is nicer to others");
            }
            number
        });
        Limits {
            cpu_seconds: self.count(&name, "cpu_seconds"),
            memory_mb: self.count(&name, "memory_mb"),
            output_mb: self.count(&name, "output_mb"),
            open_files: self.count(&name, "open_files"),
            nice,
        }
    }

    /// `process_weight`: a JSON object with `weight` and `coefficient`, one of them or both.
    pub fn weight(&mut self, section: &str) -> f64 {
        let Some(text) = self.text(section, "process_weight") else { return self.context.default_weight };
        let object = serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(&text);
        let Ok(object) = object else {
            let dotted = text.contains('.') && !text.contains(['{', ' ']) && text.parse::<f64>().is_err();
            let (why, remedy) = if dotted {
                (
                    "names a Python class, which cannot be used",
                    "use weight_command with a program that prints a number",
                )
            } else {
                ("is not a JSON object", "write {\"weight\": 10, \"coefficient\": 1.0}")
            };
            self.error("bad-weight", section, "process_weight", why, remedy);
            return 0.0;
        };
        let mut part = |name: &str, default: f64| match object.get(name) {
            None => default,
            Some(value) => {
                let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                let number =
                    text.trim().parse::<f64>().ok().filter(|number| number.is_finite() && *number >= 0.0);
                number.unwrap_or_else(|| {
                    let why = format!("`{name}` is `{text}`, which is not a number from 0");
                    self.error("bad-weight", section, "process_weight", why, "write a number from 0");
                    0.0
                })
            }
        };
        part("weight", 0.0) * part("coefficient", 1.0)
    }

    /// `max_running_time_seconds`.
    pub fn max_running(&mut self, section: &str, default: Option<u64>) -> Option<std::time::Duration> {
        let key = "max_running_time_seconds";
        let seconds = match self.text(section, key) {
            None => default?,
            Some(_) => self.count(section, key)?,
        };
        if seconds == 0 {
            self.warn(
                "no-time-limit",
                section,
                key,
                "0 means that a run may last for ever",
                "write a limit in seconds",
            );
            return None;
        }
        Some(std::time::Duration::from_secs(seconds))
    }

    /// Comma separated words.
    pub fn words(&mut self, section: &str, key: &str) -> Vec<String> {
        self.text(section, key).map(|text| bracket_list(&text)).unwrap_or_default()
    }

    /// A line of arguments: split at white space, `"…"` and `'…'` group, inside double quotes `\"` is a quote, a
    /// backslash anywhere else is itself. The raw text is split first; a word with an unquoted reference is split again
    /// after the reference is resolved.
    pub fn command_line(&mut self, section: &str, key: &str) -> Vec<Template> {
        let Some(entry) = self.doc.section(section).and_then(|found| found.entry(key)) else {
            return Vec::new();
        };
        let raw = match split_quoted(&entry.value) {
            Ok(words) => words,
            Err(why) => {
                self.error("unbalanced-quotes", section, key, why, "close the quote, or remove it");
                return Vec::new();
            }
        };
        let mut out = Vec::new();
        for word in raw {
            let mut words: Vec<Vec<Piece>> = vec![Vec::new()];
            for segment in &word {
                let resolved = match self.doc.interpolate(section, &segment.text, &self.vars) {
                    Ok(resolved) => resolved,
                    Err(finding) => {
                        let finding = self.place(finding, section, key);
                        self.errors.push(finding);
                        return Vec::new();
                    }
                };
                let again = !segment.quoted && segment.text != resolved.to_string();
                for piece in resolved.pieces() {
                    match piece {
                        Piece::Literal(text) if again => match split_quoted(text) {
                            Ok(parts) => spread(&mut words, text, &parts),
                            Err(why) => {
                                self.error(
                                    "unbalanced-quotes",
                                    section,
                                    key,
                                    why,
                                    "close the quote, or remove it",
                                );
                                return Vec::new();
                            }
                        },
                        piece => {
                            if let Some(last) = words.last_mut() {
                                last.push(piece.clone());
                            }
                        }
                    }
                }
            }
            let quoted = word.iter().any(|segment| segment.quoted);
            words.retain(|word| quoted || !word.is_empty());
            if words.len() > 1 {
                let why = "a reference outside quotes brings blanks, so it becomes several arguments";
                self.warn(
                    "blank-in-command",
                    section,
                    key,
                    why,
                    "put the reference into double quotes if it is one argument",
                );
            }
            out.extend(words.into_iter().map(Template::from_pieces));
        }
        out
    }

    /// An empty program line is an error.
    pub fn program(
        &mut self,
        section: &str,
        key: &'static str,
        words: Vec<Template>,
        beside: bool,
    ) -> ProgramLine {
        let line = self.doc.section(section).and_then(|found| found.entry(key)).map_or(0, |entry| entry.line);
        if words.is_empty() && self.errors.is_empty() {
            self.error("missing-key", section, key, "names no program", "write the path of the program");
        }
        let interpreters = self.context.interpreters.clone();
        ProgramLine { words, beside, interpreters, allow_batch: false, line, key }
    }
}

/// A stretch of a word that is quoted throughout, or not at all.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Segment {
    text: String,
    quoted: bool,
}

/// Splits a line into words of segments.
pub(super) fn split_quoted(line: &str) -> Result<Vec<Vec<Segment>>, String> {
    let mut words = Vec::new();
    let mut word: Vec<Segment> = Vec::new();
    let mut plain = String::new();
    let mut rest = line;
    let flush = |plain: &mut String, word: &mut Vec<Segment>| {
        if !plain.is_empty() {
            word.push(Segment { text: std::mem::take(plain), quoted: false });
        }
    };
    while let Some(c) = rest.chars().next() {
        if let Some(whole) = reference(rest) {
            plain.push_str(whole);
            rest = &rest[whole.len()..];
            continue;
        }
        rest = &rest[c.len_utf8()..];
        match c {
            '"' | '\'' => {
                let (text, length) = quoted(rest, c).ok_or_else(|| format!("the {c} is not closed"))?;
                flush(&mut plain, &mut word);
                word.push(Segment { text, quoted: true });
                rest = &rest[length..];
            }
            c if c.is_ascii_whitespace() => {
                flush(&mut plain, &mut word);
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
            }
            c => plain.push(c),
        }
    }
    flush(&mut plain, &mut word);
    if !word.is_empty() {
        words.push(word);
    }
    Ok(words)
}

/// The text up to the closing quote, and the length with the quote.
fn quoted(text: &str, quote: char) -> Option<(String, usize)> {
    let mut out = String::new();
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        if c == quote {
            return Some((out, at + 1));
        }
        if c == '\\' && quote == '"' && chars.peek().is_some_and(|(_, next)| *next == '"') {
            out.push('"');
            chars.next();
            continue;
        }
        out.push(c);
    }
    None
}

/// Appends the words of a resolved reference: the first continues the last word unless the text begins with a blank.
fn spread(words: &mut Vec<Vec<Piece>>, text: &str, parts: &[Vec<Segment>]) {
    let blank_first = text.starts_with(|c: char| c.is_ascii_whitespace());
    let blank_last = text.ends_with(|c: char| c.is_ascii_whitespace());
    for (index, part) in parts.iter().enumerate() {
        let text: String = part.iter().map(|segment| segment.text.as_str()).collect();
        let fresh = index > 0 || blank_first;
        match words.last_mut() {
            Some(last) if !fresh || last.is_empty() => last.push(Piece::Literal(text)),
            _ => words.push(vec![Piece::Literal(text)]),
        }
    }
    if blank_last && words.last().is_some_and(|last| !last.is_empty()) {
        words.push(Vec::new());
    }
}

/// The words of an action's template, references resolved. A word that is nothing but a reference to text with
/// placeholders is split after resolving, as the old agent did.
pub(super) fn template_words(
    doc: &Document,
    section: &str,
    text: &str,
    vars: &Variables,
    style: crate::command::template::Style,
) -> Result<Vec<Template>, Finding> {
    let mut out = Vec::new();
    for word in raw_words(text) {
        let resolved = doc.interpolate(section, &word, vars)?;
        let whole = reference(&word) == Some(word.as_str());
        if whole && crate::command::template::has_placeholder(&resolved, style) {
            let mut words: Vec<Vec<Piece>> = vec![Vec::new()];
            for piece in resolved.pieces() {
                match piece {
                    Piece::Literal(text) => {
                        for (index, part) in text.split(|c: char| c.is_ascii_whitespace()).enumerate() {
                            if index > 0 {
                                words.push(Vec::new());
                            }
                            if let Some(last) = words.last_mut()
                                && !part.is_empty()
                            {
                                last.push(Piece::Literal(part.to_owned()));
                            }
                        }
                    }
                    piece => {
                        if let Some(last) = words.last_mut() {
                            last.push(piece.clone());
                        }
                    }
                }
            }
            out.extend(words.into_iter().filter(|word| !word.is_empty()).map(Template::from_pieces));
        } else {
            out.push(resolved);
        }
    }
    Ok(out)
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
        Kind::Json | Kind::Xml | Kind::Text | Kind::Binary => check::document(spec, text),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_lines_are_split_by_quotes_and_blanks() {
        let check = |line: &str, expected: &[&str]| {
            let words = split_quoted(line).unwrap();
            let words: Vec<String> =
                words.iter().map(|word| word.iter().map(|segment| segment.text.as_str()).collect()).collect();
            assert_eq!(words, expected, "{line}");
        };
        check("a  b\tc\nd", &["a", "b", "c", "d"]);
        check(
            r#""C:\Program Files\x.exe" -a 'b c' d"e f"g"#,
            &[r"C:\Program Files\x.exe", "-a", "b c", "de fg"],
        );
        check(r#""a\"b" a\ b '\' """#, &["a\"b", "a\\", "b", "\\", ""]);
        check("%(a key)s/x y", &["%(a key)s/x", "y"]);
        assert!(split_quoted("it's").is_err());
    }
}
