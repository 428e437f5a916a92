//! The temporary installation that the quickstart runs on: folders, a copy of the ready services, and the two
//! configuration files, as an administrator would write them. Starts nothing.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use wps_remote_xmpp::server::{Accounts, AccountsError};

/// The agent's account on the embedded XMPP server.
pub const AGENT: &str = "agent1";

/// Everything lies in one temporary folder, which goes away with this.
pub struct Site {
    folder: TempDir,
}

impl Site {
    /// Makes the folders and copies the services into the one that the agent watches.
    pub fn make(services: &Path) -> io::Result<Self> {
        let site = Self { folder: tempfile::Builder::new().prefix("wps-quickstart-").tempdir()? };
        for name in ["orchestrator", "agent", "shared"] {
            fs::create_dir(site.path(name))?;
        }
        copy(services, &site.services())?;
        Ok(site)
    }

    /// The folder that the agent watches.
    pub fn services(&self) -> PathBuf {
        self.path("services")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes `orchestrator.ini`: free ports (port 0) for HTTP and for the embedded XMPP server.
    pub fn write_orchestrator(&self, http_port: u16) -> io::Result<PathBuf> {
        let file = self.path("orchestrator").join("orchestrator.ini");
        let text = format!(
            "[http]\nlisten = 127.0.0.1:{http_port}\n\n[xmpp_server]\nlisten = 127.0.0.1:0\naccounts = {}\n\n\
             [results]\nshared_dir = {}\n",
            self.accounts().display(),
            self.path("shared").display()
        );
        fs::write(&file, text)?;
        Ok(file)
    }

    fn accounts(&self) -> PathBuf {
        self.path("orchestrator").join("accounts")
    }

    /// Makes the agent's account.
    pub fn add_agent(&self, password: &str) -> Result<(), AccountsError> {
        Accounts::new(self.accounts()).set(AGENT, password)
    }

    /// Writes `remote.config` for the embedded server on this port.
    pub fn write_agent(&self, xmpp_port: u16, password: &str, room_password: &str) -> io::Result<PathBuf> {
        let file = self.path("agent").join("remote.config");
        let running = self.path("agent").join("running");
        fs::create_dir(&running)?;
        let text = format!(
            "[DEFAULT]\naddress = 127.0.0.1\nport = {xmpp_port}\ntls = none\nallow_plaintext = true\n\
             domain = wps.localhost\nuser = {AGENT}\npassword = {password}\n\
             mucService = conference.%(domain)s\nmucServicePassword = {room_password}\n\
             services_dir = {}\nresource_file_dir = {}\nwps_execution_shared_dir = {}\n",
            self.services().display(),
            running.display(),
            self.path("shared").display()
        );
        // It holds passwords.
        let mut options = fs::OpenOptions::new();
        options.write(true).create_new(true).mode(0o600).open(&file)?.write_all(text.as_bytes())?;
        Ok(file)
    }
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let path = entry?.path();
        let Some(name) = path.file_name() else { continue };
        if path.is_dir() {
            copy(&path, &to.join(name))?;
        } else {
            // With its permissions: scripts stay executable.
            fs::copy(&path, to.join(name))?;
        }
    }
    Ok(())
}
