//! The sessions that are logged in, and their queues. A queue is bounded in bytes; a session that does not take what
//! is sent to it is cut, and whoever sends to it is told to slow down before that. Knows no rooms.

use super::limits::Admission;
use crate::stream::{Gauge, Outgoing, Refused, admit};
use crate::xml::{Build, ns};
use crate::{BareJid, Element, FullJid, Jid};
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::mpsc;

/// Others to whom a session may have shown its presence directly.
const MAX_DIRECTED: usize = 256;

/// Why the server ends a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cut {
    /// The same account and resource logged in again.
    Replaced,
    /// It does not take what is sent to it.
    Slow,
    /// The server stops.
    Shutdown,
}

/// What a connection takes from its queue.
pub(super) enum Item {
    Stanza(Outgoing),
    Cut(Cut),
}

/// How full the queue of a session is.
#[derive(Debug)]
pub(super) struct Pressure {
    gauge: Arc<Gauge>,
    /// Waiting for this session has been in vain; senders do not wait for it again until it moves.
    stalled: AtomicBool,
}

impl Pressure {
    pub(super) fn is_high(&self) -> bool {
        let high = self.gauge.used() > self.gauge.limit() / 4;
        if !high {
            self.stalled.store(false, Relaxed);
        }
        high && !self.stalled.load(Relaxed)
    }

    pub(super) fn used(&self) -> usize {
        self.gauge.used()
    }

    pub(super) fn give_up(&self) {
        self.stalled.store(true, Relaxed);
    }
}

struct Handle {
    id: u64,
    queue: mpsc::UnboundedSender<Item>,
    pressure: Arc<Pressure>,
    /// Last presence without address, if available.
    presence: Option<Element>,
    directed: HashSet<Jid>,
}

/// A logged-in session, from its connection's side.
pub(super) struct Session {
    pub(super) jid: FullJid,
    pub(super) id: u64,
    pub(super) queue: mpsc::UnboundedReceiver<Item>,
    /// Keeps the connection counted; none for sessions in memory.
    pub(super) _admission: Option<Arc<Admission>>,
}

/// What became of a stanza.
#[derive(Debug)]
pub(super) enum Delivery {
    Done,
    /// Queued, but the queue fills: the sender should wait.
    Pressed(Arc<Pressure>),
    /// Nobody there.
    Absent,
}

#[derive(Default)]
pub(super) struct Registry {
    queue_bytes: usize,
    next: AtomicU64,
    sessions: Mutex<HashMap<FullJid, Handle>>,
}

impl Registry {
    pub(super) fn new(queue_bytes: usize) -> Self {
        Self { queue_bytes, ..Self::default() }
    }

    fn sessions(&self) -> MutexGuard<'_, HashMap<FullJid, Handle>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Registers a session; one with the same address is cut. Says whether there was one.
    pub(super) fn bind(&self, jid: FullJid, admission: Option<Arc<Admission>>) -> (Session, bool) {
        // Unbounded in number; every stanza in it holds bytes of the bounded gauge.
        let (sender, queue) = mpsc::unbounded_channel();
        let id = self.next.fetch_add(1, Relaxed);
        let pressure =
            Arc::new(Pressure { gauge: Gauge::new(self.queue_bytes), stalled: AtomicBool::new(false) });
        let handle = Handle { id, queue: sender, pressure, presence: None, directed: HashSet::new() };
        let old = self.sessions().insert(jid.clone(), handle);
        let replaced = old.is_some();
        if let Some(old) = old {
            // If its connection has just ended by itself, there is nobody left to cut.
            let _ = old.queue.send(Item::Cut(Cut::Replaced));
        }
        (Session { jid, id, queue, _admission: admission }, replaced)
    }

    /// Forgets a session, unless another one has taken its address. Gives those who must hear of its end: the
    /// addresses to which it had shown its presence.
    pub(super) fn release(&self, jid: &FullJid, id: u64) -> Option<Vec<Jid>> {
        let mut sessions = self.sessions();
        if sessions.get(jid)?.id != id {
            return None;
        }
        let handle = sessions.remove(jid)?;
        let mut told: Vec<Jid> = handle.directed.into_iter().collect();
        if handle.presence.is_some() {
            told.push(jid.to_bare().into());
        }
        Some(told)
    }

