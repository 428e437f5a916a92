//! The orchestrator of a site: its configuration, the running program, and what tests ask of it.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::time::Duration;

use crate::Site;
use crate::client::Wps;
use crate::http::{Answer, Http};
use crate::postgres::Postgres;
use crate::program::{Program, binary};
use crate::{free_port, wait_until};

/// Longest start of a program on a busy machine.
pub const START: Duration = Duration::from_secs(20);

/// An orchestrator that is not started yet.
pub struct OrchestratorBuilder<'a> {
    site: &'a Site,
    name: String,
    extra: String,
    env: Vec<(String, String)>,
}

impl<'a> OrchestratorBuilder<'a> {
    pub(crate) fn new(site: &'a Site) -> Self {
        Self { site, name: "orchestrator".to_owned(), extra: String::new(), env: Vec::new() }
    }

    /// Another name than `orchestrator`, for one of several.
    #[must_use]
    pub fn named(mut self, name: &str) -> Self {
        name.clone_into(&mut self.name);
        self
    }

    /// One of several that share this database and one folder of results; they need an XMPP server of its own.
    #[must_use]
    pub fn sharing(self, postgres: &Postgres) -> Self {
        let results = self.site.make_folder("results");
        let node = self.name.clone();
        self.config(&format!(
            "[store]\nurl = {}\nnode = {node}\nlease_s = 2\n[results]\nstore_dir = {}",
            postgres.url(),
            results.display()
        ))
    }

    /// More lines of configuration, such as `[limits]\nmax_body_mb = 1`.
    #[must_use]
    pub fn config(mut self, lines: &str) -> Self {
        self.extra += lines;
        self.extra += "\n";
        self
    }

    /// An environment variable of the program.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Writes the configuration, starts the program, and waits until it answers.
    pub fn start(self) -> Orchestrator<'a> {
        let folder = self.site.make_folder(&self.name);
        let file = folder.join("orchestrator.ini");
        let http = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let shared = self.site.shared_folder();
        let mut ini = String::new();
        let _ = write!(ini, "[http]\nlisten = {http}\n\n[results]\nshared_dir = {}\n\n", shared.display());
        ini += &self.site.bus().orchestrator_lines();
        ini += &self.extra;
        fs::write(&file, merged(&ini)).expect("the temporary folder can be written to");
        Orchestrator::launch(self.site, &self.name, file, http, self.env)
    }
}

/// The same text with each section in one piece, as the orchestrator wants it.
fn merged(ini: &str) -> String {
    let mut sections: Vec<(&str, String)> = Vec::new();
    for line in ini.lines().map(str::trim).filter(|line| !line.is_empty()) {
        if line.starts_with('[') {
            sections.push((line, String::new()));
        } else if let Some((_, body)) = sections.last_mut() {
            *body += &format!("{line}\n");
        }
    }
    let mut text = String::new();
    while !sections.is_empty() {
        let (name, _) = sections[0];
        text += &format!("{name}\n");
        sections.retain(|(other, body)| {
            if *other == name {
                text += body;
            }
            *other != name
        });
        text += "\n";
    }
    text
}

/// A running orchestrator.
pub struct Orchestrator<'a> {
    site: &'a Site,
    name: String,
    file: PathBuf,
    http: SocketAddr,
    env: Vec<(String, String)>,
    program: Rc<Program>,
}

impl<'a> Orchestrator<'a> {
    fn launch(
        site: &'a Site,
        name: &str,
        file: PathBuf,
        http: SocketAddr,
        env: Vec<(String, String)>,
    ) -> Self {
        let mut command = Command::new(binary("wps-orchestrator"));
        command.args(["serve", "--config"]).arg(&file).envs(env.iter().map(|(name, value)| (name, value)));
        let log = site.folder().join(format!("{name}.log"));
        let program = Rc::new(Program::start(name, command, &log).expect("the orchestrator can be started"));
        site.watch(&program);
        let this = Self { site, name: name.to_owned(), file, http, env, program };
        let ready = wait_until(START, || {
            assert!(this.program.ended().is_none(), "the orchestrator ended:\n{}", this.program.tail());
            // One that serves HTTPS says so to whoever speaks plainly.
            let ready = |answer: &Answer| answer.status == 200 || answer.text().contains("HTTPS");
            Http::new(http).get("/health").ok().filter(ready)
        });
        assert!(ready.is_some(), "the orchestrator does not answer on {http}:\n{}", this.program.tail());
        this
    }

