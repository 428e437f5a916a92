//! What the operator decides about agents of the old dialect: which rooms, which agents, which folders. Parses texts only.

use std::path::PathBuf;
use std::time::Duration;

use thiserror::Error;

/// Rooms, agents and bounds of the old dialect.
#[derive(Debug, Clone)]
pub struct LegacyConfig {
    /// Namespaces whose rooms are joined; none = the dialect is off.
    pub rooms: Vec<String>,
    /// Whose service processes are believed.
    pub agents: LegacyAgents,
    /// Accounts that they must have, where this is not empty: then rooms must disclose them.
    pub accounts: Vec<String>,
    /// CPU in use (per cent) at which an agent gets no more work.
    pub cpu_threshold: f64,
    /// Memory in use (per cent) at which an agent gets no more work.
    pub memory_threshold: f64,
    /// Thresholds do not count.
    pub force: bool,
    /// Pause between two questions for an agent's load.
    pub heartbeat: Duration,
    /// How long a request may stay without any sign.
    pub accept_timeout: Duration,
    /// How long the occupant of a job may be away before the job counts as lost.
    pub lost_timeout: Duration,
    /// Files of results.
    pub files: LegacyFiles,
}

/// Where the result files of such agents may lie, as seen from this host.
#[derive(Debug, Clone, Default)]
pub struct LegacyFiles {
    /// Nothing outside of these folders is opened.
    pub roots: Vec<PathBuf>,
    /// What relative paths are relative to.
    pub base: Option<PathBuf>,
    /// Beginnings of paths there and what stands for them here.
    pub path_map: Vec<(String, PathBuf)>,
    /// The folder from which results are taken over.
    pub shared: Option<PathBuf>,
}

impl Default for LegacyConfig {
    fn default() -> Self {
        Self {
            rooms: Vec::new(),
            agents: LegacyAgents::default(),
            accounts: Vec::new(),
            cpu_threshold: 82.0,
            memory_threshold: 82.0,
            force: false,
            heartbeat: Duration::from_secs(30),
            accept_timeout: Duration::from_secs(60),
            lost_timeout: Duration::from_secs(300),
            files: LegacyFiles::default(),
        }
    }
}

/// Patterns of agents: `SERVICE@HOST` or `NAMESPACE/SERVICE@HOST`, each part a name or `*`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LegacyAgents(Vec<[String; 3]>);

/// A text that is no pattern of agents.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("`{0}` is not of the form SERVICE@HOST or NAMESPACE/SERVICE@HOST, where each part may be *")]
pub struct PatternError(pub String);

impl LegacyAgents {
    /// Reads a list of patterns.
    pub fn parse(list: &[String]) -> Result<Self, PatternError> {
        let one = |text: &String| {
            let (namespace, rest) = text.split_once('/').unwrap_or(("*", text));
            let (service, host) = rest.split_once('@')?;
            let parts = [namespace, service, host].map(|part| part.trim().to_owned());
            (!parts.iter().any(String::is_empty)).then_some(parts)
        };
        let read = list.iter().map(|text| one(text).ok_or_else(|| PatternError(text.clone())));
        read.collect::<Result<_, _>>().map(Self)
    }

    /// Whether an agent is among them.
    pub fn lists(&self, namespace: &str, service: &str, host: &str) -> bool {
        let matches = |pattern: &String, name: &str| pattern == "*" || pattern.eq_ignore_ascii_case(name);
        self.0.iter().any(|[n, s, h]| matches(n, namespace) && matches(s, service) && matches(h, host))
    }

    /// Whether nobody is.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
