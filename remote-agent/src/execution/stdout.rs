//! Reads a program's output as it grows: cuts it into records, lets the rules decide on each, and keeps what follows
//! within bounds (one progress a second, a bucket of log lines, the last lines for a failure's text). Pure: bytes and the
//! time go in, events come out.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::time::Duration;

use wps_remote_protocol::LogLevel;

/// Longest record in bytes; what is beyond is dropped.
const MAX_RECORD: usize = 64 * 1024;
/// Silence after which an unfinished record is looked at.
const SILENCE: Duration = Duration::from_millis(200);
/// Least time between two progress events.
const PROGRESS_EVERY: Duration = Duration::from_secs(1);
/// Least change that is worth a progress event.
const PROGRESS_STEP: f64 = 0.1;
/// Log lines that may come in one burst, and how many a second after that.
const BURST: f64 = 20.0;
const LINES_PER_SECOND: f64 = 5.0;
/// What is kept for the text of a failure.
const TAIL_LINES: usize = 200;
const TAIL_BYTES: usize = 15 * 1024;
/// Longest part of one record that is kept for the text of a failure.
const TAIL_RECORD: usize = 2 * 1024;

/// What the rules say of one record.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// It tells how far the program is, in percent.
    Progress(f64),
    /// It is a line for the job's log.
    Log(LogLevel, String),
    /// The program cannot go on and says why.
    Abort(String),
    /// A progress rule matched, but its text is no number.
    BadProgress(String),
    /// It is of no interest.
    Ignore,
    /// No rule matched.
    Unmatched,
}

/// Decides on a record. The flag says that the record is not finished yet, so that only progress may be read from it.
pub trait Decide: Send {
    /// The verdict on one record, without its line end.
    fn decide(&mut self, record: &str, unfinished: bool) -> Verdict;

    /// The level at which records that no rule matched are log lines, if they are.
    fn logs_unmatched(&self) -> Option<LogLevel> {
        None
    }

    /// The text of a record's bytes.
    fn decode<'b>(&self, bytes: &'b [u8]) -> Cow<'b, str> {
        String::from_utf8_lossy(bytes)
    }
}

impl<F: FnMut(&str, bool) -> Verdict + Send> Decide for F {
    fn decide(&mut self, record: &str, unfinished: bool) -> Verdict {
        self(record, unfinished)
    }
}

/// What comes out.
#[derive(Debug, Clone, PartialEq)]
pub enum Line {
    /// How far it is, 0 to 100.
    Progress(f64),
    /// For the job's log.
    Log(LogLevel, String),
    /// The program asked to be ended.
    Abort(String),
}

/// How many records of an output met which kind of rule.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct Counts {
    /// All that were not empty.
    pub records: u64,
    /// Told how far the program is; a bar that grows on its line counts each time it was looked at.
    pub progress: u64,
    /// Met a progress rule, but held no number.
    pub no_number: u64,
    /// Were lines for the job's log.
    pub log: u64,
    /// Asked for the end.
    pub abort: u64,
    /// Were to be ignored.
    pub ignored: u64,
    /// Met no rule.
    pub unmatched: u64,
}

impl Counts {
    fn note(&mut self, verdict: &Verdict) {
        self.records += 1;
        *match verdict {
            Verdict::Progress(_) => &mut self.progress,
            Verdict::BadProgress(_) => &mut self.no_number,
            Verdict::Log(..) => &mut self.log,
            Verdict::Abort(_) => &mut self.abort,
            Verdict::Ignore => &mut self.ignored,
            Verdict::Unmatched => &mut self.unmatched,
        } += 1;
    }

    /// Adds those of another output.
    pub fn add(&mut self, other: &Self) {
        self.records = self.records.saturating_add(other.records);
        self.progress = self.progress.saturating_add(other.progress);
        self.no_number = self.no_number.saturating_add(other.no_number);
        self.log = self.log.saturating_add(other.log);
        self.abort = self.abort.saturating_add(other.abort);
        self.ignored = self.ignored.saturating_add(other.ignored);
        self.unmatched = self.unmatched.saturating_add(other.unmatched);
    }
}

