//! Lines about messages and occupants that are not believed: each names the sender, and no sender can fill the log.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use tracing::{debug, warn};

/// One line for each sender in this time.
const PAUSE: Duration = Duration::from_secs(10);
/// Senders that are remembered.
const REMEMBERED: usize = 1_000;

#[derive(Default)]
pub(super) struct Complaints {
    last: HashMap<String, Instant>,
}

impl Complaints {
    /// Warns about something that an occupant did, unless it was warned about a moment ago.
    pub(super) fn about(&mut self, namespace: &str, nick: &str, now: Instant, why: &str) {
        let sender: String = format!("{namespace}/{nick}").chars().take(200).collect();
        if self.last.len() >= REMEMBERED {
            self.last.retain(|_, at| now.duration_since(*at) < PAUSE);
        }
        let recent = self.last.get(&sender).is_some_and(|at| now.duration_since(*at) < PAUSE);
        if recent || self.last.len() >= REMEMBERED {
            debug!(%sender, "{why}");
            return;
        }
        self.last.insert(sender.clone(), now);
        warn!(%sender, "{why}");
    }
}
