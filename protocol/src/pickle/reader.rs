//! The reader: one loop over a closed list of opcodes, then one walk from the arena to a tree.

use std::collections::HashMap;

use super::{DateTime, MAX_BYTES, MAX_DEPTH, MAX_ITEMS, MAX_TEXT, PickleError, Plain};

/// Number of a value in the arena.
type Id = usize;

/// A value in the arena; containers refer to others by number.
enum Node {
    Leaf(Plain),
    List(Vec<Id>),
    Tuple(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    /// The name `datetime.datetime`, waiting for its numbers.
    DateTimeClass,
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    /// Where the current opcode is.
    opcode_at: usize,
    arena: Vec<Node>,
    stack: Vec<Id>,
    marks: Vec<usize>,
    memo: HashMap<u64, Id>,
    /// Entries of containers so far: an arena of few values can be referred to many times.
    entries: usize,
}

/// Reads one pickle, or says why it is refused. Time and memory are bounded by [`MAX_BYTES`], [`MAX_ITEMS`] and
/// [`MAX_TEXT`], whatever the bytes are.
pub fn read(bytes: &[u8]) -> Result<Plain, PickleError> {
    if bytes.len() > MAX_BYTES {
        return Err(PickleError::TooLarge(bytes.len()));
    }
    let mut reader = Reader {
        bytes,
        at: 0,
        opcode_at: 0,
        arena: Vec::new(),
        stack: Vec::new(),
        marks: Vec::new(),
        memo: HashMap::new(),
        entries: 0,
    };
    let root = reader.run()?;
    let mut tree = Tree {
        arena: &reader.arena,
        on_path: vec![false; reader.arena.len()],
        items: 0,
        text: 0,
        at: reader.opcode_at,
    };
    tree.build(root, 0)
}

impl<'a> Reader<'a> {
    fn run(&mut self) -> Result<Id, PickleError> {
        loop {
            self.opcode_at = self.at;
            let opcode = self.take(1)?[0];
            match opcode {
                b'.' => return self.stop(),
                0x80 => {
                    let version = self.take(1)?[0];
                    if version > 2 {
                        return Err(PickleError::Protocol(version));
                    }
                }
                b'(' => {
                    if self.marks.len() >= MAX_ITEMS {
                        return Err(PickleError::TooMany);
                    }
                    self.marks.push(self.stack.len());
                }
                b'N' => self.leaf(Plain::None)?,
                0x88 => self.leaf(Plain::Bool(true))?,
                0x89 => self.leaf(Plain::Bool(false))?,
                b'I' => self.int_line()?,
                b'L' => self.long_line()?,
                b'F' => self.float_line()?,
                b'S' => self.string_line()?,
                b'V' => self.unicode_line()?,
                b'K' => {
                    let value = self.take(1)?[0];
                    self.leaf(Plain::Int(value.into()))?;
                }
                b'M' => {
                    let value = u16::from_le_bytes(self.array()?);
                    self.leaf(Plain::Int(value.into()))?;
                }
                b'J' => {
                    let value = i32::from_le_bytes(self.array()?);
                    self.leaf(Plain::Int(value.into()))?;
                }
                0x8a => {
                    let len = usize::from(self.take(1)?[0]);
                    self.long_bytes(len)?;
                }
                0x8b => {
                    let len = self.length()?;
                    self.long_bytes(len)?;
                }
                b'G' => {
                    let value = f64::from_be_bytes(self.array()?);
                    self.leaf(Plain::Float(value))?;
                }
                b'U' => {
                    let len = usize::from(self.take(1)?[0]);
                    let bytes = self.take(len)?.to_vec();
                    self.leaf(Plain::Bytes(bytes))?;
                }
                b'T' => {
                    let len = self.length()?;
                    let bytes = self.take(len)?.to_vec();
                    self.leaf(Plain::Bytes(bytes))?;
                }
                b'X' => {
                    let len = self.length()?;
                    let bytes = self.take(len)?;
                    let text = std::str::from_utf8(bytes).map_err(|_| self.malformed("text is not UTF-8"))?;
                    self.leaf(Plain::Text(text.to_owned()))?;
                }
                b']' => self.push(Node::List(Vec::new()))?,
                b'}' => self.push(Node::Dict(Vec::new()))?,
                b')' => self.push(Node::Tuple(Vec::new()))?,
                b'l' => {
                    let items = self.take_to_mark()?;
                    self.push(Node::List(items))?;
                }
                b't' => {
                    let items = self.take_to_mark()?;
                    self.push(Node::Tuple(items))?;
                }
                b'd' => {
                    let items = self.take_to_mark()?;
                    let pairs = self.pairs(&items)?;
                    self.push(Node::Dict(pairs))?;
                }
                0x85..=0x87 => {
                    let len = usize::from(opcode - 0x84);
                    let items = self.popped(len)?;
                    self.push(Node::Tuple(items))?;
                }
                b'a' => {
                    let items = self.popped(1)?;
                    self.append(items)?;
                }
                b'e' => {
                    let items = self.take_to_mark()?;
                    self.append(items)?;
                }
                b's' => {
                    let items = self.popped(2)?;
                    self.set(&items)?;
                }
                b'u' => {
                    let items = self.take_to_mark()?;
                    self.set(&items)?;
                }
                b'p' => {
                    let key = self.number_line()?;
                    self.put(key)?;
                }
                b'q' => {
                    let key = self.take(1)?[0];
                    self.put(key.into())?;
                }
                b'r' => {
                    let key = u32::from_le_bytes(self.array()?);
                    self.put(key.into())?;
                }
                b'g' => {
                    let key = self.number_line()?;
                    self.get(key)?;
                }
                b'h' => {
                    let key = self.take(1)?[0];
                    self.get(key.into())?;
                }
                b'j' => {
                    let key = u32::from_le_bytes(self.array()?);
                    self.get(key.into())?;
                }
                b'c' => self.global()?,
                b'R' => self.reduce()?,
                _ => {
                    return Err(PickleError::Opcode {
                        opcode,
                        name: opcode_name(opcode),
                        at: self.opcode_at,
                    });
                }
            }
        }
    }

