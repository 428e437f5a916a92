//! A stand-in for GeoServer's WPS Remote plugin, from what is known of it: it joins the rooms of the namespaces as an occupant
//! with two parts, invites every master that it sees, asks for loads, gives work to the least loaded agent that answers,
//! matches what jobs say by their ids alone, answers every `completed` with `finish`, and forgets everything when it ends.
//! Notes as a fault whatever the plugin would drop or fail at. Times are a hundredth of the real ones.

pub mod reading;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use serde_json::Value;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use wps_remote_xmpp::muc::{self, Muc, MucEvent, RoomConfig};
use wps_remote_xmpp::session::SessionConfig;
use wps_remote_xmpp::{BareJid, Jid};

use self::reading::{Registered, Said, Whose, content, read, whose};
use crate::bus::Login;
use crate::wait_until;

/// Pause between two looks at loads and the queue; thirty seconds in reality.
const TICK: Duration = Duration::from_millis(300);
/// The address that requests name.
const BASE_URL: &str = "http://127.0.0.1:8080/geoserver/";
/// How long a test waits for anything.
const LONG: Duration = Duration::from_secs(60);

/// How a job is.
#[derive(Debug, Clone, PartialEq)]
pub enum State {
    /// No agent is there for it, or the one that was asked had no room.
    Queued,
    /// Sent.
    Executing,
    /// With the contents of its outputs.
    Completed(BTreeMap<String, Vec<u8>>),
    /// And why.
    Failed(String),
}

/// A job as the stand-in knows it.
#[derive(Debug, Clone)]
pub struct Job {
    /// `namespace:service`.
    pub process: String,
    /// How it is.
    pub state: State,
    /// Last progress.
    pub progress: Option<f64>,
    /// Level and text of each line.
    pub log: Vec<(String, String)>,
    /// How often `completed` came.
    pub completed: usize,
    /// How often it was refused.
    pub refused: usize,
    /// Occupant that spoke for it last.
    pub occupant: String,
    /// Occupant of the agent that has it.
    node: String,
    inputs: Vec<(String, String)>,
}

#[derive(Debug, Default)]
struct Known {
    /// Masters by address, with their loads once they have answered.
    nodes: BTreeMap<String, Option<(f64, f64)>>,
    /// Occupants of jobs.
    occupants: Vec<String>,
    processes: HashMap<String, Registered>,
    jobs: HashMap<String, Job>,
    faults: Vec<String>,
    registrations: usize,
    sequence: u64,
    /// Rooms that it is in.
    joined: BTreeSet<String>,
}

/// A running stand-in; dropped, it dies and has forgotten everything.
pub struct GeoServer {
    known: Arc<Mutex<Known>>,
    muc: Muc,
    runtime: Option<Runtime>,
}

fn locked(known: &Mutex<Known>) -> MutexGuard<'_, Known> {
    known.lock().expect("no holder of the lock panics")
}

