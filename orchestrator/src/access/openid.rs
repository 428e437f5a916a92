//! OpenID Connect: finds the issuer's keys (OpenID Connect Discovery 1.0 §4), checks its tokens (RFC 7519) and turns their
//! claims into a user and roles. Asks nobody else: a token is judged by its signature alone.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde_json::Value;
use tokio::sync::Mutex;
use url::Url;

use crate::references::{Nowhere, Policy, Reference, References};

/// How long keys count as fresh.
const FRESH: Duration = Duration::from_secs(3600);
/// Shortest pause between two questions for keys: a stranger's token with a made-up key must not make us ask.
const PAUSE: Duration = Duration::from_secs(30);
/// Largest document of the issuer, in bytes.
const MAX_DOCUMENT: u64 = 1 << 20;
/// Longest token that is looked at, in bytes.
const MAX_TOKEN: usize = 16 * 1024;
/// Clock difference that is forgiven, in seconds.
const LEEWAY_S: u64 = 60;
/// What is accepted as signature: never `none`, and nothing with a shared secret.
const ALGORITHMS: &[Algorithm] = &[
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
];

/// What is known of the issuer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenIdConfig {
    /// Its URL, as it stands in its tokens.
    pub issuer: String,
    /// The audiences of which a token must name one.
    pub audience: Vec<String>,
    /// The claim that names the user.
    pub user_claim: String,
    /// The claim with the roles, dots leading into objects: `realm_access.roles`.
    pub roles_claim: String,
    /// What the issuer's roles are called here; a role that is not named keeps its name.
    pub role_names: BTreeMap<String, String>,
}

/// Checks tokens of one issuer.
#[derive(Debug)]
pub(super) struct OpenId {
    config: OpenIdConfig,
    references: References,
    keys: Mutex<Keys>,
}

#[derive(Debug, Default)]
struct Keys {
    set: Option<Arc<JwkSet>>,
    asked: Option<Instant>,
    /// Why the last question was not answered.
    failure: Option<String>,
}

/// Why a token is not accepted.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Rejection {
    /// It is wrong, or has expired.
    Wrong(String),
    /// The issuer cannot be asked for its keys.
    Issuer(String),
}

