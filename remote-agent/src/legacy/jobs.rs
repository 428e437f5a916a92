//! Sessions of jobs: what a job says goes out as soon as its occupant and the GeoServer that asked for it are both in the
//! room, its ending until that one has it. The dialect acknowledges a `completed` by `finish`, and an `error` not at all.

use std::collections::VecDeque;
use std::time::Duration;

use wps_remote_protocol::legacy::{self, Order, Report, job_resource};
use wps_remote_protocol::{ErrorKind, ExecutionId, FromAgent, LogLevel, ProcessId};

use super::{Asked, Effect, Heard, Machine, Who, nick_of, outputs};
use crate::engine::Peer;

/// A `completed` is not said again before; GeoServer works through every copy, imports of layers included.
const REPEAT: Duration = Duration::from_secs(10);
/// An `error` that has not come back for so long has arrived.
const SETTLED: Duration = Duration::from_secs(2);
/// Lines of a job that wait for its occupant to be in the room; of more, the oldest are dropped.
const MAX_WAITING: usize = 200;

/// A job of a GeoServer.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) process: ProcessId,
    pub(super) peer: Peer,
    base_url: String,
    /// Its session is open, or being opened.
    open: bool,
    waiting: VecDeque<String>,
    ending: Option<Ending>,
    /// When the ending was said, and in which appearance of the peer.
    said: Option<(Duration, u64)>,
    /// GeoServer wants nothing of it any more.
    aborted: bool,
}

#[derive(Debug)]
struct Ending {
    body: String,
    /// `finish` will answer it.
    answered: bool,
}

impl Job {
    pub(super) fn new(process: ProcessId, peer: Peer, base_url: String) -> Self {
        Self {
            process,
            peer,
            base_url,
            open: false,
            waiting: VecDeque::new(),
            ending: None,
            said: None,
            aborted: false,
        }
    }

    /// Asked for, and neither taken nor refused yet.
    pub(super) fn is_asked(&self) -> bool {
        !self.open
    }
}

impl Machine {
    /// A request was taken: its session opens before its program starts.
    pub fn accepted(&mut self, execution: &ExecutionId) {
        let Some(job) = self.jobs.get_mut(execution) else { return };
        if std::mem::replace(&mut job.open, true) {
            return;
        }
        let resource = job_resource(execution.as_str(), &self.settings.host);
        let nick = legacy::nick(job.process.name(), &self.settings.domain, &resource);
        self.effects.push(Effect::Open {
            who: Who::Job(execution.clone()),
            namespace: job.process.namespace().to_owned(),
            resource,
            nick,
        });
    }

    /// A request was for an execution that is known: there is nothing to add to what it says already.
    pub fn known(&mut self, asked: &Asked) {
        if let Some(execution) = &asked.execution
            && self.jobs.get(execution).is_some_and(Job::is_asked)
        {
            self.jobs.remove(execution);
        }
    }

    /// A job of a former agent, running or ended.
    pub fn adopt(&mut self, execution: ExecutionId, process: ProcessId, peer: Peer, base_url: String) {
        self.jobs.insert(execution.clone(), Job::new(process, peer, base_url));
        self.accepted(&execution);
    }

    /// The engine's report of a job. What it says of processes and load is known here from elsewhere.
    pub fn report(&mut self, message: FromAgent, now: Duration) {
        match message {
            FromAgent::Started { execution } => self.accepted(&execution),
            FromAgent::Progress { execution, percent, message } => {
                if !message.is_empty() {
                    let text = message;
                    self.line(Report::Log { execution: execution.clone(), level: LogLevel::Info, text }, now);
                }
                self.line(Report::Progress { execution, percent }, now);
            }
            FromAgent::Log { execution, level, text } => {
                self.line(Report::Log { execution, level, text }, now);
            }
            FromAgent::Completed { execution, outputs } => {
                let Some(job) = self.jobs.get(&execution) else { return };
                let offer = self.offers.get(&job.process).map(AsRef::as_ref);
                let base_url = job.base_url.clone();
                let written = outputs::write(&outputs, &execution, offer, &self.settings);
                let completed = Report::Completed {
                    execution: execution.clone(),
                    base_url,
                    outputs: written,
                    broken: Vec::new(),
                };
                self.end(&execution, Ending { body: completed.encode(), answered: true }, now);
            }
            FromAgent::Error { execution, error } => {
                let Some(job) = self.jobs.get(&execution) else { return };
                // legacy: the job of an abort leaves without a word.
                if job.aborted && error.kind == ErrorKind::Aborted {
                    return self.done(&execution);
                }
                let text = match &error.receipt {
                    Some(receipt) => format!("{}\n{receipt}", error.text),
                    None => error.text,
                };
                let body = Report::Error { execution: execution.clone(), text }.encode();
                self.end(&execution, Ending { body, answered: false }, now);
            }
            FromAgent::Register(_)
            | FromAgent::Unregister(_)
            | FromAgent::Executions { .. }
            | FromAgent::CannotExecute { .. }
            | FromAgent::Load(_) => {}
        }
    }

