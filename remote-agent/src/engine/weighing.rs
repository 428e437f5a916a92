//! Requests whose weight depends on their inputs: they are weighed first, and taken or refused afterwards. Until then nothing
//! is promised and no capacity taken.

use std::collections::BTreeSet;

use wps_remote_protocol::message::RefusalReason;
use wps_remote_protocol::{ExecutionId, ProcessId, Refusal, Request};

use super::{Action, Actions, Answer, Engine, Execution, Peer, State, admission};

/// Requests that are weighed at a time, at most.
const WEIGHING: usize = 16;

impl Engine {
    /// The processes whose weight must be found out for each request.
    pub fn weigh_first(&mut self, processes: BTreeSet<ProcessId>) {
        self.weighed = processes;
    }

    pub(super) fn weigh(
        &mut self,
        from: Peer,
        request: Request,
        out: &mut Actions,
    ) -> Result<Answer, Refusal> {
        if let Some((asking, _)) = self.weighing.get_mut(&request.execution) {
            *asking = from;
            return Ok(Answer::Later);
        }
        // What would be refused in any case need not be weighed.
        admission::admit(&self.settings, &self.measured, self.draining, &self.usage(), 0.0)?;
        if self.weighing.len() >= WEIGHING {
            let text = format!("{WEIGHING} requests are being weighed already");
            return Err(Refusal { reason: RefusalReason::Load, text });
        }
        let request = Box::new(request);
        self.weighing.insert(request.execution.clone(), (from, request.clone()));
        out.push(Action::Weigh(request));
        Ok(Answer::Later)
    }

    /// The weight of a request is known, or why it cannot be known.
    pub fn weighed(&mut self, id: &ExecutionId, weight: Result<f64, String>, out: &mut Actions) {
        let Some((from, request)) = self.weighing.remove(id) else { return };
        let names_anew = !from.is_legacy();
        let taken = match weight {
            Ok(weight) => self.take(from, request, weight, out),
            Err(why) => {
                let text = format!("the weight of the job is not known: {why}");
                Err(Refusal { reason: RefusalReason::Capacity, text })
            }
        };
        if let Err(refusal) = taken {
            if names_anew {
                self.barred.add(id.clone());
            }
            out.push(Action::Refuse(id.clone(), refusal));
        }
    }

    pub(super) fn take(
        &mut self,
        from: Peer,
        request: Box<Request>,
        weight: f64,
        out: &mut Actions,
    ) -> Result<(), Refusal> {
        admission::admit(&self.settings, &self.measured, self.draining, &self.usage(), weight)?;
        let execution = Execution {
            process: request.process.clone(),
            originator: from.clone(),
            weight,
            state: State::Starting,
        };
        self.executions.insert(request.execution.clone(), execution);
        out.push(Action::Start(from, request));
        self.announce(out);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