impl OpenId {
    pub(super) fn new(config: OpenIdConfig) -> Result<Self, String> {
        let url = Url::parse(&config.issuer).map_err(|error| format!("`{}`: {error}", config.issuer))?;
        let host = url.host_str().ok_or_else(|| format!("`{}` names no host", config.issuer))?;
        let local = host == "localhost"
            || host.trim_matches(['[', ']']).parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback());
        if url.scheme() != "https" && !local {
            return Err(format!("`{}` is not https: anybody on the way could make tokens", config.issuer));
        }
        let allow = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
        let mut policy = Policy::new(&[allow], &[]).map_err(|error| error.to_string())?;
        policy.max_bytes = MAX_DOCUMENT;
        policy.timeout = Duration::from_secs(15);
        Ok(Self { config, references: References::new(policy), keys: Mutex::default() })
    }

    /// The user and the roles that a token speaks for.
    pub(super) async fn check(&self, token: &str) -> Result<(String, Vec<String>), Rejection> {
        let wrong = |error: &dyn std::fmt::Display| Rejection::Wrong(error.to_string());
        if token.len() > MAX_TOKEN {
            return Err(wrong(&format!("it is longer than {MAX_TOKEN} bytes")));
        }
        let header = jsonwebtoken::decode_header(token).map_err(|error| wrong(&error))?;
        if !ALGORITHMS.contains(&header.alg) {
            return Err(wrong(&format!("signatures of the kind {:?} are not accepted", header.alg)));
        }
        let key = self.key(header.kid.as_deref()).await?;
        let mut validation = Validation::new(header.alg);
        validation.leeway = LEEWAY_S;
        validation.validate_nbf = true;
        validation.set_issuer(&[&self.config.issuer]);
        validation.set_audience(&self.config.audience);
        validation.set_required_spec_claims(&["exp", "iss", "aud"]);
        let decoded =
            jsonwebtoken::decode::<Value>(token, &key, &validation).map_err(|error| wrong(&error))?;
        self.identity(&decoded.claims).map_err(Rejection::Wrong)
    }

    fn identity(&self, claims: &Value) -> Result<(String, Vec<String>), String> {
        let named = claims.get(&self.config.user_claim).and_then(Value::as_str).unwrap_or_default();
        if !super::users::is_name(named) {
            return Err(format!("its claim `{}` is no user name", self.config.user_claim));
        }
        let pointer = format!("/{}", self.config.roles_claim.replace('.', "/"));
        let roles: Vec<&str> = match claims.pointer(&pointer) {
            Some(Value::Array(list)) => list.iter().filter_map(Value::as_str).collect(),
            Some(Value::String(text)) => text.split([' ', ',']).filter(|word| !word.is_empty()).collect(),
            _ => Vec::new(),
        };
        let rename = |role: &str| self.config.role_names.get(role).map_or(role, String::as_str).to_owned();
        Ok((named.to_owned(), roles.into_iter().map(rename).collect()))
    }

    /// The issuer's key of this name. Unknown names are asked for once in a while: issuers change their keys.
    async fn key(&self, kid: Option<&str>) -> Result<DecodingKey, Rejection> {
        let mut keys = self.keys.lock().await;
        let find = |set: &JwkSet| match kid {
            Some(kid) => set.find(kid).cloned(),
            None if set.keys.len() == 1 => set.keys.first().cloned(),
            None => None,
        };
        let fresh = keys.asked.is_some_and(|asked| asked.elapsed() < FRESH);
        let known = keys.set.as_deref().and_then(find);
        let may_ask = keys.asked.is_none_or(|asked| asked.elapsed() >= PAUSE);
        let jwk = if known.is_some() && fresh || !may_ask {
            known
        } else {
            keys.asked = Some(Instant::now());
            match self.fetch().await {
                Ok(set) => {
                    keys.failure = None;
                    keys.set = Some(Arc::new(set));
                }
                Err(why) => {
                    tracing::warn!(issuer = %self.config.issuer, why, "the issuer's keys cannot be fetched");
                    keys.failure = Some(why);
                }
            }
            // Keys that were good an hour ago are better than none while the issuer is away.
            keys.set.as_deref().and_then(find)
        };
        match (jwk, &keys.failure) {
            (Some(jwk), _) => {
                DecodingKey::from_jwk(&jwk).map_err(|error| Rejection::Wrong(error.to_string()))
            }
            (None, Some(why)) => Err(Rejection::Issuer(why.clone())),
            (None, None) => Err(Rejection::Wrong("the issuer has no such key".to_owned())),
        }
    }

    async fn fetch(&self) -> Result<JwkSet, String> {
        let issuer = self.config.issuer.trim_end_matches('/');
        let discovered = self.json(&format!("{issuer}/.well-known/openid-configuration")).await?;
        if discovered.get("issuer").and_then(Value::as_str) != Some(self.config.issuer.as_str()) {
            return Err(format!("the document of {issuer} is about another issuer"));
        }
        let url = discovered.get("jwks_uri").and_then(Value::as_str);
        let url = url.ok_or_else(|| format!("the document of {issuer} names no jwks_uri"))?;
        serde_json::from_value(self.json(url).await?).map_err(|error| format!("{url}: {error}"))
    }

    async fn json(&self, url: &str) -> Result<Value, String> {
        let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
        let target = folder.path().join("document");
        let reference = Reference { href: url.to_owned(), ..Reference::default() };
        self.references.fetch(&reference, &Nowhere, &target).await.map_err(|error| error.to_string())?;
        let bytes = tokio::fs::read(&target).await.map_err(|error| error.to_string())?;
        serde_json::from_slice(&bytes).map_err(|error| format!("{url}: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn open_id(roles_claim: &str) -> OpenId {
        let role_names = BTreeMap::from([("wps-admins".to_owned(), "operator".to_owned())]);
        OpenId::new(OpenIdConfig {
            issuer: "https://login.example.org".to_owned(),
            audience: vec!["wps".to_owned()],
            user_claim: "sub".to_owned(),
            roles_claim: roles_claim.to_owned(),
            role_names,
        })
        .expect("a good issuer")
    }

    #[test]
    fn claims_become_user_and_roles() {
        let claims = json!({"sub": "ann", "roles": "staff wps-admins", "realm": {"roles": ["a", "b", 3]}});
        let roles = |claim| open_id(claim).identity(&claims).expect("ann").1;
        assert_eq!(roles("roles"), ["staff", "operator"]);
        assert_eq!(roles("realm.roles"), ["a", "b"]);
        assert!(roles("none").is_empty());
        for sub in [json!(null), json!(""), json!("anonymous"), json!("a b"), json!(7)] {
            assert!(open_id("roles").identity(&json!({ "sub": sub })).is_err(), "{sub}");
        }
    }

    #[test]
    fn an_issuer_without_encryption_is_refused() {
        let mut config = open_id("roles").config;
        config.issuer = "http://login.example.org".to_owned();
        assert!(OpenId::new(config.clone()).expect_err("refused").contains("not https"));
        config.issuer = "http://127.0.0.1:9000/realm".to_owned();
        assert!(OpenId::new(config).is_ok());
    }

    #[tokio::test]
    async fn unsigned_and_shared_secret_tokens_are_refused_before_anybody_is_asked() {
        use base64::Engine;
        let encode = |text: &str| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(text);
        for algorithm in ["HS256", "HS512"] {
            let header = encode(&format!(r#"{{"alg":"{algorithm}","typ":"JWT"}}"#));
            let token = format!("{header}.{}.AAAA", encode(r#"{"sub":"ann"}"#));
            let rejection = open_id("roles").check(&token).await.expect_err("refused");
            assert!(
                matches!(&rejection, Rejection::Wrong(why) if why.contains("not accepted")),
                "{rejection:?}"
            );
        }
        let unsigned = format!("{}.{}.", encode(r#"{"alg":"none"}"#), encode(r#"{"sub":"ann"}"#));
        assert!(matches!(open_id("roles").check(&unsigned).await, Err(Rejection::Wrong(_))));
    }
}
