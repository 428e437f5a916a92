//! `wps-orchestrator jobs` and `agents`: ask a running orchestrator over its own HTTP side and print what it says.

use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use rustls::pki_types::ServerName;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use wps_remote_xmpp::net::{Trust, client_config};

use super::{complain, print};
use crate::compose::LOCAL_SECRET;
use crate::config::Config;

/// Largest answer that is read.
const MAX_ANSWER: u64 = 64 << 20;

#[derive(Debug, Args)]
pub(super) struct Target {
    /// Address of the running orchestrator, with https:// in front where it speaks HTTPS; default: [http] listen of the
    /// configuration
    #[arg(long, value_name = "HOST:PORT")]
    at: Option<String>,
    /// JSON instead of a table
    #[arg(long)]
    json: bool,
}

/// What is asked about one job.
#[derive(Debug, Subcommand)]
pub(super) enum JobAction {
    /// Say why a job waits, or why it runs where it runs
    Explain {
        #[command(flatten)]
        target: Target,
        /// The job
        id: String,
    },
}

/// What is done with one agent.
#[derive(Debug, Subcommand)]
pub(super) enum AgentAction {
    /// Take an agent out of service: it gets nothing new, what it runs goes on; holds over restarts, for all orchestrators
    Drain {
        #[command(flatten)]
        target: Target,
        /// Its name, as `agents` shows it
        agent: String,
        /// Why, for those whose jobs wait
        #[arg(long, value_name = "TEXT", default_value = "maintenance")]
        reason: String,
    },
    /// Take an agent back into service
    Undrain {
        #[command(flatten)]
        target: Target,
        /// Its name
        agent: String,
    },
}

/// Where to ask, and what makes us an operator there.
struct Orchestrator {
    address: String,
    token: Option<String>,
    tls: Option<Tls>,
}

/// HTTPS, and whose certificate is expected.
struct Tls {
    name: String,
    trust: Trust,
}

/// A connection, with or without TLS.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

impl Orchestrator {
    async fn connect(&self) -> std::io::Result<Box<dyn Stream>> {
        let stream = TcpStream::connect(&self.address).await?;
        let Some(tls) = &self.tls else { return Ok(Box::new(stream)) };
        let config = client_config(&tls.trust).map_err(std::io::Error::other)?;
        let name = ServerName::try_from(tls.name.clone()).map_err(std::io::Error::other)?;
        let secured = tokio_rustls::TlsConnector::from(config).connect(name, stream).await;
        Ok(Box::new(secured?))
    }
}

impl Target {
    /// The secret of this installation opens the orchestrator of this host; for others a token is lent by the environment.
    fn orchestrator(&self, config: &Config) -> Orchestrator {
        let lent = std::env::var("WPS_ORCHESTRATOR_TOKEN").ok();
        let own = || std::fs::read_to_string(config.data_dir.join(LOCAL_SECRET)).ok();
        let token = lent.or_else(|| if self.at.is_none() { own() } else { None });
        let token = token.map(|token| token.trim().to_owned());
        let address = self.address(config);
        let tls = match &self.at {
            // Ours is known by its file, whatever names it carries.
            None => config.http.tls.as_ref().map(|files| Trust::ca_file(&files.certificate)),
            Some(at) => at.starts_with("https://").then(Trust::default),
        };
        let name = address.rsplit_once(':').map_or(address.as_str(), |(host, _)| host);
        let name = name.trim_matches(['[', ']']).to_owned();
        Orchestrator {
            address,
            tls: tls.map(|trust| Tls { name, trust }),
            token: token.filter(|t| t.bytes().all(|b| b.is_ascii_graphic())),
        }
    }

    fn address(&self, config: &Config) -> String {
        let at = self.at.as_deref().map(|at| {
            let bare = at.trim_start_matches("https://").trim_start_matches("http://");
            bare.trim_end_matches('/').to_owned()
        });
        at.unwrap_or_else(|| {
            let mut listen = config.http.listen;
            if listen.ip().is_unspecified() {
                listen.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
            }
            listen.to_string()
        })
    }
}

