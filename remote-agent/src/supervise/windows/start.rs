//! Starts the program of a job inside of a job object and, when that fails, says why in words an administrator can act
//! on. Never a shell; a batch file only with arguments that can be quoted for it.

use std::fs::File;
use std::io;
use std::os::windows::io::AsHandle;
use std::os::windows::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use thiserror::Error;
use tokio::sync::oneshot;
use windows_sys::Win32::System::Threading::CREATE_SUSPENDED;

use super::cgroup::Group;
use super::tree::Main;
use crate::supervise::pump::{self, Pumped};
use crate::supervise::record::Launch;
use crate::winapi::job::{self, Job};

/// Error of CreateProcess for a file that is no program.
const BAD_FORMAT: i32 = 193;
/// The same for one of another machine.
const OTHER_MACHINE: i32 = 216;
/// Longest command line is 32,767 characters.
const TOO_LONG: i32 = 206;
/// The program wants to be run as administrator.
const ELEVATION: i32 = 740;

/// Why a program was not started.
#[derive(Debug, Error)]
pub(in crate::supervise) enum StartError {
    #[error("the job names no program")]
    Empty,
    #[error("program {} does not exist", .0.display())]
    NotFound(PathBuf),
    #[error("program {} may not be executed by this account: access is denied", .0.display())]
    Permission(PathBuf),
    #[error("program {} wants to be run as administrator, which the agent's account is not", .0.display())]
    Elevation(PathBuf),
    #[error("program {} is no program for this machine", .0.display())]
    BadFormat(PathBuf),
    #[error("working directory {} does not exist or is not a directory", .0.display())]
    WorkingDirectory(PathBuf),
    #[error("the arguments of {} are too long for the system (32,767 characters)", .0.display())]
    TooLong(PathBuf),
    #[error("argument {index} of {} holds a NUL character", program.display())]
    Nul { program: PathBuf, index: usize },
    #[error("the arguments cannot be given safely to the batch file {}: {source}", path.display())]
    Batch { path: PathBuf, source: io::Error },
    #[error("{} cannot be opened: {source}", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("program {} cannot be started: {source}", path.display())]
    Other { path: PathBuf, source: io::Error },
}

/// Starts it; gives its process and the promise of its complete output.
pub(in crate::supervise) async fn start(
    launch: &Launch,
    _group: Option<&Group>,
) -> Result<(Main, oneshot::Receiver<Pumped>), StartError> {
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
    command.args(arguments).current_dir(&launch.cwd).stdin(stdin);
    command.stdout(writer.try_clone().map_err(other)?).stderr(writer);
    for name in &launch.env_remove {
        command.env_remove(name);
    }
    command.envs(launch.env.iter().map(|(name, value)| (name, value)));
    // Suspended, so that it can start nothing before it is in its job object. It shares our console, which nobody sees
    // and over which it is asked to end.
    command.creation_flags(CREATE_SUSPENDED);
    const MIB: u64 = 1024 * 1024;
    let job = Job::new(&job::Limits {
        memory_bytes: launch.limits.memory_mb.map(|mb| mb.saturating_mul(MIB)),
        cpu_seconds: launch.limits.cpu_seconds,
        processes: None,
        nice: launch.limits.nice,
    })
    .map_err(other)?;
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => return Err(explain(error, path, &launch.cwd)),
    };
    // `command` holds our copies of the pipe's writing end: without this drop the output would never end.
    drop(command);
    let begun = job.assign(child.as_handle()).and_then(|()| job::resume(child.id()));
    if let Err(source) = begun {
        // Outside of its job object it could get away. It has not run yet.
        let _ = child.kill();
        let _ = child.wait();
        return Err(StartError::Other { path, source });
    }
    let main = Main::watch(child, job).map_err(other)?;
    Ok((main, output))
}

fn explain(error: io::Error, path: PathBuf, cwd: &Path) -> StartError {
    if !cwd.is_dir() {
        return StartError::WorkingDirectory(cwd.to_owned());
    }
    match (error.kind(), error.raw_os_error()) {
        (io::ErrorKind::NotFound, _) => StartError::NotFound(path),
        (_, Some(BAD_FORMAT | OTHER_MACHINE)) => StartError::BadFormat(path),
        (_, Some(ELEVATION)) => StartError::Elevation(path),
        (_, Some(TOO_LONG)) => StartError::TooLong(path),
        (io::ErrorKind::PermissionDenied, _) => StartError::Permission(path),
        // What the standard library says of arguments that a batch file would read as commands.
        (io::ErrorKind::InvalidInput, None) => StartError::Batch { path, source: error },
        _ => StartError::Other { path, source: error },
    }
}
