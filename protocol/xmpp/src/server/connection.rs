//! The second half of a connection: stanzas in, stanzas out, until one side has enough. Reading and writing never
//! wait for each other; a sender waits, for a while, for a receiver whose queue fills.

use super::negotiate::negotiate;
use super::registry::{Cut, Item, Pressure, Session};
use super::{AccountsError, CLOSE_PATIENCE, Core, Origin};
use crate::stream::{BoxBytes, Link, Stop};
use crate::xml::{Build, element, error_of, ns, result_of};
use crate::{Element, StanzaError};
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::time::Sleep;

/// Stanzas handled before the other direction gets its turn.
const TURN: usize = 64;
/// How often a waiting sender looks whether its receiver has caught up.
const PAUSE: Duration = Duration::from_millis(2);
/// A receiver whose queue has not shrunk for so long is not waited for any more.
const PATIENCE_WITH_RECEIVER: Duration = Duration::from_millis(500);

/// How a session ended.
#[derive(Debug)]
enum End {
    /// The client closed its stream.
    Clean,
    /// The connection is gone, or the client did not answer a probe.
    Lost(io::Error),
    TooBig,
    TooDeep,
    Cut(Cut),
}

/// Serves one connection from its first byte to its end.
pub(super) async fn serve(core: Arc<Core>, io: BoxBytes, origin: Origin) {
    let negotiated = tokio::select! {
        negotiated = tokio::time::timeout(core.limits.negotiation, negotiate(&core, io, &origin)) => negotiated,
        () = core.stopping.cancelled() => return,
    };
    let (link, session) = match negotiated {
        Ok(Ok(negotiated)) => negotiated,
        Ok(Err(reason)) => {
            return tracing::debug!(from = %origin, "an XMPP connection came to nothing: {reason}");
        }
        Err(_) => {
            return tracing::info!(from = %origin, "an XMPP connection was closed: no login within {:?}", core.limits.negotiation);
        }
    };
    tracing::info!(jid = %session.jid, from = %origin, "XMPP session began");
    let enrolling = session.jid.node().is_some_and(|user| core.accounts.is_waiting(user.as_str()));
    let mut connection =
        Connection { core, link, session, enrolling, pause: None, received: None, probes: 0 };
    let end = poll_fn(|cx| connection.poll(cx)).await;
    connection.finish(end).await;
}

struct Connection {
    core: Arc<Core>,
    link: Link,
    session: Session,
    /// It was let in to get a password, and for nothing else.
    enrolling: bool,
    pause: Option<Pause>,
    /// Stanzas received since XEP-0198 was enabled.
    received: Option<u32>,
    probes: u64,
}

/// Waiting for a receiver.
struct Pause {
    pressure: Arc<Pressure>,
    used: usize,
    moved: Instant,
    sleep: Pin<Box<Sleep>>,
}

impl Pause {
    fn new(pressure: Arc<Pressure>) -> Self {
        Self {
            used: pressure.used(),
            moved: Instant::now(),
            sleep: Box::pin(tokio::time::sleep(PAUSE)),
            pressure,
        }
    }

    /// Ready when the sender may go on.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            std::task::ready!(self.sleep.as_mut().poll(cx));
            let used = self.pressure.used();
            if !self.pressure.is_high() {
                return Poll::Ready(());
            }
            if used < self.used {
                self.moved = Instant::now();
            } else if self.moved.elapsed() >= PATIENCE_WITH_RECEIVER {
                self.pressure.give_up();
                return Poll::Ready(());
            }
            self.used = used;
            self.sleep = Box::pin(tokio::time::sleep(PAUSE));
        }
    }
}

