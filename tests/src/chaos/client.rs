//! Clients of a chaos: each submits jobs, asks any orchestrator for them, reads their results, and gives some of them up. They try
//! again as a careful client would, and write down what they were promised.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::Plan;
use super::scene::PROCESS;
use crate::client::{Execute, Status, execution_id, status};
use crate::http::{Answer, Http};
use crate::random::Random;
use crate::xml::Node;

/// Open jobs of one client.
const AT_ONCE: usize = 6;
/// Attempts at one job, before there is a look at the others.
const ATTEMPTS: u32 = 3;
/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(20);
/// Pause between two looks at all open jobs, in milliseconds.
const LOOK_MS: (u64, u64) = (50, 250);

/// What a job is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Ends well; the result stands in the document.
    Inline,
    /// Ends well; the result is a file of its own.
    File,
    /// Its client waits for the bytes.
    Synchronous,
    /// Its program fails.
    Fails,
    /// It would take for ever, and its client gives it up.
    GivenUp,
}

/// One request, as its client sees it.
#[derive(Debug, Clone)]
pub(super) struct Promise {
    /// What the job is to do.
    pub(super) kind: Kind,
    /// Path and query of its status document.
    pub(super) location: String,
    /// How it ended, once that is known.
    pub(super) last: Option<Status>,
    /// From acceptance to the moment at which the client saw the end.
    pub(super) took: Duration,
}

/// Everything that clients were told.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// Jobs that were accepted, by key.
    pub(super) promised: BTreeMap<String, Promise>,
    /// Requests without an answer: accepted or not.
    pub(super) unanswered: Vec<String>,
    /// Requests that were turned away, and with what words.
    pub(super) refused: Vec<(String, String)>,
    /// What must never be.
    pub(super) wrong: Vec<String>,
    /// Questions, and those among them that got no answer or a 503.
    pub(super) asked: (usize, usize),
}

/// What all clients share.
pub(super) struct World {
    nodes: Vec<SocketAddr>,
    plan: Plan,
    ledger: Mutex<Ledger>,
    next: AtomicUsize,
    accepted: AtomicUsize,
    ended: AtomicUsize,
    enough: AtomicBool,
    over: AtomicBool,
}

impl World {
    pub(super) fn new(nodes: Vec<SocketAddr>, plan: Plan) -> Self {
        Self {
            nodes,
            plan,
            ledger: Mutex::default(),
            next: AtomicUsize::new(1),
            accepted: AtomicUsize::new(0),
            ended: AtomicUsize::new(0),
            enough: AtomicBool::new(false),
            over: AtomicBool::new(false),
        }
    }

    /// The orchestrators.
    pub(super) fn nodes(&self) -> &[SocketAddr] {
        &self.nodes
    }

    /// What was to happen.
    pub(super) fn plan(&self) -> &Plan {
        &self.plan
    }

    /// How many jobs were accepted.
    pub(super) fn accepted(&self) -> usize {
        self.accepted.load(Ordering::Relaxed)
    }

    /// How many of them have ended.
    pub(super) fn ended(&self) -> usize {
        self.ended.load(Ordering::Relaxed)
    }

    /// Nobody begins anything new.
    pub(super) fn enough(&self) {
        self.enough.store(true, Ordering::Relaxed);
    }

    /// Nobody waits any longer.
    pub(super) fn give_up(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    /// What clients were told.
    pub(super) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    fn wants_more(&self) -> bool {
        !self.enough.load(Ordering::Relaxed) && !self.is_over()
    }
}

/// The bytes that the program of a job writes.
pub(super) fn expected(key: &str, lines: u64) -> String {
    format!("{key}\n").repeat(usize::try_from(lines).unwrap_or(0))
}

struct Open {
    key: String,
    kind: Kind,
    lines: u64,
    location: String,
    since: Instant,
    given_up: bool,
}

struct Client<'a> {
    world: &'a World,
    random: Random,
    kept: Vec<Http>,
    open: Vec<Open>,
}

