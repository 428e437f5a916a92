//! What operators are told: the agent of an ended job, and a service that no longer tells its progress. Real programs.

use std::process::Command;
use std::time::Duration;

use e2e::client::Execute;
use e2e::program::binary;
use e2e::wait_until;

const DESCRIPTOR: &str = "[Description]\nservice = Steps\nnamespace = test\nexecutable = steps.sh\n\
                          [Output]\nresult = {\"file\": \"r\"}\n";

/// Prints its progress in the form that `word` begins.
fn script(word: &str) -> String {
    format!("#!/bin/sh\necho '{word}: 50'\nsleep 0.3\necho done > r\n")
}

#[test]
fn a_service_that_no_longer_tells_its_progress_is_noticed_also_after_a_restart() {
    e2e::run("habits", |site| {
        let orchestrator = site.orchestrator().start();
        let mut agent =
            site.agent("a").file("steps.ini", DESCRIPTOR).file("steps.sh", &script("progress")).start();
        orchestrator.wait_for(&["test:Steps"]);
        let mut wps = orchestrator.wps();
        for _ in 0..6 {
            assert_eq!(wps.execute(&Execute::new("test:Steps").raw("result")).text().trim(), "done");
        }
        // An agent that is stopped in order writes down what it knows.
        let file = agent.config_file().to_owned();
        agent = agent.stop_and_restart();
        assert!(file.with_file_name("running").join(".habits.json").exists());
        orchestrator.wait_for(&["test:Steps"]);
        agent.write("steps.sh", &script("Fortschritt"));
        let silent = wait_until(Duration::from_secs(20), || {
            // A job that happens to be quicker than all before is no evidence; the next one is.
            site.expect_warning("no line of the output told the progress");
            assert_eq!(wps.execute(&Execute::new("test:Steps").raw("result")).text().trim(), "done");
            agent.program().log().contains("although the last 6 jobs of test:Steps all did").then_some(())
        });
        assert!(silent.is_some(), "{}", agent.program().log());

        // Who asks for the jobs sees which agent it was, also of those that have ended.
        let jobs = Command::new(binary("wps-orchestrator"))
            .args(["jobs", "--at", &orchestrator.address().to_string()])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&jobs.stdout).into_owned();
        assert!(jobs.status.success(), "{said}");
        let ended: Vec<&str> = said.lines().filter(|line| line.contains("successful")).collect();
        assert!(ended.len() >= 7, "{said}");
        assert!(ended.iter().all(|line| line.contains("a@") || line.contains(" a ")), "{said}");
    });
}
