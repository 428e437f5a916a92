//! Inputs by reference: fetches a URL into a file, within limits of size and time, from allowed places only. Every address
//! is checked after name resolution and again after each redirect, and the connection goes to the checked address, so that
//! no name can lead into the operator's own network. Knows no jobs and no document formats.

mod decode;
mod fetch;
mod policy;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use thiserror::Error;
use tokio::io::AsyncWriteExt;
use url::Url;
use wps_remote_protocol::Value;

pub use policy::{Policy, PolicyError, Rewrite};

/// What to fetch.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reference {
    /// `http`, `https` or `data` URL.
    pub href: String,
    /// POST instead of GET, with this body.
    pub body: Option<Vec<u8>>,
    /// POST with what is at this address as the body.
    pub body_href: Option<String>,
    /// Headers that the client wants to be sent.
    pub headers: Vec<(String, String)>,
    /// What is there is in base64, and is to be decoded.
    pub base64: bool,
}

/// What the face of a request knows of its references: which lead back to this very service, to be answered from within
/// and without network, and how a bounding box is written.
pub trait Within: Send + Sync {
    /// Writes what the reference stands for into the file, at most `limit` bytes, and answers its size; `None` if it leads
    /// elsewhere.
    fn fetch<'a>(
        &'a self,
        reference: &'a Reference,
        file: &'a mut tokio::fs::File,
        limit: u64,
    ) -> BoxFuture<'a, Option<Result<u64, FetchError>>>;

    /// The bounding box that a fetched text is, or what is wrong with it.
    fn bounding_box(&self, input: &str, text: &[u8]) -> Result<Value, String>;
}

/// No reference leads back, and none is a bounding box.
#[derive(Debug, Clone, Copy)]
pub struct Nowhere;

impl Within for Nowhere {
    fn fetch<'a>(
        &'a self,
        _: &'a Reference,
        _: &'a mut tokio::fs::File,
        _: u64,
    ) -> BoxFuture<'a, Option<Result<u64, FetchError>>> {
        Box::pin(std::future::ready(None))
    }

    fn bounding_box(&self, _: &str, _: &[u8]) -> Result<Value, String> {
        Err("a bounding box cannot be read here".to_owned())
    }
}

/// Why a reference was not fetched.
#[derive(Debug, Error)]
pub enum FetchError {
    /// No URL, or of a kind that is not fetched.
    #[error("`{href}` cannot be fetched: {why}")]
    Url {
        /// The reference.
        href: String,
        /// What is wrong with it.
        why: String,
    },
    /// The operator does not allow it.
    #[error("`{url}` may not be fetched: {why}")]
    Refused {
        /// Where it led to.
        url: String,
        /// Why not, and what the operator could change.
        why: String,
    },
    /// The other server failed.
    #[error("`{url}` could not be fetched: {why}")]
    Failed {
        /// Where it led to.
        url: String,
        /// What happened.
        why: String,
    },
    /// It is too large.
    #[error("`{url}` is larger than {limit} bytes")]
    TooLarge {
        /// Where it led to.
        url: String,
        /// The limit.
        limit: u64,
    },
    /// It took too long.
    #[error("`{url}` was not complete after {} s", .limit.as_secs())]
    TimedOut {
        /// Where it led to.
        url: String,
        /// The limit.
        limit: Duration,
    },
    /// It is not in the encoding that the client named.
    #[error("what was fetched from `{url}` is not base64")]
    Encoding {
        /// Where it led to.
        url: String,
    },
    /// It could not be written here.
    #[error("the fetched data could not be written: {0}")]
    Write(#[from] std::io::Error),
}

/// Largest body of a request that lies elsewhere itself (bytes): it is held in memory.
const MAX_BODY: u64 = 4 << 20;
/// Longest URL that is shown in an error.
const SHOWN: usize = 200;

/// Fetches references. Cheap to clone.
#[derive(Debug, Clone)]
pub struct References {
    policy: Arc<Policy>,
    tls: Arc<rustls::ClientConfig>,
}

impl References {
    /// With the system's certificates for `https`.
    pub fn new(policy: Policy) -> Self {
        let mut roots = rustls::RootCertStore::empty();
        // A certificate that cannot be read is one fewer to trust.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the ring provider supports the default versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        Self { policy: Arc::new(policy), tls: Arc::new(tls) }
    }

