//! HTTPS: a certificate and its key from files, exchanged for newer ones while connections are open. A pair that cannot be
//! used never replaces one that works. Knows no HTTP.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{ClientHello, ParsedCertificate, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use thiserror::Error;
use tokio_util::sync::CancellationToken;
use x509_parser::prelude::{FromDer, X509Certificate};

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(5);

/// Where certificate and key are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate, followed by those between it and an authority, in PEM.
    pub certificate: PathBuf,
    /// Its private key in PEM.
    pub key: PathBuf,
}

/// Why HTTPS cannot be served.
#[derive(Debug, Error)]
pub enum TlsError {
    /// A file is not there, not ours to read, or no PEM.
    #[error("[http] {what} {path} cannot be read: {source}")]
    Read {
        /// `certificate` or `key`.
        what: &'static str,
        /// Which file.
        path: PathBuf,
        /// Why.
        source: pem::Error,
    },
    /// A PEM file without what is needed of it.
    #[error("[http] {what} {path} holds no {what} in PEM (-----BEGIN …)")]
    Empty {
        /// `certificate` or `key`.
        what: &'static str,
        /// Which file.
        path: PathBuf,
    },
    /// Certificate and key belong to different pairs.
    #[error("[http] key {key} is not the key of the certificate {certificate}")]
    Mismatch {
        /// Which certificate.
        certificate: PathBuf,
        /// Which key.
        key: PathBuf,
    },
    /// Of a kind that TLS cannot use here.
    #[error("[http] certificate {path} cannot be used: {source}")]
    Use {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: rustls::Error,
    },
}

/// What a certificate says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// First second that it is valid, since 1970.
    pub from_s: i64,
    /// Last second that it is valid, since 1970.
    pub until_s: i64,
    /// Whether everybody on this host can read the key.
    pub key_is_public: bool,
    leaf: CertificateDer<'static>,
}

impl Facts {
    /// Whether clients that ask for this host accept the certificate's names.
    pub fn is_for(&self, host: &str) -> bool {
        let host = host.trim_matches(['[', ']']);
        ParsedCertificate::try_from(&self.leaf).is_ok_and(|parsed| {
            ServerName::try_from(host)
                .is_ok_and(|name| rustls::client::verify_server_name(&parsed, &name).is_ok())
        })
    }
}

/// What tells one version of the files from the next.
type Stamp = [Option<(i64, i64, u64, u64)>; 2];

fn stamp(files: &TlsFiles) -> Stamp {
    let of = |metadata: Metadata| (metadata.mtime(), metadata.mtime_nsec(), metadata.ino(), metadata.len());
    [&files.certificate, &files.key].map(|path| std::fs::metadata(path).ok().map(of))
}

/// The pair in use. Handshakes that begin after a change get the new one.
#[derive(Debug)]
pub struct Identity {
    files: TlsFiles,
    pair: RwLock<Arc<CertifiedKey>>,
    tried: Mutex<Stamp>,
}

impl Identity {
    /// Reads the files.
    ///
    /// # Errors
    /// See [`TlsError`]; each names the file and what is wrong with it.
    pub fn open(files: &TlsFiles) -> Result<Arc<Self>, TlsError> {
        let tried = stamp(files);
        let (pair, facts) = load(files)?;
        complain(files, &facts);
        Ok(Arc::new(Self {
            files: files.clone(),
            pair: RwLock::new(Arc::new(pair)),
            tried: Mutex::new(tried),
        }))
    }

    /// Settings of the server's side of TLS 1.2 and 1.3.
    ///
    /// # Errors
    /// [`TlsError::Use`].
    pub fn server_config(self: &Arc<Self>) -> Result<Arc<ServerConfig>, TlsError> {
        let path = || self.files.certificate.clone();
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|source| TlsError::Use { path: path(), source })?
            .with_no_client_auth()
            .with_cert_resolver(self.clone());
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }

    /// Reads the files again; without success the pair in use stays.
    pub fn reload(&self) {
        *self.tried.lock().unwrap_or_else(PoisonError::into_inner) = stamp(&self.files);
        match load(&self.files) {
            Ok((pair, facts)) => {
                complain(&self.files, &facts);
                let mut current = self.pair.write().unwrap_or_else(PoisonError::into_inner);
                if current.cert != pair.cert {
                    tracing::info!(certificate = %self.files.certificate.display(), "new connections get a new certificate");
                }
                *current = Arc::new(pair);
            }
            Err(error) => tracing::error!("the certificate in use stays: {error}"),
        }
    }

    /// Reads the files again whenever they have changed and come to rest; ends with the token.
    pub async fn follow(self: Arc<Self>, shutdown: CancellationToken) {
        let mut seen = stamp(&self.files);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(LOOK) => {}
            }
            // Two files are never replaced in one moment: a pair counts when it has not changed since the last look.
            let now = stamp(&self.files);
            let rests = now == seen;
            seen = now;
            let tried = *self.tried.lock().unwrap_or_else(PoisonError::into_inner);
            if rests && now != tried {
                self.reload();
            }
        }
    }
}

