//! The one task that owns the engine: takes commands, bus events, finished file work and the clock; performs the actions
//! in order, every durable change before anything that it justifies. Reads the clock; the engine never does.

pub mod clock;
mod cluster;
mod lease;
mod perform;
mod shares;
mod tidy;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};
use wps_remote_protocol::{AgentId, ExecutionId, FromAgent, Load, Outputs, ProcessId, ToAgent};

use self::clock::Clock;
use crate::bus::Inbound;
use crate::engine::job::{Job, JobId, Timestamp};
use crate::engine::{Accepted, Action, Engine, Limits, QueueFull};
use crate::jobs::{Aliases, Catalogue, Command, Jobs, Live, Refusal};
use crate::limits::LimitRules;
use crate::references::References;
use crate::results::Results;
use crate::service::{self, News};
use crate::store::{Drained, Store, StoreError};
use crate::telemetry::Telemetry;

/// Commands that may wait for the driver.
const COMMANDS: usize = 1024;
/// Events that are taken together into one transaction.
const BATCH: usize = 128;
/// How often progress and logs are stored, and the view of the fleet is renewed.
const FLUSH: Duration = Duration::from_secs(1);
/// Longest time between two looks at the clock: a wall clock that was set is noticed within it.
const LONGEST_SLEEP_MS: u64 = 10_000;
/// How often expired jobs are looked for.
const EXPIRY: Duration = Duration::from_secs(300);

/// What the operator may see of an agent.
#[derive(Debug, Clone, PartialEq)]
pub struct AgentView {
    /// Its name.
    pub id: AgentId,
    /// Its program and version.
    pub software: String,
    /// Its account, where the room discloses it.
    pub account: Option<String>,
    /// Identifiers of its processes.
    pub processes: Vec<String>,
    /// Its newest load.
    pub load: Option<Load>,
    /// Executions of ours that it holds.
    pub executions: Vec<ExecutionId>,
    /// Whether work is sent to it.
    pub ready: bool,
    /// Its processes whose description differs from the one that is shown to clients.
    pub conflicts: Vec<String>,
    /// What cannot be expected of it.
    pub cannot: &'static [&'static str],
    /// Why an operator has taken it out of service, if one has.
    pub drained: Option<String>,
}

impl AgentView {
    /// `yes`, or why no new work is sent to it, for people.
    pub fn accepts(&self) -> String {
        if let Some(why) = &self.drained {
            return format!("no: drained: {why}");
        }
        match &self.load {
            Some(load) if self.ready && load.accepting => "yes".to_owned(),
            Some(load) => match &load.refusing {
                Some(refusal) => format!("no: {}", refusal.text),
                None => "no: it has not said yet what it holds".to_owned(),
            },
            None => "no: its load is not known yet".to_owned(),
        }
    }
}

/// What the operator may see of everything, renewed every second.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Overview {
    /// Whether we are in the management room.
    pub connected: bool,
    /// All agents that are present.
    pub agents: Vec<AgentView>,
    /// Active jobs in each state.
    pub active: BTreeMap<&'static str, u64>,
    /// Jobs that wait.
    pub queued: usize,
    /// Whether the last write to the store worked.
    pub store_works: bool,
    /// Agents that an operator has taken out of service, present or not, and why.
    pub drained: Drained,
}

/// What the driver is made of.
pub struct Parts {
    /// Times and bounds.
    pub limits: Limits,
    /// Address of our service, as agents are told.
    pub base_url: String,
    /// Where jobs are stored.
    pub store: Store,
    /// Our name among the orchestrators that share the store.
    pub node: String,
    /// How long a node of a shared store may give no sign of life before others take its jobs over.
    pub lease: Duration,
    /// Where files are.
    pub results: Results,
    /// To agents.
    pub outbound: mpsc::UnboundedSender<(AgentId, ToAgent)>,
    /// From agents.
    pub inbound: mpsc::Receiver<Inbound>,
    /// Where figures are counted.
    pub telemetry: Arc<Telemetry>,
    /// Fetches inputs by reference.
    pub references: References,
    /// Other identifiers of processes.
    pub aliases: Aliases,
    /// How much each user may ask for.
    pub limit_rules: Arc<LimitRules>,
}

/// The job after its dismissal, or `None` if it was not active.
type Dismissed = Option<Arc<Job>>;

struct Waiter {
    reply: oneshot::Sender<Result<watch::Receiver<Arc<Job>>, Refusal>>,
    job: watch::Receiver<Arc<Job>>,
}

/// What an agent told about itself when it appeared.
#[derive(Debug, Clone, Default)]
struct Known {
    software: String,
    account: Option<String>,
    cannot: &'static [&'static str],
}

