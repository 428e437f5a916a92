//! The command line of `wps-remote-agent`: arguments into calls, results into exit codes. The work is done elsewhere.

mod enrol;
mod fault;
mod looking;
mod migrating;
mod operate;
pub(crate) mod service;
mod stop;
mod try_run;

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};
use tracing_subscriber::EnvFilter;

use crate::config::{AgentConfig, SCHEMA};
use crate::service::Service;
use crate::{Options, RunError};

/// The job or the descriptor failed.
const FAILED: u8 = 1;
/// The call is wrong: unknown options, a file that is not there, inputs that are no JSON.
const WRONG_CALL: u8 = 2;
/// Configuration or start failed; the number is that of the old agent.
const CANNOT_START: u8 = 100;
/// Failed while running; the number is that of the old agent.
const BROKE: u8 = 101;

const EXAMPLES: &str = "\
Examples:
  wps-remote-agent config > remote.config              a commented sample to fill in
  wps-remote-agent check services/                     explain every descriptor and every fault
  wps-remote-agent try echo.ini --input text='a b'     run one locally, without XMPP
  wps-remote-agent run -r /etc/wps-remote-agent/remote.config
  wps-remote-agent status                              what the running agent does
  wps-remote-agent drain --wait                        finish the jobs, take no new ones

Exit codes: 0 well; 1 the job or a descriptor failed; 2 wrong call (unknown option, missing file, bad --inputs);
100 configuration or start failed; 101 failed while running.";

const CHECK_EXAMPLES: &str = "\
Examples:
  wps-remote-agent check services/ -r remote.config       everything, with what the agent lends
  wps-remote-agent check services/ --format json --strict for CI: fails on warnings, too
  wps-remote-agent check contour.ini --log stdout.log     which line met which rule, which rules never matched
  wps-remote-agent check contour.ini --log old.log --encoding latin1 --summary

Exit codes: 0 all can be used; 1 one cannot (with --strict: or has a warning, or a rule never matched); 2 wrong call;
100 remote.config cannot be used.";

const MIGRATE_EXAMPLES: &str = "\
Examples:
  wps-remote-agent migrate greeter.properties                    to standard output
  wps-remote-agent migrate old.config --output new.config        never over an existing file without --force
  wps-remote-agent migrate services/ --output migrated/          a whole folder
  wps-remote-agent migrate old.config --encoding latin1          a file that is not in UTF-8

Exit codes: 0 all written; 1 one cannot be (it is broken, dialect A cannot say it, or its file exists); 2 wrong call;
100 remote.config cannot be used.";

/// Turns the INI service descriptors of a folder into processes that an orchestrator can run.
#[derive(Debug, Parser)]
#[command(name = "wps-remote-agent", version, after_help = EXAMPLES, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Form of the log on standard error
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
    /// Log decisions (-v) or every stanza as well (-vv); RUST_LOG has precedence
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    /// For people
    Text,
    /// One object a line
    Json,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people
    Text,
    /// For programs
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve: join the management room, offer the processes of the services folder, run jobs
    ///
    /// SIGTERM and Ctrl-C stop the agent in order: it leaves the room, its jobs go on under their supervisors and are
    /// taken over at the next start. SIGHUP reads the configuration again and says what that changed.
    Run(Run),
    /// Explain descriptors and every fault in them, or try their rules on a log
    #[command(after_help = CHECK_EXAMPLES)]
    Check(Check),
    /// Show what would be announced of descriptors
    Describe(Looking),
    /// Write descriptors anew: dialect B in the form of dialect A, old files without what they are warned of
    ///
    /// The result means exactly the same, or nothing is written and the reason is told. Its comments say what has changed.
    #[command(after_help = MIGRATE_EXAMPLES)]
    Migrate(Migrate),
    /// Run one descriptor here, without XMPP: shows the command line, progress, log and outputs
    #[command(after_help = "\
Examples:
  wps-remote-agent try contour.ini --input interval=50 --input dem=@alps.tif
  wps-remote-agent try contour.ini --inputs inputs.json --dry-run --format json

An input `k=@FILE` takes the content of a file; `k=@@x` is the text `@x`. Ctrl-C ends the job with all its processes.")]
    Try(Try),
    /// Show what a running agent on this host does: jobs, load, capacity, orchestrators
    Status(operate::Status),
    /// Let a running agent on this host finish its jobs and take no new ones
    ///
    /// It stays so after a restart, an upgrade or a crash, until `drain --undo`. Descriptors stay offered, so that clients can
    /// ask; orchestrators give the jobs to other agents, or let them wait.
    #[command(after_help = "\
Examples:
  wps-remote-agent drain --wait && systemctl stop wps-remote-agent    before work on the host
  wps-remote-agent drain --undo                                       afterwards")]
    Drain(operate::Drain),
    /// Let a running agent on this host read its remote.config again
    Reload(operate::Reload),
    /// Make this agent's account with a token of the orchestrator's operator, and write its remote.config
    #[command(after_help = "\
On the orchestrator's host:  wps-orchestrator accounts enrol gpu1 --namespaces ml --hours 24 > token
Here:                        wps-remote-agent enrol --token-file token -r /etc/wps-remote-agent/remote.config

