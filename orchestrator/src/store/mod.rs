//! The job store: one row per job, in SQLite for one orchestrator or in PostgreSQL for several. Knows nothing of encodings,
//! HTTP or agents. Contract, the same for both:
//!
//! - what [`Store::save`] was given is durable when it returns; either all jobs of one call are stored or none; an older
//!   version of a job never replaces a newer one; a final job never changes;
//! - a job that has not ended has one owner, the node that stored or adopted it last. A node owns its jobs from
//!   [`Store::enter`] until another one has seen no beat of it for the time of a lease ([`Store::bury`]), or it leaves;
//! - a node that was buried, or that was started anew elsewhere under the same name, writes nothing any more: `save` fails with
//!   [`StoreError::Fenced`], before anything that the change would justify can happen.

mod nodes;
mod postgres;
mod sqlite;

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use thiserror::Error;

use wps_remote_protocol::AgentId;

use crate::engine::job::{Job, JobId, Timestamp, UserId};

pub use nodes::{Keeper, Lease, Node};
pub use postgres::PostgresOptions;

/// How hard a commit is pressed onto the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// Survives a power failure.
    #[default]
    Full,
    /// Survives a crash of the program, but the newest commits may be lost by a power failure.
    Normal,
}

/// Longest time that one operation may take; a database that hangs is like one that is not there.
const PATIENCE: Duration = Duration::from_secs(15);

/// Why the store did not do what it was asked for.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The database could not be opened or brought to today's schema.
    #[error("the job store `{path}` could not be opened")]
    Open {
        /// The database.
        path: String,
        /// The driver's reason.
        source: sqlx::Error,
    },
    /// The address of the database cannot be used.
    #[error("[store] url: {0}")]
    Address(String),
    /// The schema could not be brought up to date.
    #[error(
        "the schema of the job store `{path}` could not be brought up to date (was it written by a newer version?)"
    )]
    Migrate {
        /// The database.
        path: String,
        /// The driver's reason.
        source: sqlx::migrate::MigrateError,
    },
    /// A statement failed.
    #[error("the job store failed to {what}")]
    Database {
        /// What was being done.
        what: &'static str,
        /// The driver's reason.
        source: sqlx::Error,
    },
    /// No answer in time.
    #[error("the job store does not answer (for {} s)", PATIENCE.as_secs())]
    Silent,
    /// It has failed several times in a row.
    #[error("the job store cannot be written at present")]
    Unavailable,
    /// Another node owns the jobs of this one now.
    #[error("another orchestrator has taken the jobs of this one over")]
    Fenced,
    /// Another process of this node's name is in service.
    #[error("another orchestrator is in service under the same node name")]
    NameTaken,
    /// A row contradicts the model.
    #[error("job {id} is stored in a form that cannot be read")]
    Row {
        /// The job.
        id: String,
        /// The reader's reason.
        source: serde_json::Error,
    },
}

/// How many jobs are stored in each state, for metrics.
pub type Counts = Vec<(String, u64)>;

/// How many jobs of a user there are in all, and how much is kept for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Jobs at agents.
    pub running: u64,
    /// Jobs that wait.
    pub queued: u64,
    /// Jobs that have ended and are kept.
    pub ended: u64,
    /// Bytes of inputs and results.
    pub bytes: u64,
}

impl Usage {
    /// Everything that is kept.
    pub fn jobs(&self) -> u64 {
        self.running + self.queued + self.ended
    }

    fn sum(rows: Vec<(String, i64, i64)>) -> Self {
        let number = |n: i64| u64::try_from(n).unwrap_or(0);
        let mut usage = Self::default();
        for (state, jobs, bytes) in rows {
            usage.bytes += number(bytes);
            match state.as_str() {
                "created" | "accepted" => usage.queued += number(jobs),
                "dispatched" | "running" | "dismissing" => usage.running += number(jobs),
                _ => usage.ended += number(jobs),
            }
        }
        usage
    }
}

/// Active jobs of another node, of one user, role and process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// The node.
    pub node: i64,
    /// The user.
    pub owner: UserId,
    /// The role by whose limits they were accepted.
    pub role: Option<String>,
    /// The process.
    pub process: String,
    /// Whether they wait.
    pub queued: bool,
    /// How many.
    pub jobs: u32,
}

/// Agents that are out of service, and why.
pub type Drained = std::collections::BTreeMap<AgentId, String>;

/// Jobs that could be read, and what is wrong with the others.
pub type Readable = (Vec<Job>, Vec<StoreError>);

#[derive(Debug, Clone)]
enum Adapter {
    Sqlite(sqlite::Sqlite),
    Postgres(postgres::Postgres),
}

/// The store. Cheap to clone; all clones act for the same node.
#[derive(Debug, Clone)]
pub struct Store {
    adapter: Adapter,
    lease: Arc<Mutex<Lease>>,
}

