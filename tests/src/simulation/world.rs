//! The world: virtual time, everything that is in it, and what happens next. One queue of happenings; the same plan always
//! makes the same history.

use std::collections::{BTreeMap, BTreeSet};

use wps_orchestrator::engine::Engine as Orchestrator;
use wps_orchestrator::engine::Limits;
use wps_orchestrator::engine::job::JobId;
use wps_remote_protocol::{AgentId, ExecutionId, FromAgent, ProcessDescription, ProcessId};

use super::agent::AgentEvent;
use super::host::{Host, HostEvent};
use super::ledger::Ledger;
use super::network::{ConnId, Network, Peer, Stanza, Weather};
use super::node::{Input, Node, NodeEvent};
use super::plan::{Kind, Op, Plan};
use super::random::Random;
use super::store::Store;

/// How long a node may be silent.
pub const LEASE_MS: u64 = 8_000;
/// How long an answer may take.
pub const ANSWER_MS: u64 = 20_000;
/// Units of each agent.
pub const CAPACITY: f64 = 100.0;
/// Executions of each agent.
pub const MAX_RUNNING: u32 = 4;
/// How long a finished folder is kept.
pub const RETENTION_MS: u64 = 3_600_000;
/// How long a world without troubles may take until everything has ended.
const SETTLES_MS: u64 = 4 * 3_600_000;

/// A rule that is broken on purpose, to see that it is noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Sabotage {
    /// None.
    #[default]
    Nothing,
    /// A dispatched job is not stored before its request goes out.
    SendBeforeSave,
    /// What is said of an old execution is taken for the live one of its job.
    AcceptTheStale,
    /// The agent forgets an ending as soon as it has said it.
    ForgetTheOutbox,
    /// A repeated request starts a second run.
    StartTwice,
    /// What an agent does not know is not lost.
    LoseTheLost,
    /// A node that was fenced off writes on.
    IgnoreTheLease,
    /// An agent takes more than it can.
    Overload,
    /// What a room says of an absent orchestrator is taken for the word of that one.
    TrustTheRoom,
    /// An agent takes no note of it that another orchestrator has the job of an ending.
    ForgetTheHeir,
}

