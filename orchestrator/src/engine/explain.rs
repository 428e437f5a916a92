//! Why a job waits, or runs where it runs, in words for its user and for operators. Worked out when somebody asks, from what
//! is known at that moment.

use super::Engine;
use super::fleet::Unfit;
use super::job::{Job, JobId, JobState, Timestamp, Waiting};
use super::queue::Class;

/// Agents that are described one by one.
const DESCRIBED: usize = 50;

/// The answer to "what about this job?".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// Why it waits, if it does.
    pub waiting: Option<Waiting>,
    /// Everything in words, a line for each thing. Names agents: for its owner only the first line, for operators all.
    pub lines: Vec<String>,
}

impl Engine {
    /// Why a job waits at this moment; `None` = it does not.
    pub fn waiting(&self, id: JobId, now: Timestamp) -> Option<Waiting> {
        let job = self.jobs.get(&id)?;
        let JobState::Accepted { waiting } = &job.state else { return None };
        if let Some(bound) = self.barred(id) {
            let running = self.counts.total(&bound.scope).running;
            let text = match running {
                running if running >= bound.max => format!(
                    "{} {running} job(s) running, and `{}` allows {}",
                    bound.scope, bound.setting, bound.max
                ),
                running => format!(
                    "{} {running} job(s) running; `{}` allows {}, shared with other orchestrators",
                    bound.scope, bound.setting, bound.max
                ),
            };
            return Some(Waiting::Limited(text));
        }
        let class = class(job);
        Some(match self.fleet.unfit(&class, now) {
            Ok(()) => Waiting::Turn,
            Err(None) => Waiting::NoAgent,
            Err(Some(Unfit::Busy)) => Waiting::AllBusy,
            // What it said to this very job is more than what it says of itself.
            Err(Some(Unfit::Refused)) if matches!(waiting, Waiting::Refused(_)) => waiting.clone(),
            Err(Some(Unfit::Unlabelled)) => {
                let lacking = self.fleet.offering(&class.process).find_map(|agent| agent.lacks(&class.needs));
                Waiting::Unlabelled(lacking.unwrap_or_default().to_owned())
            }
            Err(Some(Unfit::Refused | Unfit::NotAccepting | Unfit::Unknown | Unfit::Drained)) => {
                self.fleet.reasons(&job.process, now).map_or(Waiting::NotAccepting, Waiting::Declined)
            }
        })
    }

    /// Why an active job waits, or runs where it runs.
    pub fn explain(&self, id: JobId, now: Timestamp) -> Option<Explanation> {
        let job = self.jobs.get(&id)?;
        let waiting = self.waiting(id, now);
        let mut lines = vec![sentence(job, waiting.as_ref())];
        if waiting.is_some() {
            let class = class(job);
            if let Some((own, others)) = self.queue.before(id) {
                lines.push(format!(
                    "{own} job(s) of the same user and process come first; {others} job(s) of other users wait, \
                     who take turns with this one (weight {}, priority {})",
                    job.terms.weight, job.terms.priority
                ));
            }
            if !class.needs.is_empty() {
                lines.push(format!("it needs an agent with the label(s) {}", class.needs.join(", ")));
            }
            let agents = self.fleet.offering(&class.process).count();
            lines.push(format!("{agents} agent(s) offer the process `{}`", class.process));
            lines.extend(self.fleet.verdicts(&class, now).take(DESCRIBED));
            if agents > DESCRIBED {
                lines.push(format!("… and {} more", agents - DESCRIBED));
            }
        }
        Some(Explanation { waiting, lines })
    }
}

/// What there is to say about a job without looking at the fleet: also when it is not held here, or has ended.
pub fn sentence(job: &Job, waiting: Option<&Waiting>) -> String {
    let at = |agent: &dyn std::fmt::Display| match &job.chosen {
        Some(why) => format!("at the agent `{agent}`, which was chosen as {why}"),
        None => format!("at the agent `{agent}`"),
    };
    match (&job.state, &job.agent) {
        (JobState::Created, _) => "created, not yet started".to_owned(),
        (JobState::Accepted { waiting: stored }, _) => waiting.unwrap_or(stored).to_string(),
        (JobState::Dispatched { execution }, _) => format!("sent, {}", at(&execution.agent)),
        (JobState::Running { execution, lost_since: Some(_), .. }, _) => {
            format!("running {}; the agent is away, and is waited for", at(&execution.agent))
        }
        (JobState::Running { execution, .. }, _) => format!("running {}", at(&execution.agent)),
        (JobState::Dismissing { execution, .. }, _) => format!("being ended {}", at(&execution.agent)),
        (JobState::Successful { .. } | JobState::Failed { .. } | JobState::Dismissed { .. }, Some(agent)) => {
            format!("{}; it ran {}", job.state.name(), at(agent))
        }
        (JobState::Successful { .. } | JobState::Failed { .. } | JobState::Dismissed { .. }, None) => {
            format!("{}; it was at no agent", job.state.name())
        }
    }
}

fn class(job: &Job) -> Class {
    Class { process: job.process.clone(), needs: job.terms.needs.clone() }
}
