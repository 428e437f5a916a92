//! XMPP for the orchestrator and the agent: a connector ([`net`]), a client session with typed endings ([`session`]),
//! rooms with private messages and requests ([`muc`]), and an embedded server ([`server`]). This file only names the
//! parts; what the messages mean is the business of the protocol crate.
//!
//! ```text
//!   program ── muc::Muc / MucEvent ──┐                            ┌── server::Server
//!                                    │                            │
//!              muc   rooms, occupants, requests      rooms, routing, accounts
//!                session   login, back-off, pings     negotiation, limits
//!                    └──────────── stream: one guarded XML stream ───────┘
//!                     net: TCP, TLS, or a pipe in memory
//! ```
//!
//! `README.md` shows how to use it. The XML streams and the parsers are those of `tokio-xmpp` and `xmpp-parsers`; their ready-made client is not used,
//! because it neither reports why a session ended nor survives deeply nested stanzas.

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

mod backoff;
mod error;
pub mod muc;
pub mod net;
mod payload;
pub mod server;
pub mod session;
mod stream;
mod xml;

pub use error::{ErrorKind, StanzaError};
pub use payload::{NS_JSON, NS_WPS_REMOTE, parse_payload, payload};
pub use stream::MAX_DEPTH;
pub use xml::Unsendable;
pub use xmpp_parsers::jid::{BareJid, FullJid, Jid};
pub use xmpp_parsers::minidom::Element;

/// Largest message that a session sends, in bytes on the wire. Prosody and ejabberd close the stream (and with it
/// every room membership) at 256 KiB; this leaves room for what they add.
pub const MAX_MESSAGE: usize = 200_000;
