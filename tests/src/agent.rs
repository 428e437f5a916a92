//! An agent of a site: its folder of descriptors, its configuration, the running program.

use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;

use crate::Site;
use crate::bus::rerouted;
use crate::program::{Program, binary};
use crate::proxy::Proxy;
use crate::root;

/// An agent that is not started yet.
pub struct AgentBuilder<'a> {
    site: &'a Site,
    name: String,
    services: PathBuf,
    extra: String,
    run: Launch,
    way: Option<String>,
    shares: bool,
}

/// How the program is started.
#[derive(Debug, Clone, Default)]
struct Launch {
    arguments: Vec<String>,
    env: Vec<(String, String)>,
}

impl<'a> AgentBuilder<'a> {
    pub(crate) fn new(site: &'a Site, name: &str) -> Self {
        let services = site.make_folder(&format!("{name}/services"));
        Self {
            site,
            name: name.to_owned(),
            services,
            extra: String::new(),
            run: Launch::default(),
            way: None,
            shares: true,
        }
    }

    /// One of the ready services, copied, with the elevation model beside it.
    #[must_use]
    pub fn service(self, folder: &str) -> Self {
        copy(&root().join("services").join(folder), &self.services.join(folder));
        copy(&root().join("services/data"), &self.services.join("data"));
        self
    }

    /// A file in the folder of descriptors; `text` of a script must begin with `#!`.
    #[must_use]
    pub fn file(self, name: &str, text: &str) -> Self {
        write_file(&self.services, name, text);
        self
    }

    /// More lines of `remote.config`, such as `kill_grace_seconds = 1`.
    #[must_use]
    pub fn config(mut self, lines: &str) -> Self {
        self.extra += lines;
        self.extra += "\n";
        self
    }

    /// Without the folder that it shares with the orchestrator.
    #[must_use]
    pub fn alone(mut self) -> Self {
        self.shares = false;
        self
    }

    /// An environment variable of the program.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.run.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// One more argument of `run`, such as `-vv`.
    #[must_use]
    pub fn argument(mut self, argument: &str) -> Self {
        self.run.arguments.push(argument.to_owned());
        self
    }

    /// Reaches the XMPP server by this port.
    #[must_use]
    pub fn through(mut self, proxy: &Proxy) -> Self {
        self.way = Some(proxy.place().to_owned());
        self
    }

    /// Writes the configuration and starts the program. It announces itself when it can: wait for its processes.
    pub fn start(self) -> Agent<'a> {
        let file = self.write();
        Agent::launch(self.site, &self.name, file, self.services, self.run)
    }

    /// Writes the configuration only, and gives its file.
    pub fn write(&self) -> PathBuf {
        let folder = self.site.make_folder(&self.name);
        let file = folder.join("remote.config");
        let running = self.site.make_folder(&format!("{}/running", self.name));
        let mut config = String::from("[DEFAULT]\n");
        config += &rerouted(self.site.bus().agent_lines(&self.name), self.way.as_deref());
        let _ = writeln!(config, "services_dir = {}", self.services.display());
        let _ = writeln!(config, "resource_file_dir = {}", running.display());
        if self.shares {
            let _ = writeln!(config, "wps_execution_shared_dir = {}", self.site.shared_folder().display());
        }
        config += &self.extra;
        write_private(&file, &config).expect("the temporary folder can be written to");
        file
    }
}

/// A running agent.
pub struct Agent<'a> {
    site: &'a Site,
    name: String,
    file: PathBuf,
    services: PathBuf,
    run: Launch,
    program: Rc<Program>,
}

impl<'a> Agent<'a> {
    fn launch(site: &'a Site, name: &str, file: PathBuf, services: PathBuf, run: Launch) -> Self {
        let mut command = Command::new(binary("wps-remote-agent"));
        command.args(["run", "--config"]).arg(&file).args(&run.arguments);
        command.envs(run.env.iter().map(|(name, value)| (name, value)));
        let log = site.folder().join(format!("{name}.log"));
        let program = Rc::new(Program::start(name, command, &log).expect("the agent can be started"));
        site.watch(&program);
        Self { site, name: name.to_owned(), file, services, run, program }
    }

