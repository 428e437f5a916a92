//! Regular expressions as administrators write them (Python's dialect) for the `regex` crate, with a backtracking engine
//! of bounded effort as the fallback. Knows nothing of where an expression is used.

use std::fmt;
use std::sync::{Arc, OnceLock};

/// Longest expression, in bytes.
const MAX_PATTERN: usize = 8 * 1024;
/// How many steps the fallback engine may take for one text.
const MAX_STEPS: usize = 200_000;
/// How large a compiled expression may be, in bytes.
const MAX_COMPILED: usize = 10 * 1024 * 1024;
/// An expression of at most this length that counts nothing cannot exceed [`MAX_COMPILED`], so it need not be compiled to
/// know that it can be.
const SURELY_SMALL: usize = 200;

/// An expression that can be used. Compiled at its first use: a folder of a hundred descriptors must load in no time, and
/// most of them do not run most of the time.
#[derive(Clone)]
pub struct Pattern {
    source: String,
    anchored: String,
    groups: usize,
    engine: Arc<OnceLock<Engine>>,
}

enum Engine {
    Linear(regex::Regex),
    Backtracking(Box<fancy_regex::Regex>),
    /// Cannot be compiled after all; matches nothing.
    None,
}

/// Where a whole match must lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Anchor {
    /// At the beginning of the text, as Python's `match`.
    Start,
    /// Over the whole text.
    Whole,
    /// Anywhere.
    None,
}

/// The groups of a match; 0 is the whole match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Groups(Vec<Option<String>>);

impl Groups {
    /// The text of a group, if it took part in the match.
    pub fn get(&self, index: usize) -> Option<&str> {
        self.0.get(index).and_then(|group| group.as_deref())
    }

    /// How many groups the expression has, without the whole match.
    pub fn count(&self) -> usize {
        self.0.len().saturating_sub(1)
    }
}

impl Pattern {
    /// Compiles an expression; the error says why it cannot be used.
    pub fn new(source: &str, anchor: Anchor) -> Result<Self, String> {
        if source.len() > MAX_PATTERN {
            return Err(format!("the expression has more than {MAX_PATTERN} bytes"));
        }
        let translated = translate(source);
        let anchored = match anchor {
            Anchor::Start => format!("^(?:{translated})"),
            Anchor::Whole => format!("^(?:{translated})$"),
            Anchor::None => translated,
        };
        let small = anchored.len() <= SURELY_SMALL && !anchored.contains('{');
        let groups = regex_syntax::Parser::new().parse(&anchored).ok().filter(|_| small);
        let groups = groups.map(|parsed| parsed.properties().explicit_captures_len());
        let (groups, engine) = match groups {
            Some(groups) => (groups, OnceLock::new()),
            None => {
                let engine = compile(&anchored)?;
                (engine.groups(), OnceLock::from(engine))
            }
        };
        Ok(Self { source: source.to_owned(), anchored, groups, engine: Arc::new(engine) })
    }

    fn engine(&self) -> &Engine {
        self.engine.get_or_init(|| compile(&self.anchored).unwrap_or(Engine::None))
    }

    /// The expression as written.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// How many groups it has.
    pub fn group_count(&self) -> usize {
        self.groups
    }

    /// Whether the text matches. A text that exceeds the fallback's effort does not.
    pub fn is_match(&self, text: &str) -> bool {
        match self.engine() {
            Engine::Linear(regex) => regex.is_match(text),
            Engine::Backtracking(regex) => regex.is_match(text).unwrap_or(false),
            Engine::None => false,
        }
    }

    /// The groups of the first match.
    pub fn groups(&self, text: &str) -> Option<Groups> {
        match self.engine() {
            Engine::Linear(regex) => regex.captures(text).map(|found| {
                Groups(found.iter().map(|group| group.map(|m| m.as_str().to_owned())).collect())
            }),
            Engine::Backtracking(regex) => regex.captures(text).ok().flatten().map(|found| {
                Groups(found.iter().map(|group| group.map(|m| m.as_str().to_owned())).collect())
            }),
            Engine::None => None,
        }
    }
}

impl Engine {
    fn groups(&self) -> usize {
        match self {
            Self::Linear(regex) => regex.captures_len() - 1,
            Self::Backtracking(regex) => regex.captures_len() - 1,
            Self::None => 0,
        }
    }
}

fn compile(anchored: &str) -> Result<Engine, String> {
    // Python's `$` also matches before a final line feed; records and values have none.
    match regex::RegexBuilder::new(anchored).size_limit(MAX_COMPILED).build() {
        Ok(regex) => Ok(Engine::Linear(regex)),
        Err(linear) => fancy_regex::RegexBuilder::new(anchored)
            .backtrack_limit(MAX_STEPS)
            .delegate_size_limit(MAX_COMPILED)
            .build()
            .map(|regex| Engine::Backtracking(Box::new(regex)))
            .map_err(|_| reason(&linear)),
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pattern({:?})", self.source)
    }
}

