//! Whether a text is well-formed XML without a document type declaration. Builds no tree.

use quick_xml::Reader;
use quick_xml::events::Event;

/// Deepest nesting that is accepted.
const MAX_DEPTH: usize = 512;

/// Checks the text; the error says what is the matter and where.
pub(super) fn check(text: &str) -> Result<(), String> {
    let mut reader = Reader::from_str(text.trim_start_matches('\u{feff}'));
    let mut depth = 0usize;
    let mut roots = 0usize;
    loop {
        let event = reader.read_event().map_err(|error| format!("is not well-formed XML: {error}"))?;
        match event {
            Event::DocType(_) => return Err("has a DOCTYPE, which is not accepted".to_owned()),
            Event::Start(start) => {
                attributes(start.attributes())?;
                roots += usize::from(depth == 0);
                depth += 1;
                if depth > MAX_DEPTH {
                    return Err(format!("is nested more than {MAX_DEPTH} levels deep"));
                }
            }
            Event::Empty(start) => {
                attributes(start.attributes())?;
                roots += usize::from(depth == 0);
            }
            Event::End(_) => depth = depth.saturating_sub(1),
            Event::Text(text) if depth == 0 && !text.trim().is_empty() => {
                return Err("has text outside its root element".to_owned());
            }
            Event::CData(_) | Event::GeneralRef(_) if depth == 0 => {
                return Err("has text outside its root element".to_owned());
            }
            Event::Eof => break,
            Event::Text(_)
            | Event::CData(_)
            | Event::GeneralRef(_)
            | Event::Comment(_)
            | Event::Decl(_)
            | Event::PI(_) => {}
        }
    }
    match (roots, depth) {
        (_, 1..) => Err("ends before all elements are closed".to_owned()),
        (1, 0) => Ok(()),
        (0, 0) => Err("has no element".to_owned()),
        _ => Err("has more than one root element".to_owned()),
    }
}

fn attributes(list: quick_xml::events::attributes::Attributes<'_>) -> Result<(), String> {
    for attribute in list {
        attribute.map_err(|error| format!("is not well-formed XML: {error}"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::check;

    #[test]
    fn only_whole_documents_without_doctype_pass() {
        for good in [
            "<a/>",
            "<?xml version=\"1.0\"?>\n<a b='1'><c>ä &amp; x</c><!-- d --></a>\n",
            "\u{feff}<x:a xmlns:x='u'/>",
        ] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            "text",
            "<a>",
            "<a></b>",
            "<a/><b/>",
            "<a/>x",
            "<!DOCTYPE a><a/>",
            "<a b=1/>",
            "<a b='1' b='2'/>",
            "{\"a\": 1}",
            &"<a>".repeat(20_000),
        ] {
            assert!(check(bad).is_err(), "{bad:.20}");
        }
    }
}
