//! Bad input over HTTP: each kind gets the exception that the standard has for it, nothing dies, memory stays bounded.

use std::io::{BufReader, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use e2e::client::{Execute, NS_WPS, exception};
use e2e::http::read_answer;

#[test]
fn bad_requests_get_standard_exceptions() {
    e2e::run("bad-input", |site| {
        let orchestrator = site.orchestrator().start();
        let _agent = site.agent("a").service("echo").start();
        orchestrator.wait_for(&["demo:Echo"]);
        let mut wps = orchestrator.wps();

        // OGC 05-007r7 §7.3.4, §8.3.4, §9.3.4 and OGC 06-121r3 §8: code and locator.
        for (target, code, locator) in [
            ("/wps", "MissingParameterValue", "service|request"),
            ("/wps?service=WPS", "MissingParameterValue", "request"),
            ("/wps?service=WFS&request=GetCapabilities", "InvalidParameterValue", "service"),
            ("/wps?service=WPS&request=Nonsense", "OperationNotSupported", "Nonsense|request"),
            (
                "/wps?service=WPS&request=GetCapabilities&AcceptVersions=9.9.9",
                "VersionNegotiationFailed",
                "AcceptVersions|",
            ),
            (
                "/wps?service=WPS&request=DescribeProcess&identifier=demo:Echo",
                "MissingParameterValue",
                "version",
            ),
            ("/wps?service=WPS&version=1.0.0&request=DescribeProcess", "MissingParameterValue", "identifier"),
            (
                "/wps?service=WPS&version=1.0.0&request=DescribeProcess&identifier=no:Such",
                "InvalidParameterValue",
                "identifier",
            ),
            ("/wps?service=WPS&version=1.0.0&request=Execute", "MissingParameterValue", "identifier"),
            (
                "/wps?service=WPS&version=1.0.0&request=Execute&identifier=demo:Echo",
                "MissingParameterValue",
                "text",
            ),
            (
                "/wps?service=WPS&version=1.0.0&request=Execute&identifier=demo:Echo&DataInputs=text=x&status=perhaps",
                "InvalidParameterValue",
                "status",
            ),
        ] {
            let answer = wps.http.get(target).unwrap();
            let fault = exception(&answer);
            let located = locator.split('|').any(|name| name.eq_ignore_ascii_case(&fault.locator));
            assert!(fault.code == code && located, "{target}: {fault:?}");
        }

        let execute = Execute::new("demo:Echo").literal("text", "x").raw("result_text").to_xml();
        let deep = format!("{}{}", "<a>".repeat(100_000), "</a>".repeat(100_000));
        for (what, body) in [
            ("nothing", String::new()),
            ("no XML", "hello".to_owned()),
            ("malformed", execute.replace("</wps:Execute>", "</wps:Exekute>")),
            ("cut short", execute[..execute.len() / 2].to_owned()),
            (
                "DOCTYPE",
                execute.replace(
                    "<wps:Execute",
                    "<!DOCTYPE a [<!ENTITY b SYSTEM \"file:///etc/passwd\">]><wps:Execute",
                ),
            ),
            ("an unknown entity", execute.replace(">x<", ">&b;<")),
            ("deep nesting", deep),
            (
                "another root",
                format!("<wps:Nonsense xmlns:wps=\"{NS_WPS}\" service=\"WPS\" version=\"1.0.0\"/>"),
            ),
            ("no identifier", execute.replace("demo:Echo", "")),
        ] {
            let answer = wps.post(&body);
            let fault = exception(&answer);
            assert!(answer.status < 500 || fault.code == "OperationNotSupported", "{what}: {answer:?}");
            assert!(!fault.text.is_empty() && !fault.text.contains("root:"), "{what}: {fault:?}");
        }
        assert_eq!(wps.post(&execute).text(), "x");
    });
}

#[test]
fn a_huge_body_is_refused_and_memory_stays_bounded() {
    e2e::run("huge", |site| {
        let orchestrator = site.orchestrator().config("[http]\nmax_body_mb = 20").start();
        let mut wps = orchestrator.wps();
        assert!(wps.processes().is_ok());
        let before = orchestrator.program().resident();

        let big = Execute::new("demo:Echo").literal("text", &"x".repeat(50 << 20)).to_xml();
        let fault = exception(&wps.http.post("/wps", "text/xml", big.as_bytes()).unwrap());
        assert!(matches!(fault.code.as_str(), "FileSizeExceeded" | "NoApplicableCode"), "{fault:?}");

        // Without a length, so that only reading it shows how much it is.
        let mut stream = TcpStream::connect(orchestrator.address()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        stream
            .write_all(b"POST /wps HTTP/1.1\r\nHost: x\r\nContent-Type: text/xml\r\nTransfer-Encoding: chunked\r\n\r\n")
            .unwrap();
        let chunk = vec![b'x'; 1 << 20];
        for _ in 0..50 {
            // The server may answer and close before everything is sent.
            let sent = stream
                .write_all(format!("{:x}\r\n", chunk.len()).as_bytes())
                .and_then(|()| stream.write_all(&chunk))
                .and_then(|()| stream.write_all(b"\r\n"));
            if sent.is_err() {
                break;
            }
        }
        let _ = stream.write_all(b"0\r\n\r\n");
        if let Ok((answer, _)) = read_answer(&mut BufReader::new(&stream)) {
            exception(&answer);
        }

        let after = orchestrator.program().resident();
        let grown = after.saturating_sub(before) >> 20;
        e2e::tell(&format!(
            "resident: {} MiB before, {} MiB after two bodies of 50 MB",
            before >> 20,
            after >> 20
        ));
        assert!(grown <= 64, "{grown} MiB more than before");
        assert!(wps.processes().is_ok());
    });
}

#[test]
fn a_client_that_goes_away_in_the_middle_harms_nobody() {
    e2e::run("truncated", |site| {
        let orchestrator = site.orchestrator().start();
        let _agent = site.agent("a").service("echo").start();
        orchestrator.wait_for(&["demo:Echo"]);
        let body = Execute::new("demo:Echo").literal("text", "x").raw("result_text").to_xml();
        let head = format!(
            "POST /wps HTTP/1.1\r\nHost: x\r\nContent-Type: text/xml\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        for half_close in [true, false] {
            let mut stream = TcpStream::connect(orchestrator.address()).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            stream.write_all(head.as_bytes()).unwrap();
            stream.write_all(&body.as_bytes()[..body.len() / 2]).unwrap();
            if half_close {
                stream.shutdown(Shutdown::Write).unwrap();
                if let Ok((answer, _)) = read_answer(&mut BufReader::new(&stream)) {
                    exception(&answer);
                }
            }
        }
        let mut wps = orchestrator.wps();
        assert_eq!(wps.post(&body).text(), "x");
    });
}
