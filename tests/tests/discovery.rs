//! What is on offer follows what lies in an agent's folder and which agents are there, without any restart.

use std::process::Command;
use std::time::{Duration, Instant};

use e2e::client::Execute;
use e2e::fixtures::{HELLO, descriptor};
use e2e::http::Http;
use e2e::program::binary;
use e2e::wait_until;

/// A dropped, changed or removed file shows within this time.
const PROMPT: Duration = Duration::from_secs(2);

#[test]
fn processes_come_and_go_with_their_agent() {
    e2e::run("come-and-go", |site| {
        let orchestrator = site.orchestrator().start();
        assert_eq!(orchestrator.wps().processes().unwrap(), Vec::<String>::new());
        let stopped = site.agent("a").service("echo").start();
        let killed = site.agent("b").service("sleep").start();
        orchestrator.wait_for(&["demo:Echo", "demo:Sleep"]);
        stopped.stop();
        orchestrator.wait_without(&["demo:Echo"]);
        site.expect_warning("b");
        killed.kill();
        orchestrator.wait_without(&["demo:Sleep"]);
    });
}

#[test]
fn dropped_changed_and_removed_files_show_within_two_seconds() {
    e2e::run("dropped", |site| {
        let orchestrator = site.orchestrator().start();
        let agent = site.agent("a").file("hello.sh", HELLO).service("echo").start();
        orchestrator.wait_for(&["demo:Echo"]);
        let mut wps = orchestrator.wps();

        agent.write("hello.ini", &descriptor("Hello", "hello.sh", ""));
        orchestrator
            .wait_until_offer(PROMPT, "the dropped file", |offer| offer.contains(&"test:Hello".to_owned()));
        assert_eq!(wps.execute(&Execute::new("test:Hello").raw("result")).text(), "hello");

        agent.write(
            "hello.ini",
            &descriptor("Hello", "hello.sh", "").replace("title = Hello", "title = Bonjour"),
        );
        let changed = wait_until(PROMPT, || {
            wps.get("request=GetCapabilities").text().contains("Bonjour").then_some(())
        });
        assert!(changed.is_some(), "the changed file did not show within {PROMPT:?}");

        agent.remove("hello.ini");
        orchestrator
            .wait_until_offer(PROMPT, "the removed file", |offer| !offer.contains(&"test:Hello".to_owned()));
        assert!(orchestrator.wps().processes().unwrap().contains(&"demo:Echo".to_owned()));
    });
}

#[test]
fn a_broken_edit_keeps_the_last_good_version_and_says_where() {
    e2e::run("broken", |site| {
        site.expect_warning("hello.ini");
        let orchestrator = site.orchestrator().start();
        let good = descriptor("Hello", "hello.sh", "");
        let agent = site.agent("a").file("hello.sh", HELLO).file("hello.ini", &good).start();
        orchestrator.wait_for(&["test:Hello"]);

        let broken = good.replace("max_running_time_seconds = 300", "max_running_time_seconds = soon");
        let line = broken.lines().position(|line| line.contains("soon")).unwrap() + 1;
        agent.write("hello.ini", &broken);
        let told = wait_until(Duration::from_secs(5), || {
            let log = agent.program().log();
            log.lines()
                .any(|l| {
                    l.contains(&format!("hello.ini, line {line}:"))
                        && l.contains("max_running_time_seconds")
                        && l.contains("soon")
                })
                .then_some(())
        });
        assert!(told.is_some(), "no line names file, line and key:\n{}", agent.program().tail());
        assert_eq!(orchestrator.wps().execute(&Execute::new("test:Hello").raw("result")).text(), "hello");

        agent.write("hello.ini", &good.replace("title = Hello", "title = Repaired"));
        let mut wps = orchestrator.wps();
        let shows = wait_until(PROMPT, || {
            wps.get("request=GetCapabilities").text().contains("Repaired").then_some(())
        });
        assert!(shows.is_some(), "the repaired file did not show");
    });
}

#[test]
fn a_hundred_descriptors_are_announced_within_three_seconds() {
    e2e::run("hundred", |site| {
        let orchestrator = site.orchestrator().start();
        let mut agent = site.agent("a").file("hello.sh", HELLO);
        for number in 0..100 {
            let service = format!("Hello{number:03}");
            agent = agent.file(&format!("{service}.ini"), &descriptor(&service, "hello.sh", ""));
        }
        let start = Instant::now();
        let _agent = agent.start();
        orchestrator.wait_until_offer(Duration::from_secs(3), "100 processes", |offer| offer.len() == 100);
        e2e::tell(&format!("100 descriptors on offer {:?} after the start of the agent", start.elapsed()));
    });
}

#[test]
fn a_service_without_its_program_is_held_back() {
    e2e::run("held-back", |site| {
        site.expect_warning("ghost.ini");
        let orchestrator = site.orchestrator().start();
        let agent = site
            .agent("a")
            .service("echo")
            .file("ghost.ini", &descriptor("Ghost", "no-such-program-anywhere", ""))
            .start();
        orchestrator.wait_for(&["demo:Echo"]);
        assert!(!orchestrator.wps().processes().unwrap().contains(&"test:Ghost".to_owned()));
        let told = wait_until(Duration::from_secs(5), || {
            agent.program().log().lines().any(|l| l.contains("no-such-program-anywhere")).then_some(())
        });
        assert!(told.is_some(), "the agent does not say what is missing:\n{}", agent.program().tail());
    });
}

#[test]
fn agents_that_describe_a_process_differently_are_told_to_the_operator() {
    e2e::run("conflict", |site| {
        site.expect_warning("describes a process otherwise");
        let orchestrator = site.orchestrator().start();
        let hello = descriptor("Hello", "hello.sh", "");
        let _first = site.agent("a").file("hello.sh", HELLO).file("hello.ini", &hello).start();
        orchestrator.wait_for(&["test:Hello"]);
        let other = hello.replace("title = Hello", "title = Another");
        let second = site.agent("b").file("hello.sh", HELLO).file("hello.ini", &other).start();
        let differing = || {
            let agents = Http::new(orchestrator.address()).get("/agents").unwrap();
            let agents: serde_json::Value = serde_json::from_slice(&agents.body).unwrap();
            let agents = agents["agents"].as_array().unwrap().clone();
            agents.iter().filter(|agent| agent["conflicts"] == serde_json::json!(["test:Hello"])).count()
        };
        let shown = wait_until(PROMPT, || (differing() == 1).then_some(()));
        assert!(shown.is_some(), "/agents shows no conflict");
        let output = Command::new(binary("wps-orchestrator"))
            .args(["agents", "--at", &orchestrator.address().to_string()])
            .output()
            .unwrap();
        let table = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(table.contains("DIFFER"), "{table}");
        assert!(table.lines().any(|line| line.trim_end().matches("test:Hello").count() == 2), "{table}");
        let log = orchestrator.program().log();
        let told = log.lines().filter(|line| line.contains("describes a process otherwise")).count();
        assert_eq!(told, 1, "{log}");
        assert!(orchestrator.wps().get("request=GetCapabilities").text().contains(">Hello<"));

        second.write("hello.ini", &hello);
        let settled = wait_until(PROMPT, || (differing() == 0).then_some(()));
        assert!(settled.is_some(), "/agents still shows a conflict");
    });
}
