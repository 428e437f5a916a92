//! The limits of a container: what share of its CPU quota and of its memory limit is in use, for cgroup v1 and v2. Every level
//! from the agent's own group up to the outermost that can be seen counts, because each may be the tightest.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Where the groups are on every usual host.
pub(super) const ROOT: &str = "/sys/fs/cgroup";

/// The groups that this process is in.
#[derive(Debug, Default)]
pub(super) struct Cgroups {
    cpu: Vec<CpuLevel>,
    memory: Vec<MemoryLevel>,
    /// CPU time in microseconds that each level had used, and when.
    used: HashMap<PathBuf, (u64, u64)>,
}

#[derive(Debug)]
enum CpuLevel {
    /// `cpu.max` and `cpu.stat`.
    V2(PathBuf),
    /// `cpu.cfs_quota_us` in the first, `cpuacct.usage` in the second folder.
    V1(PathBuf, PathBuf),
}

#[derive(Debug)]
enum MemoryLevel {
    V2(PathBuf),
    V1(PathBuf),
}

impl Cgroups {
    /// The groups that `/proc/self/cgroup` names, below `root`. In a container the names may lead outside of what can be seen;
    /// then the outermost visible level stands for them.
    pub(super) fn find(own: &str, root: &Path) -> Self {
        let mut found = Self::default();
        let mut accounting = None;
        let mut quota = None;
        for line in own.lines() {
            // cgroups(7): hierarchy-ID:controller-list:cgroup-path
            let mut parts = line.splitn(3, ':');
            let (Some(_), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next()) else {
                continue;
            };
            if controllers.is_empty() {
                let unified =
                    if root.join("unified").is_dir() { root.join("unified") } else { root.to_owned() };
                for folder in levels(&unified, path) {
                    found.cpu.push(CpuLevel::V2(folder.clone()));
                    found.memory.push(MemoryLevel::V2(folder));
                }
                continue;
            }
            for controller in controllers.split(',') {
                // Mounted under the whole list, with a link for each name; some hosts have the names only.
                let mount =
                    [controllers, controller].map(|name| root.join(name)).into_iter().find(|m| m.is_dir());
                let Some(mount) = mount else { continue };
                match controller {
                    "memory" => found.memory.extend(levels(&mount, path).into_iter().map(MemoryLevel::V1)),
                    "cpu" => quota = Some((mount, path.to_owned())),
                    "cpuacct" => accounting = Some(mount),
                    _ => {}
                }
            }
        }
        if let (Some((mount, path)), Some(accounting)) = (quota, accounting) {
            for folder in levels(&mount, &path) {
                let Ok(below) = folder.strip_prefix(&mount) else { continue };
                let counted = accounting.join(below);
                found.cpu.push(CpuLevel::V1(folder, counted));
            }
        }
        found
    }

    /// Percent of the tightest CPU quota in use since the last call; `None` without a quota below `cores`. The time is
    /// monotonic, in microseconds.
    pub(super) fn cpu_percent(&mut self, now_us: u64, cores: f64) -> Option<f64> {
        let mut most: Option<f64> = None;
        for level in &self.cpu {
            let Some((allowed, used)) = level.read().filter(|(allowed, _)| *allowed < cores) else {
                continue;
            };
            let before = self.used.insert(level.folder().to_owned(), (used, now_us));
            let percent = before.map_or(0.0, |(used_before, at)| {
                let passed = now_us.saturating_sub(at) as f64 * allowed;
                if passed > 0.0 { used.saturating_sub(used_before) as f64 / passed * 100.0 } else { 0.0 }
            });
            most = Some(most.unwrap_or(0.0).max(percent.clamp(0.0, 100.0)));
        }
        most
    }

    /// Percent of the tightest memory limit in use; `None` without one below `total` bytes. Pages of files that can be dropped
    /// at any time do not count.
    pub(super) fn memory_percent(&self, total: u64) -> Option<f64> {
        let used = self.memory.iter().filter_map(MemoryLevel::read);
        let limited = used.filter(|(limit, _)| *limit > 0 && *limit < total);
        limited.map(|(limit, used)| (used as f64 / limit as f64 * 100.0).clamp(0.0, 100.0)).reduce(f64::max)
    }
}

impl CpuLevel {
    fn folder(&self) -> &Path {
        match self {
            Self::V2(folder) | Self::V1(folder, _) => folder,
        }
    }

