//! A stand-in for the Python agent of GeoServer's WPS Remote, from what was recorded of it: it finds topics by looking for
//! words, wants exactly one `=` in every part, sends its logs unescaped, joins the room of a job late and loses what it said
//! before, repeats `completed` until `finish`, and leaves without a word when it is aborted. Shares no code with the
//! product, so that an error there is not an error here.
//!
//! What a job does is in its input `mode`: see [`OldAgent::start`]. Times are a tenth of the real ones.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use wps_remote_xmpp::muc::{self, Muc, MucEvent, RoomConfig};
use wps_remote_xmpp::session::SessionConfig;
use wps_remote_xmpp::{BareJid, Jid};

use crate::bus::Login;

/// Pause between two repetitions of `completed`; ten seconds in reality.
const REPEAT: Duration = Duration::from_millis(1000);
/// How long a job needs to get into the room, a tenth of the real time.
const LATE: Duration = Duration::from_millis(450);

/// Who the agent is.
#[derive(Debug, Clone)]
pub struct OldAgentSpec {
    /// Name of its service.
    pub service: String,
    /// Namespace, which is its room.
    pub namespace: String,
    /// Name of its host.
    pub host: String,
    /// Most jobs at a time; more are refused with `cantexec`.
    pub capacity: usize,
    /// How long a job waits before it connects; four to five seconds in reality.
    pub late: Duration,
    /// The load of the processors that it tells, in percent.
    pub cpu_percent: f64,
}

impl OldAgentSpec {
    /// The service `Play` of the namespace `default` on this host, with room for everything.
    pub fn play(host: &str) -> Self {
        Self {
            service: "Play".into(),
            namespace: "default".into(),
            host: host.into(),
            capacity: 1000,
            late: LATE,
            cpu_percent: 18.5,
        }
    }
}

/// A running stand-in; dropped, it dies without a good-bye.
pub struct OldAgent {
    shared: Arc<Shared>,
    runtime: Option<Runtime>,
}

struct Shared {
    spec: OldAgentSpec,
    login: Login,
    heard: Mutex<Vec<String>>,
    running: Mutex<usize>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no holder of the lock panics")
}

impl OldAgent {
    /// Starts it. Modes of its jobs:
    ///
    /// * `ok:TEXT` completes at once with TEXT, before its process is in the room
    /// * `long:N` tells progress N times, a tick of 100 ms each, then completes
    /// * `fail` ends with exit code 3 and a chatty error, and the service process adds its own later
    /// * `early` fails before its process is in the room: only the service process tells
    /// * `critical` tells an error and completes nevertheless
    /// * `specials` logs lines that nobody escaped
    /// * `file:PATH` has PATH as its second output
    /// * `mute` leaves the room without a word after a while
    /// * `hang` runs until it is aborted
    /// * `stamp` completes at once with the time of its start, in nanoseconds since 1970
    pub fn start(login: Login, spec: OldAgentSpec) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime can be made");
        let shared = Arc::new(Shared { spec, login, heard: Mutex::default(), running: Mutex::default() });
        runtime.spawn(master(shared.clone()));
        Self { shared, runtime: Some(runtime) }
    }

    /// Every body that reached it, with the resource that got it in front.
    pub fn heard(&self) -> Vec<String> {
        locked(&self.shared.heard).clone()
    }

    /// How often it heard a body with this text.
    pub fn count(&self, text: &str) -> usize {
        self.heard().iter().filter(|body| body.contains(text)).count()
    }
}

impl Drop for OldAgent {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Shared {
    fn session(&self, resource: &str) -> (Muc, mpsc::Receiver<MucEvent>) {
        let Self { spec, login, .. } = self;
        let jid = format!("{}@{}/{resource}", login.user, login.domain);
        let jid: Jid = jid.parse().expect("the stand-in has a possible name");
        let room = format!("{}@{}", spec.namespace, login.muc_domain);
        muc::start(muc::MucConfig {
            session: SessionConfig::new(jid, login.password.clone(), login.connector.clone()),
            rooms: vec![RoomConfig {
                room: room.parse().expect("the stand-in's room has a possible name"),
                nick: format!("{}@{}/{resource}", spec.service, login.domain),
                password: Some(login.room_password.clone()),
                create: false,
            }],
            presence: Vec::new(),
        })
    }

