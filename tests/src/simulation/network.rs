//! The XMPP server and the ways to it. A connection keeps order from the server to a peer, as TCP does; towards the server
//! stanzas overtake one another, are lost and come twice, as the weather says, and what a dead program has left in buffers can
//! still arrive, as long as the server does not know of its death.

use std::collections::{BTreeMap, BTreeSet};

use wps_remote_protocol::{FromAgent, Load, Refusal, ToAgent};

use super::world::{Happening, World};

/// A program on the bus; its number is its name in the room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Peer {
    /// An orchestrator.
    Node(usize),
    /// An agent.
    Agent(usize),
}

/// Names a connection for ever.
pub type ConnId = u64;

/// What travels.
#[derive(Debug, Clone)]
pub enum Stanza {
    /// We are in the room.
    Joined,
    /// Somebody is in the room; `fresh` = came just now.
    Here { who: Peer, fresh: bool, instance: u64, load: Option<Load> },
    /// Somebody has left it.
    Gone { who: Peer },
    /// Wants an answer.
    Request { from: Peer, id: u64, body: Body },
    /// The answer.
    Response { id: u64, answer: Answer },
    /// Wants none.
    Message { from: Peer, body: FromAgent },
}

/// What a request says.
#[derive(Debug, Clone)]
pub enum Body {
    /// To an agent.
    To(ToAgent),
    /// From one.
    From(FromAgent),
}

/// How a request is answered.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// Done, taken, stored.
    Yes,
    /// The load.
    Load(Load),
    /// Not taken.
    No(Refusal),
    /// The asked one itself says that it knows no such execution.
    Unknown,
    /// The room says that nobody of this name is there.
    NobodyThere,
    /// The asked one itself says that another one has the job.
    Elsewhere,
    /// Not now.
    Later,
}

/// A connection.
#[derive(Debug)]
pub struct Conn {
    peer: Peer,
    /// The server holds it to be alive.
    at_server: bool,
    /// The peer does.
    at_peer: bool,
    /// Something was dropped on it: it cannot go on.
    broken: bool,
    last: u64,
}

#[derive(Debug, Clone)]
struct Occupant {
    conn: ConnId,
    instance: u64,
    load: Option<Load>,
}

/// How stanzas fare on their way to the server.
#[derive(Debug, Clone, Copy)]
pub struct Weather {
    /// Of a thousand.
    pub lost: u64,
    /// Of a thousand.
    pub twice: u64,
    /// At most, in milliseconds.
    pub delay_ms: u64,
}

/// The server.
#[derive(Debug)]
pub struct Network {
    up: bool,
    conns: BTreeMap<ConnId, Conn>,
    occupants: BTreeMap<Peer, Occupant>,
    cut: BTreeSet<Peer>,
    last_id: u64,
    /// How stanzas fare.
    pub weather: Weather,
}

impl Network {
    /// Everything works.
    pub fn new() -> Self {
        Self {
            up: true,
            conns: BTreeMap::new(),
            occupants: BTreeMap::new(),
            cut: BTreeSet::new(),
            last_id: 0,
            weather: Weather { lost: 0, twice: 0, delay_ms: 20 },
        }
    }

    /// A number that nobody has.
    pub fn number(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }
}

impl Default for Network {
    fn default() -> Self {
        Self::new()
    }
}

impl World {
    fn conn_of(&self, peer: Peer) -> Option<ConnId> {
        match peer {
            Peer::Node(n) => self.nodes[n].process.as_ref()?.conn,
            Peer::Agent(n) => self.hosts[n].agent.as_ref()?.conn,
        }
    }

    fn set_conn(&mut self, peer: Peer, conn: Option<ConnId>) {
        match peer {
            Peer::Node(n) => self.nodes[n].process.iter_mut().for_each(|process| process.conn = conn),
            Peer::Agent(n) => self.hosts[n].agent.iter_mut().for_each(|agent| agent.conn = conn),
        }
    }

    fn incarnation(&self, peer: Peer) -> Option<u64> {
        match peer {
            Peer::Node(n) => self.nodes[n].process.as_ref().map(|process| process.incarnation),
            Peer::Agent(n) => self.hosts[n].agent.as_ref().map(|agent| agent.incarnation),
        }
    }