    /// Cores that are allowed, and microseconds used since the group exists.
    fn read(&self) -> Option<(f64, u64)> {
        let (quota, period, used) = match self {
            Self::V2(folder) => {
                let text = fs::read_to_string(folder.join("cpu.max")).ok()?;
                let mut words = text.split_ascii_whitespace();
                let quota: f64 = words.next()?.parse().ok()?;
                let period: f64 = words.next()?.parse().ok()?;
                (quota, period, field(&folder.join("cpu.stat"), "usage_usec")?)
            }
            Self::V1(folder, counted) => {
                let quota = number(&folder.join("cpu.cfs_quota_us"))?;
                let period = number(&folder.join("cpu.cfs_period_us"))?;
                let used: u64 = number(&counted.join("cpuacct.usage"))?;
                (quota, period, used / 1000)
            }
        };
        (quota > 0.0 && period > 0.0).then(|| (quota / period, used))
    }
}

impl MemoryLevel {
    /// The limit and what is in use, in bytes.
    fn read(&self) -> Option<(u64, u64)> {
        let (limit, used, droppable) = match self {
            Self::V2(folder) => (
                number(&folder.join("memory.max"))?,
                number::<u64>(&folder.join("memory.current"))?,
                field(&folder.join("memory.stat"), "inactive_file"),
            ),
            Self::V1(folder) => (
                number(&folder.join("memory.limit_in_bytes"))?,
                number::<u64>(&folder.join("memory.usage_in_bytes"))?,
                field(&folder.join("memory.stat"), "total_inactive_file"),
            ),
        };
        Some((limit, used.saturating_sub(droppable.unwrap_or(0))))
    }
}

/// The folder of a group and those above it, as far as they can be seen; innermost first.
fn levels(mount: &Path, path: &str) -> Vec<PathBuf> {
    let below = Path::new(path.trim_start_matches('/'));
    // A path with `..` is that of a group outside of our namespace.
    let below = if below.components().any(|part| part.as_os_str() == "..") { Path::new("") } else { below };
    let inner = mount.join(below);
    let folders = inner.ancestors().take_while(|folder| folder.starts_with(mount));
    folders.filter(|folder| folder.is_dir()).map(Path::to_path_buf).collect()
}

/// A number, `max` (v2) being none.
fn number<T: std::str::FromStr>(file: &Path) -> Option<T> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