The token opens once. The connection is by TLS, to the server whose certificate has the fingerprint in the token. The password is
made here and known to nobody else; the file gets mode 600.")]
    Enrol(enrol::Enrol),
    /// Print a commented remote.config
    Config,
    /// Windows: the agent as a service of the system
    #[command(subcommand)]
    Service(service::Service),
}

#[derive(Debug, Args)]
struct Run {
    /// The agent's configuration; default: ./remote.config, else /etc/wps-remote-agent/remote.config
    #[arg(short = 'r', long, value_name = "FILE", env = "WPS_REMOTE_AGENT_CONFIG")]
    config: Option<PathBuf>,
    /// Descriptors or folders of them, instead of `services_dir`
    #[arg(short, long, value_name = "DIR|FILE", num_args = 1..)]
    services: Vec<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Looking {
    /// Descriptors or folders of them
    #[arg(value_name = "FILE|DIR", default_value = ".")]
    pub(crate) files: Vec<PathBuf>,
    /// The agent's configuration, for what it lends to descriptors
    #[arg(short = 'r', long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Form of the answer
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub(crate) format: Format,
}

#[derive(Debug, Args)]
pub(crate) struct Check {
    #[command(flatten)]
    pub(crate) looking: Looking,
    /// Warnings count as faults (exit code 1)
    #[arg(long)]
    pub(crate) strict: bool,
    /// Run the `[Logging]` rules of the descriptor over this log; `-` is standard input
    #[arg(long, value_name = "LOG")]
    pub(crate) log: Option<PathBuf>,
    /// Encoding of the log, instead of the descriptor's `stdout_encoding`
    #[arg(long, value_enum, requires = "log")]
    pub(crate) encoding: Option<LogEncoding>,
    /// Of the log, show the counts only
    #[arg(long, requires = "log")]
    pub(crate) summary: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Migrate {
    /// A descriptor, or a folder of them
    #[arg(value_name = "FILE|FOLDER")]
    pub(crate) file: PathBuf,
    /// Where to write; a folder for a folder. Without it, standard output
    #[arg(short, long, value_name = "FILE|FOLDER")]
    pub(crate) output: Option<PathBuf>,
    /// Overwrite what is there
    #[arg(long)]
    pub(crate) force: bool,
    /// The form to write; there is one
    #[arg(long, value_enum, default_value_t = Target::A)]
    pub(crate) to: Target,
    /// Encoding of the old files
    #[arg(long, value_enum)]
    pub(crate) encoding: Option<LogEncoding>,
    /// The agent's configuration, for what it lends to descriptors
    #[arg(short = 'r', long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Form of the report; as JSON it holds the texts that are not written to files
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub(crate) format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Target {
    /// Dialect A, the form of the Python agent
    A,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogEncoding {
    /// UTF-8; what is not becomes U+FFFD
    #[value(name = "utf-8", alias = "utf8")]
    Utf8,
    /// ISO 8859-1
    #[value(name = "latin1", alias = "iso-8859-1")]
    Latin1,
}

#[derive(Debug, Args)]
pub(crate) struct Try {
    /// The descriptor
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// A value for an input; may be repeated, also for the same input
    #[arg(short, long = "input", value_name = "ID=VALUE")]
    pub(crate) input: Vec<String>,
    /// A JSON object with a value, or a list of values, for each input
    #[arg(long, value_name = "FILE")]
    pub(crate) inputs: Option<PathBuf>,
    /// Names the run and its folder
    #[arg(long, value_name = "ID")]
    pub(crate) execution_id: Option<String>,
    /// The agent's configuration, for what it lends to descriptors
    #[arg(short = 'r', long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Keep the run's private folder instead of removing it
    #[arg(long)]
    pub(crate) keep: bool,
    /// Start nothing, write nothing: show what would be done
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Form of the answer
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub(crate) format: Format,
}

/// Runs the program with these arguments, the program's name included.
pub fn main(args: Vec<OsString>) -> ExitCode {
    let json = fault::wants_json(&args);
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) if json && error.use_stderr() => {
            let text = error.render().to_string();
            let text = text.strip_prefix("error: ").unwrap_or(&text).trim();
            return fault::Fault::call(text).tell(Format::Json);
        }
        Err(error) => {
            // clap knows whether it is help (standard output, 0) or a fault (standard error, 2).
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    start_log(&cli);
    match cli.command {
        Command::Run(run) => serve(run),
        Command::Check(wanted) => looking::check(&wanted),
        Command::Describe(looking) => looking::describe(&looking),
        Command::Migrate(wanted) => migrating::run(&wanted),
        Command::Try(wanted) => answer(try_run::run(&wanted)),
        Command::Status(wanted) => answer(operate::status(&wanted)),
        Command::Drain(wanted) => answer(operate::drain(&wanted)),
        Command::Reload(wanted) => answer(operate::reload(&wanted)),
        Command::Enrol(wanted) => answer(enrol::enrol(&wanted)),
        Command::Config => {
            say(&SCHEMA.sample());
            ExitCode::SUCCESS
        }
        Command::Service(wanted) => service::main(wanted),
    }
}

fn answer(work: impl Future<Output = ExitCode>) -> ExitCode {
    match runtime() {
        Ok(runtime) => runtime.block_on(work),
        Err(error) => complain(&format!("the program cannot start: {error}"), CANNOT_START),
    }
}

/// The configuration as it was named, else the usual ones.
fn config_file(named: Option<&PathBuf>) -> PathBuf {
    let here = Path::new("remote.config");
    let installed = Path::new("/etc/wps-remote-agent/remote.config");
    match named {
        Some(named) => named.clone(),
        None if !here.exists() && installed.exists() => installed.to_owned(),
        None => here.to_owned(),
    }
}

fn serve(run: Run) -> ExitCode {
    let config = match AgentConfig::load(&config_file(run.config.as_ref())) {
        Ok(config) => config,
        Err(error) => return complain(&error.to_string(), CANNOT_START),
    };
    let started = runtime().and_then(|runtime| Ok((runtime, Options::new()?)));
    let (runtime, options) = match started {
        Ok((runtime, options)) => (runtime, Options { services: run.services, ..options }),
        Err(error) => return complain(&format!("the agent cannot start: {error}"), CANNOT_START),
    };
    let outcome: Result<(), Broken> = runtime.block_on(async {
        let shutdown = CancellationToken::new();
        let signals = stop_on_signals(shutdown.clone()).map_err(Broken::Signals)?;
        let hangup = reload_on_signal(options.service.clone()).map_err(Broken::Signals)?;
        let agent = tokio::spawn(crate::run(config, options, shutdown));
        let ended = agent.await;
        signals.abort();
        hangup.abort();
        match ended {
            Ok(result) => result.map_err(Broken::Start),
            Err(panic) => Err(Broken::Running(panic)),
        }
    });
    // A blocking read on a dead network file system must not keep the program from ending.
    runtime.shutdown_background();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(broken @ (Broken::Start(_) | Broken::Signals(_))) => {
            complain(&format!("the agent cannot start: {broken}"), CANNOT_START)
        }
        Err(broken @ Broken::Running(_)) => complain(&broken.to_string(), BROKE),
    }
}

#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error("signals cannot be received: {0}")]
    Signals(io::Error),
    #[error(transparent)]
    Start(RunError),
    #[error("the agent broke: {0}")]
    Running(tokio::task::JoinError),
}

/// Two threads are plenty: all waiting is asynchronous, and what blocks has threads of its own.
pub(crate) fn runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(16)
        .enable_all()
        .build()
}

fn stop_on_signals(shutdown: CancellationToken) -> io::Result<tokio::task::JoinHandle<()>> {
    let mut signals = stop::StopSignals::listen()?;
    Ok(tokio::spawn(async move {
        let which = signals.next().await;
        info!("stopping: {which}");
        shutdown.cancel();
        // A second one means that the orderly way takes too long.
        signals.next().await;
        error!("stopping at once");
        std::process::exit(i32::from(BROKE));
    }))
}

#[cfg(unix)]
fn reload_on_signal(service: Service) -> io::Result<tokio::task::JoinHandle<()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut hangup = signal(SignalKind::hangup())?;
    Ok(tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            info!("SIGHUP: the configuration is read again");
            service.ask_reload();
        }
    }))
}

