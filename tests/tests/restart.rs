//! No job is lost when the orchestrator goes away, orderly or not: ended jobs can still be asked for, running ones are
//! taken up again, waiting ones are sent.

use std::time::Duration;

use e2e::client::{Execute, Status, document, output};
use e2e::fixtures::{WAITING, descriptor};

const LONG: Duration = Duration::from_secs(30);

fn through_a_restart(name: &str, orderly: bool) {
    e2e::run(name, |site| {
        // The embedded XMPP server goes away with the orchestrator, and the agent says so.
        site.expect_warning("");
        let orchestrator = site.orchestrator().start();
        let agent = site
            .agent("a")
            .service("echo")
            .config("max_parallel_jobs = 1")
            .file("wait.ini", &descriptor("Wait", "wait.sh", ""))
            .file("wait.sh", WAITING)
            .start();
        orchestrator.wait_for(&["demo:Echo", "test:Wait"]);
        let mut wps = orchestrator.wps();
        let ended = wps.submit(&Execute::new("demo:Echo").literal("text", "kept").stored());
        assert_eq!(wps.wait(&ended), Status::Succeeded);
        let running = wps.submit(&Execute::new("test:Wait").stored());
        wps.wait_until(&running, LONG, |status| matches!(status, Status::Started(_)));
        let waiting = wps.submit(&Execute::new("test:Wait").stored());

        let orchestrator = if orderly { orchestrator.restart() } else { orchestrator.kill_and_restart() };
        let mut wps = orchestrator.wps();
        let response = document(&wps.fetch(&ended), "ExecuteResponse");
        assert_eq!(output(&response, "result_text").text_of("LiteralData"), Some("kept"));
        assert!(!wps.status(&running).is_final() && !wps.status(&waiting).is_final());

        // Within 10 seconds of the server's return the agent is back and its processes are listed.
        orchestrator
            .wait_until_offer(Duration::from_secs(10), "the processes again", |offer| offer.len() == 2);
        agent.write("release", "");
        assert_eq!(wps.wait(&running), Status::Succeeded);
        assert_eq!(wps.wait(&waiting), Status::Succeeded);
    });
}

#[test]
fn an_orderly_restart_of_the_orchestrator() {
    through_a_restart("orderly", true);
}

#[test]
fn a_killed_orchestrator() {
    through_a_restart("killed", false);
}
