//! The one task that owns the engine: what comes from the bus, from executions, from the watched folder and from the clock goes
//! in; what comes out is done, in order. Decides nothing itself.

mod report;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};
use wps_remote_protocol::{ExecutionId, LogLevel, ProcessId, Request};
use wps_remote_xmpp::muc::MucEvent;

use crate::config::AgentConfig;
use crate::control::Asked;
use crate::descriptor::ServiceDescriptor;
use crate::engine::{Action, Actions, Answer, Engine, Event, Measured, Peer};
use crate::execution::stdout::Counts;
use crate::execution::{self, Begin, Host};
use crate::habits::Habits;
use crate::prepare::{self, Manner};
use crate::service::{News, Service};
use crate::session::Events as SessionEvents;
use crate::session::{Delivered, Inbound, Session, Verdict};
use crate::weigh::Weigher;
use crate::workdir::{Ending, Found, WorkdirError};

/// Pause between two announcements of a load that changes.
const PRESENCE_LEAST: Duration = Duration::from_secs(1);
/// Pause between two announcements of one that does not: figures in per cent move a little all the time.
const PRESENCE_MOST: Duration = Duration::from_secs(10);
/// Events of executions that may wait for the driver.
const EVENTS: usize = 256;
/// An ending that has not been taken for so long is synced to disk.
const UNTAKEN: Duration = Duration::from_secs(3);
/// How long the last messages may take when jobs are ended with the agent.
const FAREWELL: Duration = Duration::from_secs(5);

/// What becomes of running jobs when the agent stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AtStop {
    /// They go on under their supervisors, and the next agent takes them over.
    KeepJobs,
    /// They are ended.
    EndJobs,
}

/// What the driver listens to besides its own executions.
pub struct Sources {
    /// From the session.
    pub session: SessionEvents,
    /// What is offered.
    pub offers: watch::Receiver<Vec<Arc<ServiceDescriptor>>>,
    /// What the host's load is.
    pub measured: watch::Receiver<Measured>,
    /// The configuration, read again now and then.
    pub config: watch::Receiver<Arc<AgentConfig>>,
    /// What operators ask for.
    pub orders: mpsc::Receiver<Asked>,
}

/// What is known of a running execution besides what the engine knows.
struct Live {
    abort: CancellationToken,
    accepted_ms: i64,
}

/// The driver.
pub struct Driver {
    engine: Engine,
    session: Session,
    host: Arc<Host>,
    manner: Manner,
    offered: HashMap<ProcessId, Arc<ServiceDescriptor>>,
    /// When each live job was accepted, in milliseconds since 1970, and which rules its output met once that is known.
    read: HashMap<ExecutionId, (i64, Counts)>,
    habits: Habits,
    live: HashMap<ExecutionId, Live>,
    weigher: Arc<Weigher>,
    weights: mpsc::UnboundedSender<(ExecutionId, Result<f64, String>)>,
    /// Unbounded: the engine weighs only so many at a time.
    weighed: Option<mpsc::UnboundedReceiver<(ExecutionId, Result<f64, String>)>>,
    service: Service,
    /// The line that the service manager was told.
    told: String,
    executions: JoinSet<()>,
    events: execution::Events,
    happenings: Option<mpsc::Receiver<(ExecutionId, execution::Event)>>,
    begun: Instant,
    announced_at: Instant,
    announce: bool,
}

impl Driver {
    /// Takes everything over.
    pub fn new(engine: Engine, session: Session, host: Arc<Host>, manner: Manner, service: Service) -> Self {
        let (events, happenings) = mpsc::channel(EVENTS);
        let (weights, weighed) = mpsc::unbounded_channel();
        let begun = Instant::now();
        let habits = Habits::open(host.control.root());
        Self {
            engine,
            session,
            host,
            manner,
            offered: HashMap::new(),
            read: HashMap::new(),
            habits,
            live: HashMap::new(),
            weigher: Arc::default(),
            weights,
            weighed: Some(weighed),
            service,
            told: String::new(),
            executions: JoinSet::new(),
            events,
            happenings: Some(happenings),
            begun,
            announced_at: begun,
            announce: false,
        }
    }

