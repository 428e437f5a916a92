//! The command line: arguments into one of a few jobs, and an exit code. 0 = done, 1 = it did not work, 2 = wrong usage,
//! 100 = the configuration or the start failed.

mod accounts;
mod query;
mod users;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

use crate::access::Audit;
use crate::chain::chain;
use crate::config::{Config, SCHEMA};
use crate::service::{self, News};
use crate::{check, compose};

/// Exit code when the configuration or the start failed.
const FAILED_TO_START: u8 = 100;

#[derive(Debug, Parser)]
#[command(
    name = "wps-orchestrator",
    version,
    about = "Offers the processes of remote agents over OGC WPS, and loses no job",
    after_help = "First steps:\n  wps-orchestrator config > orchestrator.ini     the commented sample; all keys have defaults\n  wps-orchestrator serve                          starts with ./orchestrator.ini, or with the defaults\n  wps-orchestrator accounts add agent1            an account for an agent, and its remote.config"
)]
struct Cli {
    /// Configuration file; default: ./orchestrator.ini if it exists, else the built-in defaults
    #[arg(short, long, global = true, value_name = "FILE", env = "WPS_ORCHESTRATOR_CONFIG")]
    config: Option<PathBuf>,
    /// Form of the log on standard error
    #[arg(long, global = true, value_enum, default_value = "text", env = "WPS_ORCHESTRATOR_LOG_FORMAT")]
    log_format: LogFormat,
    /// What to log: error, warn, info, debug, trace, or a filter such as info,wps_orchestrator::bus=debug
    #[arg(long, global = true, value_name = "FILTER", default_value = "info", env = "WPS_ORCHESTRATOR_LOG")]
    log: String,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the orchestrator until it is told to stop (Ctrl-C, SIGTERM)
    Serve {
        /// Take what the configuration file does not say from GeoServer's remoteProcess.properties, as it is
        #[arg(long, value_name = "FILE")]
        geoserver_properties: Option<PathBuf>,
    },
    /// Examine the installation: configuration, folders, store, XMPP; each finding with its remedy
    Check {
        /// One JSON array instead of text
        #[arg(long)]
        json: bool,
    },
    /// Print the commented sample configuration
    Config,
    /// Show the jobs of a running orchestrator, newest first
    #[command(args_conflicts_with_subcommands = true)]
    Jobs {
        #[command(subcommand)]
        action: Option<query::JobAction>,
        #[command(flatten)]
        target: query::Target,
        /// Show one job, with its log
        id: Option<String>,
        /// Give the job up
        #[arg(long, requires = "id")]
        dismiss: bool,
    },
    /// Show the agents that a running orchestrator sees, or take one out of service
    #[command(args_conflicts_with_subcommands = true)]
    Agents {
        #[command(subcommand)]
        action: Option<query::AgentAction>,
        #[command(flatten)]
        target: query::Target,
    },
    /// Show how many jobs a user has, how much is kept for it, and what it may have
    Usage {
        #[command(flatten)]
        target: query::Target,
        /// Whose; default: your own
        user: Option<String>,
    },
    /// Manage the users who log in with a password
    Users {
        #[command(subcommand)]
        action: users::UserAction,
    },
    /// Manage tokens that stand in for users
    Tokens {
        #[command(subcommand)]
        action: users::TokenAction,
    },
    /// Manage the accounts of the embedded XMPP server
    Accounts {
        #[command(subcommand)]
        action: accounts::Action,
    },
}

/// Runs the command line.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let filter = match EnvFilter::builder().parse(&cli.log) {
        Ok(filter) => filter,
        Err(error) => return complain(2, format!("--log {}: {error}", cli.log)),
    };
    // The stream layer prints stanzas, and with them passwords, at trace level, the database layer values: never, whatever the
    // filter says. What fails there we report ourselves.
    let filter =
        ["tokio_xmpp=info", "rxml=info", "xso=info", "sqlx=error"].into_iter().fold(filter, |filter, cap| {
            match cap.parse() {
                Ok(directive) => filter.add_directive(directive),
                Err(_) => filter,
            }
        });
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()));
    match cli.log_format {
        LogFormat::Text => log.with_target(false).init(),
        LogFormat::Json => log.json().flatten_event(true).init(),
    }
    let runtime =
        match tokio::runtime::Builder::new_multi_thread().worker_threads(workers()).enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => {
                return complain(FAILED_TO_START, format!("the runtime cannot be started: {error}"));
            }
        };
    runtime.block_on(run(cli))
}

/// Two threads serve thousands of jobs; more of them only cost memory.
fn workers() -> usize {
    std::thread::available_parallelism().map_or(2, usize::from).clamp(2, 4)
}

