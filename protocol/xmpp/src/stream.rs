//! One XML stream with its guards, as both ends use it: a nesting limit while parsing, a byte limit per stanza,
//! a byte-bounded queue for what goes out, and reading and writing that never wait for each other.
//! Knows nothing of logins, rooms or routing.

use crate::xml::{Build, Unsendable, element, measure, ns};
use futures::{Sink, SinkExt, StreamExt};
use std::cell::Cell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, BufReader, ReadBuf};
use tokio_xmpp::xmlstream::{ReadError, XmlStream};
use xmpp_parsers::minidom::Element;
use xso::exports::rxml::{AttrMap, Event, QName};

/// Levels of nesting that a stanza may have. `minidom` clones, writes and drops recursively, so a deeper one
/// could exhaust the stack of the thread that handles it.
pub const MAX_DEPTH: usize = 64;

/// Read buffer of a connection. Small, because there is one per session; large stanzas pass through in pieces.
const READ_BUFFER: usize = 4096;

/// A byte stream of any kind: TCP, TLS, or a pipe in memory.
pub(crate) trait Bytes: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Bytes for T {}
pub(crate) type BoxBytes = Box<dyn Bytes>;

/// The transport below an XML stream.
pub(crate) type Transport = BufReader<Limited>;
pub(crate) type Xml = XmlStream<Transport, Guarded>;

/// Puts the guards around raw bytes.
pub(crate) fn transport(io: BoxBytes, budget: &Budget) -> Transport {
    BufReader::with_capacity(READ_BUFFER, Limited { io, budget: budget.clone() })
}

/// Takes the raw bytes back out for a TLS handshake. What was read ahead is thrown away, so that nothing sent
/// before the handshake can pass as sent after it (RFC 6120 §5.4.3.3).
pub(crate) fn raw(transport: Transport) -> BoxBytes {
    transport.into_inner().io
}

/// What the stanza that is being read may still take.
#[derive(Clone)]
pub(crate) struct Budget(Arc<Shares>);

struct Shares {
    left: AtomicUsize,
    limit: AtomicUsize,
    /// Levels of a stanza found too deep that are skipped; beyond them the connection is given up. Skipping costs
    /// time: the parser looks through all open elements for each new one.
    max_levels: usize,
    /// The stream is over; what still comes is thrown away.
    draining: AtomicBool,
}

impl Budget {
    pub(crate) fn new(limit: usize, max_levels: usize) -> Self {
        Self(Arc::new(Shares {
            left: AtomicUsize::new(limit),
            limit: AtomicUsize::new(limit),
            max_levels,
            draining: AtomicBool::new(false),
        }))
    }

    /// Another limit from the next stanza on.
    pub(crate) fn set_limit(&self, limit: usize) {
        self.0.limit.store(limit, Relaxed);
        self.renew();
    }

    fn renew(&self) {
        self.0.left.store(self.0.limit.load(Relaxed), Relaxed);
    }

    /// Whether another read is within the budget.
    fn check(&self) -> io::Result<()> {
        if self.0.left.load(Relaxed) == 0 {
            Err(io::Error::new(io::ErrorKind::FileTooLarge, "the stanza is too big"))
        } else if DEEPEST.get() > self.0.max_levels {
            Err(io::Error::new(io::ErrorKind::QuotaExceeded, "the stanza is nested too deeply"))
        } else {
            Ok(())
        }
    }

    fn spend(&self, bytes: usize) {
        self.0.left.store(self.0.left.load(Relaxed).saturating_sub(bytes), Relaxed);
    }
}

thread_local! {
    /// Deepest level of a stanza that is being skipped, else 0. Set by [`GuardedBuilder`] for the read that it is part
    /// of: builders are made by the parser and cannot be given a budget. [`Link::poll_read`] carries it over from poll
    /// to poll.
    static DEEPEST: Cell<usize> = const { Cell::new(0) };
}

/// Counts what is read and fails when one stanza exceeds its budget (exact to one read buffer).
pub(crate) struct Limited {
    io: BoxBytes,
    budget: Budget,
}

impl AsyncRead for Limited {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.budget.0.draining.load(Relaxed) {
            let mut scratch = [0; 4096];
            loop {
                let mut thrown_away = ReadBuf::new(&mut scratch);
                std::task::ready!(Pin::new(&mut self.io).poll_read(cx, &mut thrown_away))?;
                if thrown_away.filled().is_empty() {
                    return Poll::Ready(Ok(()));
                }
            }
        }
        self.budget.check()?;
        let before = buf.filled().len();
        let result = Pin::new(&mut self.io).poll_read(cx, buf);
        self.budget.spend(buf.filled().len() - before);
        result
    }
}