    /// Puts a stanza into the queue of a session.
    pub(super) fn deliver(&self, jid: &FullJid, stanza: Element) -> Delivery {
        let sessions = self.sessions();
        let Some(handle) = sessions.get(jid) else { return Delivery::Absent };
        match admit(stanza, &handle.pressure.gauge) {
            Ok(outgoing) => {
                if handle.queue.send(Item::Stanza(outgoing)).is_err() {
                    return Delivery::Absent;
                }
                if handle.pressure.is_high() {
                    Delivery::Pressed(handle.pressure.clone())
                } else {
                    Delivery::Done
                }
            }
            Err(Refused::Full) => {
                let _ = handle.queue.send(Item::Cut(Cut::Slow));
                Delivery::Absent
            }
            // What was parsed can be written; only our own elements could fail here, and they do not.
            Err(Refused::Unsendable(reason)) => {
                tracing::warn!(%jid, "a stanza was not delivered: {reason}");
                Delivery::Absent
            }
        }
    }

    /// Delivers to every session of the account that is available.
    pub(super) fn deliver_available(&self, to: &BareJid, stanza: &Element) -> bool {
        let available: Vec<_> = {
            let sessions = self.sessions();
            sessions
                .iter()
                .filter(|(jid, h)| jid.to_bare() == *to && h.presence.is_some())
                .map(|(j, _)| j.clone())
                .collect()
        };
        let mut any = false;
        for jid in available {
            any |=
                !matches!(self.deliver(&jid, stanza.clone().with("to", jid.to_string())), Delivery::Absent);
        }
        any
    }

    /// Presence without address: remembered, and shown to all sessions of the account (RFC 6121 §4.2.2).
    pub(super) fn broadcast_presence(&self, from: &FullJid, presence: Element) {
        let available = presence.attr("type").is_none();
        let (account, others, left) = {
            let mut sessions = self.sessions();
            let others: Vec<_> = sessions
                .iter()
                .filter(|(jid, h)| **jid != *from && jid.to_bare() == from.to_bare() && h.presence.is_some())
                .filter_map(|(_, h)| h.presence.clone())
                .collect();
            let Some(handle) = sessions.get_mut(from) else { return };
            let newly = handle.presence.is_none();
            handle.presence = available.then(|| presence.clone());
            let left = if available { Vec::new() } else { handle.directed.drain().collect() };
            (from.to_bare(), if available && newly { others } else { Vec::new() }, left)
        };
        self.deliver_available(&account, &presence);
        if !available {
            self.deliver(from, presence.clone().with("to", from.to_string()));
        }
        for other in others {
            self.deliver(from, other.with("to", from.to_string()));
        }
        for other in left {
            self.deliver_any(&other, &presence);
        }
    }

    /// Remembers to whom presence was shown directly, so that they hear of its end (RFC 6121 §4.6.3).
    pub(super) fn note_directed(&self, from: &FullJid, to: &Jid, available: bool) {
        let mut sessions = self.sessions();
        let Some(handle) = sessions.get_mut(from) else { return };
        if !available {
            handle.directed.remove(to);
        } else if handle.directed.len() < MAX_DIRECTED {
            handle.directed.insert(to.clone());
        }
    }

    /// To a full address, or to all available sessions of a bare one.
    pub(super) fn deliver_any(&self, to: &Jid, stanza: &Element) -> bool {
        match to.try_as_full() {
            Ok(full) => {
                !matches!(self.deliver(full, stanza.clone().with("to", full.to_string())), Delivery::Absent)
            }
            Err(bare) => self.deliver_available(bare, stanza),
        }
    }

    /// Tells `told` that the session has ended.
    pub(super) fn announce_end(&self, jid: &FullJid, told: Vec<Jid>) {
        let gone = crate::xml::element("presence", ns::CLIENT)
            .with("type", "unavailable")
            .with("from", jid.to_string());
        for other in told {
            self.deliver_any(&other, &gone);
        }
    }

    /// Ends all sessions.
    pub(super) fn cut_all(&self, cut: Cut) {
        for handle in self.sessions().values() {
            let _ = handle.queue.send(Item::Cut(cut));
        }
    }

    pub(super) fn count(&self) -> usize {
        self.sessions().len()
    }
}