/// Does the same with either adapter, within the time that an operation may take.
macro_rules! either {
    ($self:ident, $adapter:ident => $call:expr) => {
        tokio::time::timeout(PATIENCE, async {
            match &$self.adapter {
                Adapter::Sqlite($adapter) => $call.await,
                Adapter::Postgres($adapter) => $call.await,
            }
        })
        .await
        .unwrap_or(Err(StoreError::Silent))
    };
}

impl Store {
    fn new(adapter: Adapter) -> Self {
        Self { adapter, lease: Arc::default() }
    }

    /// Opens a SQLite database (WAL) and brings its schema up to date; creates it where there is none.
    pub async fn sqlite(path: &Path, durability: Durability) -> Result<Self, StoreError> {
        Ok(Self::new(Adapter::Sqlite(sqlite::Sqlite::open(path, durability).await?)))
    }

    /// Connects to a PostgreSQL database and brings its schema up to date.
    pub async fn postgres(options: &PostgresOptions) -> Result<Self, StoreError> {
        let opened = tokio::time::timeout(PATIENCE, postgres::Postgres::open(options)).await;
        Ok(Self::new(Adapter::Postgres(opened.unwrap_or(Err(StoreError::Silent))?)))
    }

    /// Whether several orchestrators can work on it.
    pub fn is_shared(&self) -> bool {
        matches!(self.adapter, Adapter::Postgres(_))
    }

