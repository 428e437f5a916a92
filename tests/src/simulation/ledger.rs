//! What must be true: an account of every job and every run of a program, kept apart from both engines, and the invariants that
//! are checked against it at every step and at the end.

use std::collections::BTreeMap;
use std::sync::Arc;

use wps_orchestrator::engine::job::{Failure, Job, JobId, JobState};
use wps_orchestrator::store::Lease;
use wps_remote_protocol::{Content, ErrorKind, ExecutionId, ProcessDescription, ToAgent, Value};

use super::host::Exit;
use super::node::agent_number;
use super::plan::{Fate, Kind};
use super::world::{CAPACITY, MAX_RUNNING, Sabotage, World, description};

/// How far clocks may be off, in milliseconds: a step below it counts as trimming.
const TRIMMING_MS: u64 = 2_500;

#[derive(Debug)]
struct Account {
    kind: Kind,
    length_ms: u32,
    fate: Fate,
    submitted: u64,
    accepted: bool,
    dismissal_wanted: bool,
    /// The client was told that the job is being ended.
    dismissed: bool,
    runs: u32,
}

#[derive(Debug, Default)]
struct Run {
    starts: u32,
    exit: Option<Exit>,
}

/// The account.
#[derive(Debug, Default)]
pub struct Ledger {
    jobs: BTreeMap<JobId, Account>,
    runs: BTreeMap<ExecutionId, Run>,
    complaint: Option<String>,
}

impl Ledger {
    /// A client asks for a job.
    pub fn submitted(&mut self, id: JobId, kind: Kind, length_ms: u32, fate: Fate, now: u64) {
        let account = Account {
            kind,
            length_ms,
            fate,
            submitted: now,
            accepted: false,
            dismissal_wanted: false,
            dismissed: false,
            runs: 0,
        };
        self.jobs.insert(id, account);
    }

    /// What it runs.
    pub fn description(&self, id: JobId) -> Option<Arc<ProcessDescription>> {
        self.jobs.get(&id).map(|job| Arc::new(description(job.kind)))
    }

    /// What its program does.
    pub fn program(&self, id: JobId) -> Option<(u32, Fate)> {
        self.jobs.get(&id).map(|job| (job.length_ms, job.fate))
    }

    fn complain(&mut self, what: impl Into<String>) {
        self.complaint.get_or_insert(what.into());
    }

    /// What is wrong, if anything is.
    pub fn complaint(&mut self) -> Option<String> {
        self.complaint.take()
    }

    /// The client was told that its job is accepted.
    pub fn accepted(&mut self, id: JobId, _now: u64, stored: bool) {
        if !stored {
            self.complain(format!("a client was told that job {id} is accepted before it was stored"));
        }
        if let Some(job) = self.jobs.get_mut(&id) {
            job.accepted = true;
        }
    }

    /// The client was told that nothing was accepted.
    pub fn turned_away(&mut self, id: JobId) {
        if self.jobs.get(&id).is_some_and(|job| job.accepted) {
            self.complain(format!("job {id} was accepted and turned away"));
        }
    }

    /// The client was told nothing.
    pub fn unanswered(&mut self, id: JobId) {
        self.turned_away(id);
    }

    /// A client wants the end of a job.
    pub fn dismissal_wanted(&mut self, id: JobId) {
        if let Some(job) = self.jobs.get_mut(&id) {
            job.dismissal_wanted = true;
        }
    }

    /// It is stored that it does. The job may end by itself before anybody reads that.
    pub fn dismissal_asked(&mut self, id: JobId) {
        self.dismissal_wanted(id);
    }

    /// The client was told that its job is being ended.
    pub fn dismissal_confirmed(&mut self, id: JobId, stored: Option<&JobState>) {
        match stored {
            Some(JobState::Dismissing { .. } | JobState::Dismissed { .. }) => {
                if let Some(job) = self.jobs.get_mut(&id) {
                    job.dismissed = true;
                }
            }
            Some(state) if state.is_final() => {}
            // Turned away in the same step.
            None => {}
            Some(state) => self.complain(format!(
                "the dismissal of job {id} was confirmed before it was stored ({})",
                state.name()
            )),
        }
    }