    fn room(&self) -> BareJid {
        let room = format!("{}@{}", self.spec.namespace, self.login.muc_domain);
        room.parse().expect("the stand-in's room has a possible name")
    }

    fn note(&self, resource: &str, body: &str) {
        locked(&self.heard).push(format!("{resource} {body}"));
    }
}

/// The service process.
async fn master(shared: Arc<Shared>) {
    let resource = format!("master@{}", shared.spec.host);
    let (muc, mut events) = shared.session(&resource);
    let room = shared.room();
    while let Some(event) = events.recv().await {
        let MucEvent::Message { nick, body: Some(body), private: true, .. } = event else { continue };
        shared.note(&resource, &body);
        let say = |text: String| {
            // A lost message is lost.
            let _ = muc.send_body(&room, &nick, &text);
        };
        if body.contains("topic=request") {
            let Some((id, base_url, inputs)) = request(&body) else { continue };
            if *locked(&shared.running) >= shared.spec.capacity {
                say(format!(
                    "topic=cantexec&id=master&message=cantexec&output=Cannot%20Execute&exec_id={id}"
                ));
                continue;
            }
            *locked(&shared.running) += 1;
            let job = Job {
                shared: shared.clone(),
                id,
                base_url,
                inputs,
                to: nick,
                master: muc.clone(),
                begun: crate::nanoseconds(),
            };
            tokio::spawn(job.run());
        } else if body.contains("topic=invite") {
            say(register(&shared.spec));
        } else if body.contains("topic=getloadavg") {
            say(format!(
                "topic=loadavg&id=master&message=loadavg&result_vmem={}&result_loadavg={}",
                quote(
                    "{\"vmem_value\": 5.6, \"vmem_description\": \"Percentage of Memory used by the server.\"}"
                ),
                quote(&format!(
                    "{{\"loadavg_description\": \"Average Load on CPUs during the last 15 minutes.\", \"loadavg_value\": {}}}",
                    shared.spec.cpu_percent
                )),
            ));
        }
        // `finish` and `abort` mean nothing to a service process.
    }
}

/// Every part must have exactly one `=`, and all must be ASCII: else an exception is swallowed and nothing happens.
fn request(body: &str) -> Option<(String, String, HashMap<String, Vec<String>>)> {
    if !body.is_ascii() {
        return None;
    }
    let mut fields = HashMap::new();
    for part in body.split('&') {
        let mut cut = part.split('=');
        let (key, value) = (cut.next()?, cut.next()?);
        if cut.next().is_some() {
            return None;
        }
        fields.insert(key, value);
    }
    let inputs = unpickle(&unquote(fields.get("message")?))?;
    Some(((*fields.get("id")?).to_owned(), (*fields.get("baseURL")?).to_owned(), inputs))
}

/// A running job: a process, a session and an occupant of its own.
struct Job {
    shared: Arc<Shared>,
    id: String,
    base_url: String,
    inputs: HashMap<String, Vec<String>>,
    to: String,
    master: Muc,
    begun: u128,
}

impl Job {
    async fn run(self) {
        self.work().await;
        *locked(&self.shared.running) -= 1;
    }

    async fn work(&self) {
        let Self { shared, id, .. } = self;
        let mode = self.inputs.get("mode").and_then(|values| values.first()).cloned().unwrap_or_default();
        let generic = format!(
            "topic=error&id={id}&message={}",
            quote(&format!(
                "\"Process {} PId 4711 terminated with exit code -9 Exception: remote process exception. Please check outputs!\"",
                shared.spec.service
            ))
        );
        if mode == "early" {
            tokio::time::sleep(shared.spec.late * 2).await;
            let _ = self.master.send_body(&shared.room(), &self.to, &generic);
            return;
        }
        tokio::time::sleep(shared.spec.late).await;
        let resource = format!("{id}@{}", shared.spec.host);
        let (muc, mut events) = shared.session(&resource);
        let room = shared.room();
        let say = |text: String| {
            let _ = muc.send_body(&room, &self.to, &text);
        };
        let joined = async {
            while let Some(event) = events.recv().await {
                if matches!(event, MucEvent::Joined { .. }) {
                    return;
                }
            }
        };
        if tokio::time::timeout(Duration::from_secs(20), joined).await.is_err() {
            return;
        }
        for line in self.script(&mode) {
            match line {
                Line::Say(text) => say(text),
                Line::Pause(ms) => {
                    if self.ended_while(Duration::from_millis(ms), &mut events, &resource).await {
                        return muc.close().await;
                    }
                }
                Line::Leave => return muc.close().await,
                Line::DieAfterError => {
                    // The process hangs; the service process kills it and tells once more.
                    tokio::time::sleep(REPEAT).await;
                    let _ = self.master.send_body(&room, &self.to, &generic);
                    return muc.close().await;
                }
            }
        }
        let completed = self.completed(&mode);
        for _ in 0..99 {
            say(completed.clone());
            if self.ended_while(REPEAT, &mut events, &resource).await {
                break;
            }
        }
        muc.close().await;
    }

