//! Puts the program together: store, results, embedded server, bus, driver, HTTP; and takes it apart in the right order.
//! The only place that knows all rooms.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use thiserror::Error;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use wps_remote_protocol::enrolment::Welcome;
use wps_remote_xmpp::net::{ConnectError, Connector, Security, Trust};
use wps_remote_xmpp::server::{
    self, Accounts, AccountsError, Certificate, Listen, Server, ServerConfig, ServerError,
};
use wps_remote_xmpp::session::SessionConfig;
use wps_remote_xmpp::{BareJid, FullJid};

use crate::access::{self, Access, AccessError};
use crate::bus::{self, BusConfig, BusError};
use crate::config::{Config, EmbeddedServer, Tls};
use crate::driver::{self, Overview, Parts};
use crate::http::tls::{Identity, TlsError};
use crate::http::{self, AppState};
use crate::jobs::Jobs;
use crate::memory;
use crate::references::References;
use crate::results::{Results, ResultsError};
use crate::store::{Store, StoreError};
use crate::telemetry::Telemetry;

/// File in the data folder with the secret that makes whoever can read it an operator for as long as we run.
pub(crate) const LOCAL_SECRET: &str = "operator-token";

/// Open files besides the connections of clients: store, results, agents.
const OTHER_FILES: u64 = 500;

