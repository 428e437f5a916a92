//! What may be fetched: hosts and URL prefixes that the operator allows, what they are rewritten to, and which addresses
//! are never for a client to choose.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use thiserror::Error;
use url::Url;

use super::{FetchError, shown};

/// The operator's rules.
#[derive(Debug, Clone)]
pub struct Policy {
    allow: Vec<Rule>,
    rewrite: Vec<Replacement>,
    /// Largest size in bytes.
    pub max_bytes: u64,
    /// Longest time for one reference.
    pub timeout: Duration,
    /// Most redirects in a row.
    pub max_redirects: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Rule {
    /// Any host with a public address.
    Public,
    /// `*.example.org`: any host below, with a public address.
    Below(String),
    /// This host, whatever its address; with a port if one is given.
    Host { host: String, port: Option<u16> },
    /// Everything that begins so, whatever its address.
    Prefix(Url),
}

#[derive(Debug, Clone)]
struct Replacement {
    from: String,
    /// About everything below, too.
    below: bool,
    to: Rewrite,
}

/// What a URL stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rewrite {
    /// Another URL.
    Url(String),
    /// A local file.
    File(PathBuf),
}

/// A rule that cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("`{rule}` {why}")]
pub struct PolicyError {
    rule: String,
    why: &'static str,
}

impl PolicyError {
    /// Whether it is a rule for rewriting, not one about what is allowed.
    pub fn is_about_rewriting(&self) -> bool {
        self.rule.contains("=>") || self.why.contains("=>")
    }
}

impl Default for Policy {
    /// Nothing is fetched.
    fn default() -> Self {
        Self {
            allow: Vec::new(),
            rewrite: Vec::new(),
            max_bytes: 2 << 30,
            timeout: Duration::from_secs(300),
            max_redirects: 5,
        }
    }
}

impl Policy {
    /// From the texts of the configuration: `*`, `*.example.org`, `host`, `host:port`, `http://host/prefix/`; and
    /// `from => to`, where `to` is a URL or an absolute path.
    pub fn new(allow: &[String], rewrite: &[String]) -> Result<Self, PolicyError> {
        let allow = allow
            .iter()
            .filter(|rule| !rule.is_empty())
            .map(|rule| Rule::parse(rule))
            .collect::<Result<_, _>>()?;
        let rewrite = rewrite
            .iter()
            .filter(|rule| !rule.is_empty())
            .map(|rule| {
                let bad = |why| PolicyError { rule: rule.clone(), why };
                let (from, to) =
                    rule.split_once("=>").ok_or_else(|| bad("is not of the form `from => to`"))?;
                let (from, to) = (from.trim(), to.trim());
                let to = if to.starts_with("http://") || to.starts_with("https://") {
                    Rewrite::Url(to.to_owned())
                } else if to.starts_with('/') {
                    Rewrite::File(PathBuf::from(to))
                } else {
                    return Err(bad("leads neither to a URL nor to an absolute path"));
                };
                let below = from.ends_with('/') && matches!(to, Rewrite::Url(_));
                let from = Url::parse(from).map_err(|_| bad("does not begin with a URL"))?.into();
                Ok(Replacement { from, below, to })
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { allow, rewrite, ..Self::default() })
    }

    /// What the operator puts in a URL's place. A rule that ends in `/` is about everything below; a file stands for one
    /// URL only. What a client writes never leads out of the operator's place.
    pub(super) fn rewritten(&self, href: &str) -> Option<Rewrite> {
        if self.rewrite.is_empty() || href.get(..5).is_some_and(|start| start.eq_ignore_ascii_case("data:")) {
            return None;
        }
        // The parser resolves `..` and knows that hosts have no capitals.
        let url = Url::parse(href.trim()).ok()?;
        self.rewrite.iter().find_map(|Replacement { from, below, to }| match to {
            Rewrite::Url(to) if *below => url
                .as_str()
                .strip_prefix(from.as_str())
                .filter(|_| !climbs(url.path()))
                .map(|rest| Rewrite::Url(format!("{}/{rest}", to.trim_end_matches('/')))),
            Rewrite::File(_) | Rewrite::Url(_) => (url.as_str() == from).then(|| to.clone()),
        })
    }

    /// The addresses to connect to, if the URL may be fetched. `trusted` = the operator chose it.
    pub(super) async fn addresses(&self, url: &Url, trusted: bool) -> Result<Vec<SocketAddr>, FetchError> {
        let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let port = url.port_or_known_default().unwrap_or(80);
        let refused = |why: String| FetchError::Refused { url: shown(url.as_str()), why };
        let matching: Vec<&Rule> = self.allow.iter().filter(|rule| rule.matches(url, &host, port)).collect();
        if matching.is_empty() && !trusted {
            return Err(refused(format!(
                "the operator allows other places only ([references] allow has no `{host}`)"
            )));
        }
        let any = trusted || matching.iter().any(|rule| rule.any_address());
        let failed = |why: String| FetchError::Failed { url: shown(url.as_str()), why };
        let found = tokio::net::lookup_host((host.as_str(), port)).await;
        let found: Vec<SocketAddr> = found.map_err(|error| failed(error.to_string()))?.collect();
        // One address in the operator's own network is enough to refuse: the next lookup might pick it.
        if !any && let Some(private) = found.iter().find(|address| !is_public(address.ip())) {
            return Err(refused(format!(
                "`{host}` is at {}, which is not a public address ([references] allow = {host} would permit it)",
                private.ip()
            )));
        }
        if found.is_empty() { Err(failed(format!("`{host}` has no address"))) } else { Ok(found) }
    }
}

impl Rule {
    fn parse(text: &str) -> Result<Self, PolicyError> {
        let bad = |why| PolicyError { rule: text.to_owned(), why };
        if text == "*" {
            return Ok(Self::Public);
        }
        if let Some(below) = text.strip_prefix("*.") {
            return Ok(Self::Below(below.to_ascii_lowercase()));
        }
        if text.contains("://") {
            let url = Url::parse(text).map_err(|_| bad("is not a URL"))?;
            return if url.path().ends_with('/') {
                Ok(Self::Prefix(url))
            } else {
                Err(bad("must end in `/`"))
            };
        }
        let plain_v6 = text.trim_matches(['[', ']']).parse::<Ipv6Addr>().is_ok();
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) if !plain_v6 => {
                (host, Some(port.parse().map_err(|_| bad("has no port number after `:`"))?))
            }
            _ => (text, None),
        };
        let host = host.trim_matches(['[', ']']).to_ascii_lowercase();
        if host.is_empty() || host.contains(['/', '*', ' ']) {
            return Err(bad("is not a host, host:port, *.domain, * or a URL that ends in `/`"));
        }
        Ok(Self::Host { host, port })
    }

    fn matches(&self, url: &Url, host: &str, port: u16) -> bool {
        match self {
            Self::Public => true,
            Self::Below(domain) => host.strip_suffix(domain.as_str()).is_some_and(|rest| rest.ends_with('.')),
            Self::Host { host: allowed, port: only } => {
                host == allowed && only.is_none_or(|only| only == port)
            }
            Self::Prefix(prefix) => {
                // The parser has resolved `..` in both; an encoded one must not climb later.
                url.origin() == prefix.origin()
                    && url.path().starts_with(prefix.path())
                    && !climbs(url.path())
            }
        }
    }

    fn any_address(&self) -> bool {
        matches!(self, Self::Host { .. } | Self::Prefix(_))
    }
}

