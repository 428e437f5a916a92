//! Starts the program of a job and, when that fails, says why in words an administrator can act on. Never a shell.

use std::fs::{self, File};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, prlimit, setpriority_process};
use thiserror::Error;
use tokio::sync::oneshot;
use tokio::time::sleep;

use super::pump::{self, Pumped};
use super::record::{Launch, Limits};

/// Why a program was not started.
#[derive(Debug, Error)]
pub(super) enum StartError {
    #[error("the job names no program")]
    Empty,
    #[error("program {} does not exist", .0.display())]
    NotFound(PathBuf),
    #[error("program {} exists, but the interpreter that its first line names does not", .0.display())]
    NoInterpreter(PathBuf),
    #[error("program {} may not be executed by this user: permission denied", .0.display())]
    Permission(PathBuf),
    #[error(
        "program {} is neither a binary for this machine nor a script with a `#!` line", .0.display()
    )]
    BadFormat(PathBuf),
    #[error("working directory {} does not exist or is not a directory", .0.display())]
    WorkingDirectory(PathBuf),
    #[error("the arguments of {} are too long for the system", .0.display())]
    TooLong(PathBuf),
    #[error("argument {index} of {} holds a NUL character", program.display())]
    Nul { program: PathBuf, index: usize },
    #[error("{} cannot be opened: {source}", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("program {} cannot be started: {source}", path.display())]
    Other { path: PathBuf, source: io::Error },
}

/// Starts it in a process group of its own; gives its id and the promise of its complete output.
pub(super) async fn start(launch: &Launch) -> Result<(Pid, oneshot::Receiver<Pumped>), StartError> {
    let [program, arguments @ ..] = launch.argv.as_slice() else { return Err(StartError::Empty) };
    let path = PathBuf::from(program);
    if let Some(index) = launch.argv.iter().position(|argument| argument.contains('\0')) {
        return Err(StartError::Nul { program: path, index });
    }
    let file_error = |path: &Path| {
        let path = path.to_owned();
        move |source| StartError::File { path, source }
    };
    let log = pump::create(&launch.log).map_err(file_error(&launch.log))?;
    let stdin = match &launch.stdin {
        Some(path) => Stdio::from(File::open(path).map_err(file_error(path))?),
        None => Stdio::null(),
    };
    let other = |source| StartError::Other { path: path.clone(), source };
    let (reader, writer) = io::pipe().map_err(other)?;
    let output = pump::start(reader, log, launch.log_limit_bytes).map_err(other)?;

    let mut command = Command::new(program);
    command.args(arguments).current_dir(&launch.cwd).stdin(stdin).process_group(0);
    command.stdout(writer.try_clone().map_err(other)?).stderr(writer);
    for name in &launch.env_remove {
        command.env_remove(name);
    }
    command.envs(launch.env.iter().map(|(name, value)| (name, value)));

    let mut patience = 20;
    let child = loop {
        match command.spawn() {
            Ok(child) => break child,
            // Someone has the file open for writing: a copy that is just being installed. It passes.
            Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy && patience > 0 => {
                patience -= 1;
                sleep(Duration::from_millis(50)).await;
            }
            Err(error) => return Err(explain(error, path, &launch.cwd)),
        }
    };
    // `command` holds our copies of the pipe's writing end: without this drop the output would never end.
    drop(command);
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let Some(pid) = pid else {
        let source = io::Error::other("the system gave an impossible process id");
        return Err(StartError::Other { path, source });
    };
    limit(pid, &launch.limits);
    Ok((pid, output))
}

/// Set from outside right after the start, because setting them on ourselves would limit the supervisor too. A limit that
/// the system does not allow (a higher one than our own) leaves the old, stricter one in force.
fn limit(pid: Pid, limits: &Limits) {
    const MIB: u64 = 1024 * 1024;
    let table = [
        (Resource::Cpu, limits.cpu_seconds),
        (Resource::As, limits.memory_mb.map(|mb| mb.saturating_mul(MIB))),
        (Resource::Fsize, limits.file_mb.map(|mb| mb.saturating_mul(MIB))),
        (Resource::Nofile, limits.open_files),
    ];
    for (resource, most) in table {
        if most.is_some() {
            let _ = prlimit(Some(pid), resource, Rlimit { current: most, maximum: most });
        }
    }
    if let Some(nice) = limits.nice {
        let _ = setpriority_process(Some(pid), nice);
    }
}

fn explain(error: io::Error, path: PathBuf, cwd: &Path) -> StartError {
    if !cwd.is_dir() {
        return StartError::WorkingDirectory(cwd.to_owned());
    }
    match error.kind() {
        io::ErrorKind::NotFound if fs::metadata(&path).is_ok() => StartError::NoInterpreter(path),
        io::ErrorKind::NotFound => StartError::NotFound(path),
        io::ErrorKind::PermissionDenied => StartError::Permission(path),
        io::ErrorKind::ArgumentListTooLong => StartError::TooLong(path),
        _ if error.raw_os_error() == Some(rustix::io::Errno::NOEXEC.raw_os_error()) => {
            StartError::BadFormat(path)
        }
        _ => StartError::Other { path, source: error },
    }
}