async fn run(cli: Cli) -> ExitCode {
    let path = cli.config.clone().or_else(|| {
        let usual = Path::new("orchestrator.ini");
        usual.exists().then(|| usual.to_owned())
    });
    if let Command::Config = cli.command {
        print(SCHEMA.sample());
        return ExitCode::SUCCESS;
    }
    if let Command::Check { json } = cli.command {
        let findings = check::examine(path.as_deref()).await;
        print(if json { check::json(&findings) } else { check::text(&findings) });
        let bad = findings.iter().any(|finding| finding.verdict == check::Verdict::Wrong);
        return if bad { ExitCode::FAILURE } else { ExitCode::SUCCESS };
    }
    let properties = match &cli.command {
        Command::Serve { geoserver_properties } => geoserver_properties.as_deref(),
        _ => None,
    };
    let config = match Config::load_with(path.as_deref(), properties) {
        Ok(config) => config,
        Err(error) => return complain(FAILED_TO_START, error),
    };
    match cli.command {
        Command::Serve { .. } => {
            match &path {
                Some(path) => {
                    tracing::info!(config = %path.display(), "starting wps-orchestrator {}", env!("CARGO_PKG_VERSION"))
                }
                None => tracing::info!(
                    "starting wps-orchestrator {} with the built-in defaults (no orchestrator.ini here)",
                    env!("CARGO_PKG_VERSION")
                ),
            }
            serve(config, path.as_deref()).await
        }
        Command::Jobs { action: Some(action), .. } => query::job(&config, &action).await,
        Command::Jobs { action: None, target, id, dismiss } => {
            query::jobs(&config, &target, id.as_deref(), dismiss).await
        }
        Command::Agents { action: Some(action), .. } => query::agent(&config, &action).await,
        Command::Agents { action: None, target } => query::agents(&config, &target).await,
        Command::Usage { target, user } => query::usage(&config, &target, user.as_deref()).await,
        Command::Users { action } => users::users(&config, action),
        Command::Tokens { action } => users::tokens(&config, action),
        Command::Accounts { action } => accounts::act(&config, action),
        // Answered above, before the configuration was needed.
        Command::Check { .. } | Command::Config => ExitCode::SUCCESS,
    }
}

async fn serve(config: Config, path: Option<&Path>) -> ExitCode {
    let shutdown = CancellationToken::new();
    let started = config.clone();
    let running = match compose::start(config, shutdown.clone()).await {
        Ok(running) => running,
        Err(error) => return complain(FAILED_TO_START, chain(&error)),
    };
    service::tell(News::Ready);
    let overview = running.overview.clone();
    let identity = running.identity.clone();
    let ended = running.ended();
    tokio::pin!(ended);
    tokio::select! {
        () = stop_signal() => {
            tracing::info!("stopping");
            service::tell(News::Stopping);
            shutdown.cancel();
            tokio::select! {
                () = ended => {}
                () = stop_signal() => tracing::warn!("stopped at once, because it was asked for twice"),
            }
            ExitCode::SUCCESS
        }
        () = service_life(overview, &started, path, identity) => ExitCode::FAILURE,
        // Nobody asked for it: something inside has ended.
        () = &mut ended => ExitCode::FAILURE,
    }
}

/// Keeps the service manager's line up to date, and answers SIGHUP; ends never.
async fn service_life(
    mut overview: tokio::sync::watch::Receiver<std::sync::Arc<crate::driver::Overview>>,
    started: &Config,
    path: Option<&Path>,
    identity: Option<std::sync::Arc<crate::http::tls::Identity>>,
) {
    use tokio::signal::unix::{SignalKind, signal};
    let mut hangup = match signal(SignalKind::hangup()) {
        Ok(hangup) => hangup,
        Err(error) => {
            tracing::warn!(%error, "SIGHUP cannot be received");
            return std::future::pending().await;
        }
    };
    let mut told = String::new();
    let mut changes = true;
    loop {
        let line = {
            let seen = overview.borrow_and_update();
            let running: u64 = seen.active.values().sum();
            let bus = if seen.connected { "" } else { "; not in the management room" };
            format!("{} agents, {running} jobs, {} of them waiting{bus}", seen.agents.len(), seen.queued)
        };
        if line != told {
            service::tell(News::Status(&line));
            told = line;
        }
        tokio::select! {
            changed = overview.changed(), if changes => changes = changed.is_ok(),
            _ = hangup.recv() => {
                service::tell(News::Reloading);
                reload(started, path);
                if let Some(identity) = &identity {
                    identity.reload();
                }
                service::tell(News::Ready);
            }
        }
    }
}

/// Reads the configuration again and says what a restart would change. Nothing but the certificate of HTTPS takes effect at
/// once: a restart loses no job and no agent, so there is no second, half-changed state to reason about.
fn reload(started: &Config, path: Option<&Path>) {
    match Config::load_with(path, started.geoserver_properties.as_deref()) {
        Err(error) => tracing::error!("the configuration has a fault, a restart would fail: {error}"),
        Ok(new) => {
            for warning in &new.warnings {
                tracing::warn!("{warning}");
            }
            match new.changed(started).as_slice() {
                [] => tracing::info!("SIGHUP: the configuration is sound and has not changed"),
                changed => tracing::warn!(
                    "SIGHUP: the configuration is sound; changes in {} take effect after a restart",
                    changed.join(", ")
                ),
            }
        }
    }
}

/// Ctrl-C or SIGTERM.
async fn stop_signal() {
    use tokio::signal::unix::{SignalKind, signal};
    match signal(SignalKind::terminate()) {
        Ok(mut terminate) => {
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = terminate.recv() => {}
            }
        }
        Err(_) => {
            let _ = tokio::signal::ctrl_c().await;
        }
    }
}

/// Writes a change of who may do what into the audit file, if there is one.
fn audited(config: &Config, what: &'static str, subject: &str) {
    let user = format!("uid {}", rustix::process::getuid().as_raw());
    match Audit::open(config.access.audit_file.as_deref()) {
        Ok(audit) => audit.administered(&user, what, subject),
        Err(error) => warn(format_args!("the audit file cannot be written: {error}")),
    }
}

fn print(text: impl std::fmt::Display) {
    use std::io::Write;
    // A reader that has closed the pipe has seen enough.
    let _ = write!(std::io::stdout(), "{text}");
}

fn warn(text: impl std::fmt::Display) {
    use std::io::Write;
    // Without a standard error there is nobody to tell.
    let _ = writeln!(std::io::stderr(), "wps-orchestrator: {text}");
}

fn complain(code: u8, error: impl std::fmt::Display) -> ExitCode {
    warn(error);
    ExitCode::from(code)
}
