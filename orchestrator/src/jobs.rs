//! The handle that every face uses: look at the catalogue, execute, wait, view, dismiss. Talks to the driver by messages
//! and reads the store; knows no document format and no HTTP.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use thiserror::Error;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use wps_remote_protocol::{AgentId, Content, DataType, ProcessDescription, ProcessId, SharedFile, Value};

use crate::engine::job::{Bound, Form, Job, JobId, JobState, Terms, UserId, Waiting};
use crate::engine::{Explanation, sentence};
use crate::limits::{LimitRules, Set};
use crate::matching::{self, Mismatch};
use crate::references::{FetchError, Nowhere, Reference, References, Within};
use crate::results::{MAX_INLINE, Results, ResultsError};
use crate::store::{Store, StoreError, Usage};

mod quota;

pub use wps_remote_protocol::Inputs;

/// Pause between two looks at what only the store can tell.
const LOOK: Duration = Duration::from_millis(200);
/// Looks at a store that fails before a client is told so.
const PATIENCE: u32 = 15;
/// Jobs in a list whose reasons are worked out anew; those of older ones are as they were stored.
const EXPLAINED: usize = 200;
/// Longest wait for the driver's word on why a job waits.
const EXPLAIN: Duration = Duration::from_secs(2);
/// Longest wait until another node has given a job up.
const ELSEWHERE: Duration = Duration::from_secs(10);

/// All processes that are offered at one moment.
#[derive(Debug, Clone, Default)]
pub struct Catalogue {
    /// By identifier (`namespace:service`, or an alias), in the order of the identifiers.
    pub processes: BTreeMap<String, Arc<ProcessDescription>>,
    /// Grows with each change (`updateSequence` of the capabilities).
    pub version: u64,
}

/// Other identifiers under which processes are offered too.
pub type Aliases = BTreeMap<String, ProcessId>;

impl Catalogue {
    /// Offers processes under their own identifiers, and those that aliases stand for under these too. The identifier of a
    /// process counts more than an alias of the same text.
    pub fn new<'a>(
        offered: impl Iterator<Item = (&'a ProcessId, &'a Arc<ProcessDescription>)>,
        aliases: &Aliases,
        version: u64,
    ) -> Self {
        let own: BTreeMap<&ProcessId, &Arc<ProcessDescription>> = offered.collect();
        let mut processes: BTreeMap<_, _> =
            own.iter().map(|(id, description)| (id.to_string(), Arc::clone(description))).collect();
        for (alias, id) in aliases {
            if let Some(description) = own.get(id) {
                processes.entry(alias.clone()).or_insert_with(|| {
                    let alias = Some(alias.clone());
                    Arc::new(ProcessDescription { alias, ..description.as_ref().clone() })
                });
            }
        }
        Self { processes, version }
    }
}

/// What a client wants to be executed.
#[derive(Debug, Clone, PartialEq)]
pub struct NewJob {
    /// Identifier of the process as the client wrote it.
    pub process: String,
    /// Inputs in the order of the request.
    pub inputs: Inputs,
    /// Shape of the answer.
    pub form: Form,
    /// Who asks.
    pub owner: UserId,
    /// The role by whose limits it is run, if the asker has one.
    pub role: Option<String>,
}

