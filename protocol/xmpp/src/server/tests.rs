//! The server from outside: raw streams through its pipes and ports, with small limits.

use super::*;
use crate::muc::{MucConfig, MucEvent, RoomConfig, start as start_muc};
use crate::session::{Ending, SessionConfig};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use std::net::Ipv4Addr;
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

const SOON: Duration = Duration::from_secs(10);

fn config() -> (ServerConfig, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let accounts = Accounts::new(folder.path().join("accounts"));
    for user in ["boss", "agent"] {
        accounts.set(user, "pw").unwrap();
    }
    let listen = |security| Listen { address: (Ipv4Addr::LOCALHOST, 0).into(), security };
    let config = ServerConfig {
        owners: vec!["boss".into()],
        listen: vec![listen(Security::Plain)],
        ..ServerConfig::new("xmpp.test", accounts.path())
    };
    (config, folder)
}

/// A client that says what it is told.
struct Raw<Io> {
    io: Io,
    heard: String,
}

impl<Io: AsyncRead + AsyncWrite + Unpin> Raw<Io> {
    fn new(io: Io) -> Self {
        Self { io, heard: String::new() }
    }

    async fn say(&mut self, text: &str) {
        // The server may have hung up already: then the test looks at what it said before.
        let _ = self.io.write_all(text.as_bytes()).await;
    }

    /// Reads until `text` was heard; gives all that was heard since the last time. False at the end of the stream.
    async fn hear(&mut self, text: &str) -> (bool, String) {
        let mut buffer = [0; 4096];
        let found = loop {
            if self.heard.contains(text) {
                break true;
            }
            match tokio::time::timeout(SOON, self.io.read(&mut buffer)).await {
                Ok(Ok(length)) if length > 0 => self.heard += &String::from_utf8_lossy(&buffer[..length]),
                Ok(_) => break false,
                Err(_) => panic!("waited for {text}, heard {}", self.heard),
            }
        };
        (found, std::mem::take(&mut self.heard))
    }

    async fn open(&mut self, to: &str) {
        self.say(&format!(
            "<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' to='{to}' version='1.0'>"
        ))
        .await;
    }

    async fn login(&mut self, user: &str) {
        self.open("xmpp.test").await;
        assert!(self.hear("</stream:features>").await.0);
        let secret = BASE64.encode(format!("\0{user}\0pw"));
        self.say(&format!("<auth xmlns='{}' mechanism='PLAIN'>{secret}</auth>", crate::xml::ns::SASL)).await;
        assert!(self.hear("<success").await.0);
        self.open("xmpp.test").await;
        assert!(self.hear("</stream:features>").await.0);
        self.say("<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>raw</resource></bind></iq>")
            .await;
        assert!(self.hear("</iq>").await.1.contains(&format!("{user}@xmpp.test/raw")));
    }

    /// Everything until the end of the stream.
    async fn rest(&mut self) -> String {
        self.hear("\u{0}").await.1
    }
}

async fn tcp(server: &Server) -> Raw<TcpStream> {
    Raw::new(TcpStream::connect(server.addresses()[0].address).await.unwrap())
}

async fn pipe(server: &Server, bytes: usize) -> Raw<DuplexStream> {
    let (mine, theirs) = tokio::io::duplex(bytes);
    server.pipes.send(theirs).await.unwrap();
    Raw::new(mine)
}

