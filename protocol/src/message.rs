//! What an orchestrator says to an agent and what an agent says back: one vocabulary for every dialect, both directions
//! on one screen.

use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::process::{ProcessDescription, ProcessId};
use crate::value::{Inputs, Outputs};

/// From an orchestrator to an agent.
#[derive(Debug, Clone, PartialEq)]
pub enum ToAgent {
    /// Tell me all your processes and executions, and keep me informed.
    Invite {
        /// What the orchestrator believes to run at the agent, at most [`MAX_CLAIMED`]: it owns these executions from now
        /// on, whoever asked for them, and their endings are told to it. One that the agent does not know is named in
        /// [`FromAgent::Executions`] and never started, even if its request should still arrive.
        executions: Vec<ExecutionId>,
    },
    /// Execute a process. Idempotent: a known execution is never started twice.
    Request(Box<Request>),
    /// End an execution: politely, then by force, with everything it started.
    Abort {
        /// Which one.
        execution: ExecutionId,
    },
    /// The ending is stored here; the agent may forget the execution.
    Finish {
        /// Which one.
        execution: ExecutionId,
    },
    /// There is no such job here. Answers an ending, in the place of [`ToAgent::Finish`]: only the orchestrator that asked for
    /// the execution can say by it that nobody waits for the ending.
    Unknown {
        /// Which one.
        execution: ExecutionId,
    },
    /// The job of an ending belongs to another orchestrator, perhaps one that has just died: it must be told again, to
    /// everybody if this one was believed to have the job.
    Elsewhere {
        /// Which one.
        execution: ExecutionId,
    },
    /// Tell me your load.
    GetLoad,
}

/// Most executions that one invitation names: they fit into one payload.
pub const MAX_CLAIMED: usize = 2_000;

/// From an agent to an orchestrator.
#[derive(Debug, Clone, PartialEq)]
pub enum FromAgent {
    /// A process is offered, or its description has changed.
    Register(Box<ProcessDescription>),
    /// A process is no longer offered; its running executions go on.
    Unregister(ProcessId),
    /// Answers an invitation.
    Executions {
        /// Every execution that the agent still holds: running, or ended and not yet finished.
        held: Vec<ExecutionId>,
        /// Those of the invitation that it does not hold: they are lost, and will never be started.
        unknown: Vec<ExecutionId>,
    },
    /// The agent has started the execution's program.
    Started {
        /// Which one.
        execution: ExecutionId,
    },
    /// How far it is.
    Progress {
        /// Which one.
        execution: ExecutionId,
        /// 0 to 100.
        percent: f64,
        /// Text that came with it; may be empty.
        message: String,
    },
    /// A line for the job's log.
    Log {
        /// Which one.
        execution: ExecutionId,
        /// How bad.
        level: LogLevel,
        /// The text.
        text: String,
    },
    /// It ended well. Repeated until [`ToAgent::Finish`].
    Completed {
        /// Which one.
        execution: ExecutionId,
        /// All outputs.
        outputs: Outputs,
    },
    /// It ended badly, or was ended. Repeated until [`ToAgent::Finish`].
    Error {
        /// Which one.
        execution: ExecutionId,
        /// How.
        error: ExecutionError,
    },
    /// The request was refused; nothing was started.
    CannotExecute {
        /// Which one.
        execution: ExecutionId,
        /// Why.
        refusal: Refusal,
    },
    /// What the agent's host can take.
    Load(Load),
}

/// One execution that an orchestrator asks for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// Names this attempt everywhere: folder, log, messages.
    pub execution: ExecutionId,
    /// What to run.
    pub process: ProcessId,
    /// With what.
    #[serde(default)]
    pub inputs: Inputs,
    /// Public address of the orchestrator's service, for programs that link back; may be empty.
    #[serde(default)]
    pub base_url: String,
}

/// Names one attempt to run a job. `[A-Za-z0-9._-]{1,64}`, not starting with a dot: it becomes a folder and an address.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ExecutionId(String);

/// A text that cannot be an execution id.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("`{0}` is not an execution id: 1 to 64 of A-Z a-z 0-9 . _ - are allowed, and no leading dot")]
pub struct ExecutionIdError(String);

