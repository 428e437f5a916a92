//! Callers as requests bring them: each proof, right and wrong, and an OpenID Connect issuer that is really asked.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::routing::get;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

use super::*;

const NOW: Timestamp = Timestamp(1_000_000);

fn start(folder: &Path, change: impl FnOnce(&mut AccessConfig)) -> Access {
    let mut config = AccessConfig {
        rules: Rules::new(vec![Role::user("staff")], BTreeMap::new(), Catalog::Hide, None),
        users_file: folder.join("users"),
        tokens_file: folder.join("tokens"),
        ..AccessConfig::default()
    };
    change(&mut config);
    Access::new(config, [1; 32], Some("the-local-secret".to_owned())).expect("access")
}

async fn ask(access: &Access, authorization: &str) -> Result<Caller, Denied> {
    let peer = Some(IpAddr::from([192, 0, 2, 7]));
    let presented = Presented { authorization: Some(authorization), peer, ..Presented::default() };
    access.identify(&presented, NOW).await
}

fn basic_text(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

#[tokio::test]
async fn passwords_tokens_and_the_local_secret_name_a_caller() {
    let folder = tempfile::tempdir().expect("a folder");
    let access = start(folder.path(), |_| {});
    let roles = Some(vec!["staff".to_owned(), "unheard of".to_owned()]);
    users::set(&folder.path().join("users"), "ann", Some("correct horse"), roles).expect("a user");
    let ann = ask(&access, &basic_text("ann", "correct horse")).await.expect("ann");
    assert_eq!((ann.user.0.as_str(), ann.role_names(), ann.proof), ("ann", vec!["staff"], Proof::Password));
    assert!(!ann.is_operator());

    let new = tokens::NewToken {
        name: "cron".to_owned(),
        user: "ann".to_owned(),
        roles: vec![],
        usage: tokens::Use::Read,
        expires: None,
    };
    let (_, text) = tokens::create(&folder.path().join("tokens"), new, NOW).expect("a token");
    let by_token = ask(&access, &format!("bearer {text}")).await.expect("ann's token");
    assert_eq!((by_token.user.0.as_str(), by_token.role_names()), ("ann", vec!["staff"]));
    assert_eq!(by_token.scope, Scope::READ);

    let local = ask(&access, "Bearer the-local-secret").await.expect("whoever can read the file");
    assert!(local.is_operator() && local.sees_all());
    assert_eq!(access.challenges(), ["Bearer realm=\"WPS\"", "Basic realm=\"WPS\", charset=\"UTF-8\""]);
}

#[tokio::test]
async fn what_proves_nothing_is_refused_and_guessing_is_braked() {
    let folder = tempfile::tempdir().expect("a folder");
    let access = start(folder.path(), |_| {});
    users::set(&folder.path().join("users"), "ann", Some("correct horse"), None).expect("a user");
    let none = access.identify(&Presented::default(), NOW).await;
    assert_eq!(none.expect_err("nobody"), Denied::NotLoggedIn);
    let wrong = [
        basic_text("ann", "wrong horse"),
        basic_text("bob", "correct horse"),
        "Basic !!!".to_owned(),
        format!("Basic {}", STANDARD.encode("no colon")),
        "Bearer x.y.z".to_owned(),
        "Bearer wpst_0123456789abcdefghijkl".to_owned(),
        "Digest username=ann".to_owned(),
        String::new(),
    ];
    for authorization in &wrong {
        assert!(matches!(ask(&access, authorization).await, Err(Denied::Wrong(_))), "{authorization}");
    }
    for _ in 0..2 {
        assert!(matches!(ask(&access, &wrong[0]).await, Err(Denied::Wrong(_))));
    }
    // From here on nothing is looked at, right or wrong, but for the operator on the host itself.
    let right = basic_text("ann", "correct horse");
    assert!(matches!(ask(&access, &right).await, Err(Denied::TooMany { seconds: 1.., .. })));
    assert!(ask(&access, "Bearer the-local-secret").await.is_ok());
    let elsewhere = Presented {
        authorization: Some(&right),
        peer: Some(IpAddr::from([192, 0, 2, 8])),
        ..Presented::default()
    };
    assert!(access.identify(&elsewhere, NOW).await.is_ok());
}

#[tokio::test]
async fn a_proxy_is_believed_only_if_it_is_listed() {
    let folder = tempfile::tempdir().expect("a folder");
    let proxy = IpAddr::from([10, 0, 0, 1]);
    let access = start(folder.path(), |config| {
        config.proxies = vec![proxy];
        config.user_header = Some("X-Remote-User".to_owned());
    });
    let from = |peer, user, roles| Presented {
        proxy_user: Some(user),
        proxy_roles: roles,
        peer: Some(peer),
        ..Presented::default()
    };
    let ann =
        access.identify(&from(proxy, "ann", Some("staff, other")), NOW).await.expect("the proxy's word");
    assert_eq!((ann.user.0.as_str(), ann.role_names(), ann.proof), ("ann", vec!["staff"], Proof::Proxy));
    let nobody = access.identify(&from(proxy, "ann", None), NOW).await.expect("without roles");
    assert_eq!(nobody.role_names(), [USER]);
    let stranger = access.identify(&from(IpAddr::from([10, 0, 0, 2]), "ann", None), NOW).await;
    assert_eq!(stranger.expect_err("not listed"), Denied::NotLoggedIn);
    let evil = access.identify(&from(proxy, "anonymous", None), NOW).await;
    assert!(matches!(evil, Err(Denied::Wrong(_))));
}

/// An issuer with one key after another, on a free port.
struct Issuer {
    url: String,
    key: rcgen::KeyPair,
    asked: Arc<AtomicUsize>,
    _server: tokio::task::JoinHandle<()>,
}

impl Issuer {
    async fn start() -> Self {
        let key = rcgen::KeyPair::generate().expect("a key");
        let point = key.public_key_raw().to_vec();
        let jwks = json!({"keys": [{
            "kty": "EC", "crv": "P-256", "kid": "k1", "use": "sig", "alg": "ES256",
            "x": URL_SAFE_NO_PAD.encode(&point[1..33]), "y": URL_SAFE_NO_PAD.encode(&point[33..65]),
        }]});
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}/realm", listener.local_addr().expect("an address"));
        let asked = Arc::new(AtomicUsize::new(0));
        let document = json!({"issuer": url, "jwks_uri": format!("{url}/keys")}).to_string();
        let counter = asked.clone();
        let app = Router::new()
            .route("/realm/.well-known/openid-configuration", get(move || async move { document }))
            .route(
                "/realm/keys",
                get(move || async move {
                    counter.fetch_add(1, Ordering::SeqCst);
                    jwks.to_string()
                }),
            );
        let server = tokio::spawn(async move {
            axum::serve(listener, app).await.expect("served");
        });
        Self { url, key, asked, _server: server }
    }

    fn token(&self, kid: &str, change: impl FnOnce(&mut Value)) -> String {
        let end = jiff::Timestamp::now().as_second() + 600;
        let mut claims =
            json!({"iss": self.url, "aud": "wps", "sub": "ann", "exp": end, "roles": ["geo-staff"]});
        change(&mut claims);
        let header = Header { kid: Some(kid.to_owned()), ..Header::new(Algorithm::ES256) };
        let key = EncodingKey::from_ec_der(&self.key.serialize_der());
        let token = jsonwebtoken::encode(&header, &claims, &key).expect("a token");
        format!("Bearer {token}")
    }

    fn config(&self) -> OpenIdConfig {
        OpenIdConfig {
            issuer: self.url.clone(),
            audience: vec!["wps".to_owned()],
            user_claim: "sub".to_owned(),
            roles_claim: "roles".to_owned(),
            role_names: BTreeMap::from([("geo-staff".to_owned(), "staff".to_owned())]),
        }
    }
}

