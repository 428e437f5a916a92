//! `wps-orchestrator accounts`: accounts of the embedded XMPP server, and what an agent needs to use one.

use std::process::ExitCode;

use clap::Subcommand;
use wps_remote_protocol::enrolment::Enrolment;
use wps_remote_xmpp::server::{Accounts, certificate_sha256};

use super::{audited, complain, print, warn};
use crate::bus::{Grants, is_pattern};
use crate::chain::chain;
use crate::compose;
use crate::config::{Config, EmbeddedServer, GRANTS};

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
    /// Let an agent make its own account: prints a token that opens once, within some hours, on the agent's host
    #[command(after_help = "\
On the agent's host, where nothing but the program is needed:
  wps-remote-agent enrol --token-file FILE        the token in a file, or on standard input (-)

The token holds the address of this orchestrator's XMPP server, the fingerprint of its certificate, and a secret for one use. The
agent gives its account a password that nobody else knows, and writes its remote.config (mode 600).")]
    Enrol {
        /// Local part of the account, e.g. the agent's host name
        name: String,
        /// What the agent may announce: namespaces, or namespace:process, * at the end stands for anything
        #[arg(long, value_delimiter = ',', default_value = "*")]
        namespaces: Vec<String>,
        /// How long the token opens
        #[arg(long, default_value_t = 24, value_parser = clap::value_parser!(u64).range(1..=720))]
        hours: u64,
        /// Host name or address under which the agent reaches this orchestrator; default: [xmpp_server] listen, else this
        /// host's name
        #[arg(long)]
        host: Option<String>,
        /// Also for an account that is there already: its password no longer holds
        #[arg(long)]
        again: bool,
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
        Action::Enrol { name, namespaces, hours, host, again } => {
            let wish = Wish { name, namespaces, hours, host, again };
            match enrol(config, server, &accounts, &wish) {
                Ok(token) => {
                    audited(config, "enrol account", &wish.name);
                    print(format_args!("{token}\n"));
                    ExitCode::SUCCESS
                }
                Err(why) => complain(1, why),
            }
        }
        Action::Remove { name } => match accounts.remove(&name) {
            Ok(true) => {
                audited(config, "remove account", &name);
                ExitCode::SUCCESS
            }
            Ok(false) => complain(1, format!("there is no account `{name}`")),
            Err(error) => complain(1, chain(&error)),
        },
        Action::List => match accounts.list() {
            Ok(names) => {
                let waiting = accounts.waiting().unwrap_or_default();
                for name in names {
                    match waiting.iter().find(|(user, _)| *user == name) {
                        Some((_, until)) => {
                            let until =
                                i64::try_from(*until).map_or_else(|_| "?".to_owned(), compose::minute);
                            print(format_args!("{name}  waits to be enrolled until {until}\n"));
                        }
                        None => print(format_args!("{name}\n")),
                    }
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
    audited(config, "add account", name);
    print(remote_config(config, name, &password, &room_password));
    ExitCode::SUCCESS
}

struct Wish {
    name: String,
    namespaces: Vec<String>,
    hours: u64,
    host: Option<String>,
    again: bool,
}

/// Makes the account that waits for its agent, notes what it may announce, and gives the token.
fn enrol(
    config: &Config,
    server: &EmbeddedServer,
    accounts: &Accounts,
    wish: &Wish,
) -> Result<String, String> {
    let name = wish.name.as_str();
    if name == config.xmpp.user {
        return Err(format!("`{name}` is the orchestrator's own account"));
    }
    if let Some(wrong) = wish.namespaces.iter().find(|pattern| !is_pattern(pattern)) {
        return Err(format!(
            "`{wrong}` is neither a namespace nor namespace:process, with * at its end at most"
        ));
    }
    let known = accounts.list().map_err(|error| chain(&error))?;
    if !wish.again && known.iter().any(|other| other.eq_ignore_ascii_case(name)) {
        return Err(format!(
            "the account `{name}` is there already; --again gives it to whoever has the new token"
        ));
    }
    let pin = certificate_sha256(&compose::certificate(server), &config.xmpp.domain);
    let pin = pin.map_err(|error| chain(&error))?;
    let host = match (&wish.host, server.listen.ip()) {
        (Some(host), _) => host.clone(),
        (None, ip) if ip.is_unspecified() => {
            rustix::system::uname().nodename().to_string_lossy().into_owned()
        }
        (None, ip) => ip.to_string(),
    };
    if server.listen.ip().is_loopback() {
        warn(
            "the embedded XMPP server listens on loopback only: the token is good on this host; set [xmpp_server] listen for others",
        );
    }
    let secret = format!("{}{}", compose::uuid(), compose::uuid());
    let until = u64::try_from(compose::seconds()).unwrap_or(0) + wish.hours * 3600;
    // First what it may not, then the way in.
    let file = config.data_dir.join(GRANTS);
    let account = format!("{name}@{}", config.xmpp.domain);
    let noted =
        std::fs::create_dir_all(&config.data_dir).and_then(|()| match std::fs::read_to_string(&file) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
            read => read,
        });
    let noted = noted.and_then(|text| {
        let new = config.data_dir.join(format!("{GRANTS}.{}.new", std::process::id()));
        std::fs::write(&new, Grants::with_line(&text, &account, &wish.namespaces))?;
        std::fs::rename(&new, &file)
    });
    noted.map_err(|error| format!("{}: {error}", file.display()))?;
    accounts.invite(name, &secret, until).map_err(|error| chain(&error))?;
    let token = Enrolment {
        host,
        port: server.listen.port(),
        domain: config.xmpp.domain.clone(),
        user: name.to_owned(),
        secret,
        pin: pin.iter().map(|byte| format!("{byte:02x}")).collect(),
    };
    warn(format_args!(
        "on the agent's host, until {}: wps-remote-agent enrol --token-file FILE",
        i64::try_from(until).map_or_else(|_| "?".to_owned(), compose::minute)
    ));
    Ok(token.to_token())
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