struct Driver {
    engine: Engine,
    store: Store,
    results: Results,
    outbound: mpsc::UnboundedSender<(AgentId, ToAgent)>,
    live: Live,
    watched: HashMap<JobId, watch::Sender<Arc<Job>>>,
    catalogue: watch::Sender<Arc<Catalogue>>,
    overview: watch::Sender<Arc<Overview>>,
    agents: HashMap<AgentId, Known>,
    connected: bool,
    offline_since: Option<Instant>,
    node: String,
    looks: u32,
    store_works: Arc<AtomicBool>,
    begun: Instant,
    clock: Clock,
    shutdown: CancellationToken,
    dirty: HashSet<JobId>,
    waiters: HashMap<JobId, Waiter>,
    /// Jobs that were not accepted after all, though they may have reached the store.
    withdrawn: Vec<JobId>,
    /// Answers to dismissals, given when everything is stored.
    dismissals: Vec<(oneshot::Sender<Dismissed>, Dismissed)>,
    collected: mpsc::UnboundedSender<(ExecutionId, Result<Outputs, String>)>,
    retention: Duration,
    telemetry: Arc<Telemetry>,
    aliases: Aliases,
    limit_rules: Arc<LimitRules>,
    /// Agents out of service, as they stand in the store.
    drained: Drained,
    drains: mpsc::UnboundedSender<shares::Drain>,
    /// Differing descriptions, and for which version of the fleet that was found.
    conflicts: (u64, Conflicts),
    out: Vec<Action>,
}

type Conflicts = BTreeMap<ProcessId, BTreeSet<AgentId>>;

/// The handles to a running driver.
pub struct Handles {
    /// For the faces.
    pub jobs: Jobs,
    /// For the operator.
    pub overview: watch::Receiver<Arc<Overview>>,
    /// Ends when everything is stored.
    pub task: tokio::task::JoinHandle<()>,
}

/// Takes the stored jobs up again and starts the task.
pub async fn start(parts: Parts, shutdown: CancellationToken) -> Result<Handles, StoreError> {
    parts.store.enter(&parts.node).await?;
    let (jobs, unreadable) = parts.store.active().await?;
    for row in unreadable {
        error!(cause = ?row, "{row}; it is left alone");
    }
    if !jobs.is_empty() {
        info!(jobs = jobs.len(), "taking up the jobs that had not ended");
    }
    let (commands, to_do) = mpsc::channel(COMMANDS);
    let (catalogue, catalogue_view) = watch::channel(Arc::new(Catalogue::default()));
    let (overview, overview_view) =
        watch::channel(Arc::new(Overview { store_works: true, ..Default::default() }));
    // Unbounded: one entry per execution whose files are being taken over.
    let (collected, work_done) = mpsc::unbounded_channel();
    // Unbounded: one entry for each word of an operator.
    let (drains, asked_drains) = mpsc::unbounded_channel();
    let (stored_drains, drains_done) = mpsc::unbounded_channel();
    tokio::spawn(shares::store_drains(parts.store.clone(), asked_drains, stored_drains));
    let live = Live::default();
    let store_works = Arc::new(AtomicBool::new(true));
    let retention = Duration::from_millis(parts.limits.retention_ms);
    let mut driver = Driver {
        engine: Engine::new(parts.limits, parts.base_url),
        store: parts.store.clone(),
        results: parts.results.clone(),
        outbound: parts.outbound,
        live: live.clone(),
        watched: HashMap::new(),
        catalogue,
        overview,
        agents: HashMap::new(),
        connected: false,
        offline_since: Some(Instant::now()),
        node: parts.node,
        looks: 0,
        store_works: store_works.clone(),
        begun: Instant::now(),
        clock: Clock::new(wall_ms()),
        shutdown: shutdown.clone(),
        dirty: HashSet::new(),
        waiters: HashMap::new(),
        withdrawn: Vec::new(),
        dismissals: Vec::new(),
        collected,
        retention,
        telemetry: parts.telemetry,
        aliases: parts.aliases,
        limit_rules: parts.limit_rules.clone(),
        drained: Drained::new(),
        drains,
        conflicts: Default::default(),
        out: Vec::new(),
    };
    let now = driver.now();
    driver.set_drained(parts.store.drained().await?, now);
    for mut job in jobs {
        job.terms = driver.terms(&job);
        driver.watch(Arc::new(job.clone()));
        driver.engine.adopt(job, now, &mut driver.out);
    }
    driver.engine.claim(now, &mut driver.out);
    let leftovers = tidy::leftovers(parts.store.clone(), parts.results.clone());
    tokio::spawn(shutdown.clone().run_until_cancelled_owned(leftovers));
    let (tell, told) = mpsc::channel(4);
    if parts.store.is_shared() {
        tokio::spawn(lease::keep(parts.store.clone(), parts.lease, tell, shutdown.clone()));
    }
    let jobs = Jobs {
        commands,
        store_works,
        live,
        catalogue: catalogue_view,
        store: parts.store,
        results: parts.results,
        references: parts.references,
        limits: parts.limit_rules,
    };
    let task = tokio::spawn(driver.run(to_do, parts.inbound, work_done, told, drains_done, shutdown));
    Ok(Handles { jobs, overview: overview_view, task })
}

