//! Who gets what, with real programs and clients: every limit is reached and named, waiting jobs say why, an operator takes an
//! agent out of service, and a small fleet shares a burst.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, and so do its helpers")]

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::Duration;

use e2e::caller::{Caller, NAMED, cli};
use e2e::client::{Execute, Status, exception};
use e2e::fixtures::{WAITING, descriptor};
use e2e::wait_until;

const LONG: Duration = Duration::from_secs(30);
/// Writes two megabytes.
const BIG: &str = "#!/bin/sh\nhead -c 2000000 /dev/zero > result.txt\n";

/// Serves this many bytes to whoever asks, until the test ends.
fn bytes_at_an_address(size: usize) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/data", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 4096]);
            // Whoever has read enough closes.
            let _ = write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n");
            let _ = stream.write_all(&vec![b'x'; size]);
        }
    });
    url
}

#[test]
fn users_run_and_wait_as_many_jobs_as_they_may_and_are_told_why() {
    e2e::run("shares", |site| {
        let limits = "[limits]\nmax_queued = 5\nmax_running_per_user = 2\nmax_queued_per_user = 2\n";
        let orchestrator = site.orchestrator().config(NAMED).config(limits).start();
        let agent = site
            .agent("a")
            .config("agent_name = here\nmax_parallel_jobs = 3")
            .file("wait.ini", &descriptor("Wait", "wait.sh", ""))
            .file("wait.sh", WAITING)
            .start();
        orchestrator.wait_for(&["test:Wait"]);
        let [mut ann, mut bob, mut cem, mut dan] =
            ["ann", "bob", "cem", "dan"].map(|name| Caller::new(&orchestrator, name, "user"));
        let wait = || Execute::new("test:Wait").stored();

        let of_ann: Vec<String> = (0..4).map(|_| ann.submit("test:Wait")).collect();
        for job in &of_ann[..2] {
            ann.wait_for(job, "ProcessStarted");
        }
        ann.wait_for(
            &of_ann[2],
            "waiting: `ann` has 2 job(s) running, and `[limits] max_running_per_user` allows 2",
        );
        let (code, fault) = ann.refused(&wait());
        assert_eq!((code, fault.code.as_str()), (429, "ServerBusy"));
        assert!(
            fault.text.contains("`ann` has 2 job(s) waiting, and `[limits] max_queued_per_user` allows 2")
        );
        let retry = ann.execute(&wait());
        assert!(retry.header("retry-after").is_some_and(|pause| pause.parse::<u32>().is_ok()));

        let of_bob: Vec<String> = (0..3).map(|_| bob.submit("test:Wait")).collect();
        bob.wait_for(&of_bob[0], "ProcessStarted");
        let of_cem = cem.submit("test:Wait");
        cem.wait_for(&of_cem, "waiting: all agents that offer this process are busy");
        let (code, fault) = dan.refused(&wait());
        assert_eq!((code, fault.code.as_str()), (503, "ServerBusy"), "{}", fault.text);
        assert!(fault.text.contains("5 jobs are waiting already, which is the limit `[limits] max_queued`"));

        // Everybody sees what is used, and an operator of everybody.
        let usage: serde_json::Value = serde_json::from_slice(&ann.send("GET", "/usage", b"").body).unwrap();
        let at = |path: &str| usage.pointer(path).cloned().unwrap();
        assert_eq!((at("/running/jobs"), at("/running/limit/max")), (2.into(), 2.into()));
        assert_eq!(
            (at("/queued/jobs"), at("/queued/limit/setting")),
            (2.into(), "[limits] max_queued_per_user".into())
        );
        assert_eq!(ann.send("GET", "/usage?user=bob", b"").status, 403);
        let (done, said) = cli(&orchestrator, &["usage", "bob"]);
        assert!(done && said.contains("jobs waiting") && said.contains("max_queued_per_user"), "{said}");
        let (done, said) = cli(&orchestrator, &["jobs", "explain", &of_cem]);
        assert!(done && said.contains("`a@here` is busy: 3 of 3 jobs run"), "{said}");
        let explained = cem.send("GET", &format!("/jobs/{of_cem}/explain"), b"").text();
        assert!(explained.contains("are busy") && !explained.contains("3 of 3"), "{explained}");
        assert_eq!(bob.send("GET", &format!("/jobs/{of_cem}/explain"), b"").status, 404);
        let (_, said) = cli(&orchestrator, &["jobs", "explain", &of_ann[0]]);
        assert!(said.contains("at the agent `a@here`, which was chosen as the least loaded of 1"), "{said}");

        // Out of service, over a restart too.
        assert_eq!(ann.send("POST", "/agents/a%40here/drain", b"").status, 403);
        // What it says of the agent is the operator's view, which is renewed once a second.
        let drain = || cli(&orchestrator, &["agents", "drain", "a@here", "--reason", "a new disk"]);
        let drained = wait_until(LONG, || {
            let (done, said) = drain();
            (done && said.contains("3 job(s)")).then_some(())
        });
        assert!(drained.is_some(), "{:?}", drain());
        cem.wait_for(&of_cem, "(a@here is drained: a new disk)");
        // The agent is without its server for a moment.
        site.expect_warning("");
        let orchestrator = orchestrator.restart();
        orchestrator.wait_for(&["test:Wait"]);
        let [mut ann, mut bob, mut cem] =
            ["ann", "bob", "cem"].map(|name| Caller::new(&orchestrator, name, "user"));
        cem.wait_for(&of_cem, "(a@here is drained: a new disk)");
        // The operator's view is renewed once a second.
        let listed = || cli(&orchestrator, &["agents"]).1;
        let shown = wait_until(LONG, || listed().contains("no: drained: a new disk").then_some(()));
        assert!(shown.is_some(), "{}", listed());
        agent.write("release", "");
        for job in &of_ann[..2] {
            assert_eq!(ann.wait(job), Status::Succeeded);
        }
        assert_eq!(cem.status(&of_cem), Status::Accepted);
        assert!(!cli(&orchestrator, &["agents", "undrain", "nobody"]).0);
        let (done, said) = cli(&orchestrator, &["agents", "undrain", "a@here"]);
        assert!(done && said.starts_with("in service"), "{said}");
        for job in &of_ann[2..] {
            assert_eq!(ann.wait(job), Status::Succeeded);
        }
        for job in &of_bob {
            assert_eq!(bob.wait(job), Status::Succeeded);
        }
        assert_eq!(cem.wait(&of_cem), Status::Succeeded);
    });
}

