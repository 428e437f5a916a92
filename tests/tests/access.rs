//! Users and tokens from the command line to the answer, with real programs: what is added counts at once, and the
//! operator of the host needs neither.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, and so do its helpers")]

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use e2e::http::Http;
use e2e::program::binary;

fn orchestrator(config: &Path, arguments: &[&str], input: &str) -> (bool, String) {
    let mut command = Command::new(binary("wps-orchestrator"));
    command.arg("--config").arg(config).args(arguments);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.success(), said)
}

fn ask(http: &mut Http, authorization: &str) -> u16 {
    let path = "/wps?service=WPS&request=GetCapabilities";
    let request = format!("GET {path} HTTP/1.1\r\nHost: wps\r\n{authorization}\r\n");
    http.exchange(request.as_bytes()).unwrap().status
}

#[test]
fn users_and_tokens_come_and_go_while_the_service_runs() {
    e2e::run("access", |site| {
        let running = site.orchestrator().config("[access]\nanonymous = none\n").start();
        let config = running.config_file().to_owned();
        let mut http = Http::new(running.address());
        assert_eq!(ask(&mut http, ""), 401);
        // base64 of `ann:correct horse`
        let ann = "Authorization: Basic YW5uOmNvcnJlY3QgaG9yc2U=\r\n";
        assert_eq!(ask(&mut http, ann), 401);
        let added = orchestrator(&config, &["users", "add", "ann", "--password-stdin"], "correct horse\n");
        assert_eq!(added, (true, String::new()));
        assert_eq!(ask(&mut http, ann), 200);
        assert!(!orchestrator(&config, &["users", "add", "ann"], "").0, "she is there already");
        let (done, said) = orchestrator(&config, &["users", "roles", "ann", "nonsense"], "");
        assert!(!done && said.contains("[role nonsense]"), "{said}");

        let (made, token) = orchestrator(&config, &["tokens", "create", "ann", "--name", "test"], "");
        assert!(made && token.starts_with("wpst_"), "{token}");
        let by_token = format!("Authorization: Bearer {}\r\n", token.trim());
        assert_eq!(ask(&mut http, &by_token), 200);
        let (_, listed) = orchestrator(&config, &["tokens", "list"], "");
        assert!(listed.contains("ann  test  until ") && !listed.contains(token.trim()), "{listed}");
        let id = listed.split_whitespace().next().unwrap();
        assert!(orchestrator(&config, &["tokens", "revoke", id], "").0);
        assert_eq!(ask(&mut http, &by_token), 401);
        assert!(orchestrator(&config, &["users", "remove", "ann"], "").0);
        assert_eq!(ask(&mut http, ann), 401);

        // Whoever can read the data folder is the operator.
        let (shown, said) = orchestrator(&config, &["agents"], "");
        assert!(shown && said.starts_with("AGENT"), "{said}");
        site.expect_warning("refused");
    });
}
