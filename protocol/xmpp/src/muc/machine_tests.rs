//! The rooms as a machine: stanzas and time in, stanzas and events out; no server, no clock, no chance.

use super::*;
use crate::stream::Gauge;
use std::sync::atomic::{AtomicBool, AtomicU64};

struct Bench {
    machine: Machine,
    now: Instant,
    commands: mpsc::UnboundedReceiver<Command>,
    _sender: mpsc::UnboundedSender<Command>,
}

const ME: &str = "wps@muc.x/me";

impl Bench {
    /// One room, not yet online.
    fn new(create: bool) -> Self {
        let (sender, commands) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared {
            online: AtomicBool::new(false),
            queue: Gauge::new(1000),
            messages: AtomicU64::new(0),
        });
        let room = RoomConfig {
            room: "wps@muc.x".parse().unwrap(),
            nick: "me".into(),
            password: Some("pw".into()),
            create,
        };
        let machine = Machine::new(vec![room], vec![], shared, sender.downgrade()).without_jitter();
        Self { machine, now: Instant::now(), commands, _sender: sender }
    }

    fn act<R>(&mut self, action: impl FnOnce(&mut Machine, &mut Out) -> R) -> Vec<String> {
        let mut out = Output::new(self.now);
        action(&mut self.machine, &mut out);
        let stanzas = out.stanzas.iter().map(|stanza| format!("> {}", brief(&stanza.element)));
        let mut lines: Vec<_> = stanzas.collect();
        lines.extend(out.events.into_iter().map(|event| told(&event)));
        lines
    }

    fn online(&mut self) -> Vec<String> {
        self.act(|machine, out| machine.online(&"me@x/r".parse().unwrap(), out))
    }

    fn hear(&mut self, stanza: &str) -> Vec<String> {
        let stanza: Element = stanza.replacen(' ', " xmlns='jabber:client' ", 1).parse().unwrap();
        self.act(|machine, out| machine.stanza(stanza, out))
    }

    fn presence(&mut self, nick: &str, codes: &[&str], affiliation: &str) -> Vec<String> {
        let codes: String = codes.iter().map(|code| format!("<status code='{code}'/>")).collect();
        self.hear(&format!(
            "<presence from='wps@muc.x/{nick}'><x xmlns='{}'><item affiliation='{affiliation}' role='participant'/>{codes}</x></presence>",
            ns::MUC_USER
        ))
    }

    fn gone(&mut self, nick: &str, code: &str) -> Vec<String> {
        self.hear(&format!(
            "<presence from='wps@muc.x/{nick}' type='unavailable'><x xmlns='{}'><item role='none'><reason>why</reason></item><status code='{code}'/></x></presence>",
            ns::MUC_USER
        ))
    }

    /// Lets time pass until the machine's own deadline.
    fn wait(&mut self) -> (Duration, Vec<String>) {
        let deadline = self.machine.deadline().expect("something is awaited");
        let passed = deadline.duration_since(self.now);
        self.now = deadline;
        (passed, self.act(|machine, out| machine.tick(out)))
    }

    fn joined() -> Self {
        let mut bench = Self::new(false);
        bench.online();
        assert_eq!(bench.presence("me", &["110"], "none"), ["Joined"]);
        bench
    }
}

fn brief(stanza: &Element) -> String {
    let mut text = format!(
        "{} {} {}",
        stanza.name(),
        stanza.attr("type").unwrap_or("-"),
        stanza.attr("to").unwrap_or("-")
    );
    for child in stanza.children() {
        text += &format!(" <{}>", child.name());
    }
    text
}

fn told(event: &MucEvent) -> String {
    match event {
        MucEvent::Online { .. } => "Online".into(),
        MucEvent::Offline { ending, .. } => format!("Offline {ending}"),
        MucEvent::Joined { .. } => "Joined".into(),
        MucEvent::JoinRefused { condition, retry_in, .. } => format!("JoinRefused {condition} {retry_in:?}"),
        MucEvent::Left { reason, .. } => format!("Left {}", reason.as_deref().unwrap_or("-")),
        MucEvent::Occupant(occupant) => {
            format!("Occupant {} {}", occupant.nick, if occupant.fresh { "new" } else { "changed" })
        }
        MucEvent::Gone { nick, reason, .. } => format!("Gone {nick} {}", reason.as_deref().unwrap_or("-")),
        MucEvent::Message { nick, private, body, payloads, .. } => {
            format!("Message {nick} {private} {} {}", body.as_deref().unwrap_or("-"), payloads.len())
        }
        MucEvent::Request { nick, payload, .. } => format!("Request {nick} {}", payload.name()),
        MucEvent::Bounced { nick, payload, condition, .. } => {
            format!("Bounced {nick} {} {condition}", payload.as_deref().unwrap_or("-"))
        }
    }
}