impl std::fmt::Display for Counts {
    /// `12 lines: 3 progress, 9 unmatched`; kinds that did not occur are left out.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.records, if self.records == 1 { "line" } else { "lines" })?;
        let kinds = [
            (self.progress, "progress"),
            (self.no_number, "progress without a number"),
            (self.log, "log"),
            (self.abort, "abort"),
            (self.ignored, "ignored"),
            (self.unmatched, "unmatched"),
        ];
        let mut separator = ": ";
        for (count, kind) in kinds.into_iter().filter(|(count, _)| *count > 0) {
            write!(f, "{separator}{count} {kind}")?;
            separator = ", ";
        }
        Ok(())
    }
}

/// Reads one program's output.
pub struct Reader {
    rules: Box<dyn Decide>,
    counts: Counts,
    records: Records,
    tail: Tail,
    progress: ProgressGate,
    bucket: Bucket,
    last_bytes: Duration,
    looked_at: usize,
    warned: bool,
}

impl Reader {
    /// At `now`, any clock that only goes forward.
    pub fn new(rules: Box<dyn Decide>, now: Duration) -> Self {
        Self {
            rules,
            counts: Counts::default(),
            records: Records::default(),
            tail: Tail::default(),
            progress: ProgressGate::default(),
            bucket: Bucket { tokens: BURST, filled: now, suppressed: 0 },
            last_bytes: now,
            looked_at: 0,
            warned: false,
        }
    }

    /// Takes new bytes. With `silent` only the state is brought forward: these bytes were reported by a former agent.
    pub fn feed(&mut self, bytes: &[u8], now: Duration, silent: bool, out: &mut Vec<Line>) {
        self.last_bytes = now;
        let mut complete = Vec::new();
        self.records.push(bytes, &mut complete);
        for record in complete {
            let record = self.rules.decode(&record).into_owned();
            let record = record.trim();
            if record.is_empty() {
                continue;
            }
            self.tail.push(record);
            let verdict = self.rules.decide(record, false);
            self.counts.note(&verdict);
            let verdict = match (verdict, self.rules.logs_unmatched()) {
                (Verdict::Unmatched, Some(level)) => Verdict::Log(level, record.to_owned()),
                (verdict, _) => verdict,
            };
            self.act(verdict, now, silent, out);
        }
    }

    /// Takes note of the time: an unfinished record after some silence, a progress that had to wait.
    pub fn tick(&mut self, now: Duration, out: &mut Vec<Line>) {
        let unfinished = self.records.unfinished();
        if !unfinished.is_empty()
            && unfinished.len() != self.looked_at
            && now.saturating_sub(self.last_bytes) >= SILENCE
        {
            self.looked_at = unfinished.len();
            let record = self.rules.decode(unfinished).trim().to_owned();
            if let Verdict::Progress(percent) = self.rules.decide(&record, true) {
                self.counts.progress += 1;
                self.act(Verdict::Progress(percent), now, false, out);
            }
        }
        out.extend(self.progress.due(now).map(Line::Progress));
        out.extend(self.bucket.report(now).map(|text| Line::Log(LogLevel::Warning, text)));
    }

    /// The output has ended: what is left counts as a record, what had to wait is told.
    pub fn finish(&mut self, now: Duration, out: &mut Vec<Line>) {
        self.feed(b"\n", now, false, out);
        out.extend(self.progress.flush().map(Line::Progress));
        out.extend(self.bucket.flush().map(|text| Line::Log(LogLevel::Warning, text)));
    }

    /// Which rules the records have met so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// The last lines, for the text of a failure.
    pub fn tail(&self) -> String {
        self.tail.text()
    }

    /// The rules, to be used once more.
    pub fn into_rules(self) -> Box<dyn Decide> {
        self.rules
    }

    fn act(&mut self, verdict: Verdict, now: Duration, silent: bool, out: &mut Vec<Line>) {
        match verdict {
            Verdict::Progress(percent) if percent.is_finite() => {
                self.progress.offer(percent.clamp(0.0, 100.0));
                out.extend(self.progress.due(now).map(Line::Progress));
            }
            Verdict::Progress(percent) => self.bad_progress(&percent.to_string(), silent, out),
            Verdict::BadProgress(text) => self.bad_progress(&text, silent, out),
            Verdict::Log(level, text) if !silent => {
                out.extend(self.bucket.report(now).map(|text| Line::Log(LogLevel::Warning, text)));
                if self.bucket.take(now) {
                    out.push(Line::Log(level, text));
                }
            }
            Verdict::Abort(text) => out.push(Line::Abort(text)),
            Verdict::Log(..) | Verdict::Ignore | Verdict::Unmatched => {}
        }
    }