    /// Takes over what former agents have left: running jobs are followed again, endings go out.
    pub async fn adopt(&mut self) -> Result<(), WorkdirError> {
        let host = self.host.clone();
        let scanned = spawn_blocking(move || host.control.scan()).await;
        // The scan does not panic; should it, there is nothing to adopt and new work can be done all the same.
        let (found, strange) = scanned.unwrap_or_else(|error| Ok((Vec::new(), vec![error.to_string()])))?;
        for text in strange {
            warn!("in the folder of job records: {text}");
        }
        for found in found {
            match found {
                Found::Open(folder, record) => {
                    info!(execution.id = %record.execution, process.id = %record.process, "taking over a job of a former agent");
                    let id = record.execution.clone();
                    let peer = Peer(record.originator.clone());
                    self.session.adopt(&id, &record.process, &peer, &record.base_url);
                    self.engine.adopt(id.clone(), record.process.clone(), peer, record.weight);
                    let rules = prepare::stored_rules(&record.rules);
                    self.read.insert(id.clone(), (record.accepted_ms, Counts::default()));
                    let accepted_ms = record.accepted_ms;
                    self.spawn(id, accepted_ms, Begin::Adopted { folder, record, rules });
                }
                Found::Ended(_, record, ending) => {
                    info!(execution.id = %record.execution, process.id = %record.process, "delivering an ending of a former agent");
                    let now = self.now();
                    let peer = Peer(record.originator.clone());
                    self.session.adopt(&record.execution, &record.process, &peer, &record.base_url);
                    self.engine.adopt_ended(record.execution, record.process, peer, ending, now);
                }
                Found::Finished(execution) => self.engine.adopt_finished(execution),
            }
        }
        Ok(())
    }

    /// Runs until `shutdown`, or until the session is over.
    pub async fn run(mut self, mut sources: Sources, shutdown: CancellationToken, at_stop: AtStop) {
        let Some(mut happenings) = self.happenings.take() else { return };
        let Some(mut weighed) = self.weighed.take() else { return };
        self.offer(&mut sources.offers);
        let sign_of_life = self.service.sign_of_life();
        let mut alive_at = Instant::now();
        self.service.tell(News::Ready);
        self.tell_manager();
        loop {
            self.hear();
            let mut out = Actions::new();
            let next = self.engine.tick(self.now(), &mut out);
            self.perform(out);
            let next_legacy = self.session.tick().map(|pause| Instant::now() + pause);
            // What has just been performed can have been answered at once.
            self.hear();
            let next_tick = next.map(|at| self.begun + at);
            let presence_due = self.presence_due();
            // Here and nowhere else: a driver that hangs must be silent.
            if sign_of_life.is_some() && alive_at <= Instant::now() {
                self.service.tell(News::Alive);
                alive_at = Instant::now() + sign_of_life.unwrap_or_default();
            }
            let next_sign = sign_of_life.map(|_| alive_at);
            tokio::select! {
                () = shutdown.cancelled() => break,
                event = sources.session.bus.recv() => match event {
                    Some(event) => self.bus(event),
                    None => break,
                },
                Some(event) = sources.session.legacy.recv() => self.session.understand_legacy(event),
                () = until(next_legacy) => {}
                Some((id, event)) = happenings.recv() => self.happened(id, event),
                Some(answer) = sources.session.delivered.recv() => self.delivered(&answer),
                Ok(()) = sources.offers.changed() => self.offer(&mut sources.offers),
                Ok(()) = sources.measured.changed() => {
                    let measured = sources.measured.borrow_and_update().clone();
                    let mut out = Actions::new();
                    self.engine.measure(measured, &mut out);
                    self.perform(out);
                    // Once a second is often enough for a line that people read.
                    self.tell_manager();
                }
                Ok(()) = sources.config.changed() => {
                    let config = sources.config.borrow_and_update().clone();
                    self.configure(&config);
                }
                Some(asked) = sources.orders.recv() => self.order(asked),
                Some((id, weight)) = weighed.recv() => {
                    if let Err(why) = &weight {
                        warn!(execution.id = %id, "a request is refused: {why}");
                    }
                    let mut out = Actions::new();
                    self.engine.weighed(&id, weight, &mut out);
                    self.perform(out);
                }
                // Ended tasks are only collected; what they had to say came as events.
                Some(_) = self.executions.join_next() => {}
                () = sleep_until(presence_due) => {
                    self.announce = false;
                    self.announced_at = Instant::now();
                    self.session.announce(self.engine.load());
                    if let Some(habits) = self.habits.to_save() {
                        self.executions.spawn(async move {
                            let _ = spawn_blocking(move || habits.save()).await;
                        });
                    }
                }
                () = until(next_tick) => {}
                () = until(next_sign) => {}
            }
        }
        self.service.tell(News::Stopping);
        if at_stop == AtStop::EndJobs {
            self.end_all(&mut sources, &mut happenings).await;
        } else if self.engine.live() > 0 {
            info!(
                jobs = self.engine.live(),
                "the agent stops; its jobs go on and are taken over at the next start"
            );
        }
        self.executions.abort_all();
        if let Some(habits) = self.habits.to_save() {
            let _ = spawn_blocking(move || habits.save()).await;
        }
        self.session.close().await;
    }

