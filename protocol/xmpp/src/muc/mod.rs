//! Rooms (XEP-0045) as both programs use them: join and stay joined, see who is there, exchange private messages and
//! requests with occupants. Everything goes through one [`Muc`] handle and one stream of [`MucEvent`]s. Knows
//! nothing of what the payloads mean.
//!
//! * [`MucEvent::Offline`] ends the presence of *everybody* in *every* room: no [`MucEvent::Gone`] follows for single
//!   occupants, and no [`MucEvent::Left`] for rooms. After the next [`MucEvent::Online`] all rooms are joined again
//!   by themselves; each tells [`MucEvent::Joined`] and then every occupant anew. [`MucEvent::Left`] likewise ends
//!   the presence of everybody in that room.
//! * [`MucEvent::Joined`] always comes before the occupants, messages and requests of its room.
//! * The event channel is bounded; the task keeps a bounded backlog behind it and then stops reading from the server
//!   until the consumer has caught up. Calling [`Muc`] from the loop that reads events is therefore always safe; only
//!   [`Muc::request`] should be awaited in a task of its own if answers matter while events pour in.
//! * Dropping the receiver, or every handle, closes the session.

mod machine;
mod room;
mod wire;

use crate::session::{Ending, SessionConfig, drive};
use crate::stream::{Gauge, Outgoing, Refused, admit};
use crate::xml::{Unsendable, measure};
use crate::{BareJid, Element, FullJid, Jid, MAX_MESSAGE, StanzaError};
use machine::{Command, Machine};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// Events that wait in the channel itself.
const EVENT_CHANNEL: usize = 256;

/// A room to be in.
#[derive(Clone, PartialEq, Eq)]
pub struct RoomConfig {
    /// Address of the room, e.g. `wps@conference.example.org`.
    pub room: BareJid,
    /// Our name in it.
    pub nick: String,
    /// The room's password.
    pub password: Option<String>,
    /// Whether this program creates the room if it does not exist, and configures it whenever it owns it: with the
    /// password, not persistent, real addresses for moderators only. Without this a room that the join happens to
    /// create is left again at once and the join repeated later.
    pub create: bool,
}

impl fmt::Debug for RoomConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RoomConfig")
            .field("room", &self.room)
            .field("nick", &self.nick)
            .field("password", &self.password.as_ref().map(|_| "…"))
            .field("create", &self.create)
            .finish()
    }
}

/// A session and its rooms.
#[derive(Debug, Clone)]
pub struct MucConfig {
    /// Who logs in where.
    pub session: SessionConfig,
    /// Rooms to be in from the start.
    pub rooms: Vec<RoomConfig>,
    /// Elements put into our presence in each room.
    pub presence: Vec<Element>,
}

/// What happens.
#[derive(Debug)]
pub enum MucEvent {
    /// Logged in. The rooms follow.
    Online {
        /// Our address as the server bound it.
        jid: FullJid,
    },
    /// The connection is gone, or an attempt failed; every room and occupant with it. Told once per failed attempt.
    Offline {
        /// Why.
        ending: Ending,
        /// When the next attempt follows; zero if there will be none because the session was closed.
        retry_in: Duration,
    },
    /// We are in the room (and it is configured, if that is our task).
    Joined {
        /// The room.
        room: BareJid,
    },
    /// The room did not let us in.
    JoinRefused {
        /// The room.
        room: BareJid,
        /// Condition of RFC 6120 §8.3.3: `not-authorized` means a wrong room password, `conflict` a taken nick,
        /// `item-not-found` a room that does not exist (yet).
        condition: String,
        /// The server's words, or ours.
        text: String,
        /// When the next attempt follows.
        retry_in: Duration,
    },
    /// We are no longer in the room, nor is, for us, anybody else. Unless we asked for it, a new join follows.
    Left {
        /// The room.
        room: BareJid,
        /// Why, if somebody said so.
        reason: Option<String>,
    },
    /// Somebody is in the room, or changed presence. We ourselves are never reported.
    Occupant(Occupant),
    /// Somebody left.
    Gone {
        /// The room.
        room: BareJid,
        /// Who.
        nick: String,
        /// Why, if somebody said so.
        reason: Option<String>,
    },
    /// A message from an occupant.
    Message {
        /// The room.
        room: BareJid,
        /// The sender.
        nick: String,
        /// Whether it was sent to us alone.
        private: bool,
        /// The text, if any.
        body: Option<String>,
        /// All other elements of the message.
        payloads: Vec<Element>,
    },
    /// An occupant asks for something (an IQ `set` through the room) and waits for [`Muc::respond`].
    Request {
        /// The room.
        room: BareJid,
        /// Who asks.
        nick: String,
        /// What for.
        payload: Element,
        /// To answer with. If it is dropped instead, the answer is an `internal-server-error`.
        token: RequestToken,
    },
    /// A private message could not be delivered.
    Bounced {
        /// The room.
        room: BareJid,
        /// Who did not get it.
        nick: String,
        /// Id of the message.
        id: Option<String>,
        /// Name of the payload that was sent, if it was one of ours.
        payload: Option<String>,
        /// Condition of RFC 6120 §8.3.3; `item-not-found` means that the occupant is gone.
        condition: String,
        /// The server's words.
        text: String,
    },
}