impl AsyncWrite for Limited {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// An element whose nesting was checked while it was parsed; nothing if it was too deep.
#[derive(Debug)]
pub(crate) struct Guarded(Option<Element>);

pub(crate) struct GuardedBuilder {
    depth: usize,
    /// Dropped as soon as the element is too deep; the rest of it is counted, not kept.
    inner: Option<<Element as xso::FromXml>::Builder>,
}

impl xso::FromXml for Guarded {
    type Builder = GuardedBuilder;

    fn from_events(
        name: QName,
        attrs: AttrMap,
        ctx: &xso::Context<'_>,
    ) -> Result<GuardedBuilder, xso::error::FromEventsError> {
        Ok(GuardedBuilder {
            depth: 1,
            inner: Some(<Element as xso::FromXml>::from_events(name, attrs, ctx)?),
        })
    }
}

impl xso::FromEventsBuilder for GuardedBuilder {
    type Output = Guarded;

    fn feed(&mut self, event: Event, ctx: &xso::Context<'_>) -> Result<Option<Guarded>, xso::error::Error> {
        match event {
            Event::StartElement(..) => self.depth += 1,
            Event::EndElement(..) => self.depth -= 1,
            Event::XmlDeclaration(..) | Event::Text(..) => {}
        }
        if self.depth > MAX_DEPTH {
            self.inner = None;
            DEEPEST.set(DEEPEST.get().max(self.depth));
        }
        match &mut self.inner {
            Some(inner) => Ok(inner.feed(event, ctx)?.map(|element| Guarded(Some(element)))),
            None => Ok((self.depth == 0).then_some(Guarded(None))),
        }
    }
}

/// Why there is no next stanza.
#[derive(Debug)]
pub(crate) enum Stop {
    /// Nothing came for the idle time: probe the peer. Reading may go on.
    Idle,
    /// A stanza was nested too deeply and was skipped. Reading may go on.
    TooDeep,
    /// A stanza was nested too deeply, and too long to be skipped.
    MuchTooDeep,
    /// A stanza was larger than allowed.
    TooBig,
    /// The peer closed its stream.
    Closed,
    /// The connection failed, or what came was no XML.
    Io(io::Error),
}

/// A share of bytes that several holders fill and empty.
#[derive(Debug)]
pub(crate) struct Gauge {
    used: AtomicUsize,
    limit: usize,
}

impl Gauge {
    pub(crate) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { used: AtomicUsize::new(0), limit })
    }

    /// Takes `bytes`, or nothing when the limit would be exceeded. An empty gauge takes anything, so that
    /// a single large stanza can always pass.
    pub(crate) fn take(self: &Arc<Self>, bytes: usize) -> Option<Ticket> {
        self.used
            .try_update(Relaxed, Relaxed, |used| {
                (used == 0 || used + bytes <= self.limit).then_some(used + bytes)
            })
            .ok()?;
        Some(Ticket { gauge: self.clone(), bytes })
    }

    pub(crate) fn limit(&self) -> usize {
        self.limit
    }

    pub(crate) fn used(&self) -> usize {
        self.used.load(Relaxed)
    }
}

/// Bytes taken from a [`Gauge`], given back on drop.
#[derive(Debug)]
pub(crate) struct Ticket {
    gauge: Arc<Gauge>,
    bytes: usize,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.gauge.used.fetch_sub(self.bytes, Relaxed);
    }
}

/// A stanza on its way out, with the bytes it occupies in a queue.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub(crate) element: Element,
    /// Held until the stanza is written, or dropped.
    pub(crate) _ticket: Option<Ticket>,
}

impl From<Element> for Outgoing {
    fn from(element: Element) -> Self {
        Self { element, _ticket: None }
    }
}

/// An XML stream after its features, with a queue for what goes out.
pub(crate) struct Link {
    xml: Xml,
    budget: Budget,
    queue: VecDeque<Outgoing>,
    unflushed: bool,
    /// Deepest level of the stanza that is being skipped, else 0.
    deepest: usize,
}

impl Link {
    pub(crate) fn new(xml: Xml, budget: Budget) -> Self {
        Self { xml, budget, queue: VecDeque::new(), unflushed: false, deepest: 0 }
    }

    pub(crate) fn into_parts(self) -> (Xml, Budget) {
        (self.xml, self.budget)
    }

