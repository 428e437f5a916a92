//! Lists in values: `[a, b]`. The old reader dropped the first and last character whatever they were and split at every
//! comma, which cuts regular expressions such as `a{1,3}`; here the number of pieces that is wanted decides.

use super::Finding;

/// The pieces of a `[a, b]` list: brackets dropped, split at every comma, blanks trimmed; an empty text is no piece.
/// Text without brackets is split all the same.
pub fn bracket_list(text: &str) -> Vec<String> {
    let text = text.trim();
    let inner = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    if inner.trim().is_empty() {
        return Vec::new();
    }
    inner.split(',').map(|piece| piece.trim().to_owned()).collect()
}

/// A list of patterns as far as it could be told apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PatternList {
    /// The pieces, in order.
    pub items: Vec<String>,
    /// What was unwise but readable; place and key are for the caller to add.
    pub warnings: Vec<Finding>,
}

/// Splits a list of regular expressions of which `wanted` are expected.
pub fn pattern_list(text: &str, wanted: usize) -> PatternList {
    let mut warnings = Vec::new();
    let text = text.trim();
    if text.is_empty() {
        return PatternList { items: Vec::new(), warnings };
    }
    let inner = match text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(inner) => inner,
        None => {
            warnings.push(
                Finding::warning("list-without-brackets", "the list is not enclosed in [ and ]")
                    .remedy("write [first, second]"),
            );
            text
        }
    };
    let every: Vec<String> = inner.split(',').map(|piece| piece.trim().to_owned()).collect();
    if every.len() == wanted {
        return PatternList { items: every, warnings };
    }
    let outer = split_outside_groups(inner);
    if outer.len() == wanted {
        return PatternList { items: outer, warnings };
    }
    PatternList { items: every, warnings }
}

/// Splits at commas that are neither escaped nor inside `()`, `[]` or `{}`.
fn split_outside_groups(text: &str) -> Vec<String> {
    let mut pieces = vec![String::new()];
    let mut depth = 0usize;
    let mut escaped = false;
    for c in text.chars() {
        if c == ',' && depth == 0 && !escaped {
            pieces.push(String::new());
            continue;
        }
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if let Some(last) = pieces.last_mut() {
            last.push(c);
        }
    }
    pieces.iter().map(|piece| piece.trim().to_owned()).collect()
}
