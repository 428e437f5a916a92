//! Inputs that come from ourselves: a reference that leads back to this service, whether it runs another process, asks for a
//! result of one, or names a stored result, is answered here, for the same user and without network. Clients that build
//! chains for a GeoServer write `http://geoserver/wps` for the service that they send them to.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::http::HeaderMap;
use axum::response::Response;
use futures::StreamExt;
use futures::future::BoxFuture;
use tokio::fs::File;
use tokio::io::AsyncWriteExt;
use tokio_util::task::AbortOnDropHandle;
use url::Url;
use wps_remote_protocol::Value;

use super::files::Visitor;
use super::wps::{self, Arrival};
use super::{AppState, PATHS, files};
use crate::encoding::{Fault, values};
use crate::references::{FetchError, Reference, Within, shown};

/// Deepest nesting of requests.
const MAX_DEPTH: usize = 8;
/// Most requests that one request of a client may lead to.
const MAX_REQUESTS: usize = 100;
/// The name under which GeoServer reaches itself.
const PSEUDO_HOST: &str = "geoserver";

/// Where a request stands among those that it came from.
#[derive(Debug, Clone)]
pub(super) struct Position {
    depth: usize,
    left: Arc<AtomicUsize>,
}

impl Default for Position {
    fn default() -> Self {
        Self { depth: 0, left: Arc::new(AtomicUsize::new(MAX_REQUESTS)) }
    }
}

impl Position {
    /// One level deeper, if that is allowed.
    fn deeper(&self) -> Result<Self, String> {
        if self.depth == MAX_DEPTH {
            return Err(format!("requests to this service are nested deeper than {MAX_DEPTH} levels"));
        }
        let one_less = |left: usize| left.checked_sub(1);
        if self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less).is_err() {
            return Err(format!("one request leads to more than {MAX_REQUESTS} others to this service"));
        }
        Ok(Self { depth: self.depth + 1, left: self.left.clone() })
    }
}

/// Answers the references of one request.
pub(super) struct Chain<'a> {
    pub(super) state: &'a AppState,
    pub(super) arrival: &'a Arrival,
}

impl Within for Chain<'_> {
    fn fetch<'a>(
        &'a self,
        reference: &'a Reference,
        file: &'a mut File,
        limit: u64,
    ) -> BoxFuture<'a, Option<Result<u64, FetchError>>> {
        Box::pin(async move {
            let place = self.place(&reference.href)?;
            Some(self.answer(place, reference, file, limit).await)
        })
    }

    fn bounding_box(&self, input: &str, text: &[u8]) -> Result<Value, String> {
        let prefix = format!("input `{input}`: ");
        values::box_document(input, text)
            .map_err(|fault| fault.text.strip_prefix(&prefix).unwrap_or(&fault.text).to_owned())
    }
}

/// What of ours a reference names.
enum Place {
    /// The service, under this path, with this query.
    Service { path: String, query: String },
    /// A result: job, output and file.
    Output([String; 3]),
    /// Something else of the pseudo host.
    Foreign,
}

impl Chain<'_> {
    /// Where a reference leads, if that is here.
    fn place(&self, href: &str) -> Option<Place> {
        let url = Url::parse(href.trim()).ok()?;
        let pseudo = url.scheme() == "http" && url.host_str() == Some(PSEUDO_HOST) && url.port().is_none();
        let path = if pseudo { url.path().to_owned() } else { self.path_below(&url)? };
        let path = path.trim_end_matches('/');
        if PATHS.contains(&path) {
            let query = url.query().unwrap_or_default().to_owned();
            return Some(Place::Service { path: path.to_owned(), query });
        }
        let parts: Vec<&str> = path.split('/').collect();
        match parts.as_slice() {
            ["", "outputs", job, output, file] if !pseudo => {
                let plain = |part: &str| {
                    percent_encoding::percent_decode_str(part)
                        .decode_utf8()
                        .ok()
                        .map(|part| part.into_owned())
                };
                Some(Place::Output([plain(job)?, plain(output)?, plain(file)?]))
            }
            _ => pseudo.then_some(Place::Foreign),
        }
    }

    /// The path below our own address: the one that the client used, the configured one, or the one where we listen.
    fn path_below(&self, url: &Url) -> Option<String> {
        let config = &self.state.config;
        let listen = format!("{}://{}", config.scheme(), config.listen);
        let own = [Some(self.arrival.base.as_str()), config.public_url.as_deref(), Some(listen.as_str())];
        own.into_iter().flatten().find_map(|own| {
            let own = Url::parse(own).ok()?;
            let rest = url.path().strip_prefix(own.path().trim_end_matches('/'))?;
            (own.origin() == url.origin() && rest.starts_with('/')).then(|| rest.to_owned())
        })
    }

    async fn answer(
        &self,
        place: Place,
        reference: &Reference,
        file: &mut File,
        limit: u64,
    ) -> Result<u64, FetchError> {
        let url = || shown(&reference.href);
        let position =
            self.arrival.position.deeper().map_err(|why| FetchError::Refused { url: url(), why })?;
        let failed = |fault: Fault| FetchError::Failed { url: url(), why: fault.text };
        let response = match place {
            Place::Service { path, query } => {
                let arrival = self.arrival.within(&path, reference.body.is_some(), position);
                let (state, body) = (self.state.clone(), reference.body.clone());
                // A task of its own, so that levels do not add up on one stack; it ends with whoever waits for it.
                let task = async move { wps::within(&state, &arrival, &query, body.as_deref()).await };
                let ended = AbortOnDropHandle::new(tokio::spawn(task)).await;
                let answer =
                    ended.unwrap_or_else(|error| Err(super::internal("a request ended early", &error)));
                answer.map_err(failed)?
            }
            Place::Output([job, output, name]) => files::find(
                self.state,
                &Visitor::within(&self.arrival.asking),
                &job,
                &output,
                &name,
                &HeaderMap::new(),
            )
            .await
            .map_err(failed)?,
            Place::Foreign => {
                let why = format!(
                    "`{PSEUDO_HOST}` stands for the GeoServer that the request was written for; here it has /wps and /ows only \
                     ([references] rewrite = http://{PSEUDO_HOST}/ => … leads the rest to a real one)"
                );
                return Err(FetchError::Refused { url: url(), why });
            }
        };
        write(response, file, &url(), limit).await
    }
}

/// Writes the body of an answer into a file, piece by piece.
async fn write(response: Response, file: &mut File, url: &str, limit: u64) -> Result<u64, FetchError> {
    let mut pieces = response.into_body().into_data_stream();
    let mut bytes = 0;
    while let Some(piece) = pieces.next().await {
        let piece =
            piece.map_err(|error| FetchError::Failed { url: url.to_owned(), why: error.to_string() })?;
        bytes += piece.len() as u64;
        if bytes > limit {
            return Err(FetchError::TooLarge { url: url.to_owned(), limit });
        }
        file.write_all(&piece).await?;
    }
    file.flush().await?;
    Ok(bytes)
}
