//! Whom a client trusts: settings, and the certificates they name. Knows files and PEM; the decision about a
//! handshake is in `tls`.

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::{self, PemObject};
use std::path::{Path, PathBuf};

/// Where systems keep the certificates of public authorities, tried in this order after `SSL_CERT_FILE`.
const SYSTEM_BUNDLES: &[&str] =
    &["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

/// Which server certificates are accepted. The default trusts the public authorities that the system knows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trust {
    /// PEM file of authorities; a certificate that lies in this file itself is accepted too, so that a self-signed
    /// server certificate can simply be copied over.
    pub ca_file: Option<PathBuf>,
    /// SHA-256 of the server's certificate (DER): exactly this one is accepted, whatever its name or age.
    pub pin_sha256: Option<[u8; 32]>,
    /// The name that the certificate must carry, instead of the JID's domain.
    pub server_name: Option<String>,
    /// Accept anything. A warning is logged at each connect.
    pub insecure: bool,
}

/// Why trust settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// A certificate file could not be read.
    #[error("cannot read the certificates in {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: pem::Error,
    },
    /// A certificate file without certificates.
    #[error("{} contains no certificate (expected PEM: -----BEGIN CERTIFICATE-----)", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// Nothing is configured and the system has no bundle at the usual places.
    #[error("no certificates to trust: set a CA file or a pin, or install the system's ca-certificates")]
    NoSystemRoots,
    /// Not 32 bytes in hexadecimal.
    #[error("`{text}` is not a SHA-256 fingerprint: expected 64 hexadecimal digits")]
    Pin {
        /// As configured.
        text: String,
    },
    /// The TLS library refused the settings.
    #[error("the TLS library refused the settings")]
    Tls(#[from] rustls::Error),
}

impl Trust {
    /// Trust in the certificates of a file.
    pub fn ca_file(path: impl Into<PathBuf>) -> Self {
        Self { ca_file: Some(path.into()), ..Self::default() }
    }

    /// Trust in one certificate by its SHA-256.
    pub fn pin(sha256: [u8; 32]) -> Self {
        Self { pin_sha256: Some(sha256), ..Self::default() }
    }

    /// Trust in anyone.
    pub fn insecure() -> Self {
        Self { insecure: true, ..Self::default() }
    }

    /// Reads a fingerprint: 64 hexadecimal digits, colons allowed (as `openssl x509 -fingerprint` prints them).
    ///
    /// # Errors
    /// [`TrustError::Pin`].
    pub fn parse_pin(text: &str) -> Result<[u8; 32], TrustError> {
        let wrong = || TrustError::Pin { text: text.to_owned() };
        let digits: Vec<u8> = text
            .chars()
            .filter(|c| !matches!(c, ':' | ' '))
            .map(|c| c.to_digit(16).map(|d| d as u8))
            .collect::<Option<_>>()
            .ok_or_else(wrong)?;
        let bytes: Vec<u8> =
            digits.chunks(2).map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | digit)).collect();
        if digits.len() != 64 {
            return Err(wrong());
        }
        bytes.try_into().map_err(|_| wrong())
    }

    /// The certificates that the settings lead to, and whether each may also be the server's own.
    pub(super) fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, TrustError> {
        if let Some(path) = &self.ca_file {
            return read(path);
        }
        let from_environment = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
        let candidates = from_environment.into_iter().chain(SYSTEM_BUNDLES.iter().map(PathBuf::from));
        match candidates.into_iter().find(|path| path.is_file()) {
            Some(path) => read(&path),
            None => Err(TrustError::NoSystemRoots),
        }
    }
}

fn read(path: &Path) -> Result<Vec<CertificateDer<'static>>, TrustError> {
    let failed = |source| TrustError::Read { path: path.to_owned(), source };
    let certificates = CertificateDer::pem_file_iter(path)
        .map_err(failed)?
        .collect::<Result<Vec<_>, _>>()
        .map_err(failed)?;
    if certificates.is_empty() {
        return Err(TrustError::Empty { path: path.to_owned() });
    }
    Ok(certificates)
}
