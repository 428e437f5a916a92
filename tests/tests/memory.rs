//! What large requests cost a real orchestrator in memory, and that it gives the memory back.

use std::time::{Duration, Instant};

use e2e::client::{Execute, Status, Wps, document, exception, status};
use e2e::orchestrator::Orchestrator;
use e2e::{skip, tell, wait_until};

const MIB: u64 = 1 << 20;

/// Base64 of zeros, so many bytes of it, in lines of 76 characters as mail has them.
fn base64_lines(bytes: usize, end: &str) -> String {
    let line = format!("{}{end}", "A".repeat(76));
    let mut text = line.repeat(bytes / line.len());
    text.truncate(text.len() - end.len());
    text
}

fn with_data(encoding: &str, data: &str) -> String {
    let marker = "THE-DATA";
    let request = Execute::new("demo:Echo")
        .literal("text", "x")
        .complex("data", "application/octet-stream", marker)
        .document("", "<wps:Output><ows:Identifier>result_text</ows:Identifier></wps:Output>");
    let encoded = format!("mimeType=\"application/octet-stream\" {encoding}>");
    let request = request.to_xml().replace("mimeType=\"application/octet-stream\">", &encoded);
    request.replace(marker, data)
}

/// Peak of the resident memory above what was resident before, in bytes, while this runs.
fn cost(orchestrator: &Orchestrator<'_>, work: impl FnOnce()) -> u64 {
    let before = orchestrator.program().resident();
    assert!(orchestrator.program().forget_peak());
    work();
    orchestrator.program().peak().saturating_sub(before)
}

#[test]
fn twenty_megabytes_of_base64_cost_at_most_twice_their_size() {
    let name = "twenty_megabytes_of_base64_cost_at_most_twice_their_size";
    e2e::run("base64", |site| {
        let orchestrator = site.orchestrator().start();
        let _agent = site.agent("a").service("echo").start();
        orchestrator.wait_for(&["demo:Echo"]);
        if !orchestrator.program().forget_peak() {
            return skip(name, "the peak of a program's memory cannot be measured here");
        }
        let mut wps = orchestrator.wps();
        // Whatever is allocated once and for all has been.
        let small = with_data("encoding=\"base64\"", "QUJD");
        assert_eq!(status(&document(&wps.post(&small), "ExecuteResponse")), Status::Succeeded);
        let before = orchestrator.program().resident();
        for (what, encoding, data) in [
            ("in one line", "encoding=\"base64\"", "A".repeat(20 << 20)),
            ("in lines that end with CR LF", "encoding=\"base64\"", base64_lines(20 << 20, "\r\n")),
            ("in lines that end with a reference", "encoding=\"base64\"", base64_lines(20 << 20, "&#13;\n")),
            ("as plain text", "", "x".repeat(20 << 20)),
        ] {
            let request = with_data(encoding, &data);
            let cost = cost(&orchestrator, || {
                assert_eq!(status(&document(&wps.post(&request), "ExecuteResponse")), Status::Succeeded);
            });
            tell(&format!("20 MiB {what}: {:.1} MiB at the peak", cost as f64 / MIB as f64));
            // Plain text is there twice while it is copied out of the request, and everything else comes on top.
            let more = if encoding.is_empty() { 8 * MIB } else { 0 };
            assert!(cost <= 2 * request.len() as u64 + more, "{what}: {} MiB", cost / MIB);
        }
        returned(&orchestrator, before);
    });
}

#[test]
fn what_many_large_bodies_took_is_given_back() {
    e2e::run("given-back", |site| {
        let orchestrator = site.orchestrator().start();
        let _agent = site.agent("a").service("echo").start();
        orchestrator.wait_for(&["demo:Echo"]);
        assert!(orchestrator.wps().processes().is_ok());
        let before = orchestrator.program().resident();
        let body = with_data("", &"x".repeat((50 << 20) - 5000));
        let address = orchestrator.address();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let answer = Wps::new(address).post(&body);
                    assert!(matches!(answer.status, 200 | 503), "{}", answer.text());
                });
            }
        });
        returned(&orchestrator, before);
    });
}

#[test]
fn millions_of_elements_are_refused_before_they_are_understood() {
    e2e::run("elements", |site| {
        let orchestrator = site.orchestrator().start();
        let _agent = site.agent("a").service("echo").start();
        orchestrator.wait_for(&["demo:Echo"]);
        let mut wps = orchestrator.wps();
        assert!(wps.processes().is_ok());
        let begin = Instant::now();
        for (what, data) in [
            ("side by side", "<a/>".repeat(12_000_000)),
            ("within one", format!("<r>{}</r>", "<a/>".repeat(12_000_000))),
        ] {
            let body = with_data("", &data);
            let before = orchestrator.program().resident();
            let measured = orchestrator.program().forget_peak();
            let fault = exception(&wps.post(&body));
            let said = ["elements", "namespace declarations"].iter().any(|why| fault.text.contains(why));
            assert!(said, "{what}: {fault:?}");
            let cost = orchestrator.program().peak().saturating_sub(before);
            assert!(!measured || cost <= 2 * body.len() as u64, "{what}: {} MiB", cost / MIB);
        }
        tell(&format!("two bodies of 48 MB with 12 million elements: refused after {:.1?}", begin.elapsed()));
        assert!(begin.elapsed() < Duration::from_secs(60));
    });
}

/// Waits until not much more is resident than at first.
fn returned(orchestrator: &Orchestrator<'_>, before: u64) {
    let limit = before + 24 * MIB;
    let small =
        wait_until(Duration::from_secs(20), || (orchestrator.program().resident() <= limit).then_some(()));
    let after = orchestrator.program().resident();
    tell(&format!("resident: {} MiB before, {} MiB after", before / MIB, after / MIB));
    assert!(small.is_some(), "{} MiB before, {} MiB after", before / MIB, after / MIB);
}
