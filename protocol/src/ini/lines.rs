//! From bytes to canonical lines: comments, continuation, separators and inline comments by the rules of Python's classic
//! `ConfigParser`, so that `rust-ini` meets nothing that it would read differently. Keeps physical line numbers. Knows
//! nothing of repeated sections or references.

use std::collections::HashMap;
use std::fmt::Write;

use super::{BREAK, Finding, MAX_FILE, MAX_KEYS, MAX_LINE, MAX_SECTIONS, Options, RETURN};

/// A file in canonical form.
#[derive(Debug, Default)]
pub(super) struct Scanned {
    /// Lines `[12]` and `13 = value`, where the names are numbers of physical lines: so `rust-ini` cannot alter a name,
    /// and every item comes back with its place.
    pub canonical: String,
    /// The name written on a physical line, section or key.
    pub names: HashMap<usize, String>,
    /// What was unwise but readable.
    pub warnings: Vec<Finding>,
}

/// The key whose value is being read.
struct Open {
    line: usize,
    value: String,
}

struct Scanner<'o> {
    options: &'o Options,
    out: Scanned,
    errors: Vec<Finding>,
    section: Option<String>,
    objects: bool,
    open: Option<Open>,
    /// An object whose braces are not balanced yet: the line of its beginning, its key, its depth and string state.
    object: Option<(usize, String, Braces)>,
    sections: usize,
    keys: usize,
}

/// White space as Python's byte strings know it; Unicode blanks are ordinary characters.
pub(super) fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r' | '\u{b}' | '\u{c}')
}

/// Reads the whole file; all bad lines are reported together.
pub(super) fn scan(bytes: &[u8], options: &Options) -> Result<Scanned, Vec<Finding>> {
    let text = decode(bytes, options)?;
    let mut scanner = Scanner {
        options,
        out: Scanned::default(),
        errors: Vec::new(),
        section: None,
        objects: false,
        open: None,
        object: None,
        sections: 0,
        keys: 0,
    };
    let indent = common_indent(&text);
    if indent > 0 {
        scanner.out.warnings.push(
            Finding::warning("dedented", "every line is indented; the common indentation was removed")
                .at(1)
                .remedy("write sections and keys in the first column"),
        );
    }
    for (index, line) in text.split('\n').enumerate() {
        let line = line.get(indent..).unwrap_or("");
        scanner.line(index + 1, line);
        if scanner.errors.len() >= 20 {
            break;
        }
    }
    scanner.finish()
}

fn decode(bytes: &[u8], options: &Options) -> Result<String, Vec<Finding>> {
    if bytes.len() > MAX_FILE {
        return Err(vec![
            Finding::error("too-large", format!("has {} bytes; at most {MAX_FILE} are read", bytes.len()))
                .remedy("a configuration file is text of a few pages; check that it is the right file"),
        ]);
    }
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let text = if options.latin1 {
        bytes.iter().map(|byte| char::from(*byte)).collect()
    } else {
        match std::str::from_utf8(bytes) {
            Ok(text) => text.to_owned(),
            Err(error) => {
                let good = &bytes[..error.valid_up_to()];
                let line = 1 + good.iter().filter(|byte| **byte == b'\n').count();
                return Err(vec![
                    Finding::error("not-utf8", "holds a byte that is not UTF-8")
                        .at(line)
                        .remedy("save the file as UTF-8 (iconv -f latin1 -t utf-8 converts it)"),
                ]);
            }
        }
    };
    let bad = |c: &char| matches!(c, '\0' | &BREAK | &RETURN);
    if let Some(at) = text.find(|c| bad(&c)) {
        let line = 1 + text[..at].matches('\n').count();
        return Err(vec![
            Finding::error("control-character", "holds a control character that no value can have")
                .at(line)
                .remedy("remove it"),
        ]);
    }
    Ok(text)
}

/// How many bytes of white space all lines that are not blank begin with.
fn common_indent(text: &str) -> usize {
    let mut common: Option<&str> = None;
    for line in text.split('\n').filter(|line| !line.trim_matches(is_blank).is_empty()) {
        let body = line.trim_start_matches([' ', '\t']);
        let indent = &line[..line.len() - body.len()];
        common = Some(match common {
            None => indent,
            Some(so_far) => {
                let same = so_far.bytes().zip(indent.bytes()).take_while(|(a, b)| a == b).count();
                &so_far[..same]
            }
        });
        if common == Some("") {
            return 0;
        }
    }
    common.unwrap_or("").len()
}