/// Why the orchestrator does not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// Nobody could be told from anybody else.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// A folder or file cannot be used.
    #[error("failed to {what} {path}: {source}")]
    Io {
        /// What was being done.
        what: &'static str,
        /// With what.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// Another orchestrator works with the same data.
    #[error("another orchestrator is running on {0}; stop it first, or give this one a data_dir of its own")]
    Running(PathBuf),
    /// The HTTP address cannot be used.
    #[error("cannot listen on {address} ([http] listen): {source}")]
    Listen {
        /// As configured.
        address: SocketAddr,
        /// The system's reason.
        source: std::io::Error,
    },
    /// HTTPS cannot be served.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// An XMPP name cannot be used.
    #[error(
        "`{0}` is not a valid XMPP address: check domain, user, muc_service and management_room in [xmpp]"
    )]
    Address(String),
    /// Store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Folders of files.
    #[error(transparent)]
    Results(#[from] ResultsError),
    /// Embedded server.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// Its accounts.
    #[error(transparent)]
    Accounts(#[from] AccountsError),
    /// The way to the XMPP server.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The pinned certificate.
    #[error("[xmpp] tls_fingerprint_sha256: {0}")]
    Fingerprint(String),
    /// Bus.
    #[error(transparent)]
    Bus(#[from] BusError),
}

/// A running orchestrator.
pub struct Running {
    /// Where HTTP is served.
    pub http: SocketAddr,
    /// Where the embedded XMPP server listens; empty without it.
    pub xmpp: Vec<Listen>,
    /// SHA-256 of the embedded server's certificate.
    pub certificate_sha256: Option<String>,
    /// Password of the rooms.
    pub room_password: String,
    /// The faces' handle.
    pub jobs: Jobs,
    /// Certificate and key of HTTPS, if it is served.
    pub identity: Option<Arc<Identity>>,
    /// The operator's view.
    pub overview: watch::Receiver<Arc<Overview>>,
    task: tokio::task::JoinHandle<()>,
}

impl Running {
    /// Waits until it has ended after its token was cancelled.
    pub async fn ended(self) {
        if let Err(error) = self.task.await {
            tracing::error!(%error, "the orchestrator ended in an unexpected way");
        }
    }
}

/// Who may do what, with the secrets of this installation and of this run.
fn access(config: &Config) -> Result<Arc<Access>, StartError> {
    let key = access::installation_key(&config.data_dir.join("share-key"))?;
    let local = access::local_secret(&config.data_dir.join(LOCAL_SECRET))?;
    Ok(Arc::new(Access::new(config.access.clone(), key, Some(local))?))
}

/// Starts everything. When this returns, clients and agents can connect.
pub async fn start(config: Config, shutdown: CancellationToken) -> Result<Running, StartError> {
    memory::give_back_large_allocations();
    open_files(&config);
    for warning in &config.warnings {
        warn!("{warning}");
    }
    private_folder(&config.data_dir)?;
    let lock = lock(&config.data_dir)?;
    let room_password = room_password(&config)?;
    let access = access(&config)?;
    let node = node(&config)?;
    let store = open_store(&config).await?;
    let results = Results::open(config.shared_dir.clone(), config.results_dir.clone())?;
    if config.shared_dir.is_none() {
        warn!("no shared folder: inputs and results are limited to what fits into a message");
    }
    let address = config.http.listen;
    let listener =
        TcpListener::bind(address).await.map_err(|source| StartError::Listen { address, source })?;
    let address = listener.local_addr().map_err(|source| StartError::Listen { address, source })?;
    let identity = config.http.tls.as_ref().map(Identity::open).transpose()?;
    let scheme = config.http.scheme();
    let base = config.http.public_url.clone().unwrap_or_else(|| format!("{scheme}://{address}"));
    let base_url = format!("{}/wps", base.trim_end_matches('/'));

    let (server, connector, password) = match &config.server {
        Some(embedded) => {
            let (server, password) = start_server(&config, embedded, &room_password)?;
            let connector = server.connector();
            (Some(server), connector, password)
        }
        None => {
            let password = config.xmpp.password.as_ref().map(|p| p.expose().to_owned()).unwrap_or_default();
            (None, connector(&config)?, password)
        }
    };
    let instance = uuid();
    let session = SessionConfig::new(full_jid(&config, &instance)?, password, connector);
    let telemetry = Arc::new(Telemetry::default());
    let bus = bus::start(BusConfig {
        trust: config.trust.clone(),
        telemetry: telemetry.clone(),
        session,
        room: bare_jid(&format!("{}@{}", config.xmpp.management_room, config.xmpp.muc_service))?,
        room_password: Some(room_password.clone()),
        nick: nick(&config, &node),
        instance,
        heartbeat: config.heartbeat,
        answer_timeout: config.answer_timeout,
        legacy_rooms: legacy_rooms(&config)?,
        legacy_password: Some(legacy_password(&config, &room_password)),
        legacy: config.legacy.clone(),
    })?;
    let driver_stop = CancellationToken::new();
    let handles = driver::start(
        Parts {
            limits: config.limits.clone(),
            base_url,
            store,
            node,
            lease: config.lease,
            results,
            outbound: bus.outbound,
            inbound: bus.inbound,
            telemetry: telemetry.clone(),
            references: References::new(config.references.clone()),
            aliases: config.aliases.clone(),
            limit_rules: Arc::new(config.limit_rules.clone()),
        },
        driver_stop.clone(),
    )
    .await?;
    let state = AppState::new(
        handles.jobs.clone(),
        Arc::new(config.http.clone()),
        access,
        telemetry,
        handles.overview.clone(),
    );
    info!(http = %address, "serving WPS at {scheme}://{address}/wps");
    let running = Running {
        http: address,
        xmpp: server.as_ref().map(|s| s.addresses().to_vec()).unwrap_or_default(),
        certificate_sha256: server.as_ref().and_then(|s| s.certificate_sha256()).map(hex),
        room_password,
        jobs: handles.jobs,
        overview: handles.overview,
        identity: identity.clone(),
        task: tokio::spawn(async move {
            // In this order nobody loses what the next one still needs: clients, jobs, agents, server.
            http::serve(listener, state, identity, shutdown).await;
            driver_stop.cancel();
            if let Err(error) = handles.task.await {
                tracing::error!(%error, "the driver ended in an unexpected way");
            }
            bus.muc.close().await;
            if let Some(server) = server {
                server.shutdown().await;
            }
            drop(lock);
            info!("stopped; jobs that run go on at their agents");
        }),
    };
    Ok(running)
}

/// The certificate of the embedded server.
pub(crate) fn certificate(embedded: &EmbeddedServer) -> Certificate {
    match &embedded.certificate {
        Some((chain, key)) => Certificate::Files { certificate: chain.clone(), key: key.clone() },
        None => Certificate::Generated { folder: embedded.tls_dir.clone() },
    }
}

fn start_server(
    config: &Config,
    embedded: &EmbeddedServer,
    room_password: &str,
) -> Result<(Server, String), StartError> {
    let accounts = Accounts::new(&embedded.accounts);
    // Ours is new with each start: nobody needs to know it, and nobody can use an old one.
    let password = format!("{}{}", uuid(), uuid());
    accounts.set(&config.xmpp.user, &password)?;
    let mut listen = vec![Listen { address: embedded.listen, security: Security::StartTls }];
    listen.extend(embedded.tls_listen.map(|address| Listen { address, security: Security::DirectTls }));
    let welcome = Welcome {
        muc_service: config.xmpp.muc_service.clone(),
        room_password: room_password.to_owned(),
        management_room: config.xmpp.management_room.clone(),
    };
    let server = server::start(ServerConfig {
        muc_domain: Some(config.xmpp.muc_service.clone()),
        owners: vec![config.xmpp.user.clone()],
        listen,
        certificate: Some(certificate(embedded)),
        welcome: Some(welcome.to_text()),
        limits: server::Limits {
            connections: embedded.max_connections,
            connections_per_address: embedded.max_connections_per_address,
            ..server::Limits::default()
        },
        ..ServerConfig::new(config.xmpp.domain.clone(), &embedded.accounts)
    })?;
    Ok((server, password))
}

/// The way to an XMPP server of the operator's own.
pub fn connector(config: &Config) -> Result<Connector, StartError> {
    let xmpp = &config.xmpp;
    let pin = xmpp.tls_fingerprint.as_deref().map(Trust::parse_pin).transpose();
    let trust = Trust {
        ca_file: xmpp.tls_ca_file.clone(),
        pin_sha256: pin.map_err(|error| StartError::Fingerprint(error.to_string()))?,
        server_name: xmpp.tls_server_name.clone(),
        insecure: xmpp.tls_insecure,
    };
    let security = match xmpp.tls {
        Tls::Direct => Security::DirectTls,
        Tls::StartTls => Security::StartTls,
        Tls::None => Security::Plain,
    };
    Ok(Connector::tcp(&xmpp.address, xmpp.port, security, &trust)?)
}

/// The room in which agents and orchestrators meet.
pub fn management_room(config: &Config) -> Result<BareJid, StartError> {
    bare_jid(&format!("{}@{}", config.xmpp.management_room, config.xmpp.muc_service))
}

/// The rooms of the namespaces that agents of the old dialect are in.
pub fn legacy_rooms(config: &Config) -> Result<Vec<BareJid>, StartError> {
    let room = |namespace: &String| bare_jid(&format!("{namespace}@{}", config.xmpp.muc_service));
    config.legacy.rooms.iter().map(room).collect()
}

fn legacy_password(config: &Config, room_password: &str) -> String {
    config.legacy_password.as_ref().map_or_else(|| room_password.to_owned(), |p| p.expose().to_owned())
}

fn bare_jid(text: &str) -> Result<BareJid, StartError> {
    BareJid::new(text).map_err(|_| StartError::Address(text.to_owned()))
}

/// Our own address. The resource differs with each start, so that a session that died cannot fight with its successor.
pub fn full_jid(config: &Config, instance: &str) -> Result<FullJid, StartError> {
    let text = format!("{}@{}/orchestrator-{instance}", config.xmpp.user, config.xmpp.domain);
    FullJid::new(&text).map_err(|_| StartError::Address(text))
}

/// The job store as it is configured.
pub async fn open_store(config: &Config) -> Result<Store, StoreError> {
    match &config.postgres {
        Some(options) => Store::postgres(options).await,
        None => Store::sqlite(&config.store, config.durability).await,
    }
}

/// Our name in the management room.
fn nick(config: &Config, node: &str) -> String {
    match (&config.xmpp.nick, &config.postgres) {
        (Some(nick), _) => nick.clone(),
        (None, Some(_)) => format!("orchestrator-{node}"),
        (None, None) => "orchestrator".to_owned(),
    }
}

/// Our name among the orchestrators of a shared store: the configured one, else one that is made once and kept. It is the
/// data folder's name, so that a restart takes its own jobs up at once.
fn node(config: &Config) -> Result<String, StartError> {
    if config.postgres.is_none() {
        return Ok("local".to_owned());
    }
    if let Some(node) = &config.node {
        return Ok(node.clone());
    }
    let path = config.data_dir.join("node");
    let io = |what| {
        let path = path.clone();
        move |source| StartError::Io { what, path, source }
    };
    match std::fs::read_to_string(&path) {
        Ok(text) if !text.trim().is_empty() => return Ok(text.trim().to_owned()),
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(source) => return Err(io("read")(source)),
    }
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let host: String = host.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').take(30).collect();
    let node = format!("{host}-{}", uuid().get(..6).unwrap_or_default());
    std::fs::write(&path, format!("{node}\n")).map_err(io("write"))?;
    Ok(node)
}

/// The rooms' password: the configured one, else one that is made once and kept.
pub fn room_password(config: &Config) -> Result<String, StartError> {
    if let Some(password) = &config.xmpp.muc_password {
        return Ok(password.expose().to_owned());
    }
    let path = config.data_dir.join("room-password");
    let io = |what| {
        let path = path.clone();
        move |source| StartError::Io { what, path, source }
    };
    match std::fs::read_to_string(&path) {
        Ok(text) if !text.trim().is_empty() => return Ok(text.trim().to_owned()),
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(source) => return Err(io("read")(source)),
    }
    private_folder(&config.data_dir)?;
    let password = uuid();
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&path)
        .map_err(io("create"))?;
    writeln!(file, "{password}").and_then(|()| file.sync_all()).map_err(io("write"))?;
    Ok(password)
}

/// As many files as the system lets us have: each connection is one.
fn open_files(config: &Config) {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // Without it the soft limit stays, which is looked at below.
    let _ = setrlimit(Resource::Nofile, limit);
    let clients = config.http.max_connections;
    let agents = config.server.as_ref().map_or(0, |server| server.max_connections);
    let needed =
        u64::try_from(clients.saturating_add(agents)).unwrap_or(u64::MAX).saturating_add(OTHER_FILES);
    if let Some(most) = getrlimit(Resource::Nofile).current
        && most < needed
    {
        warn!(
            "{most} files may be open at once, but max_connections of [http] ({clients}) and of [xmpp_server] ({agents}) need {needed}: raise LimitNOFILE or lower them"
        );
    }
}

fn private_folder(folder: &Path) -> Result<(), StartError> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o755).create(folder).map_err(|source| StartError::Io {
        what: "create",
        path: folder.to_owned(),
        source,
    })
}

/// One orchestrator per data folder: two would both run the same jobs.
fn lock(folder: &Path) -> Result<File, StartError> {
    let path = folder.join("lock");
    let open = OpenOptions::new().write(true).create(true).truncate(false).open(&path);
    let file = open.map_err(|source| StartError::Io { what: "open", path: path.clone(), source })?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StartError::Running(folder.to_owned())),
        Err(TryLockError::Error(source)) => Err(StartError::Io { what: "lock", path, source }),
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "names and secrets of this start are made at the composition root"
)]
pub(crate) fn uuid() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}

/// Seconds since 1970 by this host's clock.
#[expect(clippy::disallowed_methods, reason = "certificates expire; no engine sees this time")]
pub(crate) fn seconds() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// A moment, in seconds since 1970, for people.
pub(crate) fn minute(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds)
        .map_or_else(|_| "?".to_owned(), |at| at.strftime("%Y-%m-%d %H:%M UTC").to_string())
}

/// The day of a moment, in seconds since 1970.
pub(crate) fn day(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds)
        .map_or_else(|_| "an impossible day".to_owned(), |at| at.strftime("%Y-%m-%d").to_string())
}

fn hex(bytes: [u8; 32]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