impl ResolvesServerCert for Identity {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.pair.read().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

/// What the files hold, without using it.
///
/// # Errors
/// See [`TlsError`].
pub fn examine(files: &TlsFiles) -> Result<Facts, TlsError> {
    load(files).map(|(_, facts)| facts)
}

fn load(files: &TlsFiles) -> Result<(CertifiedKey, Facts), TlsError> {
    let unreadable = |what, path: &Path| {
        let path = path.to_owned();
        move |source| match source {
            pem::Error::NoItemsFound => TlsError::Empty { what, path },
            source => TlsError::Read { what, path, source },
        }
    };
    let (certificate, key) = (&files.certificate, &files.key);
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect)
        .map_err(unreadable("certificate", certificate))?;
    let leaf = chain
        .first()
        .ok_or(pem::Error::NoItemsFound)
        .map_err(unreadable("certificate", certificate))?
        .clone();
    let private = PrivateKeyDer::from_pem_file(key).map_err(unreadable("key", key))?;
    let unusable = |source| match source {
        rustls::Error::InconsistentKeys(_) => {
            TlsError::Mismatch { certificate: certificate.clone(), key: key.clone() }
        }
        source => TlsError::Use { path: certificate.clone(), source },
    };
    let pair = CertifiedKey::from_der(chain, private, &ring::default_provider()).map_err(unusable)?;
    let damaged = |_| TlsError::Use {
        path: certificate.clone(),
        source: rustls::Error::InvalidCertificate(rustls::CertificateError::BadEncoding),
    };
    let (from_s, until_s) = {
        let (_, parsed) = X509Certificate::from_der(&leaf).map_err(damaged)?;
        let validity = parsed.validity();
        (validity.not_before.timestamp(), validity.not_after.timestamp())
    };
    let key_is_public = std::fs::metadata(key).is_ok_and(|metadata| metadata.mode() & 0o004 != 0);
    Ok((pair, Facts { from_s, until_s, key_is_public, leaf }))
}

fn complain(files: &TlsFiles, facts: &Facts) {
    if facts.key_is_public {
        tracing::warn!(key = %files.key.display(), "everybody on this host can read the private key: chmod 640");
    }
    let now = i64::try_from(super::auth::now().0 / 1000).unwrap_or(i64::MAX);
    if now > facts.until_s || now < facts.from_s {
        tracing::warn!(certificate = %files.certificate.display(), "the certificate is not valid at this time: clients will refuse it");
    }
}

/// What a client is told that speaks plain HTTP where TLS is expected.
pub(super) const PLAIN_HTTP: &[u8] =
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nContent-Length: 31\r\n\
Connection: close\r\n\r\nThis address speaks HTTPS only.";

/// Whether what a client sends first begins a TLS handshake (RFC 8446 §5.1); nothing is taken off the stream.
pub(super) async fn begins_tls(stream: &tokio::net::TcpStream) -> io::Result<bool> {
    let mut first = [0];
    match stream.peek(&mut first).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(first[0] == 0x16),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write_pair(folder: &Path, name: &str) -> TlsFiles {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned(), "127.0.0.1".to_owned()]);
        let made = made.expect("a certificate can be made");
        let files = TlsFiles {
            certificate: folder.join(format!("{name}.crt")),
            key: folder.join(format!("{name}.key")),
        };
        std::fs::write(&files.certificate, made.cert.pem()).expect("written");
        std::fs::write(&files.key, made.signing_key.serialize_pem()).expect("written");
        files
    }

    #[test]
    fn each_fault_of_the_files_names_the_file_and_what_is_wrong() {
        let folder = tempfile::tempdir().expect("a folder");
        let good = write_pair(folder.path(), "good");
        let other = write_pair(folder.path(), "other");
        let said = |certificate: &Path, key: &Path| {
            let files = TlsFiles { certificate: certificate.to_owned(), key: key.to_owned() };
            examine(&files).expect_err("no pair").to_string()
        };
        let missing = folder.path().join("missing.pem");
        let text = said(&missing, &good.key);
        assert!(text.starts_with("[http] certificate") && text.contains("missing.pem"), "{text}");
        let text = said(&good.certificate, &missing);
        assert!(text.starts_with("[http] key") && text.contains("missing.pem"), "{text}");
        let text = said(&good.key, &good.key);
        assert!(text.contains("good.key holds no certificate"), "{text}");
        let text = said(&good.certificate, &good.certificate);
        assert!(text.contains("good.crt holds no key"), "{text}");
        let text = said(&good.certificate, &other.key);
        assert!(text.contains("is not the key of the certificate"), "{text}");
        let facts = examine(&good).expect("a pair");
        assert!(facts.is_for("localhost") && facts.is_for("127.0.0.1") && !facts.is_for("example.org"));
        assert!(facts.from_s < facts.until_s);
    }

    #[test]
    fn a_broken_pair_never_replaces_a_good_one() {
        let folder = tempfile::tempdir().expect("a folder");
        let files = write_pair(folder.path(), "pair");
        let identity = Identity::open(&files).expect("a pair");
        let current = || identity.pair.read().expect("readable").cert.clone();
        let first = current();
        std::fs::write(&files.key, "no key").expect("written");
        identity.reload();
        assert_eq!(current(), first);
        write_pair(folder.path(), "pair");
        identity.reload();
        assert_ne!(current(), first);
    }

    #[test]
    fn the_words_for_plain_http_have_the_length_that_they_announce() {
        let text = std::str::from_utf8(PLAIN_HTTP).expect("text");
        let (head, body) = text.split_once("\r\n\r\n").expect("a head");
        assert!(head.contains(&format!("Content-Length: {}", body.len())), "{}", body.len());
    }
}
