//! The decision about a server's certificate: pin, else authorities, else the identical certificate.
//! Knows rustls; reads no files and opens no connections.

use super::trust::{Trust, TrustError};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use sha2::{Digest, Sha256};
use std::sync::Arc;

/// The client's TLS settings for `trust`, also for what is no XMPP.
///
/// # Errors
/// [`TrustError`] if the settings cannot be used.
///
/// The crypto provider is named explicitly: with a second one in the program the library's default would be
/// ambiguous and every handshake would fail.
pub fn client_config(trust: &Trust) -> Result<Arc<ClientConfig>, TrustError> {
    let provider = Arc::new(ring::default_provider());
    let verifier = Verifier { rule: rule(trust, &provider)?, provider: provider.clone() };
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    Ok(Arc::new(config))
}

fn rule(trust: &Trust, provider: &Arc<CryptoProvider>) -> Result<Rule, TrustError> {
    if let Some(pin) = trust.pin_sha256 {
        return Ok(Rule::Pin(pin));
    }
    if trust.insecure {
        return Ok(Rule::Anything);
    }
    let listed = trust.certificates()?;
    let mut roots = RootCertStore::empty();
    // A listed certificate that is no usable authority can still be the server's own.
    let (usable, _) = roots.add_parsable_certificates(listed.iter().cloned());
    let authorities = match usable {
        0 => None,
        _ => Some(
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone())
                .build()
                .map_err(|error| rustls::Error::General(error.to_string()))?,
        ),
    };
    // The system's bundle holds authorities only; there the identity rule would be pointless work.
    let own = if trust.ca_file.is_some() { listed } else { Vec::new() };
    Ok(Rule::Listed { authorities, own })
}

#[derive(Debug)]
enum Rule {
    Pin([u8; 32]),
    Anything,
    Listed { authorities: Option<Arc<WebPkiServerVerifier>>, own: Vec<CertificateDer<'static>> },
}

#[derive(Debug)]
struct Verifier {
    rule: Rule,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match &self.rule {
            Rule::Anything => Ok(ServerCertVerified::assertion()),
            Rule::Pin(pin) if Sha256::digest(leaf).as_slice() == pin => Ok(ServerCertVerified::assertion()),
            Rule::Pin(_) => Err(CertificateError::ApplicationVerificationFailure.into()),
            Rule::Listed { own, .. } if own.iter().any(|c| c.as_ref() == leaf.as_ref()) => {
                Ok(ServerCertVerified::assertion())
            }
            Rule::Listed { authorities: Some(authorities), .. } => {
                authorities.verify_server_cert(leaf, intermediates, name, ocsp, now)
            }
            Rule::Listed { authorities: None, .. } => Err(CertificateError::UnknownIssuer.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
