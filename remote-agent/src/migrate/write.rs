//! The pieces of a new file: sections, keys, values, words of command lines and templates, as the reader understands them.

use wps_remote_protocol::ini::{Piece, Template};

use crate::descriptor::model::{Word, WordPart};
use crate::rules::{Encoding, Rules};

/// A file that is being written.
#[derive(Debug, Default)]
pub(super) struct Sheet(String);

impl Sheet {
    /// Begins a section.
    pub fn section(&mut self, name: &str) {
        if !self.0.is_empty() {
            self.0.push('\n');
        }
        self.0.push_str(&format!("[{name}]\n"));
    }

    /// One key; further lines of the value are indented, as the reader wants it.
    pub fn key(&mut self, key: &str, value: impl AsRef<str>) {
        let value = value.as_ref().replace('\n', "\n    ");
        self.0.push_str(format!("{key} = {value}").trim_end());
        self.0.push('\n');
    }

    /// One key, if there is a value.
    pub fn some(&mut self, key: &str, value: Option<impl AsRef<str>>) {
        if let Some(value) = value {
            self.key(key, value);
        }
    }

    /// One key, if it differs from what holds without it.
    pub fn flag(&mut self, key: &str, value: bool, usual: bool) {
        if value != usual {
            self.key(key, value.to_string());
        }
    }

    pub fn finish(self) -> String {
        self.0
    }
}

/// A text in which nothing is a reference.
pub(super) fn literal(text: &str) -> String {
    // legacy: where there is no `%(`, per cent signs stay as they are.
    if text.contains("%(") { text.replace('%', "%%") } else { text.to_owned() }
}

/// A template with its run variables as references.
pub(super) fn template(template: &Template) -> String {
    let open = !template.is_fixed();
    let piece = |piece: &Piece| match piece {
        Piece::Literal(text) if open => text.replace('%', "%%"),
        Piece::Literal(text) => literal(text),
        Piece::Variable(name) => format!("%({name})s"),
    };
    template.pieces().iter().map(piece).collect()
}

/// Words of a command line, quoted where they must be.
pub(super) fn command(words: &[Template]) -> String {
    words.iter().map(|word| quoted(&template(word))).collect::<Vec<_>>().join(" ")
}

fn quoted(word: &str) -> String {
    let plain = !word.is_empty() && !word.contains(|c: char| c.is_whitespace() || c == '"' || c == '\'');
    if plain {
        word.to_owned()
    } else if !word.contains('\'') {
        format!("'{word}'")
    } else {
        format!("\"{}\"", word.replace('"', "\\\""))
    }
}

/// `alias` and `template` of an action. The name is filled in already; braces keep the letters `name` and `value` of other
/// words from being taken for placeholders.
pub(super) fn words(sheet: &mut Sheet, words: &[Word]) {
    let text = |word: &Word| -> String {
        let part = |part: &WordPart| match part {
            WordPart::Literal(text) => template(text),
            WordPart::Value => "{value}".to_owned(),
        };
        word.0.iter().map(part).collect()
    };
    let mut all: Vec<String> = words.iter().map(text).collect();
    if !words.iter().any(Word::has_value)
        && let Some(first) = all.first_mut()
    {
        // Without any placeholder the letters would count; so the first word becomes the name.
        sheet.key("alias", std::mem::replace(first, "{name}".to_owned()));
    }
    sheet.key("template", all.join(" "));
}

/// `[Logging]`, one rule a key.
pub(super) fn logging(sheet: &mut Sheet, rules: &Rules) {
    sheet.section("Logging");
    for (index, rule) in rules.rules.iter().enumerate() {
        let text = format!("{} {}", rule.action.word(), rule.pattern.source());
        sheet.key(&format!("rule.{}", index + 1), literal(&text));
    }
    sheet.some("progress_preset", rules.preset.map(|preset| preset.word()));
    sheet.flag("log_unmatched", rules.log_unmatched, false);
    if rules.encoding == Encoding::Latin1 {
        sheet.key("stdout_encoding", "latin1");
    }
}

/// Names of sections whose order as texts is that of their numbers.
pub(super) fn numbered(role: &str, index: usize, count: usize) -> String {
    let width = count.max(1).to_string().len();
    format!("{role}{:0width$}", index + 1)
}
