//! The embedded XMPP server: accounts from a file, rooms that only their owners create, private messages and
//! requests between occupants; enough of RFC 6120/6121, XEP-0045, 0030, 0199, 0198 and 0410 for this product's
//! programs, for the Python agents, and for people who look in with a chat client. No federation, no history, no
//! offline messages, no registration. This file holds what a program configures and starts; the parts know each
//! other in one direction only:
//!
//! ```text
//!   listen ─► connection (negotiate ─► serve) ─► router ─► rooms
//!   limits      sasl ─► accounts, scram            │
//!   tls                                         registry (sessions, their byte-bounded queues)
//! ```

mod accounts;
mod connection;
mod limits;
mod negotiate;
mod registry;
mod room;
mod room_admin;
mod rooms;
mod router;
mod sasl;
mod scram;
mod tls;

pub use accounts::{Accounts, AccountsError};
pub use tls::{Certificate, CertificateError};

use crate::net::{Connector, Security, is_loopback};
use limits::{Admission, Admissions, Excess, Seldom};
use registry::{Cut, Registry};
use room::Settings;
use rooms::Rooms;
use router::Router;
use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tls::Identity;
use tokio::io::DuplexStream;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_xmpp::xmlstream::Timeouts;
use xmpp_parsers::jid::{BareJid, DomainPart};

/// For the farewell on a stream.
const CLOSE_PATIENCE: Duration = Duration::from_secs(2);

/// What the server is called, who may log in, where it listens.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// The server's domain, the part of its accounts' addresses after the @. Need not exist in DNS.
    pub domain: String,
    /// The domain of its rooms; `conference.` and the domain if not given.
    pub muc_domain: Option<String>,
    /// The accounts, see [`Accounts`].
    pub accounts: PathBuf,
    /// Accounts (the part before the @) that may create rooms and own all of them: the orchestrators.
    pub owners: Vec<String>,
    /// Rooms that exist from the start and stay.
    pub rooms: Vec<PresetRoom>,
    /// Where to listen; empty for a server that is reached in memory only.
    pub listen: Vec<Listen>,
    /// The certificate for STARTTLS and direct TLS.
    pub certificate: Option<Certificate>,
    /// What clients may take.
    pub limits: Limits,
    /// What an account is told that has just been enrolled ([`Accounts::invite`]).
    pub welcome: Option<String>,
}

impl ServerConfig {
    /// A server in memory only, with default limits.
    pub fn new(domain: impl Into<String>, accounts: impl Into<PathBuf>) -> Self {
        Self {
            domain: domain.into(),
            muc_domain: None,
            accounts: accounts.into(),
            owners: Vec::new(),
            rooms: Vec::new(),
            listen: Vec::new(),
            certificate: None,
            limits: Limits::default(),
            welcome: None,
        }
    }
}

/// A place to listen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listen {
    /// Address and port; port 0 takes a free one.
    pub address: SocketAddr,
    /// [`Security::StartTls`] offers TLS on loopback addresses and demands it on others.
    pub security: Security,
}

/// A room that exists from the start.
#[derive(Clone, Default)]
pub struct PresetRoom {
    /// The part of its address before the @.
    pub name: String,
    /// Its password.
    pub password: Option<String>,
    /// Whether newcomers may only listen, and send private messages.
    pub moderated: bool,
}

impl fmt::Debug for PresetRoom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PresetRoom")
            .field("name", &self.name)
            .field("moderated", &self.moderated)
            .finish_non_exhaustive()
    }
}

/// What clients may take of the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one stanza. Default 256 KiB.
    pub max_stanza: usize,
    /// Bytes that may wait for one session before it is cut. Default 4 MiB.
    pub queue_bytes: usize,
    /// Connections at once. Default 4096.
    pub connections: usize,
    /// Connections at once from one address, 0 = no bound. Default 256.
    pub connections_per_address: usize,
    /// From the first byte to the bound resource. Default 30 s.
    pub negotiation: Duration,
    /// After this much silence a client is asked whether it is there. Default 40 s.
    pub idle_probe: Duration,
    /// How long it may take to answer that. Default 20 s, so that a vanished client is noticed within a minute.
    pub probe_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_stanza: 256 << 10,
            queue_bytes: 4 << 20,
            connections: 4096,
            connections_per_address: 256,
            negotiation: Duration::from_secs(30),
            idle_probe: Duration::from_secs(40),
            probe_timeout: Duration::from_secs(20),
        }
    }
}

