//! The driver with the test at the other ends of its channels: what is promised is stored first, what was stored is taken
//! up again.

use std::time::Duration;

use wps_remote_protocol::{Content, Input, Output, SharedFile, Value};

use super::*;
use crate::engine::job::{Failure, Form, JobState, UserId};
use crate::jobs::NewJob;
use crate::references::Policy;
use crate::store::Durability;
use crate::store::tests::{options, server::Postgres as Server};

struct World {
    folder: tempfile::TempDir,
    store: Store,
    jobs: Jobs,
    to_driver: mpsc::Sender<Inbound>,
    from_driver: mpsc::UnboundedReceiver<(AgentId, ToAgent)>,
    overview: watch::Receiver<Arc<Overview>>,
    shutdown: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl World {
    async fn new(folder: tempfile::TempDir) -> Self {
        let store = Store::sqlite(&folder.path().join("jobs.sqlite"), Durability::Full).await.unwrap();
        Self::over(folder, store).await
    }

    async fn over(folder: tempfile::TempDir, store: Store) -> Self {
        let results =
            Results::open(Some(folder.path().join("shared")), folder.path().join("results")).unwrap();
        let (to_driver, inbound) = mpsc::channel(64);
        let (outbound, from_driver) = mpsc::unbounded_channel();
        let shutdown = CancellationToken::new();
        let parts = Parts {
            limits: Limits { max_queued: 2, ..Limits::default() },
            base_url: "http://x/wps".into(),
            store: store.clone(),
            node: "n".into(),
            lease: Duration::from_secs(2),
            results,
            outbound,
            inbound,
            telemetry: Arc::default(),
            references: References::new(Policy::new(&["127.0.0.1".into()], &[]).unwrap()),
            aliases: [("org.example.Other", "a:b"), ("a:b", "x:y"), ("gone", "x:y")]
                .map(|(alias, id)| (alias.to_owned(), id.parse().unwrap()))
                .into(),
            limit_rules: Arc::default(),
        };
        let Handles { jobs, overview, task } = start(parts, shutdown.clone()).await.unwrap();
        Self { folder, store, jobs, to_driver, from_driver, overview, shutdown, task }
    }

    async fn stop(self) -> tempfile::TempDir {
        self.shutdown.cancel();
        self.task.await.unwrap();
        self.folder
    }

    async fn say(&self, message: FromAgent) {
        self.to_driver.send(Inbound::Message { agent: agent(), message }).await.unwrap();
    }

    /// An agent that holds these executions and offers `a:b`.
    async fn agent(&mut self, held: Vec<ExecutionId>) {
        let joined =
            Inbound::Joined { agent: agent(), software: "test 1".into(), account: None, cannot: &[] };
        self.to_driver.send(joined).await.unwrap();
        assert!(matches!(self.heard().await, ToAgent::Invite { .. }));
        let description = serde_json::from_value(serde_json::json!({
            "id": "a:b", "title": "a.b",
            "inputs": [{"id": "in", "occurs": {"min": 0, "max": 1}, "data": {"literal": {"kind": "integer"}}}],
            "outputs": [{"id": "result", "data": {"complex": {"formats": [{"media_type": "text/xml"}]}}}]
        }))
        .unwrap();
        self.say(FromAgent::Executions { held, unknown: vec![] }).await;
        self.say(FromAgent::Register(Box::new(description))).await;
        let load = serde_json::json!({"cpu_percent": 0.0, "memory_percent": 0.0, "cores": 2, "capacity": 100.0,
            "used": 0.0, "running": 0, "max_running": 1, "accepting": true});
        self.say(FromAgent::Load(serde_json::from_value(load).unwrap())).await;
        let mut catalogue = self.jobs.catalogue.clone();
        catalogue.wait_for(|c| c.processes.contains_key("a:b")).await.unwrap();
    }

    async fn heard(&mut self) -> ToAgent {
        tokio::time::timeout(Duration::from_secs(10), self.from_driver.recv()).await.unwrap().unwrap().1
    }
}

fn agent() -> AgentId {
    AgentId::new("a")
}

fn new(inputs: Vec<Input>) -> NewJob {
    NewJob { process: "a:b".into(), inputs, form: Form::default(), owner: UserId::anonymous(), role: None }
}

fn file_output(execution: &ExecutionId) -> Output {
    let file = SharedFile { path: format!("{execution}/result/r.xml"), bytes: 4, sha256: None };
    Output::new(
        "result",
        Value::Complex { content: Content::Shared(file), media_type: "text/xml".into(), schema: None },
    )
}

#[tokio::test]
async fn a_job_is_stored_before_it_is_answered_and_its_result_before_finish() {
    let mut w = World::new(tempfile::tempdir().unwrap()).await;
    w.agent(vec![]).await;
    let job = w.jobs.execute(new(vec![])).await.unwrap();
    assert!(w.store.load(job.id).await.unwrap().is_some());
    let ToAgent::Request(request) = w.heard().await else { panic!("a request was expected") };
    assert_eq!((&request.execution, request.base_url.as_str()), (&job.id.execution(1), "http://x/wps"));

    let execution = request.execution;
    let path = w.folder.path().join(format!("shared/{execution}/result"));
    std::fs::create_dir_all(&path).unwrap();
    std::fs::write(path.join("r.xml"), "<a/>").unwrap();
    w.say(FromAgent::Completed { execution: execution.clone(), outputs: vec![file_output(&execution)] })
        .await;
    assert_eq!(w.heard().await, ToAgent::Finish { execution });
    let stored = w.store.load(job.id).await.unwrap().unwrap();
    let JobState::Successful { outputs, .. } = &stored.state else { panic!("{:?}", stored.state) };
    let Value::Complex { content: Content::Shared(file), .. } = &outputs[0].value else { panic!() };
    assert_eq!(std::fs::read_to_string(w.jobs.results().path(file).unwrap()).unwrap(), "<a/>");
    let seen = w.jobs.wait(job.id, Duration::from_secs(10)).await.unwrap().unwrap();
    assert_eq!(seen.state, stored.state);
    w.stop().await;
}

#[tokio::test]
async fn an_alias_is_offered_beside_the_process_and_its_jobs_say_so() {
    let mut w = World::new(tempfile::tempdir().unwrap()).await;
    w.agent(vec![]).await;
    let offered = |w: &World| -> Vec<(String, String)> {
        let catalogue = w.jobs.catalogue();
        catalogue.processes.iter().map(|(id, process)| (id.clone(), process.identifier())).collect()
    };
    // An alias never hides a process, and one that stands for nothing is not offered.
    let both = ["a:b", "org.example.Other"].map(|id| (id.to_owned(), id.to_owned()));
    assert_eq!(offered(&w), both);
    let job = w.jobs.execute(NewJob { process: "org.example.Other".into(), ..new(vec![]) }).await.unwrap();
    let ToAgent::Request(request) = w.heard().await else { panic!("a request was expected") };
    assert_eq!(request.process.to_string(), "a:b");
    let stored = w.store.load(job.id).await.unwrap().unwrap();
    assert_eq!(stored.description.identifier(), "org.example.Other");
    w.say(FromAgent::Unregister("a:b".parse().unwrap())).await;
    let mut catalogue = w.jobs.catalogue.clone();
    let gone = catalogue.wait_for(|catalogue| catalogue.processes.is_empty());
    tokio::time::timeout(Duration::from_secs(10), gone).await.unwrap().unwrap();
    w.stop().await;
}

#[tokio::test]
async fn a_result_of_which_another_node_has_told_is_known_here_too() {
    let server = match Server::start() {
        Ok(server) => server,
        Err(why) => return eprintln!("SKIPPED: {why}"),
    };
    let store = Store::postgres(&options(&server)).await.unwrap();
    let mut w = World::over(tempfile::tempdir().unwrap(), store).await;
    w.agent(vec![]).await;
    let job = w.jobs.execute(new(vec![])).await.unwrap();
    // Stored, and not shown here yet: the moment between the two.
    let state = JobState::Successful { outputs: vec![], finished: Timestamp(1) };
    w.store.save(&[Job { state, version: job.version + 10, ..(*job).clone() }]).await.unwrap();
    assert!(!w.jobs.view(job.id).await.unwrap().unwrap().state.is_final());
    assert!(w.jobs.view_ended(job.id).await.unwrap().unwrap().state.is_final());
    w.stop().await;
}

#[tokio::test]
async fn results_that_cannot_be_read_fail_the_job_by_name() {
    let mut w = World::new(tempfile::tempdir().unwrap()).await;
    w.agent(vec![]).await;
    let job = w.jobs.execute(new(vec![])).await.unwrap();
    let execution = job.id.execution(1);
    w.say(FromAgent::Completed { execution: execution.clone(), outputs: vec![file_output(&execution)] })
        .await;
    let ended = w.jobs.wait(job.id, Duration::from_secs(10)).await.unwrap().unwrap();
    let JobState::Failed { failure: Failure::Results(why), .. } = &ended.state else {
        panic!("{:?}", ended.state)
    };
    assert!(why.contains("result") && why.contains("shared folder"), "{why}");
    w.stop().await;
}

#[tokio::test]
async fn after_a_restart_a_running_job_is_found_at_its_agent() {
    let mut w = World::new(tempfile::tempdir().unwrap()).await;
    w.agent(vec![]).await;
    let job = w.jobs.execute(new(vec![])).await.unwrap();
    let execution = job.id.execution(1);
    w.say(FromAgent::Progress { execution: execution.clone(), percent: 30.0, message: String::new() }).await;
    let mut watched = w.jobs.live.read().unwrap()[&job.id].clone();
    watched.wait_for(|job| job.percent() == 30).await.unwrap();
    let folder = w.stop().await;

    let mut w = World::new(folder).await;
    let seen = w.jobs.view(job.id).await.unwrap().unwrap();
    assert_eq!(seen.percent(), 30, "progress that was known before the orderly stop is stored");
    w.agent(vec![execution.clone()]).await;
    w.say(FromAgent::Completed { execution: execution.clone(), outputs: vec![] }).await;
    let ended = w.jobs.wait(job.id, Duration::from_secs(10)).await.unwrap().unwrap();
    assert!(matches!(ended.state, JobState::Successful { .. }));
    assert_eq!(w.heard().await, ToAgent::Finish { execution });
    w.stop().await;
}

#[tokio::test]
async fn what_a_crash_left_of_ended_jobs_in_the_shared_folder_is_removed_after_the_start() {
    let mut w = World::new(tempfile::tempdir().unwrap()).await;
    w.agent(vec![]).await;
    let [ended, active] =
        [w.jobs.execute(new(vec![])).await.unwrap(), w.jobs.execute(new(vec![])).await.unwrap()];
    w.say(FromAgent::Completed { execution: ended.id.execution(1), outputs: vec![] }).await;
    w.jobs.wait(ended.id, Duration::from_secs(10)).await.unwrap().unwrap();
    let folder = w.stop().await;
    let stranger = JobId::new(uuid::Uuid::from_u128(99));
    let made = [
        ended.id.execution(1).to_string(),
        ended.id.execution(2).to_string(),
        format!("in/{}", ended.id),
        active.id.execution(1).to_string(),
        format!("in/{}", active.id),
        stranger.execution(1).to_string(),
        format!("in/{stranger}"),
        "somebody-elses".to_owned(),
    ];
    let made = made.map(|name| folder.path().join("shared").join(name));
    for folder in &made {
        std::fs::create_dir_all(folder.join("result")).unwrap();
    }

    let w = World::new(folder).await;
    for _ in 0..500 {
        if made[..3].iter().all(|folder| !folder.exists()) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let left: Vec<bool> = made.iter().map(|folder| folder.exists()).collect();
    assert_eq!(left, [false, false, false, true, true, true, true, true]);
    w.stop().await;
}

#[tokio::test]
async fn dismissal_is_stored_and_the_agent_told() {
    let mut w = World::new(tempfile::tempdir().unwrap()).await;
    w.agent(vec![]).await;
    let job = w.jobs.execute(new(vec![])).await.unwrap();
    assert!(matches!(w.heard().await, ToAgent::Request(_)));
    let dismissed = w.jobs.dismiss(job.id).await.unwrap().unwrap();
    assert_eq!(dismissed.state.name(), "dismissing");
    assert_eq!(w.store.load(job.id).await.unwrap().unwrap().state.name(), "dismissing");
    assert_eq!(w.heard().await, ToAgent::Abort { execution: job.id.execution(1) });
    let waiting = w.jobs.execute(new(vec![])).await.unwrap();
    let waiting = w.jobs.dismiss(waiting.id).await.unwrap().unwrap();
    assert_eq!(waiting.state.name(), "dismissed");
    assert!(w.jobs.dismiss(JobId::new(uuid::Uuid::from_u128(1))).await.unwrap().is_none());
    w.stop().await;
}

#[tokio::test]
async fn what_does_not_fit_is_refused_before_anything_is_stored() {
    let mut w = World::new(tempfile::tempdir().unwrap()).await;
    w.agent(vec![]).await;
    let input = Input { id: "in".into(), value: Value::literal("1.5") };
    assert!(matches!(w.jobs.execute(new(vec![input])).await, Err(Refusal::Mismatch(_))));
    let unknown = NewJob { process: "a:c".into(), ..new(vec![]) };
    assert!(matches!(w.jobs.execute(unknown).await, Err(Refusal::NoSuchProcess(id)) if id == "a:c"));
    for _ in 0..3 {
        w.jobs.execute(new(vec![])).await.unwrap();
    }
    assert!(matches!(w.jobs.execute(new(vec![])).await, Err(Refusal::TooBusy { queued: 2 })));
    assert_eq!(w.store.list(None, 10).await.unwrap().len(), 3);
    w.stop().await;
}

#[tokio::test]
async fn an_input_by_reference_reaches_the_agent_as_its_value() {
    let mut w = World::new(tempfile::tempdir().unwrap()).await;
    w.agent(vec![]).await;
    let by = |href: &str| vec![Input { id: "in".into(), value: Value::reference(href, "") }];
    let job = w.jobs.execute(new(by("data:,42%0A"))).await.unwrap();
    let ToAgent::Request(request) = w.heard().await else { panic!("a request was expected") };
    assert_eq!(request.inputs, [Input { id: "in".into(), value: Value::literal("42") }]);
    assert!(
        matches!(&job.inputs[0].value, Value::Reference { href, .. } if href == "data:,42%0A"),
        "lineage"
    );
    assert!(matches!(w.jobs.execute(new(by("data:,x"))).await, Err(Refusal::Mismatch(_))));
    let refused = w.jobs.execute(new(by("http://10.0.0.1/"))).await.unwrap_err();
    assert!(matches!(&refused, Refusal::Reference { input, .. } if input == "in"), "{refused}");
    w.stop().await;
}

#[tokio::test]
async fn the_operator_sees_agents_and_jobs() {
    let mut w = World::new(tempfile::tempdir().unwrap()).await;
    w.agent(vec![]).await;
    w.jobs.execute(new(vec![])).await.unwrap();
    let mut overview = w.overview.clone();
    let ready = |o: &Arc<Overview>| o.active.get("dispatched") == Some(&1) && o.agents.len() == 1;
    let seen = tokio::time::timeout(Duration::from_secs(10), overview.wait_for(ready))
        .await
        .unwrap()
        .unwrap()
        .clone();
    assert_eq!(
        (seen.agents[0].software.as_str(), seen.agents[0].processes.as_slice()),
        ("test 1", ["a:b".to_string()].as_slice())
    );
    w.stop().await;
}
