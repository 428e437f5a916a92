//! What the cursor reads, what it captures, and what it refuses.

use super::*;

fn content(document: &str) -> Result<Content<'static>, XmlError> {
    let mut cursor = Cursor::new(document.as_bytes())?;
    cursor.root()?;
    let content = cursor.content()?;
    cursor.finish()?;
    Ok(match content {
        Content::Text(characters) => Content::Text(Characters::plain(characters.into_text())),
        Content::Markup(text) => Content::Markup(text),
    })
}

fn text(document: &str) -> String {
    content(document).unwrap().into_text()
}

#[test]
fn prefixes_and_declarations_are_resolved() {
    let mut cursor =
        Cursor::new(b"\xEF\xBB\xBF<?xml version='1.0'?><!-- x --><a:b xmlns:a='u' a:c='1 &lt; 2' d='e'/>")
            .unwrap();
    let root = cursor.root().unwrap();
    assert_eq!((root.namespace.as_str(), root.name.as_str()), ("u", "b"));
    assert_eq!(root.attribute("c"), Some("1 < 2"));
    assert_eq!(root.attribute("d"), Some("e"));
    assert_eq!(cursor.child().unwrap(), None);
    cursor.finish().unwrap();
}

#[test]
fn characters_come_as_they_were_meant() {
    assert_eq!(text("<a>x &amp; y &#65;&#x42;</a>"), "x & y AB");
    assert_eq!(text("<a>one\r\ntwo\rthree&#13;</a>"), "one\ntwo\nthree\r");
    assert_eq!(text("<a>\n  <![CDATA[150]]>\n</a>"), "150", "blanks around a section are layout");
    assert_eq!(text("<a><![CDATA[ 1]]><![CDATA[50 ]]></a>"), " 150 ");
    assert_eq!(text("<a>x<![CDATA[<y>]]></a>"), "x<y>");
    assert_eq!(text("<a> <!-- no --> </a>"), "  ");
    assert_eq!(text("<a/>"), "");
}

#[test]
fn captured_elements_keep_their_namespaces() {
    let captured =
        text("<w:D xmlns:w='W' xmlns:g='G' xmlns='N'>\n <g:p k=\"v\"><q/>&amp;<![CDATA[<]]></g:p>\n</w:D>");
    assert_eq!(captured, "<g:p xmlns:w=\"W\" xmlns:g=\"G\" xmlns=\"N\" k=\"v\"><q/>&amp;<![CDATA[<]]></g:p>");
    assert!(embeddable(&captured).is_some());
    let own = text("<w:D xmlns:w='W' xmlns='N'><p xmlns='M'/></w:D>");
    assert_eq!(own, "<p xmlns:w=\"W\" xmlns='M'/>");
    let inner = text("<r xmlns:a='1'><s xmlns:a='2'/></r>");
    assert_eq!(inner, "<s xmlns:a='2'/>");
    let quoted = text("<r xmlns:a='say \"x\"'><s/></r>");
    assert_eq!(quoted, "<s xmlns:a=\"say &quot;x&quot;\"/>");
    assert_eq!(text("<r>ä<sä/>ö</r>"), "ä<sä/>ö", "mixed content stays as it is");
}

#[test]
fn the_innermost_declaration_of_a_prefix_wins() {
    let mut cursor = Cursor::new(b"<r xmlns:a='1'><m xmlns:a='2'><x a:k=''/></m></r>").unwrap();
    cursor.root().unwrap();
    cursor.child().unwrap().unwrap();
    assert_eq!(cursor.content().unwrap().into_text(), "<x xmlns:a=\"2\" a:k=''/>");
    cursor.finish().unwrap();
}

#[test]
fn what_is_dangerous_or_broken_is_refused() {
    let bomb = "<!DOCTYPE a [<!ENTITY b 'x'><!ENTITY c '&b;&b;'>]><a>&c;</a>";
    assert_eq!(content(bomb), Err(XmlError::Doctype));
    assert_eq!(content("<!DOCTYPE a SYSTEM 'file:///etc/passwd'><a/>"), Err(XmlError::Doctype));
    assert_eq!(content("<a><!DOCTYPE b></a>"), Err(XmlError::Doctype));
    assert_eq!(content("<a>&xxe;</a>"), Err(XmlError::Entity("xxe".into())));
    assert!(content("<a>&#0;</a>").is_err());
    assert_eq!(content("<a>&#1;</a>"), Err(XmlError::Character(1)));
    assert_eq!(content("<a>\u{1}</a>"), Err(XmlError::Character(1)));
    assert!(matches!(content("<a><b></a>"), Err(XmlError::Syntax { .. })));
    assert_eq!(content("<a><b>"), Err(XmlError::Truncated("a".into())));
    assert!(content("<a").is_err());
    assert!(content("<a><b attr=\"x").is_err());
    assert_eq!(content(""), Err(XmlError::Empty));
    assert_eq!(content("  \n"), Err(XmlError::Empty));
    assert_eq!(content("<a/><b/>"), Err(XmlError::Trailing));
    assert_eq!(content("<a/>x"), Err(XmlError::Trailing));
    assert!(content("x<a/>").is_err());
    assert!(content("{\"a\":1}").is_err());
    assert!(matches!(content("<a b='1' b='2'/>"), Err(XmlError::Syntax { .. })));
    assert_eq!(
        Cursor::new(&[b'<', 0, b'a', 0]).map(|_| ()).unwrap_err(),
        XmlError::Encoding("UTF-16".into())
    );
    assert_eq!(Cursor::new(b"<a>\xE4</a>").map(|_| ()).unwrap_err(), XmlError::NotUtf8(3));
    let latin = "<?xml version='1.0' encoding='ISO-8859-1'?><a/>";
    assert_eq!(content(latin), Err(XmlError::Encoding("ISO-8859-1".into())));
}

