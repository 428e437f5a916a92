//! The INI language of every file that an administrator writes: descriptors, `remote.config`, `orchestrator.ini`. Turns
//! bytes into sections and keys with line numbers, resolves references between keys, and reports what is wrong with the
//! place and the remedy. Knows neither which keys exist (see [`settings`] for that) nor where the bytes come from.
//!
//! The language is the one of Python 2.7's classic `ConfigParser`, which the descriptors in use were written for:
//!
//! ```text
//! bytes ──lines.rs──► canonical lines ──rust-ini──► items ──this file──► Document ──interpolate.rs──► Template
//!         comments, continuation,        (raw)      duplicates merged,
//!         separators, line numbers                  warnings
//! ```

mod finding;
mod interpolate;
mod lines;
mod list;
pub mod settings;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt;

use ini::{Ini, ParseOption};

pub use finding::{Finding, IniError, nearest};
pub use interpolate::{Piece, Template, Variable, Variables};
pub use list::{PatternList, bracket_list, pattern_list};

/// Name of the section whose keys are visible in all others; exactly these capitals.
pub const DEFAULT_SECTION: &str = "DEFAULT";
/// Largest file, in bytes.
pub const MAX_FILE: usize = 1024 * 1024;
/// Longest line, in bytes.
pub const MAX_LINE: usize = 64 * 1024;
/// Most sections in a file, counting repeated ones.
pub const MAX_SECTIONS: usize = 1_000;
/// Most keys in a file, counting repeated ones.
pub const MAX_KEYS: usize = 10_000;

/// Stands for a line break inside a value, and for both ends of a value, on the way through `rust-ini`, which would
/// otherwise trim blanks, join lines at a trailing backslash and end the value at the break.
const BREAK: char = '\u{1f}';
/// Stands for a lone carriage return, which `rust-ini` takes for the end of a line.
const RETURN: char = '\u{1e}';

/// How to read a file.
#[derive(Debug, Clone)]
pub struct Options {
    /// What messages call the file; usually its path.
    pub file: String,
    /// Whether `Key` and `key` are two keys (descriptors) or one (`remote.config`).
    pub case_sensitive_keys: bool,
    /// Bytes are ISO 8859-1 instead of UTF-8.
    pub latin1: bool,
    /// In sections with one of these names (any capitals) a value that begins with `{` goes on until the braces are
    /// balanced, without comments and whatever the indentation.
    pub object_sections: &'static [&'static str],
    /// Sections that are known by these names in any capitals, and whether their keys are in lower case, too.
    pub folded_sections: &'static [(&'static str, bool)],
}

impl Options {
    /// Case-sensitive keys, UTF-8, no objects: a descriptor of dialect A.
    pub fn new(file: impl Into<String>) -> Self {
        Self {
            file: file.into(),
            case_sensitive_keys: true,
            latin1: false,
            object_sections: &[],
            folded_sections: &[],
        }
    }

    /// Keys without regard to case, as configuration files of programs have them.
    #[must_use]
    pub fn ignoring_case(mut self) -> Self {
        self.case_sensitive_keys = false;
        self
    }
}

/// A file: its sections in the order in which they first appear, repeated ones merged.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    file: String,
    case_sensitive_keys: bool,
    sections: Vec<Section>,
    warnings: Vec<Finding>,
}

/// One section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Section {
    /// Its name as written, blanks kept.
    pub name: String,
    /// Line of its first header.
    pub line: usize,
    /// Its keys in the order in which they first appear; the value is the last one written.
    pub entries: Vec<Entry>,
}

/// One key with its value.
#[derive(Clone, PartialEq, Eq)]
pub struct Entry {
    /// The key; lower case where case does not matter.
    pub key: String,
    /// The value before references are resolved; continuation lines are joined by a line feed.
    pub value: String,
    /// Line on which the value that counts begins.
    pub line: usize,
    /// Line of an earlier value that this one replaced.
    pub replaced: Option<usize>,
}

impl fmt::Debug for Entry {
    /// Values that may be secrets are not shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = self.key.to_lowercase();
        let secret = ["pass", "secret", "token"].iter().any(|word| key.contains(word));
        let value = if secret { "…" } else { self.value.as_str() };
        write!(f, "{} = {value:?} (line {})", self.key, self.line)
    }
}

impl Section {
    /// The entry of a key.
    pub fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.key == key)
    }

    /// The value of a key, before references are resolved.
    pub fn raw(&self, key: &str) -> Option<&str> {
        self.entry(key).map(|entry| entry.value.as_str())
    }
}

impl Document {
    /// Reads a file. Every bad line is reported at once.
    pub fn parse(bytes: &[u8], options: &Options) -> Result<Self, IniError> {
        let fail = |findings| IniError { file: options.file.clone(), findings };
        let scanned = lines::scan(bytes, options).map_err(fail)?;
        let parsed = Ini::load_from_str_opt(
            &scanned.canonical,
            ParseOption {
                enabled_quote: false,
                enabled_escape: false,
                enabled_indented_mutiline_value: false,
                enabled_preserve_key_leading_whitespace: false,
            },
        )
        .map_err(|error| {
            fail(vec![Finding::error("not-readable", format!("cannot be read: {error}")).at(error.line)])
        })?;
        let mut document = Self {
            file: options.file.clone(),
            case_sensitive_keys: options.case_sensitive_keys,
            sections: Vec::new(),
            warnings: scanned.warnings.clone(),
        };
        document.merge(&parsed, &scanned.names, options);
        document.warn_of_case();
        Ok(document)
    }

