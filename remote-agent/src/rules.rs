//! What a line of a program's output means: progress, a log line, the end, or nothing. Decides about one record at a time;
//! knows neither where records come from nor what is done about them.

/// The text of bytes that should be UTF-8. Programs of Windows write the code page of the console instead, unless they know
/// better: what is no UTF-8 is taken for that.
fn utf8(bytes: &[u8]) -> String {
    #[cfg(windows)]
    if std::str::from_utf8(bytes).is_err()
        && let Some(text) = crate::winapi::console::from_console_encoding(bytes)
    {
        return text;
    }
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests;

use std::sync::LazyLock;

use wps_remote_protocol::LogLevel;

use crate::descriptor::pattern::{Anchor, Pattern};

/// What a matching rule does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RuleAction {
    /// Group 1 is the progress in per cent.
    Progress,
    /// Group 1 is the level and group 2 the text; with one group, the text.
    Log,
    /// Group 2 (else 1, else the record) is the reason; the program is ended.
    Abort,
    /// The record means nothing.
    Ignore,
}

impl RuleAction {
    /// The words of `stdout_action`.
    pub const WORDS: [(&'static str, Self); 4] =
        [("progress", Self::Progress), ("log", Self::Log), ("abort", Self::Abort), ("ignore", Self::Ignore)];

    /// From a word; case-sensitive, as in the old agent.
    pub fn parse(word: &str) -> Option<Self> {
        Self::WORDS.iter().find(|(known, _)| *known == word).map(|(_, action)| *action)
    }

    /// The word.
    pub fn word(self) -> &'static str {
        Self::WORDS.iter().find(|(_, action)| *action == self).map_or("", |(word, _)| word)
    }
}

/// One rule.
#[derive(Debug, Clone)]
pub struct Rule {
    /// Matched at the beginning of a record.
    pub pattern: Pattern,
    /// What follows from it.
    pub action: RuleAction,
    /// Line in the descriptor; 0 = built in.
    pub line: usize,
}

/// Progress bars of well-known programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preset {
    /// `0...10...20` with dots, on one line that grows.
    Gdal,
    /// `45% [****    ]`.
    Otb,
    /// Any number before a per cent sign.
    Percent,
}

impl Preset {
    /// The words of `progress_preset`.
    pub const WORDS: [(&'static str, Self); 3] =
        [("gdal", Self::Gdal), ("otb", Self::Otb), ("percent", Self::Percent)];

    /// From a word.
    pub fn parse(word: &str) -> Option<Self> {
        Self::WORDS.iter().find(|(known, _)| *known == word).map(|(_, preset)| *preset)
    }

    /// The word.
    pub fn word(self) -> &'static str {
        Self::WORDS.iter().find(|(_, preset)| *preset == self).map_or("", |(word, _)| word)
    }

    fn percent(self, record: &str) -> Option<f64> {
        match self {
            Self::Gdal => gdal(record),
            Self::Otb => {
                let (number, rest) = record.split_once('%')?;
                rest.trim_start().starts_with('[').then(|| number_at_end(number)).flatten()
            }
            Self::Percent => number_at_end(&record[..record.rfind('%')?]),
        }
    }
}

/// The last number plus a fortieth for each dot after it. Other text makes it no progress bar.
fn gdal(record: &str) -> Option<f64> {
    let body = record.trim();
    let body =
        body.strip_suffix("- done.").or_else(|| body.strip_suffix("- done")).unwrap_or(body).trim_end();
    let digits_or_dots = |c: char| c.is_ascii_digit() || c == '.';
    if !body.starts_with('0') || !body.chars().all(digits_or_dots) || (body != "0" && !body.starts_with("0."))
    {
        return None;
    }
    let mut percent = 0.0;
    let mut dots = 0.0;
    for piece in body.split_inclusive('.') {
        let digits = piece.trim_end_matches('.');
        if !digits.is_empty() {
            let number: f64 = digits.parse().ok().filter(|n| (0.0..=100.0).contains(n))?;
            if number < percent {
                return None;
            }
            percent = number;
            dots = 0.0;
        }
        if piece.ends_with('.') {
            dots += 1.0;
        }
    }
    Some(f64::min(percent + dots * 2.5, 100.0))
}

fn number_at_end(text: &str) -> Option<f64> {
    let text = text.trim_end();
    let start = text
        .rfind(|c: char| !c.is_ascii_digit() && c != '.')
        .map_or(0, |at| at + text[at..].chars().next().map_or(1, char::len_utf8));
    finite(&text[start..])
}

fn finite(text: &str) -> Option<f64> {
    text.trim().parse::<f64>().ok().filter(|number| number.is_finite()).map(|n| n.clamp(0.0, 100.0))
}

/// How the bytes of the output are decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Encoding {
    /// UTF-8; what is not becomes U+FFFD.
    #[default]
    Utf8,
    /// ISO 8859-1.
    Latin1,
}

/// What a record means.
#[derive(Debug, Clone, PartialEq)]
pub enum Decision {
    /// So many per cent are done, 0 to 100.
    Progress(f64),
    /// A progress rule matched, but its text is no finite number: to be ignored, with one warning for each run.
    NoNumber(String),
    /// A line for the job's log.
    Log(LogLevel, String),
    /// The program reports that it has failed.
    Abort(String),
    /// Means nothing.
    Ignore,
    /// No rule matched; kept for the error text only.
    Unmatched,
}