impl GeoServer {
    /// Starts it in the rooms of these namespaces and waits until it is in them: rooms belong to whoever comes first.
    /// `answers`: whether a `completed` is answered with `finish`.
    ///
    /// # Panics
    /// If that takes too long.
    pub fn start(login: &Login, namespaces: &[&str], answers: bool) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime can be made");
        let known: Arc<Mutex<Known>> = Arc::default();
        let account = format!("{}@{}", login.user, login.domain);
        // A number for each start, as the plugin has it.
        let jid = format!("{account}/{:x}@geohost", crate::nanoseconds() & 0xff_ffff_ffff);
        let jid: Jid = jid.parse().expect("the stand-in has a possible name");
        let room = |namespace: &&str| RoomConfig {
            room: format!("{namespace}@{}", login.muc_domain).parse().expect("rooms have possible names"),
            nick: account.clone(),
            password: Some(login.room_password.clone()),
            create: true,
        };
        let (muc, events) = {
            let _inside = runtime.enter();
            muc::start(muc::MucConfig {
                session: SessionConfig::new(jid, login.password.clone(), login.connector.clone()),
                // It is in the room of orchestrators too, and says nothing there.
                rooms: [&"management"].into_iter().chain(namespaces).map(room).collect(),
                presence: Vec::new(),
            })
        };
        runtime.spawn(work(known.clone(), muc.clone(), events, answers));
        let inside = wait_until(LONG, || (locked(&known).joined.len() > namespaces.len()).then_some(()));
        assert!(inside.is_some(), "it is only in these rooms: {:?}", locked(&known).joined);
        Self { known, muc, runtime: Some(runtime) }
    }

    /// Waits until a process is registered and an agent for it has told its load.
    ///
    /// # Panics
    /// If that takes too long.
    pub fn wait_for(&self, process: &str) -> Registered {
        let found = wait_until(LONG, || {
            let known = locked(&self.known);
            let there = known.node_for(process).is_some();
            known.processes.get(process).filter(|_| there).cloned()
        });
        found.unwrap_or_else(|| panic!("{process} is not registered: {:?}", locked(&self.known)))
    }

    /// Waits until a process is registered no longer.
    ///
    /// # Panics
    /// If that takes too long.
    pub fn wait_without(&self, process: &str) {
        let gone = wait_until(LONG, || (!locked(&self.known).processes.contains_key(process)).then_some(()));
        assert!(gone.is_some(), "{process} is still registered");
    }

    /// Executes a process; gives the execution's id.
    pub fn execute(&self, process: &str, inputs: &[(&str, &str)]) -> String {
        let mut known = locked(&self.known);
        known.sequence += 1;
        let id = format!("{:015x}", crate::nanoseconds() as u64 & 0xfff_ffff_ffff_ffff ^ known.sequence);
        let inputs = inputs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let job = Job {
            process: process.to_owned(),
            state: State::Queued,
            progress: None,
            log: Vec::new(),
            completed: 0,
            refused: 0,
            occupant: String::new(),
            node: String::new(),
            inputs,
        };
        known.jobs.insert(id.clone(), job);
        known.dispatch(&self.muc, &id);
        id
    }

    /// A job.
    pub fn job(&self, id: &str) -> Job {
        locked(&self.known).jobs[id].clone()
    }

    /// Waits for something about a job.
    ///
    /// # Panics
    /// If that takes too long.
    pub fn wait_job(&self, id: &str, what: &str, good: impl Fn(&Job) -> bool) -> Job {
        let found = wait_until(LONG, || Some(self.job(id)).filter(&good));
        found.unwrap_or_else(|| panic!("{what}: {:?}\nfaults: {:?}", self.job(id), self.faults()))
    }

    /// Waits for the end of a job.
    ///
    /// # Panics
    /// If that takes too long.
    pub fn wait(&self, id: &str) -> State {
        let ended = |job: &Job| matches!(job.state, State::Completed(_) | State::Failed(_));
        self.wait_job(id, "it does not end", ended).state
    }

    /// Says `topic=abort` to the occupant of a job: the plugin does so when it fails itself.
    pub fn abort(&self, id: &str) {
        let occupant = locked(&self.known).occupant_of(id).unwrap_or_else(|| panic!("{id} has no occupant"));
        send(&self.muc, &occupant, "topic=abort");
    }

    /// Invites every master once more.
    pub fn invite_again(&self) {
        for node in locked(&self.known).nodes.keys() {
            send(&self.muc, node, "topic=invite");
        }
    }

    /// How many registrations came.
    pub fn registrations(&self) -> usize {
        locked(&self.known).registrations
    }

    /// Whether a job's occupant is in the room.
    pub fn sees(&self, id: &str) -> bool {
        locked(&self.known).occupant_of(id).is_some()
    }

    /// Masters that are there.
    pub fn nodes(&self) -> Vec<String> {
        locked(&self.known).nodes.keys().cloned().collect()
    }

    /// Everything that the plugin would have dropped or failed at.
    pub fn faults(&self) -> Vec<String> {
        locked(&self.known).faults.clone()
    }
}

