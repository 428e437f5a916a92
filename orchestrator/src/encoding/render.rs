//! Writes XML: elements in order, everything escaped, indented where only elements stand. The caller is trusted with
//! names, with nothing else.

use std::fmt::Write as _;

/// Builds one document from front to back.
#[derive(Debug)]
pub struct Writer {
    out: String,
    open: Vec<Open>,
}

#[derive(Debug)]
struct Open {
    name: &'static str,
    has_elements: bool,
}

impl Default for Writer {
    fn default() -> Self {
        Self::new()
    }
}

impl Writer {
    /// Starts a document with its declaration.
    pub fn new() -> Self {
        Self { out: String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>"), open: Vec::new() }
    }

    /// Starts a piece that has no declaration.
    pub fn fragment() -> Self {
        Self { out: String::new(), open: Vec::new() }
    }

    /// Opens an element.
    pub fn open(&mut self, name: &'static str, attributes: &[(&str, &str)]) -> &mut Self {
        self.start(name, attributes);
        self.out.push('>');
        self.open.push(Open { name, has_elements: false });
        self
    }

    /// Closes the element that was opened last.
    pub fn close(&mut self) -> &mut Self {
        if let Some(element) = self.open.pop() {
            if element.has_elements {
                self.new_line();
            }
            let _ = write!(self.out, "</{}>", element.name);
        }
        self
    }

    /// An element that holds text, or nothing.
    pub fn leaf(&mut self, name: &'static str, attributes: &[(&str, &str)], text: &str) -> &mut Self {
        self.start(name, attributes);
        if text.is_empty() {
            self.out.push_str("/>");
        } else {
            self.out.push('>');
            escape_text(text, &mut self.out);
            let _ = write!(self.out, "</{name}>");
        }
        self
    }

    /// An element that holds a well-formed document; the caller vouches for that.
    pub fn leaf_markup(
        &mut self,
        name: &'static str,
        attributes: &[(&str, &str)],
        markup: &str,
    ) -> &mut Self {
        self.start(name, attributes);
        self.out.push('>');
        self.out.push_str(markup);
        let _ = write!(self.out, "</{name}>");
        self
    }

    /// An element that holds bytes in base64.
    pub fn leaf_base64(
        &mut self,
        name: &'static str,
        attributes: &[(&str, &str)],
        bytes: &[u8],
    ) -> &mut Self {
        use base64::Engine;
        self.start(name, attributes);
        self.out.push('>');
        base64::engine::general_purpose::STANDARD.encode_string(bytes, &mut self.out);
        let _ = write!(self.out, "</{name}>");
        self
    }

    /// The document; elements that are still open are closed.
    pub fn finish(mut self) -> String {
        while !self.open.is_empty() {
            self.close();
        }
        self.out.push('\n');
        self.out
    }

    fn start(&mut self, name: &str, attributes: &[(&str, &str)]) {
        if let Some(parent) = self.open.last_mut() {
            parent.has_elements = true;
        }
        if !self.out.is_empty() {
            self.new_line();
        }
        self.out.push('<');
        self.out.push_str(name);
        for (key, value) in attributes {
            let _ = write!(self.out, " {key}=\"");
            escape_attribute(value, &mut self.out);
            self.out.push('"');
        }
    }

    fn new_line(&mut self) {
        self.out.push('\n');
        for _ in 0..self.open.len() {
            self.out.push_str("  ");
        }
    }
}

fn escape_text(text: &str, out: &mut String) {
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '\r' => out.push_str("&#13;"),
            c if super::xml::is_xml_char(c) => out.push(c),
            // XML 1.0 §2.2: these cannot be written in any way.
            _ => out.push('\u{FFFD}'),
        }
    }
}

fn escape_attribute(text: &str, out: &mut String) {
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\t' => out.push_str("&#9;"),
            '\n' => out.push_str("&#10;"),
            '\r' => out.push_str("&#13;"),
            c if super::xml::is_xml_char(c) => out.push(c),
            _ => out.push('\u{FFFD}'),
        }
    }
}
