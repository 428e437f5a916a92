//! Callers with names and roles, as a proxy in front tells them, and the operator on the command line.

use std::process::Command;
use std::time::Duration;

use crate::client::{Exception, Execute, Status, document, exception, execution_id, status};
use crate::http::{Answer, Http};
use crate::orchestrator::Orchestrator;
use crate::program::binary;
use crate::wait_until;

const LONG: Duration = Duration::from_secs(30);
/// Names callers by headers, as a proxy does that has checked them.
pub const NAMED: &str =
    "[http]\ntrusted_proxies = 127.0.0.1\n[access]\nuser_header = X-User\nroles_header = X-Roles\n";

/// A caller with a name and a role.
pub struct Caller {
    http: Http,
    name: &'static str,
    role: &'static str,
}

impl Caller {
    /// Somebody whom the proxy in front names so.
    pub fn new(orchestrator: &Orchestrator<'_>, name: &'static str, role: &'static str) -> Self {
        Self { http: Http::new(orchestrator.address()), name, role }
    }

    /// Sends a request as this caller.
    ///
    /// # Panics
    /// If there is no answer.
    pub fn send(&mut self, method: &str, target: &str, body: &[u8]) -> Answer {
        let mut request = format!(
            "{method} {target} HTTP/1.1\r\nHost: wps\r\nX-User: {}\r\nX-Roles: {}\r\nContent-Type: text/xml\r\n\
             Content-Length: {}\r\n\r\n",
            self.name,
            self.role,
            body.len()
        )
        .into_bytes();
        request.extend_from_slice(body);
        self.http.exchange(&request).expect("the orchestrator answers")
    }

    /// Sends an Execute of WPS 1.0.0.
    pub fn execute(&mut self, execute: &Execute) -> Answer {
        self.send("POST", "/wps", execute.to_xml().as_bytes())
    }

    /// Sends an asynchronous Execute; gives the job's id.
    ///
    /// # Panics
    /// If it is not accepted.
    pub fn submit(&mut self, process: &str) -> String {
        let answer = self.execute(&Execute::new(process).stored());
        let root = document(&answer, "ExecuteResponse");
        execution_id(root.attribute("statusLocation").expect("a stored job has a location"))
    }

    /// Sends an Execute that is refused: the code of HTTP and the exception.
    pub fn refused(&mut self, execute: &Execute) -> (u16, Exception) {
        let answer = self.execute(execute);
        (answer.status, exception(&answer))
    }

    /// The status document of a job.
    pub fn fetch(&mut self, job: &str) -> Answer {
        let target = format!("/wps?service=WPS&version=1.0.0&request=GetExecutionStatus&executionId={job}");
        self.send("GET", &target, b"")
    }

    /// What it says.
    pub fn status(&mut self, job: &str) -> Status {
        status(&document(&self.fetch(job), "ExecuteResponse"))
    }

    /// Waits until a job's document says this.
    ///
    /// # Panics
    /// If it never does.
    pub fn wait_for(&mut self, job: &str, text: &str) {
        let mut last = String::new();
        let said = wait_until(LONG, || {
            last = self.fetch(job).text();
            last.contains(text).then_some(())
        });
        assert!(said.is_some(), "`{text}` is not said of {}'s job: {last}", self.name);
    }

    /// Waits until a job has ended.
    ///
    /// # Panics
    /// If it does not.
    pub fn wait(&mut self, job: &str) -> Status {
        let ended = wait_until(Duration::from_secs(60), || Some(self.status(job)).filter(Status::is_final));
        ended.unwrap_or_else(|| panic!("a job of {} does not end", self.name))
    }

    /// Gives a job up.
    pub fn dismiss(&mut self, job: &str) {
        self.send("GET", &format!("/wps?service=WPS&version=1.0.0&request=Dismiss&executionId={job}"), b"");
    }
}

/// A command of the operator of this host: whether it succeeded, and what it said.
///
/// # Panics
/// If it cannot be started.
pub fn cli(orchestrator: &Orchestrator<'_>, arguments: &[&str]) -> (bool, String) {
    let mut command = Command::new(binary("wps-orchestrator"));
    command.arg("--config").arg(orchestrator.config_file()).args(arguments);
    let output = command.output().expect("the program starts");
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}
