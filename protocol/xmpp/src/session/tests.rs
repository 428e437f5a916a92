//! The session against servers that follow a script, most of them badly.

use super::*;
use crate::muc::{MucConfig, MucEvent, start};
use crate::xml::ns;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::mpsc;

const HEADER: &str = "<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' from='xmpp.test' id='1' version='1.0'>";

/// The other end of a session, one connection after the other.
struct Script {
    ends: mpsc::Receiver<DuplexStream>,
    events: mpsc::Receiver<MucEvent>,
    _muc: crate::muc::Muc,
}

struct Server {
    io: DuplexStream,
    heard: String,
}

impl Script {
    fn new(change: impl FnOnce(&mut SessionConfig)) -> Self {
        let (sender, ends) = mpsc::channel(1);
        let jid: Jid = "agent@xmpp.test/r".parse().unwrap();
        let mut session = SessionConfig::new(jid, "pw", Connector::memory(sender));
        session.max_backoff = Duration::from_millis(300);
        change(&mut session);
        let (muc, events) = start(MucConfig { session, rooms: vec![], presence: vec![] });
        Self { ends, events, _muc: muc }
    }

    async fn accept(&mut self) -> Server {
        Server { io: self.ends.recv().await.unwrap(), heard: String::new() }
    }

    async fn ending(&mut self) -> (Ending, Duration) {
        loop {
            match tokio::time::timeout(Duration::from_secs(10), self.events.recv()).await.unwrap().unwrap() {
                MucEvent::Offline { ending, retry_in } => return (ending, retry_in),
                MucEvent::Online { .. } => {}
                other => panic!("{other:?}"),
            }
        }
    }
}

impl Server {
    async fn say(&mut self, text: &str) {
        // The session may have hung up already, which is what many tests wait for.
        let _ = self.io.write_all(text.as_bytes()).await;
    }

    async fn hear(&mut self, text: &str) -> String {
        let mut buffer = [0; 4096];
        while !self.heard.contains(text) {
            let length = tokio::time::timeout(Duration::from_secs(10), self.io.read(&mut buffer)).await;
            match length {
                Ok(Ok(length)) if length > 0 => self.heard += &String::from_utf8_lossy(&buffer[..length]),
                other => panic!("waited for {text}, heard {} ({other:?})", self.heard),
            }
        }
        std::mem::take(&mut self.heard)
    }

    async fn offer(&mut self, mechanisms: &[&str]) {
        self.hear("<stream:stream").await;
        let list: String = mechanisms.iter().map(|name| format!("<mechanism>{name}</mechanism>")).collect();
        self.say(&format!(
            "<?xml version='1.0'?>{HEADER}<stream:features><mechanisms xmlns='{}'>{list}</mechanisms></stream:features>",
            ns::SASL
        ))
        .await;
    }

    /// A login as it should be, by PLAIN.
    async fn welcome(&mut self) {
        self.offer(&["PLAIN"]).await;
        assert!(self.hear("</auth>").await.contains("AGFnZW50AHB3"));
        self.say(&format!("<success xmlns='{}'/>", ns::SASL)).await;
        self.hear("<stream:stream").await;
        self.say(&format!("{HEADER}<stream:features><bind xmlns='{}'/></stream:features>", ns::BIND)).await;
        assert!(self.hear("</iq>").await.contains("<resource>r</resource>"));
        self.say("<iq type='result' id='bind'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><jid>agent@xmpp.test/r</jid></bind></iq>")
            .await;
    }

    async fn challenge(&mut self, text: &str) {
        use base64::Engine;
        let text = base64::engine::general_purpose::STANDARD.encode(text);
        self.say(&format!("<challenge xmlns='{}'>{text}</challenge>", ns::SASL)).await;
    }
}

#[tokio::test]
async fn a_server_that_cannot_prove_itself_is_left() {
    let mut script = Script::new(|_| {});
    let mut server = script.accept().await;
    server.offer(&["PLAIN", "SCRAM-SHA-1"]).await;
    assert!(
        server.hear("</auth>").await.contains("SCRAM-SHA-1"),
        "the password is not shown where that is not needed"
    );
    server.say(&format!("<success xmlns='{}'/>", ns::SASL)).await;
    let (ending, retry_in) = script.ending().await;
    assert!(matches!(ending, Ending::ServerNotAuthentic { .. }), "{ending}");
    assert!(retry_in >= Duration::from_secs(1));
}

