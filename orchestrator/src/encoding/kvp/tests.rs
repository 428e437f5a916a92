//! How queries of clients in use are cut apart.

use super::*;

const KNOWN: [&str; 3] = ["mimetype", "href", "asreference"];

/// Identifier, value, attributes.
type Parts = (String, Option<String>, Vec<(String, String)>);

fn entries(raw: &str) -> Vec<Parts> {
    let query = Query::parse(&format!("DataInputs={raw}")).unwrap();
    let entries = query.entries("DataInputs", &KNOWN).unwrap();
    entries.into_iter().map(|e| (e.id, e.value, e.attributes)).collect()
}

fn value(raw: &str) -> String {
    entries(raw).remove(0).1.unwrap()
}

#[test]
fn keys_come_in_any_case_and_several_times() {
    let query = Query::parse("SERVICE=&sErvice=WPS&Service=WFS&identifier=a,b&IDENTIFIER=c&x&=y&&").unwrap();
    assert_eq!(query.get("service").unwrap().as_deref(), Some("WPS"));
    assert_eq!(query.names("identifier").unwrap(), ["a", "b", "c"]);
    assert_eq!(query.get("x").unwrap(), None);
    assert!(query.has("x") && !query.has("y"));
    assert_eq!(query.need("Version").unwrap_err(), Fault::missing("Version"));
}

#[test]
fn percent_and_plus_are_decoded() {
    let query = Query::parse("a=b+c%20d%2Be&f=%FF&g=100%").unwrap();
    assert_eq!(query.get("a").unwrap().as_deref(), Some("b c d+e"));
    assert!(query.get("f").is_err());
    assert_eq!(query.get("g").unwrap().as_deref(), Some("100%"));
}

#[test]
fn lists_are_cut_before_they_are_decoded() {
    let simple = |id: &str, value: &str| (id.to_owned(), Some(value.to_owned()), vec![]);
    assert_eq!(entries("a=1;b=x+y"), [simple("a", "1"), simple("b", "x y")]);
    assert_eq!(entries("a=x%3By;b=2"), [simple("a", "x;y"), simple("b", "2")]);
    assert_eq!(entries("a%3Dx%253By%3Bb%3D2"), [simple("a", "x;y"), simple("b", "2")], "all of it encoded");
    assert_eq!(entries("a=x%253By"), [simple("a", "x;y")], "a part encoded twice");
    assert_eq!(entries("[a=1;b=2]"), [simple("a", "1"), simple("b", "2")]);
    assert_eq!(entries("a=1;;b=2;"), [simple("a", "1"), simple("b", "2")]);
    assert_eq!(entries(" a =1"), [simple("a", "1")]);
    assert_eq!(value("a=b=c"), "b=c");
    assert_eq!(value("a="), "");
    assert_eq!(value("a=mail@example.org"), "mail@example.org");
    assert_eq!(value("a=100%25"), "100%");
    assert_eq!(value("a=1%2B1"), "1+1");
}

#[test]
fn an_address_is_not_decoded_too_often() {
    let list = entries("a=@xlink:href=http%3A%2F%2Fh%2F%3Fq%3D%2520%26r%3D1@mimeType=text/xml");
    assert_eq!(list[0].2[0], ("href".to_owned(), "http://h/?q=%20&r=1".to_owned()));
    assert_eq!(list[0].2[1], ("mimetype".to_owned(), "text/xml".to_owned()));
    let list = entries("a@href=http%3A%2F%2Fh%2F");
    assert_eq!(list[0].2[0].1, "http://h/");
    assert_eq!(list[0].1, None);
}

#[test]
fn unknown_attributes_and_nameless_entries_are_refused() {
    for raw in ["a=1@colour=red", "=1", "a@href", "%20=1"] {
        let query = Query::parse(&format!("DataInputs={raw}")).unwrap();
        let fault = query.entries("DataInputs", &KNOWN).unwrap_err();
        assert_eq!(fault.locator.as_deref(), Some("DataInputs"), "{raw}");
    }
}

#[test]
fn flags_are_true_or_false() {
    let query = Query::parse("a=TRUE&b=0&c=yes").unwrap();
    assert_eq!((query.flag("a"), query.flag("b"), query.flag("d")), (Ok(true), Ok(false), Ok(false)));
    assert_eq!(query.flag("c").unwrap_err().locator.as_deref(), Some("c"));
}

#[test]
fn length_and_number_are_bounded() {
    assert!(Query::parse(&"a".repeat(MAX_QUERY + 1)).is_err());
    assert!(Query::parse(&"a&".repeat(MAX_PARAMETERS + 1)).is_err());
}

proptest::proptest! {
    #[test]
    fn nothing_panics(raw in "[a-z=&;@%+\\[\\]0-9A-Fé ]*") {
        if let Ok(query) = Query::parse(&format!("DataInputs={raw}&b={raw}")) {
            let _ = query.entries("DataInputs", &KNOWN);
            let _ = (query.get("b"), query.names("b"), query.flag("b"));
        }
    }
}