    /// The same for somebody who may fetch no more than so many bytes.
    #[must_use]
    pub fn at_most(&self, bytes: u64) -> Self {
        if bytes >= self.policy.max_bytes {
            return self.clone();
        }
        let mut policy = self.policy.as_ref().clone();
        policy.max_bytes = bytes;
        Self { policy: Arc::new(policy), ..self.clone() }
    }

    /// Fetches into a new file, from `within` what leads back to us, and decodes it; returns its size in bytes. On an error
    /// the file is removed.
    pub async fn fetch(
        &self,
        reference: &Reference,
        within: &dyn Within,
        target: &Path,
    ) -> Result<u64, FetchError> {
        let bytes = self.as_it_is(reference, within, target).await?;
        if !reference.base64 {
            return Ok(bytes);
        }
        let file = target.to_owned();
        let decoded = tokio::task::spawn_blocking(move || decode::base64(&file)).await;
        match decoded.unwrap_or_else(|error| Err(std::io::Error::other(error))) {
            Ok(bytes) => Ok(bytes),
            Err(error) => {
                let _ = tokio::fs::remove_file(target).await;
                match error.kind() {
                    std::io::ErrorKind::InvalidData => {
                        Err(FetchError::Encoding { url: shown(&reference.href) })
                    }
                    _ => Err(error.into()),
                }
            }
        }
    }

    async fn as_it_is(
        &self,
        reference: &Reference,
        within: &dyn Within,
        target: &Path,
    ) -> Result<u64, FetchError> {
        let Some(body_href) = &reference.body_href else { return self.one(reference, within, target).await };
        let beside = target.with_extension("body");
        let body = Reference { href: body_href.clone(), ..Reference::default() };
        let bytes = self.one(&body, within, &beside).await?;
        let body = if bytes > MAX_BODY {
            Err(FetchError::TooLarge { url: shown(body_href), limit: MAX_BODY })
        } else {
            tokio::fs::read(&beside).await.map_err(FetchError::Write)
        };
        // The folder goes with the job in any case.
        let _ = tokio::fs::remove_file(&beside).await;
        let whole = Reference {
            href: reference.href.clone(),
            headers: reference.headers.clone(),
            body: Some(body?),
            ..Reference::default()
        };
        self.one(&whole, within, target).await
    }

    async fn one(
        &self,
        reference: &Reference,
        within: &dyn Within,
        target: &Path,
    ) -> Result<u64, FetchError> {
        let mut file = tokio::fs::File::create_new(target).await?;
        let result = self.fetch_into(reference, within, &mut file).await;
        if result.is_err() {
            // What is half there must not be taken for a whole.
            let _ = tokio::fs::remove_file(target).await;
        }
        result
    }

    async fn fetch_into(
        &self,
        reference: &Reference,
        within: &dyn Within,
        file: &mut tokio::fs::File,
    ) -> Result<u64, FetchError> {
        // The operator's word about an address counts more than that it is ours.
        let rewritten = self.policy.rewritten(&reference.href);
        if rewritten.is_none()
            && let Some(answer) = within.fetch(reference, file, self.policy.max_bytes).await
        {
            let bytes = answer?;
            file.sync_all().await?;
            return Ok(bytes);
        }
        let limit = self.policy.timeout;
        tokio::time::timeout(limit, self.fetch_elsewhere(reference, rewritten, file))
            .await
            .unwrap_or_else(|_| Err(FetchError::TimedOut { url: shown(&reference.href), limit }))
    }

