//! The XMPP server of a site, as the configuration files of orchestrator and agents name it: the embedded one.

use std::path::{Path, PathBuf};

use wps_remote_xmpp::server::Accounts;

use crate::free_port;

/// The domain of all accounts.
pub const DOMAIN: &str = "wps.localhost";
/// The password of all rooms.
pub const ROOM_PASSWORD: &str = "room secret 50%";

/// How to get onto the bus.
#[derive(Debug, Clone)]
pub struct Bus {
    port: u16,
    accounts: PathBuf,
}

impl Bus {
    /// The embedded server, on a free port, with its accounts in this folder.
    pub fn embedded(folder: &Path) -> Self {
        Self { port: free_port(), accounts: folder.join("xmpp-accounts") }
    }

    /// What `orchestrator.ini` says about it.
    pub fn orchestrator_lines(&self) -> String {
        format!(
            "[xmpp]\ndomain = {DOMAIN}\nmuc_password = {ROOM_PASSWORD}\n\n\
             [xmpp_server]\nlisten = 127.0.0.1:{}\naccounts = {}\n\n",
            self.port,
            self.accounts.display()
        )
    }

    /// What `remote.config` says about it. Makes an account for this agent.
    pub fn agent_lines(&self, agent: &str) -> String {
        let password = format!("password of {agent}");
        Accounts::new(&self.accounts).set(agent, &password).expect("the file of accounts can be written");
        format!(
            "address = 127.0.0.1\nport = {}\ndomain = {DOMAIN}\ntls = none\nallow_plaintext = true\n\
             user = {agent}\npassword = {password}\nmucService = conference.{DOMAIN}\n\
             mucServicePassword = {ROOM_PASSWORD}\n",
            self.port
        )
    }
}
