//! The store on SQLite: one writing connection, a few reading ones, write-ahead log. Knows SQL and the schema only.

use std::path::Path;
use std::time::Duration;

use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{Row, SqlSafeStr};

use super::{Counts, Durability, StoreError};
use crate::engine::job::{Job, JobId, Timestamp};

#[derive(Debug, Clone)]
pub(super) struct Sqlite {
    writer: SqlitePool,
    readers: SqlitePool,
}

fn migrator() -> Migrator {
    let jobs = include_str!("../../migrations/sqlite/0001_jobs.sql").into_sql_str();
    Migrator::with_migrations(vec![Migration::new(1, "jobs".into(), MigrationType::Simple, jobs, false)])
}

fn failed(what: &'static str) -> impl FnOnce(sqlx::Error) -> StoreError {
    move |source| StoreError::Database { what, source }
}

impl Sqlite {
    pub(super) async fn open(path: &Path, durability: Durability) -> Result<Self, StoreError> {
        let name = || path.display().to_string();
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(match durability {
                Durability::Full => SqliteSynchronous::Full,
                Durability::Normal => SqliteSynchronous::Normal,
            })
            .busy_timeout(Duration::from_secs(10))
            // 2 MiB of page cache for each connection are plenty for rows that are read once.
            .pragma("cache_size", "-2000");
        let writer = SqlitePoolOptions::new()
            .max_connections(1)
            .connect_with(options.clone())
            .await
            .map_err(|source| StoreError::Open { path: name(), source })?;
        migrator().run(&writer).await.map_err(|source| StoreError::Migrate { path: name(), source })?;
        let readers = SqlitePoolOptions::new()
            .max_connections(3)
            .min_connections(0)
            .idle_timeout(Duration::from_secs(60))
            .connect_lazy_with(options.read_only(true).create_if_missing(false));
        Ok(Self { writer, readers })
    }

    pub(super) async fn save(&self, jobs: &[Job]) -> Result<(), StoreError> {
        let mut documents = Vec::with_capacity(jobs.len());
        for job in jobs {
            let json = serde_json::to_string(job)
                .map_err(|source| StoreError::Row { id: job.id.to_string(), source })?;
            documents.push(json);
        }
        let mut transaction = self.writer.begin().await.map_err(failed("begin a transaction"))?;
        for (job, document) in jobs.iter().zip(documents) {
            sqlx::query(
                "INSERT INTO jobs (id, process, owner, created, state, finished, version, document)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
                 ON CONFLICT (id) DO UPDATE SET state = ?5, finished = ?6, version = ?7, document = ?8
                 WHERE jobs.version < ?7 AND jobs.finished IS NULL",
            )
            .bind(job.id.to_string())
            .bind(job.process.to_string())
            .bind(&job.owner.0)
            .bind(millis(job.created))
            .bind(job.state.name())
            .bind(job.finished().map(millis))
            .bind(i64::try_from(job.version).unwrap_or(i64::MAX))
            .bind(document)
            .execute(&mut *transaction)
            .await
            .map_err(failed("store a job"))?;
        }
        transaction.commit().await.map_err(failed("commit"))
    }

    pub(super) async fn load(&self, id: JobId) -> Result<Option<Job>, StoreError> {
        let row = sqlx::query("SELECT document FROM jobs WHERE id = ?1")
            .bind(id.to_string())
            .fetch_optional(&self.readers)
            .await
            .map_err(failed("read a job"))?;
        row.map(|row| parse(&id.to_string(), row.get(0))).transpose()
    }

    pub(super) async fn active(&self) -> Result<(Vec<Job>, Vec<StoreError>), StoreError> {
        let rows = sqlx::query("SELECT id, document FROM jobs WHERE finished IS NULL ORDER BY created")
            .fetch_all(&self.readers)
            .await
            .map_err(failed("read the active jobs"))?;
        let (mut jobs, mut unreadable) = (Vec::with_capacity(rows.len()), Vec::new());
        for row in rows {
            match parse(row.get(0), row.get(1)) {
                Ok(job) => jobs.push(job),
                Err(error) => unreadable.push(error),
            }
        }
        Ok((jobs, unreadable))
    }

    pub(super) async fn list(&self, limit: u32) -> Result<Vec<Job>, StoreError> {
        let rows = sqlx::query("SELECT id, document FROM jobs ORDER BY created DESC LIMIT ?1")
            .bind(i64::from(limit))
            .fetch_all(&self.readers)
            .await
            .map_err(failed("list jobs"))?;
        rows.iter().map(|row| parse(row.get(0), row.get(1))).collect()
    }

    pub(super) async fn expired(&self, before: Timestamp, limit: u32) -> Result<Vec<JobId>, StoreError> {
        let rows = sqlx::query("SELECT id FROM jobs WHERE finished < ?1 ORDER BY finished LIMIT ?2")
            .bind(millis(before))
            .bind(i64::from(limit))
            .fetch_all(&self.readers)
            .await
            .map_err(failed("find expired jobs"))?;
        Ok(rows.iter().filter_map(|row| row.get::<&str, _>(0).parse().ok()).collect())
    }

    pub(super) async fn remove(&self, ids: &[JobId]) -> Result<(), StoreError> {
        let mut transaction = self.writer.begin().await.map_err(failed("begin a transaction"))?;
        for id in ids {
            sqlx::query("DELETE FROM jobs WHERE id = ?1")
                .bind(id.to_string())
                .execute(&mut *transaction)
                .await
                .map_err(failed("remove a job"))?;
        }
        transaction.commit().await.map_err(failed("commit"))
    }

    pub(super) async fn counts(&self) -> Result<Counts, StoreError> {
        let rows = sqlx::query("SELECT state, count(*) FROM jobs GROUP BY state")
            .fetch_all(&self.readers)
            .await
            .map_err(failed("count jobs"))?;
        Ok(rows.iter().map(|row| (row.get(0), u64::try_from(row.get::<i64, _>(1)).unwrap_or(0))).collect())
    }

    pub(super) async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }
}

fn millis(at: Timestamp) -> i64 {
    i64::try_from(at.0).unwrap_or(i64::MAX)
}

fn parse(id: &str, document: &str) -> Result<Job, StoreError> {
    serde_json::from_str(document).map_err(|source| StoreError::Row { id: id.to_owned(), source })
}