/// Why the server does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// Passwords and jobs would travel unencrypted between machines.
    #[error(
        "refusing to listen unencrypted on {address}: use STARTTLS or direct TLS there; plain is for loopback addresses"
    )]
    PlainRefused {
        /// As configured.
        address: SocketAddr,
    },
    /// TLS without a certificate.
    #[error("listening with TLS on {address} needs a certificate")]
    NoCertificate {
        /// As configured.
        address: SocketAddr,
    },
    /// The certificate cannot be used.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// The accounts cannot be read.
    #[error(transparent)]
    Accounts(#[from] AccountsError),
    /// The address is taken or not ours.
    #[error("cannot listen on {address}")]
    Listen {
        /// As configured.
        address: SocketAddr,
        /// The system's reason.
        source: io::Error,
    },
    /// Not a possible domain of XMPP addresses.
    #[error("`{domain}` cannot be the domain of XMPP addresses")]
    BadDomain {
        /// As configured.
        domain: String,
    },
    /// Not a possible local part of an address.
    #[error("`{name}` cannot be the name of an account or a room")]
    BadName {
        /// As configured.
        name: String,
    },
}

/// What all connections share.
struct Core {
    router: Router,
    accounts: Accounts,
    identity: Option<Identity>,
    limits: Limits,
    welcome: Option<String>,
    admissions: Arc<Admissions>,
    stopping: CancellationToken,
}

impl Core {
    fn timeouts(&self) -> Timeouts {
        Timeouts { read_timeout: self.limits.idle_probe, response_timeout: self.limits.probe_timeout }
    }
}

/// Where a connection comes from, and what it may do before TLS.
struct Origin {
    address: Option<IpAddr>,
    loopback: bool,
    secure: bool,
    entry: Security,
    admission: Option<Arc<Admission>>,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            Some(address) => write!(f, "{address}"),
            None => f.write_str("this process"),
        }
    }
}

/// A running server. Dropping it stops listening and cuts all sessions; [`Server::shutdown`] says good-bye first.
pub struct Server {
    core: Arc<Core>,
    tasks: TaskTracker,
    addresses: Vec<Listen>,
    pipes: mpsc::Sender<DuplexStream>,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("domain", &self.core.router.domain())
            .field("addresses", &self.addresses)
            .finish_non_exhaustive()
    }
}

/// Starts a server. Must be called within a tokio runtime; when it returns, the server can be reached.
///
/// # Errors
/// See [`ServerError`]; each names what to change.
pub fn start(config: ServerConfig) -> Result<Server, ServerError> {
    let domain = domain(&config.domain)?;
    let muc_domain = self::domain(&config.muc_domain.unwrap_or_else(|| format!("conference.{domain}")))?;
    for listen in &config.listen {
        let address = listen.address;
        match listen.security {
            Security::Plain if !is_loopback(&address) => return Err(ServerError::PlainRefused { address }),
            Security::StartTls | Security::DirectTls if config.certificate.is_none() => {
                return Err(ServerError::NoCertificate { address });
            }
            _ => {}
        }
    }
    let identity =
        config.certificate.as_ref().map(|certificate| tls::identity(certificate, &domain)).transpose()?;
    let accounts = Accounts::new(config.accounts);
    accounts.list()?;
    let owners = config.owners.iter().map(|name| local_part(name)).collect::<Result<BTreeSet<_>, _>>()?;
    let mut rooms = Vec::new();
    for room in config.rooms {
        let settings = Settings { password: room.password, moderated: room.moderated, ..Settings::default() };
        rooms.push((local_part(&room.name)?, settings));
    }
    let core = Arc::new(Core {
        router: Router::new(
            domain,
            Rooms::new(muc_domain, owners, rooms),
            Registry::new(config.limits.queue_bytes),
        ),
        accounts,
        identity,
        admissions: Admissions::new(config.limits.connections, config.limits.connections_per_address),
        limits: config.limits,
        welcome: config.welcome,
        stopping: CancellationToken::new(),
    });
    let tasks = TaskTracker::new();
    let mut addresses = Vec::new();
    for Listen { address, security } in config.listen {
        let failed = |source| ServerError::Listen { address, source };
        let listener = bind(address).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        tracing::info!(%address, ?security, "the embedded XMPP server listens");
        addresses.push(Listen { address, security });
        tasks.spawn(accept(core.clone(), tasks.clone(), listener, security));
    }
    let (pipes, ends) = mpsc::channel(16);
    tasks.spawn(accept_pipes(core.clone(), tasks.clone(), ends));
    Ok(Server { core, tasks, addresses, pipes })
}

