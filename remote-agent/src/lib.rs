//! The remote agent: turns the INI service descriptors of a folder into processes that an orchestrator can run.
//!
//! ```text
//!            orchestrators (XMPP)                    service descriptors (INI files)
//!                    │                                            │
//!  session   stanzas ⇄ messages                       catalog  watched folder
//!                    └───────────────► driver ◄───────────────────┘
//!                                       │  ▲  │ calls, gets actions
//!                              performs │  │  ▼
//!                                       │  │ engine   pure: admission, outbox, who is told what
//!                                       ▼  │ events
//!   command ─► prepare ─► execution: one job ── supervise: a process of its own per job ── the program
//!              workdir: folders, records          outputs: checks, shared folder
//! ```
//!
//! This file is the composition root: the only place that knows all parts.

pub mod bbox;
pub mod catalog;
pub mod cli;
pub mod command;
pub mod config;
pub mod control;
pub mod descriptor;
pub mod driver;
pub mod engine;
pub mod execution;
pub mod explain;
pub mod files;
pub mod habits;
pub mod legacy;
pub mod load;
pub mod migrate;
pub mod outputs;
pub mod prepare;
mod reload;
#[cfg(target_os = "linux")]
mod resident;
pub mod rules;
#[cfg(windows)]
mod scm;
pub mod service;
pub mod session;
pub mod supervise;
#[cfg(feature = "upload")]
pub mod upload;
pub mod weigh;
#[cfg(windows)]
pub mod winapi;
pub mod workdir;

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use thiserror::Error;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{interval, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};
use wps_remote_protocol::address::agent_nick;
use wps_remote_protocol::native::NativeError;
use wps_remote_xmpp::net::{ConnectError, Connector, Security, Trust, TrustError};
use wps_remote_xmpp::session::SessionConfig;
use wps_remote_xmpp::{BareJid, Jid};

use crate::config::{AgentConfig, Tls};
use crate::control::{Desks, DrainMark};
use crate::driver::{AtStop, Driver, Sources};
use crate::engine::{Actions, Engine, Measured, Settings};
use crate::execution::user::UserError;
use crate::execution::{Forks, Host};
use crate::load::{Forbidden, Sampler};
use crate::prepare::Manner;
use crate::reload::Reload;
use crate::service::Service;
use crate::session::{SessionSettings, Trusted};
use crate::workdir::{Control, WorkdirError};

/// Output of one execution that is kept, in bytes.
const LOG_LIMIT: u64 = 256 * 1024 * 1024;

/// Orders of operators that may wait.
const ORDERS: usize = 8;
/// So long after its start an agent has seen everything that is usual.
#[cfg(target_os = "linux")]
const SETTLED: std::time::Duration = std::time::Duration::from_secs(10);

/// How an agent runs, besides its configuration.
#[derive(Debug, Clone)]
pub struct Options {
    /// Descriptor files and folders instead of `services_dir`; empty = that.
    pub services: Vec<PathBuf>,
    /// Program and first arguments that run a supervisor; the job's control folder is added. A program that embeds the
    /// agent must itself call [`supervise::main`] when it is called like this.
    pub supervisor: Vec<OsString>,
    /// What becomes of running jobs.
    pub at_stop: AtStop,
    /// The way to the XMPP server instead of the configured one, for a server in the same process.
    pub connector: Option<Connector>,
    /// Who is told how the agent is, and who may ask for a reload.
    pub service: Service,
}

impl Options {
    /// As the program `wps-remote-agent` runs: it is its own supervisor, and jobs outlive it.
    pub fn new() -> io::Result<Self> {
        // Resolved once: after an upgrade of the program its path leads to the new one, which reads the same records.
        let program = std::env::current_exe()?;
        Ok(Self {
            services: Vec::new(),
            supervisor: vec![program.into_os_string(), OsString::from(supervise::SUBCOMMAND)],
            at_stop: AtStop::KeepJobs,
            connector: None,
            service: Service::of_this_host(),
        })
    }
}