    async fn fetch_elsewhere(
        &self,
        reference: &Reference,
        rewritten: Option<Rewrite>,
        file: &mut tokio::fs::File,
    ) -> Result<u64, FetchError> {
        let scheme = reference.href.split_once(':').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("data"));
        let bytes = if let Some((_, data)) = scheme {
            let bytes = data_url(data)
                .map_err(|why| FetchError::Url { href: shown(&reference.href), why: why.to_owned() })?;
            self.bounded(&reference.href, bytes.len() as u64)?;
            file.write_all(&bytes).await?;
            bytes.len() as u64
        } else {
            match rewritten {
                Some(Rewrite::File(path)) => {
                    let mut from =
                        tokio::fs::File::open(&path).await.map_err(|error| FetchError::Failed {
                            url: shown(&reference.href),
                            why: format!("it is rewritten to the file {}: {error}", path.display()),
                        })?;
                    self.bounded(&reference.href, from.metadata().await?.len())?;
                    tokio::io::copy(&mut from, file).await?
                }
                Some(Rewrite::Url(url)) => self.follow(parse(&url)?, true, reference, file).await?,
                None => self.follow(parse(&reference.href)?, false, reference, file).await?,
            }
        };
        file.sync_all().await?;
        Ok(bytes)
    }

    fn bounded(&self, url: &str, bytes: u64) -> Result<(), FetchError> {
        let limit = self.policy.max_bytes;
        if bytes > limit { Err(FetchError::TooLarge { url: shown(url), limit }) } else { Ok(()) }
    }

    /// One request after the other until something other than a redirect answers.
    async fn follow(
        &self,
        mut url: Url,
        trusted: bool,
        reference: &Reference,
        file: &mut tokio::fs::File,
    ) -> Result<u64, FetchError> {
        let mut body = reference.body.as_deref();
        let mut headers = reference.headers.as_slice();
        let mut trusted = trusted;
        for _ in 0..=self.policy.max_redirects {
            let addresses = self.policy.addresses(&url, trusted).await?;
            match fetch::request(&url, &addresses, self.tls.clone(), headers, body, &self.policy, file)
                .await?
            {
                fetch::Answer::Body(bytes) => return Ok(bytes),
                fetch::Answer::Redirect { to, keep_method } => {
                    // Headers and bodies are for the server that the client named, not for one that it names.
                    if to.origin() != url.origin() {
                        headers = &[];
                    }
                    if !keep_method {
                        body = None;
                    }
                    // The operator's word was about the first address only.
                    trusted = false;
                    url = to;
                }
            }
        }
        let why = format!("more than {} redirects", self.policy.max_redirects);
        Err(FetchError::Failed { url: shown(url.as_str()), why })
    }
}

fn parse(href: &str) -> Result<Url, FetchError> {
    let bad = |why: String| FetchError::Url { href: shown(href), why };
    let url = Url::parse(href.trim()).map_err(|error| bad(error.to_string()))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(bad(format!("`{}` is not fetched, only http, https and data are", url.scheme())));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(bad("it holds a user name or password; send them as a header".to_owned()));
    }
    Ok(url)
}

pub(crate) fn shown(url: &str) -> String {
    let mut text: String = url.chars().filter(|c| !c.is_control()).take(SHOWN).collect();
    if text.len() < url.len() {
        text.push('…');
    }
    text
}

/// RFC 2397: `[mediatype][;base64],data`.
fn data_url(rest: &str) -> Result<Vec<u8>, &'static str> {
    use base64::Engine;
    let (head, data) = rest.split_once(',').ok_or("a data URL needs a comma before its data")?;
    let bytes: Vec<u8> = percent_encoding::percent_decode_str(data).collect();
    if head.trim_end().to_ascii_lowercase().ends_with(";base64") {
        let compact: Vec<u8> = bytes.into_iter().filter(|b| !b.is_ascii_whitespace()).collect();
        let lenient = base64::engine::GeneralPurpose::new(
            &base64::alphabet::STANDARD,
            base64::engine::GeneralPurposeConfig::new()
                .with_decode_padding_mode(base64::engine::DecodePaddingMode::Indifferent),
        );
        return lenient.decode(compact).map_err(|_| "its data is not base64");
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests;