/// Lives as long as there is something to do.
pub(super) fn serve(world: &World, number: usize) {
    let kept = world.nodes.iter().map(|node| Http::new(*node).patience(PATIENCE)).collect();
    let random = Random::new(world.plan.seed.wrapping_add(1000 + number as u64));
    let mut client = Client { world, random, kept, open: Vec::new() };
    while (world.wants_more() || !client.open.is_empty()) && !world.is_over() {
        // One at a time: whoever finds no way in must not neglect what is open.
        if client.open.len() < AT_ONCE && world.wants_more() {
            client.submit();
        }
        let open = std::mem::take(&mut client.open);
        client.open = open.into_iter().filter_map(|job| client.follow(job)).collect();
        client.pause(LOOK_MS.0, LOOK_MS.1);
    }
}

impl Client<'_> {
    fn pause(&mut self, from_ms: u64, to_ms: u64) {
        std::thread::sleep(self.random.pause(from_ms, to_ms));
    }

    /// One job, in a few attempts. Each attempt has a key of its own, since the one before may have been accepted.
    fn submit(&mut self) {
        let number = self.world.next.fetch_add(1, Ordering::Relaxed);
        let kind = match self.random.below(100) {
            0..45 => Kind::Inline,
            45..75 => Kind::File,
            75..87 => Kind::Synchronous,
            87..94 => Kind::Fails,
            _ => Kind::GivenUp,
        };
        let lines = if kind == Kind::File { self.random.below(40_000) } else { 1 + self.random.below(20) };
        let pause = match self.random.below(10) {
            _ if kind == Kind::GivenUp => Duration::from_secs(300),
            0..4 => self.random.pause(0, 200),
            4..8 => self.random.pause(200, 1_500),
            _ => self.random.pause(1_500, 6_000),
        };
        for attempt in 1..=ATTEMPTS {
            if !self.world.wants_more() {
                return;
            }
            let key = format!("job-{number}-{attempt}");
            let execute = Execute::new(PROCESS)
                .literal("key", &key)
                .literal("lines", &lines.to_string())
                .literal("pause", &format!("{:.3}", pause.as_secs_f64()))
                .literal("way", if kind == Kind::Fails { "exit" } else { "well" });
            let execute = match kind {
                Kind::Synchronous => execute.raw("result"),
                Kind::File => execute.stored_reference("result"),
                Kind::Inline | Kind::Fails | Kind::GivenUp => execute.stored(),
            };
            if self.sent(&key, kind, lines, &execute.to_xml()) {
                return;
            }
            self.pause(100, 500);
        }
    }

    /// Whether the request was accepted.
    fn sent(&mut self, key: &str, kind: Kind, lines: u64, document: &str) -> bool {
        let node = self.random.of(&self.world.nodes);
        let begun = Instant::now();
        // A connection of its own: a request on a kept one that was closed would be sent twice.
        let answer = Http::new(node).patience(PATIENCE).post("/wps", "text/xml", document.as_bytes());
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => return false,
            Err(_) => {
                self.world.ledger().unanswered.push(key.to_owned());
                return false;
            }
        };
        if kind == Kind::Synchronous
            && answer.status == 200
            && answer.body == expected(key, lines).into_bytes()
        {
            self.world.accepted.fetch_add(1, Ordering::Relaxed);
            self.world.ended.fetch_add(1, Ordering::Relaxed);
            let promise = Promise {
                kind,
                location: String::new(),
                last: Some(Status::Succeeded),
                took: begun.elapsed(),
            };
            self.world.ledger().promised.insert(key.to_owned(), promise);
            return true;
        }
        let said = answer.text();
        let root = Node::parse(&answer.body).unwrap_or_default();
        let location = match root.name.as_str() {
            "ExecuteResponse" => root.attribute("statusLocation").and_then(path),
            // A client that waits for bare bytes can only be told in words that its job outlives the orchestrator.
            _ => root.text_of("ExceptionText").and_then(|text| path(text.split_once("follow it at ")?.1)),
        };
        if let Some(location) = location {
            self.world.accepted.fetch_add(1, Ordering::Relaxed);
            let promise = Promise { kind, location: location.clone(), last: None, took: Duration::ZERO };
            self.world.ledger().promised.insert(key.to_owned(), promise);
            let job = Open { key: key.to_owned(), kind, lines, location, since: begun, given_up: false };
            self.open.push(job);
            return true;
        }
        let busy = answer.status == 503 && said.contains("ServerBusy");
        let not_offered = said.contains("InvalidParameterValue") && said.contains(PROCESS);
        if busy || not_offered {
            self.world.ledger().refused.push((key.to_owned(), said));
        } else {
            self.world.ledger().wrong.push(format!("{key}: HTTP {} {said}", answer.status));
        }
        false
    }

    /// Looks at a job; gives it back if it has not ended.
    fn follow(&mut self, mut job: Open) -> Option<Open> {
        let Some(answer) = self.ask(&job.location, &job.key) else { return Some(job) };
        let root = Node::parse(&answer.body).unwrap_or_default();
        if root.name != "ExecuteResponse" {
            let text = format!("{}: HTTP {} for its status: {}", job.key, answer.status, answer.text());
            self.world.ledger().wrong.push(text);
            return Some(job);
        }
        let last = status(&root);
        if !last.is_final() {
            if job.kind == Kind::GivenUp && !job.given_up && last != Status::Accepted {
                let id = execution_id(&job.location);
                let target = format!("/wps?service=WPS&version=1.0.0&request=Dismiss&executionId={id}");
                job.given_up = self.ask(&target, &job.key).is_some_and(|answer| answer.status == 200);
            }
            return Some(job);
        }
        if last == Status::Succeeded && !self.is_right(&job, &root) {
            return Some(job);
        }
        self.world.ended.fetch_add(1, Ordering::Relaxed);
        if let Some(promise) = self.world.ledger().promised.get_mut(&job.key) {
            promise.last = Some(last);
            promise.took = job.since.elapsed();
        }
        None
    }

    /// Compares a result with the expected bytes; `false` = it cannot be read at this moment.
    fn is_right(&mut self, job: &Open, root: &Node) -> bool {
        let expected = expected(&job.key, job.lines);
        let reference = root.find("Reference").and_then(|node| node.attribute("href")).and_then(path);
        let found = match reference {
            Some(target) => match self.ask(&target, &job.key) {
                Some(answer) if answer.status == 200 => answer.text(),
                Some(answer) => format!("HTTP {}: {}", answer.status, answer.text()),
                None => return false,
            },
            None => root.find("ComplexData").map(|node| node.text.clone()).unwrap_or_default(),
        };
        if found != expected {
            let (bytes, wanted) = (found.len(), expected.len());
            let found: String = found.chars().take(300).collect();
            let text = format!("{}: {bytes} bytes instead of {wanted}: {found}", job.key);
            self.world.ledger().wrong.push(text);
        }
        true
    }

    /// GET from any orchestrator; `None` if it is away or busy. Nothing of what a client was promised is ever unknown.
    fn ask(&mut self, target: &str, key: &str) -> Option<Answer> {
        let node = self.random.index(self.kept.len());
        let answer = self.kept[node].get(target).ok().filter(|answer| answer.status != 503);
        let mut ledger = self.world.ledger();
        ledger.asked.0 += 1;
        ledger.asked.1 += usize::from(answer.is_none());
        let answer = answer?;
        if answer.status == 404 || answer.text().contains("NoSuchJob") {
            ledger.wrong.push(format!("{key}: unknown at orchestrator {}: {}", node + 1, answer.text()));
        }
        Some(answer)
    }
}

/// Path and query of an address.
fn path(url: &str) -> Option<String> {
    let (_, rest) = url.split_once("://")?;
    rest.split_once('/').map(|(_, path)| format!("/{path}"))
}
