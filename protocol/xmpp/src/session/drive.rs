//! The one task of a session: attempts and waits, and between them a loop that reads, writes, takes commands and
//! hands out events, none of which can block another.
//!
//! **Events.** Consumers read from a bounded channel. What it cannot take waits here, up to [`MAX_BACKLOG`] events;
//! then this task stops *reading* from the server (and only that) until the consumer has caught up, so memory stays
//! bounded and nothing is lost. A consumer may therefore call anything on its handle from the loop that reads events.

use super::ending::Ending;
use super::login::{LoggedIn, login, stopped};
use super::{Application, Flow, Output, SessionConfig};
use crate::backoff::Backoff;
use crate::stream::{Link, Stop, read_stream_error};
use crate::xml::{Build, element, first_child, ns, result_of};
use crate::{Element, FullJid};
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::time::Sleep;
use tokio_util::sync::PollSender;

/// Events that may wait for the consumer before reading stops.
const MAX_BACKLOG: usize = 8192;
/// Stanzas and commands that are handled before the loop turns to its other duties.
const TURN: usize = 64;
/// Ids of our own pings to the server begin so.
const PROBE: &str = "probe-";
/// First wait after a lost connection.
const FIRST_WAIT: Duration = Duration::from_millis(250);
/// First and longest wait after a conflict or a refused login: repeating those quickly helps nobody and may get the
/// address banned.
const SLOW_WAIT: Duration = Duration::from_secs(2);
const SLOW_CAP: Duration = Duration::from_secs(30);
/// A session that lasted this long starts the back-off anew.
const STABLE: Duration = Duration::from_secs(20);
/// For the farewell on the stream.
pub(super) const CLOSE_PATIENCE: Duration = Duration::from_secs(2);

/// Runs the session until it is closed, its handles are gone, or nobody takes its events any more.
pub(crate) async fn drive<A: Application>(
    config: SessionConfig,
    app: A,
    commands: mpsc::UnboundedReceiver<A::Command>,
    events: mpsc::Sender<A::Event>,
) {
    let mut driver = Driver {
        app,
        commands,
        events: PollSender::new(events),
        backlog: VecDeque::new(),
        closing: false,
        timer: None,
    };
    let mut backoff = Backoff::new(FIRST_WAIT, config.max_backoff);
    let mut told = String::new();
    loop {
        let attempt = tokio::time::timeout(config.negotiation_timeout, login(&config));
        let Some(attempt) = driver.attend(attempt).await else { break };
        let ending = match attempt.unwrap_or(Err(Ending::LoginTimeout)) {
            Err(ending) => ending,
            Ok(logged_in) => {
                tracing::info!(jid = %logged_in.jid, via = %config.connector.describe(), "XMPP session is online");
                told.clear();
                let since = Instant::now();
                let ending = driver.online(logged_in, &config).await;
                if since.elapsed() >= STABLE {
                    backoff.reset();
                }
                ending
            }
        };
        let retry_in = match &ending {
            Ending::Requested => break,
            Ending::Conflict { .. } => backoff.wait_slowly(SLOW_WAIT, SLOW_CAP, rand::random()),
            ending if ending.needs_configuration() => {
                backoff.wait_slowly(SLOW_WAIT, SLOW_CAP, rand::random())
            }
            _ => backoff.wait(rand::random()),
        };
        let reason = ending.explain();
        // A server that is down for an hour is worth one line, not seven hundred.
        if reason == told {
            tracing::debug!(jid = %config.jid, ?retry_in, "XMPP session is still offline: {reason}");
        } else {
            tracing::warn!(jid = %config.jid, ?retry_in, "XMPP session is offline: {reason}");
            told = reason;
        }
        driver.act(None, |app, out| app.offline(&ending, retry_in, out));
        if driver.attend(tokio::time::sleep(retry_in)).await.is_none() {
            break;
        }
    }
    driver.farewell().await;
}

struct Driver<A: Application> {
    app: A,
    commands: mpsc::UnboundedReceiver<A::Command>,
    events: PollSender<A::Event>,
    backlog: VecDeque<A::Event>,
    closing: bool,
    timer: Option<(Instant, Pin<Box<Sleep>>)>,
}

impl<A: Application> Driver<A> {
    /// Lets the application act and passes on what it wants; stanzas go nowhere while offline.
    fn act<R>(
        &mut self,
        link: Option<&mut Link>,
        action: impl FnOnce(&mut A, &mut Output<A::Event>) -> R,
    ) -> R {
        let mut out = Output::new(Instant::now());
        let result = action(&mut self.app, &mut out);
        self.backlog.append(&mut out.events);
        if let Some(link) = link {
            out.stanzas.into_iter().for_each(|stanza| link.push(stanza));
        }
        result
    }

    /// Hands events to the consumer as far as it takes them.
    fn poll_events(&mut self, cx: &mut Context<'_>) {
        while !self.backlog.is_empty() {
            match self.events.poll_reserve(cx) {
                Poll::Pending => return,
                Poll::Ready(Ok(())) => {
                    if let Some(event) = self.backlog.pop_front() {
                        // A failure means that the consumer has just gone; the next round notices.
                        let _ = self.events.send_item(event);
                    }
                }
                Poll::Ready(Err(_)) => {
                    self.backlog.clear();
                    self.closing = true;
                }
            }
        }
    }

    /// Takes commands; true when at least one came.
    fn poll_commands(&mut self, cx: &mut Context<'_>, mut link: Option<&mut Link>) -> bool {
        let mut any = false;
        for _ in 0..TURN {
            match self.commands.poll_recv(cx) {
                Poll::Pending => break,
                Poll::Ready(None) => {
                    self.closing = true;
                    break;
                }
                Poll::Ready(Some(command)) => {
                    any = true;
                    if self.act(link.as_deref_mut(), |app, out| app.command(command, out)) == Flow::Close {
                        self.closing = true;
                        break;
                    }
                }
            }
        }
        any
    }

