//! References between keys, `%(name)s`: the rounds of Python's classic `ConfigParser`, without its crashes. What is only
//! known when a job runs stays in place as a variable of the resulting template.

use std::collections::HashMap;
use std::fmt;

use super::{DEFAULT_SECTION, Document, Finding, nearest};

/// How often references may lead to references.
const MAX_ROUNDS: usize = 10;
/// Longest text that references may grow to, in bytes.
const MAX_TEXT: usize = 256 * 1024;

/// What a name stands for that the file itself does not define.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Variable {
    /// This text.
    Text(String),
    /// A text that is known only when a job runs.
    AtRun,
    /// Nothing, because something must be configured first; the text says what.
    Unset(String),
}

/// The names that the program supplies.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Variables(HashMap<String, Variable>);

impl Variables {
    /// Adds a name.
    #[must_use]
    pub fn with(mut self, name: &str, variable: Variable) -> Self {
        self.0.insert(name.to_owned(), variable);
        self
    }

    /// What a name stands for.
    pub fn get(&self, name: &str) -> Option<&Variable> {
        self.0.get(name)
    }
}

/// A text in which only run variables are still open.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Template(Vec<Piece>);

/// A part of a [`Template`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// Text as it is.
    Literal(String),
    /// The name of a run variable.
    Variable(String),
}

impl Template {
    /// A text without variables.
    pub fn literal(text: impl Into<String>) -> Self {
        Self(vec![Piece::Literal(text.into())])
    }

    /// From parts.
    pub fn from_pieces(pieces: Vec<Piece>) -> Self {
        Self(pieces)
    }

    /// Its parts.
    pub fn pieces(&self) -> &[Piece] {
        &self.0
    }

    /// Whether nothing is open.
    pub fn is_fixed(&self) -> bool {
        self.0.iter().all(|piece| matches!(piece, Piece::Literal(_)))
    }

    /// The text, if nothing is open.
    pub fn fixed(&self) -> Option<String> {
        self.is_fixed().then(|| self.to_string())
    }

    /// The text with run variables filled in; a name that `value` does not know stays as written.
    pub fn fill(&self, value: impl Fn(&str) -> Option<String>) -> String {
        let mut text = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Literal(literal) => text.push_str(literal),
                Piece::Variable(name) => match value(name) {
                    Some(value) => text.push_str(&value),
                    None => text.push_str(&format!("%({name})s")),
                },
            }
        }
        text
    }
}

impl fmt::Display for Template {
    /// Open variables are shown as they were written.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.fill(|_| None))
    }
}

impl Document {
    /// Resolves the references in the value of a key: the section's own, else that of `[DEFAULT]`.
    pub fn resolve(&self, section: &str, key: &str, vars: &Variables) -> Result<Option<Template>, Finding> {
        match self.entry(section, key) {
            None => Ok(None),
            Some(entry) => self
                .interpolate(section, &entry.value, vars)
                .map(Some)
                .map_err(|finding| finding.at(entry.line).section(section).key(key)),
        }
    }

    /// Resolves the references in a text as if it stood in this section.
    pub fn interpolate(&self, section: &str, text: &str, vars: &Variables) -> Result<Template, Finding> {
        let mut pieces = vec![Piece::Literal(text.to_owned())];
        for _ in 0..MAX_ROUNDS {
            if !pieces.iter().any(has_reference) {
                return Ok(Template(joined(pieces)));
            }
            let mut next = Vec::new();
            for piece in pieces {
                match piece {
                    Piece::Literal(literal) => self.round(section, &literal, vars, &mut next)?,
                    variable @ Piece::Variable(_) => next.push(variable),
                }
            }
            let size: usize =
                next.iter().map(|piece| if let Piece::Literal(text) = piece { text.len() } else { 32 }).sum();
            if size > MAX_TEXT {
                return Err(Finding::error("reference-too-long", format!("grows beyond {MAX_TEXT} bytes"))
                    .remedy("remove references that repeat long texts"));
            }
            pieces = joined(next);
        }
        if pieces.iter().any(has_reference) {
            return Err(Finding::error(
                "reference-too-deep",
                format!("references lead to references more than {MAX_ROUNDS} times"),
            )
            .remedy("look for a key that refers to itself, directly or through others"));
        }
        Ok(Template(joined(pieces)))
    }

