//! The doctor: examines the installation as it is configured and says of each part whether it works, and if not, what to
//! do. Changes nothing that lasts.

mod agents;

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use wps_remote_protocol::native;
use wps_remote_xmpp::muc::{self, MucEvent};
use wps_remote_xmpp::parse_payload;
use wps_remote_xmpp::session::SessionConfig;

use crate::chain::chain;
use crate::compose;
use crate::config::Config;
use crate::http::tls;
use crate::references::{Nowhere, Policy, Reference, References};

/// Longest wait for an XMPP server.
const XMPP_PATIENCE: Duration = Duration::from_secs(20);
/// A certificate that ends within so many seconds is worth a word: two weeks.
const SOON_S: i64 = 14 * 86_400;
/// How long to look who is in the management room.
const OCCUPANTS: Duration = Duration::from_secs(2);

/// How a part stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It works.
    Good,
    /// It works, but.
    Unwise,
    /// It does not work.
    Wrong,
}

/// What was found about one part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The part.
    pub part: &'static str,
    /// How it stands.
    pub verdict: Verdict,
    /// What was found.
    pub what: String,
    /// What to do; empty if nothing.
    pub remedy: String,
}

/// Examines everything.
pub async fn examine(path: Option<&Path>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let config = match Config::load(path) {
        Ok(config) => config,
        Err(error) => {
            add(
                &mut findings,
                "configuration",
                Verdict::Wrong,
                chain(&error),
                "mend the file; `wps-orchestrator config` prints a sample",
            );
            return findings;
        }
    };
    let from = path.map_or_else(|| "the built-in defaults".to_owned(), |p| p.display().to_string());
    add(&mut findings, "configuration", Verdict::Good, format!("read from {from}"), "");
    for warning in &config.warnings {
        add(&mut findings, "configuration", Verdict::Unwise, warning.clone(), "");
    }
    folders(&config, &mut findings);
    store(&config, &mut findings).await;
    let running = http(&config, &mut findings).await;
    https(&config, &mut findings);
    xmpp(&config, running, &mut findings).await;
    findings
}

fn add(
    findings: &mut Vec<Finding>,
    part: &'static str,
    verdict: Verdict,
    what: impl Into<String>,
    remedy: &str,
) {
    findings.push(Finding { part, verdict, what: what.into(), remedy: remedy.to_owned() });
}

fn folders(config: &Config, findings: &mut Vec<Finding>) {
    let mut all: Vec<(&'static str, PathBuf)> =
        vec![("data folder", config.data_dir.clone()), ("result store", config.results_dir.clone())];
    match &config.shared_dir {
        Some(shared) => all.push(("shared folder", shared.clone())),
        None => add(
            findings,
            "shared folder",
            Verdict::Unwise,
            "none: inputs and results are limited to what fits into a message",
            "set [results] shared_dir to a folder that agents see as their wps_execution_shared_dir",
        ),
    }
    for (part, folder) in all {
        let tried = std::fs::create_dir_all(&folder).and_then(|()| {
            let probe = folder.join(format!(".check-{}", std::process::id()));
            std::fs::write(&probe, b"probe")?;
            let read = std::fs::read(&probe);
            std::fs::remove_file(&probe)?;
            read
        });
        match tried {
            Ok(_) => add(
                findings,
                part,
                Verdict::Good,
                format!("{} can be written and read", folder.display()),
                "",
            ),
            Err(error) => add(
                findings,
                part,
                Verdict::Wrong,
                format!("{}: {error}", folder.display()),
                "create it, or give this program's user the right to write there",
            ),
        }
    }
    if let Some(shared) = &config.shared_dir
        && !same_file_system(shared, &config.results_dir)
    {
        add(
            findings,
            "result store",
            Verdict::Unwise,
            "it is on another file system than the shared folder: results are copied instead of linked",
            "put [results] store_dir and shared_dir onto one file system",
        );
    }
}

fn same_file_system(a: &Path, b: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    match (std::fs::metadata(a), std::fs::metadata(b)) {
        (Ok(a), Ok(b)) => a.dev() == b.dev(),
        // Whatever is wrong there has been said already.
        _ => true,
    }
}

async fn store(config: &Config, findings: &mut Vec<Finding>) {
    match compose::open_store(config).await {
        Ok(store) => {
            match store.counts().await {
                Ok(counts) => {
                    let jobs: u64 = counts.iter().map(|(_, n)| n).sum();
                    add(
                        findings,
                        "job store",
                        Verdict::Good,
                        match &config.postgres {
                            Some(postgres) => format!("{} holds {jobs} jobs", postgres.address()),
                            None => format!("{} holds {jobs} jobs", config.store.display()),
                        },
                        "",
                    );
                }
                Err(error) => {
                    add(findings, "job store", Verdict::Wrong, chain(&error), "restore it from a backup")
                }
            }
            store.close().await;
        }
        Err(error) => add(
            findings,
            "job store",
            Verdict::Wrong,
            chain(&error),
            match config.postgres {
                Some(_) => {
                    "check [store] url and password, that the server runs and lets this host in, and that the database exists"
                }
                None => "check the path and its rights; a damaged store must be restored from a backup",
            },
        ),
    }
}

/// Returns whether an orchestrator runs there already.
async fn http(config: &Config, findings: &mut Vec<Finding>) -> bool {
    let address = config.http.listen;
    let running = match TcpListener::bind(address).await {
        Ok(_) => {
            add(findings, "HTTP", Verdict::Good, format!("{address} is free"), "");
            false
        }
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
            add(
                findings,
                "HTTP",
                Verdict::Good,
                format!("{address} is in use, by a running orchestrator or another program"),
                "",
            );
            true
        }
        Err(error) => {
            add(
                findings,
                "HTTP",
                Verdict::Wrong,
                format!("{address}: {error}"),
                "choose another [http] listen",
            );
            false
        }
    };
    if !address.ip().is_loopback() && config.http.public_url.is_none() {
        add(
            findings,
            "HTTP",
            Verdict::Unwise,
            "links in answers are made from the name that the client used",
            "set [http] public_url",
        );
    }
    if let Some(url) = &config.http.public_url {
        public_url(url, running, findings).await;
    }
    running
}

