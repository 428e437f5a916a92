//! Starts the program of a job and, when that fails, says why in words an administrator can act on. Never a shell.

use std::collections::BTreeMap;
use std::ffi::{CString, OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Pid, setpgid};
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};
use thiserror::Error;
use tokio::sync::oneshot;
use tokio::time::sleep;

use super::cgroup::Group;
use super::fork::{Side, fork};
use super::pump::{self, Pumped};
use super::record::{Launch, Limits};
use super::restrict::{Step, restrict};

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
    #[error(
        "user `{user}` cannot enter the working directory {}: {source} (every folder above it must let this user pass)", path.display()
    )]
    NoEntry { user: String, path: PathBuf, source: io::Error },
    #[error("the program cannot be run as `{user}`: {source} (`run_as` needs an agent that runs as root)")]
    User { user: String, source: io::Error },
    #[error("limit `{limit}` cannot be set: {source}")]
    Limit { limit: String, source: io::Error },
    #[error("the arguments of {} are too long for the system", .0.display())]
    TooLong(PathBuf),
    #[error("argument {index} of {} holds a NUL character", program.display())]
    Nul { program: PathBuf, index: usize },
    #[error("{} cannot be opened: {source}", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("program {} cannot be started: {source}", path.display())]
    Other { path: PathBuf, source: io::Error },
}

/// Starts it in a process group of its own, in `group` if there is one; gives its id and the promise of its complete output.
pub(super) async fn start(
    launch: &Launch,
    group: Option<&Group>,
) -> Result<(Pid, oneshot::Receiver<Pumped>), StartError> {
    let [program, ..] = launch.argv.as_slice() else { return Err(StartError::Empty) };
    let path = PathBuf::from(program);
    if let Some(index) = launch.argv.iter().position(|argument| argument.contains('\0')) {
        return Err(StartError::Nul { program: path, index });
    }
    let file_error = |path: &Path| {
        let path = path.to_owned();
        move |source| StartError::File { path, source }
    };
    let log = pump::create(&launch.log).map_err(file_error(&launch.log))?;
    let stdin_path = launch.stdin.as_deref().unwrap_or(Path::new("/dev/null"));
    let stdin = File::open(stdin_path).map_err(file_error(stdin_path))?;
    let other = |source| StartError::Other { path: path.clone(), source };
    let (reader, output) = io::pipe().map_err(other)?;
    let call = Call {
        program: CString::new(program.as_str()).map_err(|error| other(error.into()))?,
        arguments: strings(launch.argv.iter().map(|argument| argument.clone().into_bytes()))
            .map_err(other)?,
        environment: strings(environment(launch)).map_err(other)?,
        stdin,
        output,
    };

    let mut limits = launch.limits.clone();
    if group.is_some_and(Group::limits_memory) {
        // The group counts what is used, by the job as a whole. The other limit would count what is only reserved as well.
        limits.memory_mb = None;
    }
    let mut patience = 20;
    let pid = loop {
        match become_program(&call, launch, &limits, group).map_err(other)? {
            Ok(pid) => break pid,
            // Someone has the file open for writing: a copy that is just being installed. It passes.
            Err((Step::Exec, error)) if error.kind() == io::ErrorKind::ExecutableFileBusy && patience > 0 => {
                patience -= 1;
                sleep(Duration::from_millis(50)).await;
            }
            Err((step, error)) => return Err(explain(step, error, path, launch)),
        }
    };
    // It holds our copy of the pipe's writing end: without this drop the output would never end.
    drop(call);
    // Only now: this process must have had one thread so far.
    let output = pump::start(reader, log, launch.log_limit_bytes).map_err(other)?;
    Ok((pid, output))
}

/// All that the new process needs, made ready before it is there.
struct Call {
    program: CString,
    arguments: Vec<CString>,
    environment: Vec<CString>,
    stdin: File,
    output: PipeWriter,
}

fn strings(texts: impl IntoIterator<Item = Vec<u8>>) -> io::Result<Vec<CString>> {
    texts.into_iter().map(|text| CString::new(text).map_err(io::Error::from)).collect()
}

/// What is inherited, without what must not be seen, with what the job sets; `name=value`.
fn environment(launch: &Launch) -> Vec<Vec<u8>> {
    let mut variables: BTreeMap<OsString, OsString> = std::env::vars_os().collect();
    for name in &launch.env_remove {
        variables.remove(OsStr::new(name));
    }
    variables.extend(launch.env.iter().map(|(name, value)| (name.into(), value.into())));
    variables.into_iter().map(|(name, value)| [name.as_bytes(), b"=", value.as_bytes()].concat()).collect()
}

