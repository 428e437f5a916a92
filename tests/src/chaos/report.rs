//! What came of a chaos: what clients were promised against what happened, for people and for a test.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::time::Duration;

use super::Plan;
use super::client::{Kind, Promise, World};
use super::scene::Scene;
use crate::client::{Status, status};
use crate::http::Http;
use crate::xml::Node;

/// Most lines of each kind of fault that are shown.
const SHOWN: usize = 20;

/// The verdict.
#[derive(Debug)]
pub struct Report {
    plan: Plan,
    took: Duration,
    faults: BTreeMap<&'static str, usize>,
    ended_themselves: u32,
    promised: usize,
    ends: BTreeMap<&'static str, usize>,
    unanswered: (usize, usize),
    refused: usize,
    asked: (usize, usize),
    slowest: (Duration, Duration, Duration),
    left_in_shared_folder: Vec<String>,
    /// Jobs that clients were promised and that have gone.
    pub lost: Vec<String>,
    /// Jobs whose program began more than once.
    pub twice: Vec<String>,
    /// Jobs that never ended.
    pub stuck: Vec<String>,
    /// Everything else that must not be: wrong bytes, wrong ends, unknown jobs, refused requests that ran all the same, panics.
    pub wrong: Vec<String>,
}

impl Report {
    /// Whether everything that was promised has come true.
    pub fn is_good(&self) -> bool {
        [&self.lost, &self.twice, &self.stuck, &self.wrong].iter().all(|list| list.is_empty())
    }
}

pub(super) fn judge(world: &World, scene: &mut Scene<'_>, unsettled: Vec<String>, took: Duration) -> Report {
    let again = again(world);
    let ledger = world.ledger();
    let mut report = Report {
        plan: world.plan().clone(),
        took,
        faults: BTreeMap::new(),
        ended_themselves: scene.ended_themselves(),
        promised: ledger.promised.len(),
        ends: BTreeMap::new(),
        unanswered: (ledger.unanswered.len(), 0),
        refused: ledger.refused.len(),
        asked: ledger.asked,
        slowest: slowest(ledger.promised.values()),
        left_in_shared_folder: scene.left_in_shared_folder(),
        lost: again.0,
        twice: Vec::new(),
        stuck: unsettled,
        wrong: ledger.wrong.iter().cloned().chain(again.1).collect(),
    };
    for (fault, times) in &scene.happened {
        *report.faults.entry(fault.name()).or_default() += times;
    }
    for (key, promise) in &ledger.promised {
        let marks = scene.marks(key);
        let begun = marks.iter().filter(|mark| mark.starts_with("begin ")).count();
        let ended = marks.iter().any(|mark| mark.starts_with("end "));
        if begun > 1 {
            report.twice.push(format!("{key}: {}", marks.join(", ")));
        }
        let Some(last) = &promise.last else {
            report.stuck.push(format!("{key} ({:?}) at {}", promise.kind, promise.location));
            continue;
        };
        let right = match (promise.kind, last) {
            (Kind::Inline | Kind::File | Kind::Synchronous, Status::Succeeded) => ended,
            (Kind::Fails, Status::Failed(text)) => ended && text.contains("exit code is 3"),
            (Kind::GivenUp, Status::Failed(text)) => !ended && text.contains("dismissed"),
            _ => false,
        };
        if !right {
            let text = format!("{key} ({:?}) ended as {last:?}, marks: {}", promise.kind, marks.join(", "));
            report.wrong.push(text);
        }
        let end = match last {
            Status::Succeeded => "succeeded",
            Status::Failed(_) if promise.kind == Kind::GivenUp => "dismissed",
            _ => "failed",
        };
        *report.ends.entry(end).or_default() += 1;
    }
    for key in &ledger.unanswered {
        let marks = scene.marks(key);
        let begun = marks.iter().filter(|mark| mark.starts_with("begin ")).count();
        report.unanswered.1 += begun.min(1);
        if begun > 1 {
            report.twice.push(format!("{key} (unanswered): {}", marks.join(", ")));
        }
    }
    for (key, said) in &ledger.refused {
        if !scene.marks(key).is_empty() {
            report.wrong.push(format!("{key} ran, though its client was told: {said}"));
        }
    }
    if let Some(stored) = scene.stored() {
        let promised: HashSet<&String> = ledger.promised.keys().collect();
        let known: HashSet<&String> = promised.iter().copied().chain(&ledger.unanswered).collect();
        let keys: Vec<&String> = stored.iter().map(|(key, _)| key).collect();
        for (n, key) in keys.iter().enumerate() {
            if !known.contains(key) {
                report.wrong.push(format!("{key} is stored as {}, but was never accepted", stored[n].1));
            }
        }
        let stored: HashSet<&String> = keys.into_iter().collect();
        report.lost.extend(promised.difference(&stored).map(|key| format!("{key} is not in the store")));
    }
    report.wrong.extend(scene.panics());
    report.wrong.extend(scene.stop());
    report
}