#[tokio::test]
async fn a_server_cannot_keep_the_processor_busy() {
    let mut script = Script::new(|_| {});
    let mut server = script.accept().await;
    server.offer(&["SCRAM-SHA-256"]).await;
    server.hear("</auth>").await;
    server.challenge("r=x,s=QSXCR+Q6sek8bf92,i=4000000000").await;
    let (ending, _) = script.ending().await;
    assert!(matches!(ending, Ending::Protocol { .. }), "{ending}");
}

#[tokio::test]
async fn no_common_mechanism_names_what_there_is() {
    let mut script = Script::new(|_| {});
    script.accept().await.offer(&["GSSAPI", "EXTERNAL"]).await;
    let (ending, _) = script.ending().await;
    assert!(ending.to_string().contains("EXTERNAL GSSAPI"), "{ending}");
}

#[tokio::test]
async fn stream_errors_are_told_and_the_session_comes_back() {
    let mut script = Script::new(|_| {});
    for (condition, text) in [("system-shutdown", "bye"), ("policy-violation", "")] {
        let mut server = script.accept().await;
        server.welcome().await;
        let ns = ns::STREAM_ERRORS;
        server
            .say(&format!(
                "<stream:error><{condition} xmlns='{ns}'/><text xmlns='{ns}'>{text}</text></stream:error>"
            ))
            .await;
        let (ending, _) = script.ending().await;
        let Ending::Stream { condition: told, text: words } = &ending else { panic!("{ending}") };
        assert_eq!((told.as_str(), words.as_str()), (condition, text));
    }
    let mut server = script.accept().await;
    server.welcome().await;
    server.say("</stream:stream>").await;
    assert!(matches!(script.ending().await.0, Ending::Closed));
    let mut server = script.accept().await;
    server.welcome().await;
    drop(server);
    let (ending, _) = script.ending().await;
    assert!(matches!(ending, Ending::Io(_) | Ending::Closed), "{ending}");
}

#[tokio::test]
async fn silence_is_noticed_and_a_ping_is_answered() {
    let mut script = Script::new(|config| {
        config.idle_probe = Duration::from_millis(100);
        config.probe_timeout = Duration::from_millis(200);
    });
    let mut server = script.accept().await;
    server.welcome().await;
    server.say("<iq type='get' id='p1' from='xmpp.test'><ping xmlns='urn:xmpp:ping'/></iq>").await;
    assert!(server.hear("p1").await.contains("result"));
    server.hear("probe-1").await;
    server.say("<iq type='result' id='probe-1' from='xmpp.test'/>").await;
    server.hear("probe-2").await;
    assert!(matches!(script.ending().await.0, Ending::Silent));
}

#[tokio::test]
async fn a_server_that_never_finishes_the_login_is_left() {
    let mut script = Script::new(|config| config.negotiation_timeout = Duration::from_millis(200));
    let mut server = script.accept().await;
    server.offer(&["PLAIN"]).await;
    assert!(matches!(script.ending().await.0, Ending::LoginTimeout));
}

#[tokio::test]
async fn deep_stanzas_are_skipped_and_oversized_ones_end_the_session() {
    let mut script = Script::new(|config| config.max_incoming = 250_000);
    let mut server = script.accept().await;
    server.welcome().await;
    for levels in [65, 8_000] {
        server.say(&format!("<message>{}{}</message>", "<a>".repeat(levels), "</a>".repeat(levels))).await;
        server.say("<iq type='get' id='p1' from='xmpp.test'><ping xmlns='urn:xmpp:ping'/></iq>").await;
        assert!(server.hear("p1").await.contains("result"), "the session goes on after {levels} levels");
    }
    server.say(&"<a>".repeat(22_000)).await;
    assert!(matches!(script.ending().await.0, Ending::Protocol { .. }), "more than can be skipped");
    let mut server = script.accept().await;
    server.welcome().await;
    server.say(&format!("<message><body>{}</body></message>", "x".repeat(400_000))).await;
    assert!(matches!(script.ending().await.0, Ending::Oversize));
}

#[tokio::test]
async fn garbage_instead_of_xmpp_is_no_reason_to_panic() {
    let mut script = Script::new(|_| {});
    for garbage in [
        "HTTP/1.1 400 Bad Request\r\n\r\n",
        "<html>",
        "\u{0}\u{1}",
        "<?xml version='1.0'?><!DOCTYPE x>",
        "<stream:stream",
    ] {
        let mut server = script.accept().await;
        server.say(garbage).await;
        drop(server);
        let (ending, _) = script.ending().await;
        assert!(!ending.explain().is_empty());
    }
    let mut server = script.accept().await;
    server.welcome().await;
    server.say("<message from='@@'/><presence from='a@b/c' type='?'/><iq/><iq type='result'/><iq type='set' id='1'/>").await;
    assert!(server.hear("id='1'").await.contains("service-unavailable"));
}