/// Why a request about a job is not carried out.
#[derive(Debug, Error)]
pub enum Refusal {
    /// No agent offers it.
    #[error("no process `{0}` is offered")]
    NoSuchProcess(String),
    /// Inputs or outputs do not fit the description.
    #[error(transparent)]
    Mismatch(#[from] Mismatch),
    /// An input by reference could not be fetched.
    #[error("input `{input}`: {source}")]
    Reference {
        /// The input.
        input: String,
        /// Why.
        source: FetchError,
    },
    /// The queue is full.
    #[error("{queued} jobs are waiting already, which is the limit `[limits] max_queued`; try again later")]
    TooBusy {
        /// Waiting jobs.
        queued: usize,
    },
    /// What one user, role or process may have in the queue is there.
    #[error("{} {queued} job(s) waiting, and `{}` allows {}; try again when some of them have ended", .bound.scope, .bound.setting, .bound.max)]
    TooMany {
        /// Waiting jobs of the same.
        queued: usize,
        /// The limit.
        bound: Box<Bound>,
    },
    /// An input is larger than this user may give.
    #[error("input `{input}` has {bytes} bytes or more, but `{}` allows {}; {}", .limit.setting, .limit.value, .remedy)]
    InputTooLarge {
        /// The input.
        input: String,
        /// Its size as far as it is known.
        bytes: u64,
        /// The limit, in bytes.
        limit: Set<u64>,
        /// What can be done.
        remedy: &'static str,
    },
    /// As much is kept for this user as may be.
    #[error("`{}` has {used} {what}, and `{}` allows {}; dismiss jobs that have ended, or wait until they expire", .user.0, .limit.setting, .limit.value)]
    QuotaFull {
        /// The user.
        user: UserId,
        /// How much is there.
        used: u64,
        /// Of what.
        what: &'static str,
        /// The limit.
        limit: Set<u64>,
    },
    /// The program is about to end.
    #[error("the orchestrator is shutting down; try again later")]
    Stopping,
    /// The store failed; nothing was accepted.
    #[error("the job store failed")]
    Store(#[from] StoreError),
    /// An input or result could not be kept.
    #[error("the result store failed")]
    Results(#[from] ResultsError),
}

impl Refusal {
    /// Whether the same request can succeed a little later.
    pub fn passes(&self) -> bool {
        match self {
            Self::TooBusy { .. } | Self::TooMany { .. } | Self::Stopping => true,
            Self::Store(error) => !matches!(error, StoreError::Row { .. }),
            Self::NoSuchProcess(_)
            | Self::Mismatch(_)
            | Self::Reference { .. }
            | Self::Results(_)
            | Self::InputTooLarge { .. }
            | Self::QuotaFull { .. } => false,
        }
    }
}

/// What the driver is asked to do.
#[derive(Debug)]
pub(crate) enum Command {
    /// Accept a job; the answer comes when it is stored.
    Execute {
        id: JobId,
        new: NewJob,
        description: Arc<ProcessDescription>,
        terms: Arc<Terms>,
        reply: oneshot::Sender<Result<watch::Receiver<Arc<Job>>, Refusal>>,
    },
    /// Give a job up; the answer is the job as it is stored then, or `None` if it is not active.
    Dismiss { id: JobId, reply: oneshot::Sender<Option<Arc<Job>>> },
    /// Say why a job waits or where it runs; `None` if it is not active here.
    Explain { id: JobId, reply: oneshot::Sender<Option<Explanation>> },
    /// Say in short why each of these waits, as far as they are active here.
    Waiting { ids: Vec<JobId>, reply: oneshot::Sender<HashMap<JobId, Waiting>> },
    /// Take an agent out of service, or back into it; the answer comes when that is stored.
    Drain { agent: AgentId, drain: Option<String>, reply: oneshot::Sender<Result<(), StoreError>> },
}

/// Active jobs, kept by the driver, read by every face.
pub(crate) type Live = Arc<RwLock<HashMap<JobId, watch::Receiver<Arc<Job>>>>>;

/// The handle. Cheap to clone.
#[derive(Clone)]
pub struct Jobs {
    pub(crate) commands: mpsc::Sender<Command>,
    pub(crate) live: Live,
    pub(crate) store_works: Arc<AtomicBool>,
    pub(crate) catalogue: watch::Receiver<Arc<Catalogue>>,
    pub(crate) store: Store,
    pub(crate) results: Results,
    pub(crate) references: References,
    pub(crate) limits: Arc<LimitRules>,
}

impl Jobs {
    /// The processes of this moment.
    pub fn catalogue(&self) -> Arc<Catalogue> {
        self.catalogue.borrow().clone()
    }

    /// Where result files are.
    pub fn results(&self) -> &Results {
        &self.results
    }

    /// Accepts a job. When this returns, the job is stored and will end, whatever happens to this program.
    pub async fn execute(&self, new: NewJob) -> Result<Arc<Job>, Refusal> {
        self.execute_within(new, &Nowhere).await
    }

    /// The same, where references that lead back to us are answered by `within`.
    pub async fn execute_within(&self, new: NewJob, within: &dyn Within) -> Result<Arc<Job>, Refusal> {
        if !self.store_works.load(Ordering::Relaxed) {
            return Err(Refusal::Store(StoreError::Unavailable));
        }
        let catalogue = self.catalogue();
        let description = catalogue
            .processes
            .get(&new.process)
            .cloned()
            .ok_or_else(|| Refusal::NoSuchProcess(new.process.chars().take(200).collect()))?;
        let mut new = new;
        matching::fit(&description, &mut new.inputs, &new.form)?;
        quota::inputs(&self.limits, &new, &description)?;
        quota::room(&self.limits, &self.store, &new, &description).await?;
        let terms = self.limits.terms(quota::who(&new), &description.id);
        let id = new_job_id();
        if let Err(refusal) = self.prepare_inputs(id, &description, &mut new, within).await {
            self.results.discard(id).await;
            return Err(refusal);
        }
        let (reply, answer) = oneshot::channel();
        let command = Command::Execute { id, new, description, terms, reply };
        if self.commands.send(command).await.is_err() {
            self.results.discard(id).await;
            return Err(Refusal::Stopping);
        }
        match self.unless_store_fails(answer).await? {
            Ok(Ok(job)) => Ok(job.borrow().clone()),
            Ok(Err(refusal)) => {
                self.results.discard(id).await;
                Err(refusal)
            }
            Err(_) => Err(Refusal::Stopping),
        }
    }

    /// Waits for an answer of the driver, but not for a store that does not come back: whoever gives up here drops the
    /// question, and the driver leaves a dropped question alone.
    async fn unless_store_fails<T>(
        &self,
        mut answer: oneshot::Receiver<T>,
    ) -> Result<Result<T, oneshot::error::RecvError>, Refusal> {
        let mut failing = 0;
        loop {
            match tokio::time::timeout(LOOK, &mut answer).await {
                Ok(answer) => return Ok(answer),
                Err(_) if self.store_works.load(Ordering::Relaxed) => failing = 0,
                Err(_) => failing += 1,
            }
            if failing >= PATIENCE {
                // What was answered in the very last moment counts.
                answer.close();
                return match answer.try_recv() {
                    Ok(answer) => Ok(Ok(answer)),
                    Err(_) => Err(Refusal::Store(StoreError::Unavailable)),
                };
            }
        }
    }

    /// Fetches references and moves what is large out of the way of messages.
    async fn prepare_inputs(
        &self,
        id: JobId,
        description: &ProcessDescription,
        new: &mut NewJob,
        within: &dyn Within,
    ) -> Result<(), Refusal> {
        let limit = self.limits.input_reference(quota::who(new), &description.id);
        let references = self.references.at_most(limit.as_ref().map_or(u64::MAX, |limit| limit.value));
        let inputs = &mut new.inputs;
        for (n, input) in inputs.iter_mut().enumerate() {
            let declared = description.input(&input.id).map(|input| &input.data);
            let literal = matches!(declared, Some(DataType::Literal(_)));
            let area = matches!(declared, Some(DataType::BoundingBox(_)));
            let Value::Reference { href, media_type, encoding, schema, headers, body, body_href, fetched } =
                &mut input.value
            else {
                continue;
            };
            let reference = Reference {
                href: href.clone(),
                body: body.clone().map(String::into_bytes),
                body_href: body_href.clone(),
                headers: headers.clone(),
                base64: encoding
                    .as_deref()
                    .is_some_and(|encoding| encoding.trim().eq_ignore_ascii_case("base64")),
            };
            let (file, shared) = self.results.scratch(id, n).await?;
            let unfetched = |source| Refusal::Reference { input: input.id.clone(), source };
            let bytes = match (references.fetch(&reference, within, &file).await, &limit) {
                (Err(FetchError::TooLarge { limit: reached, .. }), Some(limit)) if reached == limit.value => {
                    return Err(quota::too_large(&input.id, reached, limit.clone(), "give a smaller one"));
                }
                (fetched, _) => fetched.map_err(unfetched)?,
            };
            let content = match shared {
                Some(path) if !literal && !area => Content::Shared(SharedFile { path, bytes, sha256: None }),
                _ => {
                    if bytes > MAX_INLINE as u64 {
                        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
                        return Err(ResultsError::TooLarge {
                            input: input.id.clone(),
                            bytes,
                            limit: MAX_INLINE,
                        }
                        .into());
                    }
                    let data = tokio::fs::read(&file).await.map_err(|source| ResultsError::Io {
                        what: "read",
                        path: file,
                        source,
                    })?;
                    String::from_utf8(data).map_or_else(|no| Content::Bytes(no.into_bytes()), Content::Text)
                }
            };
            let media_type = media_type.clone();
            let value = match content {
                Content::Text(text) if area => within
                    .bounding_box(&input.id, text.as_bytes())
                    .map_err(|why| Refusal::Mismatch(Mismatch::BadValue { input: input.id.clone(), why }))?,
                // A text file ends with a line break; the value that it holds does not.
                Content::Text(text) if literal => Value::literal(text.strip_suffix('\n').unwrap_or(&text)),
                content => Value::Complex { content, media_type, schema: schema.clone() },
            };
            *fetched = Some(Box::new(value));
        }
        for input in inputs.iter() {
            matching::fit_fetched(description, input)?;
        }
        *inputs = self.results.stage_inputs(id, std::mem::take(inputs)).await?;
        if new.form.lineage {
            self.results.keep_inputs(id, &new.inputs).await?;
        }
        Ok(())
    }

    /// The job as it is now, or `None` if there is no such job (any more).
    pub async fn view(&self, id: JobId) -> Result<Option<Arc<Job>>, Refusal> {
        if let Some(job) = self.watch(id) {
            let job = job.borrow().clone();
            if !matches!(job.state, JobState::Accepted { .. }) {
                return Ok(Some(job));
            }
            // Why it waits changes all the time: it is worked out when somebody wants to know.
            let waiting = self.explained(id).await.and_then(|explained| explained.waiting);
            let Some(waiting) = waiting else { return Ok(Some(job)) };
            let state = JobState::Accepted { waiting };
            return Ok(Some(Arc::new(Job { state, ..job.as_ref().clone() })));
        }
        Ok(self.store.load(id).await?.map(Arc::new))
    }

    /// The same for somebody who wants a result. Another node tells of a job's end as soon as it is stored, which can be a
    /// moment before it shows here.
    pub async fn view_ended(&self, id: JobId) -> Result<Option<Arc<Job>>, Refusal> {
        match self.view(id).await? {
            Some(job) if !job.state.is_final() && self.store.is_shared() => {
                Ok(self.store.load(id).await?.map(Arc::new))
            }
            job => Ok(job),
        }
    }

    async fn explained(&self, id: JobId) -> Option<Explanation> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(Command::Explain { id, reply }).await.ok()?;
        tokio::time::timeout(EXPLAIN, answer).await.ok()?.ok()?
    }

    /// Why a job waits, or runs where it runs: the first line for whom it belongs to, the others, which name agents and figures,
    /// for operators.
    pub async fn explain(&self, job: &Job) -> Vec<String> {
        match self.explained(job.id).await {
            Some(explained) => explained.lines,
            None if job.state.is_final() || !self.store.is_shared() => vec![sentence(job, None)],
            None => vec![
                sentence(job, None),
                "another orchestrator of this installation has the job, and knows more".to_owned(),
            ],
        }
    }

    /// Takes an agent out of service (nothing new is sent to it, what it runs goes on), for this reason, or back into it.
    pub async fn drain(&self, agent: &str, drain: Option<String>) -> Result<(), Refusal> {
        let agent = AgentId::new(agent);
        let (reply, answer) = oneshot::channel();
        self.commands.send(Command::Drain { agent, drain, reply }).await.map_err(|_| Refusal::Stopping)?;
        Ok(answer.await.map_err(|_| Refusal::Stopping)??)
    }

    /// How much each user may ask for.
    pub fn limits(&self) -> &LimitRules {
        &self.limits
    }

    /// How many jobs of a user there are, and how much is kept for it.
    pub async fn usage(&self, user: &UserId) -> Result<Usage, Refusal> {
        Ok(self.store.usage(user).await?)
    }

    /// Waits until the job has ended, at most `limit`; then the job as it is.
    pub async fn wait(&self, id: JobId, limit: Duration) -> Result<Option<Arc<Job>>, Refusal> {
        let until = Instant::now() + limit;
        loop {
            if let Some(mut job) = self.watch(id) {
                let ended = tokio::time::timeout_at(until, job.wait_for(|job| job.state.is_final())).await;
                if let Ok(Ok(job)) = ended {
                    return Ok(Some(job.clone()));
                }
            }
            let job = match self.view(id).await {
                // A database that is away for a moment is no news about the job.
                Err(error) if error.passes() && Instant::now() < until => {
                    tokio::time::sleep(LOOK.min(until - Instant::now())).await;
                    continue;
                }
                known => known?,
            };
            // Another node may have it, now or from the start: then only the store tells.
            let over = job.as_ref().is_none_or(|job| job.state.is_final());
            if over || Instant::now() >= until || !self.store.is_shared() {
                return Ok(job);
            }
            tokio::time::sleep(LOOK.min(until - Instant::now())).await;
        }
    }

    /// Gives a job up. The job afterwards, or `None` if there is no such job. A job that has ended stays as it is.
    pub async fn dismiss(&self, id: JobId) -> Result<Option<Arc<Job>>, Refusal> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(Command::Dismiss { id, reply }).await.map_err(|_| Refusal::Stopping)?;
        match self.unless_store_fails(answer).await?.map_err(|_| Refusal::Stopping)? {
            Some(job) => Ok(Some(job)),
            None => self.dismiss_elsewhere(id).await,
        }
    }

    /// Gives up a job that this node does not own. If the owner has died, whoever takes the job over carries it out.
    async fn dismiss_elsewhere(&self, id: JobId) -> Result<Option<Arc<Job>>, Refusal> {
        let Some(mut job) = self.view(id).await? else { return Ok(None) };
        if !self.store.is_shared() || job.state.is_final() {
            return Ok(Some(job));
        }
        self.store.ask_dismissal(id).await?;
        let until = Instant::now() + ELSEWHERE;
        while !matches!(job.state, JobState::Dismissing { .. }) && !job.state.is_final() {
            if Instant::now() >= until {
                // It is stored that it is given up: that is what the client is told, and what will be.
                let mut given_up = job.as_ref().clone();
                let since = given_up.created;
                given_up.state = match given_up.state.execution().cloned() {
                    Some(execution) => JobState::Dismissing { execution, since },
                    None => JobState::Dismissed { finished: since, receipt: None },
                };
                return Ok(Some(Arc::new(given_up)));
            }
            tokio::time::sleep(LOOK).await;
            match self.view(id).await? {
                Some(now) => job = now,
                None => return Ok(None),
            }
        }
        Ok(Some(job))
    }

    /// Forgets a job that has ended, with its results. One that has not ended stays.
    pub async fn remove(&self, id: JobId) -> Result<(), Refusal> {
        if self.view(id).await?.is_some_and(|job| job.state.is_final()) {
            self.store.remove(&[id]).await?;
            self.results.discard(id).await;
        }
        Ok(())
    }

    /// Newest jobs first, of one owner or of all, at most `limit`.
    pub async fn list(&self, owner: Option<&UserId>, limit: u32) -> Result<Vec<Job>, Refusal> {
        let mut jobs = self.store.list(owner, limit).await?;
        let waits = |job: &&Job| matches!(job.state, JobState::Accepted { .. });
        let ids: Vec<JobId> = jobs.iter().filter(waits).map(|job| job.id).take(EXPLAINED).collect();
        if !ids.is_empty() {
            let (reply, answer) = oneshot::channel();
            let asked = self.commands.send(Command::Waiting { ids, reply }).await;
            if asked.is_ok()
                && let Ok(Ok(reasons)) = tokio::time::timeout(EXPLAIN, answer).await
            {
                for job in &mut jobs {
                    if let (JobState::Accepted { waiting }, Some(now)) =
                        (&mut job.state, reasons.get(&job.id))
                    {
                        *waiting = now.clone();
                    }
                }
            }
        }
        Ok(jobs)
    }

    fn watch(&self, id: JobId) -> Option<watch::Receiver<Arc<Job>>> {
        self.live.read().unwrap_or_else(|poisoned| poisoned.into_inner()).get(&id).cloned()
    }
}

/// 128 bits that nobody can guess: whoever knows the id of a job of nobody in particular may read its results.
fn new_job_id() -> JobId {
    JobId::new(uuid::Uuid::from_bytes(rand::random()))
}
