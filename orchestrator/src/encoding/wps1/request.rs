//! Requests of WPS 1.0.0, from query strings and from XML: GetCapabilities, DescribeProcess, and the operations that
//! GeoServer added. Execute has a file of its own. Answers a [`Request`] or the standard's exception.

use std::sync::Arc;

use wps_remote_protocol::ProcessDescription;

use super::super::kvp::Query;
use super::super::xml::{Cursor, Element, XmlError};
use super::super::{Fault, FaultKind, clip};
use super::execute::{self, Execute};
use super::{VERSION, WPS_1_0};
use crate::engine::job::JobId;

/// Namespace of the next version.
const WPS_2_0: &str = "http://www.opengis.net/wps/2.0";
/// Most identifiers in one DescribeProcess.
const MAX_IDENTIFIERS: usize = 10_000;

/// Finds the description of a process that is offered now.
pub type Lookup<'a> = &'a (dyn Fn(&str) -> Option<Arc<ProcessDescription>> + Sync);

/// What a client asks.
#[derive(Debug, Clone, PartialEq)]
pub enum Request {
    /// GetCapabilities (§8).
    GetCapabilities {
        /// `updateSequence` that the client knows, if it is a number of ours.
        update_sequence: Option<u64>,
    },
    /// DescribeProcess (§9).
    DescribeProcess(Identifiers),
    /// Execute (§10).
    Execute(Box<Execute>),
    /// The status document of a job (GeoServer, and our `statusLocation`).
    GetExecutionStatus(JobId),
    /// One output of a job (GeoServer).
    GetExecutionResult {
        /// The job.
        job: JobId,
        /// Identifier of the output; the only one if absent.
        output: Option<String>,
        /// Wanted MIME type.
        media_type: Option<String>,
    },
    /// Gives a job up (GeoServer).
    Dismiss(JobId),
    /// A list of jobs (GeoServer).
    GetExecutions,
}

/// Which processes to describe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Identifiers {
    /// Every one (`all`).
    All,
    /// These.
    Some(Vec<String>),
}

impl Request {
    /// The operation's name, for logs and metrics.
    pub fn operation(&self) -> &'static str {
        match self {
            Self::GetCapabilities { .. } => "GetCapabilities",
            Self::DescribeProcess(_) => "DescribeProcess",
            Self::Execute(_) => "Execute",
            Self::GetExecutionStatus(_) => "GetExecutionStatus",
            Self::GetExecutionResult { .. } => "GetExecutionResult",
            Self::Dismiss(_) => "Dismiss",
            Self::GetExecutions => "GetExecutions",
        }
    }
}

impl From<XmlError> for Fault {
    fn from(error: XmlError) -> Self {
        Self::malformed(error.to_string())
    }
}

/// A request from a query string.
pub fn from_kvp(query: &Query, lookup: Lookup<'_>) -> Result<Request, Fault> {
    check_service(query.get("service")?.as_deref())?;
    let operation = query.need("request")?;
    let request = match operation.to_ascii_lowercase().as_str() {
        "getcapabilities" => {
            let accepted = query.names("acceptversions")?;
            check_accepted(&accepted)?;
            if accepted.is_empty()
                && let Some(version) = query.get("version")?
                && version != VERSION
            {
                return Err(no_common_version(&version));
            }
            Request::GetCapabilities {
                update_sequence: update_sequence(query.get("updatesequence")?.as_deref()),
            }
        }
        "describeprocess" => {
            check_version(query.get("version")?.as_deref())?;
            let names = query.names("identifier")?;
            if names.is_empty() {
                return Err(Fault::missing("Identifier"));
            }
            Request::DescribeProcess(identifiers(names)?)
        }
        "execute" => {
            check_version(query.get("version")?.as_deref())?;
            Request::Execute(Box::new(execute::from_kvp(query, lookup)?))
        }
        "getexecutionstatus" => Request::GetExecutionStatus(job(query)?),
        "getexecutionresult" => Request::GetExecutionResult {
            job: job(query)?,
            output: query.get("outputid")?,
            media_type: query.get("mimetype")?,
        },
        "dismiss" => Request::Dismiss(job(query)?),
        "getexecutions" => Request::GetExecutions,
        _ => return Err(unknown_operation(&operation)),
    };
    check_language(query.get("language")?.as_deref())?;
    Ok(request)
}

/// A request from an XML document.
pub fn from_xml(bytes: &[u8], lookup: Lookup<'_>) -> Result<Request, Fault> {
    let mut cursor = Cursor::new(bytes)?;
    let root = cursor.root()?;
    let request = document(&mut cursor, &root, lookup);
    // That a document is not well-formed weighs more than what seems to be wrong in its first half.
    let ended = match &request {
        Err(fault) if fault.kind == FaultKind::Malformed => Ok(()),
        _ => cursor.finish(),
    };
    ended?;
    request
}