fn field(file: &Path, name: &str) -> Option<u64> {
    let text = fs::read_to_string(file).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
    line.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(root: &Path, files: &[(&str, &str)]) {
        for (name, text) in files {
            let path = root.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
    }

    const GIB: u64 = 1 << 30;

    #[test]
    fn version_2_counts_every_level() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        write(
            root,
            &[
                ("a.slice/memory.max", "1073741824\n"),
                ("a.slice/memory.current", "1073741824\n"),
                ("a.slice/memory.stat", "anon 1\ninactive_file 536870912\n"),
                ("a.slice/cpu.max", "100000 100000\n"),
                ("a.slice/cpu.stat", "usage_usec 1000000\nuser_usec 1\n"),
                ("a.slice/b.service/memory.max", "max\n"),
                ("a.slice/b.service/memory.current", "5\n"),
                ("a.slice/b.service/cpu.max", "max 100000\n"),
                ("a.slice/b.service/cpu.stat", "usage_usec 10\n"),
            ],
        );
        let mut groups = Cgroups::find("0::/a.slice/b.service\n", root);
        assert_eq!(
            groups.memory_percent(64 * GIB),
            Some(50.0),
            "of the outer level, without droppable pages"
        );
        assert_eq!(groups.memory_percent(GIB / 2), None, "a limit above the host's memory is none");
        assert_eq!(groups.cpu_percent(1_000_000, 4.0), Some(0.0), "nothing to compare with yet");
        write(root, &[("a.slice/cpu.stat", "usage_usec 1750000\n")]);
        assert_eq!(groups.cpu_percent(2_000_000, 4.0), Some(75.0));
        assert_eq!(groups.cpu_percent(3_000_000, 4.0), Some(0.0));
        assert_eq!(groups.cpu_percent(4_000_000, 1.0), None, "a quota of all cores is none");
    }

    #[test]
    fn in_a_container_the_names_may_lead_nowhere() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        write(
            root,
            &[
                ("memory/memory.limit_in_bytes", "1000000\n"),
                ("memory/memory.usage_in_bytes", "900000\n"),
                ("memory/memory.stat", "inactive_file 1\ntotal_inactive_file 100000\n"),
                ("cpu,cpuacct/cpu.cfs_quota_us", "50000\n"),
                ("cpu,cpuacct/cpu.cfs_period_us", "100000\n"),
                ("cpu,cpuacct/cpuacct.usage", "0\n"),
            ],
        );
        let own = "5:memory:/docker/0123\n4:cpu,cpuacct:/docker/0123\n1:name=systemd:/docker/0123\n";
        let mut groups = Cgroups::find(own, root);
        assert_eq!(groups.memory_percent(GIB), Some(80.0));
        assert_eq!(groups.cpu_percent(0, 2.0), Some(0.0));
        write(root, &[("cpu,cpuacct/cpuacct.usage", "250000000\n")]);
        assert_eq!(groups.cpu_percent(1_000_000, 2.0), Some(50.0), "a quarter of a second of half a core");
        assert_eq!(Cgroups::find("0::/../../x\nrubbish\n", root).memory_percent(GIB), None);
    }

    #[test]
    fn without_limits_there_is_nothing_to_say() {
        let root = tempfile::tempdir().unwrap();
        write(
            root.path(),
            &[
                ("memory/memory.limit_in_bytes", "9223372036854771712\n"),
                ("memory/memory.usage_in_bytes", "5\n"),
                ("cpu/cpu.cfs_quota_us", "-1\n"),
                ("cpu/cpu.cfs_period_us", "100000\n"),
                ("cpuacct/cpuacct.usage", "5\n"),
            ],
        );
        let mut groups = Cgroups::find("3:memory:/\n2:cpuacct:/\n1:cpu:/\n", root.path());
        assert_eq!((groups.memory_percent(GIB), groups.cpu_percent(5, 2.0)), (None, None));
        let mut none = Cgroups::find("", Path::new("/no/such/folder"));
        assert_eq!((none.memory_percent(GIB), none.cpu_percent(5, 2.0)), (None, None));
    }

    /// A group that is removed with everything in it at the end of the test.
    struct Real(Vec<PathBuf>);

    impl Drop for Real {
        fn drop(&mut self) {
            for folder in &self.0 {
                for pid in fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default().lines() {
                    let pid = pid.parse().ok().and_then(rustix::process::Pid::from_raw);
                    pid.map(|pid| rustix::process::kill_process(pid, rustix::process::Signal::KILL));
                }
            }
            let end = std::time::Instant::now() + std::time::Duration::from_secs(10);
            while self.0.iter().any(|folder| folder.exists() && fs::remove_dir(folder).is_err())
                && std::time::Instant::now() < end
            {
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
        }
    }

    #[test]
    fn a_real_quota_is_seen() {
        let name = format!("wps-test-{}", std::process::id());
        let root = Path::new(ROOT);
        let unified = root.join("cgroup.controllers").exists();
        let mounts =
            if unified { vec![root.to_owned()] } else { vec![root.join("cpu"), root.join("cpuacct")] };
        let folders: Vec<PathBuf> = mounts.iter().map(|mount| mount.join(&name)).collect();
        let made = folders.iter().all(|folder| fs::create_dir(folder).is_ok());
        let group = Real(folders);
        let limited = if unified {
            fs::write(group.0[0].join("cpu.max"), "20000 100000")
        } else {
            fs::write(group.0[0].join("cpu.cfs_quota_us"), "20000")
        };
        if !made || limited.is_err() {
            eprintln!("SKIPPED a_real_quota_is_seen: no cgroup can be made here");
            return;
        }
        let mut child = std::process::Command::new("sh").args(["-c", "while :; do :; done"]).spawn().unwrap();
        let moved = group
            .0
            .iter()
            .all(|folder| fs::write(folder.join("cgroup.procs"), child.id().to_string()).is_ok());
        let own = fs::read_to_string(format!("/proc/{}/cgroup", child.id())).unwrap_or_default();
        let mut groups = Cgroups::find(&own, root);
        let begin = std::time::Instant::now();
        let mut seen = None;
        // Two fifths of a core would be above the quota of one fifth; how much of it a busy machine grants is its own affair.
        while seen.is_none_or(|percent| percent <= 0.0) && begin.elapsed().as_secs() < 20 {
            std::thread::sleep(std::time::Duration::from_millis(200));
            let now = u64::try_from(begin.elapsed().as_micros()).unwrap();
            seen = groups.cpu_percent(now, 1.0);
        }
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(moved, "the child could be put into its group");
        assert!(seen.is_some_and(|percent| percent > 0.0 && percent <= 100.0), "{seen:?} of {own}");
    }
}