impl Drop for GeoServer {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn work(known: Arc<Mutex<Known>>, muc: Muc, mut events: mpsc::Receiver<MucEvent>, answers: bool) {
    let mut tick = tokio::time::interval(TICK);
    loop {
        tokio::select! {
            event = events.recv() => match event {
                Some(event) => locked(&known).event(&muc, event, answers),
                None => return,
            },
            _ = tick.tick() => {
                let mut known = locked(&known);
                for node in known.nodes.keys() {
                    send(&muc, node, "topic=getloadavg");
                }
                let queued = known.jobs.iter().filter(|(_, job)| job.state == State::Queued);
                for id in queued.map(|(id, _)| id.clone()).collect::<Vec<_>>() {
                    known.dispatch(&muc, &id);
                }
            }
        }
    }
}

/// To an occupant, by its whole address.
fn send(muc: &Muc, occupant: &str, body: &str) {
    let Some((room, nick)) = occupant.split_once('/') else { return };
    let room: BareJid = room.parse().expect("an occupant's room is an address");
    // A lost message is lost.
    let _ = muc.send_body(&room, nick, body);
}

impl Known {
    fn occupant_of(&self, id: &str) -> Option<String> {
        let is_it =
            |address: &&String| matches!(whose(address), Whose::Job { execution, .. } if execution == id);
        self.occupants.iter().find(is_it).cloned()
    }

    fn node_for(&self, process: &str) -> Option<String> {
        let of_it =
            |address: &str| matches!(whose(address), Whose::Master { process: its } if its == process);
        let able = self.nodes.iter().filter(|(address, _)| of_it(address));
        let loads = able.filter_map(|(address, load)| {
            load.filter(|(cpu, memory)| *cpu < 99.9 && *memory < 99.9).map(|load| (address, load))
        });
        // Whoever has the fewest jobs, then the least load: a test wants to see both of two agents work.
        let busy = |address: &str| {
            self.jobs.values().filter(|job| job.node == address && job.state == State::Executing).count()
        };
        let least = loads.min_by(|a, b| busy(a.0).cmp(&busy(b.0)).then(a.1.0.total_cmp(&b.1.0)));
        least.map(|(address, _)| address.clone())
    }

    fn dispatch(&mut self, muc: &Muc, id: &str) {
        let process = self.jobs[id].process.clone();
        let Some(node) = self.node_for(&process) else { return };
        let Some(job) = self.jobs.get_mut(id) else { return };
        job.node.clone_from(&node);
        job.state = State::Executing;
        let message = quote(&pickle(&job.inputs));
        send(muc, &node, &format!("topic=request&id={id}&baseURL={BASE_URL}&message={message}"));
    }

    fn event(&mut self, muc: &Muc, event: MucEvent, answers: bool) {
        match event {
            MucEvent::Occupant(occupant) => {
                let address = format!("{}/{}", occupant.room, occupant.nick);
                if address.starts_with("management@") {
                    return;
                }
                match whose(&address) {
                    Whose::Master { .. } => {
                        self.nodes.entry(address.clone()).or_default();
                        send(muc, &address, "topic=invite");
                        send(muc, &address, "topic=getloadavg");
                    }
                    Whose::Job { .. } if !self.occupants.contains(&address) => self.occupants.push(address),
                    Whose::Job { .. } | Whose::Stranger => {}
                }
            }
            MucEvent::Gone { room, nick, .. } => self.gone(&format!("{room}/{nick}")),
            MucEvent::Joined { room, .. } => {
                self.joined.insert(room.to_string());
            }
            MucEvent::Left { .. } | MucEvent::Offline { .. } => {
                self.joined.clear();
                self.nodes.clear();
                self.occupants.clear();
            }
            MucEvent::Message { room, nick, body: Some(body), private: true, .. } => {
                let from = format!("{room}/{nick}");
                match read(&body) {
                    Ok(said) => self.said(muc, &from, said, answers),
                    Err(why) => self.faults.push(format!("{from}: {why}")),
                }
            }
            _ => {}
        }
    }