/// There is no such signal here; `reload` asks over the agent's pipe.
#[cfg(not(unix))]
fn reload_on_signal(_service: Service) -> io::Result<tokio::task::JoinHandle<()>> {
    Ok(tokio::spawn(std::future::pending()))
}

fn start_log(cli: &Cli) {
    // A service has a log of its own: nobody reads its standard error.
    if matches!(cli.command, Command::Service(service::Service::Run(_))) {
        return;
    }
    // Commands that answer on the terminal only log what is wrong, unless more is asked for.
    let serving = matches!(cli.command, Command::Run(_));
    let level = match (cli.verbose, serving) {
        // Of every folder that is removed the library that watches them says that its watch is gone, too.
        (0, true) => "info,notify=warn",
        (0, false) => "warn",
        (1, _) => "info,notify=warn,wps_remote_agent=debug,wps_remote_xmpp=debug",
        (_, _) => "debug,wps_remote_agent=trace,wps_remote_xmpp=trace",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_target(false);
    // An embedding program may have a log of its own already; then that one holds.
    let _ = match cli.log_format {
        LogFormat::Text => log.with_ansi(io::IsTerminal::is_terminal(&io::stderr())).try_init(),
        LogFormat::Json => log.json().try_init(),
    };
}

/// To standard output. A closed pipe (`| head`) is no fault.
pub(crate) fn say(text: &str) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(text.as_bytes());
    if !text.ends_with('\n') {
        let _ = out.write_all(b"\n");
    }
    let _ = out.flush();
}

/// To standard error, with an exit code.
pub(crate) fn complain(text: &str, code: u8) -> ExitCode {
    let _ = writeln!(io::stderr(), "{text}");
    ExitCode::from(code)
}
