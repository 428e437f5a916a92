//! XML in and out: a namespace-aware cursor over quick-xml that bounds depth, attributes and elements and refuses document
//! types, and a small writer. Knows no vocabulary of any standard.

use std::fmt;

use quick_xml::events::{BytesStart, Event};
use quick_xml::name::{PrefixDeclaration, ResolveResult};
use quick_xml::{NsReader, XmlVersion};
use thiserror::Error;

pub use super::characters::Characters;
pub use super::render::Writer;

/// Deepest nesting that is read.
pub const MAX_DEPTH: usize = 256;
/// Most attributes of one element.
pub const MAX_ATTRIBUTES: usize = 64;
/// Most elements that a decoder looks at (content that is captured as a whole does not count).
pub const MAX_ELEMENTS: usize = 200_000;
/// Most elements of a document altogether.
pub const MAX_ALL_ELEMENTS: usize = 2_000_000;
/// Most bytes of inherited namespace declarations that captured elements get.
const MAX_INHERITED: usize = 1 << 20;

/// Why bytes are no XML that we take.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum XmlError {
    /// The bytes are not in UTF-8.
    #[error("the document is not in UTF-8 (first wrong byte at {0}); send it in UTF-8")]
    NotUtf8(usize),
    /// The declaration or a byte order mark names another encoding.
    #[error("the document is in the encoding `{0}`; send it in UTF-8")]
    Encoding(String),
    /// A document type declaration.
    #[error("the document has a document type declaration (DOCTYPE); leave it out, it is refused for safety")]
    Doctype,
    /// A reference to an entity that nobody declared.
    #[error("the entity `&{0};` is unknown; only the five predefined ones and character references are read")]
    Entity(String),
    /// A character that XML 1.0 forbids.
    #[error("the character U+{0:04X} is not allowed in XML")]
    Character(u32),
    /// Nesting too deep.
    #[error("elements are nested deeper than {MAX_DEPTH} levels")]
    Depth,
    /// Too many attributes.
    #[error("the element `{0}` has more than {MAX_ATTRIBUTES} attributes")]
    Attributes(String),
    /// Too many elements.
    #[error("the document has more than {MAX_ELEMENTS} elements outside of its data")]
    Elements,
    /// Too many elements, data included.
    #[error(
        "the document has more than {MAX_ALL_ELEMENTS} elements; give such data by reference, or as CDATA"
    )]
    AllElements,
    /// Captured elements inherit too much.
    #[error(
        "the data would need more than {MAX_INHERITED} bytes of namespace declarations that it inherits; \
         declare namespaces where they are used"
    )]
    Inherited,
    /// It ends before its root element does.
    #[error("the document is cut short: the element `{0}` is not closed")]
    Truncated(String),
    /// There is nothing, or no element.
    #[error("the document has no root element")]
    Empty,
    /// Something follows the root element.
    #[error("there is text or a second element after the root element")]
    Trailing,
    /// The syntax is wrong.
    #[error("the document is not well-formed at byte {at}: {why}")]
    Syntax {
        /// Where, counted from 0.
        at: u64,
        /// What the parser says.
        why: String,
    },
}

/// An attribute with its prefix resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attribute {
    /// Namespace; empty = none.
    pub namespace: String,
    /// Local name.
    pub name: String,
    /// Value, with references replaced.
    pub value: String,
}

/// The start of an element.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Element {
    /// Namespace; empty = none.
    pub namespace: String,
    /// Local name.
    pub name: String,
    /// Attributes without the namespace declarations, in document order.
    pub attributes: Vec<Attribute>,
}

impl Element {
    /// Value of the first attribute with this local name, whatever its namespace: clients in use put prefixes where
    /// none belong, and leave them out where one does.
    pub fn attribute(&self, name: &str) -> Option<&str> {
        let plain = self.attributes.iter().find(|a| a.name == name && a.namespace.is_empty());
        plain.or_else(|| self.attributes.iter().find(|a| a.name == name)).map(|a| a.value.as_str())
    }

