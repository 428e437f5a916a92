//! Fields and percent-encoding: how a body is cut and joined so that both old readers, of which one splits at every `=` and
//! the other at every `&`, see what was meant.

use std::fmt::Write;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode, percent_encode};

use super::{LegacyError, MAX_BODY, MAX_FIELDS};

/// What values keep as it is: letters, digits and these, as the Python agent writes them.
const VALUE: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'/');
/// What GeoServer keeps as it is in a pickle.
const PICKLE: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'$').remove(b'!');

/// A value as both old ends read it: percent-encoded UTF-8 with capital digits, a blank as `%20` and never `+`, and never
/// empty (a blank instead), because one reader drops a whole message for an empty value.
pub fn encode_value(text: &str) -> String {
    if text.is_empty() { "%20".to_owned() } else { percent_encode(text.as_bytes(), VALUE).to_string() }
}

/// Bytes of a pickle as GeoServer writes them.
pub(super) fn encode_pickle(bytes: &[u8]) -> String {
    percent_encode(bytes, PICKLE).to_string()
}

/// The bytes of a percent-encoded value, `None` if a `%` begins no byte. `+` stays `+`.
pub(super) fn decode_bytes(value: &str) -> Option<Vec<u8>> {
    let mut rest = value.as_bytes();
    while let Some(at) = rest.iter().position(|b| *b == b'%') {
        let digits = rest.get(at + 1..at + 3)?;
        if !digits.iter().all(u8::is_ascii_hexdigit) {
            return None;
        }
        rest = &rest[at + 3..];
    }
    Some(percent_decode(value.as_bytes()).collect())
}

/// A percent-encoded text, or the value as it is where it is none (the Python agent's log lines).
pub fn decode_value(value: &str) -> String {
    decode_bytes(value).and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_else(|| value.to_owned())
}

/// A body cut into its topic and what follows, undecoded.
#[derive(Debug)]
pub(super) struct Body<'a> {
    pub(super) topic: &'a str,
    /// Everything after the topic's `&`.
    pub(super) rest: &'a str,
}

impl<'a> Body<'a> {
    /// The first field is the topic; no later one can override it.
    pub(super) fn read(body: &'a str) -> Result<Self, LegacyError> {
        if body.len() > MAX_BODY {
            return Err(LegacyError::TooLarge(body.len()));
        }
        let after = body.trim_start().strip_prefix("topic=").ok_or(LegacyError::NoTopic)?;
        let (topic, rest) = after.split_once('&').unwrap_or((after, ""));
        Ok(Self { topic: topic.trim_end(), rest })
    }

    /// The fields after the topic in their order; a field keeps everything after its first `=`, one without `=` is not
    /// there.
    pub(super) fn fields(&self) -> Result<Vec<(&'a str, &'a str)>, LegacyError> {
        let mut fields = Vec::new();
        for part in self.rest.split('&') {
            if let Some(field) = part.split_once('=') {
                if fields.len() >= MAX_FIELDS {
                    return Err(LegacyError::TooManyFields);
                }
                fields.push(field);
            }
        }
        Ok(fields)
    }

    /// The first field of this name that is not empty.
    pub(super) fn need(
        fields: &[(&'a str, &'a str)],
        topic: &'static str,
        field: &'static str,
    ) -> Result<&'a str, LegacyError> {
        let found = fields.iter().find(|(name, value)| *name == field && !value.is_empty());
        found.map(|(_, value)| *value).ok_or(LegacyError::Missing { topic, field })
    }
}

/// Appends `&key=value` with the value as it is.
pub(super) fn push_raw(body: &mut String, key: &str, value: &str) {
    // Writing to a string cannot fail.
    let _ = write!(body, "&{key}={value}");
}

/// Appends `&key=value` with the value encoded.
pub(super) fn push(body: &mut String, key: &str, value: &str) {
    push_raw(body, key, &encode_value(value));
}
