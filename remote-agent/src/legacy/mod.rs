//! The agent in the service of GeoServer's WPS Remote plugin: a pure machine that turns what the plugin says in the rooms of
//! the namespaces into what the engine understands, and the engine's reports into bodies that the plugin reads. Nothing
//! beyond the session knows which dialect an orchestrator speaks. Knows no clock, no socket, no disk.
//!
//! To the plugin an occupant *is* a service, and another one *is* a running job: `finish` and `abort` carry no id, the
//! occupant that they are addressed to says which job is meant. So there is a session for each service that is offered
//! ([`Who::Service`]) and one for each job of a GeoServer ([`Who::Job`]), from its request until its ending is delivered.
//!
//! ```text
//!   request ──► Asked ──── refused ──► cantexec, gone
//!                 │ taken: the job's session opens
//!                 ▼
//!              Running ── abort ──► told to end; leaves without a word when it has
//!                 │ ending: `completed` each 10 s and slower until `finish`, `error` once
//!                 ▼
//!              delivered, the session closes
//! ```

mod jobs;
mod outputs;
mod registration;
#[cfg(test)]
mod replay_tests;
mod services;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use wps_remote_protocol::legacy::Order;
use wps_remote_protocol::{ExecutionId, ProcessId, Request};

use self::jobs::Job;
pub use self::registration::Offer;
use crate::engine::Peer;

/// Senders whose faults are logged, at most: whoever floods the room must not flood the log.
const MAX_COMPLAINTS: usize = 1_000;

/// What the machine must know of the configuration.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Domain of the account: a part of every nickname.
    pub domain: String,
    /// Domain of the rooms.
    pub muc_service: String,
    /// Name of the agent, in the place of a host's.
    pub host: String,
    /// Where paths of results begin.
    pub shared: Option<PathBuf>,
    /// Beginnings of paths and what they become for GeoServer.
    pub path_map: Vec<(String, String)>,
    /// Outputs whose names do not begin with `result` are called `result_NAME`.
    pub result_names: bool,
    /// Whether pickled requests are read.
    pub pickle: bool,
}

/// One of our sessions.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Who {
    /// That of a service.
    Service(ProcessId),
    /// That of a job.
    Job(ExecutionId),
}

/// A request or question that is to be answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// The service that was asked.
    pub service: ProcessId,
    /// Who asked.
    pub nick: String,
    /// For which execution, if for one.
    pub execution: Option<ExecutionId>,
}

/// What the engine shall hear.
#[derive(Debug, Clone, PartialEq)]
pub enum Heard {
    /// A GeoServer is there.
    Invited(Peer),
    /// It has left.
    Left(Peer),
    /// It wants something executed.
    Request(Peer, Box<Request>, Asked),
    /// It wants an execution to end.
    Abort(ExecutionId),
    /// It has an ending, or does not want it.
    Finish(ExecutionId),
    /// It wants to know the load.
    GetLoad(Asked),
}

/// What must happen now, in this order.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// A session of the account with this resource joins the room of a namespace.
    Open {
        /// Which session.
        who: Who,
        /// The namespace.
        namespace: String,
        /// Its resource.
        resource: String,
        /// Its name in the room.
        nick: String,
    },
    /// A session ends.
    Close(Who),
    /// A session says something to an occupant.
    Say {
        /// Which session.
        who: Who,
        /// To whom.
        to: String,
        /// What.
        body: String,
    },
    /// The engine shall hear it.
    Tell(Heard),
    /// A fault of somebody else, for the log.
    Warn(String),
}

/// An occupant as far as the machine wants to know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Whether we obey it.
    pub trusted: bool,
}

/// Somebody in the room of a namespace.
#[derive(Debug, Default)]
struct Present {
    trusted: bool,
    /// It has given an order since it came.
    known: bool,
    /// Which of our sessions see it.
    seen_by: BTreeSet<Who>,
    /// Grows with each appearance.
    appearance: u64,
}

/// Everything that is known of GeoServers, and what they know of us.
pub struct Machine {
    settings: Settings,
    offers: BTreeMap<ProcessId, Arc<Offer>>,
    jobs: HashMap<ExecutionId, Job>,
    present: HashMap<Peer, Present>,
    /// Sessions that are in their room.
    joined: HashSet<Who>,
    complaints: HashSet<String>,
    appearances: u64,
    effects: Vec<Effect>,
}

