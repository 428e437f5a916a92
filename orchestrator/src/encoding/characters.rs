//! The characters inside of an XML element, left where they are in the request and read when they are needed: a value of
//! many megabytes is not copied on its way. Knows no element names.

use std::borrow::Cow;

use quick_xml::Reader;
use quick_xml::events::Event;

use super::xml::referenced;

/// Character data: a plain text, or the source of an element's content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Characters<'a>(Source<'a>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Source<'a> {
    Plain(Cow<'a, str>),
    /// What stands between the tags, and whether only its CDATA sections count.
    Element(&'a str, bool),
}

impl<'a> Characters<'a> {
    /// A text that is not XML.
    pub fn plain(text: impl Into<Cow<'a, str>>) -> Self {
        Self(Source::Plain(text.into()))
    }

    /// What stands between the tags of an element, which the caller has found to be well-formed. What belongs to
    /// elements within does not count.
    pub(super) fn of_element(inner: &'a str, only_sections: bool) -> Self {
        Self(Source::Element(inner, only_sections))
    }

    /// An upper bound of the length in bytes.
    pub fn max_len(&self) -> usize {
        match &self.0 {
            Source::Plain(text) => text.len(),
            Source::Element(inner, _) => inner.len(),
        }
    }

    /// The pieces in order, as they stand in the source: line ends are not touched, references are replaced.
    pub fn pieces(&self) -> Pieces<'_> {
        match &self.0 {
            Source::Plain(text) => Pieces { plain: Some(text), reader: None, only_sections: false, depth: 0 },
            Source::Element(inner, only_sections) => {
                // The reader would take them at the beginning for a byte order mark.
                let rest = inner.trim_start_matches('\u{FEFF}');
                let marks = &inner[..inner.len() - rest.len()];
                let mut reader = Reader::from_str(rest);
                // Whoever made this has read the whole document.
                reader.config_mut().check_end_names = false;
                let plain = (!marks.is_empty()).then_some(marks);
                Pieces { plain, reader: Some(reader), only_sections: *only_sections, depth: 0 }
            }
        }
    }

    /// The whole, with line ends as XML 1.0 §2.11 wants them.
    pub fn into_text(self) -> String {
        if let Source::Plain(text) = self.0 {
            return text.into_owned();
        }
        let mut text = String::new();
        for piece in self.pieces() {
            match piece {
                Piece::Characters(characters) if characters.contains('\r') => {
                    text.push_str(&characters.replace("\r\n", "\n").replace('\r', "\n"));
                }
                Piece::Characters(characters) => text.push_str(characters),
                Piece::Referenced(character) => text.push(character),
            }
        }
        text
    }
}

/// A piece of character data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece<'a> {
    /// Characters as they stand there.
    Characters(&'a str),
    /// A character that was written as a reference.
    Referenced(char),
}

/// Reads the pieces one after the other.
pub struct Pieces<'a> {
    plain: Option<&'a str>,
    reader: Option<Reader<&'a [u8]>>,
    only_sections: bool,
    depth: usize,
}

impl<'a> Iterator for Pieces<'a> {
    type Item = Piece<'a>;

    fn next(&mut self) -> Option<Piece<'a>> {
        if let Some(text) = self.plain.take() {
            return Some(Piece::Characters(text));
        }
        let reader = self.reader.as_mut()?;
        loop {
            let outermost = self.depth == 0;
            match reader.read_event().ok()? {
                Event::Start(_) => self.depth += 1,
                Event::End(_) => self.depth = self.depth.saturating_sub(1),
                Event::Text(text) if outermost && !self.only_sections => {
                    return Some(Piece::Characters(borrowed(text.into_inner())?));
                }
                Event::CData(text) if outermost => {
                    return Some(Piece::Characters(borrowed(text.into_inner())?));
                }
                Event::GeneralRef(reference) if outermost && !self.only_sections => {
                    return Some(Piece::Referenced(referenced(&reference).ok()?));
                }
                Event::Eof => return None,
                _ => {}
            }
        }
    }
}

/// The reader works on a text in memory, so that all it gives out is part of that text.
fn borrowed(text: Cow<'_, str>) -> Option<&str> {
    match text {
        Cow::Borrowed(text) => Some(text),
        Cow::Owned(_) => None,
    }
}