    /// Whether `finish` or `abort` came in this time.
    async fn ended_while(
        &self,
        time: Duration,
        events: &mut mpsc::Receiver<MucEvent>,
        resource: &str,
    ) -> bool {
        let ended = async {
            while let Some(event) = events.recv().await {
                if let MucEvent::Message { body: Some(body), .. } = event {
                    self.shared.note(resource, &body);
                    if body.contains("topic=finish") || body.contains("topic=abort") {
                        return true;
                    }
                }
            }
            true
        };
        tokio::time::timeout(time, ended).await.unwrap_or(false)
    }

    fn script(&self, mode: &str) -> Vec<Line> {
        let id = &self.id;
        let log = |text: &str| Line::Say(format!("topic=log&id={id}&level=INFO&message={text}"));
        let progress = |percent: f64| Line::Say(format!("topic=progress&id={id}&message={percent:?}"));
        let error = |text: &str| {
            let literal = format!("\"{}\"", text.replace('\n', "\\n"));
            Line::Say(format!("topic=error&id={id}&message={}", quote(&literal)))
        };
        match mode.split_once(':').unwrap_or((mode, "")) {
            ("long", ticks) => {
                let ticks: u32 = ticks.parse().unwrap_or(5);
                let mut lines = vec![progress(-3.0)];
                for tick in 1..=ticks {
                    lines.extend([Line::Pause(100), progress(f64::from(tick) * 100.0 / f64::from(ticks))]);
                }
                lines
            }
            ("fail", _) => {
                let text = "process exit code is 3: failure\n01:10:08 [INFO] about to fail & 100% = bad";
                vec![error(text), Line::DieAfterError]
            }
            ("critical", _) => vec![error("the model diverged & x=1"), Line::Pause(500)],
            ("specials", _) => [
                "reading http://x/wps?service=WPS&request=Execute 100% of it",
                "fish & chips",
                "half done 50%",
                "x &topic=error&message=injected",
                "café 漢字 😀 log line",
            ]
            .map(log)
            .into_iter()
            .chain([Line::Pause(200)])
            .collect(),
            ("mute", _) => vec![progress(10.0), Line::Pause(300), Line::Leave],
            ("hang", _) => vec![progress(20.0), Line::Pause(120_000), Line::Leave],
            _ => Vec::new(),
        }
    }