    /// Asks every job to end, and stays until they have and the orchestrators know, or time is up.
    async fn end_all(
        &mut self,
        sources: &mut Sources,
        happenings: &mut mpsc::Receiver<(ExecutionId, execution::Event)>,
    ) {
        let mut out = Actions::new();
        self.engine.drain(true, &mut out);
        self.perform(out);
        info!(jobs = self.engine.live(), "the agent stops and ends its jobs");
        for live in self.live.values() {
            live.abort.cancel();
        }
        let mut deadline = Instant::now() + self.manner.grace + FAREWELL;
        while !self.engine.held().is_empty() {
            let ended = self.engine.live() == 0;
            if ended {
                deadline = deadline.min(Instant::now() + FAREWELL);
            }
            self.hear();
            let next_legacy = self.session.tick().map(|pause| Instant::now() + pause);
            tokio::select! {
                () = sleep_until(deadline) => break,
                () = until(next_legacy) => {}
                Some((id, event)) = happenings.recv() => self.happened(id, event),
                Some(answer) = sources.session.delivered.recv() => self.delivered(&answer),
                Some(event) = sources.session.legacy.recv() => self.session.understand_legacy(event),
                event = sources.session.bus.recv() => match event {
                    Some(event) => self.bus(event),
                    None if ended => break,
                    None => {}
                },
            }
        }
    }

    fn now(&self) -> Duration {
        self.begun.elapsed()
    }

    fn presence_due(&self) -> Instant {
        self.announced_at + if self.announce { PRESENCE_LEAST } else { PRESENCE_MOST }
    }

    fn bus(&mut self, event: MucEvent) {
        if let Some(inbound) = self.session.understand(event) {
            self.inbound(inbound);
        }
    }

    /// Works through what GeoServers want.
    fn hear(&mut self) {
        while let Some(inbound) = self.session.heard() {
            self.inbound(inbound);
        }
    }

    fn inbound(&mut self, inbound: Inbound) {
        let now = self.now();
        let mut out = Actions::new();
        match inbound {
            Inbound::Invited { from, executions } => {
                info!(orchestrator = %from, processes = self.offered.len(), held = self.engine.held().len(), claimed = executions.len(), "invited by an orchestrator");
                self.engine.invite(from, &executions, now, &mut out);
            }
            Inbound::PeerLeft(peer) => self.engine.peer_left(&peer),
            Inbound::Offline => self.engine.offline(),
            Inbound::Request { from, request, token } => {
                let (execution, process) = (request.execution.clone(), request.process.clone());
                match self.engine.request(from.clone(), *request, now, &mut out) {
                    Ok(Answer::Later) => self.session.keep(execution, token),
                    Ok(Answer::Known) => {
                        debug!(execution.id = %execution, orchestrator = %from, "asked again for a known execution");
                        self.session.confirm(token);
                    }
                    Err(refusal) => {
                        info!(execution.id = %execution, process.id = %process, orchestrator = %from, "refused: {}", refusal.text);
                        self.session.refuse(token, &refusal);
                    }
                }
            }
            Inbound::Abort { execution, token } => match self.engine.abort(&execution, now, &mut out) {
                Ok(()) => {
                    info!(execution.id = %execution, "abort asked for");
                    self.session.confirm(token);
                }
                Err(error) => {
                    debug!(execution.id = %execution, "abort ignored: {error}");
                    self.session.unknown(token);
                }
            },
            Inbound::Finish { execution, token } => match self.engine.finish(&execution, &mut out) {
                Ok(()) => self.session.confirm(token),
                Err(error) => {
                    debug!(execution.id = %execution, "finish ignored: {error}");
                    self.session.unknown(token);
                }
            },
            Inbound::Disowned { by, execution, token } => {
                self.engine.disowned(&by, &execution, &mut out);
                self.session.confirm(token);
            }
            Inbound::Elsewhere { by, execution, token } => {
                self.engine.elsewhere(&by, &execution, now, &mut out);
                self.session.confirm(token);
            }
            Inbound::GetLoad { token } => self.session.tell_load(token, self.engine.load()),
        }
        self.perform(out);
    }

