//! Bytes of the standards' documents to our types and back. Here: [`Fault`], everything that a client can do wrong or
//! that can go wrong for it, and the one table fault → exception code and HTTP status of each face. Knows no HTTP server,
//! no clock and no job handle.

pub mod characters;
pub mod delivery;
pub mod kvp;
pub mod ows;
pub mod render;
pub mod values;
pub mod wps1;
pub mod wps2;
pub mod xml;

use std::fmt;

use crate::engine::job::{Failure, Job, Timestamp};
use crate::matching::Mismatch;

/// What went wrong, told so that each face can word it in its standard's codes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The kind, which decides code and status.
    pub kind: FaultKind,
    /// The parameter, input or output that is to blame.
    pub locator: Option<String>,
    /// What is wrong and what would be right, for people.
    pub text: String,
}

/// A version of the standard that a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Face {
    /// WPS 1.0.0.
    Wps1,
    /// WPS 2.0.2, whose version attribute reads 2.0.0.
    Wps2,
}

/// Kinds of faults. One that is added here must be given its codes in [`FaultKind::wps1`] and
/// [`FaultKind::wps2`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FaultKind {
    /// No agent offers the process.
    NoSuchProcess,
    /// A mandatory parameter is absent.
    MissingParameter,
    /// A parameter has an unusable value.
    InvalidParameter,
    /// A mandatory input is absent.
    MissingInput,
    /// The process has no such input.
    NoSuchInput,
    /// An input's value cannot be read.
    WrongInputData,
    /// An input by reference cannot be fetched.
    DataNotAccessible,
    /// More inputs or values than allowed.
    TooManyInputs,
    /// More outputs than allowed, or a raw answer for more than one.
    TooManyOutputs,
    /// The process has no such output.
    NoSuchOutput,
    /// A format that an input or output does not have.
    NoSuchFormat,
    /// An input or a request is too large.
    TooLarge,
    /// A mode of execution that does not exist.
    NoSuchMode,
    /// A job id that names no job (any more).
    NoSuchJob,
    /// The job has not ended.
    ResultNotReady,
    /// The job's result cannot be had, because the job failed.
    JobFailed,
    /// No common version.
    VersionNegotiation,
    /// A version that is not spoken here, outside of the negotiation.
    UnknownVersion,
    /// `updateSequence` is higher than ours.
    UpdateSequence,
    /// The request's name is none of ours.
    OperationNotSupported,
    /// Storing was asked for where it is impossible.
    StorageNotSupported,
    /// There is no room left to keep something.
    NotEnoughStorage,
    /// The caller must log in, or differently.
    NotLoggedIn,
    /// The caller is known and may not do this.
    Forbidden,
    /// Too many attempts from one address.
    TooManyRequests,
    /// The queue is full, or we are stopping.
    TooBusy,
    /// As many jobs of this caller wait as may.
    TooManyJobs,
    /// As much is kept for this caller as may be.
    QuotaFull,
    /// The bytes are no request: not well-formed, wrong encoding, cut short.
    Malformed,
    /// The body did not arrive in time.
    TooSlow,
    /// No such page.
    NotFound,
    /// The HTTP method does not fit the resource.
    MethodNotAllowed,
    /// A synchronous job did not end within the time that a request may take; it goes on.
    StillRunning,
    /// Something of ours failed; the log knows more.
    Internal,
}

