//! Measures the host: CPU and memory in use, and whether a program of the blacklist runs. The averages are pure; the
//! sampler reads what the system tells, and in a container the limits of its cgroups. Decides nothing.

#[cfg(unix)]
mod cgroup;
#[cfg(unix)]
mod linux;
#[cfg(windows)]
mod windows;

use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;
use std::time::Duration;

#[cfg(unix)]
use self::linux as system;
#[cfg(windows)]
use self::windows as system;
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
    host: system::Host,
    process_ticks: HashMap<u32, u64>,
    folders: Vec<(&'static str, PathBuf)>,
}

/// With less free space than this somebody should look after a disk, in bytes.
const LITTLE_SPACE: u64 = 64 * 1024 * 1024;

/// What is to be said of the disk of the first of these folders that is nearly full. One that is not there yet is not.
fn disk_warning(folders: &[(&'static str, PathBuf)], little: u64) -> Option<String> {
    folders.iter().find_map(|(key, folder)| {
        let (free, no_more_files) = system::space(folder)?;
        let what = if free < little {
            format!("only {} MiB are left", free >> 20)
        } else if no_more_files {
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
        Self {
            averages: Averages::new(samples(window)),
            blacklist,
            cpu: None,
            host: system::Host::default(),
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

    /// Takes one sample. What cannot be read counts as idle: an agent that may not look still works.
    pub fn sample(&mut self) -> Measured {
        let cpu = self.host.cpu_ticks();
        let cpu_percent = match (&self.cpu, &cpu) {
            (Some(before), Some(now)) => before.percent_until(now),
            _ => 0.0,
        };
        self.cpu = cpu;
        // Of a quota that is tighter than the host: what others do on the host is not ours to see.
        let cpu_percent = self.host.quota_percent().unwrap_or(cpu_percent);
        self.averages.push(cpu_percent, self.host.memory_percent().unwrap_or(0.0));
        let (cpu_percent, memory_percent) = self.averages.figures();
        let warning = disk_warning(&self.folders, LITTLE_SPACE);
        Measured { cpu_percent, memory_percent, blacklisted: self.blacklisted(), warning }
    }

    fn blacklisted(&mut self) -> Option<String> {
        if self.blacklist.is_empty() {
            return None;
        }
        let mut ticks = HashMap::new();
        let mut found = None;
        // The agent itself keeps no work away.
        for process in system::processes().filter(|process| process.pid != std::process::id()) {
            ticks.insert(process.pid, process.ticks);
            let worked = self.process_ticks.get(&process.pid).is_some_and(|before| *before < process.ticks);
            let running = process.runs_now || worked;
            if found.is_none() && running && self.blacklist.iter().any(|entry| process.matches(entry)) {
                found = Some(process.name);
            }
        }
        self.process_ticks = ticks;
        found
    }
}

/// CPU time of the host since some moment, in any unit.
#[derive(Debug, Clone, PartialEq, Eq)]
struct CpuTicks {
    busy: u64,
    all: u64,
}

impl CpuTicks {
    fn percent_until(&self, now: &Self) -> f64 {
        let all = now.all.saturating_sub(self.all);
        let busy = now.busy.saturating_sub(self.busy);
        if all == 0 { 0.0 } else { (busy as f64 / all as f64 * 100.0).clamp(0.0, 100.0) }
    }
}

fn samples(window: Duration) -> usize {
    usize::try_from(window.as_secs()).unwrap_or(usize::MAX).min(24 * 3600)
}

fn percent(part: u64, all: u64) -> f64 {
    if all == 0 { 0.0 } else { (part as f64 / all as f64 * 100.0).clamp(0.0, 100.0) }
}

/// One process of the host.
struct Process {
    pid: u32,
    name: String,
    /// CPU time that it has used, in any unit.
    ticks: u64,
    /// Whether it is doing something at this moment, as far as the system tells.
    runs_now: bool,
}

impl Process {
    fn matches(&self, entry: &Forbidden) -> bool {
        let part = |wanted: &Option<String>, found: &dyn Fn() -> Option<String>| match wanted {
            None => true,
            // Names of files are the same in capitals on Windows.
            Some(wanted) if cfg!(windows) => {
                found().is_some_and(|found| found.to_lowercase().contains(&wanted.to_lowercase()))
            }
            Some(wanted) => found().is_some_and(|found| found.contains(wanted.as_str())),
        };
        part(&entry.name, &|| Some(self.name.clone()))
            && part(&entry.cmdline, &|| system::command_line(self.pid))
            && part(&entry.cwd, &|| system::working_directory(self.pid))
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
            text.starts_with("only ") && text.contains("MiB are left on the disk of `output_dir`, "),
            "{text}"
        );
    }

    #[test]
    fn cpu_is_the_busy_part_of_what_passed() {
        let before = CpuTicks { busy: 200, all: 1000 };
        assert_eq!(before.percent_until(&CpuTicks { busy: 300, all: 1200 }), 50.0);
        assert_eq!(before.percent_until(&before), 0.0);
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

    #[cfg(not(windows))]
    #[test]
    fn the_host_is_measured_and_a_busy_program_is_found() {
        let (program, arguments) = if cfg!(windows) {
            ("cmd", ["/c", "for /L %i in (0,0,1) do @rem forbidden-mark"])
        } else {
            ("sh", ["-c", "while :; do :; done # forbidden-mark"])
        };
        let mut child = std::process::Command::new(program).args(arguments).spawn().unwrap();
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
