//! The store's contract, told over a real database file.

use super::*;
use crate::engine::job::{Form, JobState, UserId, Waiting};

pub(crate) fn job(n: u128) -> Job {
    let description = serde_json::from_value(serde_json::json!({
        "id": "a:b", "title": "a.b",
        "outputs": [{"id": "result", "data": {"literal": {"kind": "string"}}}]
    }))
    .unwrap();
    Job {
        id: JobId::new(uuid::Uuid::from_u128(n)),
        process: "a:b".parse().unwrap(),
        description,
        owner: UserId::anonymous(),
        inputs: vec![],
        form: Form::default(),
        created: Timestamp(n as u64),
        started: None,
        state: JobState::Accepted { waiting: Waiting::Turn },
        log: vec![],
        expires: None,
        attempts: 0,
        version: 1,
    }
}

async fn open(path: &Path) -> Store {
    Store::sqlite(path, Durability::Full).await.unwrap()
}

#[tokio::test]
async fn what_was_saved_is_there_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("jobs.sqlite");
    let store = open(&path).await;
    let mut ended = job(2);
    ended.state = JobState::Dismissed { finished: Timestamp(9), receipt: None };
    store.save(&[job(1), ended.clone()]).await.unwrap();
    store.close().await;
    let store = open(&path).await;
    assert_eq!(store.load(job(1).id).await.unwrap(), Some(job(1)));
    assert_eq!(store.load(job(7).id).await.unwrap(), None);
    assert_eq!(store.active().await.unwrap().0, [job(1)]);
    assert_eq!(store.list(10).await.unwrap(), [ended.clone(), job(1)]);
    assert_eq!(store.expired(Timestamp(9), 10).await.unwrap(), []);
    assert_eq!(store.expired(Timestamp(10), 10).await.unwrap(), [ended.id]);
    store.remove(&[ended.id]).await.unwrap();
    assert_eq!(store.counts().await.unwrap(), [("accepted".to_string(), 1)]);
    store.close().await;
}

#[tokio::test]
async fn neither_an_older_nor_a_final_job_is_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder.path().join("jobs.sqlite")).await;
    let mut newer = job(1);
    newer.version = 5;
    newer.attempts = 3;
    store.save(&[newer.clone()]).await.unwrap();
    store.save(&[job(1)]).await.unwrap();
    assert_eq!(store.load(newer.id).await.unwrap().unwrap(), newer);
    newer.version = 6;
    newer.state = JobState::Dismissed { finished: Timestamp(9), receipt: None };
    store.save(&[newer.clone()]).await.unwrap();
    let mut later = job(1);
    later.version = 7;
    store.save(&[later]).await.unwrap();
    assert_eq!(store.load(newer.id).await.unwrap().unwrap(), newer);
    store.close().await;
}

#[tokio::test]
async fn a_broken_row_is_named_and_does_not_hide_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("jobs.sqlite");
    let store = open(&path).await;
    store.save(&[job(1), job(2)]).await.unwrap();
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&path);
    let pool = sqlx::sqlite::SqlitePool::connect_with(options).await.unwrap();
    sqlx::query("UPDATE jobs SET document = '{' WHERE created = 1").execute(&pool).await.unwrap();
    pool.close().await;
    let (jobs, broken) = store.active().await.unwrap();
    assert_eq!((jobs, broken.len()), (vec![job(2)], 1));
    assert!(broken[0].to_string().contains(&job(1).id.to_string()));
    store.close().await;
}

#[tokio::test]
async fn a_place_that_cannot_hold_a_store_is_named() {
    let error = Store::sqlite(Path::new("/proc/nowhere/jobs.sqlite"), Durability::Full).await.unwrap_err();
    assert!(error.to_string().contains("/proc/nowhere/jobs.sqlite"), "{error}");
}
