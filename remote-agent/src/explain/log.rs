//! A real log against the rules of a descriptor: which line met which rule, how often each did, and which never did. Reads
//! a stream of any length in little memory, with the very cutter and rules that jobs are read with.

use std::io::{self, Read};

use serde_json::{Value as Json, json};
use wps_remote_protocol::LogLevel;

use crate::descriptor::ServiceDescriptor;
use crate::execution::stdout::Records;
use crate::rules::{By, Decision, Encoding, RuleAction, Rules};

/// Bytes that are read at once.
const CHUNK: usize = 64 * 1024;
/// Longest text of a record that is shown, in characters.
const SHOWN: usize = 300;

/// One record of a log and what it met.
#[derive(Debug, Clone, PartialEq)]
pub struct Met {
    /// Line of the log, from 1.
    pub line: u64,
    /// Which record of that line, from 1: a progress bar draws several on one line, with carriage returns.
    pub part: u64,
    /// By what it was decided; `None` = it met nothing.
    pub by: Option<By>,
    /// What follows from it.
    pub decision: Decision,
    /// Its text, cut.
    pub text: String,
}

/// How often each rule was met.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Tally {
    /// Lines of the log.
    pub lines: u64,
    /// Records that are not empty.
    pub records: u64,
    /// For each rule, in order.
    pub rules: Vec<u64>,
    /// By the preset progress bar.
    pub preset: u64,
    /// Progress rules that were met by a text without a number.
    pub no_number: u64,
    /// Records that met nothing.
    pub unmatched: u64,
}

impl Tally {
    /// Whether a rule, or the preset, was never met.
    pub fn has_idle_rules(&self, rules: &Rules) -> bool {
        self.rules.contains(&0) || (rules.preset.is_some() && self.preset == 0)
    }
}

/// Reads a log. `each` is shown every record and may break off by an error, which comes back.
pub fn read(
    mut log: impl Read,
    rules: &Rules,
    encoding: Encoding,
    mut each: impl FnMut(Met) -> io::Result<()>,
) -> io::Result<Tally> {
    let rules = Rules { encoding, ..rules.clone() };
    let mut tally = Tally { rules: vec![0; rules.rules.len()], ..Tally::default() };
    let mut records = Records::default();
    let mut chunk = vec![0; CHUNK];
    let mut complete = Vec::new();
    let (mut line, mut part) = (1, 0);
    loop {
        let length = match log.read(&mut chunk) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            read => read?,
        };
        // What is left at the end counts as a record, as it does when a program ends.
        let bytes: &[u8] = if length > 0 { &chunk[..length] } else { b"\n" };
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            records.push(piece, &mut complete);
            for record in complete.drain(..) {
                let text = rules.decode(&record);
                let text = text.trim();
                if text.is_empty() {
                    continue;
                }
                part += 1;
                let (decision, by) = rules.decide_by(text);
                tally.note(&decision, by);
                each(Met { line, part, by, decision, text: cut(text) })?;
            }
            if length > 0 {
                tally.lines = line;
                if piece.ends_with(b"\n") {
                    (line, part) = (line + 1, 0);
                }
            }
        }
        if length == 0 {
            return Ok(tally);
        }
    }
}

impl Tally {
    fn note(&mut self, decision: &Decision, by: Option<By>) {
        self.records += 1;
        match by {
            Some(By::Rule(index)) => {
                if let Some(count) = self.rules.get_mut(index) {
                    *count += 1;
                }
            }
            Some(By::Preset) => self.preset += 1,
            None => self.unmatched += 1,
        }
        if matches!(decision, Decision::NoNumber(_)) {
            self.no_number += 1;
        }
    }
}

fn cut(text: &str) -> String {
    let mut short: String = text.chars().take(SHOWN).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.chars().nth(SHOWN).is_some() {
        short.push('…');
    }
    short
}

/// What follows from a record, in one word.
fn word(decision: &Decision) -> &'static str {
    match decision {
        Decision::Progress(_) => "progress",
        Decision::NoNumber(_) => "no-number",
        Decision::Log(..) => "log",
        Decision::Abort(_) => "abort",
        Decision::Ignore => "ignore",
        Decision::Unmatched => "unmatched",
    }
}

