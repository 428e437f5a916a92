//! Which servers a connector accepts: real handshakes with the embedded server under certificates of every kind.

use super::*;
use crate::server::{Accounts, Certificate, Listen, Server, ServerConfig, start};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use std::path::PathBuf;
use tempfile::TempDir;

const DOMAIN: &str = "xmpp.test";
const TIMEOUTS: Timeouts =
    Timeouts { read_timeout: Duration::from_secs(10), response_timeout: Duration::from_secs(10) };

/// A server with a given certificate and key on free ports.
struct House {
    server: Server,
    folder: TempDir,
}

impl House {
    fn open(certificate: &str, key: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("cert.pem"), certificate).unwrap();
        std::fs::write(path("key.pem"), key).unwrap();
        let listen = |security| Listen { address: ([127, 0, 0, 1], 0).into(), security };
        let server = start(ServerConfig {
            certificate: Some(Certificate::Files { certificate: path("cert.pem"), key: path("key.pem") }),
            listen: vec![listen(Security::StartTls), listen(Security::DirectTls), listen(Security::Plain)],
            ..ServerConfig::new(DOMAIN, Accounts::new(path("accounts")).path())
        })
        .unwrap();
        Self { server, folder }
    }

    fn port(&self, security: Security) -> u16 {
        self.server.addresses().iter().find(|listen| listen.security == security).unwrap().address.port()
    }

    async fn try_open(&self, security: Security, trust: &Trust) -> Result<(), ConnectError> {
        let connector = Connector::tcp("127.0.0.1", self.port(security), security, trust)?;
        connector.open(DOMAIN, 1 << 20, TIMEOUTS).await.map(drop)
    }

    fn own(&self) -> PathBuf {
        self.folder.path().join("cert.pem")
    }
}

fn signed_by_itself(names: &[&str], ca: bool) -> (String, String) {
    let mut params = CertificateParams::new(names.iter().map(|n| n.to_string()).collect::<Vec<_>>()).unwrap();
    params.distinguished_name.push(DnType::CommonName, DOMAIN);
    if ca {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    }
    let key = KeyPair::generate().unwrap();
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

/// An authority, and a certificate that it signed for `name`.
fn signed_by_authority(name: &str) -> (String, String, String) {
    let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
    params.distinguished_name.push(DnType::CommonName, "authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let authority = params.self_signed(&key).unwrap().pem();
    let issuer = Issuer::new(params, key);
    let leaf_key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&leaf_key, &issuer).unwrap();
    (authority, leaf.pem(), leaf_key.serialize_pem())
}

#[tokio::test]
async fn a_certificate_that_lies_in_the_file_is_accepted_whatever_it_is() {
    // As `openssl req -x509` makes them: an authority that is its own subject, and one without alternative names.
    for (names, ca) in [(&[DOMAIN][..], true), (&[], true), (&[DOMAIN], false), (&[], false)] {
        let (certificate, key) = signed_by_itself(names, ca);
        let house = House::open(&certificate, &key);
        for security in [Security::StartTls, Security::DirectTls] {
            let result = house.try_open(security, &Trust::ca_file(house.own())).await;
            assert!(result.is_ok(), "{names:?} ca={ca} {security:?}: {result:?}");
        }
        let (other, _) = signed_by_itself(names, ca);
        let other_file = house.folder.path().join("other.pem");
        std::fs::write(&other_file, other).unwrap();
        let result = house.try_open(Security::DirectTls, &Trust::ca_file(other_file)).await;
        assert!(matches!(result, Err(ConnectError::Tls { .. })), "a stranger was accepted: {result:?}");
    }
}

#[tokio::test]
async fn an_authority_vouches_for_the_domain_and_no_other_name() {
    for (name, good) in [(DOMAIN, true), ("other.test", false)] {
        let (authority, certificate, key) = signed_by_authority(name);
        let house = House::open(&certificate, &key);
        let file = house.folder.path().join("authority.pem");
        std::fs::write(&file, authority).unwrap();
        let trust = Trust::ca_file(file);
        assert_eq!(house.try_open(Security::StartTls, &trust).await.is_ok(), good, "{name}");
        let renamed = Trust { server_name: Some("other.test".into()), ..trust };
        assert_eq!(house.try_open(Security::StartTls, &renamed).await.is_ok(), !good, "{name}");
    }
}

#[tokio::test]
async fn a_pin_accepts_one_certificate_and_insecure_accepts_all() {
    let (certificate, key) = signed_by_itself(&["whatever.test"], false);
    let house = House::open(&certificate, &key);
    let pin = house.server.certificate_sha256().unwrap();
    assert!(house.try_open(Security::DirectTls, &Trust::pin(pin)).await.is_ok());
    assert!(house.try_open(Security::DirectTls, &Trust::insecure()).await.is_ok());
    let wrong = house.try_open(Security::DirectTls, &Trust::pin([1; 32])).await;
    assert!(matches!(wrong, Err(ConnectError::Tls { .. })), "{wrong:?}");
    // The public authorities of the system know nothing of it.
    let public = house.try_open(Security::DirectTls, &Trust::default()).await;
    assert!(matches!(public, Err(ConnectError::Tls { .. } | ConnectError::Trust(_))), "{public:?}");
}

#[tokio::test]
async fn starttls_is_demanded_where_it_is_configured() {
    let (certificate, key) = signed_by_itself(&[DOMAIN], false);
    let house = House::open(&certificate, &key);
    let port = house.port(Security::Plain);
    let connector = Connector::tcp("127.0.0.1", port, Security::StartTls, &Trust::insecure()).unwrap();
    let result = connector.open(DOMAIN, 1 << 20, TIMEOUTS).await.map(drop);
    assert!(matches!(result, Err(ConnectError::NoStartTls { .. })), "{result:?}");
}

#[tokio::test]
async fn plain_connections_stay_on_this_machine() {
    let refused = Connector::tcp("192.0.2.1", 5222, Security::Plain, &Trust::default());
    assert!(matches!(refused, Err(ConnectError::PlainRefused { .. })));
    assert!(Connector::tcp("::1", 5222, Security::Plain, &Trust::default()).is_ok());
    let (certificate, key) = signed_by_itself(&[DOMAIN], false);
    let house = House::open(&certificate, &key);
    let by_name =
        Connector::tcp("localhost", house.port(Security::Plain), Security::Plain, &Trust::default()).unwrap();
    assert!(by_name.open(DOMAIN, 1 << 20, TIMEOUTS).await.is_ok());
}

#[test]
fn unusable_trust_settings_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let empty = folder.path().join("empty.pem");
    std::fs::write(&empty, "no certificate here").unwrap();
    let error = |trust: &Trust| Connector::tcp("h", 1, Security::DirectTls, trust).unwrap_err().to_string();
    assert!(error(&Trust::ca_file(&empty)).contains("empty.pem contains no certificate"));
    assert!(error(&Trust::ca_file(folder.path().join("missing.pem"))).contains("missing.pem"));
}

#[test]
fn pins_are_read_as_openssl_prints_them() {
    let plain = "00".repeat(31) + "ff";
    let mut expected = [0; 32];
    expected[31] = 0xff;
    assert_eq!(Trust::parse_pin(&plain).unwrap(), expected);
    let colons = ["00"; 31].join(":") + ":FF";
    assert_eq!(Trust::parse_pin(&colons).unwrap(), expected);
    for wrong in ["", "00", "zz", &"0".repeat(63), &"0".repeat(65), &"0".repeat(66)] {
        assert!(Trust::parse_pin(wrong).is_err(), "{wrong}");
    }
}
