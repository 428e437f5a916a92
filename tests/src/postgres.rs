//! A PostgreSQL of a test's own: in a temporary folder, on a socket there, started and stopped by the test. Also compiled into
//! the unit tests of the orchestrator's store, so it uses nothing of this crate.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A running server.
pub struct Postgres {
    folder: tempfile::TempDir,
    binaries: PathBuf,
    server: Option<Child>,
}

impl Postgres {
    /// Starts one, or says why there is none.
    ///
    /// # Errors
    /// The reason for which PostgreSQL cannot be used here.
    ///
    /// # Panics
    /// If an installed PostgreSQL does not start.
    pub fn start() -> Result<Self, &'static str> {
        let binaries = binaries().ok_or("PostgreSQL is not installed")?;
        let folder = tempfile::Builder::new()
            .prefix("wps-pg-")
            .tempdir()
            .map_err(|_| "there is no room for temporary files")?;
        if is_root() {
            // The server refuses to run as root.
            let owned =
                Command::new("chown").arg("postgres").arg(folder.path()).stderr(Stdio::null()).status();
            if !owned.is_ok_and(|status| status.success()) {
                return Err("PostgreSQL does not run as root, and there is no user `postgres`");
            }
        }
        let mut postgres = Self { folder, binaries, server: None };
        let made = postgres
            .program("initdb")
            .args(["-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync", "-D"])
            .arg(postgres.data())
            .stdout(Stdio::null())
            .status();
        assert!(made.is_ok_and(|status| status.success()), "initdb failed");
        postgres.restart();
        Ok(postgres)
    }

    /// Where its socket is.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// How an orchestrator reaches it.
    pub fn url(&self) -> String {
        Self::url_at(&self.folder.path().display().to_string())
    }

    /// How an orchestrator reaches it by a socket in this folder.
    pub fn url_at(folder: &str) -> String {
        format!("postgres://postgres@localhost/postgres?host={folder}")
    }

    /// The socket itself.
    pub fn socket(&self) -> PathBuf {
        self.folder.path().join(".s.PGSQL.5432")
    }

    /// The rows of a query, with a tab between columns.
    ///
    /// # Panics
    /// If it fails.
    pub fn query(&self, sql: &str) -> Vec<String> {
        let mut psql = self.program("psql");
        psql.args(["-XAtq", "-F", "\t", "-U", "postgres", "-d", "postgres", "-h"]).arg(self.folder.path());
        let output = psql.args(["-c", sql]).output().expect("psql is installed with the server");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
    }

    /// As a crash would: what was not committed is lost, and nobody is told.
    pub fn kill(&mut self) {
        if let Some(mut server) = self.server.take() {
            // This takes all children along, which a kill of the first process alone does not.
            let _ = self
                .program("pg_ctl")
                .args(["stop", "-m", "immediate", "-D"])
                .arg(self.data())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status();
            let _ = server.kill();
            let _ = server.wait();
        }
    }

    /// Starts it (again), and waits until it answers.
    ///
    /// # Panics
    /// If it does not within a minute.
    pub fn restart(&mut self) {
        self.kill();
        let log =
            std::fs::File::create(self.folder.path().join("log")).expect("the folder can be written to");
        let server = self
            .program("postgres")
            .args(["-c", "listen_addresses=", "-c", "max_connections=80", "-c", "shared_buffers=16MB", "-k"])
            .arg(self.folder.path())
            .arg("-D")
            .arg(self.data())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        self.server = Some(server.expect("an installed server can be started"));
        let until = Instant::now() + Duration::from_secs(60);
        loop {
            let ready = self
                .program("pg_isready")
                .args(["-q", "-U", "postgres", "-h"])
                .arg(self.folder.path())
                .status();
            if ready.is_ok_and(|status| status.success()) {
                return;
            }
            assert!(
                Instant::now() < until,
                "PostgreSQL does not start, see {:?}",
                self.folder.path().join("log")
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn program(&self, name: &str) -> Command {
        let program = self.binaries.join(name);
        let mut command = if is_root() {
            let mut command = Command::new("setpriv");
            command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups", "--"]).arg(program);
            command
        } else {
            Command::new(program)
        };
        command.current_dir(self.folder.path());
        command
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.kill();
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Where the server programs are; Debian keeps them off the path.
fn binaries() -> Option<PathBuf> {
    let mut debian: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path().join("bin"))
        .collect();
    debian.sort();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let holds = |folder: &PathBuf| folder.join("initdb").is_file() && folder.join("postgres").is_file();
    debian.into_iter().rev().chain(std::env::split_paths(&path)).find(holds)
}
