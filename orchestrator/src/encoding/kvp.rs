//! Key-value query strings as WPS clients write them: keys in any case, repeated keys, values that are encoded twice,
//! brackets around lists. Knows no operation.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

use super::{Fault, clip};

/// Longest query that is read, in bytes.
pub const MAX_QUERY: usize = 64 * 1024;
/// Most parameters of a query.
pub const MAX_PARAMETERS: usize = 1000;

/// A query: keys in lower case, values as they came.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Query {
    pairs: Vec<(String, String)>,
}

/// One entry of a list such as `DataInputs` or `ResponseDocument`: `id=value@attribute=value`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Entry {
    /// Identifier.
    pub id: String,
    /// What follows the first `=`, if there is one before the first attribute.
    pub value: Option<String>,
    /// Attributes, names in lower case and without prefix.
    pub attributes: Vec<(String, String)>,
}

impl Entry {
    /// The value of an attribute; an empty one counts as absent.
    pub fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|(key, value)| key == name && !value.is_empty()).map(|(_, v)| v.as_str())
    }
}

impl Query {
    /// Cuts a raw query (without `?`) apart.
    pub fn parse(raw: &str) -> Result<Self, Fault> {
        if raw.len() > MAX_QUERY {
            return Err(Fault::malformed(format!(
                "the query is longer than {MAX_QUERY} bytes; send the request by POST"
            )));
        }
        let mut pairs = Vec::new();
        for pair in raw.split('&').filter(|pair| !pair.is_empty()) {
            if pairs.len() == MAX_PARAMETERS {
                return Err(Fault::malformed(format!("the query has more than {MAX_PARAMETERS} parameters")));
            }
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let key = decode(key).ok_or_else(|| not_utf8("a key"))?.trim().to_lowercase();
            pairs.push((key, value.to_owned()));
        }
        Ok(Self { pairs })
    }

    /// Whether there is no parameter at all.
    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }

    /// The first value of a parameter that is not empty, decoded, without blanks around it. The key in lower case.
    pub fn get(&self, key: &str) -> Result<Option<String>, Fault> {
        for raw in self.raw(key) {
            let value = decode(raw).ok_or_else(|| not_utf8(key))?;
            let value = value.trim();
            if !value.is_empty() {
                return Ok(Some(value.to_owned()));
            }
        }
        Ok(None)
    }

    /// A parameter that must be there. `shown` is its name in the standard's spelling.
    pub fn need(&self, shown: &str) -> Result<String, Fault> {
        self.get(&shown.to_ascii_lowercase())?.ok_or_else(|| Fault::missing(shown))
    }

    /// A parameter that is `true` or `false`; absent = `false`.
    pub fn flag(&self, shown: &str) -> Result<bool, Fault> {
        match self.get(&shown.to_ascii_lowercase())? {
            None => Ok(false),
            Some(text) => boolean(shown, &text),
        }
    }

    /// A list of names, cut at commas; empty names are dropped. Repeated parameters add up.
    pub fn names(&self, key: &str) -> Result<Vec<String>, Fault> {
        let mut names = Vec::new();
        for raw in self.raw(key) {
            let value = decode(raw).ok_or_else(|| not_utf8(key))?;
            let list = unbracketed(&value);
            names.extend(list.split(',').map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()));
        }
        Ok(names)
    }

    /// Whether a parameter is there, even without a value.
    pub fn has(&self, key: &str) -> bool {
        self.raw(key).next().is_some()
    }

    /// A list of entries with attributes (OGC 05-007r7 §10.2.2.3): entries are cut at `;`, attributes at `@`, both
    /// before the decoding of what stands between. `known` are the attributes that may occur, in lower case.
    pub fn entries(&self, shown: &str, known: &[&str]) -> Result<Vec<Entry>, Fault> {
        let mut entries = Vec::new();
        for raw in self.raw(&shown.to_ascii_lowercase()) {
            // A client that left the structure readable has encoded the parts once; one that has not, all of it.
            let (once, level) = if raw.contains(['=', ';', '@']) {
                (Cow::Borrowed(raw), Level::Raw)
            } else {
                (decode(raw).ok_or_else(|| not_utf8(shown))?, Level::Once)
            };
            for part in unbracketed(&once).split(';').filter(|part| !part.trim().is_empty()) {
                entries.push(entry(shown, part, known, level)?);
            }
        }
        Ok(entries)
    }

    fn raw<'q>(&'q self, key: &str) -> impl Iterator<Item = &'q str> {
        self.pairs.iter().filter(move |(known, _)| known == key).map(|(_, value)| value.as_str())
    }
}

