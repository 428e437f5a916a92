//! Measures the host: CPU and memory in use, and whether a program of the blacklist runs. The averages are pure; the
//! sampler reads /proc, and in a container the limits of its cgroups. Decides nothing.

mod cgroup;

use std::collections::{HashMap, VecDeque};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use self::cgroup::Cgroups;
use crate::engine::Measured;

/// How often a sample is taken.
pub const SAMPLE_EVERY: Duration = Duration::from_secs(1);
/// Samples that count as "now".
const NOW: usize = 5;

/// A program that stops new work while it runs. An absent part matches everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Forbidden {
    /// Part of the process's name.
    pub name: Option<String>,
    /// Part of its working directory.
    pub cwd: Option<String>,
    /// Part of its command line.
    pub cmdline: Option<String>,
}

/// The figures of a scan window: half what is now, half what was over the window.
#[derive(Debug)]
pub struct Averages {
    window: usize,
    cpu: VecDeque<f64>,
    memory: VecDeque<f64>,
    memory_smooth: Option<f64>,
}

impl Averages {
    /// Over a window of so many samples.
    pub fn new(window: usize) -> Self {
        Self { window: window.max(1), cpu: VecDeque::new(), memory: VecDeque::new(), memory_smooth: None }
    }

    /// Takes one sample, in percent.
    pub fn push(&mut self, cpu: f64, memory: f64) {
        keep(&mut self.cpu, cpu, self.window.max(NOW));
        keep(&mut self.memory, memory, NOW);
        // Exponential mean with the window as time constant.
        let weight = 1.0 / self.window as f64;
        let smooth = self.memory_smooth.unwrap_or(memory);
        self.memory_smooth = Some(smooth + (memory - smooth) * weight);
    }

    /// CPU and memory, in percent.
    pub fn figures(&self) -> (f64, f64) {
        let now = mean(self.cpu.iter().rev().take(NOW));
        let window = mean(self.cpu.iter().rev().take(self.window));
        let memory_now = mean(self.memory.iter());
        (f64::midpoint(now, window), f64::midpoint(memory_now, self.memory_smooth.unwrap_or(memory_now)))
    }
}

fn keep(samples: &mut VecDeque<f64>, sample: f64, most: usize) {
    samples.push_back(sample);
    if samples.len() > most {
        samples.pop_front();
    }
}

fn mean<'a>(samples: impl Iterator<Item = &'a f64>) -> f64 {
    let (sum, count) = samples.fold((0.0, 0.0), |(sum, count), sample| (sum + sample, count + 1.0));
    if count > 0.0 { sum / count } else { 0.0 }
}

