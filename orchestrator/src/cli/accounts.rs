//! `wps-orchestrator accounts`: accounts of the embedded XMPP server, and what an agent needs to use one.

use std::process::ExitCode;

use clap::Subcommand;
use wps_remote_xmpp::server::Accounts;

use super::{complain, print, warn};
use crate::chain::chain;
use crate::compose;
use crate::config::Config;

#[derive(Debug, Subcommand)]
pub(super) enum Action {
    /// Add an account, or give it a new password; prints the remote.config of its agent
    Add {
        /// Local part of the account, e.g. the agent's host name
        name: String,
        /// Read the password from the first line of standard input instead of making one
        #[arg(long)]
        password_stdin: bool,
    },
    /// Remove an account; its open session goes on until it ends
    Remove {
        /// Local part of the account
        name: String,
    },
    /// List the accounts
    List,
}

pub(super) fn act(config: &Config, action: Action) -> ExitCode {
    let Some(server) = &config.server else {
        return complain(
            1,
            "the embedded XMPP server is off ([xmpp_server] enabled): use your own server's tools",
        );
    };
    let accounts = Accounts::new(&server.accounts);
    match action {
        Action::Add { name, password_stdin } => add(config, &accounts, &name, password_stdin),
        Action::Remove { name } => match accounts.remove(&name) {
            Ok(true) => ExitCode::SUCCESS,
            Ok(false) => complain(1, format!("there is no account `{name}`")),
            Err(error) => complain(1, chain(&error)),
        },
        Action::List => match accounts.list() {
            Ok(names) => {
                for name in names {
                    print(format_args!("{name}\n"));
                }
                ExitCode::SUCCESS
            }
            Err(error) => complain(1, chain(&error)),
        },
    }
}

fn add(config: &Config, accounts: &Accounts, name: &str, password_stdin: bool) -> ExitCode {
    if name == config.xmpp.user {
        return complain(1, format!("`{name}` is the orchestrator's own account"));
    }
    let password = if password_stdin {
        let mut line = String::new();
        match std::io::stdin().read_line(&mut line) {
            Ok(_) if !line.trim_end_matches(['\r', '\n']).is_empty() => {
                line.trim_end_matches(['\r', '\n']).to_owned()
            }
            Ok(_) => return complain(1, "no password on standard input"),
            Err(error) => return complain(1, format!("standard input: {error}")),
        }
    } else {
        compose::uuid()
    };
    let room_password = match compose::room_password(config) {
        Ok(password) => password,
        Err(error) => return complain(1, chain(&error)),
    };
    let known = accounts.list().is_ok_and(|names| names.iter().any(|other| other == name));
    if let Err(error) = accounts.set(name, &password) {
        return complain(1, chain(&error));
    }
    if known {
        warn(format_args!(
            "the account `{name}` was there already; it has a new password, which its agent needs from now on"
        ));
    }
    print(remote_config(config, name, &password, &room_password));
    ExitCode::SUCCESS
}

/// The configuration of the agent that uses the account: complete where agent and orchestrator share a host.
pub(crate) fn remote_config(config: &Config, user: &str, password: &str, room_password: &str) -> String {
    let Some(server) = &config.server else { return String::new() };
    let xmpp = &config.xmpp;
    let local = server.listen.ip().is_loopback();
    let tls = if local {
        "tls = none\nallow_plaintext = true\n".to_owned()
    } else {
        let folder = server.tls_dir.join("xmpp-certificate.pem");
        format!(
            "tls = starttls\n# Copy the server's certificate to the agent's host, or pin it with tls_fingerprint_sha256:\n# {}\n#tls_ca_file = xmpp-certificate.pem\n",
            folder.display()
        )
    };
    let address = if server.listen.ip().is_unspecified() {
        "the.orchestrators.host.name".to_owned()
    } else {
        server.listen.ip().to_string()
    };
    let shared = match &config.shared_dir {
        Some(folder) if local => {
            let folder = std::path::absolute(folder).unwrap_or_else(|_| folder.clone());
            format!("wps_execution_shared_dir = {}\n", folder.display())
        }
        Some(_) => "# The folder that both hosts see; the orchestrator's [results] shared_dir:\n#wps_execution_shared_dir = /mnt/wps-shared\n".to_owned(),
        None => String::new(),
    };
    format!(
        "# remote.config of the agent `{user}`. Keep it private: it holds passwords.\n[DEFAULT]\naddress = {address}\nport = {}\n{tls}domain = {}\nuser = {user}\npassword = {password}\nmucService = {}\nmucServicePassword = {room_password}\n{shared}\n# The folder of service descriptors, and the folder of running jobs:\nservices_dir = services\nresource_file_dir = running\n",
        server.listen.port(),
        xmpp.domain,
        xmpp.muc_service,
    )
}
