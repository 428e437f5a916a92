//! A served HTTP side whose driver is played by the test, and a client that shows every byte.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use wps_remote_protocol::{Content, Output, ProcessDescription, SharedFile, Value};

use crate::access::{Access, AccessConfig};
use crate::driver::Overview;
use crate::encoding::fixtures::{self, contour, everything};
use crate::engine::job::{Job, JobId, JobState, Timestamp};
use crate::http::{AppState, HttpConfig, serve};
use crate::jobs::{Catalogue, Command, Jobs, Live, Refusal};
use crate::results::Results;
use crate::store::{Durability, Store};
use crate::telemetry::Telemetry;

/// What becomes of a job as soon as it is accepted.
pub type Plan = dyn Fn(&Job) -> Option<JobState> + Send + Sync;

pub struct World {
    pub address: SocketAddr,
    pub store: Store,
    pub results: Results,
    pub live: Live,
    pub overview: watch::Sender<Arc<Overview>>,
    pub catalogue: watch::Sender<Arc<Catalogue>>,
    pub shutdown: CancellationToken,
    pub served: JoinHandle<()>,
    pub accepted: Arc<Mutex<Vec<JobId>>>,
    pub dismissed: Arc<Mutex<Vec<JobId>>>,
    states: Arc<Mutex<HashMap<JobId, watch::Sender<Arc<Job>>>>>,
    _folder: tempfile::TempDir,
}

pub async fn world(
    config: HttpConfig,
    plan: impl Fn(&Job) -> Option<JobState> + Send + Sync + 'static,
) -> World {
    world_with(config, AccessConfig::default(), plan).await
}

pub async fn world_with(
    config: HttpConfig,
    access: AccessConfig,
    plan: impl Fn(&Job) -> Option<JobState> + Send + Sync + 'static,
) -> World {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::sqlite(&folder.path().join("jobs.sqlite"), Durability::Normal).await.unwrap();
    store.enter("n").await.unwrap();
    let results = Results::open(Some(folder.path().join("shared")), folder.path().join("results")).unwrap();
    let (commands, inbox) = mpsc::channel(64);
    let live = Live::default();
    let (catalogue, watched) = watch::channel(Arc::new(catalogue([everything(), contour()], 3)));
    let (overview, seen) =
        watch::channel(Arc::new(Overview { connected: true, store_works: true, ..Overview::default() }));
    let jobs = Jobs {
        commands,
        live: live.clone(),
        store_works: Arc::new(true.into()),
        catalogue: watched,
        store: store.clone(),
        results: results.clone(),
        references: crate::references::References::new(crate::references::Policy::default()),
        limits: Arc::default(),
    };
    let access = Access::new(access, [7; 32], None).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let state = AppState::new(jobs, Arc::new(config), Arc::new(access), Arc::new(Telemetry::default()), seen);
    let shutdown = CancellationToken::new();
    let served = tokio::spawn(serve(listener, state, None, shutdown.clone()));
    let world = World {
        address,
        store,
        results,
        live,
        overview,
        catalogue,
        shutdown,
        served,
        accepted: Arc::default(),
        dismissed: Arc::default(),
        states: Arc::default(),
        _folder: folder,
    };
    tokio::spawn(world.driver(inbox, Arc::new(plan)));
    world
}

pub fn catalogue<const N: usize>(processes: [ProcessDescription; N], version: u64) -> Catalogue {
    let processes = processes.into_iter().map(|p| (p.id.to_string(), Arc::new(p))).collect();
    Catalogue { processes, version }
}

impl World {
    fn driver(
        &self,
        mut inbox: mpsc::Receiver<Command>,
        plan: Arc<Plan>,
    ) -> impl Future<Output = ()> + use<> {
        let (store, live, states) = (self.store.clone(), self.live.clone(), self.states.clone());
        let (accepted, dismissed) = (self.accepted.clone(), self.dismissed.clone());
        async move {
            while let Some(command) = inbox.recv().await {
                match command {
                    // An input of this name stands for "the queue is full".
                    Command::Execute { new, reply, .. } if new.inputs.iter().any(|i| i.id == "name") => {
                        let _ = reply.send(Err(Refusal::TooBusy { queued: 7 }));
                    }
                    Command::Explain { reply, .. } => drop(reply.send(None)),
                    Command::Waiting { reply, .. } => drop(reply.send(HashMap::new())),
                    Command::Drain { agent, drain, reply } => {
                        let result = store.drain(&agent, drain.as_deref()).await;
                        let _ = reply.send(result);
                    }
                    Command::Execute { id, new, description, reply, .. } => {
                        let mut job = fixtures::job((*description).clone(), fixtures::waiting());
                        (job.id, job.inputs, job.form, job.owner) = (id, new.inputs, new.form, new.owner);
                        store.save(std::slice::from_ref(&job)).await.unwrap();
                        let (sender, receiver) = watch::channel(Arc::new(job.clone()));
                        live.write().unwrap().insert(id, receiver.clone());
                        states.lock().unwrap().insert(id, sender.clone());
                        accepted.lock().unwrap().push(id);
                        let _ = reply.send(Ok(receiver));
                        if let Some(state) = plan(&job) {
                            job.state = state;
                            job.version += 1;
                            store.save(std::slice::from_ref(&job)).await.unwrap();
                            sender.send_replace(Arc::new(job));
                        }
                    }
                    Command::Dismiss { id, reply } => {
                        dismissed.lock().unwrap().push(id);
                        let sender = states.lock().unwrap().get(&id).cloned();
                        let job = sender.map(|sender| {
                            let mut job = (**sender.borrow()).clone();
                            if !job.state.is_final() {
                                job.state = JobState::Dismissed {
                                    finished: Timestamp(1_763_784_005_000),
                                    receipt: None,
                                };
                            }
                            sender.send_replace(Arc::new(job.clone()));
                            Arc::new(job)
                        });
                        let _ = reply.send(job);
                    }
                }
            }
        }
    }