    /// The same without blanks around it; an empty value counts as absent.
    pub fn trimmed(&self, name: &str) -> Option<&str> {
        self.attribute(name).map(str::trim).filter(|value| !value.is_empty())
    }
}

/// What stands inside of an element.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content<'a> {
    /// Characters only.
    Text(Characters<'a>),
    /// Elements, as text of a well-formed document of its own: each outermost element carries the namespace
    /// declarations that it inherited.
    Markup(String),
}

impl Content<'_> {
    /// The whole as one text.
    pub fn into_text(self) -> String {
        match self {
            Self::Text(characters) => characters.into_text(),
            Self::Markup(text) => text,
        }
    }
}

/// Reads a document from front to back. Each call of [`Cursor::child`] must be followed by consuming that child: with
/// [`Cursor::text`], [`Cursor::content`], [`Cursor::skip`], or by calling `child` until it answers `None`.
pub struct Cursor<'a> {
    source: &'a str,
    reader: NsReader<&'a [u8]>,
    depth: usize,
    elements: usize,
    all_elements: usize,
    names: Vec<String>,
    strict: bool,
}

impl fmt::Debug for Cursor<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cursor").field("depth", &self.depth).finish_non_exhaustive()
    }
}

impl<'a> Cursor<'a> {
    /// Checks the encoding and gets ready.
    pub fn new(bytes: &'a [u8]) -> Result<Self, XmlError> {
        let bytes = match bytes {
            [0xEF, 0xBB, 0xBF, rest @ ..] => rest,
            [0xFE, 0xFF, ..] | [0xFF, 0xFE, ..] | [0, b'<', ..] | [b'<', 0, ..] => {
                return Err(XmlError::Encoding("UTF-16".to_owned()));
            }
            bytes => bytes,
        };
        let source = std::str::from_utf8(bytes).map_err(|error| XmlError::NotUtf8(error.valid_up_to()))?;
        if let Some(wrong) = bytes.iter().find(|&&b| b < 0x20 && !matches!(b, b'\t' | b'\n' | b'\r')) {
            return Err(XmlError::Character(u32::from(*wrong)));
        }
        let mut reader = NsReader::from_reader(source.as_bytes());
        reader.config_mut().expand_empty_elements = true;
        Ok(Self { source, reader, depth: 0, elements: 0, all_elements: 0, names: Vec::new(), strict: false })
    }

    /// The root element.
    pub fn root(&mut self) -> Result<Element, XmlError> {
        loop {
            match self.event()? {
                Event::Start(start) => return self.enter(&start),
                Event::Text(text) if text.chars().all(char::is_whitespace) => {}
                Event::Decl(declaration) => {
                    if let Some(Ok(encoding)) = declaration.encoding()
                        && !encoding.eq_ignore_ascii_case("utf-8")
                        && !encoding.eq_ignore_ascii_case("us-ascii")
                    {
                        return Err(XmlError::Encoding(super::clip(&encoding, 40)));
                    }
                }
                Event::Comment(_) | Event::PI(_) => {}
                Event::Eof => return Err(XmlError::Empty),
                _ => return Err(self.syntax("there is text before the root element")),
            }
        }
    }

    /// The next child of the element that is open, or `None` when that one ends. Characters between are ignored.
    pub fn child(&mut self) -> Result<Option<Element>, XmlError> {
        loop {
            match self.event()? {
                Event::Start(start) => return self.enter(&start).map(Some),
                Event::End(_) => {
                    self.leave();
                    return Ok(None);
                }
                // Characters do not count here, but a reference to nothing makes the document wrong (XML 1.0 §4.1).
                Event::GeneralRef(reference) => {
                    referenced(&reference)?;
                }
                Event::Eof => return Err(self.truncated()),
                _ => {}
            }
        }
    }