    /// A program was started.
    pub fn runs(&mut self, execution: &ExecutionId) {
        let run = self.runs.entry(execution.clone()).or_default();
        run.starts += 1;
        if run.starts > 1 {
            self.complain(format!("execution {execution} was run twice"));
        }
        let Some(job) = JobId::of_execution(execution).and_then(|id| self.jobs.get_mut(&id)) else { return };
        job.runs += 1;
        match job.kind {
            Kind::Repeatable if job.runs > 3 => {
                self.complain(format!("a repeatable job was run too often: {execution}"))
            }
            Kind::Once | Kind::Heavy if job.runs > 1 => {
                self.complain(format!("a job that must not be repeated was run twice: {execution}"));
            }
            _ => {}
        }
    }

    /// It has ended.
    pub fn ended(&mut self, execution: &ExecutionId, exit: Exit) {
        self.runs.entry(execution.clone()).or_default().exit = Some(exit);
    }

    /// Programs that were started.
    pub fn all_runs(&self) -> u64 {
        self.runs.values().map(|run| u64::from(run.starts)).sum()
    }
}

/// The stored job of an execution, and whether this is its live one.
fn is_live(job: &Job, execution: &ExecutionId) -> bool {
    job.state.execution().is_some_and(|live| live.id == *execution)
}

impl World {
    fn stored(&self, execution: &ExecutionId) -> Option<&Job> {
        self.store.load(JobId::of_execution(execution)?)
    }

    /// A node is about to store jobs.
    pub(super) fn check_saves(&mut self, n: usize, lease: Lease, jobs: &[Job]) {
        if !self.store.holds(lease) && self.sabotage != Sabotage::IgnoreTheLease {
            return;
        }
        for job in jobs {
            if let Some(row) = self.store.rows.get(&job.id) {
                let known = &row.job;
                if known.state.is_final() && known.state != job.state {
                    return self.violated(format!(
                        "the final state of job {} changed from {} to {}",
                        job.id,
                        known.state.name(),
                        job.state.name()
                    ));
                }
                // Once more, after a commit whose answer was lost: it was judged then.
                if known.state.is_final() {
                    continue;
                }
            }
            self.check_ending(n, job);
        }
    }

    /// A job ends: is there a reason?
    fn check_ending(&mut self, n: usize, job: &Job) {
        let (now, id) = (self.now, job.id);
        let live = self.store.load(id).and_then(|known| known.state.execution()).map(|live| live.id.clone());
        let runs = live.as_ref().is_some_and(|live| {
            self.hosts.iter().any(|host| host.disk.get(live).is_some_and(|folder| folder.running.is_some()))
        });
        let Some(account) = self.ledger.jobs.get(&id) else { return };
        let fault = match &job.state {
            JobState::Successful { .. }
            | JobState::Failed { failure: Failure::Execution(_), .. }
            | JobState::Dismissed { receipt: Some(_), .. }
                if runs =>
            {
                Some("its program still runs".to_owned())
            }
            JobState::Dismissed { .. } if !account.dismissal_wanted => {
                Some("nobody wanted its end".to_owned())
            }
            JobState::Failed { failure: Failure::AgentLost(agent), .. } => {
                let process = self.nodes[n].process.as_ref();
                let heard = process.and_then(|p| p.heard_at.get(&agent_number(agent)).copied()).unwrap_or(0);
                let known = process.and_then(|p| p.engine.fleet().agent(agent));
                let heard = if known.is_some_and(|agent| agent.ready) { now } else { heard };
                let silent = now.saturating_sub(heard);
                (silent + TRIMMING_MS < self.limits.agent_lost_ms)
                    .then(|| format!("its agent was taken for lost after {silent} ms"))
            }
            JobState::Failed { failure: Failure::NoAgent, .. } => {
                let waited = now - account.submitted;
                let least = self.limits.agent_lost_ms.min(self.limits.max_queue_ms);
                (waited + TRIMMING_MS < least).then(|| format!("it waited for an agent for {waited} ms only"))
            }
            JobState::Failed { failure: Failure::Execution(error), .. } => match error.kind {
                ErrorKind::Exited(code) => (account.fate != Fate::Badly(code))
                    .then(|| format!("its program never ended with {code}")),
                ErrorKind::TimedOut => {
                    (account.fate != Fate::Limit).then(|| "its program has no limit".to_owned())
                }
                _ => None,
            },
            JobState::Successful { outputs, .. } => {
                let path = outputs.first().and_then(|output| match &output.value {
                    Value::Complex { content: Content::Shared(file), .. } => file.path.split('/').next(),
                    _ => None,
                });
                let named = path.and_then(|name| ExecutionId::new(name).ok());
                let run = named.as_ref().and_then(|execution| self.ledger.runs.get(execution));
                if named != live {
                    Some("these are the results of another execution".to_owned())
                } else if run.is_none_or(|run| run.exit != Some(Exit::Code(0))) {
                    Some("its program did not end well".to_owned())
                } else if !self.results.contains(&id) {
                    Some("its results are not there".to_owned())
                } else {
                    None
                }
            }
            _ => None,
        };
        if let Some(fault) = fault {
            self.violated(format!("job {id} ended as {}, but {fault}", job.state.name()));
        }
    }

