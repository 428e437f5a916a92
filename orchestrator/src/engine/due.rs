//! When something is due for a job: the longest time in the queue, of its program, and in all. Kept in order, so that neither
//! asking for the next moment nor finding what is due depends on how many jobs there are.

use std::collections::{BTreeSet, HashMap};

use super::job::{JobId, Timestamp};

/// Which time is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Kind {
    /// It waited too long.
    Queue,
    /// Its program ran too long.
    Run,
    /// Both together took too long.
    Total,
}

/// Moments, at most one of each kind for a job.
#[derive(Debug, Default)]
pub(super) struct Due {
    order: BTreeSet<(Timestamp, JobId, Kind)>,
    of: HashMap<(JobId, Kind), Timestamp>,
}

impl Due {
    pub(super) fn set(&mut self, job: JobId, kind: Kind, at: Timestamp) {
        self.clear(job, kind);
        self.order.insert((at, job, kind));
        self.of.insert((job, kind), at);
    }

    pub(super) fn clear(&mut self, job: JobId, kind: Kind) {
        if let Some(at) = self.of.remove(&(job, kind)) {
            self.order.remove(&(at, job, kind));
        }
    }

    pub(super) fn forget(&mut self, job: JobId) {
        for kind in [Kind::Queue, Kind::Run, Kind::Total] {
            self.clear(job, kind);
        }
    }

    /// The earliest moment.
    pub(super) fn next(&self) -> Option<Timestamp> {
        self.order.first().map(|(at, ..)| *at)
    }

    /// Takes out what is due.
    pub(super) fn pop(&mut self, now: Timestamp) -> Option<(JobId, Kind)> {
        let (at, job, kind) = *self.order.first()?;
        if at > now {
            return None;
        }
        self.clear(job, kind);
        Some((job, kind))
    }

    /// The wall clock was set, by so many milliseconds.
    pub(super) fn clock_set(&mut self, by_ms: i64) {
        let order = std::mem::take(&mut self.order);
        self.of.clear();
        for (at, job, kind) in order {
            self.set(job, kind, at.shifted_ms(by_ms));
        }
    }
}