    /// A program tries to log in, now or a little later.
    pub(super) fn connect(&mut self, peer: Peer, incarnation: u64) {
        if self.incarnation(peer) != Some(incarnation) || self.conn_of(peer).is_some() {
            return;
        }
        if !self.net.up || self.net.cut.contains(&peer) {
            let wait = self.random.between(300, 6_000);
            return self.after(wait, Happening::Connect { peer, incarnation });
        }
        let conn = self.net.number();
        let now = self.now;
        self.net.conns.insert(conn, Conn { peer, at_server: true, at_peer: true, broken: false, last: now });
        self.set_conn(peer, Some(conn));
        if let Some(old) = self.net.occupants.get(&peer).map(|occupant| occupant.conn) {
            self.server_drops(old);
        }
        let occupant = Occupant { conn, instance: incarnation, load: self.presence_of(peer) };
        let here = |who: Peer, o: &Occupant, fresh| Stanza::Here {
            who,
            fresh,
            instance: o.instance,
            load: o.load.clone(),
        };
        self.broadcast(&here(peer, &occupant, true));
        self.net.occupants.insert(peer, occupant);
        self.deliver(conn, Stanza::Joined);
        let others: Vec<_> = self
            .net
            .occupants
            .iter()
            .filter(|(who, _)| **who != peer)
            .map(|(who, o)| here(*who, o, false))
            .collect();
        for other in others {
            self.deliver(conn, other);
        }
    }

    /// An agent tells its load to the room.
    pub(super) fn set_presence(&mut self, peer: Peer, load: Load) {
        let Some(conn) = self.conn_of(peer).filter(|_| !self.net.cut.contains(&peer)) else { return };
        let Some(occupant) = self.net.occupants.get_mut(&peer).filter(|o| o.conn == conn) else { return };
        occupant.load = Some(load);
        let here = Stanza::Here {
            who: peer,
            fresh: false,
            instance: occupant.instance,
            load: occupant.load.clone(),
        };
        self.broadcast(&here);
    }

    fn broadcast(&mut self, stanza: &Stanza) {
        let all: Vec<ConnId> = self.net.occupants.values().map(|o| o.conn).collect();
        for conn in all {
            self.deliver(conn, stanza.clone());
        }
    }

    fn server_drops(&mut self, conn: ConnId) {
        let Some(known) = self.net.conns.get_mut(&conn).filter(|known| known.at_server) else { return };
        known.at_server = false;
        let peer = known.peer;
        if self.net.occupants.get(&peer).is_some_and(|o| o.conn == conn) {
            self.net.occupants.remove(&peer);
            self.broadcast(&Stanza::Gone { who: peer });
        }
        let wait = self.random.between(10, 500);
        self.after(wait, Happening::PeerNotices(conn));
    }

    pub(super) fn server_notices(&mut self, conn: ConnId) {
        let Some(known) = self.net.conns.get(&conn) else { return };
        if known.broken || !known.at_peer || self.net.cut.contains(&known.peer) {
            self.server_drops(conn);
        }
    }

    pub(super) fn peer_notices(&mut self, conn: ConnId) {
        let Some(known) = self.net.conns.get_mut(&conn) else { return };
        let cut = self.net.cut.contains(&known.peer);
        if !known.at_peer || (known.at_server && !known.broken && !cut) {
            return;
        }
        // A cut way is noticed by silence, at its own time.
        known.at_peer = false;
        let peer = known.peer;
        let wait = if cut { self.random.between(10_000, 90_000) } else { self.random.between(1, 200) };
        self.after(wait, Happening::ServerNotices(conn));
        if self.conn_of(peer) != Some(conn) {
            return;
        }
        self.set_conn(peer, None);
        let Some(incarnation) = self.incarnation(peer) else { return };
        match peer {
            Peer::Node(n) => self.node_offline(n),
            Peer::Agent(n) => self.agent_offline(n),
        }
        let wait = self.random.between(200, 4_000);
        self.after(wait, Happening::Connect { peer, incarnation });
    }

    /// A program has died, or with its whole host.
    pub(super) fn connection_of_the_dead(&mut self, conn: Option<ConnId>, silent: bool) {
        let Some(conn) = conn else { return };
        let Some(known) = self.net.conns.get_mut(&conn) else { return };
        known.at_peer = false;
        let silent = silent || self.net.cut.contains(&known.peer);
        let wait = if silent { self.random.between(5_000, 90_000) } else { self.random.between(1, 50) };
        self.after(wait, Happening::ServerNotices(conn));
    }

