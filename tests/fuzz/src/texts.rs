//! Texts inside files and from programs: lists, templates, JSON paths, rules, output.

use std::cell::OnceCell;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use wps_remote_agent::command::json_path::JsonPath;
use wps_remote_agent::command::template::{self, Style};
use wps_remote_agent::descriptor::model::{Word, WordPart};
use wps_remote_agent::descriptor::pattern::{Anchor, Pattern};
use wps_remote_agent::execution::stdout::{Line, Reader, filter};
use wps_remote_agent::prepare::by_rules;
use wps_remote_agent::rules::{Encoding, Preset, Rule, RuleAction, Rules};
use wps_remote_protocol::ini::{Template, bracket_list, pattern_list};

use super::two_texts;

/// Lists: nothing but blanks, brackets and the commas between pieces is lost. The first byte says how many are wanted.
pub fn list(data: &[u8]) {
    let Some((wanted, text)) = data.split_first() else { return };
    let Ok(text) = std::str::from_utf8(text) else { return };
    let solid = |text: &str| text.chars().filter(|c| !c.is_whitespace()).collect::<String>();
    let trimmed = text.trim();
    let inner = trimmed.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(trimmed);
    for items in [pattern_list(text, usize::from(*wanted)).items, bracket_list(text)] {
        assert_eq!(solid(&items.join(",")), solid(inner));
        assert!(items.iter().all(|item| item.trim() == item));
    }
}

/// Templates: with `name` as the name and `value` as the value, the words come out as they went in.
pub fn template(data: &[u8]) {
    let Some((name, text)) = two_texts(data) else { return };
    let raw = template::raw_words(text);
    assert!(raw.iter().all(|word| !word.is_empty()));
    let words: Vec<Template> = raw.iter().map(Template::literal).collect();
    for (style, own) in [(Style::Anywhere, "name"), (Style::WholeWords, "key")] {
        let odd = template::parse(&words, style, &Template::literal(name));
        assert_eq!(odd.words.len(), words.len());
        let braces = text.contains("{value}") || text.contains(&format!("{{{own}}}"));
        let (name, value) =
            if braces { (format!("{{{own}}}"), "{value}") } else { (own.to_owned(), "value") };
        let same = template::parse(&words, style, &Template::literal(name));
        let shown: Vec<String> = same.words.iter().map(|word| show(word, value)).collect();
        assert_eq!(shown, raw);
    }
}

fn show(word: &Word, value: &str) -> String {
    let part = |part: &WordPart| match part {
        WordPart::Literal(template) => template.to_string(),
        WordPart::Value => value.to_owned(),
    };
    word.0.iter().map(part).collect()
}

/// JSON paths: what is shown reads back as the same path, and what was set is found.
pub fn json_path(data: &[u8]) {
    let Some((path, document)) = two_texts(data) else { return };
    let Ok(path) = JsonPath::parse(path) else { return };
    assert_eq!(JsonPath::parse(&path.to_string()), Ok(path.clone()));
    let Ok(document) = serde_json::from_str::<Value>(document) else { return };
    path.find(&document);
    for parents in [false, true] {
        let mut changed = document.clone();
        if path.set(&mut changed, json!("set"), parents).is_ok() {
            assert_eq!(path.find(&changed), Some(&json!("set")));
        }
    }
}

/// Rules: an expression of the old agent is refused or works in bounded time.
pub fn rule(data: &[u8]) {
    let Some((source, line)) = two_texts(data) else { return };
    for anchor in [Anchor::Start, Anchor::Whole] {
        let Ok(pattern) = Pattern::new(source, anchor) else { continue };
        assert_eq!(pattern.source(), source);
        let groups = pattern.groups(line);
        assert_eq!(groups.is_some(), pattern.is_match(line));
        assert!(groups.is_none_or(|groups| groups.count() == pattern.group_count()));
    }
}

/// Output: how the bytes are cut into chunks makes no difference, and what comes out is bounded. The first two bytes choose
/// the rules and the size of the chunks.
pub fn stdout(data: &[u8]) {
    let [manner, chunk, bytes @ ..] = data else { return };
    let rules = rules(*manner);
    let whole = read(&rules, &[bytes]);
    let chunks: Vec<&[u8]> = bytes.chunks(usize::from(*chunk).max(1)).collect();
    assert_eq!(whole, read(&rules, &chunks));
    let logged = whole.0.iter().filter(|line| matches!(line, Line::Log(..))).count();
    let progress = whole.0.iter().filter(|line| matches!(line, Line::Progress(_))).count();
    // All in one moment: the bucket, the note of what was held back and the one of a bad number; first and last progress.
    assert!(logged <= 22 && progress <= 2, "{logged} {progress}");
    assert!(whole.1.len() <= 16 * 1024);

    let mut left = Vec::new();
    assert!(filter(bytes, &mut left, by_rules(rules.clone()).as_mut()).is_ok());
    assert!(left.len() <= bytes.len() * 3 + 1 && std::str::from_utf8(&left).is_ok());
}

fn read(rules: &Arc<Rules>, chunks: &[&[u8]]) -> (Vec<Line>, String) {
    let mut reader = Reader::new(by_rules(rules.clone()), Duration::ZERO);
    let mut lines = Vec::new();
    for chunk in chunks {
        reader.feed(chunk, Duration::ZERO, false, &mut lines);
    }
    reader.finish(Duration::ZERO, &mut lines);
    for line in &lines {
        if let Line::Progress(percent) = line {
            assert!((0.0..=100.0).contains(percent));
        }
    }
    (lines, reader.tail())
}

/// Rules with every action; two bits choose the progress bar, and one each what happens to other lines and the encoding.
fn rules(manner: u8) -> Arc<Rules> {
    thread_local! {
        static RULES: [OnceCell<Arc<Rules>>; 16] = const { [const { OnceCell::new() }; 16] };
    }
    let make = || {
        let table = [
            (RuleAction::Progress, r"progress:\s*([-+]?[0-9.e]*)"),
            (RuleAction::Log, r"\[(INFO|WARN|ERROR)\] (.*)"),
            (RuleAction::Abort, r"\[(FATAL)\](.*)"),
            (RuleAction::Ignore, "#"),
        ];
        let rule = |(action, source)| {
            Pattern::new(source, Anchor::Start).map(|pattern| Rule { pattern, action, line: 0 })
        };
        Arc::new(Rules {
            rules: table.into_iter().filter_map(|row| rule(row).ok()).collect(),
            preset: [None, Some(Preset::Gdal), Some(Preset::Otb), Some(Preset::Percent)]
                [usize::from(manner & 3)],
            log_unmatched: manner & 4 != 0,
            encoding: if manner & 8 != 0 { Encoding::Latin1 } else { Encoding::Utf8 },
        })
    };
    RULES.with(|rules| rules[usize::from(manner & 15)].get_or_init(make).clone())
}