    /// A node sends something.
    pub(super) fn check_sends(&mut self, n: usize, message: &ToAgent) {
        let fault = match message {
            ToAgent::Request(request) => {
                let live =
                    self.stored(&request.execution).is_some_and(|job| is_live(job, &request.execution));
                (!live)
                    .then(|| format!("the request for {} was sent before that was stored", request.execution))
            }
            ToAgent::Finish { execution } => {
                let live = self.stored(execution).is_some_and(|job| is_live(job, execution));
                live.then(|| format!("the agent may forget {execution} before its ending was stored"))
            }
            ToAgent::Abort { execution } => {
                let wanted = JobId::of_execution(execution)
                    .and_then(|id| self.ledger.jobs.get(&id))
                    .is_none_or(|job| job.dismissal_wanted);
                let live = self.stored(execution).is_some_and(|job| is_live(job, execution));
                (live && !wanted).then(|| format!("{execution} is aborted though nobody wanted that"))
            }
            _ => None,
        };
        if let Some(fault) = fault {
            self.violated(format!("node {n}: {fault}"));
        }
    }

    /// Those who watch a job see this.
    pub(super) fn check_tells(&mut self, id: JobId, state: &JobState) {
        match self.store.load(id) {
            None => self.violated(format!("job {id} was shown before it was stored")),
            Some(job) if state.is_final() && job.state != *state => {
                self.violated(format!("job {id} was shown as {} before that was stored", state.name()));
            }
            Some(_) => {}
        }
    }

    /// An agent forgets an ending.
    pub(super) fn check_release(&mut self, execution: &ExecutionId) {
        if let Some(job) = self.stored(execution)
            && is_live(job, execution)
        {
            let name = job.state.name();
            self.violated(format!(
                "an agent forgot the ending of {execution}, which nobody has stored ({name})"
            ));
        }
    }

    /// A program was started on a host.
    pub(super) fn check_capacity(&mut self, host: usize) {
        let running = self.hosts[host].disk.values().filter(|folder| folder.running.is_some());
        let (number, weight) =
            running.fold((0, 0.0), |(number, weight), folder| (number + 1, weight + folder.weight));
        if number > MAX_RUNNING || weight > CAPACITY {
            self.violated(format!("agent {host} runs {number} programs of weight {weight}"));
        }
    }

    /// Everything is over: every job has ended once, and nothing is left.
    pub(super) fn check_all_ended(&mut self) {
        let mut faults = Vec::new();
        for (id, row) in &self.store.rows {
            if !row.job.state.is_final() {
                faults.push(format!("job {id} never ended ({})", row.job.state.name()));
            }
            if matches!(row.job.state, JobState::Successful { .. }) && !self.results.contains(id) {
                faults.push(format!("job {id} has succeeded, but its results are not there"));
            }
        }
        for (id, account) in &self.ledger.jobs {
            match self.store.load(*id) {
                None if account.accepted => faults.push(format!("job {id} was accepted and is gone")),
                Some(job) if account.dismissed && !matches!(job.state, JobState::Dismissed { .. }) => {
                    faults.push(format!("job {id} was dismissed and ended as {}", job.state.name()));
                }
                _ => {}
            }
        }
        for (at, host) in self.hosts.iter().enumerate() {
            for (execution, folder) in &host.disk {
                if folder.running.is_some() {
                    faults.push(format!("the program of {execution} still runs at agent {at}"));
                } else if folder.finished.is_none() {
                    faults.push(format!("agent {at} could never forget {execution}"));
                }
            }
        }
        if let Some(fault) = faults.first() {
            self.violated(format!("{fault} ({} faults)", faults.len()));
        }
    }
}