    /// The way between a program and the server breaks. Both notice that much later.
    pub(super) fn cut(&mut self, peer: Peer) {
        if !self.net.cut.insert(peer) {
            return;
        }
        if let Some(conn) = self.conn_of(peer) {
            let (server, own) = (self.random.between(10_000, 90_000), self.random.between(5_000, 60_000));
            self.after(server, Happening::ServerNotices(conn));
            self.after(own, Happening::PeerNotices(conn));
        }
    }

    /// It is there again. A connection over which nothing was to be said meanwhile goes on.
    pub(super) fn mend(&mut self, peer: Peer) {
        if !self.net.cut.remove(&peer) {
            return;
        }
        if let Some(conn) = self.conn_of(peer) {
            self.after(200, Happening::ServerNotices(conn));
            self.after(300, Happening::PeerNotices(conn));
        }
    }

    pub(super) fn restart_server(&mut self, down_ms: u64) {
        if !self.net.up {
            return;
        }
        self.net.up = false;
        self.net.occupants.clear();
        let conns: Vec<ConnId> =
            self.net.conns.iter().filter(|(_, c)| c.at_server).map(|(id, _)| *id).collect();
        for conn in conns {
            if let Some(known) = self.net.conns.get_mut(&conn) {
                known.at_server = false;
            }
            let wait = self.random.between(5, 1_500);
            self.after(wait, Happening::PeerNotices(conn));
        }
        self.after(down_ms.max(1), Happening::ServerUp);
    }

    pub(super) fn server_up(&mut self) {
        self.net.up = true;
        self.net.conns.retain(|_, conn| conn.at_peer || conn.at_server);
    }

    /// A program sends something to another.
    pub(super) fn send(&mut self, from: Peer, to: Peer, stanza: Stanza) {
        let Some(conn) = self.conn_of(from) else { return };
        let weather = self.net.weather;
        if self.random.in_thousand(weather.lost) {
            return;
        }
        let copies = if self.random.in_thousand(weather.twice) { 2 } else { 1 };
        for _ in 0..copies {
            let delay = 1 + self.random.below(weather.delay_ms);
            self.after(delay, Happening::AtServer { conn, to, stanza: Box::new(stanza.clone()) });
        }
    }

    pub(super) fn at_server(&mut self, conn: ConnId, to: Peer, stanza: Stanza) {
        let late = self.random.in_thousand(250);
        let Some(known) = self.net.conns.get_mut(&conn) else { return };
        if !self.net.up {
            return;
        }
        if self.net.cut.contains(&known.peer) {
            known.broken = true;
            // What lies in a buffer may arrive when the way is there again, long after a newer connection was made.
            if late {
                let wait = self.random.between(1_000, 20_000);
                self.after(wait, Happening::AtServer { conn, to, stanza: Box::new(stanza) });
            }
            return;
        }
        // What comes on a connection that the server has given up is not read.
        if !known.at_server {
            return;
        }
        match self.net.occupants.get(&to).map(|occupant| occupant.conn) {
            Some(receiver) => self.deliver(receiver, stanza),
            None => {
                if let Stanza::Request { id, .. } = stanza {
                    self.deliver(conn, Stanza::Response { id, answer: Answer::NobodyThere });
                }
            }
        }
    }

    fn deliver(&mut self, conn: ConnId, stanza: Stanza) {
        let at = self.now + self.random.between(1, 10);
        let Some(known) = self.net.conns.get_mut(&conn) else { return };
        known.last = known.last.max(at);
        let wait = known.last - self.now;
        self.after(wait, Happening::Deliver { conn, stanza: Box::new(stanza) });
    }

    pub(super) fn delivered(&mut self, conn: ConnId, stanza: Stanza) {
        let Some(known) = self.net.conns.get_mut(&conn).filter(|known| known.at_peer) else { return };
        let peer = known.peer;
        if self.net.cut.contains(&peer) {
            known.broken = true;
            return;
        }
        if known.broken || self.conn_of(peer) != Some(conn) {
            return;
        }
        match peer {
            Peer::Node(n) => self.node_hears(n, stanza),
            Peer::Agent(n) => self.agent_hears(n, stanza),
        }
    }

    /// Nothing is cut any more, and nothing gets lost.
    pub(super) fn mend_everything(&mut self) {
        self.net.weather = Weather { lost: 0, twice: 0, delay_ms: 20 };
        for peer in self.net.cut.clone() {
            self.mend(peer);
        }
    }
}
