//! Agents on the XMPP bus: who is present in the management room, what they say in the native dialect, what is said to
//! them; and, where the operator lists rooms and agents for it, the same in the old dialect of GeoServer's plugin. Turns
//! stanzas into engine events and back; decides nothing about jobs.
//!
//! An agent's `completed` and `error` are IQ requests; their *result* is our `finish`, given only when the engine says so,
//! that is, after the ending is stored.

mod complaints;
mod legacy;
mod task;
mod trust;

use std::sync::Arc;
use std::time::Duration;

pub use legacy::{LegacyAgents, LegacyConfig, LegacyFiles, PatternError};
use thiserror::Error;
use tokio::sync::mpsc;
use wps_remote_protocol::native::{self, Announcement, NativeError, Peer};
use wps_remote_protocol::{AgentId, FromAgent, ToAgent};
use wps_remote_xmpp::session::SessionConfig;
use wps_remote_xmpp::{BareJid, muc};

use crate::telemetry::Telemetry;
pub use trust::{AgentTrust, Grants, is_pattern};

/// Events that may wait for the driver.
const INBOUND: usize = 1024;

/// How to be on the bus.
#[derive(Debug, Clone)]
pub struct BusConfig {
    /// Whom to believe what.
    pub trust: AgentTrust,
    /// Where it is counted what was not believed.
    pub telemetry: Arc<Telemetry>,
    /// Our session.
    pub session: SessionConfig,
    /// Where agents and orchestrators meet.
    pub room: BareJid,
    /// Its password.
    pub room_password: Option<String>,
    /// Our name in it.
    pub nick: String,
    /// Changes with each start of the program.
    pub instance: String,
    /// Pause between two questions for an agent's load, which are also its signs of life.
    pub heartbeat: Duration,
    /// How long an agent may take to answer anything.
    pub answer_timeout: Duration,
    /// Agents of the old dialect.
    pub legacy: LegacyConfig,
    /// Their rooms, in the order of [`LegacyConfig::rooms`].
    pub legacy_rooms: Vec<BareJid>,
    /// Password of those.
    pub legacy_password: Option<String>,
}

/// What the bus tells the driver.
#[derive(Debug)]
pub enum Inbound {
    /// We are in the management room.
    Online,
    /// The connection is down; every agent is out of reach.
    Offline {
        /// Why.
        reason: String,
    },
    /// An agent is present.
    Joined {
        /// Its name.
        agent: AgentId,
        /// Its program and version.
        software: String,
        /// Its account, where the room discloses it.
        account: Option<String>,
        /// What cannot be expected of it, for the operator.
        cannot: &'static [&'static str],
    },
    /// An agent has gone, or does not answer any more.
    Left {
        /// Its name.
        agent: AgentId,
        /// Why, if that is known.
        reason: String,
    },
    /// An agent says something.
    Message {
        /// Its name.
        agent: AgentId,
        /// What.
        message: FromAgent,
    },
}

/// The bus could not be set up.
#[derive(Debug, Error)]
pub enum BusError {
    /// Our own announcement cannot be written.
    #[error("our own presence cannot be written")]
    Announcement(#[from] NativeError),
}

/// The driver's end of the bus.
pub struct Bus {
    /// What to send. Unbounded, because the driver must never wait for a socket; the engine bounds it: a few messages for
    /// each execution and agent.
    pub outbound: mpsc::UnboundedSender<(AgentId, ToAgent)>,
    /// What happened.
    pub inbound: mpsc::Receiver<Inbound>,
    /// The session, to close it in the end.
    pub muc: muc::Muc,
}

/// Logs in and joins the management room; both are repeated for ever.
pub fn start(config: BusConfig) -> Result<Bus, BusError> {
    let announcement = Announcement {
        versions: native::VERSIONS.to_vec(),
        software: format!("wps-orchestrator {}", env!("CARGO_PKG_VERSION")),
        instance: config.instance.clone(),
        load: None,
    };
    let presence = native::encode_peer(&Peer::Orchestrator(announcement))?;
    let room = |room: &BareJid, password: &Option<String>| muc::RoomConfig {
        room: room.clone(),
        nick: config.nick.clone(),
        password: password.clone(),
        create: true,
    };
    let old = config.legacy_rooms.iter().map(|address| room(address, &config.legacy_password));
    let rooms = std::iter::once(room(&config.room, &config.room_password)).chain(old).collect();
    let (muc, events) = muc::start(muc::MucConfig {
        session: config.session.clone(),
        rooms,
        presence: vec![wps_remote_xmpp::payload(presence.name, &presence.json)],
    });
    let (outbound, to_send) = mpsc::unbounded_channel();
    let (to_driver, inbound) = mpsc::channel(INBOUND);
    tokio::spawn(task::run(config, muc.clone(), events, to_send, to_driver));
    Ok(Bus { outbound, inbound, muc })
}