impl FaultKind {
    /// Exception code (OGC 05-007r7 §10.3.3 table 62; OGC 06-121r3 §8.3) and HTTP status on the WPS 1.0.0 face.
    ///
    /// The standard fixes no status. 400 for every mistake of a client, because common clients read the report of that
    /// status only.
    pub fn wps1(self) -> (&'static str, u16) {
        match self {
            Self::MissingParameter | Self::MissingInput => ("MissingParameterValue", 400),
            Self::NoSuchProcess
            | Self::InvalidParameter
            | Self::NoSuchInput
            | Self::WrongInputData
            | Self::DataNotAccessible
            | Self::TooManyInputs
            | Self::TooManyOutputs
            | Self::NoSuchMode
            | Self::NoSuchOutput
            | Self::NoSuchFormat
            | Self::NoSuchJob
            | Self::UnknownVersion => ("InvalidParameterValue", 400),
            Self::TooLarge => ("FileSizeExceeded", 400),
            Self::VersionNegotiation => ("VersionNegotiationFailed", 400),
            Self::UpdateSequence => ("InvalidUpdateSequence", 400),
            Self::StorageNotSupported => ("StorageNotSupported", 400),
            Self::NotEnoughStorage => ("NotEnoughStorage", 400),
            Self::ResultNotReady | Self::Malformed => ("NoApplicableCode", 400),
            Self::NotLoggedIn => ("NoApplicableCode", 401),
            Self::Forbidden => ("NoApplicableCode", 403),
            Self::TooManyRequests => ("NoApplicableCode", 429),
            Self::NotFound => ("NoApplicableCode", 404),
            Self::MethodNotAllowed => ("OperationNotSupported", 405),
            Self::TooSlow => ("NoApplicableCode", 408),
            Self::OperationNotSupported => ("OperationNotSupported", 501),
            Self::TooBusy => ("ServerBusy", 503),
            Self::TooManyJobs => ("ServerBusy", 429),
            Self::QuotaFull => ("NotEnoughStorage", 507),
            Self::JobFailed | Self::StillRunning | Self::Internal => ("NoApplicableCode", 500),
        }
    }

    /// Exception code (OGC 14-065r2, exceptions of each operation; OGC 06-121r9 §8.3) and HTTP status on the WPS 2.0 face.
    pub fn wps2(self) -> (&'static str, u16) {
        match self {
            Self::NoSuchProcess => ("NoSuchProcess", 400),
            Self::MissingParameter | Self::MissingInput => ("MissingParameterValue", 400),
            Self::InvalidParameter | Self::UnknownVersion => ("InvalidParameterValue", 400),
            Self::NoSuchInput => ("NoSuchInput", 400),
            Self::WrongInputData => ("WrongInputData", 400),
            Self::DataNotAccessible => ("DataNotAccessible", 400),
            Self::TooManyInputs => ("TooManyInputs", 400),
            Self::TooManyOutputs => ("TooManyOutputs", 400),
            Self::NoSuchOutput => ("NoSuchOutput", 400),
            Self::NoSuchFormat => ("NoSuchFormat", 400),
            Self::NoSuchMode => ("NoSuchMode", 400),
            Self::TooLarge => ("SizeExceeded", 400),
            Self::NoSuchJob => ("NoSuchJob", 400),
            Self::ResultNotReady => ("ResultNotReady", 400),
            Self::VersionNegotiation => ("VersionNegotiationFailed", 400),
            Self::UpdateSequence => ("InvalidUpdateSequence", 400),
            Self::StorageNotSupported => ("StorageNotSupported", 400),
            Self::Malformed => ("NoApplicableCode", 400),
            Self::NotLoggedIn => ("NoApplicableCode", 401),
            Self::Forbidden => ("NoApplicableCode", 403),
            Self::TooManyRequests => ("NoApplicableCode", 429),
            Self::NotFound => ("NoApplicableCode", 404),
            Self::MethodNotAllowed => ("OperationNotSupported", 405),
            Self::TooSlow => ("NoApplicableCode", 408),
            Self::OperationNotSupported => ("OperationNotSupported", 501),
            Self::TooBusy => ("ServerBusy", 503),
            Self::TooManyJobs => ("ServerBusy", 429),
            // The standard has no code of its own for it (RFC 4918 §11.5 has the status).
            Self::QuotaFull => ("NoApplicableCode", 507),
            Self::NotEnoughStorage | Self::JobFailed | Self::StillRunning | Self::Internal => {
                ("InternalServerError", 500)
            }
        }
    }

    /// Code and status on a face.
    pub fn on(self, face: Face) -> (&'static str, u16) {
        match face {
            Face::Wps1 => self.wps1(),
            Face::Wps2 => self.wps2(),
        }
    }
}

impl Fault {
    /// A fault without locator.
    pub fn new(kind: FaultKind, text: impl Into<String>) -> Self {
        Self { kind, locator: None, text: text.into() }
    }

    /// A fault that names who is to blame.
    pub fn at(kind: FaultKind, locator: impl Into<String>, text: impl Into<String>) -> Self {
        Self { kind, locator: Some(locator.into()), text: text.into() }
    }

