//! How a client reaches its server: an address, a kind of security, and whom to trust; or a pipe in memory to the
//! embedded server. Ends where the first stream features can be read. Knows no passwords and no stanzas.

mod tls;
mod trust;

pub use tls::client_config;
pub use trust::{Trust, TrustError};

use crate::stream::{BoxBytes, Budget, Link, Stop, Transport, raw, transport};
use crate::xml::{element, ns};
use rustls::pki_types::ServerName;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::DuplexStream;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;
use tokio_xmpp::xmlstream::{
    PendingFeaturesRecv, RecvFeaturesError, StreamHeader, Timeouts, initiate_stream,
};

/// Deadline for the TCP connection alone; the negotiation has its own in the session.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);
/// Levels of a too deep stanza that a client skips rather than give up its connection: somebody else in a room must not
/// be able to throw it out. Skipping this many takes some tenths of a second.
const MAX_SKIPPED_LEVELS: usize = 20_480;
/// Bytes that fit into each direction of a pipe in memory.
pub(crate) const PIPE_BYTES: usize = 32 * 1024;

/// How the connection is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Security {
    /// Not at all. Only to a loopback address.
    Plain,
    /// TLS after a `starttls` (RFC 6120 §5), usually port 5222.
    StartTls,
    /// TLS from the first byte (XEP-0368), usually port 5223.
    DirectTls,
}

/// Why no stream could be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The trust settings cannot be used.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// Plain TCP to another machine.
    #[error(
        "refusing an unencrypted XMPP connection to {host}: use STARTTLS or direct TLS; plain is for loopback addresses"
    )]
    PlainRefused {
        /// As configured.
        host: String,
    },
    /// The host could not be resolved or reached.
    #[error("cannot connect to {address}")]
    Tcp {
        /// Host and port as configured.
        address: String,
        /// The system's reason.
        source: io::Error,
    },
    /// No TCP connection within the deadline.
    #[error("no TCP connection to {address} within {} s", seconds.as_secs())]
    TcpTimeout {
        /// Host and port as configured.
        address: String,
        /// The deadline.
        seconds: Duration,
    },
    /// The server does not offer STARTTLS.
    #[error("{address} offers no STARTTLS: use direct TLS, or enable TLS in the server")]
    NoStartTls {
        /// Host and port as configured.
        address: String,
    },
    /// The TLS handshake failed, most often because the certificate is not trusted.
    #[error("no TLS with {address} (certificate checked for `{name}`)")]
    Tls {
        /// Host and port as configured.
        address: String,
        /// The name that the certificate must carry.
        name: String,
        /// The reason in the words of the TLS library.
        source: io::Error,
    },
    /// The name to check in the certificate is no host name.
    #[error("`{name}` is not a name that a certificate can carry: set the server name of the trust settings")]
    TlsName {
        /// The JID's domain or the configured name.
        name: String,
    },
    /// The server answered with a stream error before a login was possible.
    #[error("the server refused the stream: {condition} {text}")]
    Stream {
        /// Condition of RFC 6120 §4.9.3.
        condition: String,
        /// The server's words.
        text: String,
    },
    /// The connection broke, or the other end does not speak XMPP.
    #[error("the XMPP stream could not be opened")]
    Io(#[from] io::Error),
    /// The embedded server that this connector belongs to has been shut down.
    #[error("the embedded XMPP server is not running")]
    ServerGone,
}

impl From<RecvFeaturesError> for ConnectError {
    fn from(error: RecvFeaturesError) -> Self {
        match error {
            RecvFeaturesError::Io(error) => Self::Io(error),
            RecvFeaturesError::StreamError(error) => {
                let element = xmpp_parsers::minidom::Element::from(error.0);
                let (condition, text) = crate::stream::read_stream_error(&element).unwrap_or_default();
                Self::Stream { condition, text }
            }
        }
    }
}

/// A way to a server; cheap to clone, usable again and again.
#[derive(Debug, Clone)]
pub struct Connector {
    target: Target,
}

#[derive(Debug, Clone)]
enum Target {
    Tcp { host: String, port: u16, tls: Option<Tls> },
    Memory(mpsc::Sender<DuplexStream>),
}

#[derive(Debug, Clone)]
struct Tls {
    starttls: bool,
    config: Arc<rustls::ClientConfig>,
    server_name: Option<String>,
    insecure: bool,
}

/// An opened stream whose features come next.
pub(crate) struct Opened {
    pub(crate) pending: PendingFeaturesRecv<Transport>,
    pub(crate) budget: Budget,
    /// Whether a password may be shown to the other end: TLS, loopback or memory.
    pub(crate) confidential: bool,
}

impl Connector {
    /// A connector to `host`:`port` (the system's resolver is asked at each connect).
    ///
    /// # Errors
    /// [`ConnectError::PlainRefused`] for [`Security::Plain`] with the address of another machine (a host *name* is
    /// checked when it has been resolved), [`ConnectError::Trust`] if the trust settings cannot be used.
    pub fn tcp(host: &str, port: u16, security: Security, trust: &Trust) -> Result<Self, ConnectError> {
        let tls = match security {
            Security::Plain => {
                if host.parse::<IpAddr>().is_ok_and(|ip| !ip.is_loopback()) {
                    return Err(ConnectError::PlainRefused { host: host.to_owned() });
                }
                None
            }
            Security::StartTls | Security::DirectTls => Some(Tls {
                starttls: security == Security::StartTls,
                config: client_config(trust)?,
                server_name: trust.server_name.clone(),
                insecure: trust.insecure,
            }),
        };
        Ok(Self { target: Target::Tcp { host: host.to_owned(), port, tls } })
    }