#[test]
fn sizes_times_and_quotas_are_kept_and_named() {
    e2e::run("quotas", |site| {
        let roles = "[references]\nallow = 127.0.0.1\n\
            [role small]\nmax_request_mb = 2\nmax_input_inline_mb = 1\nmax_input_reference_mb = 1\nmax_output_mb = 1\n\
            sync_timeout_s = 1\n\
            [role few]\nmax_stored_jobs_per_user = 2\n[role little]\nmax_stored_mb_per_user = 1\n\
            [role bound]\nneeds = gpu\nmax_queue_time_s = 2\n[role hasty]\nmax_run_time_s = 1\n\
            [user eve]\nmax_total_time_s = 1\n";
        let orchestrator = site.orchestrator().config(NAMED).config(roles).start();
        let agent = site
            .agent("a")
            .service("echo")
            .file("wait.ini", &descriptor("Wait", "wait.sh", ""))
            .file("wait.sh", WAITING)
            .file("big.ini", &descriptor("Big", "big.sh", ""))
            .file("big.sh", BIG)
            .start();
        orchestrator.wait_for(&["test:Wait", "test:Big", "demo:Echo"]);
        site.expect_warning("");

        let mut sam = Caller::new(&orchestrator, "sam", "small");
        let echo = || Execute::new("demo:Echo").literal("text", "x");
        let of_size = |bytes: usize| echo().complex("data", "text/plain", &"x".repeat(bytes));
        for (bytes, locator, setting) in [
            (3 << 20, "", "[role small] max_request_mb"),
            (1_200_000, "data", "[role small] max_input_inline_mb"),
        ] {
            let (code, fault) = sam.refused(&of_size(bytes));
            assert_eq!(
                (code, fault.code.as_str(), fault.locator.as_str()),
                (400, "FileSizeExceeded", locator)
            );
            assert!(fault.text.contains(setting) && fault.text.contains("by reference"), "{}", fault.text);
        }
        let url = bytes_at_an_address(1_200_000);
        let by_reference = echo().complex("data", "text/plain", "HERE").to_xml().replace(
            "<wps:Data><wps:ComplexData mimeType=\"text/plain\">HERE</wps:ComplexData></wps:Data>",
            &format!(
                "<wps:Reference xmlns:xlink=\"http://www.w3.org/1999/xlink\" xlink:href=\"{url}\" mimeType=\"text/plain\"/>"
            ),
        );
        let fault = exception(&sam.send("POST", "/wps", by_reference.as_bytes()));
        assert_eq!(
            (fault.code.as_str(), fault.locator.as_str()),
            ("FileSizeExceeded", "data"),
            "{}",
            fault.text
        );
        assert!(
            fault.text.contains("`[role small] max_input_reference_mb` allows 1048576"),
            "{}",
            fault.text
        );
        // Somebody else may.
        let mut una = Caller::new(&orchestrator, "una", "user");
        assert_eq!(una.send("POST", "/wps", by_reference.as_bytes()).status, 200);

        let job = sam.submit("test:Big");
        let Status::Failed(why) = sam.wait(&job) else { panic!("too much was given out") };
        assert!(
            why.contains("they have 2000000 bytes, but `[role small] max_output_mb` allows 1048576"),
            "{why}"
        );
        let (code, fault) = sam.refused(&Execute::new("test:Wait").raw("result"));
        assert_eq!((code, fault.code.as_str()), (500, "NoApplicableCode"));
        assert!(fault.text.contains("(1 s, `[role small] sync_timeout_s`)"), "{}", fault.text);
        let (_, follow) = fault.text.split_once("executionId=").unwrap();
        sam.dismiss(follow.trim());

        let mut fay = Caller::new(&orchestrator, "fay", "few");
        let kept: Vec<String> = (0..2).map(|_| fay.submit("test:Big")).collect();
        for job in &kept {
            assert_eq!(fay.wait(job), Status::Succeeded);
        }
        let (code, fault) = fay.refused(&Execute::new("test:Big").stored());
        assert_eq!((code, fault.code.as_str()), (507, "NotEnoughStorage"));
        assert!(
            fault
                .text
                .contains("`fay` has 2 jobs stored, and `[role few] max_stored_jobs_per_user` allows 2"),
            "{}",
            fault.text
        );
        let mut lou = Caller::new(&orchestrator, "lou", "little");
        let big = lou.submit("test:Big");
        assert_eq!(lou.wait(&big), Status::Succeeded);
        let (code, fault) = lou.refused(&Execute::new("test:Big").stored());
        assert_eq!(code, 507);
        assert!(
            fault.text.contains("`[role little] max_stored_mb_per_user` allows 1048576"),
            "{}",
            fault.text
        );
        // What has ended can be given up, and then there is room.
        lou.send("GET", &format!("/wps?service=WPS&version=2.0.0&request=Dismiss&jobId={big}"), b"");
        assert_eq!(lou.execute(&echo()).status, 200, "there is room again");

        let mut gus = Caller::new(&orchestrator, "gus", "bound");
        let job = gus.submit("test:Wait");
        gus.wait_for(&job, "no agent that offers this process has the label `gpu`");
        let Status::Failed(why) = gus.wait(&job) else { panic!("it ran without its label") };
        assert!(
            why.contains("waited in the queue for 2 s, which is as long as `[role bound] max_queue_time_s`"),
            "{why}"
        );
        for (name, role, setting) in
            [("hal", "hasty", "[role hasty] max_run_time_s"), ("eve", "user", "[user eve] max_total_time_s")]
        {
            let mut caller = Caller::new(&orchestrator, name, role);
            let job = caller.submit("test:Wait");
            let Status::Failed(why) = caller.wait(&job) else { panic!("it ran as long as it liked") };
            assert!(why.contains(setting) && why.contains("1 s"), "{why}");
        }
        // Nothing of what was ended runs on.
        let script = agent.services().join("wait.sh");
        let marker = script.to_string_lossy();
        let ended = wait_until(LONG, || e2e::program::processes_with(&marker).is_empty().then_some(()));
        assert!(ended.is_some(), "programs of ended jobs still run");
    });
}