    fn malformed(&self, what: &'static str) -> PickleError {
        PickleError::Malformed { what, at: self.opcode_at }
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], PickleError> {
        let end = self.at.checked_add(len).filter(|end| *end <= self.bytes.len());
        let end = end.ok_or(PickleError::Truncated { at: self.at })?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], PickleError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    /// A length of four bytes; negative ones (Python 2 writes it signed) are too long for any pickle.
    fn length(&mut self) -> Result<usize, PickleError> {
        let length = u32::from_le_bytes(self.array()?);
        usize::try_from(length).map_err(|_| self.malformed("length"))
    }

    /// An argument of protocol 0: up to the end of the line.
    fn line(&mut self) -> Result<&'a str, PickleError> {
        let rest = &self.bytes[self.at..];
        let end =
            rest.iter().position(|b| *b == b'\n').ok_or(PickleError::Truncated { at: self.bytes.len() })?;
        self.at += end + 1;
        std::str::from_utf8(&rest[..end]).map_err(|_| self.malformed("a line is not ASCII"))
    }

    fn push(&mut self, node: Node) -> Result<(), PickleError> {
        if self.arena.len() >= MAX_ITEMS {
            return Err(PickleError::TooMany);
        }
        if let Node::List(items) | Node::Tuple(items) = &node {
            self.count(items.len())?;
        }
        self.stack.push(self.arena.len());
        self.arena.push(node);
        Ok(())
    }

    fn count(&mut self, entries: usize) -> Result<(), PickleError> {
        self.entries = self.entries.saturating_add(entries);
        if self.entries > 2 * MAX_ITEMS { Err(PickleError::TooMany) } else { Ok(()) }
    }

    fn leaf(&mut self, value: Plain) -> Result<(), PickleError> {
        self.push(Node::Leaf(value))
    }

    /// How far down the stack the innermost mark allows to go.
    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    fn take_to_mark(&mut self) -> Result<Vec<Id>, PickleError> {
        let mark = self.marks.pop().ok_or_else(|| self.malformed("no mark"))?;
        Ok(self.stack.split_off(mark))
    }

    fn popped(&mut self, len: usize) -> Result<Vec<Id>, PickleError> {
        let start = self.stack.len().checked_sub(len).filter(|start| *start >= self.floor());
        let start = start.ok_or_else(|| self.malformed("too few values"))?;
        Ok(self.stack.split_off(start))
    }

