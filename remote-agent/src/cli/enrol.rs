//! `enrol`: turns the operator's token into an account with a password of its own, and writes the remote.config that uses it.
//! The server is known by the fingerprint in the token; nothing is sent to any other.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use wps_remote_protocol::enrolment::{Enrolment, Welcome};
use wps_remote_xmpp::Jid;
use wps_remote_xmpp::net::{Connector, Security, Trust};
use wps_remote_xmpp::session::{Enrolled, SessionConfig, enrol as redeem};

use super::{FAILED, WRONG_CALL, complain, say};

/// Longest token that is read, in bytes.
const MAX_TOKEN: u64 = 8192;

#[derive(Debug, Args)]
pub(super) struct Enrol {
    /// The token of `wps-orchestrator accounts enrol`; others on this host may see it in the list of processes
    #[arg(
        long,
        env = "WPS_REMOTE_AGENT_TOKEN",
        hide_env_values = true,
        required_unless_present = "token_file"
    )]
    token: Option<String>,
    /// File with the token; `-` is standard input
    #[arg(long, value_name = "FILE", conflicts_with = "token")]
    token_file: Option<PathBuf>,
    /// The configuration to write
    #[arg(short = 'r', long, value_name = "FILE", default_value = "remote.config")]
    config: PathBuf,
    /// Overwrite a configuration that is there
    #[arg(long)]
    force: bool,
}

pub(super) async fn enrol(wish: &Enrol) -> ExitCode {
    let token = match (&wish.token, &wish.token_file) {
        (Some(token), _) => token.clone(),
        (None, Some(file)) => match read(file) {
            Ok(token) => token,
            Err(error) => return complain(&format!("{}: {error}", file.display()), WRONG_CALL),
        },
        (None, None) => return complain("no token: --token or --token-file", WRONG_CALL),
    };
    let enrolment = match Enrolment::from_token(&token) {
        Ok(enrolment) => enrolment,
        Err(error) => return complain(&error.to_string(), WRONG_CALL),
    };
    // Before the token is used up: what comes of it must find its place.
    let file = match create(&wish.config, wish.force) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let why = format!("{} is there already; --force overwrites it", wish.config.display());
            return complain(&why, FAILED);
        }
        Err(error) => {
            return complain(&format!("{} cannot be written: {error}", wish.config.display()), FAILED);
        }
    };
    match exchange(&enrolment, file).await {
        Ok(()) => {
            say(&format!(
                "enrolled as {}@{}; {} is written. Next: wps-remote-agent run --config {}",
                enrolment.user,
                enrolment.domain,
                wish.config.display(),
                wish.config.display()
            ));
            ExitCode::SUCCESS
        }
        Err(why) => {
            if !wish.force {
                // Nothing is in it yet.
                let _ = std::fs::remove_file(&wish.config);
            }
            complain(&why, FAILED)
        }
    }
}

fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    if path == Path::new("-") {
        io::stdin().take(MAX_TOKEN).read_to_string(&mut text)?;
    } else {
        File::open(path)?.take(MAX_TOKEN).read_to_string(&mut text)?;
    }
    Ok(text)
}

/// A file that only its owner can read.
fn create(path: &Path, force: bool) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true);
    if force {
        options.create(true);
    } else {
        options.create_new(true);
    }
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = options.open(path)?;
    // One that was there may have had another mode.
    #[cfg(unix)]
    file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    Ok(file)
}

/// An error with its causes.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
}

async fn exchange(enrolment: &Enrolment, mut file: File) -> Result<(), String> {
    let pin = Trust::parse_pin(&enrolment.pin).map_err(|error| causes(&error))?;
    let connector = Connector::tcp(&enrolment.host, enrolment.port, Security::StartTls, &Trust::pin(pin));
    let connector = connector.map_err(|error| causes(&error))?;
    let account = format!("{}@{}", enrolment.user, enrolment.domain);
    let jid: Jid = account.parse().map_err(|_| format!("`{account}` is no XMPP address"))?;
    let session = SessionConfig::new(jid, enrolment.secret.clone(), connector);
    let Enrolled { password, welcome } = redeem(&session).await.map_err(|error| {
        format!(
            "not enrolled: {}. A token opens once and not for ever; `wps-orchestrator accounts enrol --again` makes a new one",
            causes(&error)
        )
    })?;
    let text = Welcome::from_text(&welcome)
        .map(|welcome| remote_config(enrolment, &password, &welcome))
        .map_err(|error| error.to_string())?;
    let written =
        file.set_len(0).and_then(|()| file.write_all(text.as_bytes())).and_then(|()| file.sync_all());
    written.map_err(|error| {
        format!(
            "enrolled, but the configuration cannot be written: {error}; ask for a new token with --again"
        )
    })
}

fn remote_config(enrolment: &Enrolment, password: &str, welcome: &Welcome) -> String {
    let Enrolment { host, port, domain, user, pin, .. } = enrolment;
    let Welcome { muc_service, room_password, management_room } = welcome;
    format!(
        "# remote.config of the agent `{user}`, written by `wps-remote-agent enrol`. Keep it private: it holds passwords.\n\
         [DEFAULT]\naddress = {host}\nport = {port}\ntls = starttls\n# The server's certificate, and no other:\n\
         tls_fingerprint_sha256 = {pin}\ndomain = {domain}\nuser = {user}\npassword = {password}\n\
         mucService = {muc_service}\nmucServicePassword = {room_password}\nmanagement_room = {management_room}\n\n\
         # The folder that both hosts see; the orchestrator's [results] shared_dir:\n\
         #wps_execution_shared_dir = /mnt/wps-shared\n\
         # The folder of service descriptors, and the folder of running jobs:\n\
         services_dir = services\nresource_file_dir = running\n"
    )
}
