//! Executions that are over, or that must never begin: remembered for a while, so that a late request for one is recognised.

use std::collections::{HashSet, VecDeque};

use wps_remote_protocol::message::RefusalReason;
use wps_remote_protocol::{ExecutionId, Refusal};

/// The newest of so many ids.
#[derive(Debug)]
pub(super) struct Memory {
    most: usize,
    known: HashSet<ExecutionId>,
    order: VecDeque<ExecutionId>,
}

impl Memory {
    pub(super) fn new(most: usize) -> Self {
        Self { most, known: HashSet::new(), order: VecDeque::new() }
    }

    pub(super) fn holds(&self, id: &ExecutionId) -> bool {
        self.known.contains(id)
    }

    /// Remembers it, and lets the oldest go.
    pub(super) fn add(&mut self, id: ExecutionId) {
        if self.known.insert(id.clone()) {
            self.order.push_back(id);
        }
        if self.order.len() > self.most
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
    }
}

/// What is answered to a request for an execution that was refused, given up or called unknown before: its orchestrator may
/// have sent the job elsewhere since.
pub(super) fn too_late() -> Refusal {
    let text =
        "this execution was refused or given up before; a job is sent again under another execution id";
    Refusal { reason: RefusalReason::Capacity, text: text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_is_forgotten() {
        let mut memory = Memory::new(2);
        let id = |n: u8| ExecutionId::new(&format!("e{n}")).unwrap();
        for n in [1, 2, 2, 1, 3] {
            memory.add(id(n));
        }
        assert_eq!([1, 2, 3].map(|n| memory.holds(&id(n))), [false, true, true]);
    }
}