    /// Puts a job into another state.
    pub async fn set(&self, id: JobId, state: JobState) {
        let sender = self.states.lock().unwrap().get(&id).cloned().unwrap();
        let mut job = (**sender.borrow()).clone();
        job.state = state;
        job.version += 1;
        self.store.save(std::slice::from_ref(&job)).await.unwrap();
        sender.send_replace(Arc::new(job));
    }

    /// Forgets what is in memory, as a restart does.
    pub fn restart(&self) {
        self.live.write().unwrap().clear();
        self.catalogue.send_replace(Arc::default());
    }

    /// Writes a result file of a job and answers the output that names it.
    pub fn keep(&self, job: JobId, output: &str, name: &str, bytes: &[u8], media_type: &str) -> Output {
        let path = format!("{job}/{output}/{name}");
        let file = self.results.store().join(&path);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, bytes).unwrap();
        let file = SharedFile { path, bytes: bytes.len() as u64, sha256: None };
        Output::new(
            output,
            Value::Complex { content: Content::Shared(file), media_type: media_type.into(), schema: None },
        )
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], b"").await
    }

    pub async fn post(&self, path: &str, body: &str) -> Answer {
        self.send("POST", path, &[("Content-Type", "text/xml; charset=utf-8")], body.as_bytes()).await
    }

    pub async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n", self.address);
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if !body.is_empty() || method == "POST" {
            head.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        head.push_str("\r\n");
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        let (mut reader, mut writer) = stream.split();
        // The server may answer before it has read everything; a write that fails then is no failure of the test.
        let (_, answer) = tokio::join!(writer.write_all(body), read(&mut reader));
        answer
    }

    /// Waits until a condition holds.
    pub async fn until(&self, what: &str, condition: impl Fn(&Self) -> bool) {
        let end = std::time::Instant::now() + Duration::from_secs(10);
        while !condition(self) {
            assert!(std::time::Instant::now() < end, "{what} did not happen");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// The id of the newest job.
    pub fn newest(&self) -> JobId {
        *self.accepted.lock().unwrap().last().unwrap()
    }
}

/// Reads an answer until the connection closes.
pub async fn read(stream: &mut (impl AsyncReadExt + Unpin)) -> Answer {
    let mut bytes = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(30), stream.read_to_end(&mut bytes)).await.unwrap();
    let end = bytes.windows(4).position(|w| w == b"\r\n\r\n").expect("a head");
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let headers = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    Answer { status, headers, body: bytes[end + 4..].to_vec() }
}

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    headers: HashMap<String, String>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    /// A valid XML document of this status; its text.
    pub fn xml(&self, status: u16) -> &str {
        assert_eq!(self.status, status, "{}", self.text());
        assert_eq!(self.header("content-type"), "text/xml", "the bare type, nothing else");
        fixtures::valid(self.text());
        self.text()
    }

    /// An exception report with this code and locator.
    pub fn exception(&self, status: u16, code: &str, locator: &str) -> &str {
        let text = self.xml(status);
        let expected = if locator.is_empty() {
            format!("<ows:Exception exceptionCode=\"{code}\">")
        } else {
            format!("<ows:Exception exceptionCode=\"{code}\" locator=\"{locator}\">")
        };
        assert!(text.contains("<ows:ExceptionReport ") && text.contains(&expected), "{expected}\n{text}");
        text
    }

    /// The value of an attribute of the document, unescaped.
    pub fn attribute(&self, name: &str) -> String {
        let text = self.text();
        let begin =
            text.find(&format!(" {name}=\"")).unwrap_or_else(|| panic!("{name}\n{text}")) + name.len() + 3;
        let value = &text[begin..];
        value[..value.find('"').unwrap()].replace("&amp;", "&")
    }

    /// The path and query of a link in the document.
    pub fn link(&self, name: &str, world: &World) -> String {
        let base = format!("http://{}", world.address);
        let link = self.attribute(name);
        link.strip_prefix(&base).unwrap_or_else(|| panic!("{link} is not below {base}")).to_owned()
    }
}
