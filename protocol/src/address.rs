//! Who is who on the bus: the name of an agent and the conventions for rooms and nicknames. Parses texts only.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Local part of the room in which orchestrators and native agents meet, unless configured otherwise.
pub const MANAGEMENT_ROOM: &str = "management";

/// Names an agent among all that an orchestrator sees: its nickname in the management room.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct AgentId(String);

impl AgentId {
    /// From an occupant's nickname.
    pub fn new(nick: impl Into<String>) -> Self {
        Self(nick.into())
    }

    /// The nickname.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for AgentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The nickname of an agent: its account and its host, so that one look at the room tells both.
pub fn agent_nick(user: &str, host: &str) -> String {
    format!("{user}@{host}")
}
