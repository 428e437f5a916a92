//! The rooms of the old dialect: events into the machine, and what it decides into messages. Holds no state of its own.

use std::time::{Duration, Instant};

use tracing::{debug, warn};
use wps_remote_protocol::legacy::Order;
use wps_remote_protocol::message::RefusalReason;
use wps_remote_protocol::native::{self, Peer};
use wps_remote_protocol::{AgentId, ExecutionId, Outputs, Refusal, ToAgent};
use wps_remote_xmpp::muc::{MucEvent, Occupant, SendError};
use wps_remote_xmpp::parse_payload;

use super::super::legacy::{Effect, collect};
use super::{Gone, Task};

/// How often silence is looked for.
pub(super) const TICK: Duration = Duration::from_secs(1);

/// The files of an execution were taken over, or one of them was not.
pub(super) struct Collected {
    execution: ExecutionId,
    result: Result<(Outputs, Vec<String>), (String, String)>,
}

impl Task {
    /// The namespace whose room an event is about.
    pub(super) fn old_room(&self, event: &MucEvent) -> Option<String> {
        let room = match event {
            MucEvent::Online { .. } | MucEvent::Offline { .. } => return None,
            MucEvent::Occupant(occupant) => &occupant.room,
            MucEvent::Joined { room }
            | MucEvent::JoinRefused { room, .. }
            | MucEvent::Left { room, .. }
            | MucEvent::Gone { room, .. }
            | MucEvent::Message { room, .. }
            | MucEvent::Request { room, .. }
            | MucEvent::Bounced { room, .. } => room,
        };
        let place = self.config.legacy_rooms.iter().position(|other| other == room)?;
        self.config.legacy.rooms.get(place).cloned()
    }

    pub(super) async fn old_event(&mut self, namespace: String, event: MucEvent) -> Result<(), Gone> {
        let now = Instant::now();
        match event {
            MucEvent::Joined { .. } => self.old.in_room(&namespace, now),
            MucEvent::JoinRefused { room, condition, text, retry_in } => {
                let remedy = match condition.as_str() {
                    "conflict" => "another occupant has our name there: set another [xmpp] nick",
                    "not-authorized" => "check [legacy] muc_password",
                    _ => "check [legacy] rooms and [xmpp] muc_service",
                };
                warn!(%room, %condition, retry_in_s = retry_in.as_secs(), "the room does not let us in: {text}; {remedy}");
            }
            MucEvent::Left { room, reason } => {
                warn!(%room, "out of the room: {}", reason.as_deref().unwrap_or("no reason given"));
                self.old.unreachable(Some(&namespace), now);
            }
            // One of our own agents, in the service of a GeoServer: it is driven in the management room.
            MucEvent::Occupant(occupant) if is_native_agent(&occupant) => {}
            MucEvent::Occupant(occupant) => {
                let account = occupant.real_jid.map(|jid| jid.to_bare().to_string());
                self.old.occupant(&namespace, &occupant.nick, account, occupant.fresh, now);
            }
            MucEvent::Gone { nick, reason, .. } => self.old.gone(&namespace, &nick, reason, now),
            MucEvent::Message { nick, body: Some(body), private: true, .. } => {
                self.old.message(&namespace, &nick, &body, now);
            }
            MucEvent::Bounced { nick, id, condition, .. } => {
                debug!(%nick, %condition, "a message came back");
                self.old.bounced(id.as_deref(), &condition);
            }
            // A request that nobody answers is refused by itself.
            MucEvent::Message { .. }
            | MucEvent::Request { .. }
            | MucEvent::Online { .. }
            | MucEvent::Offline { .. } => {}
        }
        self.old_effects().await
    }

    pub(super) async fn old_order(&mut self, agent: &AgentId, order: ToAgent) -> Result<(), Gone> {
        self.old.order(agent, order, Instant::now());
        self.old_effects().await
    }

    pub(super) async fn old_tick(&mut self) -> Result<(), Gone> {
        if self.joined && !self.config.legacy_rooms.is_empty() {
            self.old.tick(Instant::now());
        }
        self.old_effects().await
    }

    pub(super) async fn taken_over(&mut self, done: Collected) -> Result<(), Gone> {
        self.old.collected(&done.execution, done.result);
        self.old_effects().await
    }

    /// Sending can have further effects, so this goes on until there are none.
    async fn old_effects(&mut self) -> Result<(), Gone> {
        loop {
            let effects = self.old.take();
            if effects.is_empty() {
                return Ok(());
            }
            for effect in effects {
                match effect {
                    Effect::Tell(inbound) => self.tell(inbound).await?,
                    Effect::Send { namespace, nick, order, execution } => {
                        self.old_send(&namespace, &nick, &order, execution);
                    }
                    Effect::Collect { execution, outputs, broken, description } => {
                        let (files, done) = (self.config.legacy.files.clone(), self.collected.clone());
                        tokio::task::spawn_blocking(move || {
                            let result =
                                collect(&files, &execution, &outputs, &broken, description.as_deref());
                            // Without a receiver the program is ending; the agent will repeat it.
                            let _ = done.send(Collected { execution, result });
                        });
                    }
                }
            }
        }
    }

    fn old_send(&mut self, namespace: &str, nick: &str, order: &Order, execution: Option<ExecutionId>) {
        let place = self.config.legacy.rooms.iter().position(|room| room == namespace);
        let Some(room) = place.and_then(|place| self.config.legacy_rooms.get(place)) else { return };
        let result = self.muc.send_body(room, nick, &order.encode());
        match (execution, result) {
            (Some(execution), result) => self.old.sent(&execution, result.map_err(|error| refusal(&error))),
            (None, Err(error)) => debug!(%nick, %room, "a message was not sent: {error}"),
            (None, Ok(_)) => {}
        }
    }
}

fn is_native_agent(occupant: &Occupant) -> bool {
    let mut peers = occupant.payloads.iter().filter_map(parse_payload);
    peers.any(|(name, json)| matches!(native::decode_peer(&name, &json), Ok(Peer::Agent(_))))
}

fn refusal(error: &SendError) -> Refusal {
    let reason = match error {
        SendError::TooBig { .. } | SendError::Unsendable(_) | SendError::BadNick { .. } => {
            RefusalReason::Undeliverable
        }
        SendError::Offline | SendError::Closed | SendError::QueueFull => RefusalReason::Capacity,
    };
    Refusal { reason, text: error.to_string() }
}