/// Why an agent cannot run.
#[derive(Debug, Error)]
pub enum RunError {
    /// Its folder of job records is not usable.
    #[error("`resource_file_dir`: {0}")]
    Control(#[from] WorkdirError),
    /// Programs cannot be run as the user that is wanted.
    #[error(transparent)]
    User(#[from] UserError),
    /// The shared folder is not usable.
    #[error("`wps_execution_shared_dir` {} cannot be used: {source}", path.display())]
    Shared {
        /// The folder.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// An XMPP address cannot be made of the configured names.
    #[error("`{text}` is not an XMPP address (keys {keys})")]
    Address {
        /// What was made.
        text: String,
        /// Of which keys.
        keys: &'static str,
    },
    /// The trust settings cannot be used.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// The way to the server cannot be used.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The agent's announcement cannot be written.
    #[error("the agent's own presence cannot be written: {0}")]
    Announcement(#[from] NativeError),
    /// The descriptors cannot be watched.
    #[error(transparent)]
    Catalog(#[from] catalog::CatalogError),
}

/// Runs an agent until `shutdown`. Lost connections are repaired for ever; errors are those of the start.
pub async fn run(config: AgentConfig, options: Options, shutdown: CancellationToken) -> Result<(), RunError> {
    for warning in &config.warnings {
        warn!("{}, {warning}", config.source.display());
    }
    let settings = session_settings(&config, options.connector)?;
    if let Some(shared) = &config.shared_dir {
        make_shared(shared)?;
    }
    let control = Control::open(&config.resource_file_dir)?;
    let run_as = execution::user::run_as(config.run_as.as_deref(), config.run_as_group.as_deref())?;
    if let Some(user) = &run_as {
        info!(user = %user.name, uid = user.uid, gid = user.gid, groups = ?user.groups, "programs run as another user than the agent");
    }
    let manner = Manner {
        shared: config.shared_dir.clone(),
        grace: config.kill_grace,
        log_limit_bytes: LOG_LIMIT,
        hidden_variables: hidden_variables(&config),
        run_as,
        cgroup: control_groups(),
    };
    let host = Arc::new(Host {
        control,
        supervisor: options.supervisor,
        shared: config.shared_dir.clone(),
        uploader: config.uploader.clone(),
        hidden_variables: manner.hidden_variables.clone(),
        forks: Forks::default(),
    });
    host.forks.keep(&host);

    let started = Arc::new(config);
    let config = started.as_ref();
    let mut helpers = JoinSet::new();
    let offers = catalog::start(config, &options.services, &mut helpers)?;
    let (measuring, measured) = watch::channel(Measured::default());
    let (configure, configured) = watch::channel(started.clone());
    helpers.spawn(measure(configured.clone(), measuring));
    helpers.spawn(sweep(host.clone(), configured.clone()));
    #[cfg(target_os = "linux")]
    helpers.spawn(resident::give_back_after(SETTLED));
    let (order, orders) = mpsc::channel(ORDERS);
    let (reload, reloads) = mpsc::channel(ORDERS);
    helpers.spawn(control::listen(&config.resource_file_dir, Desks { driver: order, reload }));
    let reloading = Reload {
        started: started.clone(),
        current: configure,
        service: options.service.clone(),
        orders: reloads,
    };
    helpers.spawn(reloading.run());

    let mut engine = Engine::new(Settings::from(config));
    if DrainMark::of(&config.resource_file_dir).is_set() {
        warn!(
            "the agent is draining and takes no new jobs, as it was told before this start; `wps-remote-agent drain --undo` ends that"
        );
        engine.drain(true, &mut Actions::new());
    }
    info!(nick = %settings.nick, server = %settings.session.connector.describe(), "agent starts");
    let (session, events) = session::start(settings, engine.load())?;
    let mut driver = Driver::new(engine, session, host, manner, options.service);
    driver.adopt().await?;
    driver
        .run(
            Sources { session: events, offers, measured, config: configured, orders },
            shutdown,
            options.at_stop,
        )
        .await;
    helpers.shutdown().await;
    info!("agent has stopped");
    Ok(())
}

/// Where jobs get control groups of their own, if they do.
fn control_groups() -> Option<PathBuf> {
    match supervise::cgroup::delegated() {
        Ok(folder) => {
            info!(folder = %folder.display(), "each job gets a control group of its own");
            Some(folder)
        }
        Err(why) => {
            info!(
                "jobs get no control groups of their own, memory_mb limits each process instead of the job: {why}"
            );
            None
        }
    }
}

fn session_settings(config: &AgentConfig, connector: Option<Connector>) -> Result<SessionSettings, RunError> {
    let connector = match connector {
        Some(connector) => connector,
        None => {
            let security = match config.tls {
                Tls::Direct => Security::DirectTls,
                Tls::StartTls => Security::StartTls,
                Tls::Plain => Security::Plain,
            };
            let trust = Trust {
                ca_file: config.tls_ca_file.clone(),
                pin_sha256: config.tls_fingerprint.as_deref().map(Trust::parse_pin).transpose()?,
                server_name: Some(config.tls_server_name.clone()),
                insecure: config.tls_insecure,
            };
            Connector::tcp(&config.address, config.port, security, &trust)?
        }
    };
    let account = format!("{}@{}", config.user, config.domain);
    let jid: Jid =
        account.parse().map_err(|_| RunError::Address { text: account, keys: "`user` and `domain`" })?;
    let room = format!("{}@{}", config.management_room, config.muc_service);
    let room: BareJid = room
        .parse()
        .map_err(|_| RunError::Address { text: room, keys: "`management_room` and `mucService`" })?;
    Ok(SessionSettings {
        session: SessionConfig::new(jid, config.password.expose(), connector),
        room,
        room_password: config.muc_password.as_ref().map(|secret| secret.expose().to_owned()),
        nick: agent_nick(&config.user, &config.agent_name),
        trusted: Trusted::from(config),
        instance: instance(),
        shared: config.shared_dir.clone(),
        legacy: config.geoserver.then(|| legacy::Settings {
            domain: config.domain.clone(),
            muc_service: config.muc_service.clone(),
            host: config.agent_name.clone(),
            shared: config.shared_dir.clone(),
            path_map: config.path_map.clone(),
            result_names: config.geoserver_result_names,
            pickle: config.legacy_pickle,
        }),
    })
}

/// One level, as the old agent did; more would hide a missing mount.
fn make_shared(path: &Path) -> Result<(), RunError> {
    match files::folder(0o770).create(path) {
        Err(source) if source.kind() != io::ErrorKind::AlreadyExists => {
            Err(RunError::Shared { path: path.to_owned(), source })
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Every variable whose value is one of our secrets, whatever it is called, and what a service manager tells the agent alone.
fn hidden_variables(config: &AgentConfig) -> Vec<String> {
    let uploader = config.uploader.as_ref().map(|uploader| &uploader.password);
    let secrets = [Some(&config.password), config.muc_password.as_ref(), uploader];
    let secrets: Vec<&str> = secrets
        .into_iter()
        .flatten()
        .map(|secret| secret.expose())
        .filter(|secret| !secret.is_empty())
        .collect();
    let manager = ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "CREDENTIALS_DIRECTORY"];
    std::env::vars_os()
        .filter(|(name, value)| {
            value.to_str().is_some_and(|value| secrets.contains(&value))
                || manager.iter().any(|hidden| name == hidden)
        })
        .filter_map(|(name, _)| name.into_string().ok())
        .collect()
}

fn forbidden(config: &AgentConfig) -> Vec<Forbidden> {
    let entries = config.blacklist.iter().cloned();
    entries.map(|config::Forbidden { name, cwd, cmdline }| Forbidden { name, cwd, cmdline }).collect()
}

/// The folders without which no job can end well.
fn disks(config: &AgentConfig) -> Vec<(&'static str, PathBuf)> {
    let mut folders = vec![
        ("resource_file_dir", config.resource_file_dir.clone()),
        ("output_dir", config.work_root.clone()),
    ];
    folders.extend(config.shared_dir.clone().map(|folder| ("wps_execution_shared_dir", folder)));
    folders
}

async fn measure(mut config: watch::Receiver<Arc<AgentConfig>>, to: watch::Sender<Measured>) {
    let made = |config: &AgentConfig| {
        Sampler::new(config.load_window, forbidden(config)).with_folders(disks(config))
    };
    let mut sampler = made(&config.borrow_and_update());
    let mut warned = false;
    let mut clock = interval(load::SAMPLE_EVERY);
    loop {
        tokio::select! {
            _ = clock.tick() => {}
            Ok(()) = config.changed() => {
                let now = config.borrow_and_update().clone();
                sampler.configure(now.load_window, forbidden(&now));
                continue;
            }
        }
        let sampled = spawn_blocking(move || {
            let measured = sampler.sample();
            (sampler, measured)
        });
        let Ok((same, measured)) = sampled.await else { return };
        sampler = same;
        match &measured.warning {
            Some(text) if !warned => warn!("{text}"),
            None if warned => info!("there is enough space again"),
            Some(_) | None => {}
        }
        warned = measured.warning.is_some();
        if to.send(measured).is_err() {
            return;
        }
    }
}

/// Removes the folders of jobs that are long over.
async fn sweep(host: Arc<Host>, config: watch::Receiver<Arc<AgentConfig>>) {
    loop {
        // Read each time: it can be configured anew.
        let retention = config.borrow().retention;
        let host = host.clone();
        match spawn_blocking(move || host.control.sweep(retention, wall_clock())).await {
            Ok(Ok((removed, failed))) => {
                if !removed.is_empty() {
                    debug!(count = removed.len(), "folders of finished jobs removed");
                }
                for error in failed {
                    warn!("a folder stays: {error}");
                }
            }
            Ok(Err(error)) => warn!("folders cannot be tidied: {error}"),
            Err(_) => return,
        }
        let pause = retention / 2;
        sleep(pause.clamp(std::time::Duration::from_secs(1), std::time::Duration::from_secs(60))).await;
    }
}

#[expect(clippy::disallowed_methods, reason = "the composition root is where the wall clock enters")]
fn wall_clock() -> std::time::SystemTime {
    std::time::SystemTime::now()
}

/// Different at each start: the time and the process id.
fn instance() -> String {
    let since = wall_clock().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    format!("{:x}-{:x}", since.as_nanos(), std::process::id())
}
