//! Who is asking: hands what a request presents to [`Access`], leaves the [`Caller`] in the request, and turns whoever is
//! refused away with the status and the challenge that clients understand. Decides nothing about processes or jobs.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant, SystemTime};

use axum::extract::{Request, State};
use axum::http::{Extensions, HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;

use super::{AppState, HttpConfig, Operation, Peer, report_on};
use crate::access::{Caller, Denied, Presented, Proof, source};
use crate::encoding::{Face, Fault, FaultKind};
use crate::engine::job::Timestamp;
use crate::limits::Who;

/// Longest header that is looked at, in bytes.
const MAX_HEADER: usize = 32 * 1024;

/// Who asks and from where, as handlers find it in the request.
#[derive(Debug, Clone)]
pub(super) struct Asking {
    /// Who.
    pub(super) caller: Caller,
    /// The client's address, as far as it can be known.
    pub(super) from: Option<IpAddr>,
}

impl Asking {
    /// Who sent this request; nobody in particular where the layer was not passed.
    pub(super) fn of(extensions: &Extensions) -> Self {
        let found = extensions.get::<Self>().cloned();
        found.unwrap_or_else(|| Self { caller: Caller::nobody(), from: None })
    }

    /// The same, as far as limits are concerned.
    pub(super) fn who(&self) -> Who<'_> {
        Who { user: &self.caller.user, role: self.caller.role_names().first().copied() }
    }

    /// The fault for what this caller may not do: a login may help whoever has not logged in.
    pub(super) fn denied(&self, what: &str) -> Fault {
        if self.caller.is_logged_in() {
            return Fault::new(FaultKind::Forbidden, format!("`{}` may not {what}", self.caller.user.0));
        }
        Fault::new(FaultKind::NotLoggedIn, format!("log in to {what}"))
    }
}

/// The layer inside of `guard`: everything behind it knows its caller.
pub(super) async fn identify(State(state): State<AppState>, mut request: Request, next: Next) -> Response {
    let peer = request.extensions().get::<Peer>().map(|peer| peer.0);
    let from = client(&state.config, request.headers(), peer);
    if let Some(wait) = from.and_then(|from| state.rates.addresses.take(source(from), Instant::now()).err()) {
        let why = "too many requests from your address ([http] requests_per_minute)";
        return too_many(why, wait, face_of(request.uri().path().trim_matches('/')));
    }
    let access = state.access.clone();
    let config = access.config();
    let headers = request.headers();
    let text = |name: &str| {
        let value = headers.get(name)?.to_str().ok()?;
        (value.len() <= MAX_HEADER).then_some(value)
    };
    let through_proxy = peer.is_some_and(|peer| config.proxies.contains(&peer.ip().to_canonical()));
    let presented = Presented {
        authorization: text(header::AUTHORIZATION.as_str()),
        proxy_user: config.user_header.as_deref().filter(|_| through_proxy).and_then(text),
        proxy_roles: config.roles_header.as_deref().filter(|_| through_proxy).and_then(text),
        peer: peer.map(|peer| peer.ip().to_canonical()),
        client: from,
    };
    let page = request.uri().path().trim_matches('/').to_owned();
    let identified = access.identify(&presented, now()).await;
    let caller = match identified {
        Ok(caller) => caller,
        // A monitor needs no login where the operator says so; a signed link speaks for itself.
        Err(Denied::NotLoggedIn) if config.open_pages.contains(&page) || page.starts_with("outputs/") => {
            Caller::nobody()
        }
        Err(denied) => return turned_away(&state, &denied, face_of(&page)),
    };
    if caller.is_logged_in()
        && caller.proof != Proof::Local
        && let Err(wait) = state.rates.users.take(caller.user.0.clone(), Instant::now())
    {
        let why = format!("too many requests of `{}` ([http] user_requests_per_minute)", caller.user.0);
        return too_many(&why, wait, face_of(&page));
    }
    request.extensions_mut().insert(Asking { caller, from });
    let mut response = next.run(request).await;
    if response.status() == StatusCode::UNAUTHORIZED {
        challenge(&state, &mut response);
    }
    response
}