/// The last line of the engine's message, which is the reason without the picture of the expression.
fn reason(error: &regex::Error) -> String {
    let text = error.to_string();
    let last = text.lines().last().unwrap_or_default().trim();
    format!("not a usable expression: {}", last.trim_start_matches("error: "))
}

/// From Python's dialect to Rust's: `\Z`, `\<`, `\>`, literal braces, `{,n}`, comments, and characters that mean
/// something in a class only here.
fn translate(source: &str) -> String {
    let chars: Vec<char> = source.chars().collect();
    let mut out = String::with_capacity(source.len() + 8);
    let mut at = 0;
    let mut class = false;
    while at < chars.len() {
        let c = chars[at];
        let next = chars.get(at + 1).copied();
        match c {
            '\\' => {
                if let Some((text, length)) = octal(&chars[at + 1..], class) {
                    out.push_str(&text);
                    at += 1 + length;
                    continue;
                }
                match next {
                    Some('Z') if !class => out.push_str(r"\z"),
                    Some('b') if class => out.push_str(r"\x08"),
                    Some(plain @ ('<' | '>')) => out.push(plain),
                    // Python takes an escaped sign without meaning for the sign itself; these are common in old files.
                    Some(plain @ ('"' | '\'' | ',' | ';' | '=' | '@' | '!' | '`' | '_' | '/')) => {
                        out.push(plain)
                    }
                    Some(plain) if !plain.is_ascii() => out.push(plain),
                    Some(letter)
                        if letter.is_ascii_alphabetic() && !means(letter, &chars[at + 2..], class) =>
                    {
                        out.push(letter)
                    }
                    Some(other) => {
                        out.extend(['\\', other]);
                        // Rust's own `\p{…}`, `\x{…}`: these braces are no quantifier.
                        if "pPxuU".contains(other)
                            && let Some(end) = braced(&chars[at + 2..])
                        {
                            out.extend(&chars[at + 2..at + 2 + end]);
                            at += end;
                        }
                    }
                    None => out.push_str(r"\\"),
                }
                at += 2;
                continue;
            }
            '[' if !class => {
                class = true;
                out.push('[');
                if next == Some('^') {
                    out.push('^');
                    at += 1;
                }
                // A `]` right after the opening is a literal in both dialects, but Rust wants it escaped in some cases.
                if chars.get(at + 1) == Some(&']') {
                    out.push_str(r"\]");
                    at += 1;
                }
            }
            '[' => out.push_str(r"\["),
            ']' => {
                out.push_str(if class { "]" } else { r"\]" });
                class = false;
            }
            '&' | '~' if class && next == Some(c) => out.extend(['\\', c]),
            '-' if class && next == Some('-') => out.push_str(r"\-"),
            '{' if !class => match quantifier(&chars[at..]) {
                Some((text, length)) => {
                    out.push_str(&text);
                    at += length;
                    continue;
                }
                None => out.push_str(r"\{"),
            },
            '}' if !class => out.push_str(r"\}"),
            '(' if !class && chars[at..].starts_with(&['(', '?', '#']) => {
                match chars[at..].iter().position(|c| *c == ')') {
                    Some(end) => {
                        at += end + 1;
                        continue;
                    }
                    None => out.push('('),
                }
            }
            c => out.push(c),
        }
        at += 1;
    }
    out
}

/// Whether a letter after a backslash means something but itself: in Python's dialect, and a few of Rust's that nobody
/// writes by accident.
fn means(letter: char, rest: &[char], class: bool) -> bool {
    match letter {
        'd' | 'D' | 's' | 'S' | 'w' | 'W' | 'a' | 'f' | 'n' | 'r' | 't' | 'v' | 'x' => true,
        'A' | 'b' | 'B' | 'z' => !class,
        'p' | 'P' => rest.first() == Some(&'{'),
        'u' | 'U' => {
            let digits = if letter == 'u' { 4 } else { 8 };
            rest.first() == Some(&'{')
                || (rest.len() >= digits && rest[..digits].iter().all(char::is_ascii_hexdigit))
        }
        _ => false,
    }
}

/// How many characters a text in braces has that the rest begins with.
fn braced(rest: &[char]) -> Option<usize> {
    let end = rest.iter().take(64).position(|c| *c == '}')?;
    (rest.first() == Some(&'{')).then_some(end + 1)
}

/// A character by its octal number, after the backslash: `0`, `012`, `101`; in a class also `1`. Everything else that
/// begins with a digit refers to a group.
fn octal(chars: &[char], class: bool) -> Option<(String, usize)> {
    let is_octal = |c: &&char| ('0'..='7').contains(*c);
    let length = chars.iter().take(3).take_while(is_octal).count();
    let zero = chars.first() == Some(&'0');
    if length == 0 || !(zero || length == 3 || class) {
        return None;
    }
    let digits: String = chars[..length].iter().collect();
    let number = u32::from_str_radix(&digits, 8).ok()? & 0xff;
    Some((format!("\\x{{{number:02x}}}"), length))
}

