//! Who is asking, and what it may do: passwords, tokens, OpenID Connect, a trusted proxy's word, and the rules that turn a
//! caller into permissions. Knows no HTTP server: whoever asks hands over what a request presented.

mod audit;
mod file;
mod openid;
mod rules;
mod share;
mod throttle;
pub mod tokens;
pub mod users;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine;
use rand::TryRngCore;
use thiserror::Error;

pub use audit::Audit;
pub use openid::OpenIdConfig;
pub use rules::{Caller, Catalog, OPERATOR, Pattern, Proof, Role, Rules, Scope, USER, Verdict};
pub use share::Shares;
pub use throttle::source;

use crate::engine::job::{Timestamp, UserId};
use openid::{OpenId, Rejection};
use throttle::Throttle;
use tokens::Tokens;
use users::Users;

/// How callers prove who they are and what they may do then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessConfig {
    /// Roles and rules.
    pub rules: Rules,
    /// Shown by browsers that ask for a password.
    pub realm: String,
    /// File of users with passwords.
    pub users_file: PathBuf,
    /// File of tokens.
    pub tokens_file: PathBuf,
    /// Header in which a trusted proxy names the user.
    pub user_header: Option<String>,
    /// Header in which it names the user's roles, separated by commas.
    pub roles_header: Option<String>,
    /// Peers that may use those headers.
    pub proxies: Vec<IpAddr>,
    /// The issuer of OpenID Connect tokens.
    pub open_id: Option<OpenIdConfig>,
    /// File for deeds, besides the log.
    pub audit_file: Option<PathBuf>,
    /// Pages for which nobody needs to log in: of `health` and `metrics`.
    pub open_pages: Vec<String>,
    /// How long a signed link to results opens at most, in seconds.
    pub link_ttl_s: u64,
}

impl Default for AccessConfig {
    fn default() -> Self {
        Self {
            rules: Rules::default(),
            realm: "WPS".to_owned(),
            users_file: PathBuf::new(),
            tokens_file: PathBuf::new(),
            user_header: None,
            roles_header: None,
            proxies: Vec::new(),
            open_id: None,
            audit_file: None,
            open_pages: vec!["health".to_owned(), "metrics".to_owned()],
            link_ttl_s: 86_400,
        }
    }
}

/// What a request presents.
#[derive(Debug, Clone, Copy, Default)]
pub struct Presented<'a> {
    /// Its `Authorization`.
    pub authorization: Option<&'a str>,
    /// The user that the header of trusted proxies names.
    pub proxy_user: Option<&'a str>,
    /// The roles that the header of trusted proxies names.
    pub proxy_roles: Option<&'a str>,
    /// The other end of the connection.
    pub peer: Option<IpAddr>,
    /// The client itself, as far as trusted proxies tell; whoever guesses is braked by this address.
    pub client: Option<IpAddr>,
}

/// Why a caller is not served.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Denied {
    /// It must prove who it is.
    #[error("this service needs a login")]
    NotLoggedIn,
    /// What it proved with is wrong.
    #[error("{0}")]
    Wrong(String),
    /// Too many wrong attempts from its address.
    #[error("too many failed logins from {address}; try again in {seconds} s")]
    TooMany {
        /// The address.
        address: IpAddr,
        /// When the next attempt is looked at.
        seconds: u64,
    },
    /// Our own files, or the issuer, cannot be read.
    #[error("logins cannot be checked at this moment; the log says why")]
    Unavailable,
}

