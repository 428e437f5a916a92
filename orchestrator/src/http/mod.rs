//! The HTTP side: configuration, shared state, routes, and how a [`Fault`] becomes a response. The faces decode with
//! `encoding`, ask [`Jobs`] and encode again; nothing here knows the bus or the store.
//!
//! | path | what |
//! |---|---|
//! | `/wps`, `/ows`, `/geoserver/ows`, `/geoserver/wps` | WPS; the version is chosen per request |
//! | `/wps/1.0.0`, `/wps/2.0.0` | the same, with another version for whoever names none |
//! | `/outputs/<job>/<output>/<file>` | a result |
//! | `/inputs/<job>/<n>` | an input that a document about its job repeats |
//! | `/`, `/health`, `/metrics`, `/agents`, `/jobs`, `/usage` | for people and monitors |

mod admin;
mod auth;
mod body;
mod cache;
mod chain;
mod connections;
mod encoded;
mod files;
mod guard;
mod links;
mod page;
mod rate;
mod run;
mod serve;
mod shares;
mod stall;
pub mod tls;
mod wps;
mod wps1;
mod wps2;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use axum::routing::{any, get, post};
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;

use crate::access::Access;
use crate::driver::Overview;
use crate::encoding::{Face, Fault, FaultKind, ows};
use crate::jobs::{Jobs, Refusal};
use crate::results::ResultsError;
use crate::telemetry::Telemetry;

pub use crate::encoding::ows::ServiceInfo;
pub use serve::serve;

/// How the service presents itself and what it allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpConfig {
    /// Where to listen; also the last resort for links.
    pub listen: SocketAddr,
    /// How clients reach us, without a trailing slash; else it is taken from each request.
    pub public_url: Option<String>,
    /// Peers whose `X-Forwarded-*` headers are believed.
    pub trusted_proxies: Vec<IpAddr>,
    /// Origins of pages that may use the service; `*` = all.
    pub cors_origins: Vec<String>,
    /// Largest request body in bytes.
    pub max_body_bytes: u64,
    /// Largest result file in bytes that is put into a document; a larger one is linked.
    pub max_inline_bytes: u64,
    /// Certificate and key of HTTPS; without them plain HTTP is served.
    pub tls: Option<tls::TlsFiles>,
    /// Most connections at once; when more come, those give way that were idle for the longest time. 0 = no bound.
    pub max_connections: usize,
    /// Most connections at once from one address, or one /64 network of IPv6; 0 = no bound.
    pub max_connections_per_address: usize,
    /// Most requests in a minute from one address, or one /64 network of IPv6; 0 = no bound.
    pub requests_per_minute: u32,
    /// Most requests in a minute of one user; 0 = no bound.
    pub user_requests_per_minute: u32,
    /// Longest time to receive the head of a request, and longest silence between two requests.
    pub header_timeout: Duration,
    /// Longest time to receive a request.
    pub request_timeout: Duration,
    /// Longest time that a client may take nothing of an answer that is on its way.
    pub stall_timeout: Duration,
    /// Longest time that a synchronous Execute is kept waiting.
    pub sync_timeout: Duration,
    /// How long an asynchronous Execute waits for a quick end before it is answered; zero = not at all.
    pub settle: Duration,
    /// Texts of the capabilities.
    pub service: ServiceInfo,
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            public_url: None,
            trusted_proxies: Vec::new(),
            cors_origins: vec!["*".to_owned()],
            max_body_bytes: 50 << 20,
            max_inline_bytes: 32 << 20,
            tls: None,
            max_connections: 4096,
            max_connections_per_address: 0,
            requests_per_minute: 0,
            user_requests_per_minute: 0,
            header_timeout: Duration::from_secs(30),
            request_timeout: Duration::from_secs(60),
            stall_timeout: Duration::from_secs(120),
            sync_timeout: Duration::from_secs(600),
            settle: Duration::ZERO,
            service: ServiceInfo::default(),
        }
    }
}

impl HttpConfig {
    /// What clients speak with us when nobody is in between.
    pub fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "https" } else { "http" }
    }
}

/// Bodies that may be in memory at once, as a multiple of the largest one.
const BODIES_AT_ONCE: u64 = 8;
/// Unit in which the memory for bodies is counted, in bytes.
const BODY_UNIT: u64 = 64 * 1024;

/// What every handler has at hand. Cheap to clone.
#[derive(Clone)]
pub struct AppState {
    jobs: Jobs,
    config: Arc<HttpConfig>,
    access: Arc<Access>,
    telemetry: Arc<Telemetry>,
    overview: watch::Receiver<Arc<Overview>>,
    bodies: Arc<Semaphore>,
    documents: Arc<cache::Cache>,
    rates: Arc<Rates>,
    stopping: CancellationToken,
}

/// How often clients may ask.
struct Rates {
    addresses: rate::Rates<IpAddr>,
    users: rate::Rates<String>,
}

impl AppState {
    /// Puts it together.
    pub fn new(
        jobs: Jobs,
        config: Arc<HttpConfig>,
        access: Arc<Access>,
        telemetry: Arc<Telemetry>,
        overview: watch::Receiver<Arc<Overview>>,
    ) -> Self {
        let units = config.max_body_bytes.div_ceil(BODY_UNIT).saturating_mul(BODIES_AT_ONCE);
        let units = usize::try_from(units).unwrap_or(usize::MAX).clamp(1, Semaphore::MAX_PERMITS);
        let rates = Rates {
            addresses: rate::Rates::new(config.requests_per_minute),
            users: rate::Rates::new(config.user_requests_per_minute),
        };
        Self {
            jobs,
            config,
            access,
            telemetry,
            overview,
            bodies: Arc::new(Semaphore::new(units)),
            documents: Arc::default(),
            rates: Arc::new(rates),
            stopping: CancellationToken::new(),
        }
    }
}