/// `{n}`, `{n,}`, `{n,m}` or `{,m}` at the beginning, in Rust's form, and its length in characters.
fn quantifier(chars: &[char]) -> Option<(String, usize)> {
    let end = chars.iter().take(16).position(|c| *c == '}')?;
    let inner: String = chars[1..end].iter().collect();
    let (low, high) = match inner.split_once(',') {
        Some((low, high)) => (low, Some(high)),
        None => (inner.as_str(), None),
    };
    let digits = |text: &str| text.chars().all(|c| c.is_ascii_digit());
    if !digits(low) || !high.is_none_or(digits) || (low.is_empty() && high.is_none()) {
        return None;
    }
    let low = if low.is_empty() { "0" } else { low };
    let text = match high {
        None => format!("{{{low}}}"),
        Some(high) => format!("{{{low},{high}}}"),
    };
    Some((text, end + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(source: &str, text: &str, groups: Option<&[&str]>) {
        let pattern = Pattern::new(source, Anchor::Start).unwrap_or_else(|e| panic!("{source}: {e}"));
        let found = pattern.groups(text);
        let found: Option<Vec<String>> =
            found.map(|g| (1..=g.count()).map(|i| g.get(i).unwrap_or("-").to_owned()).collect());
        let expected = groups.map(|g| g.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>());
        assert_eq!(found, expected, "{source} on {text}");
    }

    #[test]
    fn expressions_of_the_files_in_use_compile_and_match_at_the_start() {
        check(r"(ERROR) [0-9]+\: (.*)", "ERROR 4: no file", Some(&["ERROR", "no file"]));
        check(r"(ERROR) [0-9]+\: (.*)", "x ERROR 4: no file", None);
        check(
            r".*\[INFO\] ProgressInfo\:([-+]?[0-9]*\.?[0-9]*)\%",
            "a [INFO] ProgressInfo:12.5%",
            Some(&["12.5"]),
        );
        check(r".*\[(WARN)\](.*)", "z [WARN] b", Some(&["WARN", " b"]));
    }

    #[test]
    fn pythons_dialect_is_translated() {
        check(r"(a+)\Z", "aaa", Some(&["aaa"]));
        check(r"(a+)\Z", "aaab", None);
        check(r"\<(\w+)\>", "<tag>", Some(&["tag"]));
        check(r"{(a{,2})}", "{aa}", Some(&["aa"]));
        check(r"{x{1}", "{x", Some(&[]));
        check(r"(?#note)a", "a", Some(&[]));
        check(r"[[:a]+(.)", "[:a!", Some(&["!"]));
        check(r"[a&&b]+(!)", "&b!", Some(&["!"]));
        check(r"[]x]+(!)", "]x!", Some(&["!"]));
        check(r"[^]]+(\])", "abc]", Some(&["]"]));
        // A letter that means nothing is itself; numbers are octal where they are no group's.
        check(r"\h\e(\i)[\e\Z]\p", "heiZp", Some(&["i"]));
        check(r"\101(\0*)[\101\1]", "A\0\u{1}", Some(&["\0"]));
        check(r"(a{,})[\b]", "aaa\u{8}", Some(&["aaa"]));
        check(r"\é(\p{Lu})\u00e9\z", "éÉé", Some(&["É"]));
        check(r"(a)\1(b)\2", "aabb", Some(&["a", "b"]));
    }

    #[test]
    fn what_only_a_backtracking_engine_can_do_has_bounded_effort() {
        check(r"(?!DEBUG)(\w+)", "INFO", Some(&["INFO"]));
        check(r"(?!DEBUG)(\w+)", "DEBUG", None);
        check(r"(\w)\1", "aa", Some(&["a"]));
        let slow = Pattern::new(r"(?=(a+)+$)(a|aa)+\1b", Anchor::Start).unwrap();
        assert!(!slow.is_match(&"a".repeat(200)));
    }

    #[test]
    fn what_is_no_expression_is_refused_with_the_reason() {
        let error = Pattern::new("(a", Anchor::Start).unwrap_err();
        assert!(error.contains("unclosed group"), "{error}");
        assert!(Pattern::new(&"a".repeat(MAX_PATTERN + 1), Anchor::Whole).is_err());
        assert!(Pattern::new("(((a{1000}){1000}){1000})", Anchor::Whole).is_err());
    }

    #[test]
    fn a_whole_match_covers_everything() {
        let pattern = Pattern::new("a|ab", Anchor::Whole).unwrap();
        assert!(pattern.is_match("ab") && !pattern.is_match("abc"));
    }
}