    /// A mandatory parameter is absent.
    pub fn missing(parameter: &str) -> Self {
        Self::at(FaultKind::MissingParameter, parameter, format!("the parameter `{parameter}` is missing"))
    }

    /// A parameter has an unusable value.
    pub fn invalid(parameter: &str, text: impl Into<String>) -> Self {
        Self::at(FaultKind::InvalidParameter, parameter, text)
    }

    /// The bytes are no request.
    pub fn malformed(text: impl Into<String>) -> Self {
        Self::new(FaultKind::Malformed, text)
    }

    /// Who is to blame, in the words of a face: where 2.0 wants the process, 1.0.0 wants the parameter that names it.
    pub fn locator_on(&self, face: Face) -> Option<&str> {
        match (face, self.kind) {
            (Face::Wps1, FaultKind::NoSuchProcess) => Some("Identifier"),
            // More than one can be wanted in one way only.
            (Face::Wps1, FaultKind::TooManyOutputs) => Some("RawDataOutput"),
            (Face::Wps1, FaultKind::NoSuchJob | FaultKind::ResultNotReady) => Some("executionId"),
            (Face::Wps2, FaultKind::NoSuchJob | FaultKind::ResultNotReady) => Some("JobID"),
            _ => self.locator.as_deref(),
        }
    }

    /// No agent offers this process.
    pub fn no_such_process(id: &str) -> Self {
        Self::at(
            FaultKind::NoSuchProcess,
            clip(id, 200),
            format!("no process `{}` is offered; GetCapabilities lists those that are", clip(id, 200)),
        )
    }

    /// No job has this id (any more).
    pub fn no_such_job(id: &str) -> Self {
        Self::at(
            FaultKind::NoSuchJob,
            "executionId",
            format!("there is no job `{}` (any more)", clip(id, 80)),
        )
    }

    /// How a job failed, as an exception: the standard's code where the agent blames an input.
    pub fn of_failure(failure: &Failure) -> Self {
        match failure.input_fault() {
            Some(("MissingParameterValue", locator)) => {
                Self::at(FaultKind::MissingInput, locator, failure.text())
            }
            Some((_, locator)) => Self::at(FaultKind::WrongInputData, locator, failure.text()),
            None => Self::new(FaultKind::JobFailed, failure.text()),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Fault {}

impl From<Mismatch> for Fault {
    fn from(mismatch: Mismatch) -> Self {
        let text = mismatch.to_string();
        match mismatch {
            Mismatch::UnknownInput { input, .. } => Self::at(FaultKind::NoSuchInput, input, text),
            Mismatch::MissingInput { input, .. } => Self::at(FaultKind::MissingInput, input, text),
            Mismatch::TooManyValues { input, .. } => Self::at(FaultKind::TooManyInputs, input, text),
            Mismatch::BadValue { input, .. } => Self::at(FaultKind::WrongInputData, input, text),
            Mismatch::InputFormat { input, .. } => Self::at(FaultKind::NoSuchFormat, input, text),
            Mismatch::UnknownOutput { output, .. } => Self::at(FaultKind::NoSuchOutput, output, text),
            Mismatch::RawNeedsOne(outputs) => Self::at(FaultKind::TooManyOutputs, outputs, text),
            Mismatch::OutputFormat { output, .. } | Mismatch::OutputEncoding { output, .. } => {
                Self::at(FaultKind::NoSuchFormat, output, text)
            }
        }
    }
}

/// At most `max` characters of a text that a client sent, so that it cannot blow up our answers and logs.
pub fn clip(text: &str, max: usize) -> String {
    match text.char_indices().nth(max) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// A moment as `2026-11-22T04:05:06.789Z`, the form that all four standards take.
pub fn iso_time(at: Timestamp) -> String {
    let millis = i64::try_from(at.0).unwrap_or(i64::MAX);
    match jiff::Timestamp::from_millisecond(millis) {
        Ok(time) => format!("{time:.3}"),
        Err(_) => "9999-12-31T23:59:59.999Z".to_owned(),
    }
}

/// When the state that a document shows began, as far as the job tells.
pub fn state_time(job: &Job) -> Timestamp {
    job.finished().or(job.started).unwrap_or(job.created)
}

#[cfg(test)]
pub(crate) mod fixtures;
#[cfg(test)]
mod tests;