    /// Passes over the rest of the element that is open.
    pub fn skip(&mut self) -> Result<(), XmlError> {
        self.scan(false).map(|_| ())
    }

    /// The characters of the element that is open, without those of its children.
    pub fn text(&mut self) -> Result<String, XmlError> {
        let begin = self.position();
        let scan = self.scan(false)?;
        Ok(Characters::of_element(&self.source[begin..scan.end], false).into_text())
    }

    /// Everything inside of the element that is open. Where character data stands in a CDATA section, blanks around
    /// that section are layout and do not count.
    pub fn content(&mut self) -> Result<Content<'a>, XmlError> {
        let begin = self.position();
        let scan = self.scan(true)?;
        if scan.children.is_empty() {
            let only_sections = scan.cdata && scan.only_blanks_outside;
            return Ok(Content::Text(Characters::of_element(&self.source[begin..scan.end], only_sections)));
        }
        let inner = &self.source[begin..scan.end];
        // Blanks around the elements are layout.
        let end = begin + inner.trim_end().len();
        let begin = begin + inner.len() - inner.trim_start().len();
        let mut markup = String::with_capacity(end - begin + scan.inherited);
        let mut done = begin;
        for child in &scan.children {
            markup.push_str(&self.source[done..child.name_end]);
            markup.push_str(&child.declarations);
            done = child.name_end;
        }
        markup.push_str(&self.source[done..end]);
        Ok(Content::Markup(markup))
    }

    /// Makes sure that nothing follows the root element.
    pub fn finish(&mut self) -> Result<(), XmlError> {
        while self.depth > 0 {
            self.skip()?;
        }
        loop {
            match self.event()? {
                Event::Eof => return Ok(()),
                Event::Comment(_) | Event::PI(_) => {}
                Event::Text(text) if text.chars().all(char::is_whitespace) => {}
                _ => return Err(XmlError::Trailing),
            }
        }
    }

    /// Passes over the rest of the element that is open and remembers, if it is to be captured, what its content is.
    fn scan(&mut self, capture: bool) -> Result<Scan, XmlError> {
        let base = self.depth;
        let mut scan =
            Scan { children: Vec::new(), inherited: 0, cdata: false, only_blanks_outside: true, end: 0 };
        loop {
            let before = self.position();
            let event = self.event()?;
            let outermost = self.depth == base;
            match event {
                Event::Start(start) => {
                    if outermost && capture {
                        let child = self.outermost_child(before, &start)?;
                        scan.inherited += child.declarations.len();
                        if scan.inherited > MAX_INHERITED {
                            return Err(XmlError::Inherited);
                        }
                        if scan.children.is_empty() || !child.declarations.is_empty() {
                            scan.children.push(child);
                        }
                    }
                    self.enter_unseen(&start)?;
                }
                Event::End(_) => {
                    self.leave();
                    if self.depth < base {
                        scan.end = before;
                        return Ok(scan);
                    }
                }
                Event::Text(text) if outermost => {
                    scan.only_blanks_outside &= text.chars().all(char::is_whitespace);
                }
                Event::CData(_) if outermost => scan.cdata = true,
                Event::GeneralRef(reference) => {
                    referenced(&reference)?;
                    scan.only_blanks_outside &= !outermost;
                }
                Event::Eof => return Err(self.truncated()),
                Event::Text(_)
                | Event::CData(_)
                | Event::Comment(_)
                | Event::PI(_)
                | Event::Decl(_)
                | Event::DocType(_)
                | Event::Empty(_) => {}
            }
        }
    }

    /// Where an outermost child of captured content begins, and which declarations it inherits.
    fn outermost_child(&self, before: usize, start: &BytesStart<'a>) -> Result<Child, XmlError> {
        let mut own: Vec<String> = Vec::new();
        for attribute in start.attributes().with_checks(false) {
            let attribute = attribute.map_err(|error| self.syntax(&error.to_string()))?;
            match attribute.key.as_namespace_binding() {
                Some(PrefixDeclaration::Default) => own.push(String::new()),
                Some(PrefixDeclaration::Named(prefix)) => own.push(prefix.to_owned()),
                None => {}
            }
        }
        let mut inherited: Vec<(String, String)> = Vec::new();
        for (prefix, namespace) in self.reader.resolver().bindings() {
            let prefix = match prefix {
                PrefixDeclaration::Default => String::new(),
                PrefixDeclaration::Named(name) => name.to_owned(),
            };
            inherited.retain(|(known, _)| *known != prefix);
            if !own.contains(&prefix) {
                inherited.push((prefix, namespace.into_inner().to_owned()));
            }
        }
        let mut declarations = String::new();
        for (prefix, namespace) in inherited {
            let name = if prefix.is_empty() { "xmlns".to_owned() } else { format!("xmlns:{prefix}") };
            // The value is as it stood in the source, references included; only its quotes may have been others.
            declarations.push_str(&format!(" {name}=\"{}\"", namespace.replace('"', "&quot;")));
        }
        let name_end = before + 1 + start.name().into_inner().len();
        Ok(Child { name_end, declarations })
    }

    fn enter(&mut self, start: &BytesStart<'a>) -> Result<Element, XmlError> {
        self.elements += 1;
        if self.elements > MAX_ELEMENTS {
            return Err(XmlError::Elements);
        }
        let resolver = self.reader.resolver();
        let (namespace, local) = resolver.resolve_element(start.name());
        let namespace = bound(&namespace);
        let name = local.into_inner().to_owned();
        if start.attributes().with_checks(false).nth(MAX_ATTRIBUTES).is_some() {
            return Err(XmlError::Attributes(super::clip(&name, 80)));
        }
        let mut attributes = Vec::new();
        for attribute in start.attributes() {
            let attribute = attribute.map_err(|error| self.syntax(&error.to_string()))?;
            if attribute.key.as_namespace_binding().is_some() {
                continue;
            }
            let (space, local) = resolver.resolve_attribute(attribute.key);
            let value = attribute
                .normalized_value(XmlVersion::Implicit1_0)
                .map_err(|error| self.syntax(&error.to_string()))?;
            legal(&value)?;
            attributes.push(Attribute {
                namespace: bound(&space),
                name: local.into_inner().to_owned(),
                value: value.into_owned(),
            });
        }
        if self.strict {
            self.declared(start)?;
        }
        self.names.push(name.clone());
        self.deeper()?;
        Ok(Element { namespace, name, attributes })
    }

    fn enter_unseen(&mut self, start: &BytesStart<'a>) -> Result<(), XmlError> {
        self.all_elements += 1;
        if self.all_elements > MAX_ALL_ELEMENTS {
            return Err(XmlError::AllElements);
        }
        if start.attributes().with_checks(false).nth(MAX_ATTRIBUTES).is_some() {
            return Err(XmlError::Attributes(super::clip(start.name().into_inner(), 80)));
        }
        for attribute in start.attributes() {
            // Captured content is handed on as a document: what we would not take at the top is not passed on either.
            let attribute = attribute.map_err(|error| self.syntax(&error.to_string()))?;
            attribute
                .normalized_value(XmlVersion::Implicit1_0)
                .map_err(|error| self.syntax(&error.to_string()))?;
        }
        if self.strict {
            self.declared(start)?;
        }
        self.names.push(String::new());
        self.deeper()
    }

    /// Whether every prefix of the element is declared.
    fn declared(&self, start: &BytesStart<'a>) -> Result<(), XmlError> {
        let resolver = self.reader.resolver();
        let unknown = |space: ResolveResult<'_>| matches!(space, ResolveResult::Unknown(_));
        let wrong = unknown(resolver.resolve_element(start.name()).0)
            || start
                .attributes()
                .flatten()
                .filter(|a| a.key.as_namespace_binding().is_none())
                .any(|a| unknown(resolver.resolve_attribute(a.key).0));
        if wrong { Err(self.syntax("a prefix is not declared")) } else { Ok(()) }
    }

    fn deeper(&mut self) -> Result<(), XmlError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH { Err(XmlError::Depth) } else { Ok(()) }
    }

    fn leave(&mut self) {
        self.names.pop();
        self.depth = self.depth.saturating_sub(1);
    }

    fn event(&mut self) -> Result<Event<'a>, XmlError> {
        match self.reader.read_event() {
            Ok(Event::DocType(_)) => Err(XmlError::Doctype),
            Ok(event) => Ok(event),
            Err(error) => {
                if self.reader.error_position() >= self.source.len() as u64 && self.depth > 0 {
                    return Err(self.truncated());
                }
                Err(self.syntax(&error.to_string()))
            }
        }
    }

    fn position(&self) -> usize {
        usize::try_from(self.reader.buffer_position()).unwrap_or(usize::MAX).min(self.source.len())
    }

    fn syntax(&self, why: &str) -> XmlError {
        XmlError::Syntax { at: self.reader.error_position(), why: super::clip(why, 200) }
    }

    fn truncated(&self) -> XmlError {
        let name = self.names.iter().rev().find(|name| !name.is_empty());
        XmlError::Truncated(super::clip(name.map_or("?", String::as_str), 80))
    }
}

