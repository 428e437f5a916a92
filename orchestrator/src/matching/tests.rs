//! Requests against descriptions.

use super::*;

#[test]
fn media_types_are_compared_without_blanks_and_capitals() {
    assert!(same_media_type("text/xml; subtype=gml/3.1.1", "TEXT/xml;subtype=gml/3.1.1"));
    assert!(!same_media_type("text/xml", "text/plain"));
}