impl Sabotage {
    /// All but none, with a name each.
    pub const ALL: [(&'static str, Self); 9] = [
        ("send-before-save", Self::SendBeforeSave),
        ("accept-the-stale", Self::AcceptTheStale),
        ("forget-the-outbox", Self::ForgetTheOutbox),
        ("start-twice", Self::StartTwice),
        ("lose-the-lost", Self::LoseTheLost),
        ("ignore-the-lease", Self::IgnoreTheLease),
        ("overload", Self::Overload),
        ("trust-the-room", Self::TrustTheRoom),
        ("forget-the-heir", Self::ForgetTheHeir),
    ];

    /// What an agent says, perhaps as another one and about another execution than it meant.
    pub(super) fn stale(
        self,
        engine: &Orchestrator,
        from: AgentId,
        message: FromAgent,
    ) -> (AgentId, FromAgent) {
        let live = |execution: &ExecutionId| {
            let job = engine.job(JobId::of_execution(execution)?)?;
            job.state.execution().map(|live| (live.agent.clone(), live.id.clone()))
        };
        match message {
            FromAgent::Completed { execution, outputs } if self == Self::AcceptTheStale => {
                let (from, execution) = live(&execution).unwrap_or((from, execution));
                (from, FromAgent::Completed { execution, outputs })
            }
            FromAgent::Error { execution, error } if self == Self::AcceptTheStale => {
                let (from, execution) = live(&execution).unwrap_or((from, execution));
                (from, FromAgent::Error { execution, error })
            }
            FromAgent::Executions { held, .. } if self == Self::LoseTheLost => {
                (from, FromAgent::Executions { held, unknown: vec![] })
            }
            other => (from, other),
        }
    }
}

/// What happens at a time.
#[derive(Debug, Clone)]
pub enum Happening {
    /// A program tries to log in.
    Connect { peer: Peer, incarnation: u64 },
    /// A stanza is at the server.
    AtServer { conn: ConnId, to: Peer, stanza: Box<Stanza> },
    /// A stanza is at its receiver.
    Deliver { conn: ConnId, stanza: Box<Stanza> },
    /// The server finds out whether a connection lives.
    ServerNotices(ConnId),
    /// A program does.
    PeerNotices(ConnId),
    /// The server is there again.
    ServerUp,
    /// In an orchestrator.
    Node { n: usize, incarnation: u64, event: Box<NodeEvent> },
    /// In an agent.
    Agent { host: usize, incarnation: u64, event: Box<AgentEvent> },
    /// On a host.
    Host { host: usize, boots: u64, event: Box<HostEvent> },
}

/// The world.
#[derive(Debug)]
pub struct World {
    /// Milliseconds since its beginning.
    pub now: u64,
    pub(super) random: Random,
    pub(super) net: Network,
    pub(super) store: Store,
    pub(super) nodes: Vec<Node>,
    pub(super) hosts: Vec<Host>,
    pub(super) ledger: Ledger,
    /// Files of executions in the shared folder.
    pub(super) shared: BTreeSet<ExecutionId>,
    /// Jobs whose files are in the result store.
    pub(super) results: BTreeSet<JobId>,
    pub(super) bad_folder: u8,
    pub(super) limits: Limits,
    pub(super) sabotage: Sabotage,
    pub(super) rooms_are_told_apart: bool,
    queue: BTreeMap<(u64, u64), Happening>,
    happenings: u64,
    submitted: Vec<JobId>,
    seed: u64,
    violation: Option<String>,
    /// What happened, if anybody wants to read it.
    trace: Option<Vec<String>>,
}

/// How a world went.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// Operations that were done.
    pub operations: usize,
    /// Happenings.
    pub happenings: u64,
    /// Virtual time, in milliseconds.
    pub took_ms: u64,
    /// How many jobs ended how.
    pub endings: BTreeMap<&'static str, u64>,
    /// Programs that were started.
    pub runs: u64,
    /// The invariant that was broken, if one was.
    pub violation: Option<String>,
    /// What happened, if that was wanted.
    pub trace: Vec<String>,
}

/// The processes of every agent.
pub(super) fn offered() -> Vec<ProcessDescription> {
    [Kind::Once, Kind::Repeatable, Kind::Heavy].iter().map(|kind| description(*kind)).collect()
}

/// The description of a process.
pub(super) fn description(kind: Kind) -> ProcessDescription {
    let (name, weight) = match kind {
        Kind::Once => ("once", 10.0),
        Kind::Repeatable => ("repeatable", 20.0),
        Kind::Heavy => ("heavy", 60.0),
    };
    ProcessDescription {
        id: ProcessId::new("sim", name).expect("a good name"),
        alias: None,
        title: name.to_owned(),
        summary: String::new(),
        version: "1".to_owned(),
        keywords: vec![],
        inputs: vec![],
        outputs: vec![],
        weight,
        repeatable: kind == Kind::Repeatable,
        max_running_time_s: 0,
        roles: vec![],
    }
}

impl World {
    /// An empty one.
    pub fn new(plan: &Plan, sabotage: Sabotage, trace: bool) -> Self {
        let mut world = Self {
            now: 0,
            random: Random::new(plan.seed ^ 0x5eed),
            net: Network::new(),
            store: Store::default(),
            nodes: (0..plan.nodes.max(1)).map(|_| Node::default()).collect(),
            hosts: (0..plan.agents.max(1)).map(|_| Host { offering: true, ..Host::default() }).collect(),
            ledger: Ledger::default(),
            shared: BTreeSet::new(),
            results: BTreeSet::new(),
            bad_folder: 0,
            limits: Limits {
                max_queued: 50,
                max_queue_ms: 1_200_000,
                agent_lost_ms: 120_000,
                dismiss_ms: 30_000,
                offline_ms: 20_000,
                max_attempts: 3,
                retention_ms: 0,
                ..Limits::default()
            },
            sabotage,
            rooms_are_told_apart: sabotage != Sabotage::TrustTheRoom,
            queue: BTreeMap::new(),
            happenings: 0,
            submitted: Vec::new(),
            seed: plan.seed,
            violation: None,
            trace: trace.then(Vec::new),
        };
        for host in 0..world.hosts.len() {
            world.start_host(host);
        }
        for n in 0..world.nodes.len() {
            world.start_node(n);
        }
        world.pass(2_000);
        world
    }

