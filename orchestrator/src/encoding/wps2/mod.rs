//! WPS 2.0.2 (OGC 14-065r2), whose version attribute reads 2.0.0: requests in, documents out. Knows no HTTP.

pub mod execute;
pub mod offerings;
pub mod request;
pub mod response;

/// Namespace of WPS 2.0.
pub const WPS_2_0: &str = "http://www.opengis.net/wps/2.0";
/// The version that is spoken here.
pub const VERSION: &str = "2.0.0";

use super::ows::{OWS_2_0, XLINK, XSI};
use super::xml::Writer;

/// Opens a root element of this standard, with the prefixes that clients expect literally.
fn open_root(writer: &mut Writer, name: &'static str, attributes: &[(&str, &str)]) {
    let location = format!("{WPS_2_0} http://schemas.opengis.net/wps/2.0/wps.xsd");
    let mut all = vec![
        ("xmlns:wps", WPS_2_0),
        ("xmlns:ows", OWS_2_0),
        ("xmlns:xlink", XLINK),
        ("xmlns:xsi", XSI),
        ("xsi:schemaLocation", location.as_str()),
    ];
    all.extend_from_slice(attributes);
    writer.open(name, &all);
}