/// Asks every orchestrator for every job once more: jobs that are unknown, and jobs that have changed their minds.
fn again(world: &World) -> (Vec<String>, Vec<String>) {
    let (mut lost, mut wrong) = (Vec::new(), Vec::new());
    let ledger = world.ledger();
    for (n, node) in world.nodes().iter().enumerate() {
        let mut http = Http::new(*node);
        for (key, promise) in ledger.promised.iter().filter(|(_, promise)| !promise.location.is_empty()) {
            match http.get(&promise.location) {
                Ok(answer) if answer.status == 200 => {
                    let last = status(&Node::parse(&answer.body).unwrap_or_default());
                    if promise.last.as_ref().is_some_and(|known| *known != last) {
                        let was = &promise.last;
                        wrong.push(format!("{key} was {was:?} and is {last:?} at orchestrator {}", n + 1));
                    }
                }
                Ok(answer) => lost.push(format!("{key} at orchestrator {}: HTTP {}", n + 1, answer.status)),
                Err(error) => lost.push(format!("{key} at orchestrator {}: {error}", n + 1)),
            }
        }
    }
    (lost, wrong)
}

/// Median, 99th percentile and longest time from acceptance to the end.
fn slowest<'a>(promises: impl Iterator<Item = &'a Promise>) -> (Duration, Duration, Duration) {
    let ended = promises.filter(|promise| promise.last.is_some()).map(|promise| promise.took);
    let mut times: Vec<Duration> = ended.collect();
    times.sort();
    let at = |percent: usize| {
        times.get(times.len().saturating_sub(1) * percent / 100).copied().unwrap_or_default()
    };
    (at(50), at(99), at(100))
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Plan { nodes, agents, clients, xmpp, seed, .. } = &self.plan;
        let store = if *nodes > 1 { "PostgreSQL" } else { "SQLite" };
        writeln!(
            f,
            "chaos: {nodes} orchestrators on {store}, {agents} agents, {xmpp:?}, {clients} clients; seed {seed}; {:.0} s",
            self.took.as_secs_f64()
        )?;
        let faults: Vec<String> =
            self.faults.iter().map(|(name, times)| format!("{times} x {name}")).collect();
        writeln!(f, "  {} faults: {}", self.faults.values().sum::<usize>(), faults.join(", "))?;
        writeln!(f, "  programs that ended by themselves and were started again: {}", self.ended_themselves)?;
        let ends: Vec<String> = self.ends.iter().map(|(name, times)| format!("{times} {name}")).collect();
        writeln!(f, "  {} jobs accepted: {}", self.promised, ends.join(", "))?;
        writeln!(
            f,
            "  {} requests without an answer, of which {} were accepted; {} refused",
            self.unanswered.0, self.unanswered.1, self.refused
        )?;
        writeln!(f, "  {} questions, {} of them without an answer or 503", self.asked.0, self.asked.1)?;
        writeln!(
            f,
            "  from acceptance to the end: median {:.1} s, p99 {:.1} s, longest {:.1} s",
            self.slowest.0.as_secs_f64(),
            self.slowest.1.as_secs_f64(),
            self.slowest.2.as_secs_f64()
        )?;
        let left = &self.left_in_shared_folder;
        writeln!(f, "  folders left in the shared folder: {} {}", left.len(), left.join(", "))?;
        for (name, list) in [
            ("lost", &self.lost),
            ("executed twice", &self.twice),
            ("stuck", &self.stuck),
            ("wrong", &self.wrong),
        ] {
            writeln!(f, "  {name}: {}", list.len())?;
            for line in list.iter().take(SHOWN) {
                writeln!(f, "    {line}")?;
            }
        }
        Ok(())
    }
}
