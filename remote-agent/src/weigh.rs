//! Asks a descriptor's `weight_command` how much of the agent's capacity a request takes: inputs as JSON on its standard
//! input, a number on its standard output. Bounded in time, output and number; answers are kept for a while, because a
//! refused request comes again. Decides nothing.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Map, Value as Json, json};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};
use wps_remote_protocol::{Request, Value, value::Content};

use crate::descriptor::ServiceDescriptor;
use crate::prepare::Manner;

/// Longest run.
const LIMIT: Duration = Duration::from_secs(5);
/// How long an answer holds.
const KEPT: Duration = Duration::from_secs(60);
/// Answers that are kept.
const ANSWERS: usize = 256;
/// Programs that run at a time.
const AT_ONCE: usize = 2;
/// Bytes that are read of what a program prints.
const OUTPUT: u64 = 4096;

type Key = [u8; 32];

/// Weighs requests.
#[derive(Debug)]
pub struct Weigher {
    places: Semaphore,
    answers: Mutex<HashMap<Key, (f64, Instant)>>,
}

impl Default for Weigher {
    fn default() -> Self {
        Self { places: Semaphore::new(AT_ONCE), answers: Mutex::default() }
    }
}

impl Weigher {
    /// The weight of a request, or why it cannot be known; `None` if the descriptor has no `weight_command`.
    pub async fn weigh(
        &self,
        descriptor: &ServiceDescriptor,
        request: &Request,
        manner: &Manner,
    ) -> Option<Result<f64, String>> {
        let words = descriptor.weight_command.as_ref()?;
        let question = question(request, manner.shared.as_deref()).to_string();
        let mut hash = Sha256::new();
        hash.update(&descriptor.hash);
        hash.update(&question);
        let key: Key = hash.finalize().into();
        if let Some(known) = self.known(&key) {
            return Some(Ok(known));
        }
        let Ok(_place) = self.places.acquire().await else { return Some(Err("the agent stops".to_owned())) };
        // Somebody may have asked the same while this one waited.
        if let Some(known) = self.known(&key) {
            return Some(Ok(known));
        }
        let found = run(descriptor.dir(), words, &question, manner).await;
        if let Ok(weight) = found {
            self.keep(key, weight);
        }
        Some(found.map_err(|why| format!("weight_command {why}")))
    }

    fn known(&self, key: &Key) -> Option<f64> {
        let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers.get(key).filter(|(_, at)| at.elapsed() < KEPT).map(|(weight, _)| *weight)
    }

    fn keep(&self, key: Key, weight: f64) {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        if answers.len() >= ANSWERS {
            answers.retain(|_, (_, at)| at.elapsed() < KEPT);
        }
        if answers.len() >= ANSWERS {
            answers.clear();
        }
        answers.insert(key, (weight, Instant::now()));
    }
}

/// `{"process": "ns:Name", "inputs": {"id": value, "id": [value, …]}}`.
fn question(request: &Request, shared: Option<&Path>) -> Json {
    let mut inputs: Map<String, Json> = Map::new();
    for input in &request.inputs {
        let value = value(&input.value, shared);
        match inputs.get_mut(&input.id) {
            None => drop(inputs.insert(input.id.clone(), value)),
            Some(Json::Array(list)) => list.push(value),
            Some(one) => *one = json!([one.take(), value]),
        }
    }
    json!({ "process": request.process.to_string(), "inputs": inputs })
}

/// Texts as they are, everything else as an object that says what it is.
fn value(value: &Value, shared: Option<&Path>) -> Json {
    match value.resolved() {
        Value::Literal { text, .. } => json!(text),
        Value::Complex { content, media_type, .. } => match content {
            Content::Text(text) => json!(text),
            Content::Bytes(bytes) => json!({ "bytes": bytes.len(), "media_type": media_type }),
            Content::Shared(file) => {
                let path = shared.map_or_else(|| PathBuf::from(&file.path), |folder| folder.join(&file.path));
                json!({ "path": path, "bytes": file.bytes, "media_type": media_type })
            }
        },
        Value::BoundingBox(found) => json!(found),
        Value::Reference { href, .. } => json!({ "href": href }),
    }
}

async fn run(folder: &Path, words: &[String], question: &str, manner: &Manner) -> Result<f64, String> {
    let Some((program, fixed)) = words.split_first() else { return Err("names no program".to_owned()) };
    let mut command = Command::new(beside(folder, program));
    command
        .args(fixed)
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    for name in &manner.hidden_variables {
        command.env_remove(name);
    }
    // As the programs of jobs run; without the agent's other groups, which the standard library drops with its user.
    #[cfg(unix)]
    if let Some(user) = &manner.run_as {
        command.uid(user.uid).gid(user.gid).env("HOME", &user.home).env("USER", &user.name);
    }
    // A group of its own, so that what it has started can be ended with it.
    #[cfg(unix)]
    command.process_group(0);
    let mut child = command.spawn().map_err(|error| format!("`{program}` cannot be started: {error}"))?;
    match timeout(LIMIT, exchange(&mut child, question)).await {
        Ok(Ok((status, out, complaint))) => number(status, &out, &complaint),
        Ok(Err(error)) => Err(format!("`{program}` cannot be talked to: {error}")),
        Err(_) => {
            end(&mut child).await;
            Err(format!("`{program}` did not answer within {} s and was ended", LIMIT.as_secs()))
        }
    }
}

/// The program as written if it is a path, else beside the descriptor, else in PATH.
fn beside(folder: &Path, program: &str) -> PathBuf {
    let there = folder.join(program);
    if there.is_file() { there } else { PathBuf::from(program) }
}

async fn exchange(child: &mut Child, question: &str) -> std::io::Result<(ExitStatus, Vec<u8>, Vec<u8>)> {
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let ask = async {
        if let Some(mut stdin) = stdin {
            // A program that does not read its input may know the weight all the same.
            let _ = stdin.write_all(question.as_bytes()).await;
        }
    };
    let (mut out, mut complaint) = (Vec::new(), Vec::new());
    let listen = async {
        match stdout {
            Some(pipe) => pipe.take(OUTPUT).read_to_end(&mut out).await,
            None => Ok(0),
        }
    };
    let hear = async {
        match stderr {
            Some(pipe) => pipe.take(OUTPUT).read_to_end(&mut complaint).await,
            None => Ok(0),
        }
    };
    let ((), heard, listened) = tokio::join!(ask, hear, listen);
    heard.and(listened)?;
    Ok((child.wait().await?, out, complaint))
}

fn number(status: ExitStatus, out: &[u8], complaint: &[u8]) -> Result<f64, String> {
    if !status.success() {
        let said = String::from_utf8_lossy(complaint);
        let last: String = said.lines().last().unwrap_or_default().chars().take(200).collect();
        return Err(format!("failed ({status}){}{last}", if last.is_empty() { "" } else { ": " }));
    }
    let said = String::from_utf8_lossy(out);
    let text = said.trim();
    match text.parse::<f64>() {
        Ok(weight) if weight.is_finite() && weight >= 0.0 => Ok(weight),
        _ => Err(format!(
            "printed `{}`, which is not a number from 0",
            text.chars().take(80).collect::<String>()
        )),
    }
}

/// Ends it with everything that is still in its group.
async fn end(child: &mut Child) {
    #[cfg(unix)]
    if let Some(pid) =
        child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(rustix::process::Pid::from_raw)
    {
        // Not collected yet, so the number is still its own.
        let _ = rustix::process::kill_process_group(pid, rustix::process::Signal::KILL);
    }
    let _ = child.kill().await;
}

#[cfg(unix)]
#[cfg(test)]
mod tests;