impl Call {
    /// Becomes the program. Not by `exec` of the standard library: that hands what the system cannot execute to a shell.
    fn exec(&self, cwd: &Path) -> io::Error {
        let attempt = || -> io::Result<()> {
            dup2_stdin(&self.stdin)?;
            dup2_stdout(&self.output)?;
            dup2_stderr(&self.output)?;
            setpgid(None, None)?;
            std::env::set_current_dir(cwd)?;
            nix::unistd::execve(&self.program, &self.arguments, &self.environment)?;
            Ok(())
        };
        attempt().err().unwrap_or_else(|| io::ErrorKind::Other.into())
    }
}

/// Splits off a process that puts the limits upon itself and then becomes the program. The outer error is ours, the inner one
/// that of the new process.
fn become_program(
    call: &Call,
    launch: &Launch,
    limits: &Limits,
    group: Option<&Group>,
) -> io::Result<Result<Pid, (Step, io::Error)>> {
    // It closes when the program begins; until then it can carry what went wrong.
    let (news, to_parent) = io::pipe()?;
    match fork()? {
        Side::Child => {
            drop(news);
            let (step, error) = match restrict(launch, limits, group.map(Group::path)) {
                Ok(()) => (Step::Exec, call.exec(&launch.cwd)),
                Err(failed) => failed,
            };
            complain(to_parent, step, &error)
        }
        Side::Parent(pid) => {
            drop(to_parent);
            Ok(listen(news)?.map_or(Ok(pid), Err))
        }
    }
}

/// The end of a new process that cannot become the program.
fn complain(mut to_parent: PipeWriter, step: Step, error: &io::Error) -> ! {
    let number = error.raw_os_error().unwrap_or(Errno::INVAL.raw_os_error());
    let [a, b, c, d] = number.to_le_bytes();
    let _ = to_parent.write_all(&[step as u8, a, b, c, d]);
    // Not by returning: everything above this on the stack belongs to the supervisor.
    std::process::exit(127)
}

/// What the new process says; nothing if it has become the program.
fn listen(mut news: PipeReader) -> io::Result<Option<(Step, io::Error)>> {
    let mut bytes = Vec::new();
    Read::by_ref(&mut news).take(16).read_to_end(&mut bytes)?;
    let [step, number @ ..] = bytes.as_slice() else { return Ok(None) };
    let step = Step::from_byte(*step).ok_or(io::ErrorKind::InvalidData)?;
    let number = number.try_into().map_err(|_| io::ErrorKind::InvalidData)?;
    Ok(Some((step, io::Error::from_raw_os_error(i32::from_le_bytes(number)))))
}

fn explain(step: Step, source: io::Error, path: PathBuf, launch: &Launch) -> StartError {
    let limits = &launch.limits;
    let user = || launch.run_as.as_ref().map(|run_as| run_as.name.clone()).unwrap_or_default();
    let limit = |name: &str, value: Option<String>| StartError::Limit {
        limit: format!("{name} = {}", value.unwrap_or_default()),
        source: io::Error::from_raw_os_error(source.raw_os_error().unwrap_or_default()),
    };
    match step {
        Step::CpuSeconds => return limit("cpu_seconds", limits.cpu_seconds.map(|n| n.to_string())),
        Step::Memory => return limit("memory_mb", limits.memory_mb.map(|n| n.to_string())),
        Step::Output => return limit("output_mb", limits.file_mb.map(|n| n.to_string())),
        Step::OpenFiles => return limit("open_files", limits.open_files.map(|n| n.to_string())),
        Step::Nice => return limit("nice", limits.nice.map(|n| n.to_string())),
        Step::Group => {
            let group = launch.cgroup.clone().unwrap_or_default();
            return StartError::File { path: group, source };
        }
        Step::User => return StartError::User { user: user(), source },
        Step::Folder if launch.cwd.is_dir() => {
            return StartError::NoEntry { user: user(), path: launch.cwd.clone(), source };
        }
        Step::Folder | Step::Exec => {}
    }
    if !launch.cwd.is_dir() {
        return StartError::WorkingDirectory(launch.cwd.clone());
    }
    match source.kind() {
        io::ErrorKind::NotFound if fs::metadata(&path).is_ok() => StartError::NoInterpreter(path),
        io::ErrorKind::NotFound => StartError::NotFound(path),
        io::ErrorKind::PermissionDenied => StartError::Permission(path),
        io::ErrorKind::ArgumentListTooLong => StartError::TooLong(path),
        _ if source.raw_os_error() == Some(Errno::NOEXEC.raw_os_error()) => StartError::BadFormat(path),
        _ => StartError::Other { path, source },
    }
}
