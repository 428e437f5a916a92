//! `[Logging]`: from texts to rules.

use wps_remote_protocol::ini::{bracket_list, pattern_list};

use super::common::Reading;
use super::pattern::{Anchor, Pattern};
use crate::rules::{Encoding, Preset, Rule, RuleAction, Rules};

/// Reads the section; without one, the built-in rules hold.
pub(super) fn read(reading: &mut Reading<'_>, section: &str) -> Rules {
    let Some(found) = reading.doc.section(section) else { return Rules::simple() };
    let mut rules = Rules {
        rules: Vec::new(),
        preset: preset(reading, section),
        log_unmatched: reading.flag(section, "log_unmatched", false),
        encoding: encoding(reading, section),
    };
    let numbered: Vec<_> =
        found.entries.iter().filter(|entry| entry.key.starts_with("rule.")).cloned().collect();
    for entry in &found.entries {
        let known = ["stdout_parser", "stdout_action", "progress_preset", "log_unmatched", "stdout_encoding"];
        if !known.contains(&entry.key.as_str()) && !entry.key.starts_with("rule.") {
            let near = wps_remote_protocol::ini::nearest(&entry.key, known);
            let remedy =
                near.map_or_else(|| "remove it".to_owned(), |near| format!("did you mean `{near}`?"));
            reading.warn("unknown-key", section, &entry.key, "is not known here and has no effect", &remedy);
        }
    }
    if numbered.is_empty() {
        lists(reading, section, &mut rules);
        return rules;
    }
    let mut numbered: Vec<_> = numbered
        .into_iter()
        .filter_map(|entry| {
            let number = entry.key.strip_prefix("rule.").and_then(|number| number.parse::<u32>().ok());
            if number.is_none() {
                reading.error(
                    "bad-key",
                    section,
                    &entry.key,
                    "does not end in a number",
                    "write rule.1, rule.2 …",
                );
            }
            number.map(|number| (number, entry))
        })
        .collect();
    numbered.sort_by_key(|(number, _)| *number);
    for (_, entry) in numbered {
        let Some(text) = reading.text(section, &entry.key) else { continue };
        let (word, source) = text.split_once(char::is_whitespace).unwrap_or((&text, ""));
        let Some(action) = RuleAction::parse(word) else {
            let why = format!("`{word}` is not an action");
            reading.error(
                "unknown-action",
                section,
                &entry.key,
                why,
                "begin with progress, log, abort or ignore",
            );
            continue;
        };
        add(reading, section, &entry.key, source.trim(), action, &mut rules);
    }
    rules
}

/// `stdout_parser` and `stdout_action`.
fn lists(reading: &mut Reading<'_>, section: &str, rules: &mut Rules) {
    let parser = reading.text(section, "stdout_parser");
    let actions = reading.text(section, "stdout_action");
    let (parser, actions) = match (parser, actions) {
        (Some(parser), Some(actions)) => (parser, actions),
        (None, None) if rules.preset.is_some() || rules.log_unmatched => return,
        (parser, _) => {
            let key = if parser.is_some() { "stdout_action" } else { "stdout_parser" };
            reading.error(
                "missing-key",
                section,
                key,
                "is required beside the other list",
                "write both lists, or rule.1 = progress …",
            );
            return;
        }
    };
    let words = bracket_list(&actions);
    let list = pattern_list(&parser, words.len());
    for warning in list.warnings {
        reading.warn(
            warning.code,
            section,
            "stdout_parser",
            warning.why,
            warning.remedy.as_deref().unwrap_or(""),
        );
    }
    if list.items.len() != words.len() {
        let why = format!(
            "{} patterns stand against {} actions; what has no partner is dropped",
            list.items.len(),
            words.len()
        );
        reading.warn(
            "list-lengths",
            section,
            "stdout_parser",
            why,
            "write one action for each pattern, or use rule.1 = …, which knows no commas",
        );
    }
    for (source, word) in list.items.iter().zip(&words) {
        let Some(action) = RuleAction::parse(word) else {
            let why = format!("`{word}` is not an action; its pattern is left out");
            reading.warn(
                "unknown-action",
                section,
                "stdout_action",
                why,
                "use progress, log, abort or ignore",
            );
            continue;
        };
        add(reading, section, "stdout_parser", source, action, rules);
    }
}

fn add(
    reading: &mut Reading<'_>,
    section: &str,
    key: &str,
    source: &str,
    action: RuleAction,
    rules: &mut Rules,
) {
    let line = reading.doc.section(section).and_then(|found| found.entry(key)).map_or(0, |entry| entry.line);
    match Pattern::new(source, Anchor::Start) {
        Ok(pattern) => {
            let groups = pattern.group_count();
            if action == RuleAction::Progress && groups == 0 {
                let why = format!("`{source}` has no group, so no number can be found");
                reading.warn("rule-groups", section, key, why, "put ( and ) around the number");
            }
            rules.rules.push(Rule { pattern, action, line });
        }
        Err(why) => {
            reading.error(
                "bad-pattern",
                section,
                key,
                format!("`{source}`: {why}"),
                "correct the expression (Rust or Python syntax)",
            );
        }
    }
}

fn preset(reading: &mut Reading<'_>, section: &str) -> Option<Preset> {
    let text = reading.text(section, "progress_preset")?;
    let preset = Preset::parse(text.trim());
    if preset.is_none() {
        let why = format!("`{text}` is not a preset");
        reading.error("bad-value", section, "progress_preset", why, "write gdal, otb or percent");
    }
    preset
}

fn encoding(reading: &mut Reading<'_>, section: &str) -> Encoding {
    let Some(text) = reading.text(section, "stdout_encoding") else { return Encoding::Utf8 };
    match text.trim().to_ascii_lowercase().as_str() {
        "utf-8" | "utf8" => Encoding::Utf8,
        "latin1" | "latin-1" | "iso-8859-1" | "iso8859-1" => Encoding::Latin1,
        _ => {
            let why = format!("`{text}` is not an encoding that is known");
            reading.error("bad-value", section, "stdout_encoding", why, "write utf-8 or latin1");
            Encoding::Utf8
        }
    }
}
