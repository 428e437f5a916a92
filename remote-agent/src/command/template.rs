//! The templates of command line arguments: `-name value`, `--{name}={value}`, `--key=value`. Split into words first, so
//! that no value is ever split; the name is filled in when the descriptor is loaded.

use wps_remote_protocol::ini::{Piece, Template};

use crate::descriptor::model::{Word, WordPart};

/// Which letters are placeholders.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// `name` and `value` wherever they stand, also inside other words (dialect A).
    Anywhere,
    /// `key` and `value` as whole words only (dialect B).
    WholeWords,
}

impl Style {
    fn name(self) -> &'static str {
        match self {
            Self::Anywhere => "name",
            Self::WholeWords => "key",
        }
    }
}

/// A template that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parsed {
    /// Its words.
    pub words: Vec<Word>,
    /// What was odd: code and explanation.
    pub oddities: Vec<(&'static str, String)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mark {
    Name,
    Value,
}

/// Splits a template at white space; references such as `%(name)s` are never split.
pub fn raw_words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        if let Some(reference) = reference(rest) {
            word.push_str(reference);
            rest = &rest[reference.len()..];
            continue;
        }
        if c.is_ascii_whitespace() {
            if !word.is_empty() {
                words.push(std::mem::take(&mut word));
            }
        } else {
            word.push(c);
        }
        rest = &rest[c.len_utf8()..];
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

/// The `%(key)s` that a text begins with.
pub fn reference(text: &str) -> Option<&str> {
    let end = text.strip_prefix("%(")?.find(')')? + 2;
    text[end..].starts_with(")s").then(|| &text[..end + 2])
}

/// Whether a resolved word holds a placeholder.
pub fn has_placeholder(word: &Template, style: Style) -> bool {
    [true, false].into_iter().any(|braces| !marks_of(word, style, braces).iter().all(Vec::is_empty))
}

/// Reads the words of a template, references already resolved, and fills the name in.
pub fn parse(words: &[Template], style: Style, name: &Template) -> Parsed {
    let braces = words.iter().any(|word| marks_of(word, style, true).iter().any(|marks| !marks.is_empty()));
    let mut oddities = Vec::new();
    let mut order = Vec::new();
    let mut out = Vec::new();
    for word in words {
        let mut parts = Vec::new();
        for (piece, marks) in word.pieces().iter().zip(marks_of(word, style, braces)) {
            let Piece::Literal(text) = piece else {
                parts.push(WordPart::Literal(Template::from_pieces(vec![piece.clone()])));
                continue;
            };
            let mut done = 0;
            for (index, &(start, length, mark)) in marks.iter().enumerate() {
                if !braces && touches(text, &marks, index) {
                    oddities.push((
                        "template-substring",
                        format!("a placeholder is part of a longer word in `{text}`; write {{{0}}} or {{value}} to make it clear", style.name()),
                    ));
                }
                push_literal(&mut parts, &text[done..start]);
                match mark {
                    Mark::Name => push_template(&mut parts, name),
                    Mark::Value => parts.push(WordPart::Value),
                }
                order.push(mark);
                done = start + length;
            }
            push_literal(&mut parts, &text[done..]);
        }
        out.push(Word(parts));
    }
    let first_name = order.iter().position(|mark| *mark == Mark::Name);
    let first_value = order.iter().position(|mark| *mark == Mark::Value);
    if let (Some(name_at), Some(value_at)) = (first_name, first_value)
        && value_at < name_at
    {
        oddities.push((
            "template-order",
            "`value` comes before the name; each placeholder gets what it says".to_owned(),
        ));
    }
    if order.is_empty() && !out.is_empty() {
        oddities.push((
            "template-constant",
            "the template has no placeholder; it is a constant argument".to_owned(),
        ));
    }
    Parsed { words: out, oddities }
}

fn push_template(parts: &mut Vec<WordPart>, template: &Template) {
    for piece in template.pieces() {
        match piece {
            Piece::Literal(text) => push_literal(parts, text),
            variable @ Piece::Variable(_) => {
                parts.push(WordPart::Literal(Template::from_pieces(vec![variable.clone()])));
            }
        }
    }
}