/// How often a text has been decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Level {
    Raw,
    Once,
}

fn entry(shown: &str, part: &str, known: &[&str], level: Level) -> Result<Entry, Fault> {
    let mut pieces = part.split('@');
    let first = pieces.next().unwrap_or_default();
    let (id, value) = match first.split_once('=') {
        Some((id, value)) => (id, Some(value.to_owned())),
        None => (first, None),
    };
    let mut entry =
        Entry { id: unescape(id, level, shown)?.trim().to_owned(), value, attributes: Vec::new() };
    if entry.id.is_empty() {
        return Err(Fault::invalid(shown, format!("an entry has no identifier: `{}`", clip(part, 80))));
    }
    for piece in pieces {
        match piece.split_once('=') {
            Some((name, text)) => {
                let name = unescape(name, level, shown)?.trim().to_lowercase();
                let bare = name.rsplit(':').next().unwrap_or_default().to_owned();
                if !known.contains(&bare.as_str()) {
                    let why = format!(
                        "`{}` is no attribute; known are: {} (write `@` inside of a value as %40)",
                        clip(&name, 80),
                        known.join(", ")
                    );
                    return Err(Fault::invalid(shown, why));
                }
                entry.attributes.push((bare, unescape(text, level, shown)?));
            }
            // An `@` without `=` behind it is no attribute, but part of the value, as in an address.
            None => match &mut entry.value {
                Some(value) => {
                    value.push('@');
                    value.push_str(piece);
                }
                None => {
                    return Err(Fault::invalid(shown, format!("`@{}` has no value", clip(piece, 80))));
                }
            },
        }
    }
    if let Some(value) = entry.value.take() {
        entry.value = Some(unescape(&value, level, shown)?);
    }
    Ok(entry)
}

/// Decodes a part as often as it was encoded: a raw part once, and any part once more if it still is nothing but what
/// an encoder would write.
fn unescape(text: &str, level: Level, shown: &str) -> Result<String, Fault> {
    let once = match level {
        Level::Raw => decode(text).ok_or_else(|| not_utf8(shown))?,
        Level::Once => Cow::Borrowed(text),
    };
    if !is_encoded(&once) {
        return Ok(once.into_owned());
    }
    // The plus sign stays: in the inner encoding a blank is %20.
    percent_decode_str(&once).decode_utf8().map(Cow::into_owned).map_err(|_| not_utf8(shown))
}

/// Whether a text consists of unreserved characters and at least one valid escape only (RFC 3986 §2.3).
fn is_encoded(text: &str) -> bool {
    let bytes = text.as_bytes();
    let mut escapes = 0;
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let unreserved = byte.is_ascii_alphanumeric() || b"-_.~!*'()+".contains(&byte);
        let escape = byte == b'%'
            && bytes.get(at + 1).is_some_and(u8::is_ascii_hexdigit)
            && bytes.get(at + 2).is_some_and(u8::is_ascii_hexdigit);
        match (escape, unreserved) {
            (true, _) => {
                escapes += 1;
                at += 3;
            }
            (false, true) => at += 1,
            (false, false) => return false,
        }
    }
    escapes > 0
}

/// `true`, `false`, `1`, `0`, in any case.
pub fn boolean(name: &str, text: &str) -> Result<bool, Fault> {
    match text.trim().to_ascii_lowercase().as_str() {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err(Fault::invalid(name, format!("`{name}` is `{}`, it must be true or false", clip(text, 80)))),
    }
}

fn decode(text: &str) -> Option<Cow<'_, str>> {
    if text.contains('+') {
        let spaced = text.replace('+', " ");
        return percent_decode_str(&spaced).decode_utf8().ok().map(|text| Cow::Owned(text.into_owned()));
    }
    percent_decode_str(text).decode_utf8().ok()
}

fn unbracketed(text: &str) -> &str {
    let text = text.trim();
    text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text)
}

fn not_utf8(what: &str) -> Fault {
    Fault::invalid(what, format!("`{}` is not UTF-8 after decoding", clip(what, 80)))
}

#[cfg(test)]
mod tests;
