//! The XMPP layer against real servers: sessions, rooms, private messages and requests on the embedded server, Prosody
//! and ejabberd; what happens when a server dies, when a login is wrong or doubled, when somebody sends too much. Knows
//! no orchestrator and no agent. Servers that are not installed are named as skipped.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, and so do its helpers")]

use std::time::{Duration, Instant};

use e2e::xmpp::{Embedded, OWNER, Place, XmppServer, every_server};
use tokio::sync::mpsc::Receiver;
use wps_remote_xmpp::muc::{self, Muc, MucConfig, MucEvent, RequestError, RoomConfig, SendError};
use wps_remote_xmpp::net::Security;
use wps_remote_xmpp::session::{Ending, SessionConfig};
use wps_remote_xmpp::{StanzaError, parse_payload, payload};

mod raw;

const ROOM_PASSWORD: &str = "room s3cret";
const PASSWORD: &str = "a passw0rd";
/// For whatever must happen soon.
const SOON: Duration = Duration::from_secs(10);

type Events = Receiver<MucEvent>;

fn config(place: &Place, user: &str, security: Security) -> MucConfig {
    MucConfig {
        session: SessionConfig::new(place.jid(user), PASSWORD, place.connector(security)),
        rooms: vec![room_config(place, user)],
        presence: vec![payload("capacity", r#"{"slots":4}"#)],
    }
}

fn room_config(place: &Place, user: &str) -> RoomConfig {
    RoomConfig {
        room: place.room("wps"),
        nick: user.to_owned(),
        password: Some(ROOM_PASSWORD.to_owned()),
        create: user == OWNER,
    }
}

/// Tells a story once per server that is installed here.
fn over_every_server(test: &str, story: impl AsyncFn(&mut dyn XmppServer)) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    for mut server in every_server(test) {
        runtime.block_on(story(&mut *server));
    }
}

/// Waits for an event that fits and gives what `pick` makes of it; panics with all that was seen instead.
async fn until<T>(
    events: &mut Events,
    what: &str,
    limit: Duration,
    mut pick: impl FnMut(MucEvent) -> Option<T>,
) -> T {
    let mut seen = Vec::new();
    let waiting = async {
        while let Some(event) = events.recv().await {
            seen.push(format!("{event:?}").chars().take(300).collect::<String>());
            if let Some(picked) = pick(event) {
                return Some(picked);
            }
        }
        None
    };
    match tokio::time::timeout(limit, waiting).await {
        Ok(Some(picked)) => picked,
        other => panic!(
            "waited for {what} ({}); saw {seen:#?}",
            if other.is_ok() { "channel closed" } else { "deadline" }
        ),
    }
}

async fn joined(events: &mut Events, limit: Duration) {
    until(events, "Joined", limit, |event| matches!(event, MucEvent::Joined { .. }).then_some(())).await;
}

async fn occupant(events: &mut Events, name: &str, limit: Duration) -> muc::Occupant {
    until(events, name, limit, |event| match event {
        MucEvent::Occupant(occupant) if occupant.nick == name => Some(occupant),
        _ => None,
    })
    .await
}

async fn gone(events: &mut Events, name: &str, limit: Duration) {
    let fits = |event| matches!(event, MucEvent::Gone { nick, .. } if nick == name).then_some(());
    until(events, "Gone", limit, fits).await;
}

async fn enter(place: &Place, user: &str, security: Security) -> (Muc, Events) {
    let (muc, mut events) = muc::start(config(place, user, security));
    joined(&mut events, Duration::from_secs(20)).await;
    (muc, events)
}

/// Answers every request with its own payload until the session ends.
fn answer_everything(muc: Muc, mut events: Events) -> tokio::task::JoinHandle<()> {
    tokio::spawn(async move {
        while let Some(event) = events.recv().await {
            if let MucEvent::Request { payload: asked, token, .. } = event {
                let answer = match asked.name() {
                    "refuse" => Err(StanzaError::new("resource-constraint", "all slots are taken")),
                    _ => Ok(Some(asked)),
                };
                muc.respond(token, answer);
            }
        }
    })
}

#[test]
fn occupants_talk_and_ask_over_every_kind_of_connection() {
    over_every_server("rooms", occupants_talk_and_ask_over_every_kind_of_connection_over);
}

async fn occupants_talk_and_ask_over_every_kind_of_connection_over(server: &mut dyn XmppServer) {
    let place = server.place();
    for user in [OWNER, "agent-1"] {
        server.add_account(user, PASSWORD);
    }
    for security in [Security::Plain, Security::StartTls, Security::DirectTls] {
        let label = format!("{} over {security:?}", server.label());
        let (boss, mut boss_events) = enter(place, OWNER, security).await;
        let mut acknowledged = config(place, "agent-1", security);
        // Over one of the three also with acknowledgements (XEP-0198).
        acknowledged.session.stream_management = security == Security::DirectTls;
        let (agent, mut agent_events) = muc::start(acknowledged);
        joined(&mut agent_events, Duration::from_secs(20)).await;
        let seen = occupant(&mut boss_events, "agent-1", SOON).await;
        assert!(seen.fresh, "{label}");
        assert_eq!(seen.real_jid, Some(place.jid("agent-1")), "{label}: the owner sees real addresses");
        let capacity = seen.payloads.iter().find_map(parse_payload);
        assert_eq!(capacity, Some(("capacity".into(), r#"{"slots":4}"#.into())), "{label}");
        let seen = occupant(&mut agent_events, OWNER, SOON).await;
        assert_eq!(seen.real_jid, None, "{label}: agents do not");

        agent.set_presence(vec![payload("capacity", r#"{"slots":3}"#)]).unwrap();
        let seen = occupant(&mut boss_events, "agent-1", SOON).await;
        assert!(
            !seen.fresh && seen.payloads.iter().filter_map(parse_payload).any(|(_, json)| json.contains('3')),
            "{label}"
        );

        let room = place.room("wps");
        let text = "topic=request&x=%26 <&>'\" é \u{1F600}\n\ttabs".to_owned() + &"y".repeat(150_000);
        boss.send_body(&room, "agent-1", &text).unwrap();
        boss.send(&room, "agent-1", payload("progress", r#"{"a":"<&>\" é"}"#)).unwrap();
        let body = until(&mut agent_events, "body", SOON, |event| match event {
            MucEvent::Message { body: Some(body), private: true, nick, .. } if nick == OWNER => Some(body),
            _ => None,
        })
        .await;
        assert!(body == text, "{label}: a text of 150 kB arrives as it was sent");
        let json = until(&mut agent_events, "payload", SOON, |event| match event {
            MucEvent::Message { payloads, .. } => payloads.iter().find_map(parse_payload),
            _ => None,
        })
        .await;
        assert_eq!(json, ("progress".into(), r#"{"a":"<&>\" é"}"#.into()), "{label}");

        let answering = answer_everything(agent.clone(), agent_events);
        let ask =
            |name: &str| boss.request(&room, "agent-1", payload(name, r#"{"id":1}"#), Duration::from_secs(5));
        let answer = ask("execute").await.unwrap_or_else(|error| panic!("{label}: {error}"));
        assert_eq!(
            answer.as_ref().and_then(parse_payload),
            Some(("execute".into(), r#"{"id":1}"#.into())),
            "{label}"
        );
        match ask("refuse").await {
            Err(RequestError::Refused(error)) => {
                assert_eq!(error.condition, "resource-constraint", "{label}")
            }
            other => panic!("{label}: {other:?}"),
        }
        let mut times: Vec<_> = Vec::new();
        for _ in 0..100 {
            let start = Instant::now();
            ask("execute").await.unwrap();
            times.push(start.elapsed());
        }
        times.sort();
        e2e::tell(&format!("{label}: request through the room p50 {:?}, p99 {:?}", times[50], times[98]));

        match boss.request(&room, "nobody", payload("execute", "{}"), Duration::from_secs(5)).await {
            Err(RequestError::Refused(error)) => e2e::tell(&format!("{label}: absent occupant: {error}")),
            other => panic!("{label}: {other:?}"),
        }
        boss.send(&room, "nobody", payload("abort", "{}")).unwrap();
        let bounced = until(&mut boss_events, "Bounced", SOON, |event| match event {
            MucEvent::Bounced { nick, payload, condition, .. } if nick == "nobody" => {
                Some((payload, condition))
            }
            _ => None,
        })
        .await;
        assert_eq!(bounced, (Some("abort".into()), "item-not-found".into()), "{label}");
        let too_big = boss.send_body(&room, "agent-1", &"x".repeat(250_000));
        assert!(matches!(too_big, Err(SendError::TooBig { .. })), "{label}");

        agent.close().await;
        gone(&mut boss_events, "agent-1", SOON).await;
        answering.await.unwrap();
        boss.close().await;
    }
}

#[test]
fn everybody_is_back_within_ten_seconds_of_a_killed_server() {
    over_every_server("restart", everybody_is_back_within_ten_seconds_of_a_killed_server_over);
}

async fn everybody_is_back_within_ten_seconds_of_a_killed_server_over(server: &mut dyn XmppServer) {
    let label = server.label();
    let place = server.place().clone();
    for user in [OWNER, "agent-1", "agent-2"] {
        server.add_account(user, PASSWORD);
    }
    let (boss, mut boss_events) = enter(&place, OWNER, Security::StartTls).await;
    let (one, mut one_events) = enter(&place, "agent-1", Security::DirectTls).await;
    let (_two, mut two_events) = enter(&place, "agent-2", Security::Plain).await;
    occupant(&mut boss_events, "agent-1", SOON).await;
    occupant(&mut boss_events, "agent-2", SOON).await;
    tokio::task::block_in_place(|| server.kill());
    for events in [&mut boss_events, &mut one_events, &mut two_events] {
        until(events, "Offline", SOON, |event| matches!(event, MucEvent::Offline { .. }).then_some(())).await;
    }
    assert_eq!(boss.send_body(&place.room("wps"), "agent-1", "x"), Err(SendError::Offline), "{label}");
    // Long enough for the waits to have grown to their longest.
    tokio::time::sleep(Duration::from_secs(8)).await;
    tokio::task::block_in_place(|| server.restart());
    let back = Instant::now();
    joined(&mut boss_events, SOON).await;
    for name in ["agent-1", "agent-2"] {
        joined(if name == "agent-1" { &mut one_events } else { &mut two_events }, SOON).await;
    }
    let answering = answer_everything(one, one_events);
    let answer =
        boss.request(&place.room("wps"), "agent-1", payload("execute", "{}"), Duration::from_secs(5)).await;
    assert!(answer.is_ok(), "{label}: {answer:?}");
    e2e::tell(&format!("{label}: all back in service {:?} after the server", back.elapsed()));
    assert!(back.elapsed() < Duration::from_secs(10), "{label}: {:?}", back.elapsed());
    boss.close().await;
    answering.abort();
}

#[test]
fn wrong_logins_and_doubled_addresses_are_told() {
    over_every_server("logins", wrong_logins_and_doubled_addresses_are_told_over);
}

async fn wrong_logins_and_doubled_addresses_are_told_over(server: &mut dyn XmppServer) {
    let (label, place) = (server.label(), server.place());
    for user in [OWNER, "agent-1"] {
        server.add_account(user, PASSWORD);
    }
    let ending_of = |event| match event {
        MucEvent::Offline { ending, retry_in } => Some((ending, retry_in)),
        _ => None,
    };
    for (user, password) in [("agent-1", "wrong"), ("stranger", PASSWORD)] {
        let mut wrong = config(place, user, Security::StartTls);
        wrong.session.password = password.to_owned();
        let (_muc, mut events) = muc::start(wrong);
        let (ending, retry_in) = until(&mut events, "Offline", Duration::from_secs(20), ending_of).await;
        assert!(matches!(ending, Ending::Auth { .. }), "{label}: {ending:?}");
        assert!(retry_in >= Duration::from_secs(1), "{label}: a wrong password is not tried again at once");
    }
    let (_boss, mut boss_events) = enter(place, OWNER, Security::Plain).await;
    let (_first, mut first_events) = enter(place, "agent-1", Security::Plain).await;
    let (second, mut second_events) = muc::start(config(place, "agent-1", Security::Plain));
    let (ending, retry_in) = until(&mut first_events, "Offline", SOON, ending_of).await;
    assert!(matches!(ending, Ending::Conflict { .. }), "{label}: {ending:?}");
    assert!(
        retry_in >= Duration::from_secs(1),
        "{label}: the two must not push each other out in a hot loop"
    );
    joined(&mut second_events, SOON).await;
    occupant(&mut boss_events, "agent-1", SOON).await;
    second.close().await;

    let mut untrusted = config(place, "agent-1", Security::DirectTls);
    let trust = wps_remote_xmpp::net::Trust::pin([7; 32]);
    untrusted.session.connector =
        wps_remote_xmpp::net::Connector::tcp(&place.host, place.tls_port, Security::DirectTls, &trust)
            .unwrap();
    let (_muc, mut events) = muc::start(untrusted);
    let (ending, _) = until(&mut events, "Offline", SOON, ending_of).await;
    assert!(matches!(ending, Ending::Tls(_)), "{label}: {ending:?}");
}

#[test]
fn ten_thousand_messages_arrive_in_order() {
    over_every_server("flood", ten_thousand_messages_arrive_in_order_over);
}

async fn ten_thousand_messages_arrive_in_order_over(server: &mut dyn XmppServer) {
    const MESSAGES: usize = 10_000;
    let (label, place) = (server.label(), server.place());
    for user in [OWNER, "agent-1"] {
        server.add_account(user, PASSWORD);
    }
    let (boss, mut boss_events) = enter(place, OWNER, Security::Plain).await;
    let (agent, _agent_events) = enter(place, "agent-1", Security::Plain).await;
    occupant(&mut boss_events, "agent-1", SOON).await;
    let start = Instant::now();
    let room = place.room("wps");
    let sending = tokio::spawn(async move {
        let filler = "x".repeat(500);
        for number in 0..MESSAGES {
            while agent.send_body(&room, OWNER, &format!("{number} {filler}")) == Err(SendError::QueueFull) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        (agent, _agent_events)
    });
    for number in 0..MESSAGES {
        let body = until(
            &mut boss_events,
            &format!("{label}: message {number}"),
            Duration::from_secs(30),
            |event| match event {
                MucEvent::Message { body, .. } => body,
                other => panic!("{label}: instead of message {number}: {other:?}"),
            },
        )
        .await;
        assert_eq!(body.split(' ').next(), Some(number.to_string().as_str()), "{label}");
    }
    e2e::tell(&format!("{label}: {MESSAGES} messages of 500 bytes in {:?}", start.elapsed()));
    sending.await.unwrap();
    boss.close().await;
}

/// What a hostile occupant sends to its victim: levels of nesting, then sheer size.
fn bombs(to: &str) -> [(&'static str, String); 2] {
    let nested =
        format!("<message type='chat' to='{to}'>{}{}</message>", "<a>".repeat(20_000), "</a>".repeat(20_000));
    let big = format!("<message type='chat' to='{to}'><body>{}</body></message>", "x".repeat(300_000));
    [("20,000 nested elements", nested), ("300 kB", big)]
}

#[test]
fn bombs_hurt_only_those_who_send_them() {
    over_every_server("bombs", bombs_hurt_only_those_who_send_them_over);
}

async fn bombs_hurt_only_those_who_send_them_over(server: &mut dyn XmppServer) {
    let (label, place) = (server.label(), server.place().clone());
    for user in [OWNER, "agent-1", "villain"] {
        server.add_account(user, PASSWORD);
    }
    let (boss, mut boss_events) = enter(&place, OWNER, Security::Plain).await;
    let (agent, agent_events) = enter(&place, "agent-1", Security::Plain).await;
    let answering = answer_everything(agent, agent_events);
    occupant(&mut boss_events, "agent-1", SOON).await;
    for (what, bomb) in bombs(&format!("{}/{OWNER}", place.room("wps"))) {
        if label == "ejabberd" && what.contains("nested") {
            e2e::skip("nested elements over ejabberd", "they bring down ejabberd 23.01 itself");
            continue;
        }
        let villain_place = place.clone();
        let answer = tokio::task::spawn_blocking(move || {
            let mut villain = raw::Client::login(&villain_place, "villain", PASSWORD);
            villain.join(&villain_place.room("wps").to_string(), "villain", ROOM_PASSWORD);
            villain.throw(&bomb)
        })
        .await
        .unwrap();
        e2e::tell(&format!(
            "{label}: {what}: the sender was told {:?}",
            answer.chars().take(400).collect::<String>()
        ));
        if label == "embedded" {
            assert!(answer.contains("policy-violation"), "{label}: {what}: {answer}");
        }
        gone(&mut boss_events, "villain", SOON).await;
        let room = place.room("wps");
        let request = boss.request(&room, "agent-1", payload("execute", "{}"), Duration::from_secs(5));
        assert!(request.await.is_ok(), "{label}: {what}: the others go on");
        assert!(boss.is_online(), "{label}: {what}");
    }
    answering.abort();
}

#[test]
fn a_killed_peer_is_seen_at_once() {
    over_every_server("vanished peers", a_killed_peer_is_seen_at_once_over);
}

async fn a_killed_peer_is_seen_at_once_over(server: &mut dyn XmppServer) {
    let (label, place) = (server.label(), server.place().clone());
    for user in [OWNER, "villain"] {
        server.add_account(user, PASSWORD);
    }
    let (_boss, mut boss_events) = enter(&place, OWNER, Security::Plain).await;
    let raw_place = place.clone();
    let client = tokio::task::spawn_blocking(move || {
        let mut client = raw::Client::login(&raw_place, "villain", PASSWORD);
        client.join(&raw_place.room("wps").to_string(), "villain", ROOM_PASSWORD);
        client
    })
    .await
    .unwrap();
    occupant(&mut boss_events, "villain", SOON).await;
    let start = Instant::now();
    // The socket is closed without a word, as when a process is killed.
    drop(client);
    gone(&mut boss_events, "villain", Duration::from_secs(2)).await;
    e2e::tell(&format!("{label}: a killed peer was gone after {:?}", start.elapsed()));
}

#[test]
fn slixmpp_meets_an_occupant_on_the_embedded_server() {
    let python = match e2e::python::python_with(&["slixmpp"]) {
        Ok(python) => python,
        Err(why) => return e2e::skip("slixmpp on the embedded server", &why),
    };
    let server = Embedded::start();
    for user in [OWNER, "python"] {
        server.add_account(user, PASSWORD);
    }
    let place = server.place().clone();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    for (mode, security) in
        [("plain", Security::Plain), ("starttls", Security::StartTls), ("tls", Security::DirectTls)]
    {
        runtime.block_on(async {
            let (boss, mut boss_events) = enter(&place, OWNER, Security::StartTls).await;
            let port = if security == Security::DirectTls { place.tls_port } else { place.port };
            let script = e2e::root().join("tests/clients/xmpp_occupant.py");
            let child = tokio::process::Command::new(&python)
                .arg(script)
                .args([mode, &place.host, &port.to_string(), &place.jid("python").to_string(), PASSWORD])
                .args([&place.room("wps").to_string(), ROOM_PASSWORD, OWNER])
                .arg(&place.ca_file)
                .stdout(std::process::Stdio::piped())
                .stderr(std::process::Stdio::piped())
                .kill_on_drop(true)
                .spawn()
                .unwrap();
            let meeting = async {
                occupant(&mut boss_events, "python", Duration::from_secs(20)).await;
                let room = place.room("wps");
                let body = until(&mut boss_events, "a message from Python", SOON, |event| match event {
                    MucEvent::Message { body, private: true, .. } => body,
                    _ => None,
                })
                .await;
                assert_eq!(body, "hello from python & <friends>");
                boss.send_body(&room, "python", "hello from rust & <friends>").unwrap();
                gone(&mut boss_events, "python", Duration::from_secs(20)).await;
            };
            let (_, output) = tokio::join!(meeting, child.wait_with_output());
            let output = output.unwrap();
            let (said, errors) =
                (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
            assert!(output.status.success(), "{mode}: {said}\n{errors}");
            assert!(
                said.contains("ping answered") && said.contains("got: hello from rust & <friends>"),
                "{mode}: {said}\n{errors}"
            );
            boss.close().await;
        });
    }
}