/// Why access cannot be set up.
#[derive(Debug, Error)]
pub enum AccessError {
    /// The issuer cannot be used.
    #[error("[openid] issuer {0}")]
    Issuer(String),
    /// A file says something wrong.
    #[error("{0}")]
    Content(String),
    /// A file of ours.
    #[error("{path}: {source}")]
    Io {
        /// Which.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
}

/// Identifies callers. Shared by all handlers.
#[derive(Debug)]
pub struct Access {
    config: AccessConfig,
    users: Users,
    tokens: Tokens,
    open_id: Option<OpenId>,
    throttle: Throttle,
    audit: Audit,
    shares: Shares,
    /// Opens everything to whoever can read the file of it: the command line on the same host.
    local: Option<String>,
}

/// Fills with bytes that nobody can guess.
fn random(bytes: &mut [u8]) {
    // The system's source cannot fail once the system is up; without it nothing here would be safe.
    rand::rngs::OsRng.try_fill_bytes(bytes).expect("the system's source of randomness");
}

/// A secret of this installation, made at the first start.
pub fn installation_key(path: &Path) -> Result<[u8; 32], AccessError> {
    let io = |source| AccessError::Io { path: path.to_owned(), source };
    let hex = |text: &str| -> Option<[u8; 32]> {
        let text = text.trim();
        let bytes: Option<Vec<u8>> = (0..text.len() / 2)
            .map(|n| text.get(2 * n..2 * n + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok()))
            .collect();
        bytes?.try_into().ok()
    };
    file::locked(path, || {
        if let Some(key) = hex(&file::read(path)?) {
            return Ok(key);
        }
        let mut key = [0; 32];
        random(&mut key);
        let text: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
        file::replace(path, &format!("{text}\n"))?;
        Ok(key)
    })
    .map_err(io)
}

/// Makes the secret of this run and puts it where only the account of the service can read it.
pub fn local_secret(path: &Path) -> Result<String, AccessError> {
    let mut bytes = [0; 32];
    random(&mut bytes);
    let text = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes);
    file::replace(path, &format!("{text}\n"))
        .map_err(|source| AccessError::Io { path: path.to_owned(), source })?;
    Ok(text)
}

impl Access {
    /// Reads what is there. `key` signs links; `local` is the secret of this run.
    pub fn new(config: AccessConfig, key: [u8; 32], local: Option<String>) -> Result<Self, AccessError> {
        let open_id = config.open_id.clone().map(OpenId::new).transpose().map_err(AccessError::Issuer)?;
        let audit = Audit::open(config.audit_file.as_deref()).map_err(|source| AccessError::Io {
            path: config.audit_file.clone().unwrap_or_default(),
            source,
        })?;
        let users = Users::new(config.users_file.clone());
        let tokens = Tokens::new(config.tokens_file.clone());
        users.examine().and_then(|()| tokens.examine()).map_err(AccessError::Content)?;
        let throttle = Throttle::default();
        Ok(Self { users, tokens, open_id, throttle, audit, shares: Shares::new(key), local, config })
    }

    /// Roles and rules.
    pub fn rules(&self) -> &Rules {
        &self.config.rules
    }

    /// The configuration.
    pub fn config(&self) -> &AccessConfig {
        &self.config
    }

    /// The book of deeds.
    pub fn audit(&self) -> &Audit {
        &self.audit
    }

    /// Signs and checks links to results.
    pub fn shares(&self) -> &Shares {
        &self.shares
    }

    /// The values of `WWW-Authenticate` for whoever must log in (RFC 9110 §11.6.1).
    pub fn challenges(&self) -> Vec<String> {
        let realm = self.config.realm.replace(['"', '\\'], "");
        let mut challenges = Vec::new();
        if self.open_id.is_some() || self.tokens.is_used() {
            challenges.push(format!("Bearer realm=\"{realm}\""));
        }
        if self.users.is_used() || challenges.is_empty() {
            challenges.push(format!("Basic realm=\"{realm}\", charset=\"UTF-8\""));
        }
        challenges
    }

    /// Finds out who asks.
    pub async fn identify(&self, presented: &Presented<'_>, now: Timestamp) -> Result<Caller, Denied> {
        if let Some(authorization) = presented.authorization {
            // Before the brake: whoever guesses must not lock the operator out.
            if let Some(caller) = self.by_local_secret(authorization) {
                return Ok(caller);
            }
            // Where nobody could log in, what clients send all the same means nothing.
            if let (false, Some(anonymous)) = (self.has_logins(), self.config.rules.anonymous()) {
                return Ok(anonymous);
            }
            let client = presented.client.or(presented.peer);
            if let Some((address, wait)) = client.and_then(|at| Some((at, self.throttle.blocked(at)?))) {
                return Err(Denied::TooMany { address, seconds: wait.as_secs().max(1) });
            }
            let proved = self.prove(authorization, now).await;
            if let Err(Denied::Wrong(why)) = &proved {
                self.audit.refused(client, &basic_user(authorization).unwrap_or_default(), why);
                if let Some(client) = client {
                    self.throttle.failed(client);
                }
            }
            return proved;
        }
        if let (Some(user), Some(peer)) = (presented.proxy_user, presented.peer)
            && self.config.proxies.contains(&peer)
        {
            return self.by_proxy(user, presented.proxy_roles);
        }
        self.config.rules.anonymous().ok_or(Denied::NotLoggedIn)
    }