/// Where the service is.
const PATHS: [&str; 6] = ["/wps", "/ows", "/geoserver/ows", "/geoserver/wps", "/wps/1.0.0", "/wps/2.0.0"];

/// All routes, with what surrounds every request.
pub fn router(state: AppState) -> Router {
    let mut router = Router::new()
        .route("/", get(page::landing))
        .route("/health", get(admin::health))
        .route("/metrics", get(admin::metrics))
        .route("/agents", get(admin::agents))
        .route("/jobs", get(admin::jobs))
        .route("/jobs/{id}", get(admin::one_job))
        .route("/jobs/{id}/share", post(admin::share))
        .route("/jobs/{id}/explain", get(shares::explain))
        .route("/agents/{agent}/drain", post(shares::drain))
        .route("/agents/{agent}/undrain", post(shares::undrain))
        .route("/usage", get(shares::usage))
        .route("/outputs/{job}/{output}/{file}", any(files::download))
        .route("/inputs/{job}/{n}", any(files::input));
    for path in PATHS {
        router = router.route(path, any(wps::entry)).route(&format!("{path}/"), any(wps::entry));
    }
    router
        .fallback(guard::nothing_here)
        .method_not_allowed_fallback(guard::wrong_method)
        .layer(axum::middleware::from_fn_with_state(state.clone(), auth::identify))
        .layer(axum::middleware::from_fn_with_state(state.clone(), guard::around))
        .with_state(state)
}

/// The address of the other end of the connection.
#[derive(Debug, Clone, Copy)]
struct Peer(SocketAddr);

/// Name of the operation, left in the response for log and figures.
#[derive(Debug, Clone, Copy)]
struct Operation(&'static str);

/// Names a request in answers and logs.
#[derive(Debug, Clone)]
struct RequestId(String);

/// An XML document. The header holds the bare type: clients in use compare it as a whole.
fn xml(document: impl Into<Body>) -> Response {
    let mut response = Response::new(document.into());
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/xml"));
    response
}

/// The report of a fault, as WPS 1.0.0 words it: also for what is no WPS at all.
fn report(fault: &Fault) -> Response {
    report_on(fault, Face::Wps1)
}

/// The report of a fault in the words of a face.
fn report_on(fault: &Fault, face: Face) -> Response {
    let (_, status) = fault.kind.on(face);
    let mut response = xml(ows::exception_report(fault, face));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    if matches!(fault.kind, FaultKind::TooBusy | FaultKind::TooManyJobs) {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
    }
    if matches!(fault.kind, FaultKind::TooLarge | FaultKind::TooSlow) {
        // What may still come on this connection is not a request.
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

impl From<Refusal> for Fault {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::NoSuchProcess(id) => Self::no_such_process(&id),
            Refusal::Mismatch(mismatch) => mismatch.into(),
            Refusal::Reference { ref input, ref source } => {
                let kind = match source {
                    crate::references::FetchError::TooLarge { .. } => FaultKind::TooLarge,
                    crate::references::FetchError::Encoding { .. } => FaultKind::WrongInputData,
                    _ => FaultKind::DataNotAccessible,
                };
                let input = input.clone();
                Self::at(kind, &input, refusal.to_string())
            }
            Refusal::TooMany { .. } => Self::new(FaultKind::TooManyJobs, refusal.to_string()),
            Refusal::InputTooLarge { ref input, .. } => {
                Self::at(FaultKind::TooLarge, input.clone(), refusal.to_string())
            }
            Refusal::QuotaFull { .. } => Self::new(FaultKind::QuotaFull, refusal.to_string()),
            Refusal::TooBusy { .. } | Refusal::Stopping => Self::new(FaultKind::TooBusy, refusal.to_string()),
            Refusal::Results(error) => error.into(),
            Refusal::Store(ref error) => {
                let fault = internal("the job store failed", error);
                if !refusal.passes() {
                    return fault;
                }
                let text =
                    "the job store cannot be reached at present; no accepted job is lost, try again later";
                Self::new(FaultKind::TooBusy, text)
            }
        }
    }
}

impl From<ResultsError> for Fault {
    fn from(error: ResultsError) -> Self {
        match &error {
            ResultsError::TooLarge { input, .. } => {
                Self::at(FaultKind::TooLarge, input.clone(), error.to_string())
            }
            ResultsError::TooMuch(_) => Self::new(FaultKind::TooLarge, error.to_string()),
            ResultsError::Io { source, .. } if source.kind() == std::io::ErrorKind::StorageFull => {
                tracing::error!(error = %error, "no room is left for the files of jobs");
                Self::new(
                    FaultKind::NotEnoughStorage,
                    "no room is left on the server for this request's data",
                )
            }
            _ => internal("the result store failed", &error),
        }
    }
}

/// Logs what failed on our side; the client learns no more than that something did.
fn internal(what: &str, error: &dyn std::error::Error) -> Fault {
    let mut causes = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        causes.push_str(": ");
        causes.push_str(&cause.to_string());
        source = cause.source();
    }
    tracing::error!(error = %causes, "{what}");
    Fault::new(FaultKind::Internal, what)
}

#[cfg(test)]
mod tests;
