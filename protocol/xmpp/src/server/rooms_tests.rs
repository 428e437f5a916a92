//! The rooms as a machine: what is said to whom.

use super::*;
use std::collections::BTreeSet;

fn rooms() -> Rooms {
    Rooms::new("conference.x".into(), BTreeSet::from(["boss".to_owned()]), Vec::new())
}

fn jid(text: &str) -> FullJid {
    text.parse().unwrap()
}

/// Sends a stanza, `type` included in `head`, and gives what comes out, one line per stanza: receiver and summary.
fn say(rooms: &mut Rooms, from: &str, head: &str, inside: &str) -> Vec<String> {
    let name = head.split(' ').next().unwrap();
    let stanza: Element =
        format!("<{head} xmlns='jabber:client' from='{from}'>{inside}</{name}>").parse().unwrap();
    let to: Jid = stanza.attr("to").unwrap().parse().unwrap();
    rooms
        .handle(&stanza, &jid(from), &to)
        .iter()
        .map(|(to, stanza)| format!("{to} < {}", summary(stanza)))
        .collect()
}

fn summary(stanza: &Element) -> String {
    let mut text = format!("{} {}", stanza.name(), stanza.attr("type").unwrap_or("-"));
    if let Some(from) = stanza.attr("from") {
        text += &format!(" {}", from.replace("@conference.x", ""));
    }
    if let Some(x) = stanza.get_child("x", ns::MUC_USER) {
        for child in x.children() {
            text += &match child.name() {
                "item" => format!(
                    " {}/{}{}{}",
                    child.attr("affiliation").unwrap_or("-"),
                    child.attr("role").unwrap_or("-"),
                    child.attr("jid").map(|jid| format!(" ({jid})")).unwrap_or_default(),
                    child.attr("nick").map(|nick| format!(" ->{nick}")).unwrap_or_default()
                ),
                "status" => format!(" {}", child.attr("code").unwrap_or("-")),
                other => format!(" {other}"),
            };
        }
    }
    if stanza.attr("type") == Some("error") {
        text += &format!(" {}", StanzaError::from_stanza(stanza).condition);
    }
    for child in stanza.children().filter(|c| matches!(c.name(), "body" | "subject" | "query" | "custom")) {
        text += &format!(" <{}>{}", child.name(), child.text());
    }
    text
}

fn enter(rooms: &mut Rooms, from: &str, nick: &str, password: &str) -> Vec<String> {
    let inside = format!("<custom xmlns='urn:c'/><x xmlns='{}'><password>{password}</password></x>", ns::MUC);
    say(rooms, from, &format!("presence to='r@conference.x/{nick}'"), &inside)
}

fn configure(rooms: &mut Rooms, from: &str, fields: &[(&str, &str)]) -> Vec<String> {
    let fields: String = fields
        .iter()
        .map(|(name, value)| format!("<field var='{name}'><value>{value}</value></field>"))
        .collect();
    let form = format!(
        "<query xmlns='{}'><x xmlns='jabber:x:data' type='submit'>{fields}</x></query>",
        ns::MUC_OWNER
    );
    say(rooms, from, "iq to='r@conference.x' type='set' id='f'", &form)
}

/// A room with a password, its owner and one agent.
fn furnished() -> Rooms {
    let mut rooms = rooms();
    enter(&mut rooms, "boss@x/1", "boss", "");
    configure(&mut rooms, "boss@x/1", &[("muc#roomconfig_roomsecret", "pw")]);
    enter(&mut rooms, "ann@x/1", "ann", "pw");
    rooms
}

#[test]
fn only_owners_create_rooms_and_all_see_what_they_may() {
    let mut rooms = rooms();
    assert_eq!(enter(&mut rooms, "ann@x/1", "ann", ""), ["ann@x/1 < presence error r/ann item-not-found"]);
    assert!(rooms.room("r").is_none());
    assert_eq!(
        enter(&mut rooms, "boss@x/1", "boss", ""),
        [
            "boss@x/1 < presence - r/boss owner/moderator (boss@x/1) 110 201 <custom>",
            "boss@x/1 < message groupchat r <subject>",
        ]
    );
    assert_eq!(
        enter(&mut rooms, "ann@x/1", "ann", ""),
        [
            "ann@x/1 < presence - r/boss owner/moderator <custom>",
            "boss@x/1 < presence - r/ann none/participant (ann@x/1) <custom>",
            "ann@x/1 < presence - r/ann none/participant (ann@x/1) 110 <custom>",
            "ann@x/1 < message groupchat r <subject>",
        ]
    );
}