    fn has_logins(&self) -> bool {
        self.open_id.is_some() || self.users.is_used() || self.tokens.is_used()
    }

    fn by_proxy(&self, user: &str, roles: Option<&str>) -> Result<Caller, Denied> {
        if !users::is_name(user) {
            return Err(Denied::Wrong("the proxy names a user that is no user name".to_owned()));
        }
        let roles = match roles {
            Some(roles) => users::split(roles),
            None => self.users.roles(user).unwrap_or_default(),
        };
        Ok(self.caller(user, &roles, Scope::FULL, Proof::Proxy))
    }

    /// Whoever logged in and has no role that we know has that of users.
    fn caller(&self, user: &str, roles: &[String], scope: Scope, proof: Proof) -> Caller {
        let rules = &self.config.rules;
        let mut found = rules.roles(roles.iter().map(String::as_str));
        if found.is_empty() {
            found = rules.roles([USER]);
        }
        Caller { user: UserId(user.to_owned()), roles: found, scope, proof }
    }

    fn by_local_secret(&self, authorization: &str) -> Option<Caller> {
        let presented = authorization.strip_prefix("Bearer ")?;
        let secret = self.local.as_deref()?;
        let operator: Arc<[Arc<Role>]> = Arc::from([Arc::new(Role::operator())]);
        let user = UserId(OPERATOR.to_owned());
        tokens::same(secret, presented).then_some(Caller {
            user,
            roles: operator,
            scope: Scope::FULL,
            proof: Proof::Local,
        })
    }

    async fn prove(&self, authorization: &str, now: Timestamp) -> Result<Caller, Denied> {
        let (scheme, rest) = authorization.split_once(' ').unwrap_or((authorization, ""));
        let rest = rest.trim();
        if scheme.eq_ignore_ascii_case("basic") {
            let Some((user, password)) = basic(rest) else {
                return Err(Denied::Wrong(
                    "the Basic credentials are not base64 of `user:password`".to_owned(),
                ));
            };
            let checked = self.users.check(&user, &password).await.map_err(|why| {
                tracing::error!(why, file = %self.users.path().display(), "passwords cannot be checked");
                Denied::Unavailable
            })?;
            let roles = checked.ok_or_else(|| Denied::Wrong("user name or password is wrong".to_owned()))?;
            return Ok(self.caller(&user, &roles, Scope::FULL, Proof::Password));
        }
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(Denied::Wrong(
                "this kind of Authorization is not known here: Basic or Bearer".to_owned(),
            ));
        }
        if Tokens::is_ours(rest) {
            let found = self.tokens.check(rest, now).map_err(|why| {
                tracing::error!(why, "tokens cannot be checked");
                Denied::Unavailable
            })?;
            let Some((token, scope)) = found else {
                return Err(Denied::Wrong("the token is wrong, expired or revoked".to_owned()));
            };
            let roles = if token.roles.is_empty() {
                self.users.roles(&token.user).unwrap_or_default()
            } else {
                token.roles
            };
            return Ok(self.caller(&token.user, &roles, scope, Proof::Token));
        }
        let Some(open_id) = &self.open_id else {
            return Err(Denied::Wrong("the token is none of this service".to_owned()));
        };
        match open_id.check(rest).await {
            Ok((user, roles)) => Ok(self.caller(&user, &roles, Scope::FULL, Proof::OpenId)),
            Err(Rejection::Wrong(why)) => Err(Denied::Wrong(format!("the token is not accepted: {why}"))),
            Err(Rejection::Issuer(_)) => Err(Denied::Unavailable),
        }
    }
}

/// User and password of Basic credentials (RFC 7617).
fn basic(encoded: &str) -> Option<(String, String)> {
    let bytes = base64::engine::general_purpose::STANDARD.decode(encoded).ok()?;
    let text = String::from_utf8(bytes).ok()?;
    let (user, password) = text.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}

/// The name that failed to log in, for the book; never what stood beside it.
fn basic_user(authorization: &str) -> Option<String> {
    let (scheme, rest) = authorization.split_once(' ')?;
    let (user, _) = scheme.eq_ignore_ascii_case("basic").then(|| basic(rest.trim()))??;
    users::is_name(&user).then_some(user)
}

#[cfg(test)]
mod tests;
