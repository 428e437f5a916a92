//! Tests of the rooms against the embedded server, in one process and without ports.

use super::*;
use crate::payload;
use crate::server::{Accounts, Server, ServerConfig, start as start_server};
use std::time::Instant;

struct House {
    server: Server,
    room: BareJid,
    _folder: tempfile::TempDir,
}

impl House {
    fn open() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let accounts = Accounts::new(folder.path().join("accounts"));
        for user in ["boss", "agent", "other"] {
            accounts.set(user, user).unwrap();
        }
        let config =
            ServerConfig { owners: vec!["boss".into()], ..ServerConfig::new("xmpp.test", accounts.path()) };
        let server = start_server(config).unwrap();
        let room = server.room("wps").unwrap();
        Self { server, room, _folder: folder }
    }

    fn room_config(&self, nick: &str, create: bool) -> RoomConfig {
        RoomConfig { room: self.room.clone(), nick: nick.into(), password: Some("s3cret".into()), create }
    }

    fn config(&self, user: &str) -> MucConfig {
        let jid: Jid = format!("{user}@xmpp.test/{user}").parse().unwrap();
        let session = SessionConfig::new(jid, user, self.server.connector());
        MucConfig { session, rooms: vec![self.room_config(user, user == "boss")], presence: vec![] }
    }

    async fn enter(&self, user: &str) -> (Muc, mpsc::Receiver<MucEvent>) {
        let (muc, mut events) = start(self.config(user));
        until(&mut events, |event| matches!(event, MucEvent::Joined { .. })).await;
        (muc, events)
    }
}

/// Waits for an event that fits, and gives the ones before it too.
async fn until(events: &mut mpsc::Receiver<MucEvent>, fits: impl Fn(&MucEvent) -> bool) -> Vec<MucEvent> {
    let mut seen = Vec::new();
    let wait = async {
        while let Some(event) = events.recv().await {
            let found = fits(&event);
            seen.push(event);
            if found {
                return true;
            }
        }
        false
    };
    let found = tokio::time::timeout(Duration::from_secs(10), wait).await;
    assert_eq!(found, Ok(true), "only saw {seen:?}");
    seen
}

fn is_occupant(event: &MucEvent, name: &str) -> bool {
    matches!(event, MucEvent::Occupant(occupant) if occupant.nick == name)
}

