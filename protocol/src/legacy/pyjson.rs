//! JSON as the Python agent writes it: a blank after `,` and `:`, and nothing but ASCII.

use std::io;

use serde_json::Value;
use serde_json::ser::Formatter;

struct Python;

impl Formatter for Python {
    fn begin_array_value<W: io::Write + ?Sized>(&mut self, to: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { to.write_all(b", ") }
    }

    fn begin_object_key<W: io::Write + ?Sized>(&mut self, to: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { to.write_all(b", ") }
    }

    fn begin_object_value<W: io::Write + ?Sized>(&mut self, to: &mut W) -> io::Result<()> {
        to.write_all(b": ")
    }

    fn write_string_fragment<W: io::Write + ?Sized>(&mut self, to: &mut W, text: &str) -> io::Result<()> {
        for c in text.chars() {
            match c {
                // Python escapes DEL not at all and everything above it; Rust's writer does the rest.
                '\0'..='\x7f' => to.write_all(&[c as u8])?,
                _ => {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        write!(to, "\\u{unit:04x}")?;
                    }
                }
            }
        }
        Ok(())
    }
}

/// The text of a JSON value.
pub(super) fn write(value: &Value) -> String {
    use serde::Serialize;
    let mut out = Vec::new();
    let mut writer = serde_json::Serializer::with_formatter(&mut out, Python);
    // Writing a `Value` to memory cannot fail: its keys are texts.
    let _ = value.serialize(&mut writer);
    String::from_utf8(out).unwrap_or_default()
}