/// Certificate and key of HTTPS, and whether anything but loopback is served without.
fn https(config: &Config, findings: &mut Vec<Finding>) {
    let Some(files) = &config.http.tls else {
        let bare = !config.http.listen.ip().is_loopback() && config.http.trusted_proxies.is_empty();
        if bare {
            add(
                findings,
                "HTTPS",
                Verdict::Unwise,
                format!(
                    "{} speaks plain HTTP to everybody: passwords and results can be read on the way",
                    config.http.listen
                ),
                "set [http] certificate and key, or name the proxy that does TLS in trusted_proxies",
            );
        }
        return;
    };
    let facts = match tls::examine(files) {
        Ok(facts) => facts,
        Err(error) => {
            return add(
                findings,
                "HTTPS",
                Verdict::Wrong,
                chain(&error),
                "give [http] certificate and key in PEM, readable for this program's user",
            );
        }
    };
    let file = files.certificate.display();
    let (now, until) = (compose::seconds(), compose::day(facts.until_s));
    if now < facts.from_s || now > facts.until_s {
        let from = compose::day(facts.from_s);
        add(
            findings,
            "HTTPS",
            Verdict::Wrong,
            format!("the certificate {file} is valid from {from} until {until}, not now"),
            "renew it; it is read again without a restart",
        );
    } else if facts.until_s - now < SOON_S {
        add(
            findings,
            "HTTPS",
            Verdict::Unwise,
            format!("the certificate {file} ends on {until}"),
            "renew it; it is read again without a restart",
        );
    } else {
        add(findings, "HTTPS", Verdict::Good, format!("the certificate {file} is valid until {until}"), "");
    }
    if facts.key_is_public {
        let what = format!("everybody on this host can read {}", files.key.display());
        add(findings, "HTTPS", Verdict::Unwise, what, "chmod 640, in the group of this program's user");
    }
    let host = config.http.public_url.as_deref().and_then(|url| url::Url::parse(url).ok());
    if let Some(host) = host.as_ref().and_then(url::Url::host_str)
        && config.http.trusted_proxies.is_empty()
        && !facts.is_for(host)
    {
        add(
            findings,
            "HTTPS",
            Verdict::Wrong,
            format!("the certificate {file} does not carry the name `{host}` of [http] public_url"),
            "get one for that name, or mend public_url",
        );
    }
}