/// By what a record was decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// The rule with this index.
    Rule(usize),
    /// The preset progress bar.
    Preset,
}

/// The rules of one descriptor, in order.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    /// Tried in order; the first that matches decides.
    pub rules: Vec<Rule>,
    /// Progress bar.
    pub preset: Option<Preset>,
    /// Unmatched records are sent as log lines.
    pub log_unmatched: bool,
    /// Encoding of the output.
    pub encoding: Encoding,
}

impl Rules {
    /// What holds for a descriptor of dialect B without `[Logging]`.
    pub fn simple() -> Self {
        // Compiled once: a folder may hold a thousand descriptors without rules of their own.
        static SIMPLE: LazyLock<Rules> = LazyLock::new(Rules::built_in);
        SIMPLE.clone()
    }

    fn built_in() -> Self {
        let table = [
            (r"progress:\s*([-+]?[0-9.]+)", RuleAction::Progress),
            (r"PROGRESS\s+([-+]?[0-9.]+)", RuleAction::Progress),
            (r".*ProgressInfo:\s*([-+]?[0-9.]+)\s*%", RuleAction::Progress),
            (r"\[(INFO)\]\s*(.*)", RuleAction::Log),
            (r"\[(WARN[A-Z]*)\]\s*(.*)", RuleAction::Log),
            (r"\[(ERROR)\]\s*(.*)", RuleAction::Log),
            (r"\[(CRITICAL|FATAL)\]\s*(.*)", RuleAction::Abort),
        ];
        let rules = table
            .into_iter()
            .filter_map(|(source, action)| {
                Pattern::new(source, Anchor::Start).ok().map(|pattern| Rule { pattern, action, line: 0 })
            })
            .collect();
        Self { rules, ..Self::default() }
    }

    /// Whether any record could tell the progress.
    pub fn tells_progress(&self) -> bool {
        self.preset.is_some() || self.rules.iter().any(|rule| rule.action == RuleAction::Progress)
    }

    /// The text of a record's bytes.
    pub fn decode(&self, bytes: &[u8]) -> String {
        match self.encoding {
            Encoding::Utf8 => utf8(bytes),
            Encoding::Latin1 => bytes.iter().map(|byte| char::from(*byte)).collect(),
        }
    }

    /// What a finished record means.
    pub fn decide(&self, record: &str) -> Decision {
        self.decide_by(record).0
    }

    /// What a finished record means, and by what that was decided.
    pub fn decide_by(&self, record: &str) -> (Decision, Option<By>) {
        let record = record.trim();
        if let Some(preset @ (Preset::Gdal | Preset::Otb)) = self.preset
            && let Some(percent) = preset.percent(record)
        {
            return (Decision::Progress(percent), Some(By::Preset));
        }
        let (decision, by) = self.by_rules(record);
        if matches!(decision, Decision::Ignore | Decision::Unmatched)
            && self.preset == Some(Preset::Percent)
            && let Some(percent) = Preset::Percent.percent(record)
        {
            return (Decision::Progress(percent), Some(By::Preset));
        }
        (decision, by)
    }

    /// The progress that a record tells which has not ended yet (a bar that grows on its line).
    pub fn decide_unfinished(&self, record: &str) -> Option<f64> {
        let record = record.trim();
        if let Some(percent) = self.preset.and_then(|preset| preset.percent(record)) {
            return Some(percent);
        }
        match self.by_rules(record).0 {
            Decision::Progress(percent) => Some(percent),
            Decision::NoNumber(_)
            | Decision::Log(..)
            | Decision::Abort(_)
            | Decision::Ignore
            | Decision::Unmatched => None,
        }
    }

    fn by_rules(&self, record: &str) -> (Decision, Option<By>) {
        for (index, rule) in self.rules.iter().enumerate() {
            let Some(groups) = rule.pattern.groups(record) else { continue };
            let group = |index| groups.get(index).map(str::trim);
            let decision = match rule.action {
                RuleAction::Ignore => Decision::Ignore,
                RuleAction::Progress => {
                    let text = group(1).unwrap_or_default();
                    finite(text).map_or_else(|| Decision::NoNumber(text.to_owned()), Decision::Progress)
                }
                RuleAction::Log => match (groups.count(), group(1), group(2)) {
                    (0, ..) => Decision::Log(LogLevel::Info, record.to_owned()),
                    (1, text, _) => Decision::Log(LogLevel::Info, text.unwrap_or_default().to_owned()),
                    (_, name, text) => {
                        Decision::Log(level(name.unwrap_or_default()), text.unwrap_or_default().to_owned())
                    }
                },
                RuleAction::Abort => {
                    let text = group(2).or_else(|| group(1)).filter(|text| !text.is_empty());
                    Decision::Abort(text.unwrap_or(record).to_owned())
                }
            };
            return (decision, Some(By::Rule(index)));
        }
        (Decision::Unmatched, None)
    }
}

/// The level that a program's word stands for; unknown words are INFO.
pub fn level(word: &str) -> LogLevel {
    let word = word.trim().to_ascii_lowercase();
    if word.starts_with("warn") {
        return LogLevel::Warning;
    }
    match word.as_str() {
        "debug" | "trace" | "fine" | "verbose" => LogLevel::Debug,
        "err" | "error" | "critical" | "fatal" | "severe" | "alert" | "emergency" => LogLevel::Error,
        _ => LogLevel::Info,
    }
}
