//! Files of jobs: large inputs on their way to an agent, results on their way from the shared folder into the result
//! store, and where a result lies. Guards every path; knows no document format.
//!
//! ```text
//! <shared>/in/<job>/…                        large inputs, staged for the agent
//! <shared>/<execution>/<output>/<file>       written by the agent
//! <store>/<job>/<output>/<file>              taken over by link or rename; what clients download
//! <store>/<job>/.inputs/<n>                  copies of staged inputs, for answers that repeat them
//! ```

use std::collections::BTreeMap;
use std::io;
use std::path::{Component, Path, PathBuf};

use sha2::{Digest, Sha256};
use thiserror::Error;
use wps_remote_protocol::native::{self, NativeError};
use wps_remote_protocol::{Content, ExecutionId, Input, Inputs, Outputs, SharedFile, Value};

use crate::engine::job::JobId;

/// Values above this size leave the message and go through the shared folder (bytes).
pub const MAX_INLINE: usize = 32 * 1024;
/// All inline values of one request together (bytes): they must fit into one message.
pub const MAX_INLINE_TOTAL: usize = 96 * 1024;

/// Why a file could not be kept, taken over or found.
#[derive(Debug, Error)]
pub enum ResultsError {
    /// An input is too large for a message, and it is a literal, or there is no shared folder.
    #[error(
        "input `{input}` has {bytes} bytes, but literal values, and without a shared folder (`[results] shared_dir`) \
         all others, can have at most {limit} bytes each and {MAX_INLINE_TOTAL} bytes together"
    )]
    TooLarge {
        /// The input.
        input: String,
        /// Its size.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// Inputs are too many, or what they need in a message is.
    #[error("the input values cannot be passed on together: {0}")]
    TooMuch(#[source] NativeError),
    /// A path leads out of the folder it must stay in.
    #[error("`{0}` is not a path inside of the shared folder")]
    Outside(String),
    /// A file is not what was announced.
    #[error("output `{output}`: the file `{path}` {why}")]
    Bad {
        /// The output.
        output: String,
        /// The file, below the shared folder.
        path: String,
        /// What is wrong.
        why: String,
    },
    /// An operation on a file failed.
    #[error("failed to {what} `{path}`: {source}")]
    Io {
        /// What was being done.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
}

/// The two folders. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Results {
    shared: Option<PathBuf>,
    store: PathBuf,
}

impl Results {
    /// Creates the folders where they are missing.
    pub fn open(shared: Option<PathBuf>, store: PathBuf) -> Result<Self, ResultsError> {
        for folder in shared.iter().chain([&store]) {
            std::fs::create_dir_all(folder).map_err(io_error("create", folder))?;
        }
        Ok(Self { shared, store })
    }

    /// The shared folder.
    pub fn shared(&self) -> Option<&Path> {
        self.shared.as_deref()
    }

    /// The result store.
    pub fn store(&self) -> &Path {
        &self.store
    }

    /// Moves values that are too large for a message into the shared folder.
    pub async fn stage_inputs(&self, job: JobId, mut inputs: Inputs) -> Result<Inputs, ResultsError> {
        let inline: Vec<usize> = inputs.iter().map(|input| input.value.inline_bytes()).collect();
        // What is too large for a message in any case need not be written to learn how long it would be.
        let wire_bytes = |(input, inline): (&Input, &usize)| match *inline {
            bytes if bytes > MAX_INLINE => bytes,
            _ => native::wire_bytes(&input.id, input.value.resolved()),
        };
        let wire: Vec<usize> = inputs.iter().zip(&inline).map(wire_bytes).collect();
        let (mut left, mut on_the_wire) = (inline.iter().sum::<usize>(), wire.iter().sum::<usize>());
        let fits =
            |left: usize, on_the_wire: usize| left <= MAX_INLINE_TOTAL && on_the_wire <= native::MAX_WIRE;
        if fits(left, on_the_wire) && inline.iter().all(|bytes| *bytes <= MAX_INLINE) {
            return sendable(inputs);
        }
        let this = self.clone();
        blocking(move || {
            // The largest first, until the rest fits into one message. Literals stay: no file can stand for them.
            let mut order: Vec<usize> = (0..inputs.len()).collect();
            order.sort_by_key(|n| std::cmp::Reverse(inline[*n]));
            for n in order {
                let large = inline[n] > MAX_INLINE;
                let stays =
                    !matches!(inputs[n].value.resolved(), Value::Complex { .. }) || this.shared.is_none();
                if !large && (stays || fits(left, on_the_wire)) {
                    continue;
                }
                this.stage(job, n, &mut inputs[n])?;
                left -= inline[n];
                on_the_wire -= wire[n];
            }
            sendable(inputs)
        })
        .await
    }

    fn stage(&self, job: JobId, n: usize, input: &mut Input) -> Result<(), ResultsError> {
        let bytes = input.value.inline_bytes();
        let too_large = || ResultsError::TooLarge {
            input: input.id.chars().take(100).collect(),
            bytes,
            limit: MAX_INLINE,
        };
        let Some(shared) = &self.shared else { return Err(too_large()) };
        let value = match &mut input.value {
            Value::Reference { fetched: Some(value), .. } => value.as_mut(),
            value => value,
        };
        let Value::Complex { content, .. } = value else { return Err(too_large()) };
        let data: &[u8] = match content {
            Content::Text(text) => text.as_bytes(),
            Content::Bytes(bytes) => bytes,
            Content::Shared(_) => return Ok(()),
        };
        let path = format!("in/{job}/{n}");
        let file = shared.join(&path);
        if let Some(parent) = file.parent() {
            std::fs::create_dir_all(parent).map_err(io_error("create", parent))?;
        }
        let written = std::fs::File::create_new(&file).and_then(|mut to| {
            io::Write::write_all(&mut to, data)?;
            to.sync_all()
        });
        written.map_err(io_error("write", &file))?;
        *content = Content::Shared(SharedFile { path, bytes: data.len() as u64, sha256: None });
        Ok(())
    }

    /// Keeps copies of staged inputs until the job is forgotten, for answers that repeat them. What was fetched is not
    /// repeated, only its address.
    pub async fn keep_inputs(&self, job: JobId, inputs: &Inputs) -> Result<(), ResultsError> {
        for (n, input) in inputs.iter().enumerate() {
            let (Some(shared), Value::Complex { content: Content::Shared(file), .. }) =
                (&self.shared, &input.value)
            else {
                continue;
            };
            let kept = self.kept_input(job, n);
            if let Some(parent) = kept.parent() {
                tokio::fs::create_dir_all(parent).await.map_err(io_error("create", parent))?;
            }
            // A copy, not a link: whoever can write into the shared folder must not be able to change it.
            tokio::fs::copy(shared.join(&file.path), &kept).await.map_err(io_error("write", &kept))?;
        }
        Ok(())
    }

    /// Where the copy of a job's n-th input lies if there is one. No output has a folder of this name.
    pub fn kept_input(&self, job: JobId, n: usize) -> PathBuf {
        self.store.join(job.to_string()).join(".inputs").join(n.to_string())
    }

    /// A new file for something that is fetched for a job: in the shared folder if there is one.
    pub async fn scratch(&self, job: JobId, n: usize) -> Result<(PathBuf, Option<String>), ResultsError> {
        let relative = format!("in/{job}/{n}-fetched");
        let (file, shared) = match &self.shared {
            Some(shared) => (shared.join(&relative), Some(relative)),
            None => (self.store.join(job.to_string()).join(format!("{n}-fetched")), None),
        };
        if let Some(parent) = file.parent() {
            tokio::fs::create_dir_all(parent).await.map_err(io_error("create", parent))?;
        }
        Ok((file, shared))
    }

    /// Takes the files of a completed execution over into the result store. Idempotent: what is there already stays.
    pub async fn collect(
        &self,
        job: JobId,
        execution: ExecutionId,
        outputs: Outputs,
    ) -> Result<Outputs, ResultsError> {
        if !has_files(&outputs) {
            return Ok(outputs);
        }
        let this = self.clone();
        blocking(move || this.take_over(job, &execution, outputs)).await
    }

    fn take_over(
        &self,
        job: JobId,
        execution: &ExecutionId,
        mut outputs: Outputs,
    ) -> Result<Outputs, ResultsError> {
        for output in &mut outputs {
            let Value::Complex { content: Content::Shared(file), .. } = &mut output.value else { continue };
            let bad = |why: &str| ResultsError::Bad {
                output: output.id.clone(),
                path: file.path.clone(),
                why: why.to_owned(),
            };
            let Some(shared) = &self.shared else {
                return Err(bad(
                    "is in a shared folder, but this orchestrator has none (`[results] shared_dir`)",
                ));
            };
            // Only the folder of this very execution: an agent must not hand out another job's files.
            if !native::is_relative(&file.path) || !file.path.starts_with(&format!("{execution}/")) {
                return Err(bad("is not in the execution's folder"));
            }
            let name = Path::new(&file.path).file_name().and_then(|name| name.to_str()).unwrap_or("result");
            let relative = format!("{job}/{}/{name}", folder_name(&output.id));
            let target = self.store.join(&relative);
            let source = shared.join(&file.path);
            if !target.exists() {
                let real = source.canonicalize().map_err(|error| {
                    bad(&format!("cannot be read here: {error} (do both sides see the same shared folder?)"))
                })?;
                let root = shared.canonicalize().map_err(io_error("resolve", shared))?;
                if !real.starts_with(root.join(execution.as_str())) {
                    return Err(bad("leads out of the execution's folder"));
                }
                let metadata = std::fs::symlink_metadata(&real).map_err(io_error("look at", &real))?;
                if !metadata.is_file() {
                    return Err(bad("is not a regular file"));
                }
                if metadata.len() != file.bytes {
                    return Err(bad(&format!(
                        "has {} bytes, but {} were announced",
                        metadata.len(),
                        file.bytes
                    )));
                }
                move_file(&real, &target)?;
            }
            // Read back from where clients will get it: what cannot be read, or is not what the program wrote, is no result.
            let sum = checksum(&target).map_err(io_error("read back", &target))?;
            if file.sha256.as_ref().is_some_and(|announced| !announced.eq_ignore_ascii_case(&sum)) {
                std::fs::remove_file(&target).map_err(io_error("remove", &target))?;
                return Err(bad("is not what the agent wrote: its checksum (SHA-256) differs"));
            }
            file.sha256 = Some(sum);
            file.path = relative;
        }
        Ok(outputs)
    }

    /// The jobs that have folders in the shared folder, by the names of those, with the executions among them.
    pub async fn in_shared(&self) -> Result<BTreeMap<JobId, Vec<ExecutionId>>, ResultsError> {
        let Some(shared) = self.shared.clone() else { return Ok(BTreeMap::new()) };
        blocking(move || {
            let names = |folder: &Path| -> Result<Vec<String>, ResultsError> {
                let entries = match std::fs::read_dir(folder) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
                    entries => entries.map_err(io_error("list", folder))?,
                };
                Ok(entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect())
            };
            let mut jobs: BTreeMap<JobId, Vec<ExecutionId>> = BTreeMap::new();
            for execution in names(&shared)?.iter().filter_map(|name| ExecutionId::new(name).ok()) {
                if let Some(job) = JobId::of_execution(&execution) {
                    jobs.entry(job).or_default().push(execution);
                }
            }
            for job in names(&shared.join("in"))?.iter().filter_map(|name| name.parse().ok()) {
                jobs.entry(job).or_default();
            }
            Ok(jobs)
        })
        .await
    }

    /// Forgets what an execution left in the shared folder.
    pub async fn discard_execution(&self, execution: &ExecutionId) {
        if let Some(shared) = &self.shared {
            remove_folder(shared.join(execution.as_str())).await;
        }
    }

    /// Forgets the staged inputs of a job.
    pub async fn discard_inputs(&self, job: JobId) {
        if let Some(shared) = &self.shared {
            remove_folder(shared.join("in").join(job.to_string())).await;
        }
    }

    /// Forgets everything of a job.
    pub async fn discard(&self, job: JobId) {
        self.discard_inputs(job).await;
        remove_folder(self.store.join(job.to_string())).await;
    }

    /// Where a result file of a finished job lies.
    pub fn path(&self, file: &SharedFile) -> Result<PathBuf, ResultsError> {
        let relative = Path::new(&file.path);
        let plain = relative.components().all(|part| matches!(part, Component::Normal(_)));
        if !plain || !native::is_relative(&file.path) {
            return Err(ResultsError::Outside(file.path.chars().take(200).collect()));
        }
        Ok(self.store.join(relative))
    }
}

