//! Many stand-ins for agents in one program: native dialect, no programs, jobs that end at once. For what a large fleet means
//! to an orchestrator and to an XMPP server; what an agent is, the real one shows.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::sync::{Semaphore, mpsc};
use wps_remote_protocol::native::{self, Announcement, Peer};
use wps_remote_protocol::{ExecutionId, FromAgent, Load, Output, ProcessDescription, ToAgent, Value};
use wps_remote_xmpp::muc::{self, Muc, MucConfig, MucEvent, RequestToken, RoomConfig};
use wps_remote_xmpp::session::SessionConfig;
use wps_remote_xmpp::{BareJid, Element, Jid, StanzaError, parse_payload, payload};

use crate::bus::Login;

/// Longest wait for an answer of the orchestrator.
const ANSWER: Duration = Duration::from_secs(120);
/// Logins at a time: each costs the server the hashing of a password.
const LOGINS: usize = 16;

/// A running fleet; dropped, all die without a good-bye.
pub struct Fleet {
    runtime: Option<Runtime>,
    figures: Arc<Figures>,
}

/// What happened so far.
#[derive(Debug, Default)]
pub struct Figures {
    /// Agents in the room.
    pub joined: AtomicUsize,
    /// Processes that the orchestrator has taken.
    pub registered: AtomicUsize,
    /// Jobs of each agent.
    pub jobs: Vec<AtomicU64>,
    /// The most that one agent had at a time beyond its places.
    pub over: AtomicUsize,
}

/// How each agent is.
#[derive(Debug, Clone, Copy)]
pub struct Spec {
    /// How many agents.
    pub agents: usize,
    /// Processes of each: `fleet:P0` and so on, the same for all.
    pub processes: usize,
    /// Jobs at a time.
    pub places: u32,
    /// How long a job takes.
    pub job: Duration,
}

