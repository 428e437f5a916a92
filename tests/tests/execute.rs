//! What a client gets from an Execute of each kind, over real programs: raw, document, asynchronous, by reference, and the
//! ways in which it can fail.

use e2e::client::{self, Execute, Status, document, exception};
use e2e::fixtures::{ARGUMENTS, FAIL, FORGETFUL, descriptor};

#[test]
fn synchronous_raw_and_document() {
    e2e::run("sync", |site| {
        let orchestrator = site.orchestrator().start();
        let _agent = site.agent("a").service("echo").service("dem-statistics").start();
        orchestrator.wait_for(&["demo:Echo", "demo:DemStatistics"]);
        let mut wps = orchestrator.wps();

        let answer = wps.execute(&Execute::new("demo:Echo").literal("text", "hello").raw("result_text"));
        assert_eq!((answer.status, answer.text().as_str()), (200, "hello"));

        let answer = wps
            .get("request=Execute&identifier=demo:Echo&DataInputs=text=by%20key&RawDataOutput=result_text");
        assert_eq!((answer.status, answer.text().as_str()), (200, "by key"));

        let statistics = Execute::new("demo:DemStatistics").literal("bins", "8");
        let answer = wps.execute(&statistics.clone().raw("result_statistics"));
        assert_eq!(answer.header("content-type"), Some("application/json"), "{}", answer.text());
        let expected =
            std::fs::read(e2e::root().join("services/dem-statistics/expected/statistics.json")).unwrap();
        assert_eq!(answer.text(), String::from_utf8(expected).unwrap());

        let response = document(&wps.execute(&statistics), "ExecuteResponse");
        assert_eq!(client::status(&response), Status::Succeeded);
        for (id, value) in [("result_min", "236"), ("result_max", "1076"), ("result_mean", "531.031")] {
            assert_eq!(client::output(&response, id).text_of("LiteralData"), Some(value));
        }
        let histogram = client::output(&response, "result_histogram").find("ComplexData").unwrap().clone();
        assert_eq!(histogram.attribute("mimeType"), Some("text/csv"));
        assert_eq!(histogram.text.lines().count(), 9);
    });
}

#[test]
fn a_file_travels_in_and_out_byte_for_byte() {
    e2e::run("file", |site| {
        let orchestrator = site.orchestrator().start();
        let _agent = site.agent("a").service("echo").start();
        orchestrator.wait_for(&["demo:Echo"]);
        let mut wps = orchestrator.wps();
        // Larger than any stanza may be, so that it cannot travel in one.
        let text: String = (0..60_000).map(|line| format!("line {line} <&> \u{e4}\u{20ac}\n")).collect();
        let request = Execute::new("demo:Echo")
            .literal("text", "x")
            .complex("data", "text/plain", &text)
            .raw("result_file");
        let answer = wps.execute(&request);
        assert_eq!(answer.status, 200, "{}", answer.text().chars().take(500).collect::<String>());
        assert!(answer.text() == text, "{} bytes came back instead of {}", answer.body.len(), text.len());
    });
}

#[test]
fn asynchronous_with_progress_and_by_reference() {
    e2e::run("async", |site| {
        let orchestrator = site.orchestrator().start();
        let _agent = site.agent("a").service("sleep").service("dem-statistics").start();
        orchestrator.wait_for(&["demo:Sleep", "demo:DemStatistics"]);
        let mut wps = orchestrator.wps();

        let location = wps.submit(&Execute::new("demo:Sleep").literal("seconds", "3").stored());
        let mut seen = Vec::new();
        let last = wps.wait_until(&location, std::time::Duration::from_secs(30), |status| {
            if let Status::Started(percent) = status {
                seen.push(*percent);
            }
            status.is_final()
        });
        assert_eq!(last, Status::Succeeded);
        assert!(seen.is_sorted(), "progress went back: {seen:?}");
        seen.dedup();
        assert!(
            seen.len() >= 2 && seen.iter().any(|p| (1..100).contains(p)),
            "no progress on the way: {seen:?}"
        );

        let request = Execute::new("demo:DemStatistics").stored_reference("result_histogram");
        let location = wps.submit(&request);
        assert_eq!(wps.wait(&location), Status::Succeeded);
        let response = document(&wps.fetch(&location), "ExecuteResponse");
        let reference = client::output(&response, "result_histogram").find("Reference").unwrap().clone();
        let answer = wps.fetch(reference.attribute("href").unwrap());
        assert_eq!(answer.status, 200);
        assert!(answer.text().starts_with("from,to,cells\n"), "{}", answer.text());
        assert_eq!(reference.attribute("mimeType"), Some("text/csv"));
    });
}