#[expect(clippy::disallowed_methods, reason = "the driver is where the clock is read")]
fn wall_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

enum Event {
    Command(Command),
    Inbound(Inbound),
    Collected(ExecutionId, Result<Outputs, String>),
}

impl Driver {
    async fn run(
        mut self,
        mut commands: mpsc::Receiver<Command>,
        mut inbound: mpsc::Receiver<Inbound>,
        mut collected: mpsc::UnboundedReceiver<(ExecutionId, Result<Outputs, String>)>,
        mut told: mpsc::Receiver<lease::Told>,
        mut drains: mpsc::UnboundedReceiver<Drained>,
        shutdown: CancellationToken,
    ) {
        let others = self.store.clone();
        let mut flush = tokio::time::interval(FLUSH);
        flush.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut expiry = tokio::time::interval_at(Instant::now() + Duration::from_secs(5), EXPIRY);
        expiry.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        // Here and nowhere else: a driver that hangs must be silent.
        let sign_of_life = service::sign_of_life();
        let mut signs = tokio::time::interval(sign_of_life.unwrap_or(Duration::from_secs(3600)));
        signs.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        self.perform().await;
        loop {
            let now = self.now();
            let deadline = self.engine.tick(now, &mut self.out);
            self.perform().await;
            let wait = deadline.map_or(Duration::from_secs(3600), |at| {
                Duration::from_millis(at.since_ms(now).clamp(1, LONGEST_SLEEP_MS))
            });
            let first = tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                _ = signs.tick() => {
                    if sign_of_life.is_some() {
                        service::tell(News::Alive);
                    }
                    None
                }
                Some(done) = collected.recv() => Some(Event::Collected(done.0, done.1)),
                Some(command) = commands.recv() => Some(Event::Command(command)),
                event = inbound.recv() => match event {
                    Some(event) => Some(Event::Inbound(event)),
                    None => break,
                },
                Some(done) = drains.recv() => { self.drain_stored(done); None }
                Some(news) = told.recv() => { self.told(news).await; None }
                () = others.woken() => { self.woken().await; None }
                _ = flush.tick() => { self.flush().await; None }
                _ = expiry.tick() => { self.expire().await; None }
                () = tokio::time::sleep(wait) => None,
            };
            let Some(first) = first else { continue };
            self.handle(first);
            // What is ready anyway shares the transaction.
            for _ in 0..BATCH {
                let next = collected
                    .try_recv()
                    .map(|done| Event::Collected(done.0, done.1))
                    .or_else(|_| commands.try_recv().map(Event::Command))
                    .or_else(|_| inbound.try_recv().map(Event::Inbound));
                match next {
                    Ok(event) => self.handle(event),
                    Err(_) => break,
                }
            }
        }
        debug!("storing what is left");
        self.perform().await;
        self.flush().await;
        if self.store.is_shared() {
            match self.store.leave().await {
                Ok(()) => info!("jobs that have not ended are left to the other orchestrators"),
                Err(error) => {
                    warn!(cause = ?error, "the jobs cannot be handed over now; others take them when the lease is over")
                }
            }
        }
        self.store.close().await;
    }

    /// The time; deadlines follow when the wall clock was set.
    fn now(&mut self) -> Timestamp {
        let (now, set) = self.clock.look(wall_ms(), self.monotonic_ms());
        if let Some(by_ms) = set {
            warn!(by_ms, "the wall clock was set; deadlines stay where they were");
            self.engine.clock_set(by_ms);
        }
        now
    }

    fn monotonic_ms(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn handle(&mut self, event: Event) {
        let now = self.now();
        match event {
            // The client was told that the store is out of reach: it must not find a job some day.
            Event::Command(Command::Execute { reply, .. }) if reply.is_closed() => {}
            Event::Command(Command::Execute { id, new, description, terms, reply }) => {
                let accepted = Accepted {
                    id,
                    description,
                    inputs: new.inputs,
                    form: new.form,
                    owner: new.owner,
                    role: new.role,
                    terms,
                };
                match self.engine.execute(accepted, now, &mut self.out) {
                    Err(QueueFull { queued, bound }) => {
                        let refusal = match bound {
                            Some(bound) => Refusal::TooMany { queued, bound },
                            None => Refusal::TooBusy { queued },
                        };
                        // The client may have gone: then nobody waits for the answer.
                        let _ = reply.send(Err(refusal));
                    }
                    Ok(()) => {
                        let Some(job) = self.engine.job(id).cloned() else { return };
                        info!(job.id = %id, process.id = %job.process, user = %job.owner.0, "job accepted");
                        let job = self.watch(Arc::new(job));
                        self.waiters.insert(id, Waiter { reply, job });
                    }
                }
            }
            Event::Command(Command::Dismiss { id, reply }) => {
                let active = self.engine.dismiss(id, now, &mut self.out);
                if active {
                    info!(job.id = %id, "job dismissed by its client");
                }
                let saved = self.out.iter().rev().find_map(|action| match action {
                    Action::Save(job) if job.id == id => Some(Arc::new(job.as_ref().clone())),
                    _ => None,
                });
                let job = saved.or_else(|| self.engine.job(id).cloned().map(Arc::new)).filter(|_| active);
                self.dismissals.push((reply, job));
            }
            Event::Command(Command::Explain { id, reply }) => {
                // The client may have gone: then nobody waits for the answer.
                let _ = reply.send(self.engine.explain(id, now));
            }
            Event::Command(Command::Waiting { ids, reply }) => {
                let reasons = ids.into_iter().filter_map(|id| Some((id, self.engine.waiting(id, now)?)));
                // The client may have gone: then nobody waits for the answer.
                let _ = reply.send(reasons.collect());
            }
            Event::Command(Command::Drain { agent, drain, reply }) => {
                // Without a receiver the program is ending.
                let _ = self.drains.send((agent, drain, reply));
            }
            Event::Collected(execution, result) => {
                self.engine.collected(&execution, result, now, &mut self.out);
            }
            Event::Inbound(inbound) => self.heard(inbound, now),
        }
    }

    fn heard(&mut self, inbound: Inbound, now: Timestamp) {
        match inbound {
            Inbound::Online => {
                self.connected = true;
                self.offline_since = None;
                self.looks = 0;
            }
            Inbound::Offline { reason } => {
                self.connected = false;
                self.offline_since = Some(Instant::now());
                let agents = self.engine.fleet().agents().count();
                warn!(agents, "all agents are out of reach: {reason}; jobs go on, new ones wait");
                self.engine.disconnected(now, &mut self.out);
            }
            Inbound::Joined { agent, software, account, cannot } => {
                info!(%agent, %software, account = account.as_deref().unwrap_or("-"), "agent online");
                self.agents.insert(agent.clone(), Known { software, account, cannot });
                self.engine.agent_joined(&agent, now, &mut self.out);
            }
            Inbound::Left { agent, reason } => {
                info!(%agent, "agent offline: {reason}");
                self.agents.remove(&agent);
                self.engine.agent_left(&agent, now, &mut self.out);
            }
            Inbound::Message { agent, message } => {
                log_message(&agent, &message);
                if let FromAgent::Load(load) = &message {
                    let known = self.engine.fleet().agent(&agent).and_then(|agent| agent.load.as_ref());
                    log_refusing(&agent, known, load);
                }
                self.engine.receive(&agent, message, now, &mut self.out);
            }
        }
    }
}