const JOIN: &str = "> presence - wps@muc.x/me <x>";
const LEAVE: &str = "> presence unavailable wps@muc.x/me";

#[test]
fn what_comes_before_the_join_is_complete_is_told_after_it() {
    let mut bench = Bench::new(false);
    assert_eq!(bench.machine.deadline(), None);
    assert_eq!(bench.online(), [JOIN, "Online"]);
    assert!(bench.presence("a", &[], "none").is_empty());
    assert!(bench.hear("<message from='wps@muc.x/a' type='chat'><body>hi</body></message>").is_empty());
    assert_eq!(bench.presence("me", &["110"], "none"), ["Joined", "Occupant a new", "Message a true hi 0"]);
    assert_eq!(bench.presence("a", &[], "none"), ["Occupant a changed"]);
    assert_eq!(bench.gone("a", "307"), ["Gone a kicked: why"]);
    assert!(bench.gone("a", "307").is_empty(), "nobody leaves twice");
    assert!(
        bench.hear("<presence from='wps@muc.x'><c xmlns='caps'/></presence>").is_empty(),
        "the room is no occupant"
    );
    assert!(bench.presence("me", &["110"], "none").is_empty(), "nor are we");
}

#[test]
fn an_owner_configures_the_room_before_it_is_joined() {
    let mut bench = Bench::new(true);
    bench.online();
    assert_eq!(bench.presence("me", &["110", "201"], "owner"), ["> iq set wps@muc.x <query>"]);
    let answer = |bench: &mut Bench, kind: &str| {
        let id = bench.machine.requests.id("x").replace("-2-x", "-1-form").replace("-4-x", "-3-form");
        bench.hear(&format!("<iq from='wps@muc.x' id='{id}' type='{kind}'/>"))
    };
    assert!(bench.hear("<iq from='evil@x/y' id='guess' type='result'/>").is_empty());
    assert_eq!(answer(&mut bench, "error"), [LEAVE, "JoinRefused undefined-condition 250ms"]);
    assert_eq!(bench.wait(), (Duration::from_millis(250), vec![JOIN.to_owned()]));
    bench.presence("me", &["110"], "owner");
    assert_eq!(answer(&mut bench, "result"), ["Joined"]);
}

#[test]
fn a_room_that_the_join_created_by_accident_is_left_again() {
    let mut bench = Bench::new(false);
    bench.online();
    assert_eq!(bench.presence("me", &["110", "201"], "owner"), [LEAVE, "JoinRefused item-not-found 250ms"]);
    assert!(bench.gone("me", "110").is_empty(), "the answer to that is nothing new");
}

#[test]
fn a_refused_or_unanswered_join_is_repeated_ever_later() {
    let mut bench = Bench::new(false);
    bench.online();
    let refuse = "<presence from='wps@muc.x/me' type='error'><error type='cancel'><conflict xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></presence>";
    for wait in ["250ms", "500ms", "1s", "2s", "2s"] {
        assert_eq!(bench.hear(refuse), [format!("JoinRefused conflict {wait}")]);
        assert_eq!(bench.wait().1, [JOIN]);
    }
    let (waited, lines) = bench.wait();
    assert_eq!(
        (waited.as_secs(), lines),
        (10, vec![LEAVE.to_owned(), "JoinRefused remote-server-timeout 2s".to_owned()])
    );
}

#[test]
fn a_lost_room_is_told_and_joined_again() {
    let mut bench = Bench::joined();
    bench.presence("a", &[], "none");
    assert_eq!(bench.gone("me", "307"), ["Left kicked: why"]);
    assert!(bench.presence("a", &[], "none").is_empty(), "the room is over");
    assert_eq!(bench.wait().1, [JOIN]);
    bench.presence("a", &[], "none");
    assert_eq!(bench.presence("me", &["110"], "none"), ["Joined", "Occupant a new"]);
}