    fn top(&self) -> Result<Id, PickleError> {
        if self.stack.len() <= self.floor() {
            return Err(self.malformed("no value"));
        }
        self.stack.last().copied().ok_or_else(|| self.malformed("no value"))
    }

    fn pairs(&mut self, items: &[Id]) -> Result<Vec<(Id, Id)>, PickleError> {
        if !items.len().is_multiple_of(2) {
            return Err(self.malformed("a key without value"));
        }
        self.count(items.len())?;
        Ok(items.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect())
    }

    fn append(&mut self, items: Vec<Id>) -> Result<(), PickleError> {
        self.count(items.len())?;
        let top = self.top()?;
        match &mut self.arena[top] {
            Node::List(list) => {
                list.extend(items);
                Ok(())
            }
            _ => Err(self.malformed("appends to what is no list")),
        }
    }

    fn set(&mut self, items: &[Id]) -> Result<(), PickleError> {
        let pairs = self.pairs(items)?;
        let top = self.top()?;
        match &mut self.arena[top] {
            Node::Dict(dict) => {
                dict.extend(pairs);
                Ok(())
            }
            _ => Err(self.malformed("sets an item of what is no dict")),
        }
    }

    fn put(&mut self, key: u64) -> Result<(), PickleError> {
        let top = self.top()?;
        if self.memo.len() >= MAX_ITEMS {
            return Err(PickleError::TooMany);
        }
        self.memo.insert(key, top);
        Ok(())
    }

    fn get(&mut self, key: u64) -> Result<(), PickleError> {
        let id =
            *self.memo.get(&key).ok_or_else(|| self.malformed("nothing is remembered under this number"))?;
        if self.stack.len() >= 2 * MAX_ITEMS {
            return Err(PickleError::TooMany);
        }
        self.stack.push(id);
        Ok(())
    }

    fn number_line(&mut self) -> Result<u64, PickleError> {
        self.line()?.trim().parse().map_err(|_| self.malformed("not a number"))
    }

    fn int_line(&mut self) -> Result<(), PickleError> {
        let value = match self.line()?.trim() {
            "00" => Plain::Bool(false),
            "01" => Plain::Bool(true),
            text => Plain::Int(text.parse().map_err(|_| self.malformed("not a whole number of 64 bits"))?),
        };
        self.leaf(value)
    }

    fn long_line(&mut self) -> Result<(), PickleError> {
        let text = self.line()?.trim().trim_end_matches(['L', 'l']);
        let value = text.parse().map_err(|_| self.malformed("not a whole number of 64 bits"))?;
        self.leaf(Plain::Int(value))
    }

    fn float_line(&mut self) -> Result<(), PickleError> {
        let value = self.line()?.trim().parse().map_err(|_| self.malformed("not a number"))?;
        self.leaf(Plain::Float(value))
    }

    /// Two's complement, little endian.
    fn long_bytes(&mut self, len: usize) -> Result<(), PickleError> {
        let bytes = self.take(len)?;
        if bytes.len() > 8 {
            return Err(self.malformed("a whole number of more than 64 bits"));
        }
        let fill = if bytes.last().is_some_and(|last| last & 0x80 != 0) { 0xff } else { 0 };
        let mut whole = [fill; 8];
        whole[..bytes.len()].copy_from_slice(bytes);
        self.leaf(Plain::Int(i64::from_le_bytes(whole)))
    }

    /// A quoted string with Python's escapes.
    fn string_line(&mut self) -> Result<(), PickleError> {
        let line = self.line()?.trim_end_matches('\r').as_bytes();
        let quoted = match line {
            [b'\'', inner @ .., b'\''] | [b'"', inner @ .., b'"'] => inner,
            _ => return Err(self.malformed("a string without quotes")),
        };
        let bytes = unescape(quoted).ok_or_else(|| self.malformed("an escape that Python does not write"))?;
        self.leaf(Plain::Bytes(bytes))
    }