    /// Something happens later.
    pub(super) fn after(&mut self, wait: u64, happening: Happening) {
        self.happenings += 1;
        self.queue.insert((self.now + wait, self.happenings), happening);
    }

    /// An invariant is broken. Only the first counts: the others may follow from it.
    pub(super) fn violated(&mut self, what: impl Into<String>) {
        let what = what.into();
        self.note(|| format!("VIOLATION: {what}"));
        self.violation.get_or_insert(what);
    }

    fn note(&mut self, what: impl FnOnce() -> String) {
        let now = self.now;
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{now:>9} {}", what()));
        }
    }

    /// Does a plan, then mends everything and waits until everything has ended.
    pub fn run(plan: &Plan, sabotage: Sabotage, trace: bool) -> Outcome {
        let mut world = Self::new(plan, sabotage, trace);
        let mut operations = 0;
        for (wait, op) in &plan.steps {
            world.pass(u64::from(*wait));
            if world.violation.is_some() {
                break;
            }
            world.note(|| format!("--- {op:?}"));
            world.apply(*op);
            operations += 1;
        }
        if world.violation.is_none() {
            world.settle();
        }
        if world.violation.is_none() {
            world.check_all_ended();
        }
        let mut endings: BTreeMap<&'static str, u64> = BTreeMap::new();
        for row in world.store.rows.values() {
            *endings.entry(row.job.state.name()).or_default() += 1;
        }
        Outcome {
            operations,
            happenings: world.happenings,
            took_ms: world.now,
            endings,
            runs: world.ledger.all_runs(),
            violation: world.violation,
            trace: world.trace.unwrap_or_default(),
        }
    }

    fn pass(&mut self, wait: u64) {
        let until = self.now + wait;
        while self.violation.is_none() {
            let Some(entry) = self.queue.first_entry().filter(|entry| entry.key().0 <= until) else { break };
            self.now = entry.key().0;
            let happening = entry.remove();
            self.note(|| format!("{happening:?}"));
            self.happens(happening);
            if let Some(what) = self.ledger.complaint() {
                self.violated(what);
            }
        }
        self.now = until;
    }

    fn happens(&mut self, happening: Happening) {
        match happening {
            Happening::Connect { peer, incarnation } => self.connect(peer, incarnation),
            Happening::AtServer { conn, to, stanza } => self.at_server(conn, to, *stanza),
            Happening::Deliver { conn, stanza } => self.delivered(conn, *stanza),
            Happening::ServerNotices(conn) => self.server_notices(conn),
            Happening::PeerNotices(conn) => self.peer_notices(conn),
            Happening::ServerUp => self.server_up(),
            Happening::Node { n, incarnation, event } => {
                if self.nodes[n].process.as_ref().is_some_and(|p| p.incarnation == incarnation) {
                    self.node_event(n, *event);
                }
            }
            Happening::Agent { host, incarnation, event } => {
                if self.hosts[host].agent.as_ref().is_some_and(|a| a.incarnation == incarnation) {
                    self.agent_event(host, *event);
                }
            }
            Happening::Host { host, boots, event } => {
                if self.hosts[host].up && self.hosts[host].boots == boots {
                    self.host_event(host, *event);
                }
            }
        }
    }

    fn apply(&mut self, op: Op) {
        let node = |n: u8| usize::from(n) % self.nodes.len();
        let host = |n: u8| usize::from(n) % self.hosts.len();
        match op {
            Op::Submit { node: n, kind, length_ms, fate } => {
                let n = node(n);
                let id = JobId::new(uuid::Uuid::from_u64_pair(self.seed, 1 + self.submitted.len() as u64));
                if self.nodes[n].process.is_some() {
                    self.submitted.push(id);
                    self.ledger.submitted(id, kind, length_ms, fate, self.now);
                    self.node_input(n, Input::Execute(id));
                }
            }
            Op::Dismiss { node: n, nth } => {
                let n = node(n);
                let from_the_end = usize::from(nth) % self.submitted.len().max(1);
                if let Some(id) = self.submitted.iter().rev().nth(from_the_end).copied() {
                    self.ledger.dismissal_wanted(id);
                    self.node_input(n, Input::Dismiss(id));
                }
            }
            Op::CrashNode(n) => self.crash_node(node(n)),
            Op::CrashNodeWithin { node: n, actions } => {
                let n = node(n);
                if self.nodes[n].process.is_some() {
                    self.nodes[n].dies_within = Some(actions);
                }
            }
            Op::StopNode(n) => self.stop_node(node(n)),
            Op::StartNode(n) => self.start_node(node(n)),
            Op::CrashAgent(n) => self.crash_agent(host(n), false),
            Op::StartAgent(n) => self.start_agent(host(n)),
            Op::CrashHost(n) => self.crash_host(host(n)),
            Op::StartHost(n) => self.start_host(host(n)),
            Op::KillSupervisor { host: n, nth } => self.kill_supervisor(host(n), usize::from(nth)),
            Op::Drain { agent, on } => self.drain(host(agent), on),
            Op::Offer { agent, on } => self.offer(host(agent), on),
            Op::CutNode(n) => self.cut(Peer::Node(node(n))),
            Op::MendNode(n) => self.mend(Peer::Node(node(n))),
            Op::CutAgent(n) => self.cut(Peer::Agent(host(n))),
            Op::MendAgent(n) => self.mend(Peer::Agent(host(n))),
            Op::CutStore(n) => {
                let n = node(n);
                self.nodes[n].store_cut = true;
            }
            Op::MendStore(n) => {
                let n = node(n);
                self.nodes[n].store_cut = false;
            }
            Op::DoubtfulCommit(n) => {
                let n = node(n);
                self.nodes[n].doubtful = true;
            }
            Op::RestartServer { down_ms } => self.restart_server(u64::from(down_ms)),
            Op::Weather { lost, twice, delay_ms } => {
                self.net.weather =
                    Weather { lost: lost.into(), twice: twice.into(), delay_ms: delay_ms.into() };
            }
            Op::SetClock { node: n, by_s } => {
                let n = node(n);
                self.nodes[n].wall_offset += i64::from(by_s) * 1_000;
            }
            Op::BadFolder { times } => self.bad_folder = times,
            Op::Wait => {}
        }
    }

    /// Everything works again, and stays so until nothing is left to do.
    fn settle(&mut self) {
        self.note(|| "--- everything is mended".to_owned());
        self.mend_everything();
        self.bad_folder = 0;
        for node in &mut self.nodes {
            (node.store_cut, node.doubtful, node.dies_within) = (false, false, None);
        }
        for host in 0..self.hosts.len() {
            self.start_host(host);
            self.drain(host, false);
            self.offer(host, true);
        }
        let until = self.now + SETTLES_MS;
        while self.now < until && self.violation.is_none() {
            for n in 0..self.nodes.len() {
                self.start_node(n);
            }
            for host in 0..self.hosts.len() {
                self.start_agent(host);
            }
            self.pass(5_000);
            if self.is_quiet() {
                // What lies in a buffer may still arrive.
                self.pass(60_000);
                if self.is_quiet() {
                    break;
                }
            }
        }
    }

    fn is_quiet(&self) -> bool {
        self.store.rows.values().all(|row| row.job.state.is_final())
            && (0..self.nodes.len()).all(|n| !self.node_is_busy(n))
            && self.hosts.iter().all(|host| {
                host.disk.values().all(|folder| folder.running.is_none() && folder.finished.is_some())
                    && host.agent.as_ref().is_some_and(|agent| agent.engine.held().is_empty())
            })
    }
}
