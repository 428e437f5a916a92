//! Reads the load of a Windows host.

use std::path::Path;

use super::{CpuTicks, Process, percent};
use crate::winapi::host;

/// The host.
#[derive(Debug, Default)]
pub(super) struct Host {}

impl Host {
    /// The CPU time of the host.
    pub(super) fn cpu_ticks(&mut self) -> Option<CpuTicks> {
        let times = host::cpu_times().ok()?;
        Some(CpuTicks { busy: times.busy, all: times.all })
    }

    /// There are no quotas here that this program looks at.
    pub(super) fn quota_percent(&mut self) -> Option<f64> {
        None
    }

    /// Physical memory in use.
    pub(super) fn memory_percent(&self) -> Option<f64> {
        let (used, all) = host::memory().ok()?;
        Some(percent(used, all))
    }
}

/// Free space of the disk of a folder in bytes, and whether it takes no more files all the same, which does not happen here.
pub(super) fn space(folder: &Path) -> Option<(u64, bool)> {
    host::free_space(folder).ok().map(|free| (free, false))
}

/// All processes. What another account runs may hide its CPU time; then it counts as idle.
pub(super) fn processes() -> impl Iterator<Item = Process> {
    host::processes().unwrap_or_default().into_iter().map(|process| Process {
        pid: process.pid,
        ticks: host::used_time(process.pid).unwrap_or(0),
        name: process.name,
        runs_now: false,
    })
}

/// The command line of a process.
pub(super) fn command_line(pid: u32) -> Option<String> {
    host::command_line(pid).ok()
}

/// Where a process works: Windows tells nobody else.
pub(super) fn working_directory(_pid: u32) -> Option<String> {
    None
}