    /// Python's `raw-unicode-escape`: Latin-1 with `\uXXXX` and `\UXXXXXXXX`.
    fn unicode_line(&mut self) -> Result<(), PickleError> {
        let rest = &self.bytes[self.at..];
        let end =
            rest.iter().position(|b| *b == b'\n').ok_or(PickleError::Truncated { at: self.bytes.len() })?;
        self.at += end + 1;
        let text =
            raw_unicode(&rest[..end]).ok_or_else(|| self.malformed("an escape that is no character"))?;
        self.leaf(Plain::Text(text))
    }

    fn global(&mut self) -> Result<(), PickleError> {
        let module = self.line()?;
        let name = self.line()?;
        if (module, name) != ("datetime", "datetime") {
            let name = format!("{module}.{name}").chars().take(80).collect();
            return Err(PickleError::Global { name, at: self.opcode_at });
        }
        self.push(Node::DateTimeClass)
    }

    /// `REDUCE` calls what lies below its arguments; here that can only be the date.
    fn reduce(&mut self) -> Result<(), PickleError> {
        let called = self.popped(2)?;
        let (Node::DateTimeClass, Node::Tuple(arguments)) = (&self.arena[called[0]], &self.arena[called[1]])
        else {
            return Err(PickleError::Opcode { opcode: b'R', name: "REDUCE", at: self.opcode_at });
        };
        let leaves: Vec<&Plain> = arguments
            .iter()
            .filter_map(|id| match &self.arena[*id] {
                Node::Leaf(value) => Some(value),
                _ => None,
            })
            .collect();
        let date = (leaves.len() == arguments.len()).then(|| date(&leaves)).flatten();
        let date = date.ok_or_else(|| self.malformed("a date with impossible numbers"))?;
        self.leaf(Plain::DateTime(date))
    }

    fn stop(&mut self) -> Result<Id, PickleError> {
        if self.at != self.bytes.len() {
            return Err(PickleError::Trailing { at: self.at });
        }
        match (&self.stack[..], &self.marks[..]) {
            ([only], []) => Ok(*only),
            _ => Err(self.malformed("not exactly one value at the end")),
        }
    }
}

/// Seven numbers as Java writes them (Python's constructor takes three and more), or the ten bytes of Python 2.
fn date(arguments: &[&Plain]) -> Option<DateTime> {
    let mut fields = [0i64; 7];
    match arguments {
        [Plain::Bytes(packed)] if packed.len() == 10 => {
            fields[0] = i64::from(packed[0]) * 256 + i64::from(packed[1]);
            for (field, byte) in fields[1..6].iter_mut().zip(&packed[2..7]) {
                *field = i64::from(*byte);
            }
            fields[6] = packed[7..].iter().fold(0, |sum, byte| sum * 256 + i64::from(*byte));
        }
        numbers if (3..=7).contains(&numbers.len()) => {
            for (field, number) in fields.iter_mut().zip(numbers) {
                let Plain::Int(number) = number else { return None };
                *field = *number;
            }
        }
        _ => return None,
    }
    let within = |at: usize, low: i64, high: i64| (low..=high).contains(&fields[at]).then_some(fields[at]);
    Some(DateTime {
        year: within(0, 1, 9999)?.try_into().ok()?,
        month: within(1, 1, 12)?.try_into().ok()?,
        day: within(2, 1, 31)?.try_into().ok()?,
        hour: within(3, 0, 23)?.try_into().ok()?,
        minute: within(4, 0, 59)?.try_into().ok()?,
        second: within(5, 0, 59)?.try_into().ok()?,
        microsecond: within(6, 0, 999_999)?.try_into().ok()?,
    })
}

/// The escapes of Python 2's `repr` of a string.
fn unescape(quoted: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(quoted.len());
    let mut rest = quoted.iter();
    while let Some(byte) = rest.next() {
        if *byte != b'\\' {
            out.push(*byte);
            continue;
        }
        out.push(match rest.next()? {
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'x' => {
                let digit = |byte: Option<&u8>| char::from(*byte?).to_digit(16);
                u8::try_from(digit(rest.next())? * 16 + digit(rest.next())?).ok()?
            }
            same @ (b'\\' | b'\'' | b'"') => *same,
            _ => return None,
        });
    }
    Some(out)
}