    /// One round over one literal: `%(key)s` becomes the raw text of `key`, `%%` becomes `%`, any other per cent sign
    /// stays (the old reader failed or lost text there).
    fn round(
        &self,
        section: &str,
        text: &str,
        vars: &Variables,
        out: &mut Vec<Piece>,
    ) -> Result<(), Finding> {
        let mut rest = text;
        let mut plain = String::new();
        while let Some(at) = rest.find('%') {
            plain.push_str(&rest[..at]);
            rest = &rest[at..];
            if let Some(after) = rest.strip_prefix("%%") {
                plain.push('%');
                rest = after;
            } else if let Some((name, after)) = reference(rest) {
                rest = after;
                match self.look_up(section, name, vars)? {
                    Piece::Literal(text) => plain.push_str(&text),
                    variable @ Piece::Variable(_) => {
                        out.push(Piece::Literal(std::mem::take(&mut plain)));
                        out.push(variable);
                    }
                }
            } else {
                plain.push('%');
                rest = &rest[1..];
            }
            if plain.len() > MAX_TEXT {
                break;
            }
        }
        plain.push_str(rest);
        out.push(Piece::Literal(plain));
        Ok(())
    }

    fn look_up(&self, section: &str, name: &str, vars: &Variables) -> Result<Piece, Finding> {
        let folded = if self.case_sensitive_keys() { name.to_owned() } else { name.to_lowercase() };
        if let Some(entry) = self.entry(section, &folded) {
            return Ok(Piece::Literal(entry.value.clone()));
        }
        if folded == "__name__" && section != DEFAULT_SECTION {
            return Ok(Piece::Literal(section.to_owned()));
        }
        match vars.get(&folded) {
            Some(Variable::Text(text)) => Ok(Piece::Literal(text.clone())),
            Some(Variable::AtRun) => Ok(Piece::Variable(folded)),
            Some(Variable::Unset(remedy)) => {
                Err(Finding::error("reference-unset", format!("refers to `%({name})s`, which is not set"))
                    .remedy(remedy.clone()))
            }
            None => {
                let sections = [self.section(section), self.section(DEFAULT_SECTION)];
                let keys =
                    sections.into_iter().flatten().flat_map(|s| s.entries.iter().map(|e| e.key.as_str()));
                let known = keys.chain(vars.0.keys().map(String::as_str));
                let remedy = match nearest(&folded, known) {
                    Some(near) => format!("did you mean `%({near})s`?"),
                    None => format!("define `{folded}` in [{section}] or [{DEFAULT_SECTION}]"),
                };
                Err(Finding::error(
                    "unknown-reference",
                    format!("refers to `%({name})s`, which no key defines"),
                )
                .remedy(remedy))
            }
        }
    }
}

/// The name in `%(name)s` at the beginning of a text, and what follows.
fn reference(text: &str) -> Option<(&str, &str)> {
    let (name, after) = text.strip_prefix("%(")?.split_once(')')?;
    after.strip_prefix('s').map(|after| (name, after))
}

fn has_reference(piece: &Piece) -> bool {
    match piece {
        Piece::Literal(text) => text.match_indices("%(").any(|(at, _)| reference(&text[at..]).is_some()),
        Piece::Variable(_) => false,
    }
}

/// Neighbouring literals become one, empty ones vanish.
fn joined(pieces: Vec<Piece>) -> Vec<Piece> {
    let mut out: Vec<Piece> = Vec::with_capacity(pieces.len());
    for piece in pieces {
        match (out.last_mut(), piece) {
            (_, Piece::Literal(text)) if text.is_empty() => {}
            (Some(Piece::Literal(last)), Piece::Literal(text)) => last.push_str(&text),
            (_, piece) => out.push(piece),
        }
    }
    out
}