    /// Queues a stanza; [`Link::poll_write`] sends it.
    pub(crate) fn push(&mut self, outgoing: impl Into<Outgoing>) {
        self.queue.push_back(outgoing.into());
    }

    /// Writes as much as the connection takes; ready when the queue is empty and flushed.
    pub(crate) fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut xml = Pin::new(&mut self.xml);
        while !self.queue.is_empty() {
            match Sink::<&Element>::poll_ready(xml.as_mut(), cx)? {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(()) => {
                    if let Some(outgoing) = self.queue.pop_front() {
                        Sink::<&Element>::start_send(xml.as_mut(), &outgoing.element)?;
                        self.unflushed = true;
                    }
                }
            }
        }
        if self.unflushed {
            match Sink::<&Element>::poll_flush(xml, cx)? {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(()) => self.unflushed = false,
            }
        }
        Poll::Ready(Ok(()))
    }

    /// The next stanza.
    pub(crate) fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<Element, Stop>> {
        DEEPEST.set(self.deepest);
        let item = self.xml.poll_next_unpin(cx);
        self.deepest = DEEPEST.replace(0);
        let item = std::task::ready!(item);
        self.deepest = 0;
        self.budget.renew();
        Poll::Ready(match item {
            Some(Ok(Guarded(Some(element)))) => Ok(element),
            Some(Ok(Guarded(None))) => Err(Stop::TooDeep),
            Some(Err(ReadError::SoftTimeout)) => Err(Stop::Idle),
            Some(Err(ReadError::ParseError(error))) => {
                Err(Stop::Io(io::Error::new(io::ErrorKind::InvalidData, error)))
            }
            Some(Err(ReadError::HardError(error))) if error.kind() == io::ErrorKind::FileTooLarge => {
                Err(Stop::TooBig)
            }
            Some(Err(ReadError::HardError(error))) if error.kind() == io::ErrorKind::QuotaExceeded => {
                Err(Stop::MuchTooDeep)
            }
            Some(Err(ReadError::HardError(error))) => Err(Stop::Io(error)),
            Some(Err(ReadError::StreamFooterReceived)) | None => Err(Stop::Closed),
        })
    }

    /// Sends one element at once; for negotiation, where the two sides take turns.
    pub(crate) async fn send(&mut self, element: &Element) -> io::Result<()> {
        self.xml.send(element).await
    }

    /// Receives one element; for negotiation. Silence is not an event there: a deadline lies around it.
    pub(crate) async fn receive(&mut self) -> Result<Element, Stop> {
        loop {
            match poll_fn(|cx| self.poll_read(cx)).await {
                Err(Stop::Idle) => {}
                other => return other,
            }
        }
    }

    /// Sends what is queued and the end of the stream, and gives up after `patience`.
    pub(crate) async fn close(&mut self, patience: Duration) {
        let closing = async {
            poll_fn(|cx| self.poll_write(cx)).await?;
            SinkExt::<&Element>::close(&mut self.xml).await
        };
        // A peer that no longer reads is left to the kernel: nothing more can be told to it.
        if !matches!(tokio::time::timeout(patience, closing).await, Ok(Ok(()))) {
            tracing::debug!("stream was not closed cleanly");
        }
    }

    /// Drops what is queued, tells the peer why the stream ends (RFC 6120 §4.9), and closes it.
    pub(crate) async fn close_with_error(&mut self, condition: &str, text: &str, patience: Duration) {
        self.queue.clear();
        self.push(stream_error(condition, text));
        self.close(patience).await;
    }
}

impl Link {
    /// Like [`Link::close_with_error`] after a stanza that was not read to its end: what follows is taken and thrown
    /// away for a moment, because a connection closed on unread data is reset, and the reason lost with it.
    pub(crate) async fn close_after_excess(&mut self, condition: &str, text: &str, patience: Duration) {
        self.queue.clear();
        self.push(stream_error(condition, text));
        self.budget.0.draining.store(true, Relaxed);
        let farewell = async {
            poll_fn(|cx| self.poll_write(cx)).await?;
            self.xml.shutdown().await?;
            // Ends when the peer hangs up: until then no byte comes through.
            while !matches!(self.xml.next().await, None | Some(Err(ReadError::HardError(_)))) {}
            io::Result::Ok(())
        };
        if !matches!(tokio::time::timeout(patience, farewell).await, Ok(Ok(()))) {
            tracing::debug!("stream was not closed cleanly");
        }
    }
}

