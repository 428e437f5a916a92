//! Under which terms a job is run: how much of whom may run and wait at once, for how long, where, and in which order. Pure
//! data; which terms somebody has is said by the configuration, and they are applied by the queue.

use std::fmt;

use super::job::UserId;

/// What is counted together.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scope {
    /// All jobs.
    All,
    /// Jobs of all users with this role.
    Role(String),
    /// Jobs of one user.
    User(UserId),
    /// Jobs of the processes of a section `[process …]`.
    Process(String),
    /// The same, of one user.
    UserProcess(UserId, String),
}

impl fmt::Display for Scope {
    /// As the subject of a sentence: `ann has`, `the role guest has`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("the service has"),
            Self::Role(role) => write!(f, "all users with the role `{role}` together have"),
            Self::User(user) if user.is_anonymous() => f.write_str("callers without a login together have"),
            Self::User(user) => write!(f, "`{}` has", user.0),
            Self::Process(name) => write!(f, "the process `{name}` has"),
            Self::UserProcess(user, name) => write!(f, "`{}` has, of the process `{name}`,", user.0),
        }
    }
}

/// A number that may not be exceeded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bound {
    /// Of what.
    pub scope: Scope,
    /// The number.
    pub max: u32,
    /// Where it is set, such as `[limits] max_running_per_user`.
    pub setting: String,
}

/// A time that may not be exceeded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// In milliseconds.
    pub ms: u64,
    /// Where it is set.
    pub setting: String,
}

/// A size that may not be exceeded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Size {
    /// In bytes.
    pub bytes: u64,
    /// Where it is set.
    pub setting: String,
}

/// The terms of one job. The default has no bounds of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    /// The share of its user among those that wait: with 2 twice as many jobs are sent as with 1.
    pub weight: u32,
    /// Jobs of a higher priority go before all others.
    pub priority: i32,
    /// Labels that an agent must have, sorted.
    pub needs: Vec<String>,
    /// How much may run at once.
    pub running: Vec<Bound>,
    /// How much may wait at once.
    pub queued: Vec<Bound>,
    /// Longest time in the queue; `None` = as long as [`super::Limits`] allow.
    pub queue_time: Option<Span>,
    /// Longest time that its program may run.
    pub run_time: Option<Span>,
    /// Longest time from acceptance to the end.
    pub total_time: Option<Span>,
    /// Most that it may give out.
    pub output: Option<Size>,
}

impl Default for Terms {
    fn default() -> Self {
        Self {
            weight: 1,
            priority: 0,
            needs: Vec::new(),
            running: Vec::new(),
            queued: Vec::new(),
            queue_time: None,
            run_time: None,
            total_time: None,
            output: None,
        }
    }
}

/// How many jobs of one scope there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Count {
    /// Sent to an agent and not ended.
    pub running: u32,
    /// In the queue.
    pub queued: u32,
}

/// The jobs of one scope that other orchestrators of the same store have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Elsewhere {
    /// How many.
    pub count: Count,
    /// Orchestrators that have jobs of this scope waiting.
    pub waiting_at: u32,
}
