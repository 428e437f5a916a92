//! Accepts connections and serves them, over TLS where that is configured: a bounded number in all and from one address, with
//! time limits for handshakes and headers, and an orderly end. Knows no route.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use hyper::body::Incoming;
use hyper::service::Service;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::connections::{Bounds, Connections, Excess, Place};
use super::stall::Stalling;
use super::tls::{self, Identity};
use super::{AppState, Peer, router};
use crate::telemetry::Telemetry;

/// Largest head of a request in bytes: query strings carry whole Execute requests.
const MAX_HEAD: usize = 128 * 1024;
/// Most header fields.
const MAX_HEADERS: usize = 100;
/// Longest TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long answers that are on their way may take after the end was asked for.
const DRAIN: Duration = Duration::from_secs(10);
/// Pause after a failure to accept, for instance because file descriptors have run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Shortest time between two lines about connections that were refused.
const COMPLAINT: Duration = Duration::from_secs(10);

/// Serves until `shutdown`, then finishes what is on its way and returns. Clients that wait for a synchronous job are
/// told where to follow it.
pub async fn serve(
    listener: TcpListener,
    mut state: AppState,
    identity: Option<Arc<Identity>>,
    shutdown: CancellationToken,
) {
    state.stopping = shutdown.clone();
    let config = state.config.clone();
    let telemetry = state.telemetry.clone();
    let tls = match identity.as_ref().map(Identity::server_config).transpose() {
        Ok(settings) => settings.map(TlsAcceptor::from),
        Err(error) => return tracing::error!("HTTPS cannot be served: {error}"),
    };
    if let Some(identity) = identity {
        tokio::spawn(identity.follow(shutdown.clone()));
    }
    let served = Arc::new(Served {
        app: router(state),
        stall: config.stall_timeout,
        head: config.header_timeout,
        tls,
        shutdown: shutdown.clone(),
    });
    let connections = Connections::new(Bounds {
        total: config.max_connections,
        per_address: config.max_connections_per_address,
    });
    let tracker = TaskTracker::new();
    let mut complained: Option<tokio::time::Instant> = None;
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let shared = config.trusted_proxies.contains(&peer.ip().to_canonical());
        match connections.admit(peer.ip(), shared) {
            Ok((place, gave_up)) => {
                if gave_up {
                    telemetry.connection_given_up();
                }
                telemetry.connections(connections.count());
                let (served, telemetry, connections) =
                    (served.clone(), telemetry.clone(), connections.clone());
                tracker.spawn(async move {
                    served.connection(stream, Peer(peer), place).await;
                    telemetry.connections(connections.count());
                });
            }
            Err(excess) => {
                refuse(&stream, served.tls.is_none(), excess, &telemetry);
                if complained.is_none_or(|last| last.elapsed() >= COMPLAINT) {
                    complained = Some(tokio::time::Instant::now());
                    let key = match excess {
                        Excess::Address => "max_connections_per_address",
                        Excess::Total => "max_connections",
                    };
                    tracing::warn!(%peer, open = connections.count(), "a connection was refused: [http] {key} is reached");
                }
            }
        }
    }
    drop(listener);
    tracker.close();
    if tokio::time::timeout(DRAIN, tracker.wait()).await.is_err() {
        tracing::warn!(connections = tracker.len(), "some answers could not be finished before the end");
    }
}

/// Says why, as far as that is possible without waiting, and closes.
fn refuse(stream: &TcpStream, plain: bool, excess: Excess, telemetry: &Telemetry) {
    telemetry.connection_refused(match excess {
        Excess::Address => "address",
        Excess::Total => "total",
    });
    if plain {
        let words: &[u8] = match excess {
            Excess::Address => {
                b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 5\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            }
            Excess::Total => {
                b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            }
        };
        // Whoever cannot take a hundred bytes at once goes without.
        let _ = stream.try_write(words);
    }
}

/// What all connections have in common.
struct Served {
    app: Router,
    stall: Duration,
    head: Duration,
    tls: Option<TlsAcceptor>,
    shutdown: CancellationToken,
}

impl Served {
    async fn connection(&self, stream: TcpStream, peer: Peer, place: Place) {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY could not be set");
        }
        let Some(acceptor) = &self.tls else { return self.exchange(stream, peer, place).await };
        let handshake = async {
            if tls::begins_tls(&stream).await? {
                return acceptor.accept(stream).await.map(Some);
            }
            let _ = stream.try_write(tls::PLAIN_HTTP);
            Ok(None)
        };
        let secured = tokio::select! {
            () = self.shutdown.cancelled() => return,
            () = place.given_up.cancelled() => return,
            secured = tokio::time::timeout(HANDSHAKE.min(self.head), handshake) => secured,
        };
        match secured {
            Ok(Ok(Some(secured))) => self.exchange(secured, peer, place).await,
            Ok(Ok(None)) => tracing::debug!(peer = %peer.0, "plain HTTP was spoken where HTTPS is served"),
            Ok(Err(error)) => tracing::debug!(peer = %peer.0, %error, "a TLS handshake failed"),
            Err(_) => tracing::debug!(peer = %peer.0, "a TLS handshake took too long"),
        }
    }

    async fn exchange<S>(&self, stream: S, peer: Peer, place: Place)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let inner = TowerToHyperService::new(self.app.clone());
        let activity = place.activity.clone();
        let service = hyper::service::service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(peer);
            let answering = activity.answering();
            let answer = inner.call(request);
            async move {
                let answer = answer.await.unwrap_or_else(|never| match never {});
                drop(answering);
                Ok::<_, Infallible>(answer)
            }
        });
        let mut http = hyper::server::conn::http1::Builder::new();
        http.timer(TokioTimer::new())
            .header_read_timeout(self.head)
            .max_buf_size(MAX_HEAD)
            .max_headers(MAX_HEADERS);
        let stream = Stalling::new(stream, self.stall, place.activity.clone());
        let serving = http.serve_connection(TokioIo::new(stream), service);
        tokio::pin!(serving);
        let ended = tokio::select! {
            ended = &mut serving => ended,
            () = place.given_up.cancelled() => return,
            () = self.shutdown.cancelled() => {
                serving.as_mut().graceful_shutdown();
                serving.await
            }
        };
        if let Err(error) = ended {
            // Clients that go away in the middle are everyday life.
            tracing::debug!(peer = %peer.0, %error, "a connection ended early");
        }
    }
}
