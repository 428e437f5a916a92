//! The two dialects side by side: how long from a request to the start of its program and to its result.

use std::time::{Duration, Instant};

use e2e::client::Execute;
use e2e::old_agent::{OldAgent, OldAgentSpec};

use super::Measured;

/// Tells when it was started.
const STAMP: &str = "#!/bin/sh\nprintf %s \"$(date +%s%N)\" > stamp.txt\n";
const STAMP_INI: &str = "[Description]\nservice = Stamp\nnamespace = bench\ntitle = Stamp\ndescription = Tells when it was started\n\
    executable = stamp.sh\n\n[Output]\nresult1 = {\"type\": \"string\", \"file\": \"stamp.txt\"}\n";

/// From the request to the start of the executable and to the result: an agent of ours, and one of the old dialect that
/// needs no time of its own (the Python agent adds its four to five seconds until a job is in the room).
pub fn measure(jobs: usize) {
    e2e::run("bench-dialects", |site| {
        site.expect_warning("");
        let lines = "[legacy]\nrooms = default\nagents = Play@*\n";
        let orchestrator = site.orchestrator().config(lines).start();
        let _native = site.agent("a").file("stamp.ini", STAMP_INI).file("stamp.sh", STAMP).start();
        let spec = OldAgentSpec { late: Duration::ZERO, ..OldAgentSpec::play("old") };
        let _old = OldAgent::start(site.bus().login("svc-play"), spec);
        orchestrator.wait_for(&["bench:Stamp", "default:Play"]);
        for (name, request) in [
            ("native", Execute::new("bench:Stamp").raw("result1")),
            ("old", Execute::new("default:Play").literal("mode", "stamp").raw("result1")),
        ] {
            let mut wps = orchestrator.wps();
            let (mut starts, mut results) = (Vec::new(), Vec::new());
            for _ in 0..jobs {
                let (asked, begun) = (e2e::nanoseconds(), Instant::now());
                let answer = wps.execute(&request);
                results.push(begun.elapsed());
                let started: u128 = answer.text().trim().parse().expect("the result is a time");
                starts.push(Duration::from_nanos(
                    u64::try_from(started.saturating_sub(asked)).unwrap_or(u64::MAX),
                ));
            }
            for (what, mut each) in [("executable start", starts), ("result", results)] {
                let whole = each.iter().sum();
                each.sort();
                Measured { each, whole }.print(&format!("request to {what}, {name} dialect"), None);
            }
        }
    });
}
