//! Requests of WPS 2.0.2, from query strings and from XML. Execute has a file of its own. Answers a [`Request`] or the
//! standard's exception.

use super::super::kvp::Query;
use super::super::ows::{self, Identifiers, Lookup};
use super::super::xml::{Cursor, Element};
use super::super::{Fault, clip};
use super::execute::{self, Execute};
use super::{VERSION, WPS_2_0};
use crate::engine::job::JobId;

/// What there is, for whoever asks for something else.
const OPERATIONS: &str = "GetCapabilities, DescribeProcess, Execute (by POST), GetStatus, GetResult, Dismiss";

/// What a client asks.
#[derive(Debug, Clone, PartialEq)]
pub enum Request {
    /// GetCapabilities.
    GetCapabilities {
        /// `updateSequence` that the client knows, if it is a number of ours.
        update_sequence: Option<u64>,
    },
    /// DescribeProcess.
    DescribeProcess(Identifiers),
    /// Execute.
    Execute(Box<Execute>),
    /// GetStatus.
    GetStatus(JobId),
    /// GetResult.
    GetResult(JobId),
    /// Dismiss.
    Dismiss(JobId),
}

impl Request {
    /// The operation's name, for logs and metrics.
    pub fn operation(&self) -> &'static str {
        match self {
            Self::GetCapabilities { .. } => "GetCapabilities",
            Self::DescribeProcess(_) => "DescribeProcess",
            Self::Execute(_) => "Execute",
            Self::GetStatus(_) => "GetStatus",
            Self::GetResult(_) => "GetResult",
            Self::Dismiss(_) => "Dismiss",
        }
    }
}

/// A request from a query string.
pub fn from_kvp(query: &Query) -> Result<Request, Fault> {
    ows::check_service(query.get("service")?.as_deref())?;
    let operation = query.need("request")?;
    let version = query.get("version")?;
    let negotiated = || ows::check_version(version.as_deref(), VERSION);
    let request = match operation.to_ascii_lowercase().as_str() {
        "getcapabilities" => {
            ows::check_accepted(&query.names("acceptversions")?, version.as_deref(), VERSION)?;
            let known = query.get("updatesequence")?.and_then(|text| text.parse().ok());
            Request::GetCapabilities { update_sequence: known }
        }
        "describeprocess" => {
            negotiated()?;
            Request::DescribeProcess(ows::identifiers(query.names("identifier")?)?)
        }
        "getstatus" => {
            negotiated()?;
            Request::GetStatus(job(&query.need("JobID")?)?)
        }
        "getresult" => {
            negotiated()?;
            Request::GetResult(job(&query.need("JobID")?)?)
        }
        "dismiss" => {
            negotiated()?;
            Request::Dismiss(job(&query.need("JobID")?)?)
        }
        _ => return Err(ows::unknown_operation(&operation, OPERATIONS)),
    };
    for key in ["lang", "language"] {
        ows::check_language(query.get(key)?.as_deref())?;
    }
    Ok(request)
}

/// A request from an XML document.
pub fn from_xml(bytes: &[u8], lookup: Lookup<'_>) -> Result<Request, Fault> {
    ows::whole_document(bytes, |cursor, root| document(cursor, root, lookup))
}

fn document(cursor: &mut Cursor<'_>, root: &Element, lookup: Lookup<'_>) -> Result<Request, Fault> {
    if root.namespace != WPS_2_0 {
        return Err(Fault::malformed(format!(
            "the root element is `{}` in the namespace `{}`; requests are in the namespace `{WPS_2_0}`",
            clip(&root.name, 80),
            clip(&root.namespace, 200)
        )));
    }
    if let Some(service) = root.trimmed("service") {
        ows::check_service(Some(service))?;
    }
    ows::check_language(root.trimmed("lang"))?;
    if root.name == "GetCapabilities" {
        let accepted = ows::accepted_versions(cursor)?;
        ows::check_accepted(&accepted, root.trimmed("version"), VERSION)?;
        let known = root.trimmed("updateSequence").and_then(|text| text.parse().ok());
        return Ok(Request::GetCapabilities { update_sequence: known });
    }
    ows::check_version(root.trimmed("version"), VERSION)?;
    match root.name.as_str() {
        "DescribeProcess" => Ok(Request::DescribeProcess(ows::described(cursor)?)),
        "Execute" => Ok(Request::Execute(Box::new(execute::from_xml(cursor, root, lookup)?))),
        "GetStatus" => Ok(Request::GetStatus(job_element(cursor)?)),
        "GetResult" => Ok(Request::GetResult(job_element(cursor)?)),
        "Dismiss" => Ok(Request::Dismiss(job_element(cursor)?)),
        other => Err(ows::unknown_operation(other, OPERATIONS)),
    }
}

fn job_element(cursor: &mut Cursor<'_>) -> Result<JobId, Fault> {
    let mut id = None;
    while let Some(element) = cursor.child()? {
        if element.name == "JobID" {
            id = Some(cursor.text()?);
        } else {
            cursor.skip()?;
        }
    }
    job(id.as_deref().map(str::trim).filter(|id| !id.is_empty()).ok_or_else(|| Fault::missing("JobID"))?)
}

fn job(text: &str) -> Result<JobId, Fault> {
    text.parse().map_err(|_| Fault::no_such_job(text))
}

#[cfg(test)]
mod tests;
