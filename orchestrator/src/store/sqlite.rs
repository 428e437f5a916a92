//! The store on SQLite: one writing connection, a few reading ones, write-ahead log. Knows SQL and the schema only.

use std::path::Path;
use std::time::Duration;

use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{Row, SqlSafeStr, Sqlite as Db, Transaction};

use super::{Durability, GroupRow, JobRow, Lease, Node, StoreError, failed};
use crate::engine::job::JobId;

#[derive(Debug, Clone)]
pub(super) struct Sqlite {
    writer: SqlitePool,
    readers: SqlitePool,
}

fn migrator() -> Migrator {
    let jobs = include_str!("../../migrations/sqlite/0001_jobs.sql").into_sql_str();
    let nodes = include_str!("../../migrations/sqlite/0002_nodes.sql").into_sql_str();
    let shares = include_str!("../../migrations/sqlite/0003_shares.sql").into_sql_str();
    Migrator::with_migrations(vec![
        Migration::new(1, "jobs".into(), MigrationType::Simple, jobs, false),
        Migration::new(2, "nodes".into(), MigrationType::Simple, nodes, false),
        Migration::new(3, "shares".into(), MigrationType::Simple, shares, false),
    ])
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

    async fn begin(&self) -> Result<Transaction<'_, Db>, StoreError> {
        self.writer.begin().await.map_err(failed("begin a transaction"))
    }

    /// The one orchestrator that there is owns everything: no other process works on its data folder.
    pub(super) async fn enter(&self, name: &str) -> Result<Lease, StoreError> {
        let mut transaction = self.begin().await?;
        let (id, generation) = sqlx::query_as(
            "INSERT INTO nodes (name, generation, beat) VALUES (?1, 1, 0)
             ON CONFLICT (name) DO UPDATE SET generation = generation + 1, beat = beat + 1 RETURNING id, generation",
        )
        .bind(name)
        .fetch_one(&mut *transaction)
        .await
        .map_err(failed("enter"))?;
        for statement in [
            "DELETE FROM nodes WHERE id <> ?1",
            "UPDATE jobs SET node = ?1 WHERE finished IS NULL AND node <> ?1",
        ] {
            sqlx::query(statement).bind(id).execute(&mut *transaction).await.map_err(failed("enter"))?;
        }
        transaction.commit().await.map_err(failed("enter"))?;
        Ok(Lease { id, generation })
    }

    pub(super) async fn enter_again(&self, name: &str) -> Result<Option<Lease>, StoreError> {
        let entered: Option<(i64, i64)> = sqlx::query_as(
            "INSERT INTO nodes (name, generation, beat) VALUES ($1, 1, 0)
             ON CONFLICT (name) DO NOTHING RETURNING id, generation",
        )
        .bind(name)
        .fetch_optional(&self.writer)
        .await
        .map_err(failed("enter"))?;
        Ok(entered.map(|(id, generation)| Lease { id, generation }))
    }

    pub(super) async fn active(&self, lease: Lease) -> Result<Vec<(String, String)>, StoreError> {
        sqlx::query_as("SELECT id, document FROM jobs WHERE finished IS NULL AND node = ?1 ORDER BY created")
            .bind(lease.id)
            .fetch_all(&self.readers)
            .await
            .map_err(failed("read the active jobs"))
    }

    pub(super) async fn beat(&self, lease: Lease) -> Result<Vec<Node>, StoreError> {
        let beaten = sqlx::query("UPDATE nodes SET beat = beat + 1 WHERE id = ?1 AND generation = ?2")
            .bind(lease.id)
            .bind(lease.generation)
            .execute(&self.writer)
            .await
            .map_err(failed("give a sign of life"))?;
        if beaten.rows_affected() == 0 {
            return Err(StoreError::Fenced);
        }
        let rows: Vec<(i64, String, i64, i64)> =
            sqlx::query_as("SELECT id, name, generation, beat FROM nodes ORDER BY id")
                .fetch_all(&self.readers)
                .await
                .map_err(failed("see the other nodes"))?;
        Ok(rows.into_iter().map(|(id, name, generation, beat)| Node { id, name, generation, beat }).collect())
    }

    pub(super) async fn bury(&self, node: &Node) -> Result<bool, StoreError> {
        let buried = sqlx::query("DELETE FROM nodes WHERE id = ?1 AND generation = ?2 AND beat = ?3")
            .bind(node.id)
            .bind(node.generation)
            .bind(node.beat)
            .execute(&self.writer)
            .await
            .map_err(failed("declare a node dead"))?;
        Ok(buried.rows_affected() > 0)
    }

    pub(super) async fn adopt(&self, lease: Lease, limit: u32) -> Result<Vec<(String, String)>, StoreError> {
        sqlx::query_as(
            "UPDATE jobs SET node = ?1 WHERE id IN (
                 SELECT id FROM jobs WHERE finished IS NULL AND node NOT IN (SELECT id FROM nodes)
                 ORDER BY created LIMIT ?3)
               AND EXISTS (SELECT 1 FROM nodes WHERE id = ?1 AND generation = ?2)
             RETURNING id, document",
        )
        .bind(lease.id)
        .bind(lease.generation)
        .bind(i64::from(limit))
        .fetch_all(&self.writer)
        .await
        .map_err(failed("take jobs over"))
    }

    pub(super) async fn leave(&self, lease: Lease) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM nodes WHERE id = ?1 AND generation = ?2")
            .bind(lease.id)
            .bind(lease.generation)
            .execute(&self.writer)
            .await
            .map_err(failed("leave"))?;
        Ok(())
    }

    pub(super) async fn ask_dismissal(&self, id: JobId) -> Result<(), StoreError> {
        sqlx::query("UPDATE jobs SET dismiss = 1 WHERE id = ?1 AND finished IS NULL")
            .bind(id.to_string())
            .execute(&self.writer)
            .await
            .map_err(failed("ask for a dismissal"))?;
        Ok(())
    }

    pub(super) async fn asked_dismissals(&self, lease: Lease) -> Result<Vec<String>, StoreError> {
        sqlx::query_scalar(
            "SELECT id FROM jobs WHERE finished IS NULL AND node = ?1 AND dismiss AND state <> 'dismissing'",
        )
        .bind(lease.id)
        .fetch_all(&self.readers)
        .await
        .map_err(failed("look for dismissals"))
    }

    pub(super) async fn save(&self, lease: Lease, rows: &[JobRow]) -> Result<(), StoreError> {
        let mut transaction = self.begin().await?;
        let owner: Option<i64> = sqlx::query_scalar("SELECT id FROM nodes WHERE id = ?1 AND generation = ?2")
            .bind(lease.id)
            .bind(lease.generation)
            .fetch_optional(&mut *transaction)
            .await
            .map_err(failed("look at the lease"))?;
        if owner.is_none() {
            return Err(StoreError::Fenced);
        }
        for row in rows {
            sqlx::query(
                "INSERT INTO jobs (id, process, owner, created, state, finished, version, document, node, role, bytes)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)
                 ON CONFLICT (id) DO UPDATE SET state = ?5, finished = ?6, version = ?7, document = ?8, bytes = ?11
                 WHERE jobs.version < ?7 AND jobs.finished IS NULL AND jobs.node = ?9",
            )
            .bind(&row.id)
            .bind(&row.process)
            .bind(&row.owner)
            .bind(row.created)
            .bind(row.state)
            .bind(row.finished)
            .bind(row.version)
            .bind(&row.document)
            .bind(lease.id)
            .bind(&row.role)
            .bind(row.bytes)
            .execute(&mut *transaction)
            .await
            .map_err(failed("store a job"))?;
        }
        transaction.commit().await.map_err(failed("commit"))
    }

    pub(super) async fn load(&self, id: JobId) -> Result<Option<String>, StoreError> {
        sqlx::query_scalar("SELECT document FROM jobs WHERE id = ?1")
            .bind(id.to_string())
            .fetch_optional(&self.readers)
            .await
            .map_err(failed("read a job"))
    }

    pub(super) async fn list(
        &self,
        owner: Option<&str>,
        limit: u32,
    ) -> Result<Vec<(String, String)>, StoreError> {
        let query = match owner {
            Some(owner) => sqlx::query_as(
                "SELECT id, document FROM jobs WHERE owner = ?1 ORDER BY created DESC LIMIT ?2",
            )
            .bind(owner),
            None => sqlx::query_as("SELECT id, document FROM jobs ORDER BY created DESC LIMIT ?1"),
        };
        query.bind(i64::from(limit)).fetch_all(&self.readers).await.map_err(failed("list jobs"))
    }

    pub(super) async fn expired(&self, before: i64, limit: u32) -> Result<Vec<String>, StoreError> {
        sqlx::query_scalar("SELECT id FROM jobs WHERE finished < ?1 ORDER BY finished LIMIT ?2")
            .bind(before)
            .bind(i64::from(limit))
            .fetch_all(&self.readers)
            .await
            .map_err(failed("find expired jobs"))
    }

    pub(super) async fn remove(&self, ids: &[String]) -> Result<(), StoreError> {
        let mut transaction = self.begin().await?;
        for id in ids {
            sqlx::query("DELETE FROM jobs WHERE id = ?1")
                .bind(id)
                .execute(&mut *transaction)
                .await
                .map_err(failed("remove a job"))?;
        }
        transaction.commit().await.map_err(failed("commit"))
    }

    /// There is no other node.
    pub(super) async fn retract(&self, _lease: Lease, ids: &[String]) -> Result<(), StoreError> {
        self.remove(ids).await
    }

    pub(super) async fn counts(&self) -> Result<Vec<(String, i64)>, StoreError> {
        let rows = sqlx::query("SELECT state, count(*) FROM jobs GROUP BY state")
            .fetch_all(&self.readers)
            .await
            .map_err(failed("count jobs"))?;
        Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
    }

    pub(super) async fn usage(&self, owner: &str) -> Result<Vec<(String, i64, i64)>, StoreError> {
        sqlx::query_as(
            "SELECT state, count(*), CAST(coalesce(sum(bytes), 0) AS BIGINT) FROM jobs WHERE owner = $1 GROUP BY state",
        )
        .bind(owner)
        .fetch_all(&self.readers)
        .await
        .map_err(failed("count a user's jobs"))
    }

    pub(super) async fn elsewhere(&self, lease: Lease) -> Result<Vec<GroupRow>, StoreError> {
        sqlx::query_as(
            "SELECT node, owner, role, process, state IN ('created', 'accepted'), count(*)
             FROM jobs WHERE finished IS NULL AND node <> $1 GROUP BY 1, 2, 3, 4, 5",
        )
        .bind(lease.id)
        .fetch_all(&self.readers)
        .await
        .map_err(failed("count the jobs of other nodes"))
    }

    pub(super) async fn drain(&self, agent: &str, why: Option<&str>) -> Result<(), StoreError> {
        let done = match why {
            Some(why) => sqlx::query(
                "INSERT INTO drains (agent, why) VALUES (?1, ?2) ON CONFLICT (agent) DO UPDATE SET why = ?2",
            )
            .bind(agent)
            .bind(why)
            .execute(&self.writer)
            .await,
            None => {
                sqlx::query("DELETE FROM drains WHERE agent = ?1").bind(agent).execute(&self.writer).await
            }
        };
        done.map_err(failed("drain an agent")).map(|_| ())
    }

    pub(super) async fn drained(&self) -> Result<Vec<(String, String)>, StoreError> {
        sqlx::query_as("SELECT agent, why FROM drains")
            .fetch_all(&self.readers)
            .await
            .map_err(failed("look for drained agents"))
    }

    pub(super) async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }
}
