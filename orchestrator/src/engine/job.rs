//! A job and its life: what a client asked for, in which state it is, how it ended. Pure data and the transitions between
//! states; knows no clock, no store and no document format.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use wps_remote_protocol::{
    AgentId, Content, ErrorKind, ExecutionError, ExecutionId, Inputs, KillReceipt, LogLevel, Outputs,
    ProcessDescription, ProcessId, Value,
};

pub use super::terms::{Bound, Count, Elsewhere, Scope, Size, Span, Terms};

/// Milliseconds since 1970-01-01T00:00:00Z. Always an argument here, never read from a clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// So many milliseconds later.
    pub fn plus_ms(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }

    /// The same moment after the wall clock was set by so many milliseconds.
    pub fn shifted_ms(self, by: i64) -> Self {
        Self(self.0.saturating_add_signed(by))
    }

    /// Milliseconds from `earlier` to here; 0 when the wall clock jumped back.
    pub fn since_ms(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// Names a job on every face: 128 random bits in the form of a UUID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct JobId(uuid::Uuid);

/// A text that is no job id.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("`{0}` is not a job id")]
pub struct JobIdError(String);

impl JobId {
    /// From 128 bits that the caller made.
    pub fn new(id: uuid::Uuid) -> Self {
        Self(id)
    }

    /// The execution id of the n-th time that this job is sent to an agent, counted from 1.
    pub fn execution(self, sent: u32) -> ExecutionId {
        let text =
            if sent <= 1 { self.0.simple().to_string() } else { format!("{}-{sent}", self.0.simple()) };
        ExecutionId::new(&text).expect("hexadecimal digits and a dash are always allowed")
    }

    /// The job of an execution, if its id has the form that [`JobId::execution`] gives.
    pub fn of_execution(execution: &ExecutionId) -> Option<Self> {
        let text = execution.as_str();
        let (id, sent) = (text.get(..32)?, text.get(32..)?);
        let plain =
            sent.is_empty() || sent.strip_prefix('-').is_some_and(|n| n.parse::<u32>().is_ok_and(|n| n > 1));
        uuid::Uuid::try_parse(id).ok().filter(|_| plain).map(Self)
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

impl FromStr for JobId {
    type Err = JobIdError;
    fn from_str(text: &str) -> Result<Self, JobIdError> {
        let hyphenated = text.len() == 36 && text.is_ascii();
        match uuid::Uuid::try_parse(text) {
            Ok(id) if hyphenated => Ok(Self(id)),
            _ => Err(JobIdError(text.chars().take(80).collect())),
        }
    }
}

/// Who owns a job; `anonymous` where nobody is asked to log in.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UserId(pub String);

impl UserId {
    /// The owner of jobs where nobody logs in.
    pub fn anonymous() -> Self {
        Self("anonymous".to_owned())
    }

    /// Whether nobody in particular is meant.
    pub fn is_anonymous(&self) -> bool {
        self.0 == "anonymous"
    }
}

/// What a client asked for beside the inputs: the shape of the answer. Stored, because status documents repeat it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Form {
    /// One output's bytes, or a document about all of them.
    pub raw: bool,
    /// The answer may come before the end; the document is kept (WPS 1.0.0 `storeExecuteResponse`).
    pub store: bool,
    /// The kept document is renewed while the job runs (WPS 1.0.0 `status`).
    pub status: bool,
    /// The document repeats the request's inputs and outputs.
    pub lineage: bool,
    /// Wanted outputs; empty = all.
    pub outputs: Vec<OutputRequest>,
}

/// One wanted output.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct OutputRequest {
    /// Its identifier.
    pub id: String,
    /// A link instead of the bytes.
    pub as_reference: bool,
    /// Wanted MIME type.
    pub media_type: Option<String>,
    /// Wanted encoding.
    pub encoding: Option<String>,
    /// Wanted schema.
    pub schema: Option<String>,
    /// Wanted unit of measure.
    pub uom: Option<String>,
}

/// A job, as it is stored and as every face sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// Its name.
    pub id: JobId,
    /// What it runs.
    pub process: ProcessId,
    /// The description at the time of its acceptance, so that documents stay right when the process has gone.
    pub description: Arc<ProcessDescription>,
    /// Whose it is.
    pub owner: UserId,
    /// With what.
    pub inputs: Inputs,
    /// Which answer was asked for.
    pub form: Form,
    /// When it was accepted.
    pub created: Timestamp,
    /// When its program started for the first time.
    pub started: Option<Timestamp>,
    /// Where it is.
    pub state: JobState,
    /// The newest lines of its log, at most [`MAX_LOG_LINES`].
    pub log: Vec<LogLine>,
    /// When the job and its results will be forgotten, once that is known.
    #[serde(default)]
    pub expires: Option<Timestamp>,
    /// Attempts so far that may have been begun.
    pub attempts: u8,
    /// How often it was sent to an agent so far, refusals counted. Each time has an execution id of its own: an old request
    /// that turns up late can be told from the newest.
    #[serde(default)]
    pub sent: u32,
    /// The agent of the last attempt, also when the job has ended.
    #[serde(default)]
    pub agent: Option<AgentId>,
    /// The role by whose limits it was accepted, if its owner has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// Its limits, as the configuration has them now; not stored.
    #[serde(skip)]
    pub terms: Arc<Terms>,
    /// Why the agent of the last attempt was chosen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chosen: Option<String>,
    /// The limit for which it is being ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overdue: Option<Failure>,
    /// Grows with each stored change.
    pub version: u64,
}