fn level(level: LogLevel) -> &'static str {
    match level {
        LogLevel::Debug => "DEBUG",
        LogLevel::Info => "INFO",
        LogLevel::Warning => "WARNING",
        LogLevel::Error => "ERROR",
    }
}

impl Met {
    /// For people: `  12   rule 2  progress 45 %     | 45% done`.
    pub fn text_line(&self) -> String {
        let place =
            if self.part > 1 { format!("{}.{}", self.line, self.part) } else { self.line.to_string() };
        let by = match self.by {
            Some(By::Rule(index)) => format!("rule {}", index + 1),
            Some(By::Preset) => "preset".to_owned(),
            None => "-".to_owned(),
        };
        let what = match &self.decision {
            Decision::Progress(percent) => format!("progress {percent} %"),
            Decision::NoNumber(_) => "progress without a number".to_owned(),
            Decision::Log(found, _) => format!("log {}", level(*found)),
            other => word(other).to_owned(),
        };
        format!("{place:>8}  {by:<8} {what:<17} | {}", self.text)
    }

    /// For programs; `rule` counts from 1.
    pub fn json(&self) -> Json {
        let (percent, found, said) = match &self.decision {
            Decision::Progress(percent) => (Some(*percent), None, None),
            Decision::Log(found, text) => (None, Some(level(*found)), Some(cut(text))),
            Decision::NoNumber(text) | Decision::Abort(text) => (None, None, Some(cut(text))),
            Decision::Ignore | Decision::Unmatched => (None, None, None),
        };
        json!({
            "line": self.line,
            "part": self.part,
            "rule": match self.by { Some(By::Rule(index)) => json!(index + 1), Some(By::Preset) => json!("preset"), None => Json::Null },
            "result": word(&self.decision),
            "percent": percent,
            "level": found,
            "said": said,
            "text": self.text,
        })
    }
}

/// One line for each rule: its number, how often it was met, what it does and where it is written.
struct RuleLine<'r> {
    number: Json,
    matched: u64,
    action: &'r str,
    pattern: &'r str,
    line: Option<usize>,
}

fn rule_lines<'r>(rules: &'r Rules, tally: &Tally) -> Vec<RuleLine<'r>> {
    let preset = rules.preset.map(|preset| RuleLine {
        number: json!("preset"),
        matched: tally.preset,
        action: RuleAction::Progress.word(),
        pattern: preset.word(),
        line: None,
    });
    let numbered =
        rules.rules.iter().zip(&tally.rules).enumerate().map(|(index, (rule, matched))| RuleLine {
            number: json!(index + 1),
            matched: *matched,
            action: rule.action.word(),
            pattern: rule.pattern.source(),
            line: (rule.line > 0).then_some(rule.line),
        });
    preset.into_iter().chain(numbered).collect()
}

/// The counts, for people.
pub fn tally_text(descriptor: &ServiceDescriptor, tally: &Tally) -> String {
    let mut text = format!(
        "\n{} lines, {} records that are not empty, {} without a rule{}\n",
        tally.lines,
        tally.records,
        tally.unmatched,
        if descriptor.rules.log_unmatched { " (sent as log lines)" } else { "" },
    );
    let mut idle = Vec::new();
    for rule in rule_lines(&descriptor.rules, tally) {
        let name = rule.number.as_str().map_or_else(|| format!("rule {}", rule.number), str::to_owned);
        let place = rule.line.map_or_else(
            || if name == "preset" { String::new() } else { " (built in)".to_owned() },
            |line| format!(" ({}:{line})", descriptor.source.display()),
        );
        let line = format!("{:>9} x {name:<8} {:<8} {}{place}\n", rule.matched, rule.action, rule.pattern);
        text.push_str(&line);
        if rule.matched == 0 {
            idle.push(name);
        }
    }
    if tally.no_number > 0 {
        text.push_str(&format!("{} records met a progress rule but held no number\n", tally.no_number));
    }
    if !idle.is_empty() {
        text.push_str(&format!("never matched: {}\n", idle.join(", ")));
    }
    text
}