/// Whether clients reach us where we say.
async fn public_url(url: &str, running: bool, findings: &mut Vec<Finding>) {
    let host =
        url::Url::parse(url).ok().and_then(|url| url.host_str().map(str::to_owned)).unwrap_or_default();
    let Ok(mut policy) = Policy::new(&[host], &[]) else { return };
    policy.timeout = XMPP_PATIENCE;
    let file = std::env::temp_dir().join(format!("wps-check-{}", std::process::id()));
    let health = Reference { href: format!("{}/health", url.trim_end_matches('/')), ..Reference::default() };
    let fetched = References::new(policy).fetch(&health, &Nowhere, &file).await;
    // It is there only if something was fetched.
    let _ = std::fs::remove_file(&file);
    match fetched {
        Ok(_) => add(findings, "public URL", Verdict::Good, format!("{} answers", health.href), ""),
        Err(error) if running => add(
            findings,
            "public URL",
            Verdict::Wrong,
            chain(&error),
            "[http] public_url must lead to this service: check name, proxy and certificate",
        ),
        Err(error) => add(
            findings,
            "public URL",
            Verdict::Unwise,
            format!("not answered while no orchestrator runs here: {}", chain(&error)),
            "start the orchestrator and check again",
        ),
    }
}

async fn xmpp(config: &Config, running: bool, findings: &mut Vec<Finding>) {
    if let Some(server) = &config.server {
        match TcpListener::bind(server.listen).await {
            Ok(_) => add(
                findings,
                "XMPP",
                Verdict::Good,
                format!("embedded server, {} is free", server.listen),
                "",
            ),
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse && running => {
                let reached = TcpStream::connect(server.listen).await.is_ok();
                let verdict = if reached { Verdict::Good } else { Verdict::Wrong };
                add(findings, "XMPP", verdict, format!("embedded server, {} is in use", server.listen), "");
            }
            Err(error) => add(
                findings,
                "XMPP",
                Verdict::Wrong,
                format!("embedded server, {}: {error}", server.listen),
                "choose another [xmpp_server] listen, or stop the program that uses it",
            ),
        }
        let what = "the shared folder as agents see it, and their clocks, were not examined: the embedded server lets in its own orchestrator only; `wps-orchestrator agents` shows who is online";
        add(findings, "agents", Verdict::Good, what, "");
        return;
    }
    if let Err((what, remedy)) = login(config, findings).await {
        add(findings, "XMPP", Verdict::Wrong, what, remedy);
    }
}

/// Logs in beside a running orchestrator and enters the management room under a name of its own.
async fn login(config: &Config, findings: &mut Vec<Finding>) -> Result<(), (String, &'static str)> {
    let settings = "check [xmpp] address, port, domain, tls and the certificate settings";
    let connector = compose::connector(config).map_err(|error| (chain(&error), settings))?;
    let names = "check [xmpp] domain, user, muc_service and management_room";
    let instance = format!("check-{}", std::process::id());
    let jid = compose::full_jid(config, &instance).map_err(|error| (chain(&error), names))?;
    let room = compose::management_room(config).map_err(|error| (chain(&error), names))?;
    let room_password = compose::room_password(config).map_err(|error| (chain(&error), names))?;
    let password = config.xmpp.password.as_ref().map(|p| p.expose().to_owned()).unwrap_or_default();
    let way = connector.describe();
    let (handle, mut events) = muc::start(muc::MucConfig {
        session: SessionConfig::new(jid, password, connector),
        rooms: vec![muc::RoomConfig {
            room: room.clone(),
            nick: instance,
            password: Some(room_password),
            create: true,
        }],
        presence: Vec::new(),
    });
    let mut present = Vec::new();
    let outcome = tokio::time::timeout(XMPP_PATIENCE, async {
        while let Some(event) = events.recv().await {
            match event {
                MucEvent::Joined { .. } => return Ok(()),
                MucEvent::Occupant(occupant) => present.push(occupant),
                MucEvent::Offline { ending, .. } => {
                    return Err((format!("{way}: {}", ending.explain()), settings));
                }
                MucEvent::JoinRefused { condition, text, .. } => {
                    return Err((
                        format!("{way}: the room {room} refuses us: {condition} {text}"),
                        "check [xmpp] muc_password, muc_service and management_room",
                    ));
                }
                _ => {}
            }
        }
        Err((format!("{way}: the session ended"), settings))
    })
    .await
    .unwrap_or_else(|_| Err((format!("{way}: no answer within {} s", XMPP_PATIENCE.as_secs()), settings)));
    if outcome.is_ok() {
        // Those who are there show themselves before and after we are in.
        let more = async {
            while let Some(event) = events.recv().await {
                if let MucEvent::Occupant(occupant) = event {
                    present.push(occupant);
                }
            }
        };
        let _ = tokio::time::timeout(OCCUPANTS, more).await;
        let is = |occupant: &muc::Occupant, agent: bool| {
            let peer = occupant.payloads.iter().find_map(parse_payload);
            match peer.and_then(|(name, json)| native::decode_peer(&name, &json).ok()) {
                Some(native::Peer::Agent(_)) => agent,
                Some(native::Peer::Orchestrator(_)) => !agent,
                None => false,
            }
        };
        let names = |agent: bool| {
            let names = present.iter().filter(|occupant| is(occupant, agent)).map(|o| o.nick.clone());
            names.collect::<std::collections::BTreeSet<String>>().into_iter().collect::<Vec<String>>()
        };
        let (orchestrators, agents) = (names(false), names(true));
        let others = match orchestrators.as_slice() {
            [] => String::new(),
            names => format!("; orchestrators there: {}", names.join(", ")),
        };
        add(findings, "XMPP", Verdict::Good, format!("{way}: logged in and entered {room}{others}"), "");
        agents::examine(&handle, &room, &agents, config.shared_dir.as_deref(), findings).await;
    }
    handle.close().await;
    outcome
}

