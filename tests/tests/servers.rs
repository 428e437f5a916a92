//! The whole story over each XMPP server: embedded, Prosody, ejabberd; and a server that is killed and comes back.

use std::time::{Duration, Instant};

use e2e::client::{Execute, Status, document, output};
use e2e::fixtures::{HELLO, STUBBORN, WAITING, descriptor};
use e2e::program::processes_with;
use e2e::{tell, wait_until, xmpp};

const LONG: Duration = Duration::from_secs(30);

#[test]
fn the_same_story_over_every_server() {
    e2e::run_over_every_server("story", |site| {
        site.expect_warning("test:Victim");
        let orchestrator = site.orchestrator().start();
        let agent = site
            .agent("a")
            .config("kill_grace_seconds = 1")
            .service("echo")
            .service("sleep")
            .service("dem-statistics")
            .file("victim.ini", &descriptor("Victim", "victim.sh", ""))
            .file("victim.sh", STUBBORN)
            .file("hello.sh", HELLO)
            .start();
        orchestrator.wait_for(&["demo:Echo", "demo:Sleep", "demo:DemStatistics", "test:Victim"]);
        let mut wps = orchestrator.wps();

        // A dropped file shows, a removed one goes.
        agent.write("hello.ini", &descriptor("Hello", "hello.sh", ""));
        let prompt = Duration::from_secs(2);
        orchestrator
            .wait_until_offer(prompt, "the dropped file", |offer| offer.contains(&"test:Hello".to_owned()));
        assert_eq!(wps.execute(&Execute::new("test:Hello").raw("result")).text(), "hello");
        agent.remove("hello.ini");
        orchestrator
            .wait_until_offer(prompt, "the removed file", |offer| !offer.contains(&"test:Hello".to_owned()));

        // Text and file, as they are.
        let difficult = "Grüße \"quoted\" $(id) `id` <&> \u{1f5fa}";
        let answer = wps.execute(&Execute::new("demo:Echo").literal("text", difficult).raw("result_text"));
        assert_eq!(answer.text(), difficult);
        let large = "0123456789abcdef\n".repeat(50_000);
        let request = Execute::new("demo:Echo").literal("text", "x").complex("data", "text/plain", &large);
        assert!(wps.execute(&request.raw("result_file")).text() == large);

        // Asynchronous, with progress, by reference.
        let location = wps.submit(&Execute::new("demo:Sleep").literal("seconds", "2.5").stored());
        wps.wait_until(&location, LONG, |status| matches!(status, Status::Started(1..)));
        assert_eq!(wps.wait(&location), Status::Succeeded);
        let location = wps.submit(&Execute::new("demo:DemStatistics").stored_reference("result_histogram"));
        assert_eq!(wps.wait(&location), Status::Succeeded);
        let response = document(&wps.fetch(&location), "ExecuteResponse");
        let href = output(&response, "result_histogram")
            .find("Reference")
            .unwrap()
            .attribute("href")
            .unwrap()
            .to_owned();
        assert!(wps.fetch(&href).text().starts_with("from,to,cells\n"));

        // Dismissal reaches every process.
        let marker = agent.services().join("victim.sh").to_string_lossy().into_owned();
        let location = wps.submit(&Execute::new("test:Victim").stored());
        wps.wait_until(&location, LONG, |status| *status == Status::Started(50));
        assert_eq!(wps.dismiss(&location).status, 200);
        let gone = wait_until(Duration::from_secs(3), || processes_with(&marker).is_empty().then_some(()));
        assert!(gone.is_some(), "still there: {:?}", processes_with(&marker));
        assert!(matches!(wps.wait(&location), Status::Failed(_)));
    });
}

#[test]
fn a_server_that_is_killed_and_comes_back() {
    for server in xmpp::every_server("a_server_that_is_killed_and_comes_back") {
        let label = server.label();
        e2e::run_on(&format!("comes-back-{label}"), server, |site| {
            site.expect_warning("");
            let orchestrator = site.orchestrator().start();
            let agent = site
                .agent("a")
                .service("echo")
                .file("wait.ini", &descriptor("Wait", "wait.sh", ""))
                .file("wait.sh", WAITING)
                .start();
            orchestrator.wait_for(&["demo:Echo", "test:Wait"]);
            let mut wps = orchestrator.wps();
            let job = wps.submit(&Execute::new("test:Wait").stored());
            wps.wait_until(&job, LONG, |status| matches!(status, Status::Started(_)));

            site.bus().server().kill();
            let noticed =
                wait_until(LONG, || (orchestrator.metric("wps_xmpp_connected") == Some(0.0)).then_some(()));
            assert!(noticed.is_some(), "{label}: the orchestrator does not notice");
            // WPS goes on without the bus.
            assert!(!wps.status(&job).is_final());
            site.bus().server().restart();
            let start = Instant::now();
            let back = wait_until(Duration::from_secs(10), || {
                let ready =
                    orchestrator.metric("wps_xmpp_connected") == Some(1.0) && orchestrator.agents_present(1);
                (ready && wps.processes().is_ok_and(|offer| offer.len() == 2)).then_some(())
            });
            assert!(back.is_some(), "{label}: not back within 10 s");
            tell(&format!("{label}: processes listed again {:?} after the server", start.elapsed()));

            agent.write("release", "");
            assert_eq!(wps.wait(&job), Status::Succeeded);
            assert_eq!(
                wps.execute(&Execute::new("demo:Echo").literal("text", "back").raw("result_text")).text(),
                "back"
            );
        });
    }
}
