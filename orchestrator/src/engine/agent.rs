//! One agent as far as it is known here, and whether it can take one more job: arithmetic over what it reported last and what
//! was sent to it since.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;

use wps_remote_protocol::message::RefusalReason;
use wps_remote_protocol::{AgentId, ExecutionId, Load, ProcessDescription, ProcessId};

use super::job::Timestamp;

/// Scores that are no further apart count as equal, in points: a load that flickers must not decide.
const TIE: f64 = 5.0;

/// One agent as far as it is known here.
#[derive(Debug, Clone)]
pub struct Agent {
    /// Its name.
    pub id: AgentId,
    /// What it offers.
    pub processes: BTreeMap<ProcessId, Arc<ProcessDescription>>,
    /// Its newest load, once it has told one.
    pub load: Option<Load>,
    /// When the newest load arrived.
    pub load_at: Timestamp,
    /// Whether it has told which executions it holds since it joined: before that nothing is sent to it.
    pub ready: bool,
    /// Since when it owes us the answer to an invitation.
    pub asked: Option<Timestamp>,
    /// Executions that an invitation has named and no answer yet: the answer to an older invitation says nothing of them.
    pub(super) unclear: BTreeSet<ExecutionId>,
    /// Our executions there, with the weight of each.
    pub executions: HashMap<ExecutionId, f64>,
    /// Those of them that were sent after its newest report, with the weight of each: no report counts them yet.
    pub(super) unreported: HashMap<ExecutionId, f64>,
    /// Nothing is sent before this moment, because it refused something.
    pub refused_until: Timestamp,
    /// What it said when it refused.
    pub refused: Option<String>,
    /// Refusals in a row.
    pub refusals: u32,
    /// The operator's reason for sending it nothing, while that is so.
    pub drained: Option<String>,
    /// Grows with each dispatch in the fleet: the agent with the smallest number waited longest.
    pub last_chosen: u64,
}

/// Why an agent cannot take a job at this moment; the first ones pass soonest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unfit {
    /// Full: it could take the job later.
    Busy,
    /// It refused a job a moment ago.
    Refused,
    /// It reports too much load, or takes no new work for another reason of its own.
    NotAccepting,
    /// It has not said yet what it holds, or how loaded it is.
    Unknown,
    /// The operator has taken it out of service.
    Drained,
    /// It lacks a label that the job needs.
    Unlabelled,
}

/// How good an agent is for a job: less is better.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Score {
    /// Percent of CPU as reported, 100 if the report is old, and percent of its places or capacity that would be in use.
    pub points: f64,
    /// The report is old.
    pub stale: bool,
    running: u32,
}

impl Score {
    /// What is compared; equal ones take turns.
    pub fn rank(&self) -> (i64, u32) {
        // Points are at most a few thousand.
        ((self.points / TIE) as i64, self.running)
    }
}

impl fmt::Display for Score {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.0} points", self.points)?;
        if self.stale { f.write_str(", its report is old") } else { Ok(()) }
    }
}

impl Agent {
    pub(super) fn new(id: AgentId) -> Self {
        Self {
            id,
            processes: BTreeMap::new(),
            load: None,
            load_at: Timestamp::default(),
            ready: false,
            asked: None,
            unclear: BTreeSet::new(),
            executions: HashMap::new(),
            unreported: HashMap::new(),
            refused_until: Timestamp::default(),
            refused: None,
            refusals: 0,
            drained: None,
            last_chosen: 0,
        }
    }

    /// How many executions run there: those of its newest report, which may be other orchestrators', and those that were
    /// sent since.
    pub fn running(&self) -> u32 {
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let ours = count(self.executions.len());
        let since = count(self.unreported.len());
        self.load.as_ref().map_or(ours, |load| load.running.saturating_add(since).max(ours))
    }

    /// How much capacity is in use there, counted in the same way.
    pub fn used(&self) -> f64 {
        let ours: f64 = self.executions.values().sum();
        let since: f64 = self.unreported.values().sum();
        self.load.as_ref().map_or(ours, |load| (load.used + since).max(ours))
    }