#[tokio::test]
async fn occupants_meet_talk_and_ask() {
    let house = House::open();
    let (boss, mut boss_events) = house.enter("boss").await;
    let mut config = house.config("agent");
    config.presence = vec![payload("capacity", "4")];
    let (agent, mut agent_events) = start(config);
    let seen = until(&mut boss_events, |event| is_occupant(event, "agent")).await;
    let Some(MucEvent::Occupant(occupant)) = seen.last() else { panic!() };
    assert!(occupant.fresh);
    assert_eq!(occupant.real_jid, Some("agent@xmpp.test/agent".parse().unwrap()));
    assert_eq!(crate::parse_payload(&occupant.payloads[0]), Some(("capacity".into(), "4".into())));
    let seen = until(&mut agent_events, |event| is_occupant(event, "boss")).await;
    assert!(matches!(&seen[1], MucEvent::Joined { room } if *room == house.room), "{seen:?}");

    agent.set_presence(vec![payload("capacity", "3")]).unwrap();
    let seen = until(&mut boss_events, |event| is_occupant(event, "agent")).await;
    assert!(matches!(seen.last(), Some(MucEvent::Occupant(o)) if !o.fresh && o.payloads.len() == 1));

    boss.send(&house.room, "agent", payload("progress", r#"{"percent":50}"#)).unwrap();
    boss.send_body(&house.room, "agent", "topic=invite&a=%26").unwrap();
    let seen = until(&mut agent_events, |e| matches!(e, MucEvent::Message { body: Some(_), .. })).await;
    let [MucEvent::Message { nick, private: true, payloads, .. }, MucEvent::Message { body, .. }] = &seen[..]
    else {
        panic!("{seen:?}")
    };
    assert_eq!((nick.as_str(), payloads.len()), ("boss", 1));
    assert_eq!(body.as_deref(), Some("topic=invite&a=%26"));

    let answering = tokio::spawn(async move {
        let mut answers =
            vec![Ok(Some(payload("taken", "{}"))), Err(StanzaError::new("resource-constraint", "full"))];
        while !answers.is_empty() {
            match agent_events.recv().await {
                Some(MucEvent::Request { payload, token, nick, .. }) => {
                    assert_eq!((payload.name(), nick.as_str()), ("execute", "boss"));
                    agent.respond(token, answers.remove(0));
                }
                other => panic!("{other:?}"),
            }
        }
        // The third request is dropped without an answer.
        assert!(matches!(agent_events.recv().await, Some(MucEvent::Request { .. })));
        (agent, agent_events)
    });
    let ask = || boss.request(&house.room, "agent", payload("execute", "{}"), Duration::from_secs(5));
    assert_eq!(ask().await.unwrap().unwrap().name(), "taken");
    let full = StanzaError { by_peer: true, ..StanzaError::new("resource-constraint", "full") };
    assert_eq!(ask().await, Err(RequestError::Refused(full)));
    let Err(RequestError::Refused(error)) = ask().await else { panic!() };
    assert_eq!(error.condition, "internal-server-error");

    let (agent, _agent_events) = answering.await.unwrap();
    agent.close().await;
    until(&mut boss_events, |e| matches!(e, MucEvent::Gone { nick, .. } if nick == "agent")).await;
    let Err(RequestError::Refused(error)) = ask().await else { panic!() };
    assert_eq!(error.condition, "item-not-found");
    boss.send(&house.room, "agent", payload("progress", "{}")).unwrap();
    let seen = until(&mut boss_events, |e| matches!(e, MucEvent::Bounced { .. })).await;
    let Some(MucEvent::Bounced { nick, payload, condition, .. }) = seen.last() else { panic!() };
    assert_eq!(
        (nick.as_str(), payload.as_deref(), condition.as_str()),
        ("agent", Some("progress"), "item-not-found")
    );
}

#[tokio::test]
async fn what_cannot_be_sent_is_refused_at_once() {
    let house = House::open();
    let (boss, _events) = house.enter("boss").await;
    let too_big = boss.send_body(&house.room, "agent", &"x".repeat(300_000));
    assert!(matches!(too_big, Err(SendError::TooBig { bytes }) if bytes > 300_000));
    assert!(matches!(boss.send_body(&house.room, "agent", "a\u{0}"), Err(SendError::Unsendable(_))));
    assert!(matches!(boss.send_body(&house.room, "", "a"), Err(SendError::BadNick { .. })));
    assert!(matches!(boss.set_presence(vec![payload("x", "\u{1}")]), Err(SendError::Unsendable(_))));
    let elsewhere: BareJid = "elsewhere@conference.xmpp.test".parse().unwrap();
    let answer = boss.request(&elsewhere, "agent", payload("x", "{}"), Duration::from_secs(1)).await;
    assert_eq!(answer, Err(RequestError::NotJoined { room: elsewhere }));
    let clone = boss.clone();
    boss.close().await;
    assert_eq!(clone.send_body(&house.room, "agent", "a"), Err(SendError::Closed));
}

#[tokio::test]
async fn a_join_before_its_room_exists_succeeds_later() {
    let house = House::open();
    let (_agent, mut agent_events) = start(house.config("agent"));
    let seen = until(&mut agent_events, |e| matches!(e, MucEvent::JoinRefused { .. })).await;
    assert!(
        matches!(seen.last(), Some(MucEvent::JoinRefused { condition, .. }) if condition == "item-not-found")
    );
    let (_boss, _boss_events) = house.enter("boss").await;
    until(&mut agent_events, |e| matches!(e, MucEvent::Joined { .. })).await;
}

#[tokio::test]
async fn wrong_passwords_and_taken_names_are_told() {
    let house = House::open();
    let (_boss, _boss_events) = house.enter("boss").await;
    let mut config = house.config("agent");
    config.rooms[0].password = Some("wrong".into());
    let (agent, mut agent_events) = start(config);
    let refused = |condition: &'static str| move |e: &MucEvent| matches!(e, MucEvent::JoinRefused { condition: c, .. } if c == condition);
    until(&mut agent_events, refused("not-authorized")).await;
    agent.join(house.room_config("boss", false));
    until(&mut agent_events, refused("conflict")).await;
    agent.join(house.room_config("agent", false));
    until(&mut agent_events, |e| matches!(e, MucEvent::Joined { .. })).await;
    agent.leave(&house.room);
    until(&mut agent_events, |e| matches!(e, MucEvent::Left { reason: None, .. })).await;
    let mut config = house.config("agent");
    config.session.password = "wrong".into();
    let (_stranger, mut events) = start(config);
    let seen = until(&mut events, |e| matches!(e, MucEvent::Offline { .. })).await;
    let Some(MucEvent::Offline { ending, retry_in }) = seen.last() else { panic!() };
    assert!(matches!(ending, Ending::Auth { .. }), "{ending}");
    assert!(*retry_in >= Duration::from_secs(1));
}

#[tokio::test]
async fn the_same_address_twice_ends_in_a_conflict_for_the_first() {
    let house = House::open();
    let (_boss, mut boss_events) = house.enter("boss").await;
    let (_first, mut first_events) = house.enter("agent").await;
    let (_second, _second_events) = house.enter("agent").await;
    let seen = until(&mut first_events, |e| matches!(e, MucEvent::Offline { .. })).await;
    let Some(MucEvent::Offline { ending, retry_in }) = seen.last() else { panic!() };
    assert!(matches!(ending, Ending::Conflict { .. }), "{ending}");
    assert!(*retry_in >= Duration::from_secs(1), "the two must not replace each other in a hot loop");
    until(&mut boss_events, |e| matches!(e, MucEvent::Gone { nick, .. } if nick == "agent")).await;
    until(&mut boss_events, |e| is_occupant(e, "agent")).await;
}

#[tokio::test]
async fn many_messages_arrive_in_order_at_a_consumer_that_starts_late() {
    let house = House::open();
    let (boss, mut boss_events) = house.enter("boss").await;
    let (agent, _agent_events) = house.enter("agent").await;
    until(&mut boss_events, |e| is_occupant(e, "agent")).await;
    const MESSAGES: usize = 12_000;
    let sending = tokio::spawn({
        let room = house.room.clone();
        async move {
            for number in 0..MESSAGES {
                while agent.send_body(&room, "boss", &format!("{number} {}", "x".repeat(500)))
                    == Err(SendError::QueueFull)
                {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            }
            agent
        }
    });
    // The consumer sleeps until channel and backlog are full and reading has stopped.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let mut next = 0;
    let start = Instant::now();
    while next < MESSAGES {
        match tokio::time::timeout(Duration::from_secs(20), boss_events.recv()).await.unwrap() {
            Some(MucEvent::Message { body: Some(body), .. }) => {
                let number: usize = body.split(' ').next().unwrap().parse().unwrap();
                assert_eq!(number, next);
                next += 1;
            }
            other => panic!("after {next}: {other:?}"),
        }
    }
    println!("{MESSAGES} messages drained in {:?}", start.elapsed());
    sending.await.unwrap();
    drop(boss);
}
