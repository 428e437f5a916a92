//! Requests of WPS 1.0.0, from query strings and from XML: GetCapabilities, DescribeProcess, and the operations that
//! GeoServer added. Execute has a file of its own. Answers a [`Request`] or the standard's exception.

use super::super::kvp::Query;
use super::super::ows::{self, Identifiers, Lookup};
use super::super::xml::{Cursor, Element, XmlError};
use super::super::{Fault, clip};
use super::execute::{self, Execute};
use super::{VERSION, WPS_1_0};
use crate::engine::job::JobId;

/// What there is, for whoever asks for something else.
const OPERATIONS: &str = "GetCapabilities, DescribeProcess, Execute, GetExecutionStatus, GetExecutionResult, Dismiss, GetExecutions";

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
    ows::check_service(query.get("service")?.as_deref())?;
    let operation = query.need("request")?;
    let request = match operation.to_ascii_lowercase().as_str() {
        "getcapabilities" => {
            let version = query.get("version")?;
            ows::check_accepted(&query.names("acceptversions")?, version.as_deref(), VERSION)?;
            Request::GetCapabilities {
                update_sequence: update_sequence(query.get("updatesequence")?.as_deref()),
            }
        }
        "describeprocess" => {
            ows::check_version(query.get("version")?.as_deref(), VERSION)?;
            Request::DescribeProcess(ows::identifiers(query.names("identifier")?)?)
        }
        "execute" => {
            ows::check_version(query.get("version")?.as_deref(), VERSION)?;
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
        _ => return Err(ows::unknown_operation(&operation, OPERATIONS)),
    };
    ows::check_language(query.get("language")?.as_deref())?;
    Ok(request)
}

/// A request from an XML document.
pub fn from_xml(bytes: &[u8], lookup: Lookup<'_>) -> Result<Request, Fault> {
    ows::whole_document(bytes, |cursor, root| document(cursor, root, lookup))
}

fn document(cursor: &mut Cursor<'_>, root: &Element, lookup: Lookup<'_>) -> Result<Request, Fault> {
    if !root.namespace.is_empty() && root.namespace != WPS_1_0 {
        return Err(Fault::malformed(format!(
            "the root element is `{}` in the namespace `{}`; requests are in the namespace `{WPS_1_0}`",
            clip(&root.name, 80),
            clip(&root.namespace, 200)
        )));
    }
    if let Some(service) = root.trimmed("service") {
        ows::check_service(Some(service))?;
    }
    ows::check_language(root.trimmed("language"))?;
    match root.name.as_str() {
        "GetCapabilities" => get_capabilities(cursor, root),
        "DescribeProcess" => {
            ows::check_version(root.trimmed("version"), VERSION)?;
            Ok(Request::DescribeProcess(ows::described(cursor)?))
        }
        "Execute" => {
            ows::check_version(root.trimmed("version"), VERSION)?;
            Ok(Request::Execute(Box::new(execute::from_xml(cursor, lookup)?)))
        }
        other => Err(ows::unknown_operation(other, OPERATIONS)),
    }
}

fn get_capabilities(cursor: &mut Cursor<'_>, root: &Element) -> Result<Request, Fault> {
    let accepted = ows::accepted_versions(cursor)?;
    ows::check_accepted(&accepted, root.trimmed("version"), VERSION)?;
    Ok(Request::GetCapabilities { update_sequence: update_sequence(root.trimmed("updateSequence")) })
}

fn job(query: &Query) -> Result<JobId, Fault> {
    let text = query.need("executionId")?;
    text.parse().map_err(|_| Fault::no_such_job(&text))
}

fn update_sequence(text: Option<&str>) -> Option<u64> {
    text.and_then(|text| text.trim().parse().ok())
}

#[cfg(test)]
mod tests;
