//! What can befall the parts of a site, and how likely each is. Pure.

use std::time::Duration;

use super::Plan;
use crate::random::Random;

/// A fault, with the number of the orchestrator (node) or agent that it befalls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Fault {
    /// `kill -9`.
    NodeKilled(usize),
    /// SIGTERM: hands its jobs over.
    NodeStopped(usize),
    /// SIGSTOP, and later SIGCONT: its lease runs out, and it does not know.
    NodeHalted(usize),
    /// Its connections to the XMPP server are closed.
    NodeCut(usize),
    /// No byte passes between it and the XMPP server.
    NodeFrozen(usize),
    /// Its connections to the database are closed.
    StoreCut(usize),
    /// No byte passes between it and the database.
    StoreFrozen(usize),
    /// `kill -9`.
    AgentKilled(usize),
    /// `kill -9`, and its fork server too; supervisors live on.
    AgentAndForksKilled(usize),
    /// SIGSTOP, and later SIGCONT.
    AgentHalted(usize),
    /// Its connections to the XMPP server are closed.
    AgentCut(usize),
    /// No byte passes between it and the XMPP server.
    AgentFrozen(usize),
    /// `kill -9`.
    ServerKilled,
    /// As by a crash of its host: what was not committed is lost.
    DatabaseKilled,
}

/// What a fault takes away. Nothing is struck twice at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    Node(usize),
    NodeLink(usize),
    StoreLink(usize),
    Agent(usize),
    AgentLink(usize),
    Server,
    Database,
}

impl Fault {
    /// What it takes away.
    pub(super) fn target(self) -> Target {
        match self {
            Self::NodeKilled(n) | Self::NodeStopped(n) | Self::NodeHalted(n) => Target::Node(n),
            Self::NodeCut(n) | Self::NodeFrozen(n) => Target::NodeLink(n),
            Self::StoreCut(n) | Self::StoreFrozen(n) => Target::StoreLink(n),
            Self::AgentKilled(n) | Self::AgentAndForksKilled(n) | Self::AgentHalted(n) => Target::Agent(n),
            Self::AgentCut(n) | Self::AgentFrozen(n) => Target::AgentLink(n),
            Self::ServerKilled => Target::Server,
            Self::DatabaseKilled => Target::Database,
        }
    }

    /// For the report.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::NodeKilled(_) => "orchestrator killed",
            Self::NodeStopped(_) => "orchestrator stopped in order",
            Self::NodeHalted(_) => "orchestrator halted",
            Self::NodeCut(_) => "orchestrator cut off from XMPP",
            Self::NodeFrozen(_) => "orchestrator's XMPP connection frozen",
            Self::StoreCut(_) => "orchestrator cut off from the database",
            Self::StoreFrozen(_) => "orchestrator's database connections frozen",
            Self::AgentKilled(_) => "agent killed",
            Self::AgentAndForksKilled(_) => "agent and its fork server killed",
            Self::AgentHalted(_) => "agent halted",
            Self::AgentCut(_) => "agent cut off from XMPP",
            Self::AgentFrozen(_) => "agent's XMPP connection frozen",
            Self::ServerKilled => "XMPP server killed",
            Self::DatabaseKilled => "database killed",
        }
    }

    /// The next one, and how long it lasts.
    pub(super) fn draw(random: &mut Random, plan: &Plan) -> (Self, Duration) {
        let (node, agent) = (random.index(plan.nodes), random.index(plan.agents));
        if plan.kills_only {
            return (Self::NodeKilled(node), random.pause(0, plan.longest_ms));
        }
        let fault = random.of(&[
            Self::NodeKilled(node),
            Self::NodeKilled(node),
            Self::NodeStopped(node),
            Self::NodeHalted(node),
            Self::NodeCut(node),
            Self::NodeFrozen(node),
            Self::StoreCut(node),
            Self::StoreFrozen(node),
            Self::AgentKilled(agent),
            Self::AgentKilled(agent),
            Self::AgentAndForksKilled(agent),
            Self::AgentHalted(agent),
            Self::AgentCut(agent),
            Self::AgentFrozen(agent),
            Self::ServerKilled,
            Self::ServerKilled,
            Self::DatabaseKilled,
            Self::DatabaseKilled,
        ]);
        // Most are short; some outlast a lease and several heartbeats, a few the patience of everybody.
        let lasts = match random.below(20) {
            0 => random.pause(16_000, 22_000),
            1..=3 => random.pause(4_000, 10_000),
            _ => random.pause(200, 4_000),
        };
        (fault, lasts.min(Duration::from_millis(plan.longest_ms)))
    }
}