/// Somebody in a room.
#[derive(Debug, Clone)]
pub struct Occupant {
    /// The room.
    pub room: BareJid,
    /// Name in the room.
    pub nick: String,
    /// What the occupant may do there.
    pub role: Role,
    /// How the occupant's account stands to the room.
    pub affiliation: Affiliation,
    /// The real address, where the room discloses it to us.
    pub real_jid: Option<Jid>,
    /// The elements of the presence, without the room's own.
    pub payloads: Vec<Element>,
    /// Whether the occupant was not there before (else only the presence changed).
    pub fresh: bool,
}

/// Role in a room (XEP-0045 §5.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// May kick, and sees real addresses.
    Moderator,
    /// May speak.
    Participant,
    /// May listen, and send private messages.
    Visitor,
    /// Not in the room.
    None,
}

/// Long-lived relation of an account to a room (XEP-0045 §5.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Affiliation {
    /// May configure it.
    Owner,
    /// May administer it.
    Admin,
    /// Registered.
    Member,
    /// No relation.
    None,
    /// Banned.
    Outcast,
}

/// Why something was not sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// There is no connection.
    #[error("there is no connection to the XMPP server")]
    Offline,
    /// The session has been closed.
    #[error("the XMPP session is closed")]
    Closed,
    /// Larger than a server would take.
    #[error(
        "the message takes {bytes} bytes on the wire, more than the {MAX_MESSAGE} that are sent: pass large data through files"
    )]
    TooBig {
        /// Its size.
        bytes: usize,
    },
    /// XML cannot carry it.
    #[error(transparent)]
    Unsendable(#[from] Unsendable),
    /// Too much is waiting already.
    #[error("too many bytes are waiting to be sent")]
    QueueFull,
    /// No occupant can have this name.
    #[error("`{nick}` cannot be the name of an occupant")]
    BadNick {
        /// As given.
        nick: String,
    },
}

/// Why there is no answer to a request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// It was not sent.
    #[error(transparent)]
    NotSent(#[from] SendError),
    /// We are not in that room at the moment.
    #[error("not in the room {room}")]
    NotJoined {
        /// The room.
        room: BareJid,
    },
    /// The peer, or the room on its behalf, refused. `item-not-found` from a room means that the occupant is gone.
    #[error("refused: {0}")]
    Refused(StanzaError),
    /// No answer came in time; whether the peer acted is unknown.
    #[error("no answer within {} s", deadline.as_secs_f32())]
    Timeout {
        /// The deadline given.
        deadline: Duration,
    },
    /// The connection broke before an answer came; whether the peer acted is unknown.
    #[error("the connection broke before an answer came")]
    ConnectionLost,
}

/// The right, and the duty, to answer one request.
#[derive(Debug)]
pub struct RequestToken {
    reply: Option<Reply>,
    commands: mpsc::WeakUnboundedSender<Command>,
}

/// Where an answer goes.
#[derive(Debug, Clone)]
struct Reply {
    to: Jid,
    id: String,
    /// Which connection the request came over; answers over another one would reach nobody.
    connection: u64,
}

impl Drop for RequestToken {
    fn drop(&mut self) {
        if let (Some(reply), Some(commands)) = (self.reply.take(), self.commands.upgrade()) {
            let answer = Err(StanzaError::new("internal-server-error", "the request was not handled"));
            // A closed session has nobody to answer to.
            let _ = commands.send(Command::Respond { reply, answer });
        }
    }
}

/// What handles and the session's task share.
#[derive(Debug)]
struct Shared {
    online: AtomicBool,
    queue: Arc<Gauge>,
    messages: AtomicU64,
}

/// Handle to the rooms. Cheap to clone; nothing here ever blocks.
#[derive(Debug, Clone)]
pub struct Muc {
    commands: mpsc::UnboundedSender<Command>,
    shared: Arc<Shared>,
}

/// Starts a session and joins its rooms. Must be called within a tokio runtime.
pub fn start(config: MucConfig) -> (Muc, mpsc::Receiver<MucEvent>) {
    // Unbounded in number, but every entry that carries data holds bytes of the bounded gauge.
    let (commands, receiver) = mpsc::unbounded_channel();
    let (events, event_receiver) = mpsc::channel(EVENT_CHANNEL);
    let shared = Arc::new(Shared {
        online: AtomicBool::new(false),
        queue: Gauge::new(config.session.queue_bytes),
        messages: AtomicU64::new(0),
    });
    let machine = Machine::new(config.rooms, config.presence, shared.clone(), commands.downgrade());
    tokio::spawn(drive(config.session, machine, receiver, events));
    (Muc { commands, shared }, event_receiver)
}