    fn gone(&mut self, address: &str) {
        self.occupants.retain(|other| other != address);
        if self.nodes.remove(address).is_none() {
            return;
        }
        if let Whose::Master { process } = whose(address) {
            let another =
                self.nodes.keys().any(|node| whose(node) == Whose::Master { process: process.clone() });
            if !another {
                self.processes.remove(&process);
            }
        }
    }

    fn said(&mut self, muc: &Muc, from: &str, said: Said, answers: bool) {
        let sender = whose(from);
        // The plugin looks at ids alone; but `finish` and `abort` go to whoever spoke, so that must be the job itself.
        if let Said::Log(id, ..) | Said::Progress(id, _) | Said::Completed(id, _) = &said
            && !matches!(&sender, Whose::Job { execution, .. } if execution == id)
        {
            self.faults.push(format!("{from} speaks for {id}"));
        }
        match said {
            Said::Register(registered) => match sender {
                Whose::Master { process } => {
                    self.registrations += 1;
                    // The first one stays.
                    self.processes.entry(process).or_insert(registered);
                }
                Whose::Job { .. } | Whose::Stranger => {
                    self.faults.push(format!("{from} registers a process"))
                }
            },
            Said::Unregister => {
                if let Whose::Master { process } = sender {
                    self.processes.remove(&process);
                }
            }
            Said::Load(cpu, memory) => {
                self.nodes.insert(from.to_owned(), Some((cpu, memory)));
            }
            Said::CantExec(id) => match self.jobs.get_mut(&id) {
                Some(job) if job.node == from => {
                    job.refused += 1;
                    job.state = State::Queued;
                }
                _ => self.faults.push(format!("{from} refuses {id}, which it was not asked for")),
            },
            Said::Log(id, level, text) => self.about(&id, from, |job| job.log.push((level, text))),
            Said::Progress(id, percent) => self.about(&id, from, |job| job.progress = Some(percent)),
            Said::Error(id, text) => self.about(&id, from, |job| {
                if !matches!(job.state, State::Completed(_)) {
                    job.state = State::Failed(text);
                }
            }),
            Said::Completed(id, outputs) => {
                self.completed(muc, from, &id, &outputs);
                if answers {
                    send(muc, from, "topic=finish");
                }
            }
        }
    }

    fn about(&mut self, id: &str, from: &str, change: impl FnOnce(&mut Job)) {
        if let Some(job) = self.jobs.get_mut(id) {
            from.clone_into(&mut job.occupant);
            change(job);
        }
    }

    fn completed(&mut self, muc: &Muc, from: &str, id: &str, outputs: &[(String, Value)]) {
        let contents: Result<BTreeMap<String, Vec<u8>>, String> = outputs
            .iter()
            .map(|(name, output)| content(name, output).map(|bytes| (name.clone(), bytes)))
            .collect();
        if let Err(why) = &contents {
            self.faults.push(format!("{from}: {why}"));
            send(muc, from, "topic=abort");
        }
        self.about(id, from, |job| {
            job.completed += 1;
            job.state = contents.map_or_else(State::Failed, State::Completed);
        });
    }
}

/// A dict of texts as the plugin's pickler writes it, but without memos, which are there for the reader's sake alone.
fn pickle(inputs: &[(String, String)]) -> Vec<u8> {
    let mut bytes = b"\x80\x02}(".to_vec();
    for text in inputs.iter().flat_map(|(key, value)| [key, value]) {
        bytes.push(b'X');
        bytes.extend(u32::try_from(text.len()).expect("a test's text is short").to_le_bytes());
        bytes.extend(text.as_bytes());
    }
    bytes.extend(b"u.");
    bytes
}

/// As the plugin writes pickles: letters, digits and a few signs stay.
fn quote(bytes: &[u8]) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"$-_.!".contains(&byte);
    bytes
        .iter()
        .map(|byte| if plain(*byte) { char::from(*byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}