    fn bad_progress(&mut self, text: &str, silent: bool, out: &mut Vec<Line>) {
        if !self.warned && !silent {
            self.warned = true;
            let text: String = text.chars().take(80).collect();
            let note = format!("a progress line holds no number (`{text}`); such lines are ignored");
            out.push(Line::Log(LogLevel::Warning, note));
        }
    }
}

/// Copies a program's output without the records that a rule consumed: what is left is the result of a program that
/// writes it to standard output.
pub fn filter(mut from: impl Read, mut to: impl Write, rules: &mut dyn Decide) -> io::Result<()> {
    let mut records = Records::default();
    let mut chunk = vec![0; MAX_RECORD];
    loop {
        let length = from.read(&mut chunk)?;
        let mut complete = Vec::new();
        records.push(if length == 0 { b"\n" } else { &chunk[..length] }, &mut complete);
        if length == 0 && complete.last().is_some_and(Vec::is_empty) {
            complete.pop();
        }
        for record in complete {
            let text = rules.decode(&record);
            if rules.decide(text.trim(), false) == Verdict::Unmatched {
                to.write_all(text.as_bytes())?;
                to.write_all(b"\n")?;
            }
        }
        if length == 0 {
            return to.flush();
        }
    }
}

/// Cuts bytes at LF, CRLF or a lone CR.
#[derive(Debug, Default)]
pub struct Records {
    buffer: Vec<u8>,
    after_cr: bool,
}

impl Records {
    /// Takes bytes; the records that end in them are added to `complete`.
    pub fn push(&mut self, mut bytes: &[u8], complete: &mut Vec<Vec<u8>>) {
        while let Some(first) = bytes.first() {
            if std::mem::take(&mut self.after_cr) && *first == b'\n' {
                bytes = &bytes[1..];
                continue;
            }
            let end = bytes.iter().position(|byte| matches!(byte, b'\n' | b'\r'));
            let part = &bytes[..end.unwrap_or(bytes.len())];
            let room = MAX_RECORD - self.buffer.len();
            self.buffer.extend_from_slice(&part[..part.len().min(room)]);
            let Some(end) = end else { return };
            self.after_cr = bytes[end] == b'\r';
            complete.push(std::mem::take(&mut self.buffer));
            bytes = &bytes[end + 1..];
        }
    }

    /// The beginning of a record that has not ended yet.
    pub fn unfinished(&self) -> &[u8] {
        &self.buffer
    }
}

#[derive(Default)]
struct Tail {
    lines: VecDeque<String>,
    bytes: usize,
}

impl Tail {
    fn push(&mut self, record: &str) {
        let line = wps_remote_protocol::native::cut(record, TAIL_RECORD);
        self.bytes += line.len() + 1;
        self.lines.push_back(line);
        while self.lines.len() > TAIL_LINES || self.bytes > TAIL_BYTES {
            let Some(line) = self.lines.pop_front() else { break };
            self.bytes -= line.len() + 1;
        }
    }

    fn text(&self) -> String {
        self.lines.iter().map(String::as_str).collect::<Vec<_>>().join("\n")
    }
}

#[derive(Default)]
struct ProgressGate {
    told: Option<(f64, Duration)>,
    waiting: Option<f64>,
}

impl ProgressGate {
    fn offer(&mut self, percent: f64) {
        let changed = self.told.is_none_or(|(told, _)| (percent - told).abs() >= PROGRESS_STEP);
        self.waiting = changed.then_some(percent);
    }

    fn due(&mut self, now: Duration) -> Option<f64> {
        let ready = self.told.is_none_or(|(_, at)| now.saturating_sub(at) >= PROGRESS_EVERY);
        let percent = if ready { self.waiting.take() } else { None }?;
        self.told = Some((percent, now));
        Some(percent)
    }

    fn flush(&mut self) -> Option<f64> {
        self.waiting.take()
    }
}