impl Muc {
    /// Sends `payload` to an occupant in a private message. Delivery is not confirmed; what could not be delivered
    /// comes back as [`MucEvent::Bounced`].
    ///
    /// # Errors
    /// At once and without sending, see [`SendError`].
    pub fn send(&self, room: &BareJid, nick: &str, payload: Element) -> Result<(), SendError> {
        let id = format!("m{}-{}", self.shared.messages.fetch_add(1, Relaxed), payload.name());
        self.message(room, nick, &id, payload)
    }

    /// Sends a text to an occupant in a private message (the legacy dialect). Returns the id of the message, by which
    /// [`MucEvent::Bounced`] names it.
    ///
    /// # Errors
    /// At once and without sending, see [`SendError`].
    pub fn send_body(&self, room: &BareJid, nick: &str, body: &str) -> Result<String, SendError> {
        let id = format!("m{}", self.shared.messages.fetch_add(1, Relaxed));
        self.message(room, nick, &id, wire::body(body))?;
        Ok(id)
    }

    fn message(&self, room: &BareJid, nick: &str, id: &str, content: Element) -> Result<(), SendError> {
        let to = occupant(room, nick)?;
        let message = self.admit(wire::private_message(&to, id, content))?;
        self.command(Command::Message { to, message })
    }

    /// Asks an occupant for something and waits for the answer, at most `deadline`.
    ///
    /// # Errors
    /// See [`RequestError`]; only [`RequestError::Refused`] says for certain that the peer did not act.
    pub async fn request(
        &self,
        room: &BareJid,
        nick: &str,
        payload: Element,
        deadline: Duration,
    ) -> Result<Option<Element>, RequestError> {
        let to = occupant(room, nick)?;
        let request = self.admit(wire::request(&to, payload))?;
        let (reply, answer) = oneshot::channel();
        self.command(Command::Request { to, request, reply })?;
        match tokio::time::timeout(deadline, answer).await {
            Err(_) => Err(RequestError::Timeout { deadline }),
            Ok(Err(_)) => Err(RequestError::ConnectionLost),
            Ok(Ok(answer)) => answer,
        }
    }

    /// Answers a request: taken, perhaps with a payload, or refused with a reason. An answer that cannot be sent
    /// (too big, not XML) is replaced by an `internal-server-error`, so that the peer does not wait in vain.
    pub fn respond(&self, mut request: RequestToken, answer: Result<Option<Element>, StanzaError>) {
        let Some(reply) = request.reply.take() else { return };
        let answer = answer.and_then(|payload| match payload.as_ref().map(measure) {
            Some(Ok(bytes)) if bytes > MAX_MESSAGE => {
                Err(StanzaError::new("internal-server-error", SendError::TooBig { bytes }.to_string()))
            }
            Some(Err(reason)) => Err(StanzaError::new("internal-server-error", reason.to_string())),
            Some(Ok(_)) | None => Ok(payload),
        });
        let answer = answer.map_err(|error| StanzaError { by_peer: true, ..error });
        // A closed session has nobody to answer to.
        let _ = self.commands.send(Command::Respond { reply, answer });
    }

    /// Replaces the elements in our presence, in all rooms now and at every later join.
    ///
    /// # Errors
    /// Without changing anything, see [`SendError`]; being offline is no error here.
    pub fn set_presence(&self, payload: Vec<Element>) -> Result<(), SendError> {
        let mut bytes = 0;
        for element in &payload {
            bytes += measure(element)?;
        }
        if bytes > MAX_MESSAGE {
            return Err(SendError::TooBig { bytes });
        }
        self.commands.send(Command::SetPresence(payload)).map_err(|_| SendError::Closed)
    }

    /// Joins a room and stays in it; a room of the same address is left first if its settings differ.
    pub fn join(&self, room: RoomConfig) {
        // After the end of the session there is no room to be in.
        let _ = self.commands.send(Command::Join(room));
    }

    /// Leaves a room for good.
    pub fn leave(&self, room: &BareJid) {
        let _ = self.commands.send(Command::Leave(room.clone()));
    }

    /// Whether the session is logged in at this moment.
    pub fn is_online(&self) -> bool {
        self.shared.online.load(Relaxed)
    }

    /// Ends the session: sends what is queued, says good-bye, closes the connection, and waits for it.
    pub async fn close(self) {
        let _ = self.commands.send(Command::Close);
        self.commands.closed().await;
    }

    fn admit(&self, stanza: Element) -> Result<Outgoing, SendError> {
        if !self.is_online() {
            return Err(if self.commands.is_closed() { SendError::Closed } else { SendError::Offline });
        }
        let bytes = measure(&stanza)?;
        if bytes > MAX_MESSAGE {
            return Err(SendError::TooBig { bytes });
        }
        admit(stanza, &self.shared.queue).map_err(|refused| match refused {
            Refused::Full => SendError::QueueFull,
            Refused::Unsendable(reason) => reason.into(),
        })
    }

    fn command(&self, command: Command) -> Result<(), SendError> {
        self.commands.send(command).map_err(|_| SendError::Closed)
    }
}

fn occupant(room: &BareJid, nick: &str) -> Result<FullJid, SendError> {
    room.with_resource_str(nick).map_err(|_| SendError::BadNick { nick: nick.to_owned() })
}

#[cfg(test)]
mod tests;