    /// The folder that it watches.
    pub fn services(&self) -> &Path {
        &self.services
    }

    /// Writes a file into the watched folder; a script (`#!`) becomes executable.
    pub fn write(&self, name: &str, text: &str) {
        write_file(&self.services, name, text);
    }

    /// Removes a file from the watched folder.
    pub fn remove(&self, name: &str) {
        fs::remove_file(self.services.join(name)).expect("the file was there");
    }

    /// Its configuration file.
    pub fn config_file(&self) -> &Path {
        &self.file
    }

    /// The program, for its memory and log.
    pub fn program(&self) -> &Program {
        &self.program
    }

    /// Kills it (SIGKILL) for good.
    pub fn kill(self) {
        self.program.kill();
        self.site.forget(&self.program);
    }

    /// Stops it in order, for good.
    pub fn stop(self) {
        let status = self.program.stop();
        assert!(status.success(), "{} ended with {status}:\n{}", self.name, self.program.tail());
        self.site.forget(&self.program);
    }

    /// Stops it in order and starts it again with the same configuration.
    pub fn stop_and_restart(self) -> Self {
        let status = self.program.stop();
        assert!(status.success(), "{} ended with {status}:\n{}", self.name, self.program.tail());
        self.site.forget(&self.program);
        Self::launch(self.site, &self.name, self.file, self.services, self.run)
    }

    /// Kills it (SIGKILL) and starts it again with the same configuration.
    pub fn kill_and_restart(self) -> Self {
        self.kill_and_restart_after(|| {})
    }

    /// Kills it (SIGKILL) and starts it again with the same configuration, after something has happened in its absence.
    pub fn kill_and_restart_after(self, happening: impl FnOnce()) -> Self {
        self.program.kill();
        self.site.forget(&self.program);
        happening();
        Self::launch(self.site, &self.name, self.file, self.services, self.run)
    }

    /// Runs one of the commands for operators on it, such as `status`; gives exit code and both outputs.
    pub fn operator(&self, command: &str, arguments: &[&str]) -> (Option<i32>, String) {
        let mut program = Command::new(binary("wps-remote-agent"));
        program.arg(command).arg("--config").arg(&self.file).args(arguments);
        let output = program.output().expect("the agent's program can be started");
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8_lossy(&text).into_owned())
    }
}

/// Writes a file that holds passwords: nobody else may read it.
pub fn write_private(path: &Path, text: &str) -> io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())
}

/// Writes a file whole or not at all, as an editor does.
fn write_file(folder: &Path, name: &str, text: &str) {
    use std::os::unix::fs::PermissionsExt;
    let path = folder.join(name);
    let parent = path.parent().expect("a file lies in a folder");
    fs::create_dir_all(parent).expect("the temporary folder can be written to");
    let draft = parent.join(format!(".{}.draft", path.file_name().unwrap_or_default().to_string_lossy()));
    fs::write(&draft, text).expect("the temporary folder can be written to");
    let mode = if text.starts_with("#!") { 0o755 } else { 0o644 };
    fs::set_permissions(&draft, fs::Permissions::from_mode(mode)).expect("own files can be changed");
    fs::rename(&draft, &path).expect("the temporary folder can be written to");
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("the temporary folder can be written to");
    for entry in fs::read_dir(from).unwrap_or_else(|error| panic!("{}: {error}", from.display())) {
        let path = entry.expect("the folder can be read").path();
        let target = to.join(path.file_name().unwrap_or_default());
        if path.is_dir() {
            copy(&path, &target);
        } else {
            fs::copy(&path, &target).expect("the temporary folder can be written to");
        }
    }
}
