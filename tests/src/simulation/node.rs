//! An orchestrator: the real engine, clock and keeper of leases, and what its driver does with them (`orchestrator::driver`:
//! stores first, then answers, sends and tells; stalls while the database is away; lets go when it is fenced off).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use wps_orchestrator::driver::clock::Clock;
use wps_orchestrator::engine::job::{Form, Job, JobId, Timestamp, UserId};
use wps_orchestrator::engine::{Accepted, Action, Engine, Question};
use wps_orchestrator::store::{Keeper, Lease};
use wps_remote_protocol::{AgentId, ExecutionId, FromAgent, Outputs, ToAgent};

use super::bus::Bus;
use super::network::{ConnId, Peer};
use super::world::{Happening, LEASE_MS, Sabotage, World};

/// An orchestrator's place: what outlives its program.
#[derive(Debug, Default)]
pub struct Node {
    /// How far its wall clock is off.
    pub wall_offset: i64,
    /// It cannot reach the database.
    pub store_cut: bool,
    /// Its next commit is done without its hearing of it.
    pub doubtful: bool,
    /// It dies in its next step, after so many actions.
    pub dies_within: Option<u8>,
    /// Its program, if it runs.
    pub process: Option<Process>,
}

/// Its program.
#[derive(Debug)]
pub struct Process {
    /// Which start of it.
    pub incarnation: u64,
    /// Its connection.
    pub conn: Option<ConnId>,
    /// The real engine.
    pub engine: Engine,
    /// Who is in the room, and what is under way.
    pub bus: Bus,
    /// When an agent ceased to be one of which it was known what it holds.
    pub heard_at: BTreeMap<usize, u64>,
    begun: u64,
    pub(super) clock: Clock,
    pub(super) keeper: Keeper,
    pub(super) lease: Lease,
    connected: bool,
    offline_since: Option<u64>,
    looks: u32,
    pub(super) out: Vec<Action>,
    pub(super) dirty: BTreeSet<JobId>,
    pub(super) waiters: BTreeSet<JobId>,
    pub(super) dismissals: Vec<JobId>,
    /// New jobs that were turned away, though they may be stored.
    pub(super) withdrawn: Vec<JobId>,
    inbox: VecDeque<Input>,
    pub(super) stalled: Option<Stalled>,
    wake: u64,
}

/// Why the driver goes no further.
#[derive(Debug)]
pub(super) enum Stalled {
    Saving { actions: Vec<Action>, saves: BTreeMap<JobId, Job>, attempt: u32 },
    Entering,
}

/// What the driver is woken by.
#[derive(Debug, Clone)]
pub enum Input {
    /// A client's wish.
    Execute(JobId),
    /// A client's wish.
    Dismiss(JobId),
    /// From the bus.
    Online,
    /// From the bus.
    Offline,
    /// From the bus.
    Joined(usize),
    /// From the bus.
    Left(usize),
    /// From the bus.
    Message(usize, Box<FromAgent>),
    /// Files were taken over, or not.
    Collected(ExecutionId, Result<Outputs, String>),
    /// The keeper's news.
    Look { others: usize, died: bool },
    /// The keeper's news.
    Fenced(Lease),
    /// Another node has done something.
    Woken,
    /// Once a second.
    Flush,
    /// Time has come.
    Tick,
}

/// What happens to a node's program later.
#[derive(Debug, Clone)]
pub enum NodeEvent {
    /// Something for the driver.
    Input(Input),
    /// The sleep of the driver is over, unless it was woken before.
    Wake(u64),
    /// The keeper's beat.
    Beat,
    /// The store is tried again.
    Retry,
    /// The collecting of files is done.
    Collect(JobId, ExecutionId, Outputs),
    /// The store has been asked for an execution.
    Inquire(AgentId, ExecutionId, Question),
    /// Loads are asked for.
    Heartbeat,
    /// No answer has come in time.
    NoAnswer(u64),
    /// An answer has been read.
    Answered(u64, super::network::Answer),
    /// The same message once more.
    Again(usize, u64, Box<ToAgent>),
}

/// The name of an agent in the room.
pub fn agent_id(agent: usize) -> AgentId {
    AgentId::new(format!("agent{agent}"))
}

/// Its number.
pub fn agent_number(agent: &AgentId) -> usize {
    agent.as_str().trim_start_matches("agent").parse().unwrap_or(usize::MAX)
}

