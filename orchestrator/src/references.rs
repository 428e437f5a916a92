//! Inputs by reference: fetches a URL into a file, within limits of size and time, from allowed places only. Every address
//! is checked after name resolution and again after each redirect, and the connection goes to the checked address, so that
//! no name can lead into the operator's own network. Knows no jobs and no document formats.

mod fetch;
mod policy;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::io::AsyncWriteExt;
use url::Url;

pub use policy::{Policy, PolicyError, Rewrite};

/// What to fetch.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reference {
    /// `http`, `https` or `data` URL.
    pub href: String,
    /// POST instead of GET, with this body.
    pub body: Option<Vec<u8>>,
    /// Headers that the client wants to be sent.
    pub headers: Vec<(String, String)>,
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
    /// It could not be written here.
    #[error("the fetched data could not be written: {0}")]
    Write(#[from] std::io::Error),
}

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

    /// Fetches into a new file; returns its size in bytes. On an error the file is removed.
    pub async fn fetch(&self, reference: &Reference, target: &Path) -> Result<u64, FetchError> {
        let limit = self.policy.timeout;
        let done = tokio::time::timeout(limit, self.fetch_into(reference, target)).await;
        let result =
            done.unwrap_or_else(|_| Err(FetchError::TimedOut { url: shown(&reference.href), limit }));
        if result.is_err() {
            // What is half there must not be taken for a whole.
            let _ = tokio::fs::remove_file(target).await;
        }
        result
    }

    async fn fetch_into(&self, reference: &Reference, target: &Path) -> Result<u64, FetchError> {
        let mut file = tokio::fs::File::create_new(target).await?;
        let bytes = if let Some(data) = reference.href.strip_prefix("data:") {
            let bytes = data_url(data)
                .map_err(|why| FetchError::Url { href: shown(&reference.href), why: why.to_owned() })?;
            self.within(&reference.href, bytes.len() as u64)?;
            file.write_all(&bytes).await?;
            bytes.len() as u64
        } else {
            match self.policy.rewritten(&reference.href) {
                Some(Rewrite::File(path)) => {
                    let mut from =
                        tokio::fs::File::open(&path).await.map_err(|error| FetchError::Failed {
                            url: shown(&reference.href),
                            why: format!("it is rewritten to the file {}: {error}", path.display()),
                        })?;
                    self.within(&reference.href, from.metadata().await?.len())?;
                    tokio::io::copy(&mut from, &mut file).await?
                }
                Some(Rewrite::Url(url)) => self.follow(parse(&url)?, true, reference, &mut file).await?,
                None => self.follow(parse(&reference.href)?, false, reference, &mut file).await?,
            }
        };
        file.sync_all().await?;
        Ok(bytes)
    }

    fn within(&self, url: &str, bytes: u64) -> Result<(), FetchError> {
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
            let address = self.policy.address(&url, trusted).await?;
            match fetch::request(&url, address, self.tls.clone(), headers, body, &self.policy, file).await? {
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

fn shown(url: &str) -> String {
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