    /// By what this node writes now.
    pub fn lease(&self) -> Lease {
        *self.lease.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Becomes the owner of all jobs of the node of this name, and of those that are stored from now on. An older process of
    /// the same name is fenced off.
    pub async fn enter(&self, name: &str) -> Result<(), StoreError> {
        let lease = either!(self, a => a.enter(name))?;
        *self.lease.lock().unwrap_or_else(PoisonError::into_inner) = lease;
        Ok(())
    }

    /// As [`Store::enter`], after this process was fenced off or has left: as a node without jobs.
    pub async fn enter_again(&self, name: &str) -> Result<(), StoreError> {
        let lease = either!(self, a => a.enter_again(name))?.ok_or(StoreError::NameTaken)?;
        *self.lease.lock().unwrap_or_else(PoisonError::into_inner) = lease;
        Ok(())
    }

    /// The jobs of this node that have not ended, oldest first. A row that cannot be read is left out and named in the second
    /// list.
    pub async fn active(&self) -> Result<Readable, StoreError> {
        let lease = self.lease();
        either!(self, a => a.active(lease)).map(readable)
    }

    /// A sign of life of this node; all nodes.
    pub async fn beat(&self) -> Result<Vec<Node>, StoreError> {
        let lease = self.lease();
        either!(self, a => a.beat(lease))
    }

    /// Declares a node dead, if its newest beat is still this one. Whether that was so.
    pub async fn bury(&self, node: &Node) -> Result<bool, StoreError> {
        either!(self, a => a.bury(node))
    }

    /// Becomes the owner of jobs that have none, at most `limit`. Of several nodes that do so at once each gets others.
    pub async fn adopt(&self, limit: u32) -> Result<Readable, StoreError> {
        let lease = self.lease();
        either!(self, a => a.adopt(lease, limit)).map(readable)
    }

    /// Gives all jobs of this node up, for others to adopt them.
    pub async fn leave(&self) -> Result<(), StoreError> {
        let lease = self.lease();
        either!(self, a => a.leave(lease))
    }

    /// Asks the owner of a job to give it up on behalf of a client.
    pub async fn ask_dismissal(&self, id: JobId) -> Result<(), StoreError> {
        either!(self, a => a.ask_dismissal(id))
    }

    /// Jobs of this node that clients of other nodes give up.
    pub async fn asked_dismissals(&self) -> Result<Vec<JobId>, StoreError> {
        let lease = self.lease();
        let ids = either!(self, a => a.asked_dismissals(lease))?;
        Ok(ids.iter().filter_map(|id| id.parse().ok()).collect())
    }

    /// Returns when another node has done something that may concern this one; with SQLite never.
    pub async fn woken(&self) {
        match &self.adapter {
            Adapter::Sqlite(_) => std::future::pending().await,
            Adapter::Postgres(postgres) => postgres.woken().await,
        }
    }

    /// Stores all jobs at once, as their owner.
    pub async fn save(&self, jobs: &[Job]) -> Result<(), StoreError> {
        if jobs.is_empty() {
            return Ok(());
        }
        let rows = jobs.iter().map(JobRow::new).collect::<Result<Vec<_>, _>>()?;
        let lease = self.lease();
        either!(self, a => a.save(lease, &rows))
    }

    /// One job.
    pub async fn load(&self, id: JobId) -> Result<Option<Job>, StoreError> {
        let document = either!(self, a => a.load(id))?;
        document.map(|document| parse(&id.to_string(), &document)).transpose()
    }

    /// The newest jobs, of one owner or of all, at most `limit`.
    pub async fn list(&self, owner: Option<&UserId>, limit: u32) -> Result<Vec<Job>, StoreError> {
        let owner = owner.map(|owner| owner.0.as_str());
        let rows = either!(self, a => a.list(owner, limit))?;
        rows.iter().map(|(id, document)| parse(id, document)).collect()
    }

    /// Jobs that ended before this moment, at most `limit`.
    pub async fn expired(&self, before: Timestamp, limit: u32) -> Result<Vec<JobId>, StoreError> {
        let ids = either!(self, a => a.expired(millis(before), limit))?;
        Ok(ids.iter().filter_map(|id| id.parse().ok()).collect())
    }

    /// Forgets jobs.
    pub async fn remove(&self, ids: &[JobId]) -> Result<(), StoreError> {
        let ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
        either!(self, a => a.remove(&ids))
    }

    /// New jobs whose clients were told that they were not accepted, because nobody knew whether they had been stored: none of
    /// them stays. One that another node has taken over meanwhile is given up there.
    pub async fn retract(&self, ids: &[JobId]) -> Result<(), StoreError> {
        let ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
        let lease = self.lease();
        either!(self, a => a.retract(lease, &ids))
    }

    /// How many jobs are stored in each state.
    pub async fn counts(&self) -> Result<Counts, StoreError> {
        let counts = either!(self, a => a.counts())?;
        Ok(counts.into_iter().map(|(state, n)| (state, u64::try_from(n).unwrap_or(0))).collect())
    }

    /// How many jobs of a user there are in all, and how much is kept for them.
    pub async fn usage(&self, owner: &UserId) -> Result<Usage, StoreError> {
        either!(self, a => a.usage(&owner.0)).map(Usage::sum)
    }

    /// Active jobs of all other nodes.
    pub async fn elsewhere(&self) -> Result<Vec<Group>, StoreError> {
        let lease = self.lease();
        let rows = either!(self, a => a.elsewhere(lease))?;
        let group = |(node, owner, role, process, queued, jobs): GroupRow| Group {
            node,
            owner: UserId(owner),
            role: Some(role).filter(|role| !role.is_empty()),
            process,
            queued: queued != 0,
            jobs: u32::try_from(jobs).unwrap_or(u32::MAX),
        };
        Ok(rows.into_iter().map(group).collect())
    }

    /// Takes an agent out of service for a reason, or back into it. Other nodes are told.
    pub async fn drain(&self, agent: &AgentId, why: Option<&str>) -> Result<(), StoreError> {
        either!(self, a => a.drain(agent.as_str(), why))
    }

    /// The agents that are out of service.
    pub async fn drained(&self) -> Result<Drained, StoreError> {
        let rows = either!(self, a => a.drained())?;
        Ok(rows.into_iter().map(|(agent, why)| (AgentId::new(agent), why)).collect())
    }

    /// Writes what is pending and closes all connections.
    pub async fn close(&self) {
        match &self.adapter {
            Adapter::Sqlite(sqlite) => sqlite.close().await,
            Adapter::Postgres(postgres) => postgres.close().await,
        }
    }
}

/// Node, owner, role, process, whether they wait, how many.
type GroupRow = (i64, String, String, String, i64, i64);

/// A job as its columns.
struct JobRow {
    id: String,
    process: String,
    owner: String,
    role: String,
    bytes: i64,
    created: i64,
    state: &'static str,
    finished: Option<i64>,
    version: i64,
    document: String,
}

impl JobRow {
    fn new(job: &Job) -> Result<Self, StoreError> {
        let document = serde_json::to_string(job)
            .map_err(|source| StoreError::Row { id: job.id.to_string(), source })?;
        Ok(Self {
            id: job.id.to_string(),
            process: job.process.to_string(),
            owner: job.owner.0.clone(),
            role: job.role.clone().unwrap_or_default(),
            bytes: i64::try_from(job.stored_bytes()).unwrap_or(i64::MAX),
            created: millis(job.created),
            state: job.state.name(),
            finished: job.finished().map(millis),
            version: i64::try_from(job.version).unwrap_or(i64::MAX),
            document,
        })
    }
}

fn failed(what: &'static str) -> impl FnOnce(sqlx::Error) -> StoreError {
    move |source| StoreError::Database { what, source }
}

fn millis(at: Timestamp) -> i64 {
    i64::try_from(at.0).unwrap_or(i64::MAX)
}

fn parse(id: &str, document: &str) -> Result<Job, StoreError> {
    serde_json::from_str(document).map_err(|source| StoreError::Row { id: id.to_owned(), source })
}

fn readable(rows: Vec<(String, String)>) -> Readable {
    let (mut jobs, mut unreadable) = (Vec::with_capacity(rows.len()), Vec::new());
    for (id, document) in rows {
        match parse(&id, &document) {
            Ok(job) => jobs.push(job),
            Err(error) => unreadable.push(error),
        }
    }
    (jobs, unreadable)
}

#[cfg(test)]
pub(crate) mod tests;