fn silence(engine: &Engine, heard_at: &mut BTreeMap<usize, u64>, agent: usize, now: u64) {
    if engine.fleet().agent(&agent_id(agent)).is_some_and(|agent| agent.ready) {
        heard_at.insert(agent, now);
    }
}

impl World {
    fn is_shared(&self) -> bool {
        self.nodes.len() > 1
    }

    /// Starts a node's program.
    pub(super) fn start_node(&mut self, n: usize) {
        if self.nodes[n].process.is_some() || self.nodes[n].store_cut {
            return;
        }
        let shared = self.is_shared();
        let lease = self.store.enter(&format!("n{n}"), !shared);
        let jobs = self.store.active(lease);
        let incarnation = self.net.number();
        let process = Process {
            incarnation,
            conn: None,
            engine: Engine::new(self.limits.clone(), "http://x/wps".into()),
            bus: Bus::default(),
            heard_at: BTreeMap::new(),
            begun: self.now,
            clock: Clock::new(self.wall(n)),
            keeper: Keeper::new(Duration::from_millis(LEASE_MS)),
            lease,
            connected: false,
            offline_since: Some(self.now),
            looks: 0,
            out: Vec::new(),
            dirty: BTreeSet::new(),
            waiters: BTreeSet::new(),
            dismissals: Vec::new(),
            withdrawn: Vec::new(),
            inbox: VecDeque::new(),
            stalled: None,
            wake: 0,
        };
        self.nodes[n].process = Some(process);
        let now = self.node_time(n);
        if let Some(process) = &mut self.nodes[n].process {
            for job in jobs {
                process.engine.adopt(job, now, &mut process.out);
            }
            process.engine.claim(now, &mut process.out);
        }
        if shared {
            self.node_later(n, 1, NodeEvent::Beat);
        }
        self.node_later(n, 1_000, NodeEvent::Input(Input::Flush));
        self.node_later(n, 30_000, NodeEvent::Heartbeat);
        self.after(1, Happening::Connect { peer: Peer::Node(n), incarnation });
        self.node_run(n);
    }

    /// Kills it.
    pub(super) fn crash_node(&mut self, n: usize) {
        let Some(process) = self.nodes[n].process.take() else { return };
        self.nodes[n].dies_within = None;
        for id in process.waiters {
            self.ledger.unanswered(id);
        }
        self.connection_of_the_dead(process.conn, false);
    }

    /// Stops it in order.
    pub(super) fn stop_node(&mut self, n: usize) {
        if self.nodes[n].process.as_ref().is_none_or(|process| process.stalled.is_some()) {
            return self.crash_node(n);
        }
        self.node_perform(n);
        self.node_flush(n);
        if let Some(process) = &self.nodes[n].process
            && self.is_shared()
            && !self.nodes[n].store_cut
        {
            self.store.leave(process.lease);
            self.wake_others(n);
        }
        self.crash_node(n);
    }

    fn wake_others(&mut self, n: usize) {
        for other in (0..self.nodes.len())
            .filter(|other| *other != n && !self.nodes[*other].store_cut)
            .collect::<Vec<_>>()
        {
            self.node_later(other, 10, NodeEvent::Input(Input::Woken));
        }
    }

    pub(super) fn node_later(&mut self, n: usize, wait: u64, event: NodeEvent) {
        if let Some(process) = &self.nodes[n].process {
            let incarnation = process.incarnation;
            self.after(wait, Happening::Node { n, incarnation, event: Box::new(event) });
        }
    }

    fn wall(&self, n: usize) -> u64 {
        1_800_000_000_000_u64.saturating_add(self.now).saturating_add_signed(self.nodes[n].wall_offset)
    }

    fn node_time(&mut self, n: usize) -> Timestamp {
        let (wall, now) = (self.wall(n), self.now);
        let Some(process) = &mut self.nodes[n].process else { return Timestamp(wall) };
        let (time, set) = process.clock.look(wall, now - process.begun);
        if let Some(by) = set {
            process.engine.clock_set(by);
        }
        time
    }

    /// Something for the driver; what waits anyway is taken together.
    pub(super) fn node_input(&mut self, n: usize, input: Input) {
        let Some(process) = &mut self.nodes[n].process else { return };
        process.inbox.push_back(input);
        self.node_run(n);
    }