/// Longest log that a job keeps, in lines; the oldest ones go.
pub const MAX_LOG_LINES: usize = 200;

/// One line of a job's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// When it arrived here.
    pub at: Timestamp,
    /// How bad.
    pub level: LogLevel,
    /// The text.
    pub text: String,
}

/// Where a job is. A variant holds exactly what exists then; the last three are final.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    /// Told, not yet started (UWS PENDING).
    Created,
    /// In our queue.
    Accepted {
        /// Why it waits.
        waiting: Waiting,
    },
    /// Sent to an agent that has not said yet that it runs.
    Dispatched {
        /// Where and when.
        execution: Execution,
    },
    /// The program runs.
    Running {
        /// Where and when.
        execution: Execution,
        /// 0 to 100, never falling.
        percent: u8,
        /// What the program said last about its progress; may be empty.
        message: String,
        /// Since when the agent has not been seen, if it is away.
        lost_since: Option<Timestamp>,
    },
    /// A client gave it up; the agent has been told, or will be as soon as it is back.
    Dismissing {
        /// Where and when.
        execution: Execution,
        /// When the client asked.
        since: Timestamp,
    },
    /// Ended well.
    Successful {
        /// What came out; files are named below the result store.
        outputs: Outputs,
        /// When.
        finished: Timestamp,
    },
    /// Ended badly.
    Failed {
        /// How.
        failure: Failure,
        /// When.
        finished: Timestamp,
    },
    /// Given up by a client, and ended.
    Dismissed {
        /// When.
        finished: Timestamp,
        /// What the agent ended, if it ran.
        receipt: Option<KillReceipt>,
    },
}

impl JobState {
    /// Whether nothing can change any more.
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Successful { .. } | Self::Failed { .. } | Self::Dismissed { .. })
    }

    /// The attempt that is on its way, if any.
    pub fn execution(&self) -> Option<&Execution> {
        match self {
            Self::Dispatched { execution }
            | Self::Running { execution, .. }
            | Self::Dismissing { execution, .. } => Some(execution),
            Self::Created
            | Self::Accepted { .. }
            | Self::Successful { .. }
            | Self::Failed { .. }
            | Self::Dismissed { .. } => None,
        }
    }

    /// One word for lists, metrics and the store's index.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Accepted { .. } => "accepted",
            Self::Dispatched { .. } => "dispatched",
            Self::Running { .. } => "running",
            Self::Dismissing { .. } => "dismissing",
            Self::Successful { .. } => "successful",
            Self::Failed { .. } => "failed",
            Self::Dismissed { .. } => "dismissed",
        }
    }
}

impl Job {
    /// When it ended, if it has.
    pub fn finished(&self) -> Option<Timestamp> {
        match &self.state {
            JobState::Successful { finished, .. }
            | JobState::Failed { finished, .. }
            | JobState::Dismissed { finished, .. } => Some(*finished),
            _ => None,
        }
    }

    /// 0 to 100 as far as known: 100 only after success.
    pub fn percent(&self) -> u8 {
        match &self.state {
            JobState::Running { percent, .. } => (*percent).min(99),
            JobState::Successful { .. } => 100,
            _ => 0,
        }
    }

    /// Bytes that are kept for it: its inputs as far as they are kept, and its results.
    pub fn stored_bytes(&self) -> u64 {
        let size = |value: &Value| match value.resolved() {
            Value::Complex { content: Content::Shared(file), .. } => (0, file.bytes),
            other => (u64::try_from(other.inline_bytes()).unwrap_or(u64::MAX), 0),
        };
        let sum = |sizes: &mut dyn Iterator<Item = u64>| sizes.fold(0_u64, u64::saturating_add);
        // What was staged in the shared folder goes with the end, unless documents repeat it.
        let staged = !self.state.is_final() || self.form.lineage;
        let inputs = sum(&mut self.inputs.iter().map(|input| {
            let (inline, file) = size(&input.value);
            if staged { inline.saturating_add(file) } else { inline }
        }));
        let JobState::Successful { outputs, .. } = &self.state else { return inputs };
        let outputs = sum(&mut outputs.iter().map(|output| {
            let (inline, file) = size(&output.value);
            inline.saturating_add(file)
        }));
        inputs.saturating_add(outputs)
    }