/// SHA-256 of the certificate of a server that need not run; a generated one is made if it is not there yet.
///
/// # Errors
/// See [`CertificateError`].
pub fn certificate_sha256(certificate: &Certificate, domain: &str) -> Result<[u8; 32], CertificateError> {
    tls::identity(certificate, domain).map(|identity| identity.sha256)
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = std::net::TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

fn domain(name: &str) -> Result<String, ServerError> {
    DomainPart::new(name)
        .map(|domain| domain.as_str().to_owned())
        .map_err(|_| ServerError::BadDomain { domain: name.to_owned() })
}

fn local_part(name: &str) -> Result<String, ServerError> {
    sasl::normalised(name).ok_or_else(|| ServerError::BadName { name: name.to_owned() })
}

async fn accept(core: Arc<Core>, tasks: TaskTracker, listener: TcpListener, entry: Security) {
    let stopping = core.stopping.clone();
    let mut refusals = Seldom::default();
    loop {
        let (socket, peer) = tokio::select! {
            () = stopping.cancelled() => return,
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Most often: no file descriptors left. Trying again at once would only burn time.
                    tracing::warn!("the embedded XMPP server could not accept a connection: {error}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
        };
        let address = peer.ip().to_canonical();
        let admission = match core.admissions.admit(address) {
            Ok(admission) => Arc::new(admission),
            Err(excess) => {
                let (limit, setting) = match excess {
                    Excess::Total => (core.limits.connections, "max_connections"),
                    Excess::Address => (core.limits.connections_per_address, "max_connections_per_address"),
                };
                if let Some(unsaid) = refusals.say(std::time::Instant::now()) {
                    tracing::warn!(
                        %address, unsaid, "an XMPP connection was refused: the embedded server's {setting} allows {limit}"
                    );
                }
                continue;
            }
        };
        // Without this a connection still works, only slower.
        let _ = socket.set_nodelay(true);
        let loopback = address.is_loopback();
        let origin =
            Origin { address: Some(address), loopback, secure: false, entry, admission: Some(admission) };
        tasks.spawn(connection::serve(core.clone(), Box::new(socket), origin));
    }
}

async fn accept_pipes(core: Arc<Core>, tasks: TaskTracker, mut ends: mpsc::Receiver<DuplexStream>) {
    let stopping = core.stopping.clone();
    loop {
        let end = tokio::select! {
            () = stopping.cancelled() => return,
            end = ends.recv() => end,
        };
        let Some(end) = end else { return };
        let origin =
            Origin { address: None, loopback: true, secure: true, entry: Security::Plain, admission: None };
        tasks.spawn(connection::serve(core.clone(), Box::new(end), origin));
    }
}

impl Server {
    /// Where it listens, with the ports that were taken.
    pub fn addresses(&self) -> &[Listen] {
        &self.addresses
    }

    /// A way in through memory: no port, no TLS, the same server.
    pub fn connector(&self) -> Connector {
        Connector::memory(self.pipes.clone())
    }

    /// SHA-256 of the certificate, for pinning.
    pub fn certificate_sha256(&self) -> Option<[u8; 32]> {
        self.core.identity.as_ref().map(|identity| identity.sha256)
    }

    /// The certificate's file; for a generated one, what clients take as their CA file.
    pub fn certificate_file(&self) -> Option<&Path> {
        self.core.identity.as_ref().map(|identity| identity.file.as_path())
    }

    /// The accounts, to add or remove some; the running server sees changes at the next login.
    pub fn accounts(&self) -> &Accounts {
        &self.core.accounts
    }

    /// Address of the room called `name` on this server.
    ///
    /// # Errors
    /// [`ServerError::BadName`].
    pub fn room(&self, name: &str) -> Result<BareJid, ServerError> {
        let address = format!("{}@{}", local_part(name)?, self.core.router.muc_domain());
        address.parse().map_err(|_| ServerError::BadName { name: name.to_owned() })
    }

    /// How many sessions are logged in.
    pub fn sessions(&self) -> usize {
        self.core.router.registry.count()
    }

    /// Stops listening, tells everybody (`system-shutdown`), and waits until all connections are closed.
    pub async fn shutdown(self) {
        self.core.router.announce_shutdown();
        self.core.stopping.cancel();
        self.core.router.registry.cut_all(Cut::Shutdown);
        self.tasks.close();
        if tokio::time::timeout(CLOSE_PATIENCE * 2, self.tasks.wait()).await.is_err() {
            tracing::warn!("the embedded XMPP server stopped before all its connections were closed");
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.core.stopping.cancel();
        self.core.router.registry.cut_all(Cut::Shutdown);
    }
}

#[cfg(test)]
mod tests;
