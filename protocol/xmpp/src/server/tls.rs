//! The server's certificate: given as files, or made once and kept in a folder. Knows rustls and rcgen.

use super::accounts::write_private;
use rcgen::{CertificateParams, DnType, KeyPair};
use rustls::ServerConfig;
use rustls::client::verify_server_name;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::ParsedCertificate;
use sha2::{Digest, Sha256};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const CERTIFICATE_FILE: &str = "xmpp-certificate.pem";
const KEY_FILE: &str = "xmpp-key.pem";

/// Where the server's certificate comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Certificate {
    /// Made for the server's domain at the first start, signed by itself, kept in this folder (`xmpp-certificate.pem`,
    /// and `xmpp-key.pem`, which only its owner can read) and used again later. Clients take the first file as their
    /// CA file, or pin the fingerprint.
    Generated {
        /// Created if necessary.
        folder: PathBuf,
    },
    /// PEM files: the certificate followed by intermediates, and its key.
    Files {
        /// Certificate chain.
        certificate: PathBuf,
        /// Private key.
        key: PathBuf,
    },
}

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file could not be written or its folder not created.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A file could not be read as PEM.
    #[error("cannot read the PEM file {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: pem::Error,
    },
    /// The certificate could not be made.
    #[error("cannot make a certificate for `{domain}`")]
    Make {
        /// The server's domain.
        domain: String,
        /// Why.
        source: rcgen::Error,
    },
    /// Certificate and key do not fit, or TLS cannot use them.
    #[error("cannot use the certificate {}", path.display())]
    Use {
        /// The certificate's file.
        path: PathBuf,
        /// Why.
        source: rustls::Error,
    },
}

/// A certificate ready for use.
#[derive(Clone)]
pub(super) struct Identity {
    pub(super) config: Arc<ServerConfig>,
    pub(super) sha256: [u8; 32],
    pub(super) file: PathBuf,
}

pub(super) fn identity(certificate: &Certificate, domain: &str) -> Result<Identity, CertificateError> {
    match certificate {
        Certificate::Files { certificate, key } => {
            let (identity, fits) = load(certificate, key, domain)?;
            if !fits {
                tracing::warn!(
                    file = %certificate.display(),
                    "the certificate does not carry the XMPP domain {domain}: clients will refuse it unless they pin it"
                );
            }
            Ok(identity)
        }
        Certificate::Generated { folder } => {
            let (certificate, key) = (folder.join(CERTIFICATE_FILE), folder.join(KEY_FILE));
            if certificate.exists() && key.exists() {
                let (identity, fits) = load(&certificate, &key, domain)?;
                if fits {
                    return Ok(identity);
                }
                tracing::warn!(file = %certificate.display(), "making a new certificate: the old one is not for {domain}");
            }
            make(folder, &certificate, &key, domain)?;
            Ok(load(&certificate, &key, domain)?.0)
        }
    }
}

fn make(folder: &Path, certificate: &Path, key: &Path, domain: &str) -> Result<(), CertificateError> {
    let failed = |source| CertificateError::Make { domain: domain.to_owned(), source };
    let mut names = vec![domain.to_owned(), format!("conference.{domain}")];
    if domain != "localhost" {
        names.push("localhost".to_owned());
    }
    let mut params = CertificateParams::new(names).map_err(failed)?;
    // Fixed dates, because a certificate that people copy by hand should not end by itself, and before 2050, because
    // ejabberd stumbles over the years after it.
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(2049, 12, 31);
    params.distinguished_name.push(DnType::CommonName, domain);
    let pair = KeyPair::generate().map_err(failed)?;
    let made = params.self_signed(&pair).map_err(failed)?;
    let unwritable = |path: &Path| {
        let path = path.to_owned();
        move |source| CertificateError::Write { path, source }
    };
    std::fs::create_dir_all(folder).map_err(unwritable(folder))?;
    write_private(key, pair.serialize_pem().as_bytes()).map_err(unwritable(key))?;
    // The certificate is public: it is what administrators copy to the clients.
    std::fs::write(certificate, made.pem()).map_err(unwritable(certificate))
}

fn load(certificate: &Path, key: &Path, domain: &str) -> Result<(Identity, bool), CertificateError> {
    let unreadable = |path: &Path| {
        let path = path.to_owned();
        move |source| CertificateError::Read { path, source }
    };
    let chain = CertificateDer::pem_file_iter(certificate)
        .map_err(unreadable(certificate))?
        .collect::<Result<Vec<_>, _>>()
        .map_err(unreadable(certificate))?;
    let leaf = chain.first().ok_or(pem::Error::NoItemsFound).map_err(unreadable(certificate))?.clone();
    let private = PrivateKeyDer::from_pem_file(key).map_err(unreadable(key))?;
    let unusable = |source| CertificateError::Use { path: certificate.to_owned(), source };
    let fits = ParsedCertificate::try_from(&leaf).is_ok_and(|parsed| {
        ServerName::try_from(domain).is_ok_and(|name| verify_server_name(&parsed, &name).is_ok())
    });
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(unusable)?
        .with_no_client_auth()
        .with_single_cert(chain, private)
        .map_err(unusable)?;
    let sha256 = Sha256::digest(&leaf).into();
    Ok((Identity { config: Arc::new(config), sha256, file: certificate.to_owned() }, fits))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generated_certificate_is_kept_and_its_key_private() {
        let folder = tempfile::tempdir().unwrap();
        let certificate = Certificate::Generated { folder: folder.path().join("tls") };
        let first = identity(&certificate, "xmpp.test").unwrap();
        let again = identity(&certificate, "xmpp.test").unwrap();
        assert_eq!(first.sha256, again.sha256);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let key = std::fs::metadata(folder.path().join("tls").join(KEY_FILE)).unwrap();
            assert_eq!(key.permissions().mode() & 0o777, 0o600);
        }
        let other = identity(&certificate, "other.test").unwrap();
        assert_ne!(
            first.sha256, other.sha256,
            "a certificate for another domain would be refused by every client"
        );
    }

    #[test]
    fn broken_files_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let (certificate, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
        let given = Certificate::Files { certificate: certificate.clone(), key };
        let name = |error: CertificateError| error.to_string();
        assert!(name(identity(&given, "x").err().unwrap()).contains("cert.pem"));
        std::fs::write(&certificate, "no pem").unwrap();
        assert!(name(identity(&given, "x").err().unwrap()).contains("cert.pem"));
    }
}