impl Scanner<'_> {
    fn line(&mut self, number: usize, line: &str) {
        if line.len() > MAX_LINE {
            self.fail(
                number,
                "line-too-long",
                format!("the line has more than {MAX_LINE} bytes"),
                "shorten it",
            );
            return;
        }
        let trimmed = line.trim_matches(is_blank);
        if self.object.is_some() {
            return self.object_line(number, trimmed);
        }
        if trimmed.is_empty() || line.starts_with(['#', ';']) {
            return;
        }
        let first_word = line.split(is_blank).next().unwrap_or("");
        if first_word.eq_ignore_ascii_case("rem") {
            return;
        }
        if line.starts_with(is_blank) {
            return self.indented(number, trimmed);
        }
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.split_once(']')).map(|(name, _)| name)
            && !name.is_empty()
        {
            return self.header(number, name);
        }
        self.key(number, line);
    }

    fn indented(&mut self, number: usize, text: &str) {
        match &mut self.open {
            Some(open) => {
                open.value.push(BREAK);
                push_encoded(&mut open.value, text);
            }
            None => self.fail(
                number,
                "indented-line",
                "an indented line continues the value above it, but there is none".to_owned(),
                "remove the blanks at its beginning",
            ),
        }
    }

    fn header(&mut self, number: usize, name: &str) {
        self.close();
        self.sections += 1;
        if self.sections == MAX_SECTIONS + 1 {
            self.fail(
                number,
                "too-many",
                format!("there are more than {MAX_SECTIONS} sections"),
                "split the file",
            );
        }
        if self.sections > MAX_SECTIONS {
            return;
        }
        self.objects = self.options.object_sections.iter().any(|known| known.eq_ignore_ascii_case(name));
        self.section = Some(name.to_owned());
        self.out.names.insert(number, name.to_owned());
        // Writing to a String cannot fail.
        let _ = writeln!(self.out.canonical, "[{number}]");
    }

    fn key(&mut self, number: usize, line: &str) {
        let Some(at) = line.find(['=', ':']) else {
            let text: String = line.trim_matches(is_blank).chars().take(60).collect();
            return self.fail(
                number,
                "no-separator",
                format!("`{text}` is neither a section header nor `key = value`"),
                "write `key = value`, or begin the line with # if it is a comment",
            );
        };
        let key = line[..at].trim_end_matches(is_blank);
        if key.is_empty() {
            return self.fail(number, "no-key", "there is no key before the separator".to_owned(), "name it");
        }
        if self.section.is_none() {
            return self.fail(
                number,
                "no-section",
                format!("`{key}` stands before the first section header"),
                "put a header such as [DEFAULT] above it",
            );
        }
        self.close();
        self.keys += 1;
        if self.keys == MAX_KEYS + 1 {
            self.fail(number, "too-many", format!("there are more than {MAX_KEYS} keys"), "split the file");
        }
        if self.keys > MAX_KEYS {
            return;
        }
        let key = if self.options.case_sensitive_keys { key.to_owned() } else { key.to_lowercase() };
        let value = line[at + 1..].trim_start_matches(is_blank);
        self.out.names.insert(number, key.clone());
        let mut open = Open { line: number, value: String::new() };
        if self.objects && value.starts_with('{') {
            let mut braces = Braces::default();
            let value = value.trim_end_matches(is_blank);
            braces.follow(value);
            push_encoded(&mut open.value, value);
            self.open = Some(open);
            if braces.depth > 0 {
                self.object = Some((number, key, braces));
            } else {
                self.close();
            }
            return;
        }
        let value = without_inline_comment(value).trim_matches(is_blank);
        push_encoded(&mut open.value, if value == "\"\"" { "" } else { value });
        self.open = Some(open);
    }

    fn object_line(&mut self, number: usize, trimmed: &str) {
        let Some((line, key, mut braces)) = self.object.take() else { return };
        let header = trimmed.starts_with('[') && trimmed.ends_with(']') && !trimmed.contains(['"', '{', ',']);
        if header && !braces.in_string && braces.depth > 0 && is_header_name(trimmed) {
            self.fail(
                line,
                "object-not-closed",
                format!("the object of `{key}` is not closed before {trimmed} in line {number}"),
                "add the missing }",
            );
            return self.line(number, trimmed);
        }
        braces.follow(trimmed);
        if let Some(open) = &mut self.open
            && !trimmed.is_empty()
        {
            open.value.push(BREAK);
            push_encoded(&mut open.value, trimmed);
        }
        if braces.depth > 0 {
            self.object = Some((line, key, braces));
        } else {
            self.close();
        }
    }

    /// Writes the value that is being read.
    fn close(&mut self) {
        if let Some(Open { line, value }) = self.open.take() {
            let _ = writeln!(self.out.canonical, "{line} = {BREAK}{value}{BREAK}");
        }
    }

    fn finish(mut self) -> Result<Scanned, Vec<Finding>> {
        if let Some((line, key, _)) = self.object.take() {
            self.fail(
                line,
                "object-not-closed",
                format!("the object of `{key}` is not closed"),
                "add the missing }",
            );
        }
        self.close();
        if self.errors.is_empty() { Ok(self.out) } else { Err(self.errors) }
    }

    fn fail(&mut self, line: usize, code: &'static str, why: String, remedy: &str) {
        let mut finding = Finding::error(code, why).at(line).remedy(remedy);
        finding.section = self.section.as_deref().map(Into::into);
        self.errors.push(finding);
    }
}

/// Whether `[text]` inside an unfinished object is a section header rather than part of a JSON array.
fn is_header_name(text: &str) -> bool {
    let name = text.trim_start_matches('[').trim_end_matches(']');
    let json = ["true", "false", "null"].contains(&name);
    !json && name.starts_with(|c: char| c.is_ascii_alphabetic())
}

/// The first semicolon cuts the rest off, if white space stands before it; later ones are not looked at.
fn without_inline_comment(value: &str) -> &str {
    match value.find(';') {
        Some(at) if value[..at].ends_with(is_blank) => &value[..at],
        _ => value,
    }
}

fn push_encoded(to: &mut String, text: &str) {
    to.extend(text.chars().map(|c| if c == '\r' { RETURN } else { c }));
}

/// Counts braces outside JSON strings.
#[derive(Debug, Default)]
struct Braces {
    depth: usize,
    in_string: bool,
    escaped: bool,
}

impl Braces {
    fn follow(&mut self, text: &str) {
        for c in text.chars() {
            match c {
                _ if self.escaped => self.escaped = false,
                '\\' if self.in_string => self.escaped = true,
                '"' => self.in_string = !self.in_string,
                '{' if !self.in_string => self.depth += 1,
                '}' if !self.in_string => self.depth = self.depth.saturating_sub(1),
                _ => {}
            }
        }
        // A line break inside a JSON string is illegal; ending the string here lets the JSON reader name the fault.
        self.in_string = false;
        self.escaped = false;
    }
}