struct Bucket {
    tokens: f64,
    filled: Duration,
    suppressed: u64,
}

impl Bucket {
    fn fill(&mut self, now: Duration) {
        let seconds = now.saturating_sub(self.filled).as_secs_f64();
        self.tokens = (self.tokens + seconds * LINES_PER_SECOND).min(BURST);
        self.filled = now;
    }

    fn take(&mut self, now: Duration) -> bool {
        self.fill(now);
        // While lines are held back, the next token belongs to the note that says so.
        if self.tokens < 1.0 || self.suppressed > 0 {
            self.suppressed += 1;
            return false;
        }
        self.tokens -= 1.0;
        true
    }

    /// The note, as soon as there is room for it and a few lines more.
    fn report(&mut self, now: Duration) -> Option<String> {
        self.fill(now);
        if self.suppressed == 0 || self.tokens < LINES_PER_SECOND {
            return None;
        }
        self.tokens -= 1.0;
        self.flush()
    }

    fn flush(&mut self) -> Option<String> {
        let suppressed = std::mem::take(&mut self.suppressed);
        match suppressed {
            0 => None,
            1 => Some("1 line suppressed".to_owned()),
            n => Some(format!("{n} lines suppressed")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    /// `p N` is progress, `a TEXT` aborts, `i` is ignored, everything else is logged.
    fn rules() -> Box<dyn Decide> {
        Box::new(|record: &str, _: bool| match record.split_once(' ') {
            Some(("p", number)) => {
                number.parse().map_or_else(|_| Verdict::BadProgress(number.to_owned()), Verdict::Progress)
            }
            Some(("a", text)) => Verdict::Abort(text.to_owned()),
            _ if record == "i" => Verdict::Ignore,
            _ => Verdict::Log(LogLevel::Info, record.to_owned()),
        })
    }

    fn log(text: &str) -> Line {
        Line::Log(LogLevel::Info, text.to_owned())
    }

    fn read(chunks: &[&[u8]]) -> Vec<Line> {
        let mut reader = Reader::new(rules(), ms(0));
        let mut out = Vec::new();
        for chunk in chunks {
            reader.feed(chunk, ms(0), false, &mut out);
        }
        reader.finish(ms(0), &mut out);
        out
    }

    #[test]
    fn records_end_at_any_line_end_wherever_the_chunks_are_cut() {
        let expected = vec![log("one"), log("two"), log("three"), log("four")];
        assert_eq!(read(&[b"one\ntwo\r\nthree\rfour"]), expected);
        assert_eq!(read(&[b"one\ntwo\r", b"\nthree", b"\r", b"four\n"]), expected);
        let single: Vec<&[u8]> = b"one\ntwo\r\n\r\n\nthree\r\rfour\n".chunks(1).collect();
        assert_eq!(read(&single), expected);
    }

    #[test]
    fn bytes_that_are_no_text_and_endless_lines_do_no_harm() {
        assert_eq!(read(&[b"caf\xe9\n"]), vec![log("caf\u{fffd}")]);
        let endless = vec![b'x'; 1_000_000];
        let mut reader = Reader::new(rules(), ms(0));
        let mut out = Vec::new();
        reader.feed(&endless, ms(0), false, &mut out);
        assert!(reader.records.unfinished().len() <= MAX_RECORD);
        reader.feed(b"\nnext\n", ms(0), false, &mut out);
        assert_eq!(out.len(), 2);
        assert_eq!(out[1], log("next"));
        assert!(reader.tail().len() <= TAIL_BYTES);
    }

    #[test]
    fn progress_is_told_once_a_second_if_changed_and_the_last_value_always() {
        let mut reader = Reader::new(rules(), ms(0));
        let mut out = Vec::new();
        for n in 0..50 {
            reader.feed(format!("p {n}\r").as_bytes(), ms(n * 10), false, &mut out);
        }
        assert_eq!(out, [Line::Progress(0.0)]);
        reader.tick(ms(999), &mut out);
        assert_eq!(out.len(), 1);
        reader.tick(ms(1000), &mut out);
        assert_eq!(out[1..], [Line::Progress(49.0)]);
        reader.feed(b"p 49.05\n", ms(3000), false, &mut out);
        assert_eq!(out.len(), 2, "not changed enough");
        reader.feed(b"p 300\n", ms(3000), false, &mut out);
        assert_eq!(out[2..], [Line::Progress(100.0)]);
        reader.feed(b"p -7\n", ms(3001), false, &mut out);
        reader.finish(ms(3002), &mut out);
        assert_eq!(out[3..], [Line::Progress(0.0)]);
    }

    #[test]
    fn an_unfinished_record_is_read_for_progress_after_silence_and_only_once() {
        let mut reader = Reader::new(rules(), ms(0));
        let mut out = Vec::new();
        reader.feed(b"p 5", ms(0), false, &mut out);
        reader.tick(ms(199), &mut out);
        assert_eq!(out, []);
        reader.tick(ms(200), &mut out);
        assert_eq!(out, [Line::Progress(5.0)]);
        reader.tick(ms(5000), &mut out);
        assert_eq!(out.len(), 1);
        let mut reader = Reader::new(rules(), ms(0));
        let mut out = Vec::new();
        reader.feed(b"a half a reason", ms(0), false, &mut out);
        reader.tick(ms(1000), &mut out);
        assert_eq!(out, [], "only progress is read from half a record");
    }

    #[test]
    fn a_flood_of_log_lines_is_cut_and_counted() {
        let mut reader = Reader::new(rules(), ms(0));
        let mut out = Vec::new();
        for n in 0..1000 {
            reader.feed(format!("line {n}\n").as_bytes(), ms(0), false, &mut out);
        }
        assert_eq!(out.len(), 20);
        reader.tick(ms(500), &mut out);
        assert_eq!(out.len(), 20);
        reader.tick(ms(1000), &mut out);
        assert_eq!(out[20..], [Line::Log(LogLevel::Warning, "980 lines suppressed".into())]);
        reader.feed(b"later\n", ms(1000), false, &mut out);
        assert_eq!(out[21..], [log("later")]);
        assert!(reader.tail().starts_with("line 801\n") && reader.tail().ends_with("\nlater"));
    }

    #[test]
    fn records_are_counted_by_what_they_met() {
        let mut reader = Reader::new(rules(), ms(0));
        let mut out = Vec::new();
        reader.feed(b"p 1\rp x\n\n  \ni\nword\na end", ms(0), true, &mut out);
        reader.finish(ms(0), &mut out);
        let expected =
            Counts { records: 5, progress: 1, no_number: 1, log: 1, abort: 1, ignored: 1, unmatched: 0 };
        assert_eq!(reader.counts(), expected, "also what a former agent has told");
        let text = "5 lines: 1 progress, 1 progress without a number, 1 log, 1 abort, 1 ignored";
        assert_eq!(expected.to_string(), text);
    }

    #[test]
    fn a_bad_number_is_noted_once() {
        let out = read(&[b"p %\np abc\np NaN\np 7\n"]);
        assert!(matches!(&out[0], Line::Log(LogLevel::Warning, text) if text.contains("`%`")));
        assert_eq!(out[1..], [Line::Progress(7.0)]);
    }

    #[test]
    fn what_a_former_agent_has_told_is_not_told_again() {
        let mut reader = Reader::new(rules(), ms(0));
        let mut out = Vec::new();
        reader.feed(b"old\np 40\n", ms(0), true, &mut out);
        reader.feed(b"new\n", ms(0), false, &mut out);
        assert_eq!(out, [Line::Progress(40.0), log("new")]);
        assert_eq!(reader.tail(), "old\np 40\nnew");
    }

    #[test]
    fn what_the_rules_do_not_take_is_the_result() {
        let mut only_progress = |record: &str, _: bool| match record.strip_prefix("p ") {
            Some(_) => Verdict::Progress(1.0),
            None => Verdict::Unmatched,
        };
        let mut result = Vec::new();
        filter(&b"  {\np 1\rp 2\r\n\n  }"[..], &mut result, &mut only_progress).unwrap();
        assert_eq!(String::from_utf8(result).unwrap(), "  {\n\n  }\n");
    }

    #[test]
    fn an_abort_passes_its_reason_on() {
        assert_eq!(read(&[b"i\na disk is full\n"]), [Line::Abort("disk is full".into())]);
    }
}