async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let start = std::time::Instant::now();
    while !holds() {
        assert!(start.elapsed() < SOON, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn configurations_that_would_expose_secrets_are_refused() {
    let (mut config, _folder) = config();
    let address: SocketAddr = ([0, 0, 0, 0], 0).into();
    config.listen = vec![Listen { address, security: Security::Plain }];
    assert!(matches!(start(config.clone()), Err(ServerError::PlainRefused { .. })));
    config.listen[0].security = Security::StartTls;
    assert!(matches!(start(config.clone()), Err(ServerError::NoCertificate { .. })));
    config.listen.clear();
    config.owners = vec!["a@b".into()];
    assert!(matches!(start(config.clone()), Err(ServerError::BadName { .. })));
    std::fs::write(&config.accounts, "user:clear password\n").unwrap();
    config.owners.clear();
    assert!(matches!(start(config), Err(ServerError::Accounts(_))));
}

#[tokio::test]
async fn nobody_gets_in_without_a_password() {
    let (config, _folder) = config();
    let server = start(config).unwrap();
    let mut client = tcp(&server).await;
    client.open("xmpp.test").await;
    let features = client.hear("</stream:features>").await.1;
    for mechanism in ["SCRAM-SHA-256", "SCRAM-SHA-1", "PLAIN"] {
        assert!(features.contains(mechanism), "{features}");
    }
    assert!(!features.contains("ANONYMOUS") && !features.contains("register"), "{features}");
    client.say("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='ANONYMOUS'/>").await;
    assert!(client.hear("</failure>").await.1.contains("invalid-mechanism"));
    let mut heard = String::new();
    for _ in 0..2 {
        let secret = BASE64.encode("\0agent\0wrong");
        client
            .say(&format!("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>{secret}</auth>"))
            .await;
        heard = client.hear("</failure>").await.1;
        assert!(heard.contains("not-authorized"));
    }
    heard += &client.rest().await;
    assert!(heard.contains("policy-violation"), "three failures are enough for one connection");
    let mut client = tcp(&server).await;
    client.open("xmpp.test").await;
    client.hear("</stream:features>").await;
    client.say("<message to='agent@xmpp.test'><body>hi</body></message>").await;
    assert!(client.rest().await.contains("not-authorized"));
    let mut client = tcp(&server).await;
    client.open("elsewhere.test").await;
    assert!(client.rest().await.contains("host-unknown"));
    let mut client = tcp(&server).await;
    client.say(&"x".repeat(100_000)).await;
    client.rest().await;
    assert_eq!(server.sessions(), 0);
}

#[tokio::test]
async fn new_accounts_are_welcome_without_a_restart() {
    let (config, _folder) = config();
    let server = start(config).unwrap();
    Accounts::new(server.accounts().path()).set("newcomer", "pw").unwrap();
    tcp(&server).await.login("newcomer").await;
}

#[tokio::test]
async fn servers_answer_what_a_chat_client_asks() {
    let (config, _folder) = config();
    let server = start(config).unwrap();
    let mut client = tcp(&server).await;
    client.login("agent").await;
    let queries = [
        ("<query xmlns='jabber:iq:roster'/>", "type='result'"),
        ("<ping xmlns='urn:xmpp:ping'/>", "type='result'"),
        ("<query xmlns='http://jabber.org/protocol/disco#info'/>", "category='server'"),
        ("<query xmlns='http://jabber.org/protocol/disco#items'/>", "conference.xmpp.test"),
        ("<vCard xmlns='vcard-temp'/>", "item-not-found"),
        ("<query xmlns='jabber:iq:register'/>", "service-unavailable"),
    ];
    for (query, answer) in queries {
        client.say(&format!("<iq type='get' id='q' to='xmpp.test'>{query}</iq>")).await;
        let heard = client.hear("</iq>").await.1;
        assert!(heard.contains(answer), "{query}: {heard}");
    }
    client.say("<enable xmlns='urn:xmpp:sm:3' resume='true'/><presence/><r xmlns='urn:xmpp:sm:3'/>").await;
    let heard = client.hear("h=").await.1;
    assert!(heard.contains("<enabled"), "{heard}");
    assert!(heard.contains("from='agent@xmpp.test/raw'"), "own presence comes back: {heard}");
}

#[tokio::test]
async fn too_big_and_too_deep_stanzas_end_one_session_only() {
    let (config, _folder) = config();
    let server = start(config).unwrap();
    let mut witness = tcp(&server).await;
    witness.login("boss").await;
    let bombs = [
        format!("<message to='boss@xmpp.test/raw'><body>{}</body></message>", "x".repeat(300_000)),
        format!(
            "<message to='boss@xmpp.test/raw'>{}{}</message>",
            "<a>".repeat(20_000),
            "</a>".repeat(20_000)
        ),
        format!("<message to='boss@xmpp.test/raw'>{}", "<a>".repeat(100_000)),
        format!("<message {}/>", "a='1' ".repeat(60_000)),
    ];
    for bomb in bombs {
        let mut client = tcp(&server).await;
        client.login("agent").await;
        client.say(&bomb).await;
        let heard = client.rest().await;
        let what: String = bomb.chars().take(60).collect();
        assert!(heard.contains("policy-violation") || what.starts_with("<message a="), "{what}: {heard}");
    }
    eventually("the sessions end", || server.sessions() == 1).await;
    witness.say("<iq type='get' id='p'><ping xmlns='urn:xmpp:ping'/></iq>").await;
    let heard = witness.hear("type='result'").await.1;
    assert!(!heard.contains("<message"), "nothing of it was passed on: {heard}");
}

#[tokio::test]
async fn a_session_that_takes_nothing_is_cut_and_its_sender_goes_on() {
    let (mut config, _folder) = config();
    config.limits.queue_bytes = 200_000;
    let server = start(config).unwrap();
    let mut lazy = pipe(&server, 4096).await;
    lazy.login("agent").await;
    let mut sender = pipe(&server, 4096).await;
    sender.login("boss").await;
    let message =
        format!("<message type='chat' to='agent@xmpp.test/raw'><body>{}</body></message>", "x".repeat(1000));
    for _ in 0..400 {
        sender.say(&message).await;
    }
    eventually("the lazy session is cut", || server.sessions() == 1).await;
    sender.say("<iq type='get' id='p'><ping xmlns='urn:xmpp:ping'/></iq>").await;
    assert!(sender.hear("type='result'").await.0);
}

#[tokio::test]
async fn a_flood_slows_its_sender_down_and_loses_nothing() {
    let (mut config, _folder) = config();
    config.limits.queue_bytes = 100_000;
    let server = start(config).unwrap();
    let mut reader = pipe(&server, 4096).await;
    reader.login("agent").await;
    let mut sender = pipe(&server, 4096).await;
    sender.login("boss").await;
    const MESSAGES: usize = 5000;
    let sending = tokio::spawn(async move {
        for number in 0..MESSAGES {
            let body = "x".repeat(200);
            sender
                .say(&format!(
                    "<message type='chat' to='agent@xmpp.test/raw'><body>{body} {number}</body></message>"
                ))
                .await;
        }
        sender
    });
    let mut count = 0;
    while count < MESSAGES {
        let (found, heard) = reader.hear("</message>").await;
        assert!(found, "cut after {count}");
        count += heard.matches("</message>").count();
        // What was cut in the middle belongs to the next round.
        let rest = heard.rfind("</message>").map_or(0, |end| end + "</message>".len());
        reader.heard = heard[rest..].to_owned();
    }
    sending.await.unwrap();
}

#[tokio::test]
async fn a_silent_client_is_probed_and_forgotten() {
    let (mut config, _folder) = config();
    config.limits.idle_probe = Duration::from_millis(100);
    config.limits.probe_timeout = Duration::from_millis(200);
    let server = start(config).unwrap();
    let mut client = tcp(&server).await;
    client.login("agent").await;
    assert!(client.hear("urn:xmpp:ping").await.0);
    client.say("<iq type='result' id='alive-1' to='xmpp.test'/>").await;
    assert!(client.hear("alive-2").await.0, "an answer keeps the session");
    eventually("silence ends it", || server.sessions() == 0).await;
}

#[tokio::test]
async fn who_does_not_log_in_in_time_is_shown_out_and_connections_are_counted() {
    let (mut config, _folder) = config();
    config.limits.negotiation = Duration::from_millis(200);
    config.limits.connections_per_address = 2;
    let server = start(config).unwrap();
    let (mut first, mut second) = (tcp(&server).await, tcp(&server).await);
    first.open("xmpp.test").await;
    first.hear("</stream:features>").await;
    let mut third = tcp(&server).await;
    assert_eq!(third.rest().await, "", "one too many is not even greeted");
    first.rest().await;
    second.rest().await;
    let mut fourth = tcp(&server).await;
    fourth.open("xmpp.test").await;
    assert!(fourth.hear("</stream:features>").await.0, "places become free again");
}

#[tokio::test]
async fn presence_reaches_other_sessions_and_whom_it_was_shown_to() {
    let (config, _folder) = config();
    let server = start(config).unwrap();
    let (mut agent, mut boss) = (tcp(&server).await, tcp(&server).await);
    agent.login("agent").await;
    boss.login("boss").await;
    boss.say("<presence/>").await;
    boss.hear("<presence").await;
    agent.say("<presence to='boss@xmpp.test'><status>here</status></presence>").await;
    assert!(boss.hear("</presence>").await.1.contains("here"));
    agent.say("<message to='boss@xmpp.test' type='chat'><body>direct</body></message>").await;
    assert!(boss.hear("</message>").await.1.contains("direct"));
    agent.say("<message to='nobody@xmpp.test' type='chat'><body>direct</body></message>").await;
    assert!(agent.hear("</message>").await.1.contains("service-unavailable"));
    agent.say("<message to='a@elsewhere.test' type='chat'><body>direct</body></message>").await;
    assert!(agent.hear("</message>").await.1.contains("remote-server-not-found"));
    drop(agent);
    assert!(boss.hear("unavailable").await.1.contains("agent@xmpp.test/raw"));
}

#[tokio::test]
async fn a_shutdown_is_announced_and_waited_for() {
    let (config, _folder) = config();
    let server = start(config).unwrap();
    let room = server.room("wps").unwrap();
    let session =
        SessionConfig::new("boss@xmpp.test/b".parse::<crate::Jid>().unwrap(), "pw", server.connector());
    let rooms = vec![RoomConfig { room, nick: "boss".into(), password: None, create: true }];
    let (_muc, mut events) = start_muc(MucConfig { session, rooms, presence: vec![] });
    while !matches!(events.recv().await, Some(MucEvent::Joined { .. })) {}
    let mut raw = tcp(&server).await;
    raw.login("agent").await;
    let connector = server.connector();
    tokio::time::timeout(SOON, server.shutdown()).await.unwrap();
    assert!(raw.rest().await.contains("system-shutdown"));
    let ending = loop {
        if let Some(MucEvent::Offline { ending, .. }) = events.recv().await {
            break ending;
        }
    };
    assert!(
        matches!(&ending, Ending::Stream { condition, .. } if condition == "system-shutdown"),
        "{ending}"
    );
    let timeouts = Timeouts { read_timeout: SOON, response_timeout: SOON };
    assert!(connector.open("xmpp.test", 1000, timeouts).await.is_err());
}
