//! What a program may use and as whom it runs: set by the new process on itself, before it becomes the program, so that not
//! one instruction of the program runs without it. Knows no job; used between fork and exec only.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::Path;

use rustix::io::Errno;
use rustix::process::{Gid, Resource, Rlimit, Uid, getrlimit, setpriority_process, setrlimit};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use super::record::{Launch, Limits, RunAs};

/// How long a program that takes no notice of the signal at the limit of CPU time goes on before it is killed, in seconds.
pub(super) const LAST_SECONDS: u64 = 1;

/// What failed. The number travels through a pipe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Step {
    CpuSeconds,
    Memory,
    Output,
    OpenFiles,
    Nice,
    Group,
    User,
    Folder,
    Exec,
}

impl Step {
    const ALL: [Self; 9] = [
        Self::CpuSeconds,
        Self::Memory,
        Self::Output,
        Self::OpenFiles,
        Self::Nice,
        Self::Group,
        Self::User,
        Self::Folder,
        Self::Exec,
    ];

    pub(super) fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|step| *step as u8 == byte)
    }
}

/// Takes the limits upon this process, and becomes the user that `launch` names. `group` is the folder of a control group that it joins.
pub(super) fn restrict(
    launch: &Launch,
    limits: &Limits,
    group: Option<&Path>,
) -> Result<(), (Step, io::Error)> {
    if let Some(group) = group {
        // 0 is whoever writes.
        let join = OpenOptions::new().write(true).open(group.join("cgroup.procs"));
        join.and_then(|mut procs| procs.write_all(b"0")).map_err(|error| (Step::Group, error))?;
    }
    limit(limits)?;
    if let Some(run_as) = &launch.run_as {
        become_user(run_as).map_err(|errno| (Step::User, errno.into()))?;
        // Seen apart from a program that may not be executed, since the remedy is another one.
        std::env::set_current_dir(&launch.cwd).map_err(|error| (Step::Folder, error))?;
    }
    Ok(())
}

fn limit(limits: &Limits) -> Result<(), (Step, io::Error)> {
    const MIB: u64 = 1024 * 1024;
    let table = [
        (Step::CpuSeconds, Resource::Cpu, limits.cpu_seconds, LAST_SECONDS),
        (Step::Memory, Resource::As, limits.memory_mb.map(|mb| mb.saturating_mul(MIB)), 0),
        (Step::Output, Resource::Fsize, limits.file_mb.map(|mb| mb.saturating_mul(MIB)), 0),
        (Step::OpenFiles, Resource::Nofile, limits.open_files, 0),
    ];
    for (step, resource, most, beyond) in table {
        let Some(most) = most else { continue };
        set(resource, most, most.saturating_add(beyond)).map_err(|errno| (step, errno.into()))?;
    }
    if let Some(nice) = limits.nice {
        setpriority_process(None, nice).map_err(|errno| (Step::Nice, errno.into()))?;
    }
    Ok(())
}

/// Only root may have more than what this process has: a stricter limit that is in force already stays.
fn set(resource: Resource, soft: u64, hard: u64) -> rustix::io::Result<()> {
    match setrlimit(resource, Rlimit { current: Some(soft), maximum: Some(hard) }) {
        Err(Errno::PERM) => {}
        other => return other,
    }
    let most = getrlimit(resource).maximum.unwrap_or(u64::MAX);
    setrlimit(resource, Rlimit { current: Some(soft.min(most)), maximum: Some(hard.min(most)) })
}

/// The groups first: a user who is not root may not change them. This process has one thread, so that what is said of
/// threads holds for it as a whole.
fn become_user(run_as: &RunAs) -> rustix::io::Result<()> {
    let groups: Vec<Gid> = run_as.groups.iter().map(|group| Gid::from_raw(*group)).collect();
    let (uid, gid) = (Uid::from_raw(run_as.uid), Gid::from_raw(run_as.gid));
    set_thread_groups(&groups)?;
    set_thread_res_gid(gid, gid, gid)?;
    set_thread_res_uid(uid, uid, uid)
}