/// Whether anything of a result lies in the shared folder.
pub fn has_files(outputs: &Outputs) -> bool {
    outputs.iter().any(|o| matches!(&o.value, Value::Complex { content: Content::Shared(_), .. }))
}

/// The folder of an output: its id where that is a harmless name, else an encoded one.
pub fn folder_name(id: &str) -> String {
    let keep = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-');
    id.bytes()
        .map(|b| if keep(b) { (b as char).to_string() } else { format!("%{b:02X}") })
        .collect::<String>()
        .chars()
        .take(200)
        .collect()
}

/// Link, else rename, else copy: the target is complete or absent, never half.
fn move_file(source: &Path, target: &Path) -> Result<(), ResultsError> {
    let parent = target.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(parent).map_err(io_error("create", parent))?;
    if std::fs::hard_link(source, target).is_ok() {
        return sync_folder(parent);
    }
    // Two orchestrators may take the same file over, when one was taken for dead.
    let partial = parent.join(format!(".partial-{}", std::process::id()));
    let copied = std::fs::File::open(source).and_then(|mut from| {
        let mut to = std::fs::File::create(&partial)?;
        io::copy(&mut from, &mut to)?;
        to.sync_all()
    });
    if let Err(error) = copied {
        // The room that it takes is needed by others, above all when there was none left.
        let _ = std::fs::remove_file(&partial);
        return Err(io_error("copy", source)(error));
    }
    std::fs::rename(&partial, target).map_err(io_error("rename", &partial))?;
    sync_folder(parent)
}

/// SHA-256 of a file, in hexadecimal digits.
fn checksum(file: &Path) -> io::Result<String> {
    let mut sum = Sha256::new();
    io::copy(&mut std::fs::File::open(file)?, &mut sum)?;
    Ok(sum.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

fn sync_folder(folder: &Path) -> Result<(), ResultsError> {
    std::fs::File::open(folder).and_then(|f| f.sync_all()).map_err(io_error("sync", folder))
}

async fn remove_folder(folder: PathBuf) {
    if let Err(error) = tokio::fs::remove_dir_all(&folder).await
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(folder = %folder.display(), %error, "a folder that is no longer needed could not be removed");
    }
}

/// The inputs, if they can go out in one message.
fn sendable(inputs: Inputs) -> Result<Inputs, ResultsError> {
    native::fit_together(inputs.iter().map(|input| (input.id.as_str(), input.value.resolved())))
        .map_err(ResultsError::TooMuch)?;
    Ok(inputs)
}

fn io_error(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ResultsError {
    let path = path.to_owned();
    move |source| ResultsError::Io { what, path, source }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ResultsError> + Send + 'static,
) -> Result<T, ResultsError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

#[cfg(test)]
mod tests;
