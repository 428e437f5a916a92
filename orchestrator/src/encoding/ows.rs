//! OWS Common 1.1: the exception report and the sections of a capabilities document that every OGC service has
//! (OGC 06-121r3), and what both versions of WPS read and write alike. Knows no operation of theirs.

use std::sync::Arc;

use wps_remote_protocol::{AllowedValues, ProcessDescription};

use super::xml::{Cursor, Element, Writer};
use super::{Face, Fault, FaultKind, clip};

/// Namespace of OWS Common 1.1.
pub const OWS_1_1: &str = "http://www.opengis.net/ows/1.1";
/// Namespace of OWS Common 2.0.
pub const OWS_2_0: &str = "http://www.opengis.net/ows/2.0";
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

/// An `ows:ExceptionReport` as a document.
pub fn exception_report(fault: &Fault, face: Face) -> String {
    let mut writer = Writer::new();
    let (namespace, folder, version) = match face {
        Face::Wps1 => (OWS_1_1, "1.1.0", "1.1.0"),
        Face::Wps2 => (OWS_2_0, "2.0", "2.0.0"),
    };
    let location = format!("{namespace} http://schemas.opengis.net/ows/{folder}/owsExceptionReport.xsd");
    let attributes = [
        ("xmlns:ows", namespace),
        ("xmlns:xsi", XSI),
        ("xsi:schemaLocation", location.as_str()),
        ("version", version),
        ("xml:lang", LANGUAGE),
    ];
    writer.open("ows:ExceptionReport", &attributes);
    write_exception(&mut writer, fault, face);
    writer.finish()
}

/// A report of OWS Common 1.1 inside of another document.
pub fn write_report(writer: &mut Writer, fault: &Fault) {
    writer.open("ows:ExceptionReport", &[("version", "1.1.0"), ("xml:lang", LANGUAGE)]);
    write_exception(writer, fault, Face::Wps1);
    writer.close();
}

fn write_exception(writer: &mut Writer, fault: &Fault, face: Face) {
    let (code, _) = fault.kind.on(face);
    let locator = fault.locator_on(face).map(|locator| clip(locator, 200));
    match &locator {
        Some(locator) => writer.open("ows:Exception", &[("exceptionCode", code), ("locator", locator)]),
        None => writer.open("ows:Exception", &[("exceptionCode", code)]),
    };
    writer.leaf("ows:ExceptionText", &[], &clip(&fault.text, MAX_TEXT)).close();
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

/// `ows:OperationsMetadata`: each operation under the same address, by POST, and by GET where said.
pub fn write_operations(writer: &mut Writer, url: &str, operations: &[(&str, bool)]) {
    writer.open("ows:OperationsMetadata", &[]);
    for (name, get) in operations {
        writer.open("ows:Operation", &[("name", *name)]).open("ows:DCP", &[]).open("ows:HTTP", &[]);
        if *get {
            let get = format!("{url}?");
            writer.leaf("ows:Get", &[("xlink:href", &get)], "");
        }
        writer.leaf("ows:Post", &[("xlink:href", url)], "");
        writer.close().close().close();
    }
    writer.close();
}

/// Finds the description of a process that is offered now.
pub type Lookup<'a> = &'a (dyn Fn(&str) -> Option<Arc<ProcessDescription>> + Sync);

/// The process that an Execute names, with its description: without that no value can be understood.
pub(super) fn process(id: &str, lookup: Lookup<'_>) -> Result<(String, Arc<ProcessDescription>), Fault> {
    let id = id.trim();
    if id.is_empty() {
        return Err(Fault::missing("Identifier"));
    }
    let description = lookup(id).ok_or_else(|| Fault::no_such_process(id))?;
    Ok((id.to_owned(), description))
}

/// Which processes a client wants to be described.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Identifiers {
    /// Every one (`all`).
    All,
    /// These.
    Some(Vec<String>),
}

/// Most identifiers in one DescribeProcess.
const MAX_IDENTIFIERS: usize = 10_000;

/// Identifiers from a list that must not be empty.
pub fn identifiers(names: Vec<String>) -> Result<Identifiers, Fault> {
    if names.is_empty() {
        return Err(Fault::missing("Identifier"));
    }
    if names.len() > MAX_IDENTIFIERS {
        return Err(Fault::invalid(
            "Identifier",
            format!("more than {MAX_IDENTIFIERS} identifiers; ask for `all`"),
        ));
    }
    if names.iter().any(|name| name.eq_ignore_ascii_case("all")) {
        return Ok(Identifiers::All);
    }
    Ok(Identifiers::Some(names))
}

/// Reads the identifiers of a DescribeProcess document.
pub fn described(cursor: &mut Cursor<'_>) -> Result<Identifiers, Fault> {
    let mut names = Vec::new();
    while let Some(element) = cursor.child()? {
        if element.name == "Identifier" {
            let name = cursor.text()?.trim().to_owned();
            if !name.is_empty() && names.len() <= MAX_IDENTIFIERS {
                names.push(name);
            }
        } else {
            cursor.skip()?;
        }
    }
    identifiers(names)
}

