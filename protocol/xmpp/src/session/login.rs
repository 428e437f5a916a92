//! From a connector to a bound resource: SASL with a check of the server's own proof, then resource binding.
//! Knows nothing of what happens on the stream afterwards.

use super::{Ending, SessionConfig};
use crate::net::{Opened, header};
use crate::stream::{Link, Stop, Xml, read_stream_error};
use crate::xml::{Build, element, ns};
use crate::{Element, FullJid, StanzaError};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use sasl::client::Mechanism;
use sasl::client::mechanisms::{Plain, Scram};
use sasl::common::scram::{Sha1, Sha256};
use sasl::common::{ChannelBinding, Credentials};
use tokio_xmpp::xmlstream::Timeouts;
use xmpp_parsers::stream_features::StreamFeatures;

/// Rounds of password hashing that a server may ask for. Higher demands would let it keep a processor busy.
const MAX_ITERATIONS: u32 = 1_000_000;

/// A stream with a bound resource.
pub(super) struct LoggedIn {
    pub(super) link: Link,
    pub(super) jid: FullJid,
    pub(super) acks: bool,
}

/// Connects, authenticates, binds. The caller puts a deadline around it.
pub(super) async fn login(config: &SessionConfig) -> Result<LoggedIn, Ending> {
    let timeouts = Timeouts { read_timeout: config.idle_probe, response_timeout: config.probe_timeout };
    let domain = config.jid.domain().as_str();
    let Opened { pending, budget, confidential } =
        config.connector.open(domain, config.max_incoming, timeouts).await?;
    let (features, xml): (_, Xml) = pending.recv_features().await.map_err(crate::net::ConnectError::from)?;
    let mut link = Link::new(xml, budget);
    authenticate(config, &features, confidential, &mut link).await?;
    let (xml, budget) = link.into_parts();
    let pending = xml.initiate_reset().send_header(header(domain)).await?;
    let (features, xml): (_, Xml) = pending.recv_features().await.map_err(crate::net::ConnectError::from)?;
    let mut link = Link::new(xml, budget);
    let jid = bind(config, &mut link).await?;
    let acks =
        config.stream_management && features.stream_management.is_some() && enable_acks(&mut link).await?;
    Ok(LoggedIn { link, jid, acks })
}

async fn next(link: &mut Link) -> Result<Element, Ending> {
    let element = link.receive().await.map_err(stopped)?;
    match read_stream_error(&element) {
        Some((condition, text)) => Err(Ending::from_stream_error(condition, text)),
        None => Ok(element),
    }
}

/// What the end of reading means for the session.
pub(super) fn stopped(stop: Stop) -> Ending {
    match stop {
        Stop::Idle => Ending::Silent,
        Stop::TooDeep | Stop::MuchTooDeep => Ending::Protocol { what: "a stanza was nested too deeply" },
        Stop::TooBig => Ending::Oversize,
        Stop::Closed => Ending::Closed,
        Stop::Io(error) => error.into(),
    }
}

/// The strongest mechanism that both sides know. No channel binding: ejabberd offers a type that TLS 1.3 does not
/// have and then refuses every login that insists.
fn mechanism(
    config: &SessionConfig,
    features: &StreamFeatures,
    confidential: bool,
) -> Result<Box<dyn Mechanism + Send>, Ending> {
    let user = config.jid.node().map(|node| node.as_str()).unwrap_or_default();
    let credentials = Credentials::default()
        .with_username(user)
        .with_password(config.password.clone())
        .with_channel_binding(ChannelBinding::None);
    let offered = |name: &str| features.sasl_mechanisms.contains(name);
    let refused = |_| Ending::Protocol { what: "the credentials do not fit the mechanism" };
    if offered("SCRAM-SHA-256") {
        Ok(Box::new(Scram::<Sha256>::from_credentials(credentials).map_err(refused)?))
    } else if offered("SCRAM-SHA-1") {
        Ok(Box::new(Scram::<Sha1>::from_credentials(credentials).map_err(refused)?))
    } else if offered("PLAIN") && confidential {
        Ok(Box::new(Plain::from_credentials(credentials).map_err(refused)?))
    } else {
        let offered = features.sasl_mechanisms.iter().map(String::as_str).collect::<Vec<_>>().join(" ");
        Err(Ending::NoMechanism { offered })
    }
}