    fn happened(&mut self, id: ExecutionId, event: execution::Event) {
        let event = match event {
            execution::Event::Started => Event::Started,
            execution::Event::Progress(percent) => Event::Progress(percent),
            execution::Event::Log(level, text) => Event::Log(level, text),
            execution::Event::Read(counts) => {
                debug!(execution.id = %id, "output read: {counts}");
                if let Some((_, read)) = self.read.get_mut(&id) {
                    *read = counts;
                }
                return;
            }
            execution::Event::Ended(ending) => {
                self.live.remove(&id);
                self.compare(&id, matches!(ending, Ending::Completed(_)));
                self.make_durable_later(id.clone());
                let process = self.engine.process_of(&id).map(ToString::to_string).unwrap_or_default();
                match &ending {
                    Ending::Completed(outputs) => {
                        info!(execution.id = %id, process.id = %process, outputs = outputs.len(), "completed");
                    }
                    Ending::Failed(error) => {
                        let first = error.text.lines().next().unwrap_or_default();
                        info!(execution.id = %id, process.id = %process, kind = ?error.kind, "failed: {first}");
                    }
                }
                Event::Ended(ending)
            }
        };
        let now = self.now();
        let mut out = Actions::new();
        self.engine.happened(&id, event, now, &mut out);
        self.perform(out);
    }

    fn delivered(&mut self, answer: &Delivered) {
        let now = self.now();
        let mut out = Actions::new();
        match answer.verdict {
            // A second answer to a repeated ending finds nothing to do.
            Verdict::Stored => drop(self.engine.finish(&answer.execution, &mut out)),
            Verdict::Unknown => self.engine.disowned(&answer.by, &answer.execution, &mut out),
            Verdict::Elsewhere => self.engine.elsewhere(&answer.by, &answer.execution, now, &mut out),
        }
        self.perform(out);
    }

    /// Compares what a job that ended well has printed with what the service's jobs usually print. What is odd goes to our log
    /// and, ahead of the ending, to that of the job.
    fn compare(&mut self, id: &ExecutionId, well: bool) {
        let Some((accepted_ms, counts)) = self.read.remove(id) else { return };
        let Some(descriptor) = self.engine.process_of(id).and_then(|process| self.offered.get(process))
        else {
            return;
        };
        if !well {
            return;
        }
        let took = Duration::from_millis(u64::try_from(wall_clock_ms() - accepted_ms).unwrap_or(0));
        let tells = descriptor.rules.tells_progress();
        let Some(odd) = self.habits.note(&descriptor.id, tells, &counts, took) else { return };
        warn!(execution.id = %id, process.id = %descriptor.id, file = %descriptor.source.display(), "{odd}");
        let now = self.now();
        let mut out = Actions::new();
        self.engine.happened(id, Event::Log(LogLevel::Warning, odd), now, &mut out);
        self.perform(out);
    }

    fn offer(&mut self, offers: &mut watch::Receiver<Vec<Arc<ServiceDescriptor>>>) {
        let descriptors = offers.borrow_and_update().clone();
        let weighed = descriptors.iter().filter(|descriptor| descriptor.weight_command.is_some());
        let weighed: BTreeSet<ProcessId> = weighed.map(|descriptor| descriptor.id.clone()).collect();
        self.engine.weigh_first(weighed);
        let mut out = Actions::new();
        self.engine.offer(descriptors.iter().map(|descriptor| descriptor.description()).collect(), &mut out);
        self.session.offer(&descriptors);
        self.offered =
            descriptors.into_iter().map(|descriptor| (descriptor.id.clone(), descriptor)).collect();
        self.perform(out);
    }

