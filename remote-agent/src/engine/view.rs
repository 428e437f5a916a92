//! What an operator may see of the engine. Changes nothing.

use wps_remote_protocol::{ExecutionId, ProcessId};

use super::{Engine, Peer, State};

/// An execution as an operator may see it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct View<'a> {
    /// Which one.
    pub id: &'a ExecutionId,
    /// Of which process.
    pub process: &'a ProcessId,
    /// For whom.
    pub originator: &'a Peer,
    /// Units of capacity that it takes or took.
    pub weight: f64,
    /// How far it is.
    pub phase: Phase,
}

/// Where an execution is in its life.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Phase {
    /// Not yet running.
    Starting,
    /// Running, with its last progress.
    Running(Option<f64>),
    /// Over, and not yet stored by an orchestrator.
    Ended,
}

impl Engine {
    /// Whether no new work is taken until [`Engine::drain`] says otherwise.
    pub fn draining(&self) -> bool {
        self.draining
    }

    /// What is offered, in the order of identifiers.
    pub fn processes(&self) -> impl Iterator<Item = &ProcessId> {
        self.processes.keys()
    }

    /// Orchestrators that have invited this agent and are present.
    pub fn subscribers(&self) -> impl Iterator<Item = &Peer> {
        self.subscribers.iter()
    }

    /// Units of capacity that an execution takes.
    pub fn weight_of(&self, execution: &ExecutionId) -> Option<f64> {
        self.executions.get(execution).map(|execution| execution.weight)
    }

    /// Everything held, to look at.
    pub fn view(&self) -> impl Iterator<Item = View<'_>> {
        self.executions.iter().map(|(id, execution)| View {
            id,
            process: &execution.process,
            originator: &execution.originator,
            weight: execution.weight,
            phase: match execution.state {
                State::Starting => Phase::Starting,
                State::Running { percent } => Phase::Running(percent),
                State::Ended(_) => Phase::Ended,
            },
        })
    }
}
