//! Python pickles as *data*: protocols 0 to 2 as the Java and Python picklers write them, read with a closed list of opcodes
//! and bounded size, depth and number of items. Whatever names, builds or calls an object is refused, because in the
//! legacy dialect a pickle comes from whoever is in the room. The one exception is `datetime.datetime`, which is built
//! here from its numbers and never by name.
//!
//! The reader keeps values in a flat arena and refers to them by number, as the memo does; the tree is made in the end,
//! where every copy counts against the bounds, so that neither a cycle nor a million references cost anything.

mod reader;
#[cfg(test)]
mod tests;
mod writer;

use std::fmt;

use thiserror::Error;

pub use reader::read;
pub use writer::write;

/// Largest pickle in bytes that is read.
pub const MAX_BYTES: usize = 1 << 20;
/// Deepest nesting of lists, tuples and dicts.
pub const MAX_DEPTH: usize = 32;
/// Most values of one pickle, those that are referred to again counted again.
pub const MAX_ITEMS: usize = 20_000;
/// Most bytes of text of one pickle, those that are referred to again counted again.
pub const MAX_TEXT: usize = 4 << 20;

/// A value without behaviour.
#[derive(Debug, Clone, PartialEq)]
pub enum Plain {
    /// `None`.
    None,
    /// `True` or `False`.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A floating-point number.
    Float(f64),
    /// Text: `unicode` of Python 2.
    Text(String),
    /// Bytes: `str` of Python 2, which may be text in any encoding.
    Bytes(Vec<u8>),
    /// A list.
    List(Vec<Plain>),
    /// A tuple.
    Tuple(Vec<Plain>),
    /// A dict, in the order in which it was written; a repeated key is in it once, with its last value.
    Dict(Vec<(Plain, Plain)>),
    /// A date with a time of day, without time zone.
    DateTime(DateTime),
}

/// `datetime.datetime` without time zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DateTime {
    /// 1 to 9999.
    pub year: u16,
    /// 1 to 12.
    pub month: u8,
    /// 1 to 31; not compared with the month's length.
    pub day: u8,
    /// 0 to 23.
    pub hour: u8,
    /// 0 to 59.
    pub minute: u8,
    /// 0 to 59.
    pub second: u8,
    /// 0 to 999,999.
    pub microsecond: u32,
}

impl fmt::Display for DateTime {
    /// ISO 8601, with a fraction only where there is one.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { year, month, day, hour, minute, second, microsecond } = self;
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}")?;
        if *microsecond > 0 { write!(f, ".{microsecond:06}") } else { Ok(()) }
    }
}

impl Plain {
    /// The value of this key, if it is a dict that has it.
    pub fn get(&self, key: &str) -> Option<&Plain> {
        let Self::Dict(pairs) = self else { return None };
        pairs.iter().find(|(name, _)| name.as_text().is_some_and(|name| name == key)).map(|(_, value)| value)
    }

    /// A text, or bytes that are UTF-8.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Bytes(bytes) => std::str::from_utf8(bytes).ok(),
            _ => None,
        }
    }
}

/// Why a pickle is not read, or cannot be written. `at` is the position of the opcode in bytes.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PickleError {
    /// More bytes than [`MAX_BYTES`].
    #[error("the pickle has {0} bytes, at most {MAX_BYTES} are read")]
    TooLarge(usize),
    /// It ends in the middle.
    #[error("the pickle ends in the middle, at byte {at}")]
    Truncated {
        /// Where.
        at: usize,
    },
    /// Bytes after the end.
    #[error("the pickle goes on after its end at byte {at}")]
    Trailing {
        /// Where it ended.
        at: usize,
    },
    /// A protocol newer than 2.
    #[error("pickle protocol {0} is not read, only 0 to 2")]
    Protocol(u8),
    /// An opcode that is not on the list of plain data.
    #[error("pickle opcode {opcode:#04x} ({name}) at byte {at} is not plain data")]
    Opcode {
        /// The byte.
        opcode: u8,
        /// Its name in Python's documentation, or `unknown`.
        name: &'static str,
        /// Where.
        at: usize,
    },
    /// A class or function that is not a date.
    #[error("the pickle names `{name}` at byte {at}: only plain data is read")]
    Global {
        /// Module and name, shortened.
        name: String,
        /// Where.
        at: usize,
    },
    /// Deeper than [`MAX_DEPTH`].
    #[error("the pickle is nested deeper than {MAX_DEPTH}")]
    TooDeep,
    /// More values than [`MAX_ITEMS`], or more text than [`MAX_TEXT`].
    #[error(
        "the pickle has more than {MAX_ITEMS} values or {MAX_TEXT} bytes of text, repeated ones counted again"
    )]
    TooMany,
    /// A value contains itself.
    #[error("the pickle contains itself")]
    Cyclic,
    /// The opcodes do not fit together, or an argument is not what its opcode needs.
    #[error("the pickle is malformed at byte {at}: {what}")]
    Malformed {
        /// What is wrong.
        what: &'static str,
        /// Where.
        at: usize,
    },
}
