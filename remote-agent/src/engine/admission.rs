//! Whether one more execution is taken, and what is announced of the load: arithmetic only.

use std::time::Duration;

use wps_remote_protocol::message::RefusalReason;
use wps_remote_protocol::{Load, Refusal};

/// What the administrator allows.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Units of weight; 0 or less refuses everything.
    pub capacity: f64,
    /// Hard cap of running executions.
    pub max_running: Option<u32>,
    /// Percent of CPU or memory above which nothing is taken; 100 switches the check off.
    pub load_threshold: f64,
    /// Cores of the host.
    pub cores: u32,
    /// What the host is good for: orchestrators bind jobs to labels.
    pub labels: Vec<String>,
    /// How long the ending of a GeoServer's job is kept for it. Those of our orchestrators are kept for ever.
    pub keep_endings: Duration,
}

/// What the host's load is, as far as it is known.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Measured {
    /// CPU in use, 0 to 100.
    pub cpu_percent: f64,
    /// Memory in use, 0 to 100.
    pub memory_percent: f64,
    /// A running program of the blacklist.
    pub blacklisted: Option<String>,
    /// What somebody should look after, in one line.
    pub warning: Option<String>,
}

/// What live executions take.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Usage {
    pub(super) running: u32,
    pub(super) units: f64,
}

/// Sums of weights are sums of decimal fractions: six times 16.6 must not fail for its last bit.
const ROUNDING: f64 = 1e-9;

pub(super) fn admit(
    settings: &Settings,
    measured: &Measured,
    draining: bool,
    usage: &Usage,
    weight: f64,
) -> Result<(), Refusal> {
    let refuse = |reason, text: String| Err(Refusal { reason, text });
    if draining {
        return refuse(
            RefusalReason::Draining,
            "the agent is draining: it finishes its jobs and takes no new ones".to_owned(),
        );
    }
    if let Some(program) = &measured.blacklisted {
        return refuse(RefusalReason::Blacklist, format!("program `{program}` is running"));
    }
    if settings.load_threshold < 100.0 {
        for (what, percent) in [("CPU", measured.cpu_percent), ("memory", measured.memory_percent)] {
            if percent > settings.load_threshold {
                let text = format!("{what} load {percent:.0} % is above {:.0} %", settings.load_threshold);
                return refuse(RefusalReason::Load, text);
            }
        }
    }
    if let Some(most) = settings.max_running.filter(|most| usage.running >= *most) {
        return refuse(RefusalReason::Capacity, format!("all {most} places are taken"));
    }
    let residual = settings.capacity - usage.units;
    if residual <= ROUNDING || residual + ROUNDING < weight {
        let text = format!(
            "capacity {} has {} units left, {weight} are needed",
            settings.capacity,
            residual.max(0.0)
        );
        return refuse(RefusalReason::Capacity, text);
    }
    Ok(())
}

pub(super) fn load(settings: &Settings, measured: &Measured, draining: bool, usage: &Usage) -> Load {
    // Would something that costs nothing be taken?
    let refusing = admit(settings, measured, draining, usage, 0.0).err();
    Load {
        cpu_percent: measured.cpu_percent,
        memory_percent: measured.memory_percent,
        cores: settings.cores,
        capacity: settings.capacity.max(0.0),
        used: usage.units,
        running: usage.running,
        max_running: settings.max_running,
        accepting: refusing.is_none(),
        warning: measured.warning.clone(),
        refusing,
        labels: settings.labels.clone(),
    }
}

/// Whether a change is worth telling at once: percentages move all the time, and are told with the regular heartbeat.
pub(super) fn differs(told: &Load, now: &Load) -> bool {
    told.refusing.as_ref().map(|refusal| refusal.reason)
        != now.refusing.as_ref().map(|refusal| refusal.reason)
        // Its words hold figures that move all the time.
        || told.warning.is_some() != now.warning.is_some()
        || told.labels != now.labels
        || told.running != now.running
        || (told.used - now.used).abs() > ROUNDING
        || (told.cpu_percent - now.cpu_percent).abs() >= 10.0
        || (told.memory_percent - now.memory_percent).abs() >= 5.0
}
