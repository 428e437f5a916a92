//! No secret is in any log, however talkative it is; and the book of deeds has what was done.

use std::time::Duration;

use e2e::client::Execute;
use e2e::http::{Http, base64};
use e2e::{tell, wait_until};

#[test]
fn no_secret_is_in_any_log() {
    e2e::run("secrets", |site| {
        site.expect_warning("refused");
        let audit = site.folder().join("audit.log");
        let orchestrator = site
            .orchestrator()
            .config(&format!("[access]\nanonymous = none\nuser_header = X-Remote-User\naudit_file = {}\n[http]\ntrusted_proxies = 127.0.0.77", audit.display()))
            .env("WPS_ORCHESTRATOR_LOG", "trace")
            .start();
        let agent = site.agent("a").service("echo").argument("-vv").start();
        let (done, _, said) =
            orchestrator.command(&["users", "add", "ann", "--password-stdin"], "correct horse\n");
        assert!(done, "{said}");
        let (_, token, _) = orchestrator.command(&["tokens", "create", "ann", "--name", "test"], "");
        let token = token.trim().to_owned();
        let (_, enrolment, _) = orchestrator.command(&["accounts", "enrol", "gpu"], "");
        let mut http = Http::new(orchestrator.address());
        let mut ask = |method: &str, target: &str, authorization: &str, body: &str| {
            let request = format!(
                "{method} {target} HTTP/1.1\r\nHost: wps\r\nAuthorization: {authorization}\r\nContent-Type: text/xml\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            );
            http.exchange(request.as_bytes()).unwrap()
        };
        let bearer = format!("Bearer {token}");
        let basic = format!("Basic {}", base64(b"ann:correct horse"));
        let wrong = format!("Basic {}", base64(b"ann:wrong password"));
        let capabilities = "/wps?service=WPS&request=GetCapabilities";
        let ready = wait_until(Duration::from_secs(20), || {
            ask("GET", capabilities, &basic, "").text().contains("demo:Echo").then_some(())
        });
        assert!(ready.is_some());
        assert_eq!(ask("GET", capabilities, &wrong, "").status, 401);
        assert_eq!(ask("GET", capabilities, "Bearer wpst_guessed-token-0123456789", "").status, 401);
        let execute = Execute::new("demo:Echo")
            .literal("text", "the client's own words")
            .stored_reference("result_text")
            .to_xml();
        let accepted = ask("POST", "/wps", &bearer, &execute).text();
        let id =
            e2e::client::execution_id(accepted.split('"').find(|part| part.contains("executionId")).unwrap());
        let done = wait_until(Duration::from_secs(30), || {
            ask("GET", &format!("/jobs/{id}"), &bearer, "").text().contains("successful").then_some(())
        });
        assert!(done.is_some(), "{}", ask("GET", &format!("/jobs/{id}"), &bearer, "").text());
        let shared = ask("POST", &format!("/jobs/{id}/share?hours=1"), &bearer, "").text();
        let signature = shared
            .split("signature=")
            .nth(1)
            .and_then(|rest| rest.split(['"', '&']).next())
            .unwrap()
            .to_owned();
        let link = shared.split('"').find(|part| part.starts_with("/outputs/")).unwrap().to_owned();
        assert_eq!(Http::new(orchestrator.address()).get(&link).unwrap().text(), "the client's own words");

        let data = orchestrator.config_file().parent().unwrap().join("data");
        let file =
            |name: &str| std::fs::read_to_string(data.join(name)).unwrap_or_default().trim().to_owned();
        let remote = std::fs::read_to_string(agent.config_file()).unwrap();
        let of_agent = remote
            .lines()
            .filter_map(|line| line.split_once(" = "))
            .filter(|(key, _)| key.to_lowercase().contains("password"));
        let mut secrets: Vec<(String, String)> =
            of_agent.map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        secrets.extend([
            ("a user's password".to_owned(), "correct horse".to_owned()),
            ("its Basic credentials".to_owned(), base64(b"ann:correct horse")),
            ("a wrong password".to_owned(), "wrong password".to_owned()),
            ("its Basic credentials".to_owned(), base64(b"ann:wrong password")),
            ("a token".to_owned(), token.clone()),
            ("a guessed token".to_owned(), "wpst_guessed-token-0123456789".to_owned()),
            ("an enrolment".to_owned(), enrolment.trim().to_owned()),
            ("a signature".to_owned(), signature),
            ("the operator's secret".to_owned(), file("operator-token")),
            ("the key of links".to_owned(), file("share-key")),
        ]);
        let book = std::fs::read_to_string(&audit).unwrap();
        for deed in ["add user", "create token", "enrol account", "execute", "share", "refused"] {
            assert!(book.contains(&format!("\"did\":\"{deed}\"")), "{deed} is not in the book:\n{book}");
        }
        let logs = [orchestrator.program().log(), agent.program().log(), book].concat();
        assert!(
            logs.contains("TRACE") || logs.contains("DEBUG"),
            "the logs are meant to be as talkative as they get"
        );
        for (what, secret) in &secrets {
            assert!(secret.len() >= 8, "{what} is not known to the test: {secret:?}");
            assert!(
                !logs.contains(secret.as_str()),
                "{what} is in a log: {:?}",
                logs.lines().find(|line| line.contains(secret.as_str()))
            );
        }
        tell(&format!(
            "{} secrets looked for in {} kB of logs at their most talkative: none is there",
            secrets.len(),
            logs.len() / 1000
        ));
    });
}