    /// The label of these that it lacks.
    pub fn lacks<'a>(&self, needs: &'a [String]) -> Option<&'a str> {
        let has = |label: &String| self.load.as_ref().is_some_and(|load| load.labels.contains(label));
        needs.iter().find(|label| !has(label)).map(String::as_str)
    }

    /// Whether it can take one more execution of this weight, and how good it is for that. A report that is older than
    /// `stale_ms` is not believed: such an agent counts as fully loaded.
    pub fn fitness(
        &self,
        weight: f64,
        needs: &[String],
        stale_ms: u64,
        now: Timestamp,
    ) -> Result<Score, Unfit> {
        if self.drained.is_some() {
            return Err(Unfit::Drained);
        }
        let Some(load) = self.load.as_ref().filter(|_| self.ready) else { return Err(Unfit::Unknown) };
        if self.lacks(needs).is_some() {
            return Err(Unfit::Unlabelled);
        }
        if now < self.refused_until {
            return Err(Unfit::Refused);
        }
        if !load.accepting {
            let full = load.refusing.as_ref().is_some_and(|r| r.reason == RefusalReason::Capacity);
            return Err(if full { Unfit::Busy } else { Unfit::NotAccepting });
        }
        let running = self.running();
        if load.max_running.is_some_and(|max| running >= max) {
            return Err(Unfit::Busy);
        }
        // A weight above the whole capacity would never fit: such a job runs alone.
        let used = self.used();
        if weight > 0.0 && used > 0.0 && used + weight > load.capacity + ROUNDING {
            return Err(Unfit::Busy);
        }
        let by_places = load.max_running.map(|max| f64::from(running + 1) / f64::from(max.max(1)));
        let by_capacity = (weight > 0.0 && load.capacity > 0.0).then(|| (used + weight) / load.capacity);
        let share = match (by_places, by_capacity) {
            (Some(places), Some(capacity)) => places.max(capacity),
            (Some(share), None) | (None, Some(share)) => share,
            // Nothing bounds it: what it has to compute with does.
            (None, None) => f64::from(running + 1) / f64::from(load.cores.max(1)),
        };
        let stale = now.since_ms(self.load_at) > stale_ms;
        let cpu = if stale { 100.0 } else { load.cpu_percent };
        Ok(Score { points: cpu + 100.0 * share, stale, running })
    }

    /// The same in words, for people who want to know why a job waits or went elsewhere.
    pub fn verdict(&self, weight: f64, needs: &[String], stale_ms: u64, now: Timestamp) -> String {
        let refusing = || self.load.as_ref().and_then(|load| load.refusing.as_ref());
        match self.fitness(weight, needs, stale_ms, now) {
            Ok(score) => format!("could take it ({score})"),
            Err(Unfit::Busy) => format!("is busy: {}", self.filling(weight)),
            Err(Unfit::Refused) => {
                let pause = self.refused_until.since_ms(now).div_ceil(1000);
                format!(
                    "refused a job ({}) and is asked again in {pause} s",
                    self.refused.as_deref().unwrap_or("?")
                )
            }
            Err(Unfit::NotAccepting) => match refusing() {
                Some(refusal) => format!("takes no new work: {}", refusal.text),
                None => "takes no new work".to_owned(),
            },
            Err(Unfit::Unknown) => "has not said yet what it holds and how loaded it is".to_owned(),
            Err(Unfit::Drained) => format!("is drained: {}", self.drained.as_deref().unwrap_or_default()),
            Err(Unfit::Unlabelled) => {
                format!("lacks the label `{}`", self.lacks(needs).unwrap_or_default())
            }
        }
    }

    fn filling(&self, weight: f64) -> String {
        let Some(load) = &self.load else { return String::new() };
        let places = load.max_running.map_or(String::new(), |max| format!(" of {max}"));
        format!(
            "{}{places} jobs run, {} of {} units are used, {weight} are needed",
            self.running(),
            self.used(),
            load.capacity
        )
    }
}

/// Sums of weights are sums of decimal fractions: six times 16.6 must not fail for its last bit.
const ROUNDING: f64 = 1e-9;
