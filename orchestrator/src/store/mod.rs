//! The job store: one row per job. Contract: what [`Store::save`] was given is durable when it returns; either all jobs of
//! one call are stored or none; an older version of a job never replaces a newer one; a final job never changes.
//! Knows nothing of encodings, HTTP or agents.

mod sqlite;

use std::path::Path;

use thiserror::Error;

use crate::engine::job::{Job, JobId, Timestamp};

/// How hard a commit is pressed onto the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// Survives a power failure.
    #[default]
    Full,
    /// Survives a crash of the program, but the newest commits may be lost by a power failure.
    Normal,
}

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
    /// It has failed several times in a row.
    #[error("the job store cannot be written at present")]
    Unavailable,
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

/// The store. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Store {
    inner: sqlite::Sqlite,
}

impl Store {
    /// Opens a SQLite database (WAL) and brings its schema up to date; creates it where there is none.
    pub async fn sqlite(path: &Path, durability: Durability) -> Result<Self, StoreError> {
        Ok(Self { inner: sqlite::Sqlite::open(path, durability).await? })
    }

    /// Stores all jobs in one transaction.
    pub async fn save(&self, jobs: &[Job]) -> Result<(), StoreError> {
        if jobs.is_empty() { Ok(()) } else { self.inner.save(jobs).await }
    }

    /// One job.
    pub async fn load(&self, id: JobId) -> Result<Option<Job>, StoreError> {
        self.inner.load(id).await
    }

    /// All jobs that have not ended, oldest first. A row that cannot be read is left out and named in the second list.
    pub async fn active(&self) -> Result<(Vec<Job>, Vec<StoreError>), StoreError> {
        self.inner.active().await
    }

    /// The newest jobs, at most `limit`.
    pub async fn list(&self, limit: u32) -> Result<Vec<Job>, StoreError> {
        self.inner.list(limit).await
    }

    /// Jobs that ended before this moment, at most `limit`.
    pub async fn expired(&self, before: Timestamp, limit: u32) -> Result<Vec<JobId>, StoreError> {
        self.inner.expired(before, limit).await
    }

    /// Forgets jobs.
    pub async fn remove(&self, ids: &[JobId]) -> Result<(), StoreError> {
        self.inner.remove(ids).await
    }

    /// How many jobs are stored in each state.
    pub async fn counts(&self) -> Result<Counts, StoreError> {
        self.inner.counts().await
    }

    /// Writes what is pending and closes all connections.
    pub async fn close(&self) {
        self.inner.close().await;
    }
}

#[cfg(test)]
mod tests;