#[test]
fn labels_bind_jobs_to_agents() {
    e2e::run("labels", |site| {
        let orchestrator = site.orchestrator().config("[process test:*]\nneeds = gpu").start();
        let wait = descriptor("Wait", "wait.sh", "");
        let _plain = site.agent("plain").file("wait.ini", &wait).file("wait.sh", WAITING).start();
        let gpu = site
            .agent("gpu")
            .config("labels = gpu, big")
            .file("wait.ini", &wait)
            .file("wait.sh", WAITING)
            .start();
        orchestrator.wait_for(&["test:Wait"]);
        wait_until(LONG, || orchestrator.agents_present(2).then_some(())).expect("two agents");
        gpu.write("release", "");
        let mut wps = orchestrator.wps();
        for _ in 0..3 {
            let job = wps.submit(&Execute::new("test:Wait").stored());
            // The other agent's program would wait for ever.
            assert_eq!(wps.wait(&job), Status::Succeeded);
        }
        let listed = || cli(&orchestrator, &["agents"]).1;
        assert!(wait_until(LONG, || listed().contains("gpu big").then_some(())).is_some(), "{}", listed());
    });
}

#[test]
fn a_burst_is_shared_as_capacity_says_and_a_greedy_user_holds_nobody_up() {
    e2e::run("burst", |site| {
        let limits = "[limits]\nmax_running_per_user = 0\nmax_queued_per_user = 0\n";
        let orchestrator = site.orchestrator().config(NAMED).config(limits).start();
        let places = [("a", 1_usize), ("b", 2), ("c", 5)];
        let agents: Vec<_> = places
            .iter()
            .map(|(name, places)| {
                site.agent(name)
                    .config(&format!("agent_name = here\nmax_parallel_jobs = {places}"))
                    .file("wait.ini", &descriptor("Wait", "wait.sh", ""))
                    .file("wait.sh", WAITING)
                    .start()
            })
            .collect();
        orchestrator.wait_for(&["test:Wait"]);
        wait_until(LONG, || (orchestrator.metric("wps_agents") == Some(3.0)).then_some(()))
            .expect("three agents");
        let mut greedy = Caller::new(&orchestrator, "greedy", "user");
        let mut modest = Caller::new(&orchestrator, "modest", "user");
        let all: Vec<String> = (0..40).map(|_| greedy.submit("test:Wait")).collect();
        for job in &all[..8] {
            greedy.wait_for(job, "ProcessStarted");
        }
        let at = |caller: &mut Caller, job: &str| {
            let entry: serde_json::Value =
                serde_json::from_slice(&caller.send("GET", &format!("/jobs/{job}"), b"").body).unwrap();
            entry["agent"].as_str().map(str::to_owned)
        };
        let mut found: BTreeMap<String, usize> = BTreeMap::new();
        for agent in all.iter().filter_map(|job| at(&mut greedy, job)) {
            *found.entry(agent).or_default() += 1;
        }
        let expected = places.iter().map(|(name, places)| (format!("{name}@here"), *places)).collect();
        assert_eq!(found, expected, "each agent has as many jobs as it has places");

        let few: Vec<String> = (0..4).map(|_| modest.submit("test:Wait")).collect();
        for agent in &agents {
            agent.write("release", "");
        }
        for job in few.iter().chain(&all) {
            let caller = if few.contains(job) { &mut modest } else { &mut greedy };
            assert_eq!(caller.wait(job), Status::Succeeded);
        }
        // In turns: of those that waited, each of the modest user's was sent before the second next of the other's.
        let started = |caller: &mut Caller, job: &str| {
            let entry: serde_json::Value =
                serde_json::from_slice(&caller.send("GET", &format!("/jobs/{job}"), b"").body).unwrap();
            entry["started"].as_str().unwrap().to_owned()
        };
        let mut of_greedy: Vec<String> = all[8..].iter().map(|job| started(&mut greedy, job)).collect();
        of_greedy.sort();
        let last = few.iter().map(|job| started(&mut modest, job)).max().unwrap();
        let before = of_greedy.iter().filter(|other| **other < last).count();
        // Eight places become free at once, and programs start in any order within them.
        assert!(before <= 4 + 8, "{before} of 32 jobs of the greedy user went before the last of four");
    });
}
