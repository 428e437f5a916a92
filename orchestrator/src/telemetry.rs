//! Figures for operators: counters, gauges and histograms, and their page in the Prometheus text format 0.0.4. Knows
//! numbers and names only; who counts what is decided elsewhere.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant, SystemTime};

/// Upper ends of the latency buckets in seconds.
const BUCKETS: [f64; 13] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0, 300.0];

/// What occupants of the rooms can do without being allowed to, as figures name it: to appear under somebody's name, to
/// announce a process, to report about an execution that it does not have, to speak without being an agent; all of it in the old
/// dialect.
pub const NOT_BELIEVED: [&str; 5] = ["name", "process", "report", "stranger", "old"];

/// Incidents that are kept for operators.
const INCIDENTS: usize = 100;

/// Something that an occupant of a room did without being allowed to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Incident {
    /// One of [`NOT_BELIEVED`].
    pub what: &'static str,
    /// Its name in the room.
    pub sender: String,
    /// Its account, where the room discloses it.
    pub account: Option<String>,
    /// What it was about, the last time.
    pub why: String,
    /// When, the last time.
    pub at: SystemTime,
    /// How often.
    pub count: u64,
}

/// Cumulative counts of durations.
#[derive(Debug, Default)]
struct Histogram {
    buckets: [AtomicU64; BUCKETS.len()],
    count: AtomicU64,
    micros: AtomicU64,
}

impl Histogram {
    fn observe(&self, duration: Duration) {
        let seconds = duration.as_secs_f64();
        for (bucket, end) in self.buckets.iter().zip(BUCKETS) {
            if seconds <= end {
                bucket.fetch_add(1, Relaxed);
            }
        }
        self.count.fetch_add(1, Relaxed);
        self.micros.fetch_add(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX), Relaxed);
    }

    fn render(&self, name: &str, help: &str, page: &mut String) {
        let _ = writeln!(page, "# HELP {name} {help}\n# TYPE {name} histogram");
        for (bucket, end) in self.buckets.iter().zip(BUCKETS) {
            let _ = writeln!(page, "{name}_bucket{{le=\"{end}\"}} {}", bucket.load(Relaxed));
        }
        let count = self.count.load(Relaxed);
        let sum = self.micros.load(Relaxed) as f64 / 1e6;
        let _ =
            writeln!(page, "{name}_bucket{{le=\"+Inf\"}} {count}\n{name}_sum {sum}\n{name}_count {count}");
    }
}

/// What the driver knows at one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Gauges {
    /// Whether we are in the management room.
    pub connected: bool,
    /// Agents present.
    pub agents: u64,
    /// Processes offered.
    pub processes: u64,
    /// Jobs that wait.
    pub queued: u64,
    /// Active jobs in each state.
    pub active: BTreeMap<&'static str, u64>,
}