impl Connection {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        loop {
            let mut again = false;
            for turn in 0..TURN {
                match self.session.queue.poll_recv(cx) {
                    Poll::Pending => break,
                    Poll::Ready(None) => return Poll::Ready(End::Cut(Cut::Shutdown)),
                    Poll::Ready(Some(Item::Cut(cut))) => return Poll::Ready(End::Cut(cut)),
                    Poll::Ready(Some(Item::Stanza(stanza))) => self.link.push(stanza),
                }
                again = turn + 1 == TURN;
            }
            again |= match self.poll_incoming(cx) {
                Poll::Ready(Ok(())) => true,
                Poll::Ready(Err(end)) => return Poll::Ready(end),
                Poll::Pending => false,
            };
            if let Poll::Ready(Err(error)) = self.link.poll_write(cx) {
                return Poll::Ready(End::Lost(error));
            }
            if !again {
                return Poll::Pending;
            }
        }
    }

    /// Ready when something was read and there may be more.
    fn poll_incoming(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), End>> {
        for _ in 0..TURN {
            if let Some(pause) = &mut self.pause {
                std::task::ready!(pause.poll(cx));
                self.pause = None;
            }
            match std::task::ready!(self.link.poll_read(cx)) {
                Ok(stanza) => self.receive(stanza),
                Err(Stop::Idle) => self.probe(),
                Err(Stop::TooDeep | Stop::MuchTooDeep) => return Poll::Ready(Err(End::TooDeep)),
                Err(Stop::TooBig) => return Poll::Ready(Err(End::TooBig)),
                Err(Stop::Closed) => return Poll::Ready(Err(End::Clean)),
                Err(Stop::Io(error)) => return Poll::Ready(Err(End::Lost(error))),
            }
        }
        Poll::Ready(Ok(()))
    }

    fn receive(&mut self, stanza: Element) {
        if stanza.has_ns(ns::SM) {
            return self.stream_management(&stanza);
        }
        // Other elements, such as client state indications (XEP-0352), ask for nothing that is offered here.
        if !stanza.has_ns(ns::CLIENT) || !matches!(stanza.name(), "message" | "presence" | "iq") {
            return;
        }
        if let Some(received) = &mut self.received {
            *received = received.wrapping_add(1);
        }
        if self.enrolling {
            return self.enrol(&stanza);
        }
        // RFC 6120 §8.1.2.1: whatever the client says about itself.
        let stanza = stanza.with("from", self.session.jid.to_string());
        if let Some(pressure) = self.core.router.route(stanza, &self.session.jid) {
            self.pause = Some(Pause::new(pressure));
        }
    }

    /// All that a session may do that was let in with a secret for one use.
    fn enrol(&mut self, stanza: &Element) {
        let request = stanza.name() == "iq" && matches!(stanza.attr("type"), Some("get" | "set"));
        let Some(enrol) = stanza.get_child("enrol", ns::ENROL).filter(|_| request) else {
            if stanza.attr("type") != Some("error") && stanza.attr("type") != Some("result") {
                let why = "this login is for enrolment only";
                self.link.push(error_of(stanza, &StanzaError::new("not-authorized", why)));
            }
            return;
        };
        let jid = &self.session.jid;
        let user = jid.node().map(|user| user.as_str().to_owned()).unwrap_or_default();
        let answer = match self.core.accounts.redeem(&user, &enrol.text()) {
            Ok(()) => {
                tracing::info!(%jid, "an account was enrolled");
                let welcome = self.core.welcome.clone().unwrap_or_default();
                result_of(stanza).child(element("enrolled", ns::ENROL).text_of(&welcome))
            }
            Err(error @ (AccountsError::NotWaiting { .. } | AccountsError::BadPassword)) => {
                tracing::warn!(%jid, "an enrolment was refused: {error}");
                error_of(stanza, &StanzaError::new("not-acceptable", error.to_string()))
            }
            Err(error) => {
                tracing::error!(%jid, "an account could not be enrolled: {error}");
                error_of(stanza, &StanzaError::new("internal-server-error", ""))
            }
        };
        self.link.push(answer);
    }

    /// XEP-0198 without resumption: counts and answers.
    fn stream_management(&mut self, element_in: &Element) {
        match (element_in.name(), self.received) {
            ("enable", None) => {
                self.received = Some(0);
                self.link.push(element("enabled", ns::SM));
            }
            ("r", Some(received)) => self.link.push(element("a", ns::SM).with("h", received.to_string())),
            _ => {}
        }
    }

    /// Asks a silent client for a sign of life (XEP-0199). If none comes, reading ends with a timeout.
    fn probe(&mut self) {
        self.probes += 1;
        let ping = element("iq", ns::CLIENT)
            .with("type", "get")
            .with("from", self.core.router.domain())
            .with("to", self.session.jid.to_string())
            .with("id", format!("alive-{}", self.probes))
            .child(element("ping", ns::PING));
        self.link.push(ping);
    }

    async fn finish(self, end: End) {
        let Self { core, mut link, session, .. } = self;
        let jid = &session.jid;
        let reason = match &end {
            End::Clean => {
                tracing::info!(%jid, "XMPP session ended");
                None
            }
            End::Lost(error) if error.kind() == io::ErrorKind::TimedOut => {
                tracing::warn!(%jid, "XMPP session ended: the client fell silent and did not answer");
                Some("connection timed out")
            }
            End::Lost(error) => {
                tracing::info!(%jid, "XMPP session ended: the connection is gone ({error})");
                Some("connection lost")
            }
            End::TooBig => {
                tracing::warn!(%jid, limit = core.limits.max_stanza, "XMPP session cut: it sent a stanza that is too big");
                Some("sent a stanza that is too big")
            }
            End::TooDeep => {
                tracing::warn!(%jid, limit = crate::MAX_DEPTH, "XMPP session cut: it sent a stanza that is nested too deeply");
                Some("sent a stanza that is nested too deeply")
            }
            End::Cut(Cut::Slow) => {
                let bytes = core.limits.queue_bytes;
                tracing::warn!(%jid, bytes, "XMPP session cut: it does not take what is sent to it");
                Some("did not take its messages")
            }
            End::Cut(Cut::Replaced | Cut::Shutdown) => None,
        };
        // The rooms hear of it before the farewell, which may take its time.
        core.router.ended(jid, session.id, reason);
        match end {
            End::Clean | End::Lost(_) => link.close(CLOSE_PATIENCE).await,
            End::TooBig => {
                link.close_after_excess("policy-violation", "the stanza is too big", CLOSE_PATIENCE).await;
            }
            End::TooDeep => {
                link.close_after_excess(
                    "policy-violation",
                    "the stanza is nested too deeply",
                    CLOSE_PATIENCE,
                )
                .await;
            }
            End::Cut(Cut::Slow) => {
                link.close_with_error("policy-violation", "too much is waiting for you", CLOSE_PATIENCE)
                    .await;
            }
            End::Cut(Cut::Replaced) => {
                link.close_with_error("conflict", "replaced by a new connection", CLOSE_PATIENCE).await;
            }
            End::Cut(Cut::Shutdown) => {
                link.close_with_error("system-shutdown", "the server stops", CLOSE_PATIENCE).await;
            }
        }
    }
}