/// An agent begins or ends to refuse work, or does so for another reason.
fn log_refusing(agent: &AgentId, before: Option<&Load>, now: &Load) {
    let before = before.and_then(|load| load.refusing.as_ref());
    match (before, &now.refusing) {
        (None, Some(refusal)) => info!(%agent, "agent takes no new work: {}", refusal.text),
        (Some(before), Some(refusal)) if before.reason != refusal.reason => {
            info!(%agent, "agent takes no new work: {}", refusal.text);
        }
        (Some(_), None) => info!(%agent, "agent takes new work again"),
        (None, None) | (Some(_), Some(_)) => {}
    }
}

fn log_message(agent: &AgentId, message: &FromAgent) {
    match message {
        FromAgent::Register(process) => debug!(%agent, process.id = %process.id, "process registered"),
        FromAgent::Unregister(process) => info!(%agent, process.id = %process, "process withdrawn"),
        FromAgent::Executions { held, unknown } => {
            debug!(%agent, executions = held.len(), unknown = unknown.len(), "agent is ready");
        }
        FromAgent::Started { execution } => debug!(%agent, execution.id = %execution, "execution started"),
        FromAgent::CannotExecute { execution, refusal } => {
            info!(%agent, execution.id = %execution, "execution refused: {}", refusal.text);
        }
        FromAgent::Completed { execution, .. } => {
            debug!(%agent, execution.id = %execution, "execution completed")
        }
        FromAgent::Error { execution, error } => {
            let line = error.text.lines().next().unwrap_or_default();
            info!(%agent, execution.id = %execution, kind = ?error.kind, "execution failed: {line}");
        }
        FromAgent::Progress { .. } | FromAgent::Log { .. } | FromAgent::Load(_) => {}
    }
}

#[cfg(test)]
mod tests;