/// Whether a path could lead upwards on a server that decodes it, once or several times, or that knows parameters of
/// segments (`..;x`).
fn climbs(path: &str) -> bool {
    let mut path = path.to_owned();
    for _ in 0..4 {
        let decoded = percent_encoding::percent_decode_str(&path).decode_utf8_lossy().into_owned();
        let up = |segment: &str| matches!(segment.split(';').next(), Some(".." | "."));
        if decoded.split(['/', '\\']).any(up) {
            return true;
        }
        if decoded == path {
            return false;
        }
        path = decoded;
    }
    true
}

/// Whether an address belongs to the public network: everything that is private, local or special does not.
pub(super) fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => is_public_v4(v4),
        IpAddr::V6(v6) => {
            // Addresses that carry a version 4 one are as public as that.
            let inner = v6.to_ipv4_mapped().or_else(|| embedded_v4(v6));
            if let Some(v4) = inner {
                return is_public_v4(v4);
            }
            let [first, second, ..] = v6.segments();
            // Documentation (RFC 3849, RFC 9637), and what the registry of special addresses keeps for protocols, such as
            // Teredo, which carries another version 4 address.
            let special = (first == 0x2001 && (second == 0x0db8 || second < 0x0200))
                || (first == 0x3fff && second < 0x1000);
            // 2000::/3 is all that is assigned to the public network today (RFC 4291 §2.4).
            (first & 0xe000) == 0x2000 && !special
        }
    }
}

/// NAT64 (RFC 6052) and 6to4 (RFC 3056).
fn embedded_v4(v6: Ipv6Addr) -> Option<Ipv4Addr> {
    let s = v6.segments();
    let v4 = |high: u16, low: u16| Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    match s {
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => Some(v4(high, low)),
        [0x2002, high, low, ..] => Some(v4(high, low)),
        _ => None,
    }
}

fn is_public_v4(v4: Ipv4Addr) -> bool {
    let [a, b, c, _] = v4.octets();
    let special = v4.is_private()
        || v4.is_loopback()
        || v4.is_link_local()
        || v4.is_broadcast()
        || v4.is_documentation()
        || v4.is_multicast()
        || a == 0
        || a >= 240
        || (a == 100 && (64..128).contains(&b))
        || (a == 198 && (18..20).contains(&b))
        || (a == 192 && b == 0 && c == 0);
    !special
}
