//! The harness of the end-to-end tests: a [`Site`] is one orchestrator or several, agents, and an XMPP server, all as real
//! programs on free ports with everything in one temporary folder. A test fails when a program of its site died, wrote a
//! warning or error that the test did not announce, or left a process behind.
//!
//! ```no_run
//! e2e::run("hello", |site| {
//!     let orchestrator = site.orchestrator().start();
//!     let _agent = site.agent("a").service("echo").start();
//!     let mut wps = orchestrator.wps();
//!     orchestrator.wait_for(&["demo:Echo"]);
//!     let answer = wps.execute(&e2e::client::Execute::new("demo:Echo").literal("text", "hi").raw("result_text"));
//!     assert_eq!(answer.text(), "hi");
//! });
//! ```

pub mod agent;
pub mod bus;
pub mod caller;
pub mod chaos;
pub mod client;
pub mod fixtures;
pub mod fleet;
pub mod geoserver;
pub mod http;
pub mod old_agent;
pub mod orchestrator;
pub mod port;
pub mod postgres;
pub mod program;
pub mod proxy;
pub mod python;
pub mod random;
pub mod simulation;
pub mod upload_server;
pub mod xml;
pub mod xmpp;

use std::cell::RefCell;
use std::fs;
use std::io::{self, Write as _};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::agent::AgentBuilder;
use crate::bus::Bus;
use crate::orchestrator::OrchestratorBuilder;
pub use crate::port::free_port;
use crate::program::{Program, processes_with};
use crate::xmpp::XmppServer;

/// Asks until there is an answer or the time is up.
pub fn wait_until<T>(limit: Duration, mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return Some(answer);
        }
        if start.elapsed() >= limit {
            return None;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Nanoseconds since 1970 by this host's clock, as `date +%s%N` prints them.
#[expect(clippy::disallowed_methods, reason = "compared with what other programs read from the same clock")]
pub fn nanoseconds() -> u128 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_nanos())
}

/// The root of the checkout.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests lie in the root")
}

/// Whether a program is installed here.
pub fn installed(program: &str) -> bool {
    std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|folder| folder.join(program).is_file()))
}

/// Says that a test does not run here; every skip comes through here, so that a run can be searched for it.
pub fn skip(what: &str, why: &str) {
    tell(&format!("SKIPPED {what}: {why}"));
}

/// A line for whoever watches the run. It goes past the capture of the test framework, which would swallow it when the
/// test passes.
pub fn tell(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// Everything of one test.
pub struct Site {
    name: String,
    folder: PathBuf,
    bus: Bus,
    programs: RefCell<Vec<Rc<Program>>>,
    announced: RefCell<Vec<String>>,
}

/// Runs a test on a site over the embedded XMPP server, then looks at what is left.
///
/// # Panics
/// If the test does, or a program died, or wrote an unexpected warning, or left a process behind.
pub fn run(name: &str, test: impl FnOnce(&Site)) {
    run_with(name, Bus::embedded, test);
}

/// The same over every XMPP server that is installed here, one after the other.
///
/// # Panics
/// See [`run`].
pub fn run_over_every_server(name: &str, test: impl Fn(&Site)) {
    run(name, &test);
    for server in xmpp::every_server(name) {
        let label = server.label();
        if label != "embedded" {
            tell(&format!("{name} over {label}"));
            run_on(&format!("{name}-{label}"), server, &test);
        }
    }
}

/// The same over this server.
///
/// # Panics
/// See [`run`].
pub fn run_on(name: &str, server: Box<dyn XmppServer>, test: impl FnOnce(&Site)) {
    run_with(name, |_| Bus::own(server), test);
}

fn run_with(name: &str, bus: impl FnOnce(&Path) -> Bus, test: impl FnOnce(&Site)) {
    let scratch = tempfile::Builder::new()
        .prefix(&format!("wps-e2e-{name}-"))
        .tempdir()
        .expect("the temporary folder can be written to");
    let site = Site {
        name: name.to_owned(),
        folder: scratch.path().to_owned(),
        bus: bus(scratch.path()),
        programs: RefCell::default(),
        announced: RefCell::default(),
    };
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        test(&site);
        site.finish();
    }));
    let report = outcome.is_err().then(|| site.report());
    site.sweep();
    if let Err(panic) = outcome {
        tell(&report.unwrap_or_default());
        tell(&format!("everything of the test `{name}` is kept in {}", scratch.keep().display()));
        resume_unwind(panic);
    }
}