impl ExecutionId {
    /// Checks the text.
    pub fn new(text: &str) -> Result<Self, ExecutionIdError> {
        let good = (1..=64).contains(&text.len())
            && !text.starts_with('.')
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
        if good { Ok(Self(text.to_owned())) } else { Err(ExecutionIdError(text.chars().take(80).collect())) }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ExecutionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for ExecutionId {
    type Error = ExecutionIdError;
    fn try_from(text: String) -> Result<Self, ExecutionIdError> {
        Self::new(&text)
    }
}

impl From<ExecutionId> for String {
    fn from(id: ExecutionId) -> String {
        id.0
    }
}

/// How an execution ended when it did not complete.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExecutionError {
    /// Which way.
    pub kind: ErrorKind,
    /// One line for people, then the end of the program's output; at most 16 KiB.
    pub text: String,
    /// What was ended, when signals were sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receipt: Option<Box<KillReceipt>>,
}

/// The ways in which an execution can fail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// The program ended with this exit code.
    Exited(i32),
    /// The program was ended by this signal, not by us.
    Signalled(i32),
    /// It ran longer than allowed and was ended.
    TimedOut,
    /// The program could not be started.
    NotStarted,
    /// It ended well but this output was not written, or is not acceptable.
    OutputMissing(String),
    /// An input's value is not acceptable: a WPS exception code and the input's id.
    InvalidInput {
        /// `MissingParameterValue` or `InvalidParameterValue`.
        code: String,
        /// The input's id.
        locator: String,
    },
    /// It was ended because the orchestrator asked for it.
    Aborted,
    /// The program reported a fatal condition in its output.
    Reported,
    /// The agent knows that the execution's fate cannot be known any more.
    Lost,
}

/// What was found and ended when an execution was killed.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KillReceipt {
    /// When the first signal was sent, in milliseconds since 1970; 0 = unknown.
    pub at_ms: i64,
    /// Milliseconds from then to the end of the last process.
    pub took_ms: u64,
    /// Milliseconds from the first signal to force; absent = none was needed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub forced_after_ms: Option<u64>,
    /// How many processes were found.
    pub found: u32,
    /// How many of them have ended.
    pub ended: u32,
    /// How many processes got the polite signal.
    pub asked: u32,
    /// How many had to be killed by force.
    pub forced: u32,
    /// Processes that were still there at the end, each as `pid name state`; empty = none.
    pub survivors: Vec<String>,
}

impl fmt::Display for KillReceipt {
    /// One line for people.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { at_ms: _, took_ms, forced_after_ms, found, ended, asked, forced, survivors } = self;
        write!(f, "{found} process(es) found, {ended} ended within {took_ms} ms: {asked} asked to end")?;
        if let Some(after) = forced_after_ms {
            write!(f, ", {forced} killed after {after} ms")?;
        }
        match survivors.as_slice() {
            [] => write!(f, "; none is left"),
            some => write!(f, "; still there: {}", some.join(", ")),
        }
    }
}

/// Why an agent does not take a request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Refusal {
    /// What kind of reason.
    pub reason: RefusalReason,
    /// The reason in words.
    pub text: String,
}

/// Kinds of refusal; the first four pass with time, the others do not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusalReason {
    /// All capacity is in use.
    Capacity,
    /// CPU or memory is over the threshold.
    Load,
    /// A program of the blacklist runs.
    Blacklist,
    /// The agent takes no new work.
    Draining,
    /// The agent does not offer the process (any more).
    NoSuchProcess,
    /// The message could not be delivered or understood.
    Undeliverable,
}

/// How bad a log line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogLevel {
    /// Detail.
    Debug,
    /// Normal.
    Info,
    /// Worth a look.
    Warning,
    /// Bad.
    Error,
}

impl fmt::Display for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Debug => "DEBUG",
            Self::Info => "INFO",
            Self::Warning => "WARNING",
            Self::Error => "ERROR",
        })
    }
}

/// What an agent's host can take, at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Load {
    /// CPU in use over all cores, 0 to 100.
    pub cpu_percent: f64,
    /// Memory in use, 0 to 100.
    pub memory_percent: f64,
    /// Cores of the host (or of its container).
    pub cores: u32,
    /// Capacity in units of weight.
    pub capacity: f64,
    /// Units in use by running executions.
    pub used: f64,
    /// Running executions.
    pub running: u32,
    /// Hard cap of running executions; `None` = only capacity counts.
    pub max_running: Option<u32>,
    /// Whether new work is taken.
    pub accepting: bool,
    /// What somebody should look after on the host, such as a disk that is nearly full; one line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warning: Option<String>,
    /// Why not, while it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refusing: Option<Refusal>,
    /// What its administrator says the host is good for, such as `gpu`: jobs can be bound to it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn execution_ids_cannot_climb() {
        assert!(ExecutionId::new("0123456789abcdef-2").is_ok());
        for bad in ["", ".", "..", "../x", "a/b", "a b", "ä", &"x".repeat(65)] {
            assert!(ExecutionId::new(bad).is_err(), "{bad}");
        }
    }
}
