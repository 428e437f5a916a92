//! The whole main job in one process, for a first look: orchestrator with its embedded XMPP server, an agent, the ready
//! services; on free ports of the loopback address and in a temporary folder. Runs one real job, shows what to try next, and
//! serves until Ctrl-C. It only composes what the two programs are made of; nothing is different in earnest.

mod client;
mod site;
mod story;

use std::error::Error;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;
use wps_orchestrator::compose;
use wps_orchestrator::config::Config;
use wps_remote_agent::config::AgentConfig;
use wps_remote_agent::driver::AtStop;

use crate::site::Site;

/// An end that takes longer is explained.
const PATIENCE: Duration = Duration::from_millis(300);

/// Everything in one process: orchestrator, embedded XMPP server, agent, ready services.
#[derive(Debug, Parser)]
#[command(name = "quickstart")]
struct Arguments {
    /// Port for WPS on 127.0.0.1; 0 takes a free one
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// Folder of the ready services; they are copied, and the agent watches the copy
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/../../services"))]
    services: PathBuf,
    /// End after the first job instead of serving until Ctrl-C
    #[arg(long)]
    once: bool,
    /// Show more: warn, info, debug
    #[arg(long, default_value = "warn")]
    log: String,
}

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().collect();
    // The agent starts this program again as the supervisor of each job.
    if wps_remote_agent::supervise::is_wanted(&args) {
        return wps_remote_agent::supervise::main(&args);
    }
    let arguments = Arguments::parse();
    let filter = EnvFilter::new(&arguments.log);
    tracing_subscriber::fmt().with_env_filter(filter).with_target(false).with_writer(std::io::stderr).init();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return complain(&error),
    };
    match runtime.block_on(run(arguments)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => complain(error.as_ref()),
    }
}

fn complain(error: &dyn Error) -> ExitCode {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    tracing::error!("the quickstart failed: {text}");
    ExitCode::FAILURE
}

async fn run(arguments: Arguments) -> Result<(), Box<dyn Error>> {
    let site = Site::make(&arguments.services)?;
    let password = new_password();
    site.add_agent(&password)?;
    let shutdown = CancellationToken::new();
    let config = Config::load(Some(&site.write_orchestrator(arguments.port)?))?;
    let orchestrator = compose::start(config, shutdown.clone()).await?;
    let xmpp = orchestrator.xmpp.first().ok_or("the embedded XMPP server does not listen")?.address;
    let agent_config = site.write_agent(xmpp.port(), &password, &orchestrator.room_password)?;
    // Jobs outlive an agent on purpose. Here, where everything is temporary, they end with it.
    let options = wps_remote_agent::Options { at_stop: AtStop::EndJobs, ..wps_remote_agent::Options::new()? };
    let agent_stop = CancellationToken::new();
    let agent_config = AgentConfig::load(&agent_config)?;
    let grace = agent_config.kill_grace.as_secs();
    let agent = tokio::spawn(wps_remote_agent::run(agent_config, options, agent_stop.clone()));

    let told = tokio::select! {
        told = story::tell(orchestrator.http, &site, arguments.once) => told,
        () = interrupted() => Ok(()),
    };

    agent_stop.cancel();
    let waits = format!("stopping: running jobs are asked to end, and ended by force after {grace} s");
    let agent = unless_quick(agent, &waits).await?;
    shutdown.cancel();
    unless_quick(orchestrator.ended(), "stopping: the orchestrator answers its last requests").await;
    agent?;
    told
}

/// Waits, and says for what if it takes long enough for somebody to wonder.
async fn unless_quick<T>(end: impl Future<Output = T>, waits: &str) -> T {
    let mut end = std::pin::pin!(end);
    match tokio::time::timeout(PATIENCE, &mut end).await {
        Ok(value) => value,
        Err(_) => {
            // A closed standard output is no reason to stop differently.
            let _ = story::say(waits);
            end.await
        }
    }
}

/// Resolves on Ctrl-C and on SIGTERM.
async fn interrupted() {
    use tokio::signal::unix::{SignalKind, signal};
    match signal(SignalKind::terminate()) {
        Ok(mut terminate) => {
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = terminate.recv() => {}
            }
        }
        Err(_) => drop(tokio::signal::ctrl_c().await),
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "this is a composition root; the password lives as long as the process"
)]
fn new_password() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}
