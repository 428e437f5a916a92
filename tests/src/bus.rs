//! The XMPP server of a site, as the configuration files of orchestrator and agents name it: the one that is embedded in
//! the orchestrator, or one of its own.

use std::cell::{RefCell, RefMut};
use std::path::{Path, PathBuf};

use wps_remote_xmpp::net::{Connector, Security, Trust};
use wps_remote_xmpp::server::Accounts;

use crate::free_port;
use crate::xmpp::{OWNER, XmppServer};

/// The domain of all accounts of the embedded server.
pub const DOMAIN: &str = "wps.localhost";
/// The password of all rooms.
pub const ROOM_PASSWORD: &str = "room secret 50%";

/// How a program of the test itself gets onto the bus.
#[derive(Debug, Clone)]
pub struct Login {
    /// The way to the server.
    pub connector: Connector,
    /// The account, without domain.
    pub user: String,
    /// Its password.
    pub password: String,
    /// Its domain.
    pub domain: String,
    /// Domain of the rooms.
    pub muc_domain: String,
    /// Password of the rooms.
    pub room_password: String,
}

impl Login {
    /// On this host and unencrypted, as the small programs of the examples log in, by the words of their command line.
    ///
    /// # Panics
    /// If the port is no number.
    pub fn plain(port: &str, domain: &str, user: &str, password: &str, room_password: &str) -> Self {
        let port = port.parse().expect("PORT is a number");
        let connector = Connector::tcp("127.0.0.1", port, Security::Plain, &Trust::default());
        Self {
            connector: connector.expect("plain is possible on loopback"),
            user: user.to_owned(),
            password: password.to_owned(),
            domain: domain.to_owned(),
            muc_domain: format!("conference.{domain}"),
            room_password: room_password.to_owned(),
        }
    }
}

/// How to get onto the bus.
pub struct Bus(Kind);

enum Kind {
    /// Inside the orchestrator, which comes and goes with it.
    Embedded { port: u16, accounts: PathBuf },
    /// A server of its own, reached with direct TLS and its own certificate as CA.
    Own(RefCell<Box<dyn XmppServer>>),
}

impl Bus {
    /// The embedded server, on a free port, with its accounts in this folder.
    pub fn embedded(folder: &Path) -> Self {
        Self(Kind::Embedded { port: free_port(), accounts: folder.join("xmpp-accounts") })
    }

    /// A server that is running already.
    pub fn own(server: Box<dyn XmppServer>) -> Self {
        server.add_account(OWNER, "password of the orchestrator");
        Self(Kind::Own(RefCell::new(server)))
    }

    /// The server, to be killed and restarted.
    ///
    /// # Panics
    /// If it is the embedded one.
    pub fn server(&self) -> RefMut<'_, Box<dyn XmppServer>> {
        match &self.0 {
            Kind::Own(server) => server.borrow_mut(),
            Kind::Embedded { .. } => panic!("the embedded server is a part of the orchestrator"),
        }
    }

    /// The port that agents are told.
    pub fn agents_port(&self) -> u16 {
        match &self.0 {
            Kind::Embedded { port, .. } => *port,
            Kind::Own(server) => server.borrow().place().tls_port,
        }
    }

    /// What `orchestrator.ini` says about it.
    pub fn orchestrator_lines(&self) -> String {
        match &self.0 {
            Kind::Embedded { port, accounts } => format!(
                "[xmpp]\ndomain = {DOMAIN}\nmuc_password = {ROOM_PASSWORD}\n\n\
                 [xmpp_server]\nlisten = 127.0.0.1:{port}\naccounts = {}\n\n",
                accounts.display()
            ),
            Kind::Own(server) => {
                let server = server.borrow();
                let place = server.place();
                format!(
                    "[xmpp]\naddress = {}\nport = {}\ntls = direct\ntls_ca_file = {}\ndomain = {}\nuser = {OWNER}\n\
                     password = password of the orchestrator\nmuc_service = {}\nmuc_password = {ROOM_PASSWORD}\n\n\
                     [xmpp_server]\nenabled = false\n\n",
                    place.host,
                    place.tls_port,
                    place.ca_file.display(),
                    place.domain,
                    place.muc_domain
                )
            }
        }
    }

    /// A new account for a program of the test itself.
    pub fn login(&self, user: &str) -> Login {
        let password = format!("password of {user}");
        let (connector, domain, muc_domain) = match &self.0 {
            Kind::Embedded { port, accounts } => {
                Accounts::new(accounts).set(user, &password).expect("the file of accounts can be written");
                let connector = Connector::tcp("127.0.0.1", *port, Security::Plain, &Trust::default());
                let connector = connector.expect("plain is possible on loopback");
                (connector, DOMAIN.to_owned(), format!("conference.{DOMAIN}"))
            }
            Kind::Own(server) => {
                let server = server.borrow();
                server.add_account(user, &password);
                let place = server.place();
                (place.connector(Security::DirectTls), place.domain.clone(), place.muc_domain.clone())
            }
        };
        Login {
            connector,
            user: user.to_owned(),
            password,
            domain,
            muc_domain,
            room_password: ROOM_PASSWORD.to_owned(),
        }
    }

    /// What `remote.config` says about it. Makes an account for this agent.
    pub fn agent_lines(&self, agent: &str) -> String {
        let password = format!("password of {agent}");
        let (place, domain, muc_domain) = match &self.0 {
            Kind::Embedded { port, accounts } => {
                Accounts::new(accounts).set(agent, &password).expect("the file of accounts can be written");
                (
                    format!("address = 127.0.0.1\nport = {port}\ntls = none\nallow_plaintext = true\n"),
                    DOMAIN.to_owned(),
                    format!("conference.{DOMAIN}"),
                )
            }
            Kind::Own(server) => {
                let server = server.borrow();
                server.add_account(agent, &password);
                let place = server.place();
                (
                    format!(
                        "address = {}\nport = {}\ntls = direct\ntls_ca_file = {}\n",
                        place.host,
                        place.tls_port,
                        place.ca_file.display()
                    ),
                    place.domain.clone(),
                    place.muc_domain.clone(),
                )
            }
        };
        format!(
            "{place}domain = {domain}\nuser = {agent}\npassword = {password}\nmucService = {muc_domain}\n\
             mucServicePassword = {ROOM_PASSWORD}\n"
        )
    }
}

/// Lines of a configuration that lead to another port.
pub(crate) fn rerouted(lines: String, port: Option<&str>) -> String {
    let Some(port) = port else { return lines };
    let line = |line: &str| {
        if line.starts_with("port = ") { format!("port = {port}\n") } else { format!("{line}\n") }
    };
    lines.lines().map(line).collect()
}