impl Site {
    /// The name of the test.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The folder that holds everything of this test.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The XMPP server, as configurations name it.
    pub fn bus(&self) -> &Bus {
        &self.bus
    }

    /// A new folder within.
    pub fn make_folder(&self, name: &str) -> PathBuf {
        let folder = self.folder.join(name);
        fs::create_dir_all(&folder).expect("the temporary folder can be written to");
        folder
    }

    /// A folder that orchestrator and agents share.
    pub fn shared_folder(&self) -> PathBuf {
        self.make_folder("shared")
    }

    /// An orchestrator to be configured and started.
    pub fn orchestrator(&self) -> OrchestratorBuilder<'_> {
        OrchestratorBuilder::new(self)
    }

    /// An agent to be configured and started; `name` is unique on this site.
    pub fn agent(&self, name: &str) -> AgentBuilder<'_> {
        AgentBuilder::new(self, name)
    }

    /// Warnings and errors that contain this text are expected in this test.
    pub fn expect_warning(&self, text: &str) {
        self.announced.borrow_mut().push(text.to_owned());
    }

    /// Keeps an eye on a program until the end of the test.
    pub(crate) fn watch(&self, program: &Rc<Program>) {
        self.programs.borrow_mut().push(program.clone());
    }

    /// Programs that were stopped or killed on purpose are looked at for warnings only.
    pub(crate) fn forget(&self, program: &Rc<Program>) {
        self.check_log(program);
        self.programs.borrow_mut().retain(|other| !Rc::ptr_eq(other, program));
    }

    /// The end of a good test: all programs still alive, nothing unexpected in the logs, orderly ends, nothing left.
    fn finish(&self) {
        for program in self.programs.borrow().iter() {
            if let Some(status) = program.ended() {
                panic!("{} died ({status}):\n{}", program.name(), program.tail());
            }
            self.check_log(program);
        }
        // Agents first: an orchestrator that goes away is a reason for them to warn.
        for program in self.programs.borrow().iter().rev() {
            let status = program.stop();
            assert!(
                status.success(),
                "{} ended with {status} when it was stopped:\n{}",
                program.name(),
                program.tail()
            );
        }
        let left = wait_until(Duration::from_secs(15), || self.processes().is_empty().then_some(()));
        assert!(left.is_some(), "left behind: {:?}", self.processes());
    }

    fn check_log(&self, program: &Program) {
        let log = program.log();
        let announced = self.announced.borrow();
        let unexpected: Vec<&str> = log
            .lines()
            .filter(|line| is_complaint(line) && !announced.iter().any(|text| line.contains(text.as_str())))
            .collect();
        assert!(
            unexpected.is_empty(),
            "{} wrote what was not expected:\n{}",
            program.name(),
            unexpected.join("\n")
        );
    }

    fn processes(&self) -> Vec<(u32, String)> {
        processes_with(&self.folder.to_string_lossy())
    }

    fn report(&self) -> String {
        let mut report = String::new();
        let Ok(entries) = fs::read_dir(&self.folder) else { return report };
        for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
            if path.extension().is_some_and(|ending| ending == "log") {
                let log = fs::read(&path).unwrap_or_default();
                let log = String::from_utf8_lossy(&log);
                let lines: Vec<&str> = log.lines().collect();
                let from = lines.len().saturating_sub(60);
                report += &format!("---- {} (last lines)\n{}\n", path.display(), lines[from..].join("\n"));
            }
        }
        report
    }

    /// Ends whatever of this test is still there, supervisors and their children included.
    fn sweep(&self) {
        self.programs.borrow_mut().clear();
        let _ = wait_until(Duration::from_secs(5), || {
            let left = self.processes();
            for (pid, _) in &left {
                if let Some(pid) = i32::try_from(*pid).ok().and_then(Pid::from_raw) {
                    let _ = kill_process(pid, Signal::KILL);
                }
            }
            left.is_empty().then_some(())
        });
    }
}

/// Whether a line of a log is a warning or an error, or a panic.
fn is_complaint(line: &str) -> bool {
    let plain = line.split_whitespace().take(3).any(|word| matches!(word, "WARN" | "ERROR"));
    plain
        || line.contains("panicked at")
        || line.contains("\"level\":\"WARN\"")
        || line.contains("\"level\":\"ERROR\"")
}