#[tokio::test]
async fn tokens_of_the_issuer_name_a_caller_and_forged_ones_do_not() {
    let folder = tempfile::tempdir().expect("a folder");
    let issuer = Issuer::start().await;
    let access = start(folder.path(), |config| config.open_id = Some(issuer.config()));
    let ann = ask(&access, &issuer.token("k1", |_| {})).await.expect("a good token");
    assert_eq!((ann.user.0.as_str(), ann.role_names(), ann.proof), ("ann", vec!["staff"], Proof::OpenId));
    type Change = fn(&mut Value);
    let wrong: [(&str, Change); 5] = [
        ("expired", |claims| claims["exp"] = json!(1_000)),
        ("another issuer", |claims| claims["iss"] = json!("https://evil.example")),
        ("another audience", |claims| claims["aud"] = json!("mail")),
        ("no audience", |claims| claims["aud"] = Value::Null),
        ("no user", |claims| claims["sub"] = json!("a b")),
    ];
    for (what, change) in wrong {
        let denied = ask(&access, &issuer.token("k1", change)).await.expect_err(what);
        assert!(matches!(denied, Denied::Wrong(_)), "{what}: {denied}");
    }
    let impostor = Issuer { key: rcgen::KeyPair::generate().expect("a key"), ..Issuer::start().await };
    let forged = Issuer { url: issuer.url.clone(), ..impostor }.token("k1", |_| {});
    assert!(matches!(ask(&access, &forged).await, Err(Denied::Wrong(_))), "signed by somebody else");
    // Made-up names of keys do not make us ask the issuer again and again.
    for n in 0..3 {
        let unknown = issuer.token(&format!("made-up-{n}"), |_| {});
        assert!(ask(&access, &unknown).await.is_err());
    }
    assert_eq!(issuer.asked.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn an_issuer_that_is_away_is_no_fault_of_the_token() {
    let folder = tempfile::tempdir().expect("a folder");
    let issuer = Issuer::start().await;
    let mut config = issuer.config();
    // A port that was free a moment ago.
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
    config.issuer = format!("http://{free}");
    let access = start(folder.path(), |c| c.open_id = Some(config));
    assert_eq!(ask(&access, &issuer.token("k1", |_| {})).await.expect_err("away"), Denied::Unavailable);
}

#[test]
fn the_key_of_the_installation_is_made_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("share-key");
    let first = installation_key(&path).expect("made");
    assert_eq!(installation_key(&path).expect("kept"), first);
    let one = local_secret(&folder.path().join("token")).expect("made");
    assert_ne!(local_secret(&folder.path().join("token")).expect("made anew"), one);
}