    /// Where it answers.
    pub fn address(&self) -> SocketAddr {
        self.http
    }

    /// Address of its WPS.
    pub fn url(&self) -> String {
        format!("http://{}/wps", self.http)
    }

    /// Runs the program's command line on its configuration, with this on standard input; gives success and both outputs.
    pub fn command(&self, arguments: &[&str], input: &str) -> (bool, String, String) {
        let mut command = Command::new(binary("wps-orchestrator"));
        command.arg("--config").arg(&self.file).args(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program can be started");
        let mut pipe = child.stdin.take().expect("it has a standard input");
        // A command that reads nothing may have closed it.
        let _ = pipe.write_all(input.as_bytes());
        drop(pipe);
        let output = child.wait_with_output().expect("it ends");
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        (output.status.success(), text(output.stdout), text(output.stderr))
    }

    /// Its configuration file.
    pub fn config_file(&self) -> &Path {
        &self.file
    }

    /// A new client.
    pub fn wps(&self) -> Wps {
        Wps::new(self.http)
    }

    /// The program, for its memory and log.
    pub fn program(&self) -> &Program {
        &self.program
    }

    /// Waits until all these processes are on offer.
    pub fn wait_for(&self, processes: &[&str]) {
        self.wait_until_offer(Duration::from_secs(20), &format!("{processes:?} on offer"), |offered| {
            processes.iter().all(|process| offered.iter().any(|other| other == process))
        });
    }

    /// Waits until none of these processes is on offer.
    pub fn wait_without(&self, processes: &[&str]) {
        self.wait_until_offer(Duration::from_secs(20), &format!("{processes:?} gone"), |offered| {
            !processes.iter().any(|process| offered.iter().any(|other| other == process))
        });
    }

    /// Waits until the capabilities satisfy the test.
    pub fn wait_until_offer(&self, limit: Duration, what: &str, test: impl Fn(&[String]) -> bool) {
        let mut wps = self.wps();
        let mut last = Vec::new();
        let reached = wait_until(limit, || {
            last = wps.processes().unwrap_or_default();
            test(&last).then_some(())
        });
        assert!(reached.is_some(), "not within {limit:?}: {what}; offered: {last:?}");
    }

    /// A value of the metrics page without labels; `None` if the page cannot be had.
    pub fn metric(&self, name: &str) -> Option<f64> {
        let answer = Http::new(self.http).get("/metrics").ok()?;
        let page = answer.text();
        page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
    }

    /// Whether this many agents are present.
    pub fn agents_present(&self, count: u32) -> bool {
        self.metric("wps_agents") == Some(f64::from(count))
    }

    /// Kills it (SIGKILL) for good.
    pub fn kill(self) {
        self.program.kill();
        self.site.forget(&self.program);
    }

    /// Stops it in order, for good.
    pub fn stop(self) {
        let status = self.program.stop();
        assert!(status.success(), "ended with {status}:\n{}", self.program.tail());
        self.site.forget(&self.program);
    }

    /// Kills it (SIGKILL) and starts it again with the same configuration.
    pub fn kill_and_restart(self) -> Self {
        self.program.kill();
        self.relaunch()
    }

    /// Stops it in order and starts it again with the same configuration.
    pub fn restart(self) -> Self {
        let status = self.program.stop();
        assert!(status.success(), "ended with {status}:\n{}", self.program.tail());
        self.relaunch()
    }

    fn relaunch(self) -> Self {
        self.site.forget(&self.program);
        Self::launch(self.site, &self.name, self.file, self.http, self.env)
    }
}
