//! Lines of arguments: where words end, what quotes group, and what references bring.

use wps_remote_protocol::ini::{Document, Finding, Piece, Template, Variables};

use super::common::Reading;
use super::model::ProgramLine;
use crate::command::template::{Style, has_placeholder, raw_words, reference};

impl Reading<'_> {
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
    style: Style,
) -> Result<Vec<Template>, Finding> {
    let mut out = Vec::new();
    for word in raw_words(text) {
        let resolved = doc.interpolate(section, &word, vars)?;
        let whole = reference(&word) == Some(word.as_str());
        if whole && has_placeholder(&resolved, style) {
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
