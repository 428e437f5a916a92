//! OWS Common 1.1: the exception report and the sections of a capabilities document that every OGC service has
//! (OGC 06-121r3). Knows no operation of WPS.

use super::Fault;
use super::xml::Writer;

/// Namespace of OWS Common 1.1.
pub const OWS_1_1: &str = "http://www.opengis.net/ows/1.1";
/// Namespace of XLink.
pub const XLINK: &str = "http://www.w3.org/1999/xlink";
/// Namespace of schema instances.
pub const XSI: &str = "http://www.w3.org/2001/XMLSchema-instance";
/// The only language of our texts.
pub const LANGUAGE: &str = "en-US";

/// Longest text of an exception, in characters.
const MAX_TEXT: usize = 8000;

/// Who offers the service and how it presents itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceInfo {
    /// Title.
    pub title: String,
    /// One paragraph.
    pub summary: String,
    /// Keywords.
    pub keywords: Vec<String>,
    /// Fees; `NONE` if there are none.
    pub fees: String,
    /// Access constraints; `NONE` if there are none.
    pub access_constraints: String,
    /// Name of the provider.
    pub provider: String,
    /// The provider's web site; may be empty.
    pub site: String,
    /// Name of a person; may be empty.
    pub contact: String,
    /// The person's position; may be empty.
    pub position: String,
    /// Telephone; may be empty.
    pub phone: String,
    /// E-mail; may be empty.
    pub email: String,
}

impl Default for ServiceInfo {
    fn default() -> Self {
        Self {
            title: "Remote processes".to_owned(),
            summary: "Processes of remote agents, offered as an OGC Web Processing Service.".to_owned(),
            keywords: vec!["WPS".to_owned(), "processing".to_owned()],
            fees: "NONE".to_owned(),
            access_constraints: "NONE".to_owned(),
            provider: "unnamed provider".to_owned(),
            site: String::new(),
            contact: String::new(),
            position: String::new(),
            phone: String::new(),
            email: String::new(),
        }
    }
}

/// An `ows:ExceptionReport` 1.1.0 as a document.
pub fn exception_report(fault: &Fault) -> String {
    let mut writer = Writer::new();
    write_report(&mut writer, fault, true);
    writer.finish()
}

/// The report inside of another document; `declare` adds the namespace.
pub fn write_report(writer: &mut Writer, fault: &Fault, declare: bool) {
    let (code, _) = fault.kind.wps1();
    if declare {
        let location = format!("{OWS_1_1} http://schemas.opengis.net/ows/1.1.0/owsExceptionReport.xsd");
        writer.open(
            "ows:ExceptionReport",
            &[
                ("xmlns:ows", OWS_1_1),
                ("xmlns:xsi", XSI),
                ("xsi:schemaLocation", &location),
                ("version", "1.1.0"),
                ("xml:lang", LANGUAGE),
            ],
        );
    } else {
        writer.open("ows:ExceptionReport", &[("version", "1.1.0"), ("xml:lang", LANGUAGE)]);
    }
    let locator = fault.locator.as_deref().map(|locator| super::clip(locator, 200));
    match &locator {
        Some(locator) => writer.open("ows:Exception", &[("exceptionCode", code), ("locator", locator)]),
        None => writer.open("ows:Exception", &[("exceptionCode", code)]),
    };
    writer.leaf("ows:ExceptionText", &[], &super::clip(&fault.text, MAX_TEXT)).close().close();
}

/// `ows:ServiceIdentification` for WPS in the given versions.
pub fn write_identification(writer: &mut Writer, info: &ServiceInfo, versions: &[&str]) {
    writer.open("ows:ServiceIdentification", &[]);
    writer.leaf("ows:Title", &[], &info.title).leaf("ows:Abstract", &[], or_dash(&info.summary));
    if !info.keywords.is_empty() {
        writer.open("ows:Keywords", &[]);
        for keyword in &info.keywords {
            writer.leaf("ows:Keyword", &[], keyword);
        }
        writer.close();
    }
    writer.leaf("ows:ServiceType", &[], "WPS");
    for version in versions {
        writer.leaf("ows:ServiceTypeVersion", &[], version);
    }
    writer
        .leaf("ows:Fees", &[], &info.fees)
        .leaf("ows:AccessConstraints", &[], &info.access_constraints)
        .close();
}

/// `ows:ServiceProvider`.
pub fn write_provider(writer: &mut Writer, info: &ServiceInfo) {
    writer.open("ows:ServiceProvider", &[]).leaf("ows:ProviderName", &[], &info.provider);
    if !info.site.is_empty() {
        writer.leaf("ows:ProviderSite", &[("xlink:href", &info.site)], "");
    }
    writer.open("ows:ServiceContact", &[]);
    for (name, text) in [("ows:IndividualName", &info.contact), ("ows:PositionName", &info.position)] {
        if !text.is_empty() {
            writer.leaf(name, &[], text);
        }
    }
    if !info.phone.is_empty() || !info.email.is_empty() {
        writer.open("ows:ContactInfo", &[]);
        if !info.phone.is_empty() {
            writer.open("ows:Phone", &[]).leaf("ows:Voice", &[], &info.phone).close();
        }
        if !info.email.is_empty() {
            writer.open("ows:Address", &[]).leaf("ows:ElectronicMailAddress", &[], &info.email).close();
        }
        writer.close();
    }
    writer.close().close();
}

/// `ows:OperationsMetadata`: each operation under the same address, by GET, and by POST where said.
pub fn write_operations(writer: &mut Writer, url: &str, operations: &[(&str, bool)]) {
    writer.open("ows:OperationsMetadata", &[]);
    for (name, post) in operations {
        writer.open("ows:Operation", &[("name", *name)]).open("ows:DCP", &[]).open("ows:HTTP", &[]);
        let get = format!("{url}?");
        writer.leaf("ows:Get", &[("xlink:href", &get)], "");
        if *post {
            writer.leaf("ows:Post", &[("xlink:href", url)], "");
        }
        writer.close().close().close();
    }
    writer.close();
}

/// Clients pair titles and abstracts by their index: an abstract must never be absent nor empty.
pub fn or_dash(text: &str) -> &str {
    if text.trim().is_empty() { "-" } else { text }
}