fn document(cursor: &mut Cursor<'_>, root: &Element, lookup: Lookup<'_>) -> Result<Request, Fault> {
    if root.namespace == WPS_2_0 && root.name == "GetCapabilities" {
        return Err(no_common_version("2.0.0"));
    }
    if root.namespace == WPS_2_0 {
        check_version(Some("2.0.0"))?;
    }
    if !root.namespace.is_empty() && root.namespace != WPS_1_0 {
        return Err(Fault::malformed(format!(
            "the root element is `{}` in the namespace `{}`; requests are in the namespace `{WPS_1_0}`",
            clip(&root.name, 80),
            clip(&root.namespace, 200)
        )));
    }
    if let Some(service) = root.trimmed("service") {
        check_service(Some(service))?;
    }
    check_language(root.trimmed("language"))?;
    match root.name.as_str() {
        "GetCapabilities" => get_capabilities(cursor, root),
        "DescribeProcess" => {
            check_version(root.trimmed("version"))?;
            Ok(Request::DescribeProcess(describe_process(cursor)?))
        }
        "Execute" => {
            check_version(root.trimmed("version"))?;
            Ok(Request::Execute(Box::new(execute::from_xml(cursor, lookup)?)))
        }
        other => Err(unknown_operation(other)),
    }
}

fn get_capabilities(cursor: &mut Cursor<'_>, root: &Element) -> Result<Request, Fault> {
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
    check_accepted(&accepted)?;
    if accepted.is_empty()
        && let Some(version) = root.trimmed("version")
        && version != VERSION
    {
        return Err(no_common_version(version));
    }
    Ok(Request::GetCapabilities { update_sequence: update_sequence(root.trimmed("updateSequence")) })
}

fn describe_process(cursor: &mut Cursor<'_>) -> Result<Identifiers, Fault> {
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
    if names.is_empty() {
        return Err(Fault::missing("Identifier"));
    }
    identifiers(names)
}

fn identifiers(names: Vec<String>) -> Result<Identifiers, Fault> {
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

fn job(query: &Query) -> Result<JobId, Fault> {
    let text = query.need("executionId")?;
    text.parse().map_err(|_| Fault::no_such_job(&text))
}

fn check_service(service: Option<&str>) -> Result<(), Fault> {
    match service {
        Some(service) if service.eq_ignore_ascii_case("wps") => Ok(()),
        Some(other) => {
            Err(Fault::invalid("service", format!("the service here is `WPS`, not `{}`", clip(other, 80))))
        }
        None => Err(Fault::missing("service")),
    }
}

/// The version of a request that is not negotiated (§9.2, §10.2): mandatory, and ours.
fn check_version(version: Option<&str>) -> Result<(), Fault> {
    match version {
        Some(VERSION) => Ok(()),
        Some(other) => Err(Fault::at(
            FaultKind::UnknownVersion,
            "version",
            format!("the version `{}` is not spoken here; use {VERSION}", clip(other, 80)),
        )),
        None => Err(Fault::missing("version")),
    }
}

fn check_accepted(versions: &[String]) -> Result<(), Fault> {
    if versions.is_empty() || versions.iter().any(|version| version == VERSION) {
        return Ok(());
    }
    Err(no_common_version(&versions.join(", ")))
}

fn no_common_version(wanted: &str) -> Fault {
    let text = format!("none of the accepted versions ({}) is spoken here; {VERSION} is", clip(wanted, 200));
    Fault::at(FaultKind::VersionNegotiation, "AcceptVersions", text)
}

/// `*` and any English will do; other languages are not spoken.
fn check_language(language: Option<&str>) -> Result<(), Fault> {
    let Some(language) = language else { return Ok(()) };
    let lower = language.to_ascii_lowercase();
    if lower == "*" || lower == "en" || lower.starts_with("en-") {
        return Ok(());
    }
    let text = format!("the language `{}` is not spoken here; use en-US", clip(language, 80));
    Err(Fault::invalid("language", text))
}

fn update_sequence(text: Option<&str>) -> Option<u64> {
    text.and_then(|text| text.trim().parse().ok())
}

fn unknown_operation(name: &str) -> Fault {
    let name = clip(name, 80);
    let text = format!(
        "the operation `{name}` is not supported; these are: GetCapabilities, DescribeProcess, Execute, \
         GetExecutionStatus, GetExecutionResult, Dismiss, GetExecutions"
    );
    Fault::at(FaultKind::OperationNotSupported, name, text)
}

#[cfg(test)]
mod tests;
