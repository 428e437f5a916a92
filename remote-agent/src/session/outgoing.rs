//! What the agent says: messages at once, requests in order with a window for each orchestrator, endings one at a time for each
//! execution until they are answered.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tracing::{debug, warn};
use wps_remote_protocol::native::{self, Carrier};
use wps_remote_protocol::{ErrorKind, ExecutionError, ExecutionId, FromAgent};
use wps_remote_xmpp::muc::{Muc, RequestError};
use wps_remote_xmpp::{BareJid, Element, payload};

use super::{Delivered, Verdict};
use crate::engine::Peer;

/// Requests under way to one orchestrator, endings apart: a hundred registrations cost few round trips and no flood.
const WINDOW: usize = 16;
/// How long an orchestrator may take for an answer.
const ANSWER: Duration = Duration::from_secs(20);
/// How often a request is made that is not answered. After that, the next invitation makes up for it.
const ATTEMPTS: u32 = 3;

/// The requests to one orchestrator, in order. Ends with its presence.
pub(super) struct Lines {
    // Unbounded: one entry for each process, twice at most between two answers; the catalogue bounds it.
    queue: mpsc::UnboundedSender<(&'static str, Element)>,
    task: AbortHandle,
}

impl Drop for Lines {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Says everything to everybody.
pub(super) struct Outgoing {
    muc: Muc,
    room: BareJid,
    delivered: mpsc::Sender<Delivered>,
    under_way: Arc<Mutex<HashSet<(Peer, ExecutionId)>>>,
}

impl Outgoing {
    pub(super) fn new(muc: Muc, room: BareJid) -> (Self, mpsc::Receiver<Delivered>) {
        let (delivered, receiver) = mpsc::channel(64);
        (Self { muc, room, delivered, under_way: Arc::default() }, receiver)
    }

    /// The connection is gone; what is under way will not be answered.
    pub(super) fn forget_all(&self) {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    pub(super) fn send(&self, to: &Peer, lines: &mut Option<Lines>, message: FromAgent) {
        let written = match native::encode_from_agent(&message) {
            Ok(written) => written,
            Err(error) => {
                warn!(orchestrator = %to, "a message cannot be written: {error}");
                // An ending must arrive in some form, or the job would never end for its client.
                if let FromAgent::Completed { execution, .. } = message {
                    self.send(to, lines, too_large(execution, &error.to_string()));
                }
                return;
            }
        };
        let element = payload(written.name, &written.json);
        match message {
            FromAgent::Completed { execution, .. } | FromAgent::Error { execution, .. } => {
                self.ending(to, execution, element);
            }
            _ if native::carrier(written.name) == Carrier::Message => {
                if let Err(error) = self.muc.send(&self.room, &to.0, element) {
                    debug!(orchestrator = %to, message = written.name, "not sent: {error}");
                }
            }
            _ => {
                let lines = lines.get_or_insert_with(|| self.lines(to.clone()));
                // The task ends only with its sender.
                let _ = lines.queue.send((written.name, element));
            }
        }
    }

    /// The engine repeats endings; as long as one is under way, a second copy would only be answered twice.
    fn ending(&self, to: &Peer, execution: ExecutionId, element: Element) {
        let key = (to.clone(), execution.clone());
        if !self.under_way.lock().unwrap_or_else(PoisonError::into_inner).insert(key.clone()) {
            return;
        }
        let (muc, room, delivered, under_way) =
            (self.muc.clone(), self.room.clone(), self.delivered.clone(), self.under_way.clone());
        tokio::spawn(async move {
            let answer = muc.request(&room, &key.0.0, element, ANSWER).await;
            under_way.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
            if let Err(error) = &answer {
                debug!(orchestrator = %key.0, execution.id = %execution, "an ending was not taken: {error}");
            }
            if let Some(verdict) = verdict(&answer) {
                // Without a receiver the agent stops; its successor tells the ending again.
                let _ = delivered.send(Delivered { execution, by: key.0, verdict }).await;
            }
        });
    }

    fn lines(&self, to: Peer) -> Lines {
        let (queue, mut receiver) = mpsc::unbounded_channel::<(&'static str, Element)>();
        let (muc, room) = (self.muc.clone(), self.room.clone());
        let task = tokio::spawn(async move {
            let mut under_way = FuturesUnordered::new();
            loop {
                tokio::select! {
                    biased;
                    Some(()) = under_way.next() => {}
                    next = receiver.recv(), if under_way.len() < WINDOW => match next {
                        Some((name, element)) => under_way.push(ask(&muc, &room, &to, name, element)),
                        None => break,
                    },
                }
            }
        });
        Lines { queue, task: task.abort_handle() }
    }
}

async fn ask(muc: &Muc, room: &BareJid, to: &Peer, name: &'static str, element: Element) {
    for attempt in 1..=ATTEMPTS {
        match muc.request(room, &to.0, element.clone(), ANSWER).await {
            Ok(_) => return,
            Err(RequestError::Timeout { .. }) if attempt < ATTEMPTS => {
                debug!(orchestrator = %to, request = name, "no answer; asked again");
            }
            Err(RequestError::ConnectionLost | RequestError::NotJoined { .. }) => return,
            Err(error) => {
                warn!(orchestrator = %to, request = name, "the orchestrator did not take it: {error}");
                return;
            }
        }
    }
}

/// What an orchestrator says of an ending; `None` = nothing that counts: it has to be told again.
fn verdict(answer: &Result<Option<Element>, RequestError>) -> Option<Verdict> {
    match answer {
        Ok(_) => Some(Verdict::Stored),
        // A room says the same of an orchestrator that has just left: that one, or its successor, still has the job.
        Err(RequestError::Refused(error)) if error.by_peer => match error.condition.as_str() {
            "item-not-found" => Some(Verdict::Unknown),
            "conflict" => Some(Verdict::Elsewhere),
            _ => None,
        },
        Err(_) => None,
    }
}

fn too_large(execution: ExecutionId, why: &str) -> FromAgent {
    let text = format!("the job ended well, but its outputs do not fit into a message: {why}");
    FromAgent::Error {
        execution,
        error: ExecutionError { kind: ErrorKind::OutputMissing(String::new()), text, receipt: None },
    }
}

#[cfg(test)]
mod tests {
    use wps_remote_xmpp::StanzaError;

    use super::*;

    #[test]
    fn what_a_room_says_of_an_orchestrator_that_has_gone_is_not_the_orchestrators_word() {
        let said = |condition: &str, by_peer| {
            let error = StanzaError { by_peer, ..StanzaError::new(condition, "") };
            verdict(&Err(RequestError::Refused(error)))
        };
        assert_eq!(verdict(&Ok(None)), Some(Verdict::Stored));
        assert_eq!(said("item-not-found", true), Some(Verdict::Unknown));
        assert_eq!(said("item-not-found", false), None, "the ending is told again");
        assert_eq!(said("conflict", true), Some(Verdict::Elsewhere));
        assert_eq!(said("conflict", false), None, "the ending is told again");
        assert_eq!(said("bad-request", true), None, "the ending is told again");
    }
}