impl Machine {
    /// Nothing offered.
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            offers: BTreeMap::new(),
            jobs: HashMap::new(),
            present: HashMap::new(),
            joined: HashSet::new(),
            complaints: HashSet::new(),
            appearances: 0,
            effects: Vec::new(),
        }
    }

    /// What must happen now.
    pub fn take(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    /// A session is in its room.
    pub fn joined(&mut self, who: &Who, now: Duration) {
        self.joined.insert(who.clone());
        self.say_waiting(who, now);
    }

    /// A session is out of its room, and sees nobody any more.
    pub fn out(&mut self, who: &Who) {
        self.joined.remove(who);
        let seen: Vec<Peer> = self.present.keys().cloned().collect();
        for peer in seen {
            self.unseen(who, &peer);
        }
    }

    /// A session sees somebody.
    pub fn occupant(&mut self, who: &Who, nick: &str, standing: Standing, now: Duration) {
        let Some(peer) = self.peer(who, nick) else { return };
        let (present, fresh) = match self.present.entry(peer) {
            std::collections::hash_map::Entry::Occupied(there) => (there.into_mut(), false),
            std::collections::hash_map::Entry::Vacant(empty) => (empty.insert(Present::default()), true),
        };
        if fresh {
            self.appearances += 1;
            present.appearance = self.appearances;
        }
        present.trusted = standing.trusted;
        present.seen_by.insert(who.clone());
        self.say_waiting(who, now);
    }

    /// A session sees somebody no longer.
    pub fn gone(&mut self, who: &Who, nick: &str) {
        if let Some(peer) = self.peer(who, nick) {
            self.unseen(who, &peer);
        }
    }

    fn unseen(&mut self, who: &Who, peer: &Peer) {
        let Some(present) = self.present.get_mut(peer) else { return };
        present.seen_by.remove(who);
        if present.seen_by.is_empty() {
            let known = present.known;
            self.present.remove(peer);
            if known {
                self.effects.push(Effect::Tell(Heard::Left(peer.clone())));
            }
        }
    }

    /// A private message came to a session.
    pub fn message(&mut self, who: &Who, nick: &str, body: &str, now: Duration) {
        let Some(peer) = self.peer(who, nick) else { return };
        let order = Order::decode(body);
        if !self.present.get(&peer).is_some_and(|present| present.trusted) {
            // What is no order at all is chatter of the room.
            if order.is_ok() {
                self.complain(format!(
                    "an order of {peer} was ignored: to obey this sender, add its account to `trusted_orchestrators` in remote.config"
                ));
            }
            return;
        }
        match order {
            Err(error) => self.complain(format!("a message of {peer} is not understood: {error}")),
            Ok(order) => {
                let fresh = self.meet(&peer);
                // One that comes back invites anew: what it missed is told at once.
                if order == Order::Invite && !fresh {
                    self.effects.push(Effect::Tell(Heard::Invited(peer.clone())));
                }
                match who {
                    Who::Service(service) => self.service_order(service, &peer, nick, order),
                    Who::Job(execution) => self.job_order(execution, &peer, order, now),
                }
            }
        }
    }

    /// Somebody whom we obey speaks: from now on it is told of its jobs. Whether it is new.
    fn meet(&mut self, peer: &Peer) -> bool {
        let Some(present) = self.present.get_mut(peer) else { return false };
        let fresh = !std::mem::replace(&mut present.known, true);
        if fresh {
            self.effects.push(Effect::Tell(Heard::Invited(peer.clone())));
        }
        fresh
    }

    fn complain(&mut self, text: String) {
        if self.complaints.len() < MAX_COMPLAINTS && self.complaints.insert(text.clone()) {
            self.effects.push(Effect::Warn(text));
        }
    }

    /// From now on other senders may be obeyed: the next of each is worth a line again.
    pub fn trust_changed(&mut self) {
        self.complaints.clear();
    }

    fn namespace_of<'a>(&'a self, who: &'a Who) -> Option<&'a str> {
        match who {
            Who::Service(service) => Some(service.namespace()),
            Who::Job(execution) => self.jobs.get(execution).map(|job| job.process.namespace()),
        }
    }

    /// An occupant of the room of a session.
    fn peer(&self, who: &Who, nick: &str) -> Option<Peer> {
        let namespace = self.namespace_of(who)?;
        Some(Peer(format!("{namespace}@{}/{nick}", self.settings.muc_service)))
    }

    fn say(&mut self, who: Who, to: &str, body: String) {
        self.effects.push(Effect::Say { who, to: to.to_owned(), body });
    }
}

/// The name in the room that an address ends with.
fn nick_of(peer: &Peer) -> &str {
    peer.0.split_once('/').map_or("", |(_, nick)| nick)
}