    /// Repeated sections become one, in order; of a repeated key the last value counts.
    fn merge(&mut self, parsed: &Ini, names: &HashMap<usize, String>, options: &Options) {
        let mut section_at: HashMap<String, usize> = HashMap::new();
        let mut entry_at: HashMap<(usize, String), usize> = HashMap::new();
        for (header, properties) in parsed.iter() {
            // Canonical names are the numbers of physical lines: every one of them is in `names`.
            let Some((line, name)) = header.and_then(|text| named(text, names)) else { continue };
            let folded = options.folded_sections.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
            let (name, fold_keys) = folded.map_or((name, false), |(known, keys)| (*known, *keys));
            let at = *section_at.entry(name.to_owned()).or_insert_with(|| {
                self.sections.push(Section { name: name.to_owned(), line, entries: Vec::new() });
                self.sections.len() - 1
            });
            let first = self.sections[at].line;
            if first != line {
                self.warnings.push(
                    Finding::warning(
                        "duplicate-section",
                        format!("[{name}] appears again; its keys are merged with those of line {first}"),
                    )
                    .at(line)
                    .section(name)
                    .remedy("rename one of the two if they were meant to be different"),
                );
            }
            for (number, value) in properties.iter() {
                let Some((line, key)) = named(number, names) else { continue };
                let key = &if fold_keys { key.to_lowercase() } else { key.to_owned() };
                let value = restore(value);
                let entries = &mut self.sections[at].entries;
                match entry_at.get(&(at, key.clone())) {
                    None => {
                        entry_at.insert((at, key.clone()), entries.len());
                        entries.push(Entry { key: key.clone(), value, line, replaced: None });
                    }
                    Some(&index) => {
                        let earlier = entries[index].line;
                        self.warnings.push(
                            Finding::warning(
                                "duplicate-key",
                                format!("replaces the value of line {earlier}"),
                            )
                            .at(line)
                            .section(name)
                            .key(key)
                            .remedy("keep only one of the two lines"),
                        );
                        entries[index] = Entry { key: key.clone(), value, line, replaced: Some(earlier) };
                    }
                }
            }
        }
        self.warnings.sort_by_key(|warning| warning.line);
    }

    /// `Active` beside `active` is two keys in a descriptor, which nobody means.
    fn warn_of_case(&mut self) {
        let mut found = Vec::new();
        for section in &self.sections {
            let mut seen: HashMap<String, &Entry> = HashMap::new();
            for entry in &section.entries {
                if let Some(other) = seen.insert(entry.key.to_lowercase(), entry) {
                    found.push(
                        Finding::warning(
                            "case-only-difference",
                            format!("differs from `{}` of line {} only in capitals", other.key, other.line),
                        )
                        .at(entry.line)
                        .section(&section.name)
                        .key(&entry.key)
                        .remedy("keys of this file are case-sensitive; keep one spelling"),
                    );
                }
            }
        }
        self.warnings.extend(found);
    }

    /// What messages call the file.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// All sections, `[DEFAULT]` included, in file order.
    pub fn sections(&self) -> &[Section] {
        &self.sections
    }

    /// What was unwise but readable.
    pub fn warnings(&self) -> &[Finding] {
        &self.warnings
    }

    /// A section by its exact name.
    pub fn section(&self, name: &str) -> Option<&Section> {
        self.sections.iter().find(|section| section.name == name)
    }

    /// A section by its name without regard to case.
    pub fn section_any_case(&self, name: &str) -> Option<&Section> {
        self.sections.iter().find(|section| section.name.eq_ignore_ascii_case(name))
    }

    /// The entry that holds for a key in a section: its own, else the one of `[DEFAULT]`.
    pub fn entry(&self, section: &str, key: &str) -> Option<&Entry> {
        let own = self.section(section).and_then(|section| section.entry(key));
        own.or_else(|| self.section(DEFAULT_SECTION).and_then(|section| section.entry(key)))
    }

    /// Whether `Key` and `key` are two keys.
    pub fn case_sensitive_keys(&self) -> bool {
        self.case_sensitive_keys
    }

    /// Wraps findings into the error of this file.
    pub fn error(&self, findings: Vec<Finding>) -> IniError {
        IniError { file: self.file.clone(), findings }
    }
}

/// The physical line that a canonical name stands for, and the name written there.
fn named<'a>(canonical: &str, names: &'a HashMap<usize, String>) -> Option<(usize, &'a str)> {
    let line = canonical.parse().ok()?;
    names.get(&line).map(|name| (line, name.as_str()))
}

/// Undoes the encoding of [`lines::scan`].
fn restore(value: &str) -> String {
    let inner = value.strip_prefix(BREAK).unwrap_or(value);
    let inner = inner.strip_suffix(BREAK).unwrap_or(inner);
    inner.replace(BREAK, "\n").replace(RETURN, "\r")
}