fn face_of(page: &str) -> Face {
    if page.ends_with("/2.0.0") { Face::Wps2 } else { Face::Wps1 }
}

/// Whoever asks too often is told when to come again (RFC 6585 §4).
fn too_many(why: &str, wait: Duration, face: Face) -> Response {
    let seconds = wait.as_secs_f64().ceil().max(1.0) as u64;
    let mut response =
        report_on(&Fault::new(FaultKind::TooManyRequests, format!("{why}; try again in {seconds} s")), face);
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    response.extensions_mut().insert(Operation("limited"));
    response
}

fn turned_away(state: &AppState, denied: &Denied, face: Face) -> Response {
    let kind = match denied {
        Denied::NotLoggedIn | Denied::Wrong(_) => FaultKind::NotLoggedIn,
        Denied::TooMany { .. } => FaultKind::TooManyRequests,
        Denied::Unavailable => FaultKind::TooBusy,
    };
    let mut response = report_on(&Fault::new(kind, denied.to_string()), face);
    if let Denied::TooMany { seconds, .. } = denied {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(*seconds));
    }
    if kind == FaultKind::NotLoggedIn {
        challenge(state, &mut response);
    }
    response.extensions_mut().insert(Operation("login"));
    response
}

fn challenge(state: &AppState, response: &mut Response) {
    for challenge in state.access.challenges() {
        if let Ok(value) = HeaderValue::from_str(&challenge) {
            response.headers_mut().append(header::WWW_AUTHENTICATE, value);
        }
    }
}

/// The client's address: the other end of the connection or, through trusted proxies, the last address that none of them
/// has.
fn client(config: &HttpConfig, headers: &HeaderMap, peer: Option<SocketAddr>) -> Option<IpAddr> {
    let peer = peer?.ip().to_canonical();
    let trusted = |ip: &IpAddr| config.trusted_proxies.contains(ip);
    if !trusted(&peer) {
        return Some(peer);
    }
    let lists = headers.get_all("x-forwarded-for").iter().filter_map(|value| value.to_str().ok());
    let hops: Vec<&str> = lists.flat_map(|list| list.split(',')).map(str::trim).collect();
    let mut last = peer;
    for hop in hops.iter().rev() {
        let Ok(address) = hop.parse::<IpAddr>() else { break };
        last = address.to_canonical();
        if !trusted(&last) {
            break;
        }
    }
    Some(last)
}

#[expect(clippy::disallowed_methods, reason = "tokens and links expire; no engine sees this time")]
pub(super) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_who_the_trusted_proxies_say_and_nobody_else() {
        let proxies = ["10.0.0.1", "10.0.0.2"].map(|ip| ip.parse().expect("an address")).to_vec();
        let config = HttpConfig { trusted_proxies: proxies, ..HttpConfig::default() };
        let check = |peer: &str, forwarded: &[&str], expected: &str| {
            let mut headers = HeaderMap::new();
            for list in forwarded {
                headers.append("x-forwarded-for", list.parse().expect("a header"));
            }
            let peer = format!("{peer}:1").parse().ok();
            let expected: IpAddr = expected.parse().expect("an address");
            assert_eq!(client(&config, &headers, peer), Some(expected), "{forwarded:?}");
        };
        check("192.0.2.1", &["203.0.113.9"], "192.0.2.1");
        check("10.0.0.1", &["203.0.113.9"], "203.0.113.9");
        check("10.0.0.1", &["6.6.6.6, 203.0.113.9, 10.0.0.2"], "203.0.113.9");
        check("10.0.0.1", &["6.6.6.6", "203.0.113.9"], "203.0.113.9");
        check("10.0.0.1", &[], "10.0.0.1");
        check("10.0.0.1", &["nonsense"], "10.0.0.1");
        check("[::ffff:10.0.0.1]", &["2001:db8::1"], "2001:db8::1");
    }
}
