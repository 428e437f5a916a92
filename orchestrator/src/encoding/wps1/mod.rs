//! WPS 1.0.0 (OGC 05-007r7) and the operations that GeoServer added to it: requests in, documents out. Knows no HTTP.

pub mod capabilities;
pub mod describe;
pub mod execute;
pub mod request;
pub mod response;

/// Namespace of WPS 1.0.0.
pub const WPS_1_0: &str = "http://www.opengis.net/wps/1.0.0";
/// The version that is spoken here.
pub const VERSION: &str = "1.0.0";

use super::ows::{OWS_1_1, XLINK, XSI};
use super::xml::Writer;

/// Opens a root element of this standard, with the prefixes that clients expect literally.
fn open_root(writer: &mut Writer, name: &'static str, schema: &str, attributes: &[(&str, &str)]) {
    let location = format!("{WPS_1_0} http://schemas.opengis.net/wps/1.0.0/{schema}");
    let mut all = vec![
        ("xmlns:wps", WPS_1_0),
        ("xmlns:ows", OWS_1_1),
        ("xmlns:xlink", XLINK),
        ("xmlns:xsi", XSI),
        ("xsi:schemaLocation", location.as_str()),
        ("service", "WPS"),
        ("version", VERSION),
        ("xml:lang", super::ows::LANGUAGE),
    ];
    all.extend_from_slice(attributes);
    writer.open(name, &all);
}
