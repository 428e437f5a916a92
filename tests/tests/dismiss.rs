//! Dismissal ends the whole tree of a program, however hard it tries to stay, and leaves the rest of the system alone.

use std::time::{Duration, Instant};

use e2e::client::{Execute, Status};
use e2e::fixtures::{DAEMON, STUBBORN, WAITING, descriptor};
use e2e::program::processes_with;
use e2e::wait_until;

/// `kill_grace_seconds` in these tests.
const GRACE: Duration = Duration::from_secs(1);

/// Starts the script as a job, dismisses the job, and measures how long any process of it is left.
fn nothing_is_left_of(name: &str, script: &str, at_least: usize) {
    e2e::run(name, |site| {
        site.expect_warning("test:Victim");
        let orchestrator = site.orchestrator().start();
        let agent = site
            .agent("a")
            .config("kill_grace_seconds = 1")
            .file("victim.ini", &descriptor("Victim", "victim.sh", ""))
            .file("victim.sh", script)
            .start();
        orchestrator.wait_for(&["test:Victim"]);
        let mut wps = orchestrator.wps();
        let script = agent.services().join("victim.sh");
        let marker = script.to_string_lossy().into_owned();

        let location = wps.submit(&Execute::new("test:Victim").stored());
        wps.wait_until(&location, Duration::from_secs(20), |status| *status == Status::Started(50));
        let running = wait_until(Duration::from_secs(10), || {
            let running = processes_with(&marker);
            (running.len() >= at_least).then_some(running)
        });
        assert!(running.is_some(), "the program did not start its children: {:?}", processes_with(&marker));

        let start = Instant::now();
        assert_eq!(wps.dismiss(&location).status, 200);
        let gone =
            wait_until(GRACE + Duration::from_secs(10), || processes_with(&marker).is_empty().then_some(()));
        let took = start.elapsed();
        assert!(gone.is_some(), "still there: {:?}", processes_with(&marker));
        assert!(took < GRACE + Duration::from_secs(2), "the last process was gone after {took:?} only");

        let last = wps.wait(&location);
        assert!(
            matches!(&last, Status::Failed(text) if text.to_lowercase().contains("dismissed")),
            "{last:?}"
        );
        // The agent is free again.
        let location = wps.submit(&Execute::new("test:Victim").stored());
        wps.wait_until(&location, Duration::from_secs(20), |status| *status == Status::Started(50));
        assert_eq!(wps.dismiss(&location).status, 200);
        assert!(wps.wait(&location).is_final());
    });
}

#[test]
fn children_that_ignore_the_polite_signal() {
    nothing_is_left_of("stubborn", STUBBORN, 3);
}

#[test]
fn a_daemon_in_a_session_of_its_own() {
    if !e2e::installed("setsid") {
        return e2e::skip("a_daemon_in_a_session_of_its_own", "setsid is not installed");
    }
    nothing_is_left_of("daemon", DAEMON, 2);
}

#[test]
fn a_job_that_waits_in_the_queue_is_dismissed_at_once() {
    e2e::run("dismiss-queued", |site| {
        let orchestrator = site.orchestrator().start();
        let agent = site
            .agent("a")
            .config("max_parallel_jobs = 1")
            .file("wait.ini", &descriptor("Wait", "wait.sh", ""))
            .file("wait.sh", WAITING)
            .start();
        orchestrator.wait_for(&["test:Wait"]);
        let mut wps = orchestrator.wps();
        let first = wps.submit(&Execute::new("test:Wait").stored());
        wps.wait_until(&first, Duration::from_secs(20), |status| matches!(status, Status::Started(_)));
        let second = wps.submit(&Execute::new("test:Wait").stored());
        assert_eq!(wps.status(&second), Status::Accepted);
        assert_eq!(wps.dismiss(&second).status, 200);
        assert!(matches!(wps.wait(&second), Status::Failed(_)));
        // The other one does not notice.
        agent.write("release", "");
        assert_eq!(wps.wait(&first), Status::Succeeded);
    });
}