struct Scan {
    /// Outermost elements to which declarations are to be added; the first one in any case.
    children: Vec<Child>,
    /// Length of all those declarations.
    inherited: usize,
    cdata: bool,
    only_blanks_outside: bool,
    end: usize,
}

struct Child {
    name_end: usize,
    declarations: String,
}

fn bound(namespace: &ResolveResult<'_>) -> String {
    match namespace {
        ResolveResult::Bound(namespace) => namespace.into_inner().to_owned(),
        // An undeclared prefix is an error of the client's library; the local name still says what is meant.
        ResolveResult::Unbound | ResolveResult::Unknown(_) => String::new(),
    }
}

pub(super) fn referenced(reference: &quick_xml::events::BytesRef<'_>) -> Result<char, XmlError> {
    if let Ok(Some(character)) = reference.resolve_char_ref() {
        return if is_xml_char(character) {
            Ok(character)
        } else {
            Err(XmlError::Character(u32::from(character)))
        };
    }
    match &**reference {
        "lt" => Ok('<'),
        "gt" => Ok('>'),
        "amp" => Ok('&'),
        "quot" => Ok('"'),
        "apos" => Ok('\''),
        other => Err(XmlError::Entity(super::clip(other, 40))),
    }
}

fn legal(text: &str) -> Result<(), XmlError> {
    match text.chars().find(|&c| !is_xml_char(c)) {
        Some(wrong) => Err(XmlError::Character(u32::from(wrong))),
        None => Ok(()),
    }
}

/// Whether XML 1.0 allows the character (§2.2 production 2).
pub fn is_xml_char(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\r' | ' '..='\u{FFFD}' | '\u{10000}'..)
}

/// Namespace and local name of the root element, without reading the rest.
pub fn root(bytes: &[u8]) -> Result<Element, XmlError> {
    Cursor::new(bytes)?.root()
}

/// The document without its XML declaration, if it is well-formed and can stand inside of another document.
pub fn embeddable(text: &str) -> Option<&str> {
    let mut cursor = Cursor::new(text.as_bytes()).ok()?;
    cursor.strict = true;
    cursor.root().ok()?;
    cursor.finish().ok()?;
    let text = text.trim_start_matches('\u{FEFF}').trim();
    let body = match text.strip_prefix("<?xml") {
        Some(rest) if rest.starts_with(char::is_whitespace) => &rest[rest.find("?>")? + 2..],
        _ => text,
    };
    Some(body.trim())
}

#[cfg(test)]
mod tests;