    pub(super) fn node_run(&mut self, n: usize) {
        loop {
            let Some(process) = &mut self.nodes[n].process else { return };
            if process.stalled.is_some() {
                return;
            }
            let Some(input) = process.inbox.pop_front() else { break };
            self.node_handle(n, input);
            // The driver takes what is ready into one transaction.
            let more = self.nodes[n].process.as_ref().is_some_and(|process| !process.inbox.is_empty());
            if !(more && self.random.in_thousand(500)) {
                self.node_perform(n);
            }
        }
        let now = self.node_time(n);
        let Some(process) = &mut self.nodes[n].process else { return };
        let deadline = process.engine.tick(now, &mut process.out);
        process.wake += 1;
        let wake = process.wake;
        let wait = deadline.map_or(10_000, |at| at.since_ms(now).clamp(1, 10_000));
        self.node_perform(n);
        self.node_later(n, wait, NodeEvent::Wake(wake));
    }

    fn node_handle(&mut self, n: usize, input: Input) {
        let now = self.node_time(n);
        let real = self.now;
        let Some(process) = &mut self.nodes[n].process else { return };
        let out = &mut process.out;
        match input {
            Input::Execute(id) => {
                let Some(description) = self.ledger.description(id) else { return };
                let new = Accepted {
                    id,
                    description,
                    inputs: vec![],
                    form: Form::default(),
                    owner: UserId::anonymous(),
                    role: None,
                    terms: Arc::default(),
                };
                match process.engine.execute(new, now, out) {
                    Ok(()) => drop(process.waiters.insert(id)),
                    Err(_) => self.ledger.turned_away(id),
                }
            }
            Input::Dismiss(id) => {
                if process.engine.dismiss(id, now, out) {
                    process.dismissals.push(id);
                } else if !self.nodes[n].store_cut
                    && self.nodes.len() > 1
                    && self.store.load(id).is_some_and(|job| !job.state.is_final())
                {
                    self.store.ask_dismissal(id);
                    self.ledger.dismissal_asked(id);
                    self.wake_others(n);
                }
            }
            Input::Online => {
                process.connected = true;
                process.offline_since = None;
                process.looks = 0;
            }
            Input::Offline => {
                process.connected = false;
                process.offline_since = Some(real);
                let ready = process.engine.fleet().agents().filter(|agent| agent.ready);
                process.heard_at.extend(ready.map(|agent| (agent_number(&agent.id), real)));
                process.engine.disconnected(now, out);
            }
            Input::Joined(agent) => {
                silence(&process.engine, &mut process.heard_at, agent, real);
                process.engine.agent_joined(&agent_id(agent), now, out);
            }
            Input::Left(agent) => {
                silence(&process.engine, &mut process.heard_at, agent, real);
                process.engine.agent_left(&agent_id(agent), now, out);
            }
            Input::Message(agent, message) => {
                let (from, message) = self.sabotage.stale(&process.engine, agent_id(agent), *message);
                process.engine.receive(&from, message, now, out);
            }
            Input::Collected(execution, result) => process.engine.collected(&execution, result, now, out),
            Input::Look { others, died } => self.node_looks(n, others, died),
            Input::Fenced(lease) => {
                if lease == process.lease {
                    self.node_fenced(n);
                }
            }
            Input::Woken => {
                self.node_dismiss_asked(n);
                self.node_adopts(n);
            }
            Input::Flush => {
                self.node_flush(n);
                self.node_later(n, 1_000, NodeEvent::Input(Input::Flush));
            }
            Input::Tick => {}
        }
    }

    fn node_looks(&mut self, n: usize, others: usize, died: bool) {
        let now = self.now;
        let Some(process) = &mut self.nodes[n].process else { return };
        process.looks = process.looks.wrapping_add(1);
        let search = died || process.looks % 8 == 1;
        let cut_off = process.offline_since.is_some_and(|since| now - since >= 15_000);
        if cut_off && others > 0 && process.engine.jobs().next().is_some() {
            self.node_flush(n);
            let Some(process) = &self.nodes[n].process else { return };
            if self.nodes[n].store_cut {
                return;
            }
            self.store.leave(process.lease);
            self.wake_others(n);
            return self.node_fenced(n);
        }
        self.node_dismiss_asked(n);
        if search {
            self.node_adopts(n);
        }
    }

    fn node_dismiss_asked(&mut self, n: usize) {
        let now = self.node_time(n);
        let cut = self.nodes[n].store_cut;
        let Some(process) = &mut self.nodes[n].process else { return };
        if !cut {
            for id in self.store.asked_dismissals(process.lease) {
                process.engine.dismiss(id, now, &mut process.out);
            }
        }
        self.node_perform(n);
    }