    fn line(&mut self, report: Report, now: Duration) {
        let (Report::Log { execution, .. } | Report::Progress { execution, .. }) = &report else { return };
        let execution = execution.clone();
        let Some(job) = self.jobs.get_mut(&execution) else { return };
        if job.ending.is_some() || job.aborted {
            return;
        }
        if job.waiting.len() >= MAX_WAITING {
            job.waiting.pop_front();
        }
        job.waiting.push_back(report.encode());
        self.say_waiting(&Who::Job(execution), now);
    }

    fn end(&mut self, execution: &ExecutionId, ending: Ending, now: Duration) {
        let Some(job) = self.jobs.get_mut(execution) else { return };
        job.ending = Some(ending);
        self.accepted(execution);
        self.say_waiting(&Who::Job(execution.clone()), now);
    }

    /// Says what waits, if both are in the room: what is said before would be bounced and lost.
    pub(super) fn say_waiting(&mut self, who: &Who, now: Duration) {
        let Who::Job(execution) = who else { return };
        let Some(job) = self.jobs.get_mut(execution) else { return };
        let Some(present) = self.present.get(&job.peer).filter(|there| there.seen_by.contains(who)) else {
            return;
        };
        if !self.joined.contains(who) {
            return;
        }
        let to = nick_of(&job.peer).to_owned();
        let mut bodies: Vec<String> = job.waiting.drain(..).collect();
        if let Some(ending) = &job.ending {
            let said = job.said.filter(|(_, appearance)| *appearance == present.appearance);
            if said.is_none_or(|(at, _)| at.saturating_add(REPEAT) <= now) {
                job.said = Some((now, present.appearance));
                bodies.push(ending.body.clone());
            }
        }
        for body in bodies {
            self.say(who.clone(), &to, body);
        }
    }

    /// Something that a session said came back.
    pub fn bounced(&mut self, who: &Who) {
        if let Who::Job(execution) = who
            && let Some(job) = self.jobs.get_mut(execution)
        {
            // The engine repeats endings.
            job.said = None;
        }
    }

    /// A session could not say something, and never will: it is too large, or cannot be written.
    pub fn unsayable(&mut self, who: &Who, body: &str, why: &str, now: Duration) {
        let Who::Job(execution) = who else { return };
        let Some(job) = self.jobs.get_mut(execution) else { return };
        if !job.ending.as_ref().is_some_and(|ending| ending.answered && ending.body == body) {
            return;
        }
        // An ending must arrive in some form, or the job would never end for its client.
        let text = format!(
            "the job ended well, but its outputs do not fit into a message: {why}; a text that large must be declared as a file, such as application/json or text/xml"
        );
        job.said = None;
        let body = Report::Error { execution: execution.clone(), text }.encode();
        self.end(&execution.clone(), Ending { body, answered: false }, now);
    }

    pub(super) fn job_order(&mut self, execution: &ExecutionId, peer: &Peer, order: Order, now: Duration) {
        let Some(job) = self.jobs.get_mut(execution) else { return };
        let absent = !self.present.contains_key(&job.peer);
        // One GeoServer does not end the job of another; one that came back under another name may end its own.
        if *peer != job.peer && !absent {
            return self.complain(format!("{peer} may not order job {execution} of another orchestrator"));
        }
        let job_ended = job.ending.is_some();
        match order {
            // An abort after the ending: GeoServer could not use the outputs.
            Order::Finish | Order::Abort if job_ended => self.done(execution),
            // legacy: `finish` of a running job ends it like `abort`.
            Order::Finish | Order::Abort => {
                job.aborted = true;
                job.waiting.clear();
                self.effects.push(Effect::Tell(Heard::Abort(execution.clone())));
            }
            // Meant for a service; the Python agent's job process knows only the two above.
            Order::Invite | Order::GetLoad | Order::Request(_) => {}
        }
        self.say_waiting(&Who::Job(execution.clone()), now);
    }

    /// Takes note of the time; gives the time at which this wants to be called again.
    pub fn tick(&mut self, now: Duration) -> Option<Duration> {
        let arrived = |job: &Job| {
            let (at, _) = job.said?;
            job.ending.as_ref().filter(|ending| !ending.answered).map(|_| at.saturating_add(SETTLED))
        };
        let due: Vec<ExecutionId> = self
            .jobs
            .iter()
            .filter(|(_, job)| arrived(job).is_some_and(|at| at <= now))
            .map(|(id, _)| id.clone())
            .collect();
        for execution in due {
            self.done(&execution);
        }
        self.jobs.values().filter_map(arrived).min()
    }

    /// GeoServer has the ending, or does not want it.
    fn done(&mut self, execution: &ExecutionId) {
        self.effects.push(Effect::Tell(Heard::Finish(execution.clone())));
        self.forget(execution);
    }

    /// A job is of no interest any more; its occupant leaves.
    pub fn forget(&mut self, execution: &ExecutionId) {
        let who = Who::Job(execution.clone());
        self.out(&who);
        if self.jobs.remove(execution).is_some_and(|job| job.open) {
            self.effects.push(Effect::Close(who));
        }
    }
}
