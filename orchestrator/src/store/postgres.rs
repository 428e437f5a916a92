//! The store on PostgreSQL: a small pool, single statements where one will do, and a listener that hears of what other nodes
//! do. Knows SQL and the schema only. A connection that broke is replaced; the driver repeats what failed.

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::postgres::{PgConnectOptions, PgListener, PgPool, PgPoolOptions};
use sqlx::{Row, SqlSafeStr};
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tracing::{debug, warn};

use super::{Durability, GroupRow, JobRow, Lease, Node, StoreError, failed};
use crate::engine::job::JobId;

/// On which nodes tell each other what they should look at.
const CHANNEL: &str = "wps_jobs";
/// Longest wait for a free or new connection.
const ACQUIRE: Duration = Duration::from_secs(5);
/// Pause before the listener connects again.
const LISTEN_AGAIN: Duration = Duration::from_secs(2);
/// Taken by whoever looks for jobs without an owner: an arbitrary number that is ours.
const ADOPTION_LOCK: i64 = 0x7770_735f_6a6f_6273;

/// How to reach the database.
#[derive(Debug, Clone)]
pub struct PostgresOptions {
    connect: PgConnectOptions,
    shown: String,
    /// Most connections at a time.
    pub max_connections: u32,
    /// How hard commits are pressed onto the disk.
    pub durability: Durability,
}

impl PostgresOptions {
    /// From a URL such as `postgres://user@host:5432/database?sslmode=verify-full`. The password comes apart from it, so that
    /// it appears in no configuration, log or message.
    pub fn new(url: &str, password: Option<&str>) -> Result<Self, StoreError> {
        let wrong = |why: String| StoreError::Address(why);
        let parsed = url::Url::parse(url).map_err(|error| wrong(format!("is no URL: {error}")))?;
        if !matches!(parsed.scheme(), "postgres" | "postgresql") {
            return Err(wrong("begins with postgres://".to_owned()));
        }
        if parsed.password().is_some() || parsed.query_pairs().any(|(key, _)| key == "password") {
            return Err(wrong(
                "holds a password; put that into `password_file`, `password_env` or `password`".to_owned(),
            ));
        }
        let mut connect = PgConnectOptions::from_str(url).map_err(|error| wrong(error.to_string()))?;
        connect = connect.application_name("wps-orchestrator").options([
            // What a stopped or cut-off node has left open must not hold up the others.
            ("idle_in_transaction_session_timeout", "10s"),
            ("lock_timeout", "5s"),
            ("statement_timeout", "60s"),
        ]);
        if let Some(password) = password {
            connect = connect.password(password);
        }
        Ok(Self { connect, shown: url.to_owned(), max_connections: 8, durability: Durability::Full })
    }

    /// The address, for messages.
    pub fn address(&self) -> &str {
        &self.shown
    }
}

#[derive(Debug)]
struct Listening(AbortHandle);

impl Drop for Listening {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[derive(Debug, Clone)]
pub(super) struct Postgres {
    pool: PgPool,
    woken: Arc<Notify>,
    listening: Arc<Listening>,
}

fn migrator() -> Migrator {
    let jobs = include_str!("../../migrations/postgres/0001_jobs.sql").into_sql_str();
    let shares = include_str!("../../migrations/postgres/0002_shares.sql").into_sql_str();
    Migrator::with_migrations(vec![
        Migration::new(1, "jobs".into(), MigrationType::Simple, jobs, false),
        Migration::new(2, "shares".into(), MigrationType::Simple, shares, false),
    ])
}

impl Postgres {
    pub(super) async fn open(options: &PostgresOptions) -> Result<Self, StoreError> {
        let commit = match options.durability {
            Durability::Full => "on",
            Durability::Normal => "off",
        };
        let connect = options.connect.clone().options([("synchronous_commit", commit)]);
        let pool = PgPoolOptions::new()
            // One of them listens.
            .max_connections(options.max_connections.max(2))
            .min_connections(0)
            .acquire_timeout(ACQUIRE)
            .idle_timeout(Duration::from_secs(300))
            .connect_with(connect)
            .await
            .map_err(|source| StoreError::Open { path: options.shown.clone(), source })?;
        // Takes an advisory lock: nodes that start together do it one after the other.
        migrator()
            .run(&pool)
            .await
            .map_err(|source| StoreError::Migrate { path: options.shown.clone(), source })?;
        let woken = Arc::new(Notify::new());
        let listening = tokio::spawn(listen(pool.clone(), woken.clone()));
        Ok(Self { pool, woken, listening: Arc::new(Listening(listening.abort_handle())) })
    }

