//! The first half of a connection: stream headers, STARTTLS, login, resource (RFC 6120 §4-7). Ends with a bound
//! address, or not at all; the caller puts a deadline around it.

use super::registry::Session;
use super::sasl::{Exchange, PLAIN, SCRAM, Step};
use super::{Core, Origin};
use crate::net::Security;
use crate::stream::{BoxBytes, Budget, Link, Stop, raw, transport};
use crate::xml::{Build, element, error_of, ns, result_of};
use crate::{BareJid, Element, FullJid, StanzaError};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use std::io;
use std::sync::Arc;
use std::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_xmpp::xmlstream::{AcceptedStream, StreamHeader, accept_stream};
use xmpp_parsers::bind::BindFeature;
use xmpp_parsers::jid::{DomainPart, NodePart};
use xmpp_parsers::sm::StreamManagement;
use xmpp_parsers::starttls::StartTls;
use xmpp_parsers::stream_features::StreamFeatures;

/// Largest element before the login: whoever has not shown a password gets no memory.
const MAX_BEFORE_LOGIN: usize = 16 << 10;
/// Logins that may fail on one connection.
const MAX_FAILURES: u32 = 3;

/// Why a connection did not come to a session.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoSession {
    #[error("the connection failed: {0}")]
    Io(#[from] io::Error),
    #[error("closed by the client")]
    Closed,
    #[error("the client broke the rules: {0}")]
    Rules(&'static str),
    #[error("too many failed logins")]
    Logins,
}

impl From<Stop> for NoSession {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::Io(error) => Self::Io(error),
            Stop::Closed | Stop::Idle => Self::Closed,
            Stop::TooBig => Self::Rules("an element before the login is too big"),
            Stop::TooDeep | Stop::MuchTooDeep => Self::Rules("an element is nested too deeply"),
        }
    }
}

type Stream = AcceptedStream<crate::stream::Transport>;

/// From the first byte to a bound session.
pub(super) async fn negotiate(
    core: &Arc<Core>,
    io: BoxBytes,
    origin: &Origin,
) -> Result<(Link, Session), NoSession> {
    let budget = Budget::new(MAX_BEFORE_LOGIN, crate::MAX_DEPTH);
    let (mut io, mut secure) = (io, origin.secure);
    if let (Security::DirectTls, false, Some(identity)) = (origin.entry, secure, &core.identity) {
        io = Box::new(TlsAcceptor::from(identity.config.clone()).accept(io).await?);
        secure = true;
    }
    let mut stream = accept_stream(transport(io, &budget), ns::CLIENT, core.timeouts()).await?;
    let mut link = greet(core, stream, &login_features(core, origin, secure), &budget).await?;
    let mut failures = 0;
    let user = loop {
        let element = link.receive().await?;
        if element.is("starttls", ns::TLS) {
            let Some(identity) = core.identity.as_ref().filter(|_| offers_tls(core, origin, secure)) else {
                link.close_with_error(
                    "policy-violation",
                    "STARTTLS is not offered here",
                    super::CLOSE_PATIENCE,
                )
                .await;
                return Err(NoSession::Rules("STARTTLS where it is not offered"));
            };
            link.send(&element_of("proceed", ns::TLS)).await?;
            let bare = raw(link.into_parts().0.into_inner());
            let tls = TlsAcceptor::from(identity.config.clone()).accept(bare).await?;
            secure = true;
            stream = accept_stream(transport(Box::new(tls), &budget), ns::CLIENT, core.timeouts()).await?;
            link = greet(core, stream, &login_features(core, origin, secure), &budget).await?;
            continue;
        }
        if !element.is("auth", ns::SASL) {
            link.close_with_error("not-authorized", "log in first", super::CLOSE_PATIENCE).await;
            return Err(NoSession::Rules("something else before the login"));
        }
        match login(core, origin, secure, element, &mut link).await? {
            Some((user, proof)) => {
                let (xml, _) = link.into_parts();
                stream = xml.accept_reset(&sasl("success", &proof)).await?;
                break user;
            }
            None => {
                failures += 1;
                if failures >= MAX_FAILURES {
                    link.close_with_error(
                        "policy-violation",
                        "too many failed logins",
                        super::CLOSE_PATIENCE,
                    )
                    .await;
                    return Err(NoSession::Logins);
                }
            }
        }
    };
    budget.set_limit(core.limits.max_stanza);
    let features = StreamFeatures {
        bind: Some(BindFeature { required: false }),
        stream_management: Some(StreamManagement { optional: false }),
        others: vec![element("session", ns::SESSION).child(element("optional", ns::SESSION))],
        ..StreamFeatures::default()
    };
    let mut link = greet(core, stream, &features, &budget).await?;
    let session = bind(core, origin, &user, &mut link).await?;
    Ok((link, session))
}

fn element_of(name: &str, ns: &str) -> Element {
    element(name, ns)
}

fn offers_tls(core: &Core, origin: &Origin, secure: bool) -> bool {
    !secure && origin.entry == Security::StartTls && core.identity.is_some()
}

fn login_features(core: &Core, origin: &Origin, secure: bool) -> StreamFeatures {
    let mut features = StreamFeatures::default();
    if offers_tls(core, origin, secure) {
        features.starttls = Some(StartTls { required: !origin.loopback });
    }
    if secure || origin.loopback {
        features.sasl_mechanisms = SCRAM.into_iter().chain([PLAIN]).map(str::to_owned).collect();
    }
    features
}