/// All figures of this program.
#[derive(Debug)]
pub struct Telemetry {
    started: Instant,
    dispatch: Histogram,
    http: Histogram,
    requests: Mutex<BTreeMap<(&'static str, u16), u64>>,
    ended: Mutex<BTreeMap<&'static str, u64>>,
    gauges: Mutex<Gauges>,
    connections: AtomicU64,
    given_up: AtomicU64,
    refused: Mutex<BTreeMap<&'static str, u64>>,
    impostors: Mutex<BTreeMap<&'static str, u64>>,
    incidents: Mutex<VecDeque<Incident>>,
}

impl Default for Telemetry {
    fn default() -> Self {
        Self {
            started: Instant::now(),
            dispatch: Histogram::default(),
            http: Histogram::default(),
            requests: Mutex::default(),
            ended: Mutex::default(),
            gauges: Mutex::default(),
            connections: AtomicU64::new(0),
            given_up: AtomicU64::new(0),
            refused: Mutex::default(),
            impostors: Mutex::default(),
            incidents: Mutex::default(),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

impl Telemetry {
    /// A job was sent to an agent so long after its acceptance.
    pub fn dispatched(&self, after: Duration) {
        self.dispatch.observe(after);
    }

    /// A job ended in this state.
    pub fn job_ended(&self, state: &'static str) {
        *lock(&self.ended).entry(state).or_default() += 1;
    }

    /// An HTTP request was answered.
    pub fn answered(&self, operation: &'static str, status: u16, duration: Duration) {
        self.http.observe(duration);
        *lock(&self.requests).entry((operation, status)).or_default() += 1;
    }

    /// So many HTTP connections are open.
    pub fn connections(&self, open: usize) {
        self.connections.store(u64::try_from(open).unwrap_or(u64::MAX), Relaxed);
    }

    /// An idle connection gave way to a new one.
    pub fn connection_given_up(&self) {
        self.given_up.fetch_add(1, Relaxed);
    }

    /// A connection was refused, for the bound of this name.
    pub fn connection_refused(&self, bound: &'static str) {
        *lock(&self.refused).entry(bound).or_default() += 1;
    }

    /// Somebody on the bus did what it may not do: `what` is one of [`NOT_BELIEVED`].
    #[expect(clippy::disallowed_methods, reason = "operators want to know when; no engine sees this time")]
    pub fn not_believed(&self, what: &'static str, sender: &str, account: Option<&str>, why: &str) {
        *lock(&self.impostors).entry(what).or_default() += 1;
        let short = |text: &str| text.chars().filter(|c| !c.is_control()).take(300).collect::<String>();
        let (sender, account, why) = (short(sender), account.map(short), short(why));
        let at = SystemTime::now();
        let mut incidents = lock(&self.incidents);
        if let Some(same) =
            incidents.iter_mut().find(|i| i.what == what && i.sender == sender && i.account == account)
        {
            same.count += 1;
            (same.why, same.at) = (why, at);
            return;
        }
        if incidents.len() >= INCIDENTS {
            incidents.pop_front();
        }
        incidents.push_back(Incident { what, sender, account, why, at, count: 1 });
    }

    /// The newest of those, the same of one sender together.
    pub fn incidents(&self) -> Vec<Incident> {
        lock(&self.incidents).iter().cloned().collect()
    }

    /// The newest gauges.
    pub fn set(&self, gauges: Gauges) {
        *lock(&self.gauges) = gauges;
    }

    /// The page that Prometheus reads.
    pub fn page(&self) -> String {
        let mut page = String::with_capacity(4096);
        let gauges = lock(&self.gauges).clone();
        let gauge = |page: &mut String, name: &str, help: &str, value: u64| {
            let _ = writeln!(page, "# HELP {name} {help}\n# TYPE {name} gauge\n{name} {value}");
        };
        let version = env!("CARGO_PKG_VERSION");
        let _ = writeln!(
            page,
            "# HELP wps_build_info Version of the program.\n# TYPE wps_build_info gauge\nwps_build_info{{version=\"{version}\"}} 1"
        );
        gauge(&mut page, "wps_uptime_seconds", "Seconds since the start.", self.started.elapsed().as_secs());
        gauge(
            &mut page,
            "wps_xmpp_connected",
            "1 while in the management room.",
            u64::from(gauges.connected),
        );
        gauge(&mut page, "wps_agents", "Agents present.", gauges.agents);
        gauge(&mut page, "wps_processes", "Processes offered.", gauges.processes);
        gauge(&mut page, "wps_jobs_queued", "Jobs that wait for an agent.", gauges.queued);
        let _ = writeln!(page, "# HELP wps_jobs Active jobs by state.\n# TYPE wps_jobs gauge");
        for state in ["accepted", "dispatched", "running", "dismissing"] {
            let count = gauges.active.get(state).copied().unwrap_or(0);
            let _ = writeln!(page, "wps_jobs{{state=\"{state}\"}} {count}");
        }
        let _ = writeln!(
            page,
            "# HELP wps_jobs_ended_total Jobs that ended since the start.\n# TYPE wps_jobs_ended_total counter"
        );
        let ended = lock(&self.ended).clone();
        for state in ["successful", "failed", "dismissed"] {
            let _ = writeln!(
                page,
                "wps_jobs_ended_total{{state=\"{state}\"}} {}",
                ended.get(state).copied().unwrap_or(0)
            );
        }
        self.dispatch.render(
            "wps_dispatch_latency_seconds",
            "Time from the acceptance of a job to its being sent to an agent.",
            &mut page,
        );
        let _ = writeln!(
            page,
            "# HELP wps_http_requests_total HTTP requests answered.\n# TYPE wps_http_requests_total counter"
        );
        for ((operation, status), count) in lock(&self.requests).iter() {
            let _ = writeln!(
                page,
                "wps_http_requests_total{{operation=\"{operation}\",status=\"{status}\"}} {count}"
            );
        }
        gauge(
            &mut page,
            "wps_http_connections",
            "HTTP connections that are open.",
            self.connections.load(Relaxed),
        );
        let _ = writeln!(
            page,
            "# HELP wps_http_connections_given_up_total Idle HTTP connections that gave way to new ones.\n# TYPE wps_http_connections_given_up_total counter\nwps_http_connections_given_up_total {}",
            self.given_up.load(Relaxed)
        );
        let counts = |page: &mut String,
                      name: &str,
                      label: &str,
                      help: &str,
                      known: &[&'static str],
                      counts: &BTreeMap<&'static str, u64>| {
            let _ = writeln!(page, "# HELP {name} {help}\n# TYPE {name} counter");
            for value in known {
                let _ = writeln!(
                    page,
                    "{name}{{{label}=\"{value}\"}} {}",
                    counts.get(value).copied().unwrap_or(0)
                );
            }
        };
        counts(
            &mut page,
            "wps_http_connections_refused_total",
            "bound",
            "HTTP connections refused.",
            &["address", "total"],
            &lock(&self.refused),
        );
        counts(
            &mut page,
            "wps_bus_not_believed_total",
            "what",
            "What occupants of the rooms did without being allowed to.",
            &NOT_BELIEVED,
            &lock(&self.impostors),
        );
        self.http.render("wps_http_request_duration_seconds", "Time to answer an HTTP request.", &mut page);
        page
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_counts_what_happened() {
        let telemetry = Telemetry::default();
        telemetry.dispatched(Duration::from_millis(3));
        telemetry.dispatched(Duration::from_secs(2));
        telemetry.job_ended("failed");
        telemetry.answered("GetCapabilities", 200, Duration::from_millis(1));
        telemetry.set(Gauges { agents: 2, active: [("running", 4)].into(), ..Gauges::default() });
        let page = telemetry.page();
        for line in [
            "wps_dispatch_latency_seconds_bucket{le=\"0.0025\"} 0",
            "wps_dispatch_latency_seconds_bucket{le=\"0.005\"} 1",
            "wps_dispatch_latency_seconds_bucket{le=\"+Inf\"} 2",
            "wps_dispatch_latency_seconds_sum 2.003",
            "wps_jobs_ended_total{state=\"failed\"} 1",
            "wps_jobs_ended_total{state=\"successful\"} 0",
            "wps_http_requests_total{operation=\"GetCapabilities\",status=\"200\"} 1",
            "wps_agents 2",
            "wps_jobs{state=\"running\"} 4",
        ] {
            assert!(page.lines().any(|l| l == line), "{line}\n{page}");
        }
    }
}