/// Reads the versions that a GetCapabilities document accepts.
pub fn accepted_versions(cursor: &mut Cursor<'_>) -> Result<Vec<String>, Fault> {
    let mut accepted = Vec::new();
    while let Some(element) = cursor.child()? {
        if element.name != "AcceptVersions" {
            cursor.skip()?;
            continue;
        }
        while let Some(version) = cursor.child()? {
            if version.name == "Version" {
                accepted.push(cursor.text()?.trim().to_owned());
            } else {
                cursor.skip()?;
            }
        }
    }
    Ok(accepted)
}

/// The service must be named, and be ours.
pub fn check_service(service: Option<&str>) -> Result<(), Fault> {
    match service {
        Some(service) if service.eq_ignore_ascii_case("wps") => Ok(()),
        Some(other) => {
            Err(Fault::invalid("service", format!("the service here is `WPS`, not `{}`", clip(other, 80))))
        }
        None => Err(Fault::missing("service")),
    }
}

/// The version of a request that is not negotiated: mandatory, and `ours`.
pub fn check_version(version: Option<&str>, ours: &str) -> Result<(), Fault> {
    match version {
        Some(version) if version == ours => Ok(()),
        Some(other) => Err(Fault::at(
            FaultKind::UnknownVersion,
            "version",
            format!("the version `{}` is not spoken here; use {ours}", clip(other, 80)),
        )),
        None => Err(Fault::missing("version")),
    }
}

/// The negotiation of GetCapabilities: `ours` is among the accepted versions, or, if there are none, is the version.
pub fn check_accepted(accepted: &[String], version: Option<&str>, ours: &str) -> Result<(), Fault> {
    let wanted = if accepted.is_empty() { version.map(str::to_owned) } else { Some(accepted.join(", ")) };
    match wanted {
        Some(wanted) if wanted != ours && !accepted.iter().any(|version| version == ours) => {
            let wanted = clip(&wanted, 200);
            let text = format!("none of the accepted versions ({wanted}) is spoken here; {ours} is");
            Err(Fault::at(FaultKind::VersionNegotiation, "AcceptVersions", text))
        }
        _ => Ok(()),
    }
}

/// `*` and any English will do; other languages are not spoken.
pub fn check_language(language: Option<&str>) -> Result<(), Fault> {
    let Some(language) = language else { return Ok(()) };
    let lower = language.to_ascii_lowercase();
    if lower == "*" || lower == "en" || lower.starts_with("en-") {
        return Ok(());
    }
    let text = format!("the language `{}` is not spoken here; use en-US", clip(language, 80));
    Err(Fault::invalid("language", text))
}

/// An operation that a face does not have.
pub fn unknown_operation(name: &str, known: &str) -> Fault {
    let name = clip(name, 80);
    let text = format!("the operation `{name}` is not supported; these are: {known}");
    Fault::at(FaultKind::OperationNotSupported, name, text)
}

/// Clients pair titles and abstracts by their index: an abstract must never be absent nor empty.
pub fn or_dash(text: &str) -> &str {
    if text.trim().is_empty() { "-" } else { text }
}

/// Reads a request document from its root to its end.
pub(super) fn whole_document<T>(
    bytes: &[u8],
    read: impl FnOnce(&mut Cursor<'_>, &Element) -> Result<T, Fault>,
) -> Result<T, Fault> {
    let mut cursor = Cursor::new(bytes)?;
    let root = cursor.root()?;
    let request = read(&mut cursor, &root);
    // That a document is not well-formed weighs more than what seems to be wrong in its first half.
    let ended = match &request {
        Err(fault) if fault.kind == FaultKind::Malformed => Ok(()),
        _ => cursor.finish(),
    };
    ended?;
    request
}

/// Which values a literal may have (OGC 06-121r3, as both versions of WPS use it).
pub(super) fn write_allowed(writer: &mut Writer, allowed: &AllowedValues) {
    match allowed {
        AllowedValues::Values(values) if !values.is_empty() => {
            writer.open("ows:AllowedValues", &[]);
            for value in values {
                writer.leaf("ows:Value", &[], value);
            }
            writer.close();
        }
        AllowedValues::Any | AllowedValues::Values(_) => {
            writer.leaf("ows:AnyValue", &[], "");
        }
        AllowedValues::Range { min, max } => {
            writer.open("ows:AllowedValues", &[]).open("ows:Range", &[]);
            for (name, end) in [("ows:MinimumValue", min), ("ows:MaximumValue", max)] {
                if let Some(end) = end {
                    writer.leaf(name, &[], end);
                }
            }
            writer.close().close();
        }
    }
}