impl Fleet {
    /// Logs all in; they join as soon as the room is there. Accounts are those of the logins.
    ///
    /// # Panics
    /// If no runtime can be made.
    pub fn start(logins: Vec<Login>, spec: Spec) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a runtime can be made");
        let jobs = logins.iter().map(|_| AtomicU64::new(0)).collect();
        let figures = Arc::new(Figures { jobs, ..Figures::default() });
        let gate = Arc::new(Semaphore::new(LOGINS));
        for (n, login) in logins.into_iter().enumerate() {
            runtime.spawn(agent(n, login, spec, figures.clone(), gate.clone()));
        }
        Self { runtime: Some(runtime), figures }
    }

    /// What happened so far.
    pub fn figures(&self) -> &Figures {
        &self.figures
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn description(n: usize) -> ProcessDescription {
    serde_json::from_value(serde_json::json!({
        "id": format!("fleet:P{n}"), "title": format!("Process {n}"), "weight": 1.0,
        "outputs": [{"id": "result", "data": {"literal": {"kind": "string"}}}]
    }))
    .expect("a description")
}

fn load(spec: Spec, running: u32) -> Load {
    Load {
        cpu_percent: 100.0 * f64::from(running) / f64::from(spec.places),
        memory_percent: 10.0,
        cores: spec.places,
        capacity: f64::from(spec.places),
        used: f64::from(running),
        running,
        max_running: Some(spec.places),
        accepting: running < spec.places,
        warning: None,
        refusing: None,
        labels: Vec::new(),
    }
}

fn element(message: &FromAgent) -> Element {
    let written = native::encode_from_agent(message).expect("our own messages can be written");
    payload(written.name, &written.json)
}

struct Agent {
    n: usize,
    spec: Spec,
    muc: Muc,
    room: BareJid,
    figures: Arc<Figures>,
    running: Vec<ExecutionId>,
    ended: mpsc::UnboundedSender<(String, ExecutionId)>,
}

async fn agent(n: usize, login: Login, spec: Spec, figures: Arc<Figures>, gate: Arc<Semaphore>) {
    let place = gate.acquire().await.expect("the gate is never closed");
    let jid: Jid = format!("{}@{}/agent", login.user, login.domain).parse().expect("a possible name");
    let room: BareJid = format!("management@{}", login.muc_domain).parse().expect("a possible room");
    let announcement = Announcement {
        versions: native::VERSIONS.to_vec(),
        software: "stand-in".to_owned(),
        instance: format!("{n}"),
        load: Some(load(spec, 0)),
    };
    let written = native::encode_peer(&Peer::Agent(announcement)).expect("it can be written");
    let (muc, mut events) = muc::start(MucConfig {
        session: SessionConfig::new(jid, login.password.clone(), login.connector.clone()),
        rooms: vec![RoomConfig {
            room: room.clone(),
            nick: login.user.clone(),
            password: Some(login.room_password.clone()),
            create: false,
        }],
        presence: vec![payload(written.name, &written.json)],
    });
    let (ended, mut endings) = mpsc::unbounded_channel();
    let mut agent = Agent { n, spec, muc, room, figures, running: Vec::new(), ended };
    let mut place = Some(place);
    loop {
        tokio::select! {
            event = events.recv() => match event {
                None => return,
                Some(MucEvent::Joined { .. }) => {
                    place = None;
                    agent.figures.joined.fetch_add(1, Relaxed);
                }
                Some(MucEvent::Request { nick, payload, token, .. }) => agent.asked(nick, &payload, token),
                Some(_) => {}
            },
            Some((peer, execution)) = endings.recv() => {
                agent.running.retain(|other| *other != execution);
                let outputs = vec![Output::new("result", Value::literal("done"))];
                agent.tell(peer, vec![FromAgent::Completed { execution, outputs }], None);
            }
        }
        // Whoever is in makes room at the gate; one that waits for the room holds its place.
        let _ = &place;
    }
}

impl Agent {
    /// Says these one after the other, as a real agent does.
    fn tell(&self, peer: String, messages: Vec<FromAgent>, count: Option<Arc<Figures>>) {
        let (muc, room) = (self.muc.clone(), self.room.clone());
        tokio::spawn(async move {
            for message in messages {
                // An ending is told until it is stored; the rest is told again when we are asked again.
                while muc.request(&room, &peer, element(&message), ANSWER).await.is_err() {
                    if !matches!(message, FromAgent::Completed { .. }) {
                        return;
                    }
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
                if let (FromAgent::Register(_), Some(figures)) = (&message, &count) {
                    figures.registered.fetch_add(1, Relaxed);
                }
            }
        });
    }

    fn asked(&mut self, peer: String, element: &Element, token: RequestToken) {
        let asked =
            parse_payload(element).and_then(|(name, json)| native::decode_to_agent(&name, &json).ok());
        let running = u32::try_from(self.running.len()).unwrap_or(u32::MAX);
        let answer = match asked {
            Some(ToAgent::Invite { executions }) => {
                let (held, unknown) =
                    executions.into_iter().partition(|execution| self.running.contains(execution));
                let mut messages: Vec<FromAgent> =
                    (0..self.spec.processes).map(|n| FromAgent::Register(Box::new(description(n)))).collect();
                messages.push(FromAgent::Executions { held, unknown });
                self.tell(peer, messages, Some(self.figures.clone()));
                Ok(None)
            }
            Some(ToAgent::GetLoad) => Ok(Some(self::element(&FromAgent::Load(load(self.spec, running))))),
            Some(ToAgent::Request(request)) => {
                if running >= self.spec.places {
                    let over = usize::try_from(running + 1 - self.spec.places).unwrap_or(usize::MAX);
                    self.figures.over.fetch_max(over, Relaxed);
                    let condition =
                        native::refusal_condition(wps_remote_protocol::message::RefusalReason::Capacity);
                    Err(StanzaError::new(condition, "all places are taken".to_owned()))
                } else {
                    self.running.push(request.execution.clone());
                    if let Some(jobs) = self.figures.jobs.get(self.n) {
                        jobs.fetch_add(1, Relaxed);
                    }
                    let (ended, job) = (self.ended.clone(), self.spec.job);
                    tokio::spawn(async move {
                        tokio::time::sleep(job).await;
                        // Without a receiver the fleet is ending.
                        let _ = ended.send((peer, request.execution));
                    });
                    Ok(None)
                }
            }
            Some(_) => Ok(None),
            None => Err(StanzaError::new("bad-request", "not understood".to_owned())),
        };
        self.muc.respond(token, answer);
    }
}