/// A stream error (RFC 6120 §4.9).
pub(crate) fn stream_error(condition: &str, text: &str) -> Element {
    element("error", ns::STREAM)
        .child(element(condition, ns::STREAM_ERRORS))
        .child(element("text", ns::STREAM_ERRORS).text_of(text))
}

/// Condition and text of a stream error, if the element is one.
pub(crate) fn read_stream_error(element: &Element) -> Option<(String, String)> {
    if !element.is("error", ns::STREAM) {
        return None;
    }
    let condition = element.children().find(|c| c.name() != "text" && c.has_ns(ns::STREAM_ERRORS));
    let text = element.children().find(|c| c.name() == "text").map(Element::text).unwrap_or_default();
    Some((condition.map_or("undefined-condition", Element::name).to_owned(), text))
}

/// Measures `element` and takes its bytes from `gauge`.
pub(crate) fn admit(element: Element, gauge: &Arc<Gauge>) -> Result<Outgoing, Refused> {
    let bytes = measure(&element)?;
    let ticket = gauge.take(bytes).ok_or(Refused::Full)?;
    Ok(Outgoing { element, _ticket: Some(ticket) })
}

/// Why a stanza was not queued.
#[derive(Debug)]
pub(crate) enum Refused {
    Full,
    Unsendable(Unsendable),
}

impl From<Unsendable> for Refused {
    fn from(reason: Unsendable) -> Self {
        Self::Unsendable(reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncWriteExt, DuplexStream};
    use tokio_xmpp::xmlstream::{StreamHeader, Timeouts, accept_stream};
    use xmpp_parsers::stream_features::StreamFeatures;

    async fn link(limit: usize) -> (Link, DuplexStream) {
        let (mut client, server) = tokio::io::duplex(1 << 20);
        let budget = Budget::new(limit, 1000);
        let header = "<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' version='1.0'>";
        client.write_all(header.as_bytes()).await.unwrap();
        let stream =
            accept_stream(transport(Box::new(server), &budget), ns::CLIENT, Timeouts::tight()).await.unwrap();
        let pending = stream.send_header(StreamHeader::default()).await.unwrap();
        let xml = pending.send_features(&StreamFeatures::default()).await.unwrap();
        (Link::new(xml, budget), client)
    }

    fn nested(levels: usize) -> String {
        "<a xmlns='jabber:client'>".to_owned()
            + &"<b>".repeat(levels - 1)
            + &"</b>".repeat(levels - 1)
            + "</a>"
    }

    #[tokio::test]
    async fn nesting_is_measured_exactly_and_skipped_within_bounds() {
        let (mut link, mut client) = link(1 << 20).await;
        for levels in [1, MAX_DEPTH] {
            client.write_all(nested(levels).as_bytes()).await.unwrap();
            assert!(link.receive().await.is_ok(), "{levels} levels");
        }
        for levels in [MAX_DEPTH + 1, 900] {
            client.write_all(nested(levels).as_bytes()).await.unwrap();
            assert!(matches!(link.receive().await, Err(Stop::TooDeep)), "{levels} levels");
        }
        client.write_all(nested(2).as_bytes()).await.unwrap();
        assert!(link.receive().await.is_ok(), "the stream is usable afterwards");
        client.write_all(nested(5000).as_bytes()).await.unwrap();
        assert!(matches!(link.receive().await, Err(Stop::MuchTooDeep)));
    }

    #[tokio::test]
    async fn every_stanza_has_its_own_budget() {
        let (mut link, mut client) = link(20_000).await;
        let of_size = |size: usize| format!("<a xmlns='jabber:client'>{}</a>", "x".repeat(size));
        for _ in 0..10 {
            client.write_all(of_size(15_000).as_bytes()).await.unwrap();
            assert!(link.receive().await.is_ok());
        }
        client.write_all(of_size(30_000).as_bytes()).await.unwrap();
        assert!(matches!(link.receive().await, Err(Stop::TooBig)));
    }

    #[test]
    fn a_gauge_gives_back_what_was_taken_and_lets_one_large_thing_pass() {
        let gauge = Gauge::new(100);
        let large = gauge.take(500).unwrap();
        assert!(gauge.take(1).is_none());
        drop(large);
        let (first, second) = (gauge.take(60).unwrap(), gauge.take(40).unwrap());
        assert!(gauge.take(1).is_none());
        drop(first);
        assert_eq!(gauge.used(), 40);
        drop(second);
        assert_eq!(gauge.used(), 0);
    }
}