    /// Appends a line to the log and lets the oldest go.
    pub fn note(&mut self, at: Timestamp, level: LogLevel, text: impl Into<String>) {
        self.log.push(LogLine { at, level, text: text.into() });
        if self.log.len() > MAX_LOG_LINES {
            self.log.drain(..self.log.len() - MAX_LOG_LINES);
        }
    }
}

/// Why an accepted job has not been sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Waiting {
    /// It is its turn in a moment.
    Turn,
    /// No agent offers the process at present.
    NoAgent,
    /// Every agent that offers it is full.
    AllBusy,
    /// Every agent that offers it reports too much load or takes no work.
    NotAccepting,
    /// Every agent that offers it takes no new work, for these reasons.
    Declined(String),
    /// An agent refused it just now; others or a later moment are tried.
    Refused(String),
    /// As many jobs run as a limit allows.
    Limited(String),
    /// No agent that offers the process has this label.
    Unlabelled(String),
}

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Turn => f.write_str("waiting for its turn"),
            Self::NoAgent => f.write_str("waiting: no agent that offers this process is online"),
            Self::AllBusy => f.write_str("waiting: all agents that offer this process are busy"),
            Self::NotAccepting => {
                f.write_str("waiting: the agents that offer this process are overloaded or take no new work")
            }
            Self::Declined(why) => {
                write!(f, "waiting: no agent that offers this process takes new work now ({why})")
            }
            Self::Refused(why) => {
                write!(f, "waiting: an agent refused the job ({why}); it will be tried again")
            }
            Self::Limited(why) => write!(f, "waiting: {why}"),
            Self::Unlabelled(label) => {
                write!(f, "waiting: no agent that offers this process has the label `{label}` that it needs")
            }
        }
    }
}

/// One attempt to run a job at one agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Execution {
    /// Its name on the wire.
    pub id: ExecutionId,
    /// Where.
    pub agent: AgentId,
    /// Counted from 1.
    pub attempt: u8,
    /// When it was sent.
    pub sent: Timestamp,
}

/// How a job ended badly.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Failure {
    /// The agent's account of it.
    Execution(ExecutionError),
    /// Its agent vanished and did not come back in time.
    AgentLost(AgentId),
    /// It waited too long for an agent.
    NoAgent,
    /// Its results could not be taken over from the shared folder.
    Results(String),
    /// The orchestrator cannot know how it ended.
    Interrupted(String),
    /// A limit ended it.
    Overdue(String),
}

impl Failure {
    /// The failure in words, for clients.
    pub fn text(&self) -> String {
        match self {
            Self::Execution(error) => error.text.clone(),
            Self::AgentLost(agent) => {
                format!("the agent `{agent}` that ran the job vanished and did not come back in time")
            }
            Self::NoAgent => "no agent that offers this process came online in time".to_owned(),
            Self::Results(why) => format!("the results could not be taken over: {why}"),
            Self::Interrupted(why) => format!("the job was interrupted: {why}"),
            Self::Overdue(why) => why.clone(),
        }
    }

    /// The WPS exception code and the locator that fit (OGC 05-007r7 §10.3.3 table 62).
    pub fn input_fault(&self) -> Option<(&str, &str)> {
        match self {
            Self::Execution(ExecutionError { kind: ErrorKind::InvalidInput { code, locator }, .. }) => {
                Some((code, locator))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn job_ids_are_hyphenated_uuids_only() {
        let text = "67e55044-10b1-426f-9247-bb680e5fe0c8";
        let id: JobId = text.parse().unwrap();
        assert_eq!(id.to_string(), text);
        assert_eq!(id.execution(1).as_str(), "67e5504410b1426f9247bb680e5fe0c8");
        assert_eq!(id.execution(3).as_str(), "67e5504410b1426f9247bb680e5fe0c8-3");
        for attempt in [1, 2, 255, 70_000] {
            assert_eq!(JobId::of_execution(&id.execution(attempt)), Some(id));
        }
        for other in ["x", "67e5504410b1426f9247bb680e5fe0c8-", "67e5504410b1426f9247bb680e5fe0c83"] {
            assert_eq!(JobId::of_execution(&ExecutionId::new(other).unwrap()), None, "{other}");
        }
        for bad in
            ["", "x", "67e5504410b1426f9247bb680e5fe0c8", "{67e55044-10b1-426f-9247-bb680e5fe0c8}", "../.."]
        {
            assert!(bad.parse::<JobId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn an_unreachable_clock_step_is_no_negative_time() {
        assert_eq!(Timestamp(5).since_ms(Timestamp(9)), 0);
    }
}