    /// A connector through pipes in memory; the embedded server takes the other ends.
    pub(crate) fn memory(ends: mpsc::Sender<DuplexStream>) -> Self {
        Self { target: Target::Memory(ends) }
    }

    /// Where it leads, for logs.
    pub fn describe(&self) -> String {
        match &self.target {
            Target::Tcp { host, port, tls: None } => format!("{host}:{port} (plain)"),
            Target::Tcp { host, port, tls: Some(tls) } => {
                format!("{host}:{port} ({})", if tls.starttls { "STARTTLS" } else { "direct TLS" })
            }
            Target::Memory(_) => "the embedded server (in memory)".to_owned(),
        }
    }

    /// Connects, secures the connection and opens a stream to `domain`.
    pub(crate) async fn open(
        &self,
        domain: &str,
        max_stanza: usize,
        timeouts: Timeouts,
    ) -> Result<Opened, ConnectError> {
        let budget = Budget::new(max_stanza, MAX_SKIPPED_LEVELS);
        let (io, confidential) = match &self.target {
            Target::Memory(ends) => {
                let (mine, theirs) = tokio::io::duplex(PIPE_BYTES);
                ends.send(theirs).await.map_err(|_| ConnectError::ServerGone)?;
                (Box::new(mine) as BoxBytes, true)
            }
            Target::Tcp { host, port, tls } => {
                let (socket, loopback) = tcp(host, *port).await?;
                let address = format!("{host}:{port}");
                match tls {
                    None if !loopback => return Err(ConnectError::PlainRefused { host: host.clone() }),
                    None => (Box::new(socket) as BoxBytes, true),
                    Some(tls) => {
                        let io: BoxBytes = if tls.starttls {
                            starttls(Box::new(socket), domain, &address, &budget, timeouts).await?
                        } else {
                            Box::new(socket)
                        };
                        (tls.handshake(io, domain, &address).await?, true)
                    }
                }
            }
        };
        let pending = initiate_stream(transport(io, &budget), ns::CLIENT, header(domain), timeouts).await?;
        Ok(Opened { pending, budget, confidential })
    }
}

impl Tls {
    /// The certificate is checked against the JID's domain, not the address (RFC 6120 §13.7.2.1): the two differ
    /// in many installations.
    async fn handshake(&self, io: BoxBytes, domain: &str, address: &str) -> Result<BoxBytes, ConnectError> {
        let name = self.server_name.as_deref().unwrap_or(domain);
        let server_name = ServerName::try_from(name.to_owned())
            .map_err(|_| ConnectError::TlsName { name: name.to_owned() })?;
        if self.insecure {
            tracing::warn!(
                address,
                "the XMPP server's certificate is not verified, as configured: anyone on the way can read and change everything"
            );
        }
        let tls =
            TlsConnector::from(self.config.clone()).connect(server_name, io).await.map_err(|source| {
                ConnectError::Tls { address: address.to_owned(), name: name.to_owned(), source }
            })?;
        Ok(Box::new(tls))
    }
}

async fn tcp(host: &str, port: u16) -> Result<(TcpStream, bool), ConnectError> {
    let address = || format!("{host}:{port}");
    let refused = |source| ConnectError::Tcp { address: address(), source };
    let socket = tokio::time::timeout(CONNECT_DEADLINE, TcpStream::connect((host, port)))
        .await
        .map_err(|_| ConnectError::TcpTimeout { address: address(), seconds: CONNECT_DEADLINE })?
        .map_err(refused)?;
    // Stanzas are small and wait for answers: Nagle's algorithm would add 40 ms to each.
    socket.set_nodelay(true).map_err(refused)?;
    let loopback = socket.peer_addr().is_ok_and(|peer| peer.ip().to_canonical().is_loopback());
    Ok((socket, loopback))
}

pub(crate) fn header(domain: &str) -> StreamHeader<'_> {
    StreamHeader { to: Some(domain.into()), from: None, id: None }
}

async fn starttls(
    io: BoxBytes,
    domain: &str,
    address: &str,
    budget: &Budget,
    timeouts: Timeouts,
) -> Result<BoxBytes, ConnectError> {
    let pending = initiate_stream(transport(io, budget), ns::CLIENT, header(domain), timeouts).await?;
    let (features, xml) = pending.recv_features().await?;
    if !features.can_starttls() {
        return Err(ConnectError::NoStartTls { address: address.to_owned() });
    }
    let mut link = Link::new(xml, budget.clone());
    link.send(&element("starttls", ns::TLS)).await?;
    match link.receive().await {
        Ok(answer) if answer.is("proceed", ns::TLS) => Ok(raw(link.into_parts().0.into_inner())),
        Ok(_) => Err(ConnectError::NoStartTls { address: address.to_owned() }),
        Err(Stop::Io(error)) => Err(error.into()),
        Err(_) => Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
    }
}

/// Whether a server may listen or a client connect here without encryption.
pub(crate) fn is_loopback(address: &SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}

#[cfg(test)]
mod tests;