#[test]
fn passwords_and_names_are_checked() {
    let mut rooms = furnished();
    assert_eq!(
        enter(&mut rooms, "bob@x/1", "bob", "wrong"),
        ["bob@x/1 < presence error r/bob not-authorized"]
    );
    assert_eq!(enter(&mut rooms, "bob@x/1", "ann", "pw"), ["bob@x/1 < presence error r/ann conflict"]);
    assert_eq!(enter(&mut rooms, "bob@x/1", "bob", "pw").len(), 6);
    // An update without having joined is no way around the password.
    let update = say(&mut rooms, "eve@x/1", "presence to='r@conference.x/eve'", "");
    assert_eq!(update, ["eve@x/1 < presence error r/eve not-acceptable"]);
}

#[test]
fn a_change_of_presence_or_name_reaches_everybody() {
    let mut rooms = furnished();
    let update =
        say(&mut rooms, "ann@x/1", "presence to='r@conference.x/ann'", "<custom xmlns='urn:c'>3</custom>");
    assert_eq!(
        update,
        [
            "ann@x/1 < presence - r/ann none/participant (ann@x/1) 110 <custom>3",
            "boss@x/1 < presence - r/ann none/participant (ann@x/1) <custom>3",
        ]
    );
    let rename = say(&mut rooms, "ann@x/1", "presence to='r@conference.x/anna'", "");
    assert_eq!(
        rename,
        [
            "ann@x/1 < presence unavailable r/ann none/participant (ann@x/1) ->anna 110 303",
            "boss@x/1 < presence unavailable r/ann none/participant (ann@x/1) ->anna 303",
            "ann@x/1 < presence - r/anna none/participant (ann@x/1) 110",
            "boss@x/1 < presence - r/anna none/participant (ann@x/1)",
        ]
    );
    assert_eq!(rooms.room("r").unwrap().nick_of(&jid("ann@x/1")), Some("anna"));
}

#[test]
fn messages_go_where_they_should_under_the_name_in_the_room() {
    let mut rooms = furnished();
    let private =
        say(&mut rooms, "ann@x/1", "message to='r@conference.x/boss' type='chat'", "<body>hi</body>");
    assert_eq!(private, ["boss@x/1 < message chat r/ann <body>hi"]);
    let public =
        say(&mut rooms, "ann@x/1", "message to='r@conference.x' type='groupchat'", "<body>all</body>");
    assert_eq!(
        public,
        ["ann@x/1 < message groupchat r/ann <body>all", "boss@x/1 < message groupchat r/ann <body>all"]
    );
    for (from, head, refusal) in [
        ("ann@x/1", "message to='r@conference.x/nobody' type='chat'", "item-not-found"),
        ("eve@x/1", "message to='r@conference.x/boss' type='chat'", "not-acceptable"),
        ("ann@x/1", "message to='r@conference.x/boss' type='groupchat'", "bad-request"),
        ("ann@x/1", "message to='q@conference.x/boss' type='chat'", "item-not-found"),
    ] {
        let answer = say(&mut rooms, from, head, "<body>x</body>");
        assert!(answer.len() == 1 && answer[0].ends_with(refusal), "{head}: {answer:?}");
    }
    // Errors are not answered with errors.
    assert!(say(&mut rooms, "eve@x/1", "message to='r@conference.x/boss' type='error'", "").is_empty());
}