pub(super) async fn jobs(config: &Config, target: &Target, id: Option<&str>, dismiss: bool) -> ExitCode {
    let orchestrator = target.orchestrator(config);
    if let Some(id) = id
        && !id.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-')
    {
        return complain(2, format!("`{id}` is not a job id"));
    }
    if dismiss {
        let path =
            format!("/wps?service=WPS&version=1.0.0&request=Dismiss&executionId={}", id.unwrap_or_default());
        return match get(&orchestrator, &path).await {
            Ok((200, _)) => {
                print("dismissed\n");
                ExitCode::SUCCESS
            }
            Ok((status, body)) => complain(1, format!("HTTP {status}: {}", body.trim())),
            Err(error) => unreachable(&orchestrator.address, &error),
        };
    }
    let path = id.map_or_else(|| "/jobs".to_owned(), |id| format!("/jobs/{id}"));
    show(&orchestrator, &path, target.json, |value| match value.get("jobs") {
        Some(list) => table(
            list,
            &[
                ("JOB", "/id"),
                ("PROCESS", "/process"),
                ("STATE", "/state"),
                ("%", "/percent"),
                ("CREATED", "/created"),
                ("AGENT", "/agent"),
                ("MESSAGE", "/message"),
            ],
        ),
        None => serde_json::to_string_pretty(value).unwrap_or_default() + "\n",
    })
    .await
}

/// `jobs explain`.
pub(super) async fn job(config: &Config, action: &JobAction) -> ExitCode {
    let JobAction::Explain { target, id } = action;
    if !id.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-') {
        return complain(2, format!("`{id}` is not a job id"));
    }
    let path = format!("/jobs/{id}/explain");
    show(&target.orchestrator(config), &path, target.json, |value| {
        let lines = value.get("why").and_then(Value::as_array).into_iter().flatten();
        lines.filter_map(Value::as_str).map(|line| line.to_owned() + "\n").collect()
    })
    .await
}

/// `agents drain` and `agents undrain`.
pub(super) async fn agent(config: &Config, action: &AgentAction) -> ExitCode {
    let part = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    let (target, path, done) = match action {
        AgentAction::Drain { target, agent, reason } => {
            (target, format!("/agents/{}/drain?reason={}", part(agent), part(reason)), "out of service")
        }
        AgentAction::Undrain { target, agent } => {
            (target, format!("/agents/{}/undrain", part(agent)), "in service")
        }
    };
    let orchestrator = target.orchestrator(config);
    match ask("POST", &orchestrator, &path).await {
        Ok((200, body)) if target.json => {
            print(format_args!("{}\n", body.trim_end()));
            ExitCode::SUCCESS
        }
        Ok((200, body)) => {
            let value: Value = serde_json::from_str(&body).unwrap_or_default();
            let running = value.get("running").and_then(Value::as_u64).unwrap_or(0);
            let there =
                if value.get("present") == Some(&Value::Bool(false)) { "; it is not online now" } else { "" };
            print(format_args!("{done}; {running} job(s) of this orchestrator run there{there}\n"));
            ExitCode::SUCCESS
        }
        Ok((404, _)) => complain(1, "there is no such agent; `wps-orchestrator agents` lists them"),
        Ok((status, body)) => complain(1, format!("HTTP {status}: {}", body.trim())),
        Err(error) => unreachable(&orchestrator.address, &error),
    }
}

/// `usage`.
pub(super) async fn usage(config: &Config, target: &Target, user: Option<&str>) -> ExitCode {
    let path = user.map_or_else(
        || "/usage".to_owned(),
        |user| format!("/usage?user={}", utf8_percent_encode(user, NON_ALPHANUMERIC)),
    );
    show(&target.orchestrator(config), &path, target.json, |value| {
        let rows: Vec<Value> = [
            ("jobs running", "/running", "/jobs"),
            ("jobs waiting", "/queued", "/jobs"),
            ("jobs kept", "/stored_jobs", "/jobs"),
            ("bytes kept", "/stored_bytes", "/bytes"),
        ]
        .iter()
        .map(|(name, at, key)| {
            let entry = value.pointer(at);
            let of = |pointer: &str| entry.and_then(|entry| entry.pointer(pointer)).cloned();
            serde_json::json!({ "what": name, "now": of(key), "max": of("/limit/max"), "setting": of("/limit/setting") })
        })
        .collect();
        table(&Value::Array(rows), &[("WHAT", "/what"), ("NOW", "/now"), ("MOST", "/max"), ("LIMIT", "/setting")])
    })
    .await
}

pub(super) async fn agents(config: &Config, target: &Target) -> ExitCode {
    show(&target.orchestrator(config), "/agents", target.json, |value| {
        let mut text = table(
            value.get("agents").unwrap_or(&Value::Null),
            &[
                ("AGENT", "/id"),
                ("SOFTWARE", "/software"),
                ("RUNNING", "/running"),
                ("CPU %", "/load/cpu_percent"),
                ("MEM %", "/load/memory_percent"),
                ("ACCEPTS", "/accepts"),
                ("LABELS", "/labels"),
                ("CANNOT", "/cannot"),
                ("PROCESSES", "/processes"),
                ("WARNING", "/load/warning"),
                ("DIFFER", "/conflicts"),
            ],
        );
        let incidents = value.get("not_believed").unwrap_or(&Value::Null);
        if incidents.as_array().is_some_and(|list| !list.is_empty()) {
            text.push_str("\nNot believed since the start:\n");
            text.push_str(&table(
                incidents,
                &[
                    ("WHAT", "/what"),
                    ("SENDER", "/sender"),
                    ("ACCOUNT", "/account"),
                    ("TIMES", "/count"),
                    ("LAST", "/last"),
                    ("WHY", "/why"),
                ],
            ));
        }
        text
    })
    .await
}

