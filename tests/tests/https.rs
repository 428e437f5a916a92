//! HTTPS in the orchestrator itself: links, the command line, a certificate that is renewed while it runs, a broken one that
//! changes nothing, and what plain HTTP is told. The client is curl.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, and so do its helpers")]

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use e2e::client::Execute;
use e2e::http::Http;
use e2e::{installed, skip, wait_until};
use rustix::process::Signal;
use wps_remote_xmpp::server::{Certificate, certificate_sha256};

/// A certificate for `localhost`, made by means of the embedded XMPP server so that no other program is needed.
fn make_pair(folder: &Path) {
    let _ = std::fs::remove_dir_all(folder);
    certificate_sha256(&Certificate::Generated { folder: folder.to_owned() }, "localhost").unwrap();
}

/// Puts a pair in the place of another, as renewal tools do.
fn install(from: &Path, to: &Path) {
    for name in ["xmpp-certificate.pem", "xmpp-key.pem"] {
        let beside = to.join(format!("{name}.new"));
        std::fs::copy(from.join(name), &beside).unwrap();
        std::fs::rename(beside, to.join(name)).unwrap();
    }
}

fn curl(trusted: &Path, arguments: &[&str]) -> (bool, String) {
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--max-time", "20", "--cacert"]).arg(trusted).args(arguments);
    let output = command.output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

#[test]
fn https_from_the_first_byte_to_a_renewed_certificate() {
    if !installed("curl") {
        return skip("https", "curl is not installed");
    }
    e2e::run("https", |site| {
        let (used, next, last) =
            (site.make_folder("tls"), site.folder().join("next"), site.folder().join("last"));
        for folder in [&used, &next, &last] {
            make_pair(folder);
        }
        let file = |folder: &Path| folder.join("xmpp-certificate.pem");
        let first = site.folder().join("first.pem");
        std::fs::copy(file(&used), &first).unwrap();
        let orchestrator = site
            .orchestrator()
            .config(&format!(
                "[http]\ncertificate = {}\nkey = {}",
                file(&used).display(),
                used.join("xmpp-key.pem").display()
            ))
            .start();
        let _agent = site.agent("a").service("echo").start();
        let port = orchestrator.address().port();
        let base = format!("https://localhost:{port}");
        let capabilities = format!("{base}/wps?service=WPS&request=GetCapabilities");
        let offered = wait_until(Duration::from_secs(30), || {
            curl(&first, &[&capabilities]).1.contains("demo:Echo").then_some(())
        });
        assert!(offered.is_some(), "{:?}", curl(&first, &[&capabilities]));

        // Links lead back here.
        let (_, document) = curl(&first, &[&capabilities]);
        assert!(
            document.contains(&format!("\"{base}/wps")) && !document.contains("http://localhost"),
            "{document}"
        );
        let body =
            Execute::new("demo:Echo").literal("text", "over TLS").stored_reference("result_file").to_xml();
        let request = ["--header", "Content-Type: text/xml", "--data-binary", &body, &format!("{base}/wps")];
        let (done, said) = curl(&first, &request);
        let status = said
            .split('"')
            .find(|part| part.starts_with(&base) && part.contains("executionId"))
            .unwrap_or_else(|| panic!("{done} {said}"))
            .replace("&amp;", "&");
        let href = wait_until(Duration::from_secs(30), || {
            let (_, said) = curl(&first, &[&status]);
            said.split('"').find(|part| part.contains("/outputs/")).map(str::to_owned)
        });
        let href = href.unwrap_or_else(|| panic!("{:?}", curl(&first, &[&status])));
        assert!(href.starts_with(&base), "{href}");
        let (done, taken) = curl(&first, &[&href]);
        assert!(done && taken.trim_end() == "over TLS", "{taken}");

        // Whoever speaks plainly is told; whoever does not know the certificate does not come in.
        let plain = Http::new(orchestrator.address()).get("/health").unwrap();
        assert_eq!((plain.status, plain.text().as_str()), (400, "This address speaks HTTPS only."));
        let (done, said) = curl(&file(&next), &[&capabilities]);
        assert!(!done && said.contains("certificate"), "{said}");
        // What operators see is renewed once a second; an agent is called as its account.
        let listed = wait_until(Duration::from_secs(20), || {
            let (done, out, _) = orchestrator.command(&["agents"], "");
            (done && out.contains("demo:Echo")).then_some(())
        });
        assert!(listed.is_some(), "{:?}", orchestrator.command(&["agents"], ""));
        let (_, out, err) = orchestrator.command(&["check"], "");
        assert!(out.contains("valid until"), "{out}{err}");

        // A new pair is taken up because the files have changed, the next one because of the signal.
        install(&next, &used);
        let renewed =
            wait_until(Duration::from_secs(40), || curl(&file(&next), &[&capabilities]).0.then_some(()));
        assert!(renewed.is_some(), "the new certificate is not served");
        assert!(!curl(&first, &[&capabilities]).0, "the old certificate is still served");
        install(&last, &used);
        orchestrator.program().signal(Signal::HUP);
        let renewed =
            wait_until(Duration::from_secs(20), || curl(&file(&last), &[&capabilities]).0.then_some(()));
        assert!(renewed.is_some(), "the last certificate is not served");

        // A broken one is named and changes nothing.
        site.expect_warning("the certificate in use stays");
        std::fs::write(used.join("xmpp-key.pem"), "no key").unwrap();
        orchestrator.program().signal(Signal::HUP);
        let named = wait_until(Duration::from_secs(20), || {
            orchestrator.program().log().contains("holds no key in PEM").then_some(())
        });
        assert!(named.is_some(), "{}", orchestrator.program().tail());
        assert!(curl(&file(&last), &[&capabilities]).0);
        let (done, out, _) = orchestrator.command(&["check"], "");
        assert!(!done && out.contains("xmpp-key.pem holds no key"), "{out}");
    });
}
