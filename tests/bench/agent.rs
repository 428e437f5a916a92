//! The agent without network and orchestrator: one job after the other from the request to the ending, with all that is put
//! down on disk and a supervisor for each, against a bare spawn of the same program in between.

use std::ffi::OsString;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use e2e::program::binary;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use wps_remote_agent::execution::stdout::Verdict;
use wps_remote_agent::execution::{self, Begin, Event, Forks, Host, Prepared};
use wps_remote_agent::supervise::record::Launch;
use wps_remote_agent::workdir::{Control, Ending, LOG_FILE, Record};
use wps_remote_protocol::{ExecutionId, ProcessId};

/// Runs `jobs` of each, by turns; gives the durations of the bare ones and of the agent's.
pub fn measure(folder: &Path, jobs: usize) -> (Vec<Duration>, Vec<Duration>) {
    let runtime = tokio::runtime::Runtime::new().expect("threads can be started");
    runtime.block_on(async {
        let host = Arc::new(Host {
            control: Control::open(&folder.join("control")).expect("the folder is new"),
            supervisor: vec![OsString::from(binary("wps-remote-agent")), OsString::from("supervise")],
            shared: None,
            uploader: None,
            hidden_variables: vec![],
            forks: Forks::default(),
        });
        host.forks.keep(&host);
        let (mut bare, mut whole) = (Vec::new(), Vec::new());
        for number in 0..jobs + 20 {
            let begin = Instant::now();
            let status = Command::new("/bin/true").status().expect("/bin/true can be started");
            assert!(status.success());
            bare.push(begin.elapsed());
            let record = record(folder, number);
            let begin = Instant::now();
            one(&host, record).await;
            whole.push(begin.elapsed());
        }
        // The first ones find nothing warm.
        for times in [&mut bare, &mut whole] {
            times.drain(..20);
        }
        (bare, whole)
    })
}

async fn one(host: &Arc<Host>, record: Record) {
    let (sender, mut events) = mpsc::channel(16);
    let id = record.execution.clone();
    let folder = host.control.folder(&id);
    let begin = Begin::New(Box::new(move || {
        let rules = Box::new(|_: &str, _: bool| Verdict::Unmatched);
        Ok(Prepared { record, rules, fill: Box::new(|| Ok(())) })
    }));
    let run = tokio::spawn(execution::run(host.clone(), id, begin, CancellationToken::new(), sender));
    let mut last = None;
    while let Some((_, event)) = events.recv().await {
        last = Some(event);
    }
    run.await.expect("an execution does not panic");
    assert!(matches!(last, Some(Event::Ended(Ending::Completed(_)))), "{last:?}");
    folder.mark_finished().expect("the folder is there");
}

fn record(folder: &Path, number: usize) -> Record {
    let id = format!("job-{number}");
    let work_dir = folder.join("out").join(&id);
    Record {
        version: Record::VERSION,
        execution: ExecutionId::new(&id).expect("a simple name"),
        process: ProcessId::new("bench", "True").expect("simple names"),
        originator: "bench".to_owned(),
        base_url: String::new(),
        weight: 1.0,
        accepted_ms: 0,
        extra_dir: None,
        keep: false,
        launch: Launch {
            argv: vec!["/bin/true".to_owned()],
            cwd: work_dir.clone(),
            env: vec![],
            env_remove: vec![],
            stdin: None,
            log: work_dir.join(LOG_FILE),
            log_limit_bytes: 1 << 20,
            max_running_time_s: 3600,
            grace_ms: 1000,
            limits: Default::default(),
            run_as: None,
            cgroup: None,
        },
        work_dir,
        stdout_result: None,
        outputs: vec![],
        rules: serde_json::Value::Null,
    }
}
