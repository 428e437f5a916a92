//! `service`: the agent as a service of Windows. Elsewhere it says what takes its place.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};

/// Name of the service where none is given.
pub(crate) const NAME: &str = "wps-remote-agent";

#[derive(Debug, Subcommand)]
pub(crate) enum Service {
    /// Register the agent as a service that starts with the host, and prepare its folders
    #[command(after_help = "\
Examples (in a console that was started as administrator):
  wps-remote-agent service install
  wps-remote-agent service install --config D:\\wps\\remote.config --account EXAMPLE\\wps$")]
    Install(Install),
    /// Stop the service and take it off the list; files stay, and running jobs go on
    Remove(Named),
    /// Start the service and wait until it runs
    Start(Named),
    /// Stop the service and wait until it has ended; running jobs go on and are taken over at the next start
    Stop(Named),
    /// Show whether it runs; exit code 0 it does, 3 it does not, 4 there is no such service
    Status(Named),
    /// What the service manager starts
    #[command(hide = true)]
    Run(RunAs),
}

#[derive(Debug, Args)]
pub(crate) struct Named {
    /// Name of the service; several agents of one host need several names and configurations
    #[arg(long, default_value = NAME)]
    pub(crate) name: String,
}

#[derive(Debug, Args)]
pub(crate) struct Install {
    #[command(flatten)]
    pub(crate) named: Named,
    /// The agent's configuration; default: remote.config in %ProgramData%\NAME, made from the sample if it is missing
    #[arg(short = 'r', long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Account that runs the agent and all jobs; default: the service's own, NT SERVICE\NAME
    #[arg(long, value_name = "ACCOUNT")]
    pub(crate) account: Option<String>,
    /// File whose first line is the account's password; not needed for accounts that the system looks after
    #[arg(long, value_name = "FILE", requires = "account")]
    pub(crate) password_file: Option<PathBuf>,
    /// Do not start it with the host
    #[arg(long)]
    pub(crate) manual: bool,
}

#[derive(Debug, Args)]
pub(crate) struct RunAs {
    #[command(flatten)]
    pub(crate) named: Named,
    /// The agent's configuration
    #[arg(short = 'r', long, value_name = "FILE")]
    pub(crate) config: PathBuf,
}

/// Does it and says what was done.
#[cfg(windows)]
pub(super) fn main(wanted: Service) -> ExitCode {
    use super::{CANNOT_START, FAILED, complain, say};
    use crate::scm;
    let done = match wanted {
        Service::Install(install) => scm::manage::install(&install),
        Service::Remove(named) => scm::manage::remove(&named.name),
        Service::Start(named) => scm::manage::start(&named.name),
        Service::Stop(named) => scm::manage::stop(&named.name),
        Service::Status(named) => match scm::manage::status(&named.name) {
            Ok((text, code)) => {
                say(&text);
                return ExitCode::from(code);
            }
            Err(why) => Err(why),
        },
        Service::Run(run) => {
            return match scm::run(run) {
                Ok(()) => ExitCode::SUCCESS,
                Err(why) => complain(&why, CANNOT_START),
            };
        }
    };
    match done {
        Ok(text) => {
            say(&text);
            ExitCode::SUCCESS
        }
        Err(why) => complain(&why, FAILED),
    }
}

/// Says what to do instead.
#[cfg(not(windows))]
pub(super) fn main(wanted: Service) -> ExitCode {
    let command = match wanted {
        Service::Install(_) => {
            "put deploy/systemd/wps-remote-agent.service into /etc/systemd/system, the configuration into \
             /etc/wps-remote-agent/remote.config, then: systemctl daemon-reload && systemctl enable --now wps-remote-agent"
        }
        Service::Remove(_) => {
            "systemctl disable --now wps-remote-agent; rm /etc/systemd/system/wps-remote-agent.service"
        }
        Service::Start(_) => "systemctl start wps-remote-agent",
        Service::Stop(_) => "systemctl stop wps-remote-agent",
        Service::Status(_) => "systemctl status wps-remote-agent",
        Service::Run(_) => "wps-remote-agent run --config FILE",
    };
    let text = format!(
        "services of this kind are those of Windows; here systemd looks after the agent:\n  {command}"
    );
    super::complain(&text, super::FAILED)
}