#[test]
fn a_quiet_room_is_asked_whether_it_still_knows_us() {
    let mut bench = Bench::joined();
    let (waited, lines) = bench.wait();
    assert_eq!((waited.as_secs(), lines), (60, vec![format!("> iq get {ME} <ping>")]));
    let id = bench.machine.requests.id("x").replace("-2-x", "-1-self");
    assert!(bench.hear(&format!("<iq from='{ME}' id='{id}' type='result'/>")).is_empty());
    assert_eq!(bench.wait().1, [format!("> iq get {ME} <ping>")]);
    let id = bench.machine.requests.id("x").replace("-4-x", "-3-self");
    let no = "<error type='cancel'><not-acceptable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>";
    assert_eq!(
        bench.hear(&format!("<iq from='{ME}' id='{id}' type='error'>{no}</iq>")),
        ["Left the room no longer knows us: not-acceptable"]
    );
    let mut bench = Bench::joined();
    bench.wait();
    let (waited, lines) = bench.wait();
    assert_eq!(
        (waited.as_secs(), lines),
        (10, vec![LEAVE.to_owned(), "Left the room does not answer".to_owned()])
    );
}

#[test]
fn stale_messages_and_our_own_are_not_told() {
    let mut bench = Bench::joined();
    for silent in [
        "<message from='wps@muc.x/a' type='chat'><body>old</body><delay xmlns='urn:xmpp:delay' stamp='2020-01-01T00:00:00Z'/></message>",
        "<message from='wps@muc.x/me' type='groupchat'><body>mine</body></message>",
        "<message from='wps@muc.x' type='groupchat'><subject>s</subject></message>",
        "<message from='other@muc.x/a' type='chat'><body>another room</body></message>",
        "<message from='me@x/other' type='chat'><body>no room</body></message>",
        "<message type='chat'><body>nobody</body></message>",
    ] {
        assert!(bench.hear(silent).is_empty(), "{silent}");
    }
    assert_eq!(
        bench.hear("<message from='wps@muc.x/a' type='groupchat'><body>all</body></message>"),
        ["Message a false all 0"]
    );
}

#[test]
fn a_request_is_answered_once_even_if_it_is_dropped() {
    let mut bench = Bench::joined();
    let request = "<iq from='wps@muc.x/a' type='set' id='7'><execute xmlns='urn:x'/></iq>";
    assert_eq!(bench.hear(request), ["Request a execute"]);
    let Ok(Command::Respond { reply, answer }) = bench.commands.try_recv() else { panic!("no answer") };
    assert_eq!(answer.as_ref().unwrap_err().condition, "internal-server-error");
    let command = Command::Respond { reply: reply.clone(), answer };
    assert_eq!(bench.act(|machine, out| machine.command(command, out)), ["> iq error wps@muc.x/a <error>"]);
    // Over the next connection the answer would reach nobody, or somebody else.
    bench.act(|machine, out| machine.offline(&Ending::Closed, Duration::ZERO, out));
    bench.online();
    let late = Command::Respond { reply, answer: Ok(None) };
    assert!(bench.act(|machine, out| machine.command(late, out)).is_empty());
    for refused in [
        "<iq from='x@y/z' type='set' id='7'><execute xmlns='urn:x'/></iq>",
        "<iq from='wps@muc.x/a' type='get' id='7'><time xmlns='t'/></iq>",
    ] {
        assert!(bench.hear(refused)[0].contains("iq error"), "{refused}");
    }
}

#[test]
fn a_presence_set_while_joining_is_sent_after_it() {
    let mut bench = Bench::new(false);
    bench.online();
    let set = |bench: &mut Bench| {
        bench.act(|machine, out| machine.command(Command::SetPresence(vec![crate::payload("c", "{}")]), out))
    };
    assert!(set(&mut bench).is_empty());
    assert_eq!(
        bench.presence("me", &["110"], "none"),
        [format!("> presence - {ME} <c>"), "Joined".to_owned()]
    );
    assert_eq!(set(&mut bench), [format!("> presence - {ME} <c>")]);
    bench.act(|machine, out| machine.offline(&Ending::Closed, Duration::ZERO, out));
    assert!(set(&mut bench).is_empty());
    assert_eq!(bench.online(), [format!("> presence - {ME} <c> <x>"), "Online".to_owned()]);
}

#[test]
fn the_end_of_a_connection_ends_every_wait() {
    let mut bench = Bench::joined();
    let (reply, mut answer) = oneshot::channel();
    let to: FullJid = "wps@muc.x/a".parse().unwrap();
    let request = wire::request(&to, crate::payload("execute", "{}")).into();
    let lines = bench.act(|machine, out| machine.command(Command::Request { to, request, reply }, out));
    assert_eq!(lines, ["> iq set wps@muc.x/a <execute>"]);
    let lines = bench.act(|machine, out| machine.offline(&Ending::Closed, Duration::ZERO, out));
    assert_eq!(lines, ["Offline the server closed the stream"]);
    assert_eq!(answer.try_recv().unwrap(), Err(RequestError::ConnectionLost));
    assert_eq!(bench.machine.deadline(), None);
}
