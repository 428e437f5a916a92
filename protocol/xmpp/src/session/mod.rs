//! A client session that outlives its connections: log in, hand stanzas to an application, notice a dead peer, say
//! why it ended, wait, log in again. One task owns all of it. Knows no rooms; the application (rooms, in this crate)
//! is a synchronous state machine behind `Application`.
//!
//! ```text
//!            ┌────────────── wait (back-off, jitter) ◄──────────────┐
//!            ▼                                                      │ Offline { ending }
//!   connect ─► TLS ─► SASL ─► bind ─► online ── stream error, I/O, silence ──┘
//!            every step under one negotiation deadline       └── close ─► end
//! ```

mod drive;
mod ending;
mod enrol;
mod login;
mod tracker;

pub use ending::Ending;
pub use enrol::{EnrolError, Enrolled, enrol};

pub(crate) use drive::drive;
pub(crate) use tracker::Tracker;

use crate::net::Connector;
use crate::stream::Outgoing;
use crate::{Element, FullJid, Jid};
use std::collections::VecDeque;
use std::fmt;
use std::time::{Duration, Instant};

/// Who logs in where, and how patiently.
#[derive(Clone)]
pub struct SessionConfig {
    /// The account; with a resource, that one is asked for.
    pub jid: Jid,
    /// Its password. Never logged.
    pub password: String,
    /// The way to the server.
    pub connector: Connector,
    /// Longest wait between two attempts after a lost connection. Default 3 s: with the wait for a room on top, a
    /// program is back well within 10 s of its server.
    pub max_backoff: Duration,
    /// After this much silence the server is asked whether it is there. Default 30 s.
    pub idle_probe: Duration,
    /// How long it may take to answer that. Default 15 s.
    pub probe_timeout: Duration,
    /// From the first packet to the bound resource. Default 15 s.
    pub negotiation_timeout: Duration,
    /// Bytes that may wait to be sent. Default 4 MiB.
    pub queue_bytes: usize,
    /// Largest stanza that is taken from the server. Default 512 KiB.
    pub max_incoming: usize,
    /// Acknowledgements by XEP-0198 where the server offers them; off by default. Only counts and answers:
    /// resumption is never asked for, because a server keeps a resumable occupant in its rooms for minutes after the
    /// program died.
    pub stream_management: bool,
}

impl SessionConfig {
    /// A configuration with the defaults named at each field.
    pub fn new(jid: impl Into<Jid>, password: impl Into<String>, connector: Connector) -> Self {
        Self {
            jid: jid.into(),
            password: password.into(),
            connector,
            max_backoff: Duration::from_secs(3),
            idle_probe: Duration::from_secs(30),
            probe_timeout: Duration::from_secs(15),
            negotiation_timeout: Duration::from_secs(15),
            queue_bytes: 4 << 20,
            max_incoming: 512 << 10,
            stream_management: false,
        }
    }
}

impl fmt::Debug for SessionConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionConfig")
            .field("jid", &self.jid)
            .field("connector", &self.connector)
            .finish_non_exhaustive()
    }
}

/// What runs on top of a session. All calls come from the session's one task and must not block.
pub(crate) trait Application: Send + 'static {
    /// What handles ask for.
    type Command: Send + 'static;
    /// What consumers are told.
    type Event: Send + 'static;

    /// A connection is up; nothing of the former one is left at the server.
    fn online(&mut self, jid: &FullJid, out: &mut Output<Self::Event>);
    /// The connection is gone, or an attempt failed.
    fn offline(&mut self, ending: &Ending, retry_in: Duration, out: &mut Output<Self::Event>);
    /// A stanza that the session did not handle itself.
    fn stanza(&mut self, stanza: Element, out: &mut Output<Self::Event>);
    /// A command; also while offline, when stanzas put out go nowhere.
    fn command(&mut self, command: Self::Command, out: &mut Output<Self::Event>) -> Flow;
    /// The deadline has passed.
    fn tick(&mut self, out: &mut Output<Self::Event>);
    /// When [`Application::tick`] wants to be called while online.
    fn deadline(&self) -> Option<Instant>;
}

/// Whether the session goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flow {
    Continue,
    Close,
}

/// What an application wants done.
pub(crate) struct Output<E> {
    /// The time of this call.
    pub(crate) now: Instant,
    pub(crate) stanzas: Vec<Outgoing>,
    pub(crate) events: VecDeque<E>,
}

impl<E> Output<E> {
    pub(crate) fn new(now: Instant) -> Self {
        Self { now, stanzas: Vec::new(), events: VecDeque::new() }
    }

    pub(crate) fn send(&mut self, stanza: impl Into<Outgoing>) {
        self.stanzas.push(stanza.into());
    }

    pub(crate) fn tell(&mut self, event: E) {
        self.events.push_back(event);
    }
}

#[cfg(test)]
mod tests;