#[test]
fn failures_say_what_happened() {
    e2e::run("failure", |site| {
        site.expect_warning("test:Fail");
        site.expect_warning("test:Forgetful");
        let orchestrator = site.orchestrator().start();
        let _agent = site
            .agent("a")
            .service("echo")
            .file("fail.ini", &descriptor("Fail", "fail.sh", ""))
            .file("fail.sh", FAIL)
            .file("forgetful.ini", &descriptor("Forgetful", "forgetful.sh", ""))
            .file("forgetful.sh", FORGETFUL)
            .start();
        orchestrator.wait_for(&["test:Fail", "test:Forgetful", "demo:Echo"]);
        let mut wps = orchestrator.wps();

        // A raw request fails with a report, a document with a state.
        let raw = exception(&wps.execute(&Execute::new("test:Fail").raw("result")));
        assert!(raw.text.contains('3') && raw.text.contains("the disk is on fire"), "{raw:?}");
        let location = wps.submit(&Execute::new("test:Fail").stored());
        let Status::Failed(text) = wps.wait(&location) else { panic!("it did not fail") };
        assert!(text.contains("the disk is on fire"), "{text}");
        let missing = exception(&wps.execute(&Execute::new("test:Forgetful").raw("result")));
        assert!(missing.text.contains("result"), "{missing:?}");

        for (request, code, locator) in [
            (Execute::new("demo:Nobody"), "InvalidParameterValue", "Identifier"),
            (Execute::new("demo:Echo"), "MissingParameterValue", "text"),
            (
                Execute::new("demo:Echo").literal("text", "x").literal("nonsense", "y"),
                "InvalidParameterValue",
                "nonsense",
            ),
            (
                Execute::new("demo:Echo").literal("text", "x").raw("nonsense"),
                "InvalidParameterValue",
                "nonsense",
            ),
        ] {
            let fault = exception(&wps.execute(&request));
            assert_eq!(
                (fault.code.as_str(), fault.locator.to_lowercase()),
                (code, locator.to_lowercase()),
                "{fault:?}"
            );
        }
    });
}

#[test]
fn a_value_is_one_argument_whatever_it_holds() {
    e2e::run("argument", |site| {
        let orchestrator = site.orchestrator().start();
        let inputs = "value = {\"type\": \"string\", \"arg\": \"--{key}={value}\", \"max_length\": 5000}\n\
                      text = {\"type\": \"text/plain\", \"min\": 0, \"pass_by\": \"value\", \"arg\": \"--{key}={value}\"}";
        let _agent = site
            .agent("a")
            .file("arguments.ini", &descriptor("Arguments", "arguments.sh", inputs))
            .file("arguments.sh", ARGUMENTS)
            .start();
        orchestrator.wait_for(&["test:Arguments"]);
        let mut wps = orchestrator.wps();
        for value in [
            "two words  and   more",
            "\"double\" and 'single'",
            "$(id) `id` ${HOME} $HOME",
            "; rm -rf / && echo | tee > x",
            "back\\slash \\n %s %(x)s {value} name",
            "Grüße, Ελλάδα, 日本, 🗺",
            "*?[a-z]~!#",
            "--help",
            "a=b&c=d",
        ] {
            let request = Execute::new("test:Arguments").literal("value", value).raw("result");
            let answer = wps.execute(&request);
            assert_eq!(answer.text(), format!("1 arguments<--value={value}>"));
            let query = format!(
                "request=Execute&identifier=test:Arguments&RawDataOutput=result&DataInputs={}",
                // Twice: a value within a list of values is encoded by itself (OGC 05-007r7 §10.2.3).
                client::encode(&format!("value={}", client::encode(value)))
            );
            assert_eq!(wps.get(&query).text(), format!("1 arguments<--value={value}>"));
        }
        // Line breaks: refused by name where the type is a string, one argument where it is a text document.
        for control in ["a\nb", "a\tb", "a\r\nb"] {
            let fault = exception(
                &wps.execute(&Execute::new("test:Arguments").literal("value", control).raw("result")),
            );
            assert_eq!(
                (fault.code.as_str(), fault.locator.as_str()),
                ("InvalidParameterValue", "value"),
                "{fault:?}"
            );
        }
        let request = Execute::new("test:Arguments").literal("value", "x").complex(
            "text",
            "text/plain",
            "a b\n$(id)\n\nc",
        );
        let answer = wps.execute(&request.raw("result"));
        assert_eq!(answer.text(), "2 arguments<--value=x><--text=a b\n$(id)\n\nc>");
    });
}