    pub(super) async fn woken(&self) {
        self.woken.notified().await;
    }

    pub(super) async fn enter(&self, name: &str) -> Result<Lease, StoreError> {
        let (id, generation) = sqlx::query_as(
            "INSERT INTO nodes (name, generation, beat) VALUES ($1, 1, 0)
             ON CONFLICT (name) DO UPDATE SET generation = nodes.generation + 1, beat = nodes.beat + 1
             RETURNING id, generation",
        )
        .bind(name)
        .fetch_one(&self.pool)
        .await
        .map_err(failed("enter"))?;
        Ok(Lease { id, generation })
    }

    pub(super) async fn enter_again(&self, name: &str) -> Result<Option<Lease>, StoreError> {
        let entered: Option<(i64, i64)> = sqlx::query_as(
            "INSERT INTO nodes (name, generation, beat) VALUES ($1, 1, 0)
             ON CONFLICT (name) DO NOTHING RETURNING id, generation",
        )
        .bind(name)
        .fetch_optional(&self.pool)
        .await
        .map_err(failed("enter"))?;
        Ok(entered.map(|(id, generation)| Lease { id, generation }))
    }

    pub(super) async fn active(&self, lease: Lease) -> Result<Vec<(String, String)>, StoreError> {
        sqlx::query_as("SELECT id, document FROM jobs WHERE finished IS NULL AND node = $1 ORDER BY created")
            .bind(lease.id)
            .fetch_all(&self.pool)
            .await
            .map_err(failed("read the active jobs"))
    }

    pub(super) async fn beat(&self, lease: Lease) -> Result<Vec<Node>, StoreError> {
        let beaten = sqlx::query("UPDATE nodes SET beat = beat + 1 WHERE id = $1 AND generation = $2")
            .bind(lease.id)
            .bind(lease.generation)
            .execute(&self.pool)
            .await
            .map_err(failed("give a sign of life"))?;
        if beaten.rows_affected() == 0 {
            return Err(StoreError::Fenced);
        }
        let rows: Vec<(i64, String, i64, i64)> =
            sqlx::query_as("SELECT id, name, generation, beat FROM nodes ORDER BY id")
                .fetch_all(&self.pool)
                .await
                .map_err(failed("see the other nodes"))?;
        Ok(rows.into_iter().map(|(id, name, generation, beat)| Node { id, name, generation, beat }).collect())
    }

    /// Waits for a save that is under way: that one still counts.
    pub(super) async fn bury(&self, node: &Node) -> Result<bool, StoreError> {
        let buried = sqlx::query("DELETE FROM nodes WHERE id = $1 AND generation = $2 AND beat = $3")
            .bind(node.id)
            .bind(node.generation)
            .bind(node.beat)
            .execute(&self.pool)
            .await
            .map_err(failed("declare a node dead"))?;
        Ok(buried.rows_affected() > 0)
    }

    /// The lock makes sure that the search sees what those who searched before have taken.
    pub(super) async fn adopt(&self, lease: Lease, limit: u32) -> Result<Vec<(String, String)>, StoreError> {
        let mut transaction = self.pool.begin().await.map_err(failed("begin a transaction"))?;
        sqlx::query("SELECT pg_advisory_xact_lock($1)")
            .bind(ADOPTION_LOCK)
            .execute(&mut *transaction)
            .await
            .map_err(failed("take jobs over"))?;
        let taken = sqlx::query_as(
            "WITH me AS (SELECT id FROM nodes WHERE id = $1 AND generation = $2 FOR SHARE),
                  orphan AS (SELECT id FROM jobs WHERE finished IS NULL
                             AND NOT EXISTS (SELECT 1 FROM nodes WHERE nodes.id = jobs.node)
                             ORDER BY created LIMIT $3 FOR UPDATE)
             UPDATE jobs SET node = me.id FROM me, orphan WHERE jobs.id = orphan.id
             RETURNING jobs.id, jobs.document",
        )
        .bind(lease.id)
        .bind(lease.generation)
        .bind(i64::from(limit))
        .fetch_all(&mut *transaction)
        .await
        .map_err(failed("take jobs over"))?;
        transaction.commit().await.map_err(failed("take jobs over"))?;
        Ok(taken)
    }

