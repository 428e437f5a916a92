//! One ending on its way: what is told, and when it is told again.

use std::time::Duration;

use wps_remote_protocol::{ExecutionId, FromAgent};

use crate::workdir::Ending;

const FIRST: Duration = Duration::from_secs(2);
const LONGEST: Duration = Duration::from_secs(60);

/// An ending that is told until somebody says that it is stored.
pub(super) struct Delivery {
    ending: Ending,
    born: Duration,
    due: Duration,
    delay: Duration,
    for_anybody: bool,
}

impl Delivery {
    pub(super) fn new(ending: Ending, now: Duration) -> Self {
        Self { ending, born: now, due: now, delay: FIRST, for_anybody: false }
    }

    /// Since when it is told.
    pub(super) fn born(&self) -> Duration {
        self.born
    }

    /// When it is to be sent next.
    pub(super) fn due(&self) -> Duration {
        self.due
    }

    /// Whether its originator has said that another one has the job.
    pub(super) fn for_anybody(&self) -> bool {
        self.for_anybody
    }

    /// Whom it is for.
    pub(super) fn set_for_anybody(&mut self, anybody: bool) {
        self.for_anybody = anybody;
    }

    /// Whoever waits for it is there: it is due at once.
    pub(super) fn hurry(&mut self, now: Duration) {
        self.due = now;
        self.delay = FIRST;
    }

    /// It was sent, or nobody was there to send it to; then the pause does not grow.
    pub(super) fn sent(&mut self, now: Duration, somebody: bool) {
        self.due = now.saturating_add(self.delay);
        if somebody {
            self.delay = (self.delay * 2).min(LONGEST);
        }
    }

    pub(super) fn message(&self, id: &ExecutionId) -> FromAgent {
        let execution = id.clone();
        match &self.ending {
            Ending::Completed(outputs) => FromAgent::Completed { execution, outputs: outputs.clone() },
            Ending::Failed(error) => FromAgent::Error { execution, error: error.clone() },
        }
    }
}