fn push_literal(parts: &mut Vec<WordPart>, text: &str) {
    if text.is_empty() {
        return;
    }
    if let Some(WordPart::Literal(last)) = parts.last_mut() {
        let mut pieces = last.pieces().to_vec();
        match pieces.last_mut() {
            Some(Piece::Literal(before)) => before.push_str(text),
            _ => pieces.push(Piece::Literal(text.to_owned())),
        }
        *last = Template::from_pieces(pieces);
    } else {
        parts.push(WordPart::Literal(Template::literal(text)));
    }
}

type Marks = Vec<(usize, usize, Mark)>;

/// Where placeholders stand in each piece of a word.
fn marks_of(word: &Template, style: Style, braces: bool) -> Vec<Marks> {
    let name = style.name();
    let (name, value) = if braces { (format!("{{{name}}}"), "{value}") } else { (name.to_owned(), "value") };
    word.pieces()
        .iter()
        .map(|piece| match piece {
            Piece::Variable(_) => Vec::new(),
            Piece::Literal(text) => {
                let names =
                    text.match_indices(name.as_str()).map(|(at, found)| (at, found.len(), Mark::Name));
                let values = text.match_indices(value).map(|(at, found)| (at, found.len(), Mark::Value));
                let mut marks: Marks = names.chain(values).collect();
                marks.sort_by_key(|(at, ..)| *at);
                if !braces && style == Style::WholeWords {
                    let all = marks.clone();
                    let mut index = 0;
                    marks.retain(|_| {
                        index += 1;
                        !touches(text, &all, index - 1)
                    });
                }
                marks
            }
        })
        .collect()
}

/// Whether a placeholder touches a letter, digit or underscore that is not part of another placeholder.
fn touches(text: &str, marks: &Marks, index: usize) -> bool {
    let (start, length, _) = marks[index];
    let end = start + length;
    let word = |c: char| c.is_alphanumeric() || c == '_';
    let before = text[..start].chars().next_back().is_some_and(word)
        && !marks.iter().any(|(other, length, _)| other + length == start);
    let after =
        text[end..].chars().next().is_some_and(word) && !marks.iter().any(|(other, ..)| *other == end);
    before || after
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The words with name `i` and value `200`, as legacy tables show them.
    fn render(template: &str, style: Style) -> (Vec<String>, Vec<&'static str>) {
        let words: Vec<Template> = raw_words(template).into_iter().map(Template::literal).collect();
        let parsed = parse(&words, style, &Template::literal("i"));
        let text = |word: &Word| {
            word.0
                .iter()
                .map(|part| match part {
                    WordPart::Literal(template) => template.to_string(),
                    WordPart::Value => "200".to_owned(),
                })
                .collect()
        };
        (parsed.words.iter().map(text).collect(), parsed.oddities.iter().map(|(code, _)| *code).collect())
    }

    #[test]
    fn templates_of_dialect_a() {
        let check = |template: &str, words: &[&str], codes: &[&str]| {
            let (found, oddities) = render(template, Style::Anywhere);
            assert_eq!(found, words, "{template}");
            assert_eq!(oddities, codes, "{template}");
        };
        check("-name value", &["-i", "200"], &[]);
        check("--name=value", &["--i=200"], &[]);
        check("-namevalue", &["-i200"], &[]);
        check("value", &["200"], &[]);
        check("--name", &["--i"], &[]);
        check("--filename=value", &["--filei=200"], &["template-substring"]);
        check("-Dname=value", &["-Di=200"], &["template-substring"]);
        check("value:name", &["200:i"], &["template-order"]);
        check("--name=value --name", &["--i=200", "--i"], &[]);
        check("--flag", &["--flag"], &["template-constant"]);
        check("--name=value%", &["--i=200%"], &[]);
        check("--filename={value}", &["--filename=200"], &[]);
        check("-{name}x{value}", &["-ix200"], &[]);
        check("/srv/data/value", &["/srv/data/200"], &[]);
    }

    #[test]
    fn templates_of_dialect_b() {
        let check = |template: &str, words: &[&str]| {
            assert_eq!(render(template, Style::WholeWords).0, words, "{template}");
        };
        check("--key=value", &["--i=200"]);
        check("-key value", &["-i", "200"]);
        check("key=value", &["i=200"]);
        check("-keyvalue", &["-i200"]);
        check("--keyname=values", &["--keyname=values"]);
        check("--monkey={value}", &["--monkey=200"]);
    }

    #[test]
    fn references_stay_in_one_word() {
        assert_eq!(raw_words("-a  %(my key)s/x\tb"), ["-a", "%(my key)s/x", "b"]);
    }
}
