//! Documents that stay the same until the catalogue changes: capabilities by face and address, descriptions by face and
//! identifiers. Each has a tag, so that a client that has it already is spared it.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use sha2::{Digest, Sha256};

use super::{files, xml};
use crate::encoding::Face;

/// Most bytes of documents that are kept.
const MAX_BYTES: usize = 64 << 20;
/// Most documents that are kept.
const MAX_DOCUMENTS: usize = 10_000;
/// Longest key of a document that is kept, in bytes.
const MAX_KEY: usize = 4096;

/// What a document is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Key {
    /// The capabilities under this address.
    Capabilities(String),
    /// The descriptions of these processes.
    Some(Vec<String>),
    /// Those of all.
    All,
}

impl Key {
    fn len(&self) -> usize {
        match self {
            Self::Capabilities(url) => url.len(),
            Self::Some(names) => names.iter().map(|name| name.len() + 1).sum(),
            Self::All => 0,
        }
    }
}

/// A document with its tag. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Document {
    bytes: Bytes,
    tag: HeaderValue,
}

impl Document {
    fn new(text: String) -> Self {
        let digest = Sha256::digest(text.as_bytes());
        let tag: String = digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        let tag = HeaderValue::from_str(&format!("\"{tag}\"")).unwrap_or(HeaderValue::from_static("\"\""));
        Self { bytes: Bytes::from(text), tag }
    }

    /// The answer to a client; without the document if it says that it has it.
    pub(super) fn answer(self, asked: &HeaderMap) -> Response {
        let known = self.tag.to_str().is_ok_and(|tag| files::is_known(asked, tag));
        let mut response = xml(if known { Body::empty() } else { Body::from(self.bytes) });
        if known {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
        }
        response.headers_mut().insert(header::ETAG, self.tag);
        // It may be kept, but is asked for each time: processes come and go.
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        response
    }
}

/// The documents of one version of the catalogue.
#[derive(Debug, Default)]
pub(super) struct Cache(Mutex<Cached>);

#[derive(Debug, Default)]
struct Cached {
    version: u64,
    bytes: usize,
    documents: HashMap<(Face, Key), Document>,
}

impl Cache {
    /// The document for this key, made anew if the catalogue has changed.
    pub(super) fn get(&self, face: Face, version: u64, key: Key, make: impl FnOnce() -> String) -> Document {
        let key = (face, key);
        {
            let cached = self.lock();
            if cached.version == version
                && let Some(document) = cached.documents.get(&key)
            {
                return document.clone();
            }
        }
        // Made without the lock: others need not wait for it.
        let document = Document::new(make());
        let mut cached = self.lock();
        // A slow maker must not put an old document over a newer one.
        if cached.version < version {
            *cached = Cached { version, ..Cached::default() };
        }
        if cached.version == version && key.1.len() <= MAX_KEY {
            let size = document.bytes.len() + key.1.len();
            if cached.bytes + size > MAX_BYTES || cached.documents.len() == MAX_DOCUMENTS {
                // Which of them are wanted will show again soon.
                *cached = Cached { version, ..Cached::default() };
            }
            if size <= MAX_BYTES && cached.documents.insert(key, document.clone()).is_none() {
                cached.bytes += size;
            }
        }
        document
    }

    fn lock(&self) -> MutexGuard<'_, Cached> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}