    fn completed(&self, mode: &str) -> String {
        let output = |name: &str, kind: &str, value: &str| {
            let json = format!(
                "{{\"{name}_metadata\": \" \", \"{name}_layer_name\": null, \"{name}_workspace\": null, \"{name}_pub\": false, \
                 \"{name}_style\": null, \"{name}_description\": \"Text result\", \"{name}_value\": {}, \
                 \"{name}_type\": \"{kind}\", \"{name}_title\": \"The text\"}}",
                ascii_json(value)
            );
            format!("&{name}={}", quote(&json))
        };
        let value = match mode.split_once(':').unwrap_or((mode, "")) {
            ("ok", text) => text.to_owned(),
            ("stamp", _) => self.begun.to_string(),
            ("specials", _) => {
                "a=1&b=2\nline two %41 + \"quoted\" <xml/> \\back\n\ttab & end= é漢😀".to_owned()
            }
            (_, _) => format!("{mode} on {}", self.shared.spec.host),
        };
        let mut body = format!(
            "topic=completed&id={}&baseURL={}&message=completed{}",
            self.id,
            self.base_url,
            output("result1", "textual", &value)
        );
        if let Some(path) = mode.strip_prefix("file:") {
            body += &output("result2", "image/geotiff", path);
        }
        body
    }
}

enum Line {
    Say(String),
    Pause(u64),
    Leave,
    DieAfterError,
}

/// A registration with the pairs' second elements as documents in strings, keys in the order of a hash table.
fn register(spec: &OldAgentSpec) -> String {
    let mode = r#"{"input_mime_type": null, "description": "How to behave", "min": 1, "default": "ok", "max": 1, "title": "Mode", "type": "string"}"#;
    let text = r#"{"publish_layer_name": null, "description": "Text result", "title": "The text", "output_mime_type": null, "publish_default_style": null, "publish_as_layer": null, "type": "string", "publish_target_workspace": null}"#;
    let file = text.replace("\"type\": \"string\"", "\"type\": \"image/geotiff\"");
    let inside = |document: &str| document.replace('"', "\\\"");
    let document = format!(
        "{{\"result_size\": 0, \"description\": \"Play remote service\", \"title\": \"{0}.{1}\", \"namespace\": \"{0}\", \
         \"output\": [[\"result1\", \"{2}\"], [\"result2\", \"{3}\"]], \"input\": [[\"mode\", \"{4}\"]], \"process_buffer\": 0}}",
        spec.namespace,
        spec.service,
        inside(text),
        inside(&file),
        inside(mode)
    );
    format!("topic=register&service={}.{}&message={}", spec.namespace, spec.service, quote(&document))
}

/// Python's `urllib.quote`.
fn quote(text: &str) -> String {
    let keep = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-' | b'/');
    text.bytes().map(|b| if keep(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

/// Python's `urllib.unquote`.
fn unquote(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let (mut out, mut at) = (Vec::new(), 0);
    while at < bytes.len() {
        let hex = (bytes[at] == b'%').then(|| text.get(at + 1..at + 3)).flatten();
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                out.push(byte);
                at += 3;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    out
}

/// Python's `json.dumps` of a text.
fn ascii_json(text: &str) -> String {
    let mut out = String::from("\"");
    for unit in text.encode_utf16() {
        match char::from_u32(unit.into()) {
            Some('"') => out += "\\\"",
            Some('\\') => out += "\\\\",
            Some('\n') => out += "\\n",
            Some('\t') => out += "\\t",
            Some(c) if c.is_ascii() => out.push(c),
            _ => out += &format!("\\u{unit:04x}"),
        }
    }
    out + "\""
}

/// A dict of texts and lists of texts, as the opcodes of the reference say: no more is ever sent.
fn unpickle(bytes: &[u8]) -> Option<HashMap<String, Vec<String>>> {
    let mut rest = bytes.strip_prefix(b"\x80\x02}")?;
    let mut memo: HashMap<u8, Vec<String>> = HashMap::new();
    let mut values: Vec<Vec<String>> = Vec::new();
    let mut list: Option<Vec<String>> = None;
    let mut depth = 0;
    loop {
        let (opcode, after) = rest.split_first()?;
        rest = after;
        match opcode {
            b'q' => {
                let last = list.clone().or_else(|| values.last().cloned());
                memo.insert(*rest.first()?, last.unwrap_or_default());
                rest = &rest[1..];
            }
            b'(' => depth += 1,
            b'X' => {
                let length = u32::from_le_bytes(rest.get(..4)?.try_into().ok()?) as usize;
                let text = std::str::from_utf8(rest.get(4..4 + length)?).ok()?.to_owned();
                rest = &rest[4 + length..];
                match (&mut list, depth) {
                    (Some(list), 2) => list.push(text),
                    _ => values.push(vec![text]),
                }
            }
            b'h' => {
                values.push(memo.get(rest.first()?)?.clone());
                rest = &rest[1..];
            }
            b']' => list = Some(Vec::new()),
            b'e' => {
                values.push(list.take()?);
                depth -= 1;
            }
            b'u' => depth -= 1,
            b'.' if depth == 0 && values.len().is_multiple_of(2) => {
                let pair = |pair: &[Vec<String>]| Some((pair[0].first()?.clone(), pair[1].clone()));
                return values.chunks_exact(2).map(pair).collect();
            }
            _ => return None,
        }
    }
}