    pub(super) async fn leave(&self, lease: Lease) -> Result<(), StoreError> {
        sqlx::query(
            "WITH gone AS (DELETE FROM nodes WHERE id = $1 AND generation = $2) SELECT pg_notify($3, 'left')",
        )
        .bind(lease.id)
        .bind(lease.generation)
        .bind(CHANNEL)
        .execute(&self.pool)
        .await
        .map_err(failed("leave"))?;
        Ok(())
    }

    pub(super) async fn ask_dismissal(&self, id: JobId) -> Result<(), StoreError> {
        sqlx::query(
            "WITH asked AS (UPDATE jobs SET dismiss = TRUE WHERE id = $1 AND finished IS NULL)
             SELECT pg_notify($2, 'dismiss')",
        )
        .bind(id.to_string())
        .bind(CHANNEL)
        .execute(&self.pool)
        .await
        .map_err(failed("ask for a dismissal"))?;
        Ok(())
    }

    pub(super) async fn asked_dismissals(&self, lease: Lease) -> Result<Vec<String>, StoreError> {
        sqlx::query_scalar(
            "SELECT id FROM jobs WHERE finished IS NULL AND node = $1 AND dismiss AND state <> 'dismissing'",
        )
        .bind(lease.id)
        .fetch_all(&self.pool)
        .await
        .map_err(failed("look for dismissals"))
    }

    /// One statement, so that it is one round trip. The shared lock on our own row keeps it from being removed, or taken by
    /// a newer process of this node, before this is committed.
    pub(super) async fn save(&self, lease: Lease, rows: &[JobRow]) -> Result<(), StoreError> {
        let column = |of: fn(&JobRow) -> &str| rows.iter().map(of).collect::<Vec<_>>();
        let number = |of: fn(&JobRow) -> i64| rows.iter().map(of).collect::<Vec<_>>();
        let (owner, foreign): (i64, i64) = sqlx::query_as(
            "WITH me AS (SELECT id FROM nodes WHERE id = $1 AND generation = $2 FOR SHARE),
                  new AS (SELECT * FROM UNNEST($3::text[], $4::text[], $5::text[], $6::bigint[], $7::text[],
                                               $8::bigint[], $9::bigint[], $10::text[], $11::text[], $12::bigint[])
                          AS t (id, process, owner, created, state, finished, version, document, role, bytes)),
                  stored AS (
                      INSERT INTO jobs (id, process, owner, created, state, finished, version, document, role, bytes, node)
                      SELECT new.*, me.id FROM new, me ORDER BY new.id
                      ON CONFLICT (id) DO UPDATE SET state = excluded.state, finished = excluded.finished,
                                                     version = excluded.version, document = excluded.document,
                                                     bytes = excluded.bytes
                      WHERE jobs.version < excluded.version AND jobs.finished IS NULL AND jobs.node = excluded.node)
             SELECT (SELECT count(*) FROM me),
                    (SELECT count(*) FROM jobs JOIN new ON jobs.id = new.id
                     WHERE jobs.node <> $1 AND jobs.finished IS NULL)",
        )
        .bind(lease.id)
        .bind(lease.generation)
        .bind(column(|row| &row.id))
        .bind(column(|row| &row.process))
        .bind(column(|row| &row.owner))
        .bind(number(|row| row.created))
        .bind(column(|row| row.state))
        .bind(rows.iter().map(|row| row.finished).collect::<Vec<_>>())
        .bind(number(|row| row.version))
        .bind(column(|row| &row.document))
        .bind(column(|row| &row.role))
        .bind(number(|row| row.bytes))
        .fetch_one(&self.pool)
        .await
        .map_err(failed("store jobs"))?;
        // The second cannot be as long as nobody adopts jobs of a living node; should it be, they are not ours.
        if owner == 0 || foreign > 0 { Err(StoreError::Fenced) } else { Ok(()) }
    }

