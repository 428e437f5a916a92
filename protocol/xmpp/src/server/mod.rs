//! The embedded XMPP server: accounts from a file, rooms that only their owners create, private messages and
//! requests between occupants; enough of RFC 6120/6121, XEP-0045, 0030, 0199, 0198 and 0410 for this product's
//! programs, for the Python agents, and for people who look in with a chat client. No federation, no history, no
//! offline messages, no registration. This file holds what a program configures and starts; the parts know each
//! other in one direction only:
//!
//! ```text
//!   listen ─► connection (negotiate ─► serve) ─► router ─► rooms
//!   limits      sasl ─► accounts, scram            │
//!   tls                                         registry (sessions, their byte-bounded queues)
//! ```