    /// Waits for `future` while commands are still taken and events handed out; nothing when the session closes.
    async fn attend<F: Future>(&mut self, future: F) -> Option<F::Output> {
        let mut future = pin!(future);
        poll_fn(|cx| {
            while self.poll_commands(cx, None) && !self.closing {}
            self.poll_events(cx);
            if self.closing {
                return Poll::Ready(None);
            }
            future.as_mut().poll(cx).map(Some)
        })
        .await
    }

    async fn online(&mut self, logged_in: LoggedIn, config: &SessionConfig) -> Ending {
        let LoggedIn { mut link, jid, acks } = logged_in;
        self.act(Some(&mut link), |app, out| app.online(&jid, out));
        let mut wire =
            Wire { link, jid, domain: config.jid.domain().to_string(), acks, received: 0, probes: 0 };
        let ending = poll_fn(|cx| self.poll_online(cx, &mut wire)).await;
        wire.link.close(CLOSE_PATIENCE).await;
        ending
    }

    fn poll_online(&mut self, cx: &mut Context<'_>, wire: &mut Wire) -> Poll<Ending> {
        loop {
            let mut again = self.poll_commands(cx, Some(&mut wire.link));
            if self.closing {
                return Poll::Ready(Ending::Requested);
            }
            again |= self.poll_timer(cx, &mut wire.link);
            for _ in 0..TURN {
                if self.backlog.len() >= MAX_BACKLOG {
                    break;
                }
                match wire.link.poll_read(cx) {
                    Poll::Pending => break,
                    Poll::Ready(item) => {
                        again = true;
                        if let Err(ending) = self.receive(item, wire) {
                            return Poll::Ready(ending);
                        }
                    }
                }
            }
            self.poll_events(cx);
            if self.closing {
                return Poll::Ready(Ending::Requested);
            }
            if let Poll::Ready(Err(error)) = wire.link.poll_write(cx) {
                return Poll::Ready(error.into());
            }
            if !again {
                return Poll::Pending;
            }
        }
    }

    fn poll_timer(&mut self, cx: &mut Context<'_>, link: &mut Link) -> bool {
        let Some(deadline) = self.app.deadline() else {
            self.timer = None;
            return false;
        };
        if self.timer.as_ref().is_none_or(|(set, _)| *set != deadline) {
            self.timer = Some((deadline, Box::pin(tokio::time::sleep_until(deadline.into()))));
        }
        match self.timer.as_mut().map(|(_, sleep)| sleep.as_mut().poll(cx)) {
            Some(Poll::Ready(())) => {
                self.timer = None;
                self.act(Some(link), |app, out| app.tick(out));
                true
            }
            _ => false,
        }
    }

    fn receive(&mut self, item: Result<Element, Stop>, wire: &mut Wire) -> Result<(), Ending> {
        match item {
            Ok(stanza) => {
                if let Some(stanza) = wire.handle(stanza)? {
                    self.act(Some(&mut wire.link), |app, out| app.stanza(stanza, out));
                }
            }
            Err(Stop::Idle) => wire.probe(),
            Err(Stop::TooDeep) => {
                tracing::warn!(jid = %wire.jid, "dropped a stanza nested deeper than {} levels", crate::MAX_DEPTH);
                wire.received = wire.received.wrapping_add(1);
            }
            Err(stop) => return Err(stopped(stop)),
        }
        Ok(())
    }

    /// The last events, as far as the consumer takes them at once.
    async fn farewell(&mut self) {
        self.act(None, |app, out| app.offline(&Ending::Requested, Duration::ZERO, out));
        let flush = poll_fn(|cx| {
            self.poll_events(cx);
            if self.backlog.is_empty() { Poll::Ready(()) } else { Poll::Pending }
        });
        let _ = tokio::time::timeout(Duration::from_millis(100), flush).await;
    }
}

/// What one connection needs besides the application.
struct Wire {
    link: Link,
    jid: FullJid,
    domain: String,
    acks: bool,
    received: u32,
    probes: u64,
}

impl Wire {
    /// Handles what concerns the session itself and returns the rest.
    fn handle(&mut self, stanza: Element) -> Result<Option<Element>, Ending> {
        if stanza.has_ns(ns::SM) {
            if stanza.name() == "r" && self.acks {
                self.link.push(element("a", ns::SM).with("h", self.received.to_string()));
            }
            return Ok(None);
        }
        if let Some((condition, text)) = read_stream_error(&stanza) {
            return Err(Ending::from_stream_error(condition, text));
        }
        if !stanza.has_ns(ns::CLIENT) {
            return Ok(None);
        }
        self.received = self.received.wrapping_add(1);
        if stanza.name() == "iq" {
            let kind = stanza.attr("type").unwrap_or_default();
            if kind == "get" && first_child(&stanza).is_some_and(|c| c.is("ping", ns::PING)) {
                self.link.push(result_of(&stanza));
                return Ok(None);
            }
            if matches!(kind, "result" | "error") && stanza.attr("id").is_some_and(|id| id.starts_with(PROBE))
            {
                return Ok(None);
            }
        }
        Ok(Some(stanza))
    }

    /// Asks the server for a sign of life (XEP-0199). If none comes, reading ends with a timeout.
    fn probe(&mut self) {
        self.probes += 1;
        let ping = element("iq", ns::CLIENT)
            .with("type", "get")
            .with("to", self.domain.clone())
            .with("id", format!("{PROBE}{}", self.probes))
            .child(element("ping", ns::PING));
        self.link.push(ping);
    }
}