/// XML 1.0 §4.1, "Entity Declared": a reference is a fault wherever it stands, also where nobody reads the characters.
#[test]
fn an_unknown_entity_between_elements_is_refused() {
    let walk = |document: &str| {
        let mut cursor = Cursor::new(document.as_bytes())?;
        cursor.root()?;
        while cursor.child()?.is_some() {
            cursor.skip()?;
        }
        cursor.finish()
    };
    for document in ["<a>&foo;<b/></a>", "<a><b/>&foo;</a>", "<a><b/>&foo;<c/></a>", "<a><b>&foo;</b></a>"] {
        assert_eq!(walk(document), Err(XmlError::Entity("foo".into())), "{document}");
    }
    assert_eq!(walk("<a>&#1;<b/></a>"), Err(XmlError::Character(1)));
    assert_eq!(walk("<a>&#x20;<b/>&lt;</a>"), Ok(()), "known ones are characters, which are ignored there");
}

#[test]
fn depth_attributes_and_elements_are_bounded() {
    let deep = "<a>".repeat(20_000);
    assert_eq!(content(&deep), Err(XmlError::Depth));
    let wide = (0..=MAX_ATTRIBUTES + 1).map(|n| format!(" a{n}=''")).collect::<String>();
    assert_eq!(content(&format!("<a{wide}/>")), Err(XmlError::Attributes("a".into())));
    assert_eq!(content(&format!("<r><a{wide}/></r>")), Err(XmlError::Attributes("a".into())));
    let many = format!("<r>{}</r>", "<x/>".repeat(MAX_ELEMENTS + 5));
    let mut cursor = Cursor::new(many.as_bytes()).unwrap();
    cursor.root().unwrap();
    let ended = loop {
        match cursor.child() {
            Ok(Some(_)) => cursor.skip().unwrap(),
            other => break other,
        }
    };
    assert_eq!(ended, Err(XmlError::Elements));
    // Captured as a whole, the same is nothing but text, up to a larger bound.
    assert!(text(&many).starts_with("<x/><x/>"));
    let more = format!("<r><s>{}</s></r>", "<x/>".repeat(MAX_ALL_ELEMENTS));
    assert_eq!(content(&more), Err(XmlError::AllElements));
    let long = format!("<r xmlns:a='{}'>{}</r>", "u".repeat(10_000), "<x/>".repeat(1000));
    assert_eq!(content(&long), Err(XmlError::Inherited), "what one declaration costs a thousand elements");
    let bindings = (0..40).map(|n| format!(" xmlns:p{n}='u{n}'")).collect::<String>();
    let nested = format!("{}{}", format!("<a{bindings}>").repeat(200), "</a>".repeat(200));
    assert!(content(&nested).is_err(), "declarations in scope are bounded");
}

#[test]
fn only_what_is_well_formed_is_embedded() {
    assert_eq!(embeddable("<?xml version=\"1.0\"?>\n<a/>\n"), Some("<a/>"));
    assert_eq!(embeddable("<?xml-stylesheet href='x'?><a/>"), Some("<?xml-stylesheet href='x'?><a/>"));
    assert_eq!(embeddable("<a>"), None);
    assert_eq!(embeddable("<p:a/>"), None, "an undeclared prefix would break the document around it");
    assert_eq!(embeddable("<!DOCTYPE a><a/>"), None);
    assert_eq!(embeddable("plain"), None);
}

#[test]
fn the_writer_escapes_everything() {
    let mut writer = Writer::fragment();
    writer.open("a", &[("k", "\"<&>\n\u{1}")]).leaf("b", &[], "]]>&\r\u{B}é").leaf("c", &[], "").close();
    assert_eq!(
        writer.finish(),
        "<a k=\"&quot;&lt;&amp;&gt;&#10;\u{FFFD}\">\n  <b>]]&gt;&amp;&#13;\u{FFFD}é</b>\n  <c/>\n</a>\n"
    );
}

proptest::proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
        if let Ok(mut cursor) = Cursor::new(&bytes) {
            let _ = cursor.root().and_then(|_| cursor.content().map(|_| ()));
            let _ = cursor.finish();
        }
    }

    #[test]
    fn near_xml_never_panics(text in "(<[a-c:]{0,3}( [a-c:]{1,2}=['\"][^<]{0,3}['\"])?/?>|</[a-c]>|<!\\[CDATA\\[|\\]\\]>|<!--|-->|&[a-z#0-9]{0,4};|[ a-zé])*") {
        if let Ok(mut cursor) = Cursor::new(text.as_bytes()) {
            let _ = cursor.root().and_then(|_| cursor.content().map(|_| ()));
            let _ = cursor.finish();
        }
        let _ = embeddable(&text);
    }

    #[test]
    fn what_is_written_is_read_back(value in "[^\u{0}-\u{8}\u{B}\u{C}\u{E}-\u{1F}\u{FFFE}\u{FFFF}]*") {
        let mut writer = Writer::new();
        writer.leaf("a", &[("k", &value)], &value);
        let document = writer.finish();
        let mut cursor = Cursor::new(document.as_bytes()).unwrap();
        let root = cursor.root().unwrap();
        proptest::prop_assert_eq!(root.attribute("k"), Some(value.as_str()));
        proptest::prop_assert_eq!(cursor.text().unwrap(), value);
    }
}