/// The findings for people.
pub fn text(findings: &[Finding]) -> String {
    let mut text = String::new();
    for finding in findings {
        let mark = match finding.verdict {
            Verdict::Good => "ok    ",
            Verdict::Unwise => "warn  ",
            Verdict::Wrong => "FAIL  ",
        };
        let _ = writeln!(text, "{mark}{}: {}", finding.part, finding.what);
        if !finding.remedy.is_empty() {
            let _ = writeln!(text, "      -> {}", finding.remedy);
        }
    }
    text
}

/// The findings for programs.
pub fn json(findings: &[Finding]) -> String {
    let list: Vec<serde_json::Value> = findings
        .iter()
        .map(|finding| {
            let verdict = match finding.verdict {
                Verdict::Good => "ok",
                Verdict::Unwise => "warning",
                Verdict::Wrong => "error",
            };
            serde_json::json!({"part": finding.part, "verdict": verdict, "what": finding.what, "remedy": finding.remedy})
        })
        .collect();
    format!("{}\n", serde_json::Value::Array(list))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_sound_installation_has_no_fault_and_a_broken_one_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("orchestrator.ini");
        std::fs::write(&path, "[http]\nlisten = 127.0.0.1:0\n[xmpp_server]\nlisten = 127.0.0.1:0\n").unwrap();
        let findings = examine(Some(&path)).await;
        assert!(findings.iter().all(|f| f.verdict == Verdict::Good), "{}", text(&findings));
        assert_eq!(findings.iter().filter(|f| f.part == "job store").count(), 1);

        std::fs::write(folder.path().join("file"), "").unwrap();
        std::fs::write(&path, "[http]\nlisten = 127.0.0.1:0\n[results]\nshared_dir = file/below\n[xmpp_server]\nlisten = 127.0.0.1:0\n").unwrap();
        let findings = examine(Some(&path)).await;
        let wrong: Vec<_> = findings.iter().filter(|f| f.verdict == Verdict::Wrong).collect();
        assert_eq!((wrong.len(), wrong[0].part), (1, "shared folder"));

        std::fs::write(&path, "[htpp]\n").unwrap();
        let findings = examine(Some(&path)).await;
        assert!(findings[0].what.contains("did you mean [http]"), "{}", findings[0].what);
    }

    #[tokio::test]
    async fn an_xmpp_server_that_is_not_there_is_a_finding_with_a_remedy() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("orchestrator.ini");
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let ini = format!(
            "[http]\nlisten = 127.0.0.1:0\n[xmpp_server]\nenabled = false\n[xmpp]\naddress = 127.0.0.1\nport = {port}\ntls = none\npassword = x\n"
        );
        std::fs::write(&path, ini).unwrap();
        let findings = examine(Some(&path)).await;
        let wrong: Vec<_> = findings.iter().filter(|f| f.verdict == Verdict::Wrong).collect();
        assert_eq!(wrong.len(), 1, "{}", text(&findings));
        assert!(wrong[0].part == "XMPP" && wrong[0].remedy.contains("[xmpp] address"));
    }
}