/// Surrogate pairs, which narrow builds of Python 2 write, are joined.
fn raw_unicode(bytes: &[u8]) -> Option<String> {
    let mut units: Vec<u16> = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let digits = match (bytes[at], bytes.get(at + 1)) {
            (b'\\', Some(b'u')) => 4,
            (b'\\', Some(b'U')) => 8,
            (byte, _) => {
                units.push(byte.into());
                at += 1;
                continue;
            }
        };
        let hex = std::str::from_utf8(bytes.get(at + 2..at + 2 + digits)?).ok()?;
        let code =
            hex.bytes().all(|b| b.is_ascii_hexdigit()).then(|| u32::from_str_radix(hex, 16).ok())??;
        match u16::try_from(code) {
            Ok(unit) => units.push(unit),
            Err(_) => units.extend_from_slice(char::from_u32(code)?.encode_utf16(&mut [0; 2])),
        }
        at += 2 + digits;
    }
    String::from_utf16(&units).ok()
}

/// From the arena to a tree. What is referred to twice is there twice and counts twice.
struct Tree<'a> {
    arena: &'a [Node],
    on_path: Vec<bool>,
    items: usize,
    text: usize,
    at: usize,
}

impl Tree<'_> {
    fn build(&mut self, id: Id, depth: usize) -> Result<Plain, PickleError> {
        self.items += 1;
        if self.items > MAX_ITEMS {
            return Err(PickleError::TooMany);
        }
        let arena = self.arena;
        if let Node::Leaf(value) = &arena[id] {
            self.text += match value {
                Plain::Text(text) => text.len(),
                Plain::Bytes(bytes) => bytes.len(),
                _ => 0,
            };
            return if self.text > MAX_TEXT { Err(PickleError::TooMany) } else { Ok(value.clone()) };
        }
        if self.on_path[id] {
            return Err(PickleError::Cyclic);
        }
        if depth >= MAX_DEPTH {
            return Err(PickleError::TooDeep);
        }
        self.on_path[id] = true;
        let built = match &arena[id] {
            Node::List(items) => Plain::List(self.all(items, depth)?),
            Node::Tuple(items) => Plain::Tuple(self.all(items, depth)?),
            Node::Dict(pairs) => self.dict(pairs, depth)?,
            Node::DateTimeClass | Node::Leaf(_) => {
                return Err(PickleError::Malformed { what: "a class is no value", at: self.at });
            }
        };
        self.on_path[id] = false;
        Ok(built)
    }

    fn all(&mut self, items: &[Id], depth: usize) -> Result<Vec<Plain>, PickleError> {
        items.iter().map(|item| self.build(*item, depth + 1)).collect()
    }

    /// Keys are texts or numbers, as in every message of the dialect; containers cannot be keys in Python either.
    fn dict(&mut self, pairs: &[(Id, Id)], depth: usize) -> Result<Plain, PickleError> {
        let mut dict: Vec<(Plain, Plain)> = Vec::with_capacity(pairs.len());
        let mut known: HashMap<String, usize> = HashMap::new();
        for (key, value) in pairs {
            let key = self.build(*key, depth + 1)?;
            let name = match &key {
                Plain::Text(_) | Plain::Bytes(_) => key.as_text().map(|text| format!("t{text}")),
                Plain::Int(number) => Some(format!("i{number}")),
                _ => None,
            };
            let name =
                name.ok_or(PickleError::Malformed { what: "a key is neither text nor number", at: self.at })?;
            let value = self.build(*value, depth + 1)?;
            match known.get(&name) {
                Some(at) => dict[*at].1 = value,
                None => {
                    known.insert(name, dict.len());
                    dict.push((key, value));
                }
            }
        }
        Ok(Plain::Dict(dict))
    }
}

/// Names of what is refused, for the log.
fn opcode_name(opcode: u8) -> &'static str {
    match opcode {
        b'i' => "INST",
        b'o' => "OBJ",
        b'b' => "BUILD",
        b'P' => "PERSID",
        b'Q' => "BINPERSID",
        0x81 => "NEWOBJ",
        0x82 => "EXT1",
        0x83 => "EXT2",
        0x84 => "EXT4",
        b'0' => "POP",
        b'1' => "POP_MARK",
        b'2' => "DUP",
        0x8c..=0x95 => "of protocol 4",
        b'B' | b'C' => "of protocol 3",
        _ => "unknown",
    }
}