async fn authenticate(
    config: &SessionConfig,
    features: &StreamFeatures,
    confidential: bool,
    link: &mut Link,
) -> Result<(), Ending> {
    let user = || config.jid.node().map(|node| node.to_string()).unwrap_or_default();
    let mut mechanism = mechanism(config, features, confidential)?;
    let first = mechanism.initial();
    let name = mechanism.name().to_owned();
    link.send(&sasl("auth", &first).with("mechanism", name)).await?;
    loop {
        let element = next(link).await?;
        if !element.has_ns(ns::SASL) {
            return Err(Ending::Protocol { what: "an unexpected element during the login" });
        }
        let data = BASE64.decode(element.text().trim()).unwrap_or_default();
        match element.name() {
            "challenge" => {
                if iterations(&data) > MAX_ITERATIONS {
                    return Err(Ending::Protocol { what: "the server asks for too many rounds of hashing" });
                }
                // Hashing takes milliseconds of pure computing: not on a thread that serves other tasks.
                let (returned, answer) = tokio::task::spawn_blocking(move || {
                    let answer = mechanism.response(&data);
                    (mechanism, answer)
                })
                .await
                .map_err(|_| Ending::Protocol { what: "the login was cancelled" })?;
                mechanism = returned;
                let answer =
                    answer.map_err(|_| Ending::Protocol { what: "the server's challenge is malformed" })?;
                link.send(&sasl("response", &answer)).await?;
            }
            "success" => {
                // RFC 5802 §5: without this check anyone could pose as the server.
                return mechanism.success(&data).map_err(|_| Ending::ServerNotAuthentic { user: user() });
            }
            "failure" => {
                let condition = element.children().find(|c| c.name() != "text");
                let text = element.children().find(|c| c.name() == "text").map(Element::text);
                return Err(Ending::Auth {
                    user: user(),
                    condition: condition.map_or("not-authorized", Element::name).to_owned(),
                    text: text.unwrap_or_default(),
                });
            }
            _ => return Err(Ending::Protocol { what: "an unexpected element during the login" }),
        }
    }
}

/// The `i=` of a SCRAM challenge (RFC 5802 §5.1), 0 if there is none.
fn iterations(challenge: &[u8]) -> u32 {
    let text = String::from_utf8_lossy(challenge);
    text.split(',').find_map(|part| part.strip_prefix("i=")).map_or(0, |i| i.parse().unwrap_or(u32::MAX))
}

fn sasl(name: &str, data: &[u8]) -> Element {
    element(name, ns::SASL).text_of(&BASE64.encode(data))
}

async fn bind(config: &SessionConfig, link: &mut Link) -> Result<FullJid, Ending> {
    let mut request = element("bind", ns::BIND);
    if let Some(resource) = config.jid.resource() {
        request.append_child(element("resource", ns::BIND).text_of(resource.as_str()));
    }
    link.send(&element("iq", ns::CLIENT).with("type", "set").with("id", "bind").child(request)).await?;
    loop {
        let answer = next(link).await?;
        if !answer.is("iq", ns::CLIENT) || answer.attr("id") != Some("bind") {
            continue;
        }
        if answer.attr("type") == Some("error") {
            let error = StanzaError::from_stanza(&answer);
            return Err(match error.condition.as_str() {
                "conflict" => Ending::Conflict { text: error.text },
                _ => Ending::Bind { condition: error.condition },
            });
        }
        let jid = answer
            .get_child("bind", ns::BIND)
            .and_then(|bind| bind.get_child("jid", ns::BIND))
            .and_then(|jid| jid.text().parse().ok());
        return jid.ok_or(Ending::Protocol { what: "the answer to bind carries no address" });
    }
}

/// XEP-0198 without resumption. A refusal is no reason to end the session.
async fn enable_acks(link: &mut Link) -> Result<bool, Ending> {
    link.send(&element("enable", ns::SM)).await?;
    loop {
        let answer = next(link).await?;
        if answer.has_ns(ns::SM) {
            return Ok(answer.name() == "enabled");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_are_read_from_the_challenge() {
        assert_eq!(iterations(b"r=abc,s=QSXCR+Q6sek8bf92,i=4096"), 4096);
        assert_eq!(iterations(b"r=abc"), 0);
        assert_eq!(iterations(b"r=abc,i=99999999999"), u32::MAX);
    }
}