    fn node_adopts(&mut self, n: usize) {
        loop {
            let now = self.node_time(n);
            let away = !self.is_shared() || self.nodes[n].store_cut;
            let Some(process) = &mut self.nodes[n].process else { return };
            if !process.connected || away || process.stalled.is_some() {
                return;
            }
            let jobs = self.store.adopt(process.lease, 200);
            let taken = jobs.len();
            if taken == 0 {
                return;
            }
            for job in jobs {
                process.engine.adopt(job, now, &mut process.out);
            }
            process.engine.claim(now, &mut process.out);
            self.node_dismiss_asked(n);
            if taken < 200 {
                return;
            }
        }
    }

    /// Its jobs belong to others: it lets go, and is in service again without them.
    pub(super) fn node_fenced(&mut self, n: usize) {
        let Some(process) = &mut self.nodes[n].process else { return };
        if self.sabotage == Sabotage::IgnoreTheLease {
            return;
        }
        process.out.clear();
        process.dirty.clear();
        process.withdrawn.clear();
        process.dismissals.clear();
        process.engine.abandon();
        for id in std::mem::take(&mut process.waiters) {
            self.ledger.turned_away(id);
        }
        self.node_enters_again(n);
    }

    pub(super) fn node_enters_again(&mut self, n: usize) {
        let reachable = !self.nodes[n].store_cut;
        let Some(process) = &mut self.nodes[n].process else { return };
        if !reachable {
            process.stalled = Some(Stalled::Entering);
            return self.node_later(n, 1_000, NodeEvent::Retry);
        }
        match self.store.enter_again(&format!("n{n}")) {
            Some(lease) => {
                process.lease = lease;
                process.stalled = None;
            }
            None => self.crash_node(n),
        }
    }

    pub(super) fn node_event(&mut self, n: usize, event: NodeEvent) {
        match event {
            NodeEvent::Input(input) => self.node_input(n, input),
            NodeEvent::Wake(wake) => {
                if self.nodes[n].process.as_ref().is_some_and(|process| process.wake == wake) {
                    self.node_input(n, Input::Tick);
                }
            }
            NodeEvent::Beat => self.node_beats(n),
            NodeEvent::Retry => self.node_retries(n),
            NodeEvent::Collect(job, execution, outputs) => {
                let result = self.take_over(job, &execution, outputs);
                self.node_input(n, Input::Collected(execution, result));
            }
            NodeEvent::Inquire(agent, execution, question) => {
                if self.nodes[n].store_cut {
                    return;
                }
                let stored = JobId::of_execution(&execution).and_then(|id| self.store.load(id));
                if let Some(answer) = question.answer(&execution, stored) {
                    self.check_sends(n, &answer);
                    self.bus_send(n, agent_number(&agent), answer);
                }
            }
            NodeEvent::Heartbeat => self.bus_heartbeat(n),
            NodeEvent::NoAnswer(id) => self.bus_answered(n, id, None),
            NodeEvent::Answered(id, answer) => self.bus_answered(n, id, Some(answer)),
            NodeEvent::Again(agent, appearance, message) => self.bus_asks(n, agent, appearance, *message),
        }
    }

    fn node_beats(&mut self, n: usize) {
        self.node_later(n, LEASE_MS / 4, NodeEvent::Beat);
        let (now, cut) = (self.now, self.nodes[n].store_cut);
        let Some(process) = &mut self.nodes[n].process else { return };
        let lease = process.lease;
        if cut {
            return process.keeper.forget();
        }
        let input = match self.store.beat(lease) {
            Ok(nodes) => {
                let dead = process.keeper.look(&nodes, Duration::from_millis(now - process.begun));
                let died = dead.iter().filter(|node| self.store.bury(node)).count() > 0;
                Input::Look { others: nodes.len() - 1, died }
            }
            Err(_) => Input::Fenced(lease),
        };
        self.node_input(n, input);
    }

    /// Whether a node's program has something to do or to wait for.
    pub(super) fn node_is_busy(&self, n: usize) -> bool {
        self.nodes[n].process.as_ref().is_some_and(|process| {
            process.stalled.is_some() || !process.inbox.is_empty() || process.engine.jobs().next().is_some()
        })
    }
}