async fn show(
    orchestrator: &Orchestrator,
    path: &str,
    json: bool,
    text: impl Fn(&Value) -> String,
) -> ExitCode {
    let address = &orchestrator.address;
    match get(orchestrator, path).await {
        Ok((200, body)) => match serde_json::from_str::<Value>(&body) {
            Ok(value) if !json => {
                print(text(&value));
                ExitCode::SUCCESS
            }
            Ok(_) => {
                print(format_args!("{}\n", body.trim_end()));
                ExitCode::SUCCESS
            }
            Err(error) => complain(1, format!("{address} does not answer like an orchestrator: {error}")),
        },
        Ok((404, _)) => complain(1, "there is no such job"),
        Ok((status, body)) => complain(1, format!("HTTP {status}: {}", body.trim())),
        Err(error) => unreachable(address, &error),
    }
}

fn unreachable(address: &str, error: &std::io::Error) -> ExitCode {
    complain(
        1,
        format!(
            "no orchestrator answers at {address}: {error}; is `wps-orchestrator serve` running? (--at HOST:PORT asks elsewhere)"
        ),
    )
}

async fn get(orchestrator: &Orchestrator, path: &str) -> std::io::Result<(u16, String)> {
    ask("GET", orchestrator, path).await
}

/// One request without a body; HTTP/1.0, so that the end of the connection is the end of the answer.
async fn ask(method: &str, orchestrator: &Orchestrator, path: &str) -> std::io::Result<(u16, String)> {
    let Orchestrator { address, token, .. } = orchestrator;
    let authorization =
        token.as_ref().map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
    let exchange = async {
        let mut stream = orchestrator.connect().await?;
        let request = format!(
            "{method} {path} HTTP/1.0\r\nHost: {address}\r\nAccept: application/json\r\nContent-Length: 0\r\n{authorization}Connection: close\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        // TLS without a farewell (RFC 8446 §6.1) cuts nothing off: the length of what we ask for is in its head.
        match stream.take(MAX_ANSWER).read_to_end(&mut answer).await {
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof && !answer.is_empty() => 0,
            read => read?,
        };
        Ok::<_, std::io::Error>(String::from_utf8_lossy(&answer).into_owned())
    };
    let answer = tokio::time::timeout(Duration::from_secs(30), exchange)
        .await
        .map_err(|_| std::io::Error::from(std::io::ErrorKind::TimedOut))??;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    let status = status.ok_or_else(|| std::io::Error::other("the answer is not HTTP"))?;
    Ok((status, body.to_owned()))
}

/// Aligned columns; the last one is as long as it likes.
fn table(rows: &Value, columns: &[(&str, &str)]) -> String {
    let cell = |value: Option<&Value>| match value {
        None | Some(Value::Null) => "-".to_owned(),
        Some(Value::String(text)) => text.split_whitespace().collect::<Vec<_>>().join(" "),
        Some(Value::Number(n)) => {
            n.as_f64().filter(|_| n.is_f64()).map_or_else(|| n.to_string(), |f| format!("{f:.1}"))
        }
        Some(Value::Array(list)) => list
            .iter()
            .map(|v| v.as_str().map_or_else(|| v.to_string(), str::to_owned))
            .collect::<Vec<_>>()
            .join(" "),
        Some(other) => other.to_string(),
    };
    let mut lines: Vec<Vec<String>> = vec![columns.iter().map(|(title, _)| (*title).to_owned()).collect()];
    for row in rows.as_array().into_iter().flatten() {
        lines.push(columns.iter().map(|(_, pointer)| cell(row.pointer(pointer))).collect());
    }
    let widths: Vec<usize> = (0..columns.len())
        .map(|n| lines.iter().map(|line| line[n].chars().count()).max().unwrap_or(0))
        .collect();
    let mut text = String::new();
    for line in lines {
        let padded: Vec<String> =
            line.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        text.push_str(padded.join("  ").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_aligned() {
        let rows = serde_json::json!([{"id": "a", "n": 1.25, "list": ["x", "y"]}, {"id": "long", "n": null}]);
        let text = table(&rows, &[("ID", "/id"), ("N", "/n"), ("LIST", "/list")]);
        assert_eq!(text, "ID    N    LIST\na     1.2  x y\nlong  -    -\n");
    }
}