    pub(super) async fn load(&self, id: JobId) -> Result<Option<String>, StoreError> {
        sqlx::query_scalar("SELECT document FROM jobs WHERE id = $1")
            .bind(id.to_string())
            .fetch_optional(&self.pool)
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
                "SELECT id, document FROM jobs WHERE owner = $1 ORDER BY created DESC LIMIT $2",
            )
            .bind(owner),
            None => sqlx::query_as("SELECT id, document FROM jobs ORDER BY created DESC LIMIT $1"),
        };
        query.bind(i64::from(limit)).fetch_all(&self.pool).await.map_err(failed("list jobs"))
    }

    pub(super) async fn expired(&self, before: i64, limit: u32) -> Result<Vec<String>, StoreError> {
        sqlx::query_scalar("SELECT id FROM jobs WHERE finished < $1 ORDER BY finished LIMIT $2")
            .bind(before)
            .bind(i64::from(limit))
            .fetch_all(&self.pool)
            .await
            .map_err(failed("find expired jobs"))
    }

    pub(super) async fn remove(&self, ids: &[String]) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM jobs WHERE id = ANY($1)")
            .bind(ids)
            .execute(&self.pool)
            .await
            .map_err(failed("remove jobs"))?;
        Ok(())
    }

    /// One of another node, or of nobody, is dismissed by whoever owns it then.
    pub(super) async fn retract(&self, lease: Lease, ids: &[String]) -> Result<(), StoreError> {
        sqlx::query(
            "WITH own AS (DELETE FROM jobs WHERE id = ANY($1) AND finished IS NULL AND node = $2),
                  others AS (UPDATE jobs SET dismiss = TRUE WHERE id = ANY($1) AND finished IS NULL AND node <> $2)
             SELECT pg_notify($3, 'dismiss')",
        )
        .bind(ids)
        .bind(lease.id)
        .bind(CHANNEL)
        .execute(&self.pool)
        .await
        .map_err(failed("take jobs back"))?;
        Ok(())
    }

    pub(super) async fn counts(&self) -> Result<Vec<(String, i64)>, StoreError> {
        let rows = sqlx::query("SELECT state, count(*) FROM jobs GROUP BY state")
            .fetch_all(&self.pool)
            .await
            .map_err(failed("count jobs"))?;
        Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
    }

    pub(super) async fn usage(&self, owner: &str) -> Result<Vec<(String, i64, i64)>, StoreError> {
        sqlx::query_as(
            "SELECT state, count(*), CAST(coalesce(sum(bytes), 0) AS BIGINT) FROM jobs WHERE owner = $1 GROUP BY state",
        )
        .bind(owner)
        .fetch_all(&self.pool)
        .await
        .map_err(failed("count a user's jobs"))
    }

    pub(super) async fn elsewhere(&self, lease: Lease) -> Result<Vec<GroupRow>, StoreError> {
        sqlx::query_as(
            "SELECT node, owner, role, process, CASE WHEN state IN ('created', 'accepted') THEN 1::bigint ELSE 0::bigint END, count(*)
             FROM jobs WHERE finished IS NULL AND node <> $1 GROUP BY 1, 2, 3, 4, 5",
        )
        .bind(lease.id)
        .fetch_all(&self.pool)
        .await
        .map_err(failed("count the jobs of other nodes"))
    }

    pub(super) async fn drain(&self, agent: &str, why: Option<&str>) -> Result<(), StoreError> {
        let done = match why {
            Some(why) => {
                sqlx::query(
                    "WITH drained AS (INSERT INTO drains (agent, why) VALUES ($1, $2)
                                      ON CONFLICT (agent) DO UPDATE SET why = excluded.why)
                     SELECT pg_notify($3, 'drain')",
                )
                .bind(agent)
                .bind(why)
                .bind(CHANNEL)
                .execute(&self.pool)
                .await
            }
            None => {
                sqlx::query(
                    "WITH back AS (DELETE FROM drains WHERE agent = $1) SELECT pg_notify($2, 'drain')",
                )
                .bind(agent)
                .bind(CHANNEL)
                .execute(&self.pool)
                .await
            }
        };
        done.map_err(failed("drain an agent")).map(|_| ())
    }

    pub(super) async fn drained(&self) -> Result<Vec<(String, String)>, StoreError> {
        sqlx::query_as("SELECT agent, why FROM drains")
            .fetch_all(&self.pool)
            .await
            .map_err(failed("look for drained agents"))
    }

    pub(super) async fn close(&self) {
        self.listening.0.abort();
        self.pool.close().await;
    }
}

/// Hears what other nodes announce, for ever; what is missed while there is no connection is found by polling.
async fn listen(pool: PgPool, woken: Arc<Notify>) {
    loop {
        match PgListener::connect_with(&pool).await {
            Ok(mut listener) => match listener.listen(CHANNEL).await {
                Ok(()) => {
                    debug!("listening to the other nodes");
                    while let Ok(Some(_)) = listener.try_recv().await {
                        woken.notify_one();
                    }
                }
                Err(error) => debug!(%error, "cannot listen to the other nodes"),
            },
            Err(sqlx::Error::PoolClosed) => return,
            Err(error) => warn!(%error, "the database cannot be reached; it is tried again"),
        }
        tokio::time::sleep(LISTEN_AGAIN).await;
    }
}
