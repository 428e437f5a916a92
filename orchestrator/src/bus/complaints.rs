//! Lines about messages and occupants that are not believed: each names the sender, and no sender can fill the log.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::{debug, warn};

use crate::telemetry::Telemetry;

/// One line for each sender in this time.
const PAUSE: Duration = Duration::from_secs(10);
/// Senders that are remembered.
const REMEMBERED: usize = 1_000;

#[derive(Default)]
pub(super) struct Complaints {
    last: HashMap<String, Instant>,
    counted: Option<(Arc<Telemetry>, &'static str)>,
}

impl Complaints {
    /// Everything that is complained of is also counted, as `what`.
    pub(super) fn counted(telemetry: Arc<Telemetry>, what: &'static str) -> Self {
        Self { last: HashMap::new(), counted: Some((telemetry, what)) }
    }

    /// Warns about something that an occupant did, unless it was warned about a moment ago.
    pub(super) fn about(&mut self, namespace: &str, nick: &str, now: Instant, why: &str) {
        if let Some((telemetry, what)) = &self.counted {
            telemetry.not_believed(what, &format!("{namespace}/{nick}"), None, why);
        }
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
