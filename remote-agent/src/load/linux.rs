//! Reads the load of a Linux host from /proc, and in a container the limits of its cgroups.

use std::fs;
use std::path::Path;

use rustix::time::{ClockId, clock_gettime};

use super::cgroup::{self, Cgroups};
use super::{CpuTicks, Process, percent};

/// The host, and the container that we may be in.
#[derive(Debug)]
pub(super) struct Host {
    cgroups: Cgroups,
    stat: String,
}

impl Default for Host {
    fn default() -> Self {
        let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        Self { cgroups: Cgroups::find(&own, Path::new(cgroup::ROOT)), stat: String::new() }
    }
}

impl Host {
    /// The CPU time of the host.
    pub(super) fn cpu_ticks(&mut self) -> Option<CpuTicks> {
        self.stat = fs::read_to_string("/proc/stat").unwrap_or_default();
        parse_cpu(&self.stat)
    }

    /// CPU in use of the container's quota since the last call, if there is one that is tighter than the host.
    pub(super) fn quota_percent(&mut self) -> Option<f64> {
        let cores = std::thread::available_parallelism().map_or(1.0, |cores| cores.get() as f64);
        self.cgroups.cpu_percent(monotonic_us(), host_cores(&self.stat).unwrap_or(cores))
    }

    /// Of the host, or of a tighter limit of the container if more of that is in use: a host without memory ends anybody's
    /// programs.
    pub(super) fn memory_percent(&self) -> Option<f64> {
        let text = fs::read_to_string("/proc/meminfo").ok()?;
        let field = |name: &str| -> Option<u64> {
            let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
            let rest = rest.trim_start_matches(':').split_ascii_whitespace().next()?;
            rest.parse::<u64>().ok().map(|kib| kib * 1024)
        };
        let total = field("MemTotal")?;
        let available = field("MemAvailable")?;
        let host = percent(total.saturating_sub(available), total);
        Some(self.cgroups.memory_percent(total).unwrap_or(0.0).max(host))
    }
}

/// The line `cpu` of proc_stat(5): user, nice, system, idle, iowait, irq, softirq, steal.
fn parse_cpu(text: &str) -> Option<CpuTicks> {
    let fields: Vec<u64> = text
        .lines()
        .next()?
        .strip_prefix("cpu ")?
        .split_ascii_whitespace()
        .take(8)
        .map_while(|field| field.parse().ok())
        .collect();
    let idle = fields.get(3)? + fields.get(4).copied().unwrap_or(0);
    let all = fields.iter().sum();
    Some(CpuTicks { busy: all - idle, all })
}

/// Cores of the host: quotas, and the set of CPUs that we may use, do not count.
fn host_cores(stat: &str) -> Option<f64> {
    let cores = stat.lines().filter(|line| line.starts_with("cpu") && !line.starts_with("cpu ")).count();
    (cores > 0).then_some(cores as f64)
}

/// A clock that never jumps, in microseconds.
fn monotonic_us() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0) / 1000
}

/// Free space of the disk of a folder in bytes, and whether it takes no more files all the same.
pub(super) fn space(folder: &Path) -> Option<(u64, bool)> {
    let disk = rustix::fs::statvfs(folder).ok()?;
    Some((disk.f_bavail.saturating_mul(disk.f_frsize), disk.f_files > 0 && disk.f_favail == 0))
}

/// All processes that can be seen.
pub(super) fn processes() -> impl Iterator<Item = Process> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| read(entry.file_name().to_str()?.parse().ok()?))
}

fn read(pid: u32) -> Option<Process> {
    let line = String::from_utf8_lossy(&fs::read(format!("/proc/{pid}/stat")).ok()?).into_owned();
    let (open, close) = (line.find('(')?, line.rfind(')')?);
    let mut rest = line.get(close + 1..)?.split_ascii_whitespace();
    let state = rest.next()?.chars().next()?;
    // One that has ended and is not collected does nothing any more, whatever it used.
    if state == 'Z' {
        return None;
    }
    let user: u64 = rest.nth(10)?.parse().ok()?;
    let system: u64 = rest.next()?.parse().ok()?;
    let name = line.get(open + 1..close)?.to_owned();
    Some(Process { pid, name, ticks: user + system, runs_now: state != 'S' })
}

/// The arguments of a process, with blanks between them.
pub(super) fn command_line(pid: u32) -> Option<String> {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    Some(String::from_utf8_lossy(&bytes).replace('\0', " "))
}

/// Where a process works.
pub(super) fn working_directory(pid: u32) -> Option<String> {
    let path = fs::read_link(format!("/proc/{pid}/cwd")).ok()?;
    Some(path.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_for_a_disk_is_idle_and_guests_are_not_counted_twice() {
        let ticks = parse_cpu("cpu  160 0 140 850 50 0 0 0 9 9\ncpu0 1 2 3 4\n").unwrap();
        assert_eq!((ticks.busy, ticks.all), (300, 1200));
        assert_eq!(parse_cpu("nonsense"), None);
    }
}