/// Reads the host, once a second.
#[derive(Debug)]
pub struct Sampler {
    averages: Averages,
    blacklist: Vec<Forbidden>,
    cpu: Option<CpuTicks>,
    cgroups: Cgroups,
    process_ticks: HashMap<i32, u64>,
    folders: Vec<(&'static str, PathBuf)>,
}

/// With less free space than this somebody should look after a disk, in bytes.
const LITTLE_SPACE: u64 = 64 * 1024 * 1024;

/// What is to be said of the disk of the first of these folders that is nearly full. One that is not there yet is not.
fn disk_warning(folders: &[(&'static str, PathBuf)], little: u64) -> Option<String> {
    folders.iter().find_map(|(key, folder)| {
        let disk = rustix::fs::statvfs(folder).ok()?;
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        let what = if free < little {
            format!("only {} MiB are left", free >> 20)
        } else if disk.f_files > 0 && disk.f_favail == 0 {
            "no more files can be made".to_owned()
        } else {
            return None;
        };
        Some(format!("{what} on the disk of `{key}`, {}", folder.display()))
    })
}

impl Sampler {
    /// Over this window, at most a day.
    pub fn new(window: Duration, blacklist: Vec<Forbidden>) -> Self {
        let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        Self {
            averages: Averages::new(samples(window)),
            blacklist,
            cpu: None,
            cgroups: Cgroups::find(&own, Path::new(cgroup::ROOT)),
            process_ticks: HashMap::new(),
            folders: Vec::new(),
        }
    }

    /// From now on this window and this blacklist. What was measured is kept unless the window changes.
    pub fn configure(&mut self, window: Duration, blacklist: Vec<Forbidden>) {
        if self.averages.window != samples(window).max(1) {
            self.averages = Averages::new(samples(window));
        }
        self.blacklist = blacklist;
    }

    /// Looks after the disks of these folders, too; each with the key of the configuration that names it.
    #[must_use]
    pub fn with_folders(mut self, folders: Vec<(&'static str, PathBuf)>) -> Self {
        self.folders = folders;
        self
    }

    /// Takes one sample. What cannot be read counts as idle: an agent without /proc still works.
    pub fn sample(&mut self) -> Measured {
        let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
        let cpu = CpuTicks::parse(&stat);
        let cpu_percent = match (&self.cpu, &cpu) {
            (Some(before), Some(now)) => before.percent_until(now),
            _ => 0.0,
        };
        self.cpu = cpu;
        // Of a quota that is tighter than the host: what others do on the host is not ours to see.
        let cores = std::thread::available_parallelism().map_or(1.0, |cores| cores.get() as f64);
        let cpu_percent = self
            .cgroups
            .cpu_percent(monotonic_us(), host_cores(&stat).unwrap_or(cores))
            .unwrap_or(cpu_percent);
        self.averages.push(cpu_percent, self.memory_percent().unwrap_or(0.0));
        let (cpu_percent, memory_percent) = self.averages.figures();
        let warning = disk_warning(&self.folders, LITTLE_SPACE);
        Measured { cpu_percent, memory_percent, blacklisted: self.blacklisted(), warning }
    }

    /// Of the host, or of a tighter limit of the container if more of that is in use: a host without memory ends anybody's
    /// programs.
    fn memory_percent(&self) -> Option<f64> {
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

    fn blacklisted(&mut self) -> Option<String> {
        if self.blacklist.is_empty() {
            return None;
        }
        let mut ticks = HashMap::new();
        let mut found = None;
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
                continue;
            };
            // The agent itself keeps no work away.
            if u32::try_from(pid) == Ok(std::process::id()) {
                continue;
            }
            let Some(process) = Process::read(pid) else { continue };
            ticks.insert(pid, process.ticks);
            let worked = self.process_ticks.get(&pid).is_some_and(|before| *before < process.ticks);
            let running = process.state != 'Z' && (process.state != 'S' || worked);
            if found.is_none() && running && self.blacklist.iter().any(|entry| process.matches(pid, entry)) {
                found = Some(process.name);
            }
        }
        self.process_ticks = ticks;
        found
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct CpuTicks {
    busy: u64,
    all: u64,
}

impl CpuTicks {
    /// The line `cpu` of proc_stat(5): user, nice, system, idle, iowait, irq, softirq, steal.
    fn parse(text: &str) -> Option<Self> {
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
        Some(Self { busy: all - idle, all })
    }

    fn percent_until(&self, now: &Self) -> f64 {
        let all = now.all.saturating_sub(self.all);
        let busy = now.busy.saturating_sub(self.busy);
        if all == 0 { 0.0 } else { (busy as f64 / all as f64 * 100.0).clamp(0.0, 100.0) }
    }
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

fn samples(window: Duration) -> usize {
    usize::try_from(window.as_secs()).unwrap_or(usize::MAX).min(24 * 3600)
}

fn percent(part: u64, all: u64) -> f64 {
    if all == 0 { 0.0 } else { (part as f64 / all as f64 * 100.0).clamp(0.0, 100.0) }
}

struct Process {
    name: String,
    state: char,
    ticks: u64,
}

impl Process {
    fn read(pid: i32) -> Option<Self> {
        let line = String::from_utf8_lossy(&fs::read(format!("/proc/{pid}/stat")).ok()?).into_owned();
        let (open, close) = (line.find('(')?, line.rfind(')')?);
        let mut rest = line.get(close + 1..)?.split_ascii_whitespace();
        let state = rest.next()?.chars().next()?;
        let user: u64 = rest.nth(10)?.parse().ok()?;
        let system: u64 = rest.next()?.parse().ok()?;
        Some(Self { name: line.get(open + 1..close)?.to_owned(), state, ticks: user + system })
    }

    fn matches(&self, pid: i32, entry: &Forbidden) -> bool {
        let part = |wanted: &Option<String>, found: &dyn Fn() -> Option<String>| match wanted {
            None => true,
            Some(wanted) => found().is_some_and(|found| found.contains(wanted.as_str())),
        };
        part(&entry.name, &|| Some(self.name.clone()))
            && part(&entry.cmdline, &|| {
                let bytes = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
                Some(String::from_utf8_lossy(&bytes).replace('\0', " "))
            })
            && part(&entry.cwd, &|| {
                let path = fs::read_link(format!("/proc/{pid}/cwd")).ok()?;
                Some(path.to_string_lossy().into_owned())
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_that_is_nearly_full_is_named_with_its_key() {
        let folders = vec![("absent", "/no such folder".into()), ("output_dir", std::env::temp_dir())];
        assert_eq!(disk_warning(&folders, 0), None);
        let text = disk_warning(&folders, u64::MAX).unwrap();
        assert!(
            text.starts_with("only ") && text.contains("MiB are left on the disk of `output_dir`, /"),
            "{text}"
        );
    }

    #[test]
    fn cpu_is_the_busy_part_of_what_passed() {
        let before = CpuTicks::parse("cpu  100 0 100 800 0 0 0 0 0 0\ncpu0 1 2 3 4\n").unwrap();
        let now = CpuTicks::parse("cpu  160 0 140 850 50 0 0 0 9 9\n").unwrap();
        assert_eq!(before.percent_until(&now), 50.0);
        assert_eq!(before.percent_until(&before), 0.0);
        assert_eq!(CpuTicks::parse("nonsense"), None);
    }

    #[test]
    fn averages_are_half_now_and_half_window() {
        let mut averages = Averages::new(60);
        for _ in 0..55 {
            averages.push(0.0, 40.0);
        }
        for _ in 0..5 {
            averages.push(60.0, 40.0);
        }
        let (cpu, memory) = averages.figures();
        assert_eq!(cpu, (60.0 + 5.0) / 2.0);
        assert!((memory - 40.0).abs() < 1e-9);
        assert_eq!(Averages::new(0).figures(), (0.0, 0.0));
    }

    #[test]
    fn the_host_is_measured_and_a_busy_program_is_found() {
        let mut child = std::process::Command::new("sh")
            .args(["-c", "while :; do :; done # forbidden-mark"])
            .spawn()
            .unwrap();
        let entry = Forbidden { cmdline: Some("forbidden-mark".into()), ..Default::default() };
        let mut sampler = Sampler::new(Duration::from_secs(60), vec![entry]);
        let deadline = std::time::Instant::now() + Duration::from_secs(10);
        let mut found = None;
        while found.is_none() && std::time::Instant::now() < deadline {
            let measured = sampler.sample();
            assert!(measured.memory_percent > 0.0 && measured.memory_percent <= 100.0);
            found = measured.blacklisted;
            std::thread::sleep(Duration::from_millis(50));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(found.is_some(), "the busy shell was not found");
        let nobody = Forbidden { name: Some("no such program".into()), ..Default::default() };
        assert_eq!(Sampler::new(Duration::from_secs(60), vec![nobody]).sample().blacklisted, None);
    }
}
