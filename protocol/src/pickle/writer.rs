//! The writer: protocol 2, byte for byte as the pickler of GeoServer's plugin writes it, so that the Python agent reads
//! exactly what it has always read.

use std::collections::HashMap;

use super::{DateTime, MAX_DEPTH, Plain};

/// Writes one value. Nesting deeper than [`MAX_DEPTH`] is cut off as `None`, because no reader would take it.
pub fn write(value: &Plain) -> Vec<u8> {
    let mut writer = Writer { out: vec![0x80, 2], texts: HashMap::new(), lists: Vec::new(), memo: 0 };
    writer.value(value, 0);
    writer.out.push(b'.');
    writer.out
}

struct Writer<'a> {
    out: Vec<u8>,
    /// What was written before is referred to: equal texts and equal lists are one.
    texts: HashMap<&'a str, u32>,
    lists: Vec<(&'a [Plain], u32)>,
    memo: u32,
}

impl<'a> Writer<'a> {
    fn value(&mut self, value: &'a Plain, depth: usize) {
        if depth > MAX_DEPTH {
            self.out.push(b'N');
            return;
        }
        match value {
            Plain::None => self.out.push(b'N'),
            Plain::Bool(true) => self.out.push(0x88),
            Plain::Bool(false) => self.out.push(0x89),
            Plain::Int(number) => self.int(*number),
            Plain::Float(number) => {
                self.out.push(b'G');
                self.out.extend_from_slice(&number.to_be_bytes());
            }
            Plain::Text(text) => match self.texts.get(text.as_str()) {
                Some(known) => self.get(*known),
                None => {
                    self.sized(b'X', text.as_bytes());
                    let key = self.put();
                    self.texts.insert(text, key);
                }
            },
            Plain::Bytes(bytes) => {
                self.sized(b'T', bytes);
                self.put();
            }
            Plain::List(items) => {
                if let Some((_, known)) = self.lists.iter().find(|(known, _)| known == items) {
                    let known = *known;
                    return self.get(known);
                }
                self.out.push(b']');
                let key = self.put();
                self.lists.push((items, key));
                self.out.push(b'(');
                for item in items {
                    self.value(item, depth + 1);
                }
                self.out.push(b'e');
            }
            Plain::Tuple(items) => {
                self.out.push(b'(');
                for item in items {
                    self.value(item, depth + 1);
                }
                self.out.push(b't');
                self.put();
            }
            Plain::Dict(pairs) => {
                self.out.push(b'}');
                self.put();
                self.out.push(b'(');
                for (key, value) in pairs {
                    self.value(key, depth + 1);
                    self.value(value, depth + 1);
                }
                self.out.push(b'u');
            }
            Plain::DateTime(date) => self.date(date),
        }
    }

    fn int(&mut self, number: i64) {
        if let Ok(small) = u8::try_from(number) {
            self.out.extend_from_slice(&[b'K', small]);
        } else if let Ok(small) = u16::try_from(number) {
            self.out.push(b'M');
            self.out.extend_from_slice(&small.to_le_bytes());
        } else if let Ok(small) = i32::try_from(number) {
            self.out.push(b'J');
            self.out.extend_from_slice(&small.to_le_bytes());
        } else {
            self.out.extend_from_slice(format!("I{number}\n").as_bytes());
        }
    }

    fn date(&mut self, date: &DateTime) {
        self.out.extend_from_slice(b"cdatetime\ndatetime\n(");
        self.int(date.year.into());
        for small in [date.month, date.day, date.hour, date.minute, date.second] {
            self.int(small.into());
        }
        self.int(date.microsecond.into());
        self.out.extend_from_slice(b"tR");
        self.put();
    }

    fn sized(&mut self, opcode: u8, bytes: &[u8]) {
        self.out.push(opcode);
        // Longer texts than four bytes can count are refused long before: a message has at most a few hundred kilobytes.
        let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        self.out.extend_from_slice(&len.to_le_bytes());
        self.out.extend_from_slice(bytes);
    }

    fn put(&mut self) -> u32 {
        let key = self.memo;
        self.memo += 1;
        self.numbered(b'q', b'r', key);
        key
    }

    fn get(&mut self, key: u32) {
        self.numbered(b'h', b'j', key);
    }

    fn numbered(&mut self, short: u8, long: u8, key: u32) {
        match u8::try_from(key) {
            Ok(small) => self.out.extend_from_slice(&[short, small]),
            Err(_) => {
                self.out.push(long);
                self.out.extend_from_slice(&key.to_le_bytes());
            }
        }
    }
}