/// The counts, for programs: the members that follow `lines`.
pub fn tally_json(descriptor: &ServiceDescriptor, tally: &Tally) -> Json {
    let rules = rule_lines(&descriptor.rules, tally);
    let idle: Vec<Json> =
        rules.iter().filter(|rule| rule.matched == 0).map(|rule| rule.number.clone()).collect();
    let list: Vec<Json> = rules
        .iter()
        .map(|rule| {
            json!({
                "rule": rule.number, "matched": rule.matched, "action": rule.action, "pattern": rule.pattern,
                "line": rule.line,
            })
        })
        .collect();
    json!({
        "log_lines": tally.lines,
        "records": tally.records,
        "unmatched": tally.unmatched,
        "without_number": tally.no_number,
        "rules": list,
        "never_matched": idle,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::descriptor::pattern::{Anchor, Pattern};
    use crate::rules::{Preset, Rule};

    fn rules() -> Rules {
        let rule = |source: &str, action| Rule {
            pattern: Pattern::new(source, Anchor::Start).unwrap(),
            action,
            line: 7,
        };
        Rules {
            rules: vec![
                rule(r"(\d+)%", RuleAction::Progress),
                rule(r"\[(\w+)\] (.*)", RuleAction::Log),
                rule("never", RuleAction::Abort),
            ],
            ..Rules::default()
        }
    }

    /// Line, part, by what, text.
    type Shown = (u64, u64, Option<By>, String);

    fn met(log: &[u8], encoding: Encoding) -> (Vec<Shown>, Tally) {
        // One byte at a time: no result may depend on where a chunk ends.
        struct Drip<'b>(&'b [u8]);
        impl Read for Drip<'_> {
            fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
                let Some((first, rest)) = self.0.split_first() else { return Ok(0) };
                (into[0], self.0) = (*first, rest);
                Ok(1)
            }
        }
        let collect = |log: &mut dyn Read| {
            let mut all = Vec::new();
            let each = |met: Met| {
                all.push((met.line, met.part, met.by, met.text));
                Ok(())
            };
            let tally = read(log, &rules(), encoding, each).unwrap();
            (all, tally)
        };
        let whole = collect(&mut &*log);
        assert_eq!(collect(&mut Drip(log)), whole);
        whole
    }

    #[test]
    fn lines_and_the_parts_of_a_progress_bar_are_numbered() {
        let (all, tally) = met(b"start\r\n10%\r20%\r30%\n\n[INFO] caf\xc3\xa9\nend", Encoding::Utf8);
        let progress = Some(By::Rule(0));
        assert_eq!(
            all,
            [
                (1, 1, None, "start".to_owned()),
                (2, 1, progress, "10%".to_owned()),
                (2, 2, progress, "20%".to_owned()),
                (2, 3, progress, "30%".to_owned()),
                (4, 1, Some(By::Rule(1)), "[INFO] café".to_owned()),
                (5, 1, None, "end".to_owned()),
            ]
        );
        let expected = Tally { lines: 5, records: 6, rules: vec![3, 1, 0], unmatched: 2, ..Tally::default() };
        assert_eq!(tally, expected);
        assert!(tally.has_idle_rules(&rules()));
    }

    #[test]
    fn the_encoding_may_be_another_one() {
        assert_eq!(met(b"[INFO] caf\xe9\n", Encoding::Latin1).0[0].3, "[INFO] café");
        assert_eq!(met(b"[INFO] caf\xe9\n", Encoding::Utf8).0[0].3, "[INFO] caf\u{fffd}");
        assert_eq!(met(b"", Encoding::Utf8), (vec![], Tally { rules: vec![0; 3], ..Tally::default() }));
    }

    #[test]
    fn a_preset_counts_like_a_rule_and_an_endless_line_is_cut() {
        let rules = Rules { preset: Some(Preset::Gdal), ..rules() };
        let mut log = b"0...10...20...30\n".to_vec();
        log.extend(vec![b'x'; 3_000_000]);
        let mut longest = 0;
        let each = |met: Met| {
            longest = longest.max(met.text.len());
            Ok(())
        };
        let tally = read(&log[..], &rules, Encoding::Utf8, each).unwrap();
        assert_eq!((tally.preset, tally.unmatched, tally.lines), (1, 1, 2));
        assert!(longest < 2 * SHOWN);
    }
}