#[test]
fn requests_pass_between_occupants_and_a_self_ping_is_answered() {
    let mut rooms = furnished();
    let ask = |rooms: &mut Rooms, from: &str, to: &str, kind: &str| {
        say(
            rooms,
            from,
            &format!("iq to='r@conference.x/{to}' type='{kind}' id='7'"),
            "<custom xmlns='urn:c'/>",
        )
    };
    assert_eq!(ask(&mut rooms, "boss@x/1", "ann", "set"), ["ann@x/1 < iq set r/boss <custom>"]);
    assert_eq!(ask(&mut rooms, "ann@x/1", "boss", "result"), ["boss@x/1 < iq result r/ann <custom>"]);
    assert_eq!(ask(&mut rooms, "ann@x/1", "ann", "get"), ["ann@x/1 < iq result r/ann"]);
    assert_eq!(ask(&mut rooms, "eve@x/1", "eve", "get"), ["eve@x/1 < iq error r/eve not-acceptable"]);
    assert_eq!(ask(&mut rooms, "ann@x/1", "bob", "set"), ["ann@x/1 < iq error r/bob item-not-found"]);
    assert!(ask(&mut rooms, "eve@x/1", "ann", "result").is_empty());
}

#[test]
fn owners_configure_kick_and_destroy_and_others_do_not() {
    let mut rooms = furnished();
    let refused = configure(&mut rooms, "ann@x/1", &[("muc#roomconfig_roomsecret", "mine")]);
    assert_eq!(refused, ["ann@x/1 < iq error r forbidden"]);
    assert_eq!(rooms.room("r").unwrap().settings.password.as_deref(), Some("pw"));
    configure(&mut rooms, "boss@x/1", &[("muc#roomconfig_passwordprotectedroom", "0")]);
    assert_eq!(rooms.room("r").unwrap().settings.password, None);
    let kick = |rooms: &mut Rooms, by: &str| {
        let item = format!(
            "<query xmlns='{}'><item nick='ann' role='none'><reason>r</reason></item></query>",
            ns::MUC_ADMIN
        );
        say(rooms, by, "iq to='r@conference.x' type='set' id='k'", &item)
    };
    assert_eq!(kick(&mut rooms, "ann@x/1"), ["ann@x/1 < iq error r forbidden"]);
    assert_eq!(
        kick(&mut rooms, "boss@x/1"),
        [
            "ann@x/1 < presence unavailable r/ann none/none (ann@x/1) 110 307",
            "boss@x/1 < presence unavailable r/ann none/none (ann@x/1) 307",
            "boss@x/1 < iq result r",
        ]
    );
    let destroy = format!("<query xmlns='{}'><destroy/></query>", ns::MUC_OWNER);
    let end = say(&mut rooms, "boss@x/1", "iq to='r@conference.x' type='set' id='d'", &destroy);
    assert_eq!(end, ["boss@x/1 < presence unavailable r/boss none/none destroy", "boss@x/1 < iq result r"]);
    assert!(rooms.room("r").is_none());
}

#[test]
fn who_ends_leaves_everywhere_and_the_last_one_takes_the_room_along() {
    let mut rooms = furnished();
    let out = rooms.leave_all(&jid("ann@x/1"), Some("connection lost"));
    let lines: Vec<_> = out.iter().map(|(to, stanza)| format!("{to} < {}", summary(stanza))).collect();
    assert_eq!(lines, ["boss@x/1 < presence unavailable r/ann none/none (ann@x/1) 333"]);
    let leave = say(&mut rooms, "boss@x/1", "presence to='r@conference.x/boss' type='unavailable'", "");
    assert_eq!(leave, ["boss@x/1 < presence unavailable r/boss owner/none (boss@x/1) 110"]);
    assert!(rooms.room("r").is_none());
}

#[test]
fn preset_rooms_stay_and_moderated_ones_let_newcomers_listen_only() {
    let settings = Settings { moderated: true, ..Settings::default() };
    let mut rooms = Rooms::new("conference.x".into(), BTreeSet::new(), vec![("r".into(), settings)]);
    assert_eq!(
        enter(&mut rooms, "ann@x/1", "ann", "")[0],
        "ann@x/1 < presence - r/ann none/visitor (ann@x/1) 110 <custom>"
    );
    let public =
        say(&mut rooms, "ann@x/1", "message to='r@conference.x' type='groupchat'", "<body>all</body>");
    assert_eq!(public, ["ann@x/1 < message error r forbidden"]);
    rooms.leave_all(&jid("ann@x/1"), None);
    assert!(rooms.room("r").is_some());
}
