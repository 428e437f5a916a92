//! Control groups of Linux (version 2), one for each job where the agent has been given a part of the tree to manage: a limit
//! of memory for the job as a whole, and an end from which nothing can run away. Everything works without, only less well.
//!
//! ```text
//!  <delegated>/            subtree_control: +memory +pids
//!  <delegated>/agent/      the agent, its fork server and the supervisors (systemd: DelegateSubgroup=agent)
//!  <delegated>/job-<id>/   the program and all that it starts
//! ```

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

/// How long an emptied group is tried to be removed: the system needs a moment after the last process.
const REMOVE_FOR: u32 = 50;
const REMOVE_EVERY: Duration = Duration::from_millis(2);

/// The group of one job.
#[derive(Debug)]
pub(super) struct Group {
    path: PathBuf,
    limits_memory: bool,
}

impl Group {
    /// Makes it below `parent`. With a limit of memory only if the system lets it be set; see [`Self::limits_memory`].
    pub(super) fn create(parent: &Path, name: &str, memory_mb: Option<u64>) -> io::Result<Self> {
        let path = parent.join(format!("job-{name}"));
        match fs::create_dir(&path) {
            // Left by a supervisor that was killed.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            other => other?,
        }
        let mut group = Self { path, limits_memory: false };
        if let Some(mb) = memory_mb {
            let bytes = mb.saturating_mul(1024 * 1024).to_string();
            group.limits_memory = fs::write(group.path.join("memory.max"), bytes).is_ok();
            // Without these a job would only become slow, and part of it could stay behind. Neither exists everywhere.
            let _ = fs::write(group.path.join("memory.swap.max"), "0");
            let _ = fs::write(group.path.join("memory.oom.group"), "1");
        }
        Ok(group)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the limit of memory is in force.
    pub(super) fn limits_memory(&self) -> bool {
        self.limits_memory
    }

    /// Whether a process of the job was killed because the job had used up its memory.
    pub(super) fn ran_out_of_memory(&self) -> bool {
        let events = fs::read_to_string(self.path.join("memory.events")).unwrap_or_default();
        let kills = events.lines().filter_map(|line| line.strip_prefix("oom_kill "));
        kills.filter_map(|count| count.trim().parse::<u64>().ok()).any(|count| count > 0)
    }

    /// Kills everything in it at one instant. Nothing happens before Linux 5.14.
    pub(super) fn kill(&self) {
        let _ = fs::write(self.path.join("cgroup.kill"), "1");
    }

    /// Removes it; one that still holds a process stays.
    pub(super) fn remove(self) {
        for _ in 0..REMOVE_FOR {
            match fs::remove_dir(&self.path) {
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy => sleep(REMOVE_EVERY),
                _ => return,
            }
        }
    }
}

/// The part of the tree that this agent manages: the parent of its own group, if that was delegated.
///
/// # Errors
/// Why there is none, in words for people.
pub fn delegated() -> Result<PathBuf, String> {
    let read =
        |path: &str| fs::read_to_string(path).map_err(|error| format!("{path} cannot be read: {error}"));
    let mounts = read("/proc/self/mountinfo")?;
    let (root, mount) = mounts.lines().find_map(mount_of).ok_or("no cgroup v2 is mounted")?;
    let groups = read("/proc/self/cgroup")?;
    let own =
        groups.lines().find_map(|line| line.strip_prefix("0::")).ok_or("this process is in no cgroup v2")?;
    let below = Path::new(own)
        .strip_prefix(&root)
        .map_err(|_| format!("the group {own} cannot be seen from here"))?;
    let own = mount.join(below);
    let parent = own.parent().filter(|parent| parent.starts_with(&mount) && own != mount);
    let parent = parent.ok_or("this process is in the root of the tree")?;
    if !is_delegated(parent) {
        return Err(format!(
            "{} is not delegated (systemd: Delegate=memory pids, DelegateSubgroup=agent)",
            parent.display()
        ));
    }
    // Not available or not allowed: groups still serve for the end of jobs.
    for controller in ["+memory", "+pids"] {
        let _ = fs::write(parent.join("cgroup.subtree_control"), controller);
    }
    Ok(parent.to_owned())
}

/// By systemd's mark, or because it was given to this very user.
fn is_delegated(folder: &Path) -> bool {
    let marked = ["user.delegate", "trusted.delegate"].iter().any(|name| {
        let mut value = [0; 8];
        rustix::fs::getxattr(folder, *name, &mut value).is_ok_and(|length| value.get(..length) == Some(b"1"))
    });
    let me = rustix::process::geteuid();
    let given =
        rustix::fs::stat(folder.join("cgroup.subtree_control")).is_ok_and(|stat| stat.st_uid == me.as_raw());
    marked || (given && !me.is_root())
}

/// Root and mount point of a line of mountinfo, if it is a cgroup v2: see proc_pid_mountinfo(5).
fn mount_of(line: &str) -> Option<(PathBuf, PathBuf)> {
    let (left, right) = line.split_once(" - ")?;
    let mut fields = left.split(' ').skip(3);
    let (root, mount) = (fields.next()?, fields.next()?);
    right.starts_with("cgroup2 ").then(|| (root.into(), mount.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mount_of_version_2_is_found_among_others() {
        let v1 = "31 25 0:26 / /sys/fs/cgroup/memory rw shared:9 - cgroup cgroup rw,memory";
        let v2 = "32 25 0:27 /user /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw";
        assert_eq!(mount_of(v1), None);
        assert_eq!(mount_of(v2), Some(("/user".into(), "/sys/fs/cgroup".into())));
        assert_eq!(mount_of("nonsense"), None);
    }
}