/// Answers a stream header, after a look at whom the client wants to reach (RFC 6120 §4.7.2).
async fn greet(
    core: &Core,
    stream: Stream,
    features: &StreamFeatures,
    budget: &Budget,
) -> Result<Link, NoSession> {
    let wrong_host = stream.header().to.is_some_and(|to| !to.eq_ignore_ascii_case(core.router.domain()));
    let answer = StreamHeader {
        from: Some(core.router.domain().to_owned().into()),
        to: None,
        id: Some(format!("{:032x}", rand::random::<u128>()).into()),
    };
    let pending = stream.send_header(answer).await?;
    if wrong_host {
        let mut link = Link::new(pending.send_features(&StreamFeatures::default()).await?, budget.clone());
        let text = format!("this is {}", core.router.domain());
        link.close_with_error("host-unknown", &text, super::CLOSE_PATIENCE).await;
        return Err(NoSession::Rules("another domain was asked for"));
    }
    Ok(Link::new(pending.send_features(features).await?, budget.clone()))
}

fn sasl(name: &str, data: &[u8]) -> Element {
    element(name, ns::SASL).text_of(&BASE64.encode(data))
}

fn sasl_data(element: &Element) -> Vec<u8> {
    // RFC 6120 §6.4.2: a single = stands for nothing.
    let text = element.text();
    BASE64.decode(text.trim().trim_start_matches('=')).unwrap_or_default()
}

/// One attempt to log in; nothing if it failed and another may follow.
async fn login(
    core: &Core,
    origin: &Origin,
    secure: bool,
    auth: Element,
    link: &mut Link,
) -> Result<Option<(String, Vec<u8>)>, NoSession> {
    let safe = secure || origin.loopback;
    let mechanism = auth.attr("mechanism").unwrap_or_default();
    let Some(mut exchange) = Exchange::new(mechanism, safe).filter(|_| safe) else {
        let condition = if safe { "invalid-mechanism" } else { "encryption-required" };
        link.send(&element("failure", ns::SASL).child(element(condition, ns::SASL))).await?;
        return Ok(None);
    };
    let mut message = sasl_data(&auth);
    loop {
        let nonce = BASE64.encode(rand::random::<[u8; 18]>());
        match exchange.step(&message, &nonce, &core.accounts) {
            Step::Success(user, proof) => return Ok(Some((user, proof))),
            Step::Challenge(challenge) => {
                link.send(&sasl("challenge", &challenge)).await?;
                let answer = link.receive().await?;
                if !answer.is("response", ns::SASL) {
                    link.send(&element("failure", ns::SASL).child(element("aborted", ns::SASL))).await?;
                    return Ok(None);
                }
                message = sasl_data(&answer);
            }
            Step::Refused(user) => {
                tracing::warn!(from = %origin, user = printable(&user), mechanism, "an XMPP login was refused: wrong user or password");
                if let Some(address) = origin.address {
                    tokio::time::sleep(core.admissions.failed(address, Instant::now())).await;
                }
                link.send(&element("failure", ns::SASL).child(element("not-authorized", ns::SASL))).await?;
                return Ok(None);
            }
        }
    }
}

/// A name from the network, short and without control characters, for the log.
fn printable(name: &str) -> String {
    name.chars().filter(|c| !c.is_control()).take(64).collect()
}

async fn bind(core: &Arc<Core>, origin: &Origin, user: &str, link: &mut Link) -> Result<Session, NoSession> {
    loop {
        let request = link.receive().await?;
        if request.is("resume", ns::SM) {
            // Clients of xmpp-parsers 0.23 need the `h`, which XEP-0198 makes optional.
            let failed =
                element("failed", ns::SM).with("h", "0").child(element("item-not-found", ns::STANZA_ERRORS));
            link.send(&failed).await?;
            continue;
        }
        if !request.is("iq", ns::CLIENT) {
            link.close_with_error("not-authorized", "bind a resource first", super::CLOSE_PATIENCE).await;
            return Err(NoSession::Rules("something else before the resource"));
        }
        let Some(wish) = request.get_child("bind", ns::BIND) else {
            link.send(&error_of(&request, &StanzaError::new("not-authorized", "bind a resource first")))
                .await?;
            continue;
        };
        let resource =
            wish.get_child("resource", ns::BIND).map(Element::text).filter(|text| !text.is_empty());
        let resource = resource.unwrap_or_else(|| format!("{:016x}", rand::random::<u64>()));
        let Some(jid) = full_jid(user, core.router.domain(), &resource) else {
            link.send(&error_of(&request, &StanzaError::new("bad-request", "no possible resource"))).await?;
            continue;
        };
        let (session, replaced) = core.router.registry.bind(jid.clone(), origin.admission.clone());
        if replaced {
            tracing::warn!(%jid, from = %origin, "a session was replaced: the same account and resource logged in again");
            core.router.replaced(&jid);
        }
        let bound = element("bind", ns::BIND).child(element("jid", ns::BIND).text_of(jid.as_str()));
        if let Err(error) = link.send(&result_of(&request).child(bound)).await {
            core.router.ended(&session.jid, session.id, None);
            return Err(error.into());
        }
        return Ok(session);
    }
}

fn full_jid(user: &str, domain: &str, resource: &str) -> Option<FullJid> {
    let (node, domain) = (NodePart::new(user).ok()?, DomainPart::new(domain).ok()?);
    BareJid::from_parts(Some(&node), &domain).with_resource_str(resource).ok()
}