    fn perform(&mut self, actions: Actions) {
        for action in actions {
            match action {
                Action::Send(peer, message) => self.session.send(&peer, message),
                Action::Taken(execution) => self.session.taken(&execution),
                Action::Weigh(request) => self.weigh(*request),
                Action::Refuse(execution, refusal) => {
                    info!(execution.id = %execution, "refused: {}", refusal.text);
                    self.session.refuse_all(&execution, &refusal);
                }
                Action::Start(from, request) => self.start(&from, *request),
                Action::Abort(execution) => {
                    if let Some(live) = self.live.get(&execution) {
                        live.abort.cancel();
                    }
                }
                Action::Release(execution) => self.release(execution),
                Action::GiveUp(execution) => {
                    warn!(execution.id = %execution, "no GeoServer has come for its ending; it is given up");
                    self.session.forget(&execution);
                    self.release(execution);
                }
                Action::Announce => self.announce = true,
            }
        }
    }

    fn start(&mut self, from: &Peer, request: Request) {
        let Some(descriptor) = self.offered.get(&request.process).cloned() else { return };
        let execution = request.execution.clone();
        info!(execution.id = %execution, process.id = %request.process, orchestrator = %from, "taken");
        self.read.insert(execution.clone(), (wall_clock_ms(), Counts::default()));
        let manner = self.manner.clone();
        let originator = from.0.clone();
        let control_folder = self.host.control.folder(&execution).path().to_owned();
        let weight = self.engine.weight_of(&execution).unwrap_or(descriptor.weight);
        let accepted_ms = wall_clock_ms();
        let begin = Begin::New(Box::new(move || {
            let mut prepared =
                prepare::prepare(&descriptor, &request, &originator, accepted_ms, &manner, &control_folder)?;
            // A later agent must count it as this one does.
            prepared.record.weight = weight;
            Ok(prepared)
        }));
        self.spawn(execution, accepted_ms, begin);
    }

    fn weigh(&mut self, request: Request) {
        let (weigher, manner, weights) = (self.weigher.clone(), self.manner.clone(), self.weights.clone());
        let descriptor = self.offered.get(&request.process).cloned();
        self.executions.spawn(async move {
            let weight = match &descriptor {
                Some(descriptor) => {
                    let weighed = weigher.weigh(descriptor, &request, &manner).await;
                    weighed.unwrap_or(Ok(descriptor.weight))
                }
                None => Err(format!("process `{}` is not offered any more", request.process)),
            };
            // The driver has ended: then nobody waits.
            let _ = weights.send((request.execution, weight));
        });
    }

    fn spawn(&mut self, id: ExecutionId, accepted_ms: i64, begin: Begin) {
        let abort = CancellationToken::new();
        self.live.insert(id.clone(), Live { abort: abort.clone(), accepted_ms });
        self.executions.spawn(execution::run(self.host.clone(), id, begin, abort, self.events.clone()));
    }

    /// An ending that nobody takes for a while must survive a crash of the host. Syncing each at once would cost more than
    /// many a job.
    fn make_durable_later(&mut self, execution: ExecutionId) {
        let folder = self.host.control.folder(&execution);
        self.executions.spawn(async move {
            sleep(UNTAKEN).await;
            if let Ok(Err(error)) = spawn_blocking(move || folder.make_durable()).await {
                warn!(execution.id = %execution, "its ending may not survive a crash of the host: {error}");
            }
        });
    }

    fn release(&mut self, execution: ExecutionId) {
        let folder = self.host.control.folder(&execution);
        self.executions.spawn(async move {
            let marked = spawn_blocking(move || folder.mark_finished()).await;
            if let Ok(Err(error)) = marked {
                warn!(execution.id = %execution, "its folder stays: {error}");
            }
        });
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

#[expect(clippy::disallowed_methods, reason = "the driver is where the wall clock enters")]
fn wall_clock_ms() -> i64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
