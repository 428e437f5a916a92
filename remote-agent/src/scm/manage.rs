//! What an administrator asks the service manager for: install, remove, start, stop, status.

use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use windows_service::service::{
    Service, ServiceAccess, ServiceAction, ServiceActionType, ServiceDependency, ServiceErrorControl,
    ServiceFailureActions, ServiceFailureResetPeriod, ServiceInfo, ServiceStartType, ServiceState,
    ServiceType,
};
use windows_service::service_manager::{ServiceManager, ServiceManagerAccess};

use super::{explain, log, os_error};
use crate::cli::service::{Install, NAME};
use crate::config::{AgentConfig, SCHEMA};

/// How long a start or a stop may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often its state is looked at meanwhile.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Longest name that the service manager takes.
const MAX_NAME: usize = 256;

const ACCESS_DENIED: i32 = 5;
const ALREADY_RUNNING: i32 = 1056;
const NO_SUCH_SERVICE: i32 = 1060;
const NOT_ACTIVE: i32 = 1062;
const MARKED_FOR_DELETE: i32 = 1072;
const EXISTS: i32 = 1073;

/// Accounts that the system itself looks after, without a password.
const BUILT_IN: [&str; 4] =
    ["LocalSystem", r"NT AUTHORITY\LocalService", r"NT AUTHORITY\NetworkService", r"NT AUTHORITY\SYSTEM"];

/// Registers the service; says what was done and what is left to do.
pub(crate) fn install(wanted: &Install) -> Result<String, String> {
    let name = checked(&wanted.named.name)?;
    let config = match &wanted.config {
        Some(config) => std::path::absolute(config)
            .map_err(|error| format!("{} is no path: {error}", config.display()))?,
        None => data_folder(name)?.join("remote.config"),
    };
    let folder = config.parent().ok_or_else(|| format!("{} is no file", config.display()))?;
    let fresh = prepare(folder, &config)
        .map_err(|error| format!("the folder {} cannot be prepared: {error}", folder.display()))?;
    let account = wanted.account.clone().unwrap_or_else(|| format!(r"NT SERVICE\{name}"));
    let password = wanted.password_file.as_deref().map(password).transpose()?;
    let program =
        std::env::current_exe().map_err(|error| format!("the path of this program is not known: {error}"))?;
    let info = ServiceInfo {
        name: OsString::from(name),
        display_name: OsString::from(if name == NAME {
            "WPS remote agent".to_owned()
        } else {
            format!("WPS remote agent ({name})")
        }),
        service_type: ServiceType::OWN_PROCESS,
        start_type: if wanted.manual { ServiceStartType::OnDemand } else { ServiceStartType::AutoStart },
        error_control: ServiceErrorControl::Normal,
        executable_path: program,
        launch_arguments: vec![
            "service".into(),
            "run".into(),
            "--name".into(),
            name.into(),
            "--config".into(),
            config.clone().into_os_string(),
        ],
        // Without a network there is no bus.
        dependencies: vec![ServiceDependency::Service("Tcpip".into())],
        account_name: (account != "LocalSystem").then(|| OsString::from(&account)),
        account_password: password.map(OsString::from),
    };
    let manager = manager(ServiceManagerAccess::CONNECT | ServiceManagerAccess::CREATE_SERVICE)?;
    let access = ServiceAccess::CHANGE_CONFIG | ServiceAccess::START;
    let service = manager.create_service(&info, access).map_err(|error| match os_error(&error) {
        Some(EXISTS) => {
            format!("there is a service {name} already: `service remove` it first, or choose --name")
        }
        Some(MARKED_FOR_DELETE) => {
            format!("the service {name} is being removed: close the Services window, then try again")
        }
        _ => failed("created", name, &error),
    })?;
    let mut text = format!(
        "service {name} installed\n  configuration  {}\n  account        {account}\n",
        config.display()
    );
    for (what, done) in settings(&service, wanted.manual) {
        if let Err(error) = done {
            let _ = writeln!(text, "warning: {what} could not be set: {}", explain(&error));
        }
    }
    if let Err(error) = log::register(name) {
        let _ = writeln!(text, "warning: the event log does not know the service: {error}");
    }
    // Only a folder that was made for it: another one may be somebody else's as well.
    if fresh.folder
        && let Err(why) = protect(folder, &account)
    {
        let _ = writeln!(text, "warning: {} can be read by others: {why}", folder.display());
    }
    hints(&mut text, &config, fresh, &account, name);
    Ok(text)
}

/// Stops it if it runs, and takes it off the list.
pub(crate) fn remove(name: &str) -> Result<String, String> {
    let name = checked(name)?;
    let service = open(name, ServiceAccess::STOP | ServiceAccess::QUERY_STATUS | ServiceAccess::DELETE)?;
    end(&service, name)?;
    service.delete().map_err(|error| match os_error(&error) {
        Some(MARKED_FOR_DELETE) => format!("the service {name} is being removed already"),
        _ => failed("removed", name, &error),
    })?;
    // A source that is not there any more is what we want.
    let _ = log::unregister(name);
    Ok(format!("service {name} removed; its files stay, and jobs that still run go on"))
}

/// Starts it and waits until it runs.
pub(crate) fn start(name: &str) -> Result<String, String> {
    let name = checked(name)?;
    let service = open(name, ServiceAccess::START | ServiceAccess::QUERY_STATUS)?;
    match service.start::<&OsStr>(&[]) {
        Err(error) if os_error(&error) == Some(ALREADY_RUNNING) => {
            return Ok(format!("service {name} runs already"));
        }
        Err(error) => return Err(failed("started", name, &error)),
        Ok(()) => {}
    }
    let state = settle(&service, name, ServiceState::StartPending)?;
    if state == ServiceState::Running {
        return Ok(format!("service {name} runs"));
    }
    Err(format!(
        "service {name} has ended at once: see its log (folder `log` beside its configuration) and the event log"
    ))
}

/// Stops it and waits until it has ended.
pub(crate) fn stop(name: &str) -> Result<String, String> {
    let name = checked(name)?;
    let service = open(name, ServiceAccess::STOP | ServiceAccess::QUERY_STATUS)?;
    Ok(match end(&service, name)? {
        true => {
            format!("service {name} stopped; jobs that still run go on and are taken over at the next start")
        }
        false => format!("service {name} does not run"),
    })
}

/// What there is to say about it, and the exit code that says the same.
pub(crate) fn status(name: &str) -> Result<(String, u8), String> {
    let name = checked(name)?;
    let manager = manager(ServiceManagerAccess::CONNECT)?;
    let service = match manager.open_service(name, ServiceAccess::QUERY_STATUS | ServiceAccess::QUERY_CONFIG)
    {
        Err(error) if os_error(&error) == Some(NO_SUCH_SERVICE) => {
            return Ok((format!("{name}: not installed"), 4));
        }
        opened => opened.map_err(|error| failed("opened", name, &error))?,
    };
    let status = service.query_status().map_err(|error| failed("asked", name, &error))?;
    let state = match status.current_state {
        ServiceState::Running => "running",
        ServiceState::Stopped => "stopped",
        ServiceState::StartPending => "starting",
        ServiceState::StopPending => "stopping",
        _ => "paused",
    };
    let mut text = format!("{name}: {state}");
    if let Some(pid) = status.process_id.filter(|pid| *pid != 0) {
        let _ = write!(text, " (process {pid})");
    }
    if let Ok(config) = service.query_config() {
        let begins = match config.start_type {
            ServiceStartType::AutoStart => "with the host",
            ServiceStartType::OnDemand => "when asked",
            _ => "never",
        };
        let account = config.account_name.unwrap_or_default();
        let _ = write!(
            text,
            "\n  starts   {begins}\n  account  {}\n  command  {}",
            account.to_string_lossy(),
            config.executable_path.display()
        );
    }
    Ok((text, if status.current_state == ServiceState::Running { 0 } else { 3 }))
}

/// Each setting that is good to have, and whether the service manager took it.
fn settings(service: &Service, manual: bool) -> Vec<(&'static str, windows_service::Result<()>)> {
    let after = |seconds| ServiceAction {
        action_type: ServiceActionType::Restart,
        delay: Duration::from_secs(seconds),
    };
    let recovery = ServiceFailureActions {
        reset_period: ServiceFailureResetPeriod::After(Duration::from_secs(24 * 3600)),
        reboot_msg: None,
        command: None,
        actions: Some(vec![after(5), after(30), after(300)]),
    };
    let about = "Offers programs of this host as processes to a WPS orchestrator and runs its jobs.";
    let mut done = vec![
        ("the description", service.set_description(about)),
        ("the restart after a crash", service.update_failure_actions(recovery)),
        ("the restart after a failed start", service.set_failure_actions_on_non_crash_failures(true)),
        ("the time for an orderly end at shutdown", service.set_preshutdown_timeout(super::PATIENCE)),
    ];
    if !manual {
        done.push(("the start after the host's own services", service.set_delayed_auto_start(true)));
    }
    done
}

/// What was not there before.
#[derive(Clone, Copy)]
struct Fresh {
    folder: bool,
    config: bool,
}

/// Makes the folder with its places, and a configuration to fill in, where they are missing.
fn prepare(folder: &Path, config: &Path) -> io::Result<Fresh> {
    let fresh = Fresh { folder: !folder.exists(), config: !config.exists() };
    fs::create_dir_all(folder)?;
    fs::create_dir_all(folder.join("log"))?;
    if fresh.config {
        fs::create_dir_all(folder.join("services"))?;
        let sample = SCHEMA.sample().replace("#services_dir = ", "services_dir = services");
        // Notepad of older Windows shows a file without carriage returns as one line.
        fs::write(config, sample.replace('\n', "\r\n"))?;
    }
    Ok(fresh)
}

/// Full control for the system and administrators, change for the service's account, nothing for others: passwords,
/// inputs and results lie there.
fn protect(folder: &Path, account: &str) -> Result<(), String> {
    let root = std::env::var_os("SystemRoot").unwrap_or_else(|| r"C:\Windows".into());
    let mut command = Command::new(PathBuf::from(root).join("System32").join("icacls.exe"));
    command.arg(folder).args([
        "/inheritance:r",
        "/grant:r",
        "*S-1-5-18:(OI)(CI)F",
        "*S-1-5-32-544:(OI)(CI)F",
    ]);
    if account != "LocalSystem" {
        command.arg(format!("{account}:(OI)(CI)M"));
    }
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("icacls ended with {status}")),
        Err(error) => Err(format!("icacls cannot be started: {error}")),
    }
}

fn hints(text: &mut String, config: &Path, fresh: Fresh, account: &str, name: &str) {
    let mut next = Vec::new();
    if fresh.config {
        next.push(format!("fill in {} (a sample was written)", config.display()));
    } else if let Err(error) = AgentConfig::load(config) {
        next.push(format!("the configuration has faults:\n{error}"));
    }
    if !fresh.folder {
        next.push(format!(
            "see that {account} may change files in {}, and that others may not read them",
            config.parent().unwrap_or(config).display()
        ));
    }
    if !account.starts_with(r"NT SERVICE\")
        && !BUILT_IN.iter().any(|known| known.eq_ignore_ascii_case(account))
    {
        next.push(format!("give {account} the right \"Log on as a service\" (secpol.msc, Local Policies)"));
    }
    if account.eq_ignore_ascii_case("LocalSystem") {
        next.push("think twice: all jobs run with all rights on this host".to_owned());
    }
    let option = if name == NAME { String::new() } else { format!(" --name {name}") };
    next.push(format!("wps-remote-agent service start{option}"));
    text.push_str("next:\n");
    for line in next {
        let _ = writeln!(text, "  - {line}");
    }
}

/// `%ProgramData%\NAME`.
fn data_folder(name: &str) -> Result<PathBuf, String> {
    let root = std::env::var_os("ProgramData").filter(|root| !root.is_empty());
    let root = root.ok_or("%ProgramData% is not set: name the configuration with --config FILE")?;
    Ok(PathBuf::from(root).join(name))
}

fn password(file: &Path) -> Result<String, String> {
    let text = fs::read_to_string(file)
        .map_err(|error| format!("the password file {} cannot be read: {error}", file.display()))?;
    let line = text.trim_start_matches('\u{feff}').lines().next().unwrap_or_default();
    if line.is_empty() {
        return Err(format!("the first line of the password file {} is empty", file.display()));
    }
    Ok(line.to_owned())
}

/// The service manager would take more, but the name is also a part of paths and of registry keys.
fn checked(name: &str) -> Result<&str, String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || name.len() > MAX_NAME || !name.chars().all(plain) || name.starts_with('.') {
        return Err(format!("`{name}` is no name for a service: letters, digits, - _ and . please"));
    }
    Ok(name)
}

fn manager(access: ServiceManagerAccess) -> Result<ServiceManager, String> {
    ServiceManager::local_computer(None::<&OsStr>, access).map_err(|error| match os_error(&error) {
        Some(ACCESS_DENIED) => {
            "the service manager refuses: open the console with \"Run as administrator\"".to_owned()
        }
        _ => format!("the service manager cannot be reached: {}", explain(&error)),
    })
}

fn open(name: &str, access: ServiceAccess) -> Result<Service, String> {
    manager(ServiceManagerAccess::CONNECT)?.open_service(name, access).map_err(|error| {
        match os_error(&error) {
            Some(NO_SUCH_SERVICE) => {
                format!("there is no service {name}: `wps-remote-agent service install` makes it")
            }
            _ => failed("opened", name, &error),
        }
    })
}

fn failed(verb: &str, name: &str, error: &windows_service::Error) -> String {
    let remedy = match os_error(error) {
        Some(ACCESS_DENIED) => "; open the console with \"Run as administrator\"",
        _ => "",
    };
    format!("the service {name} cannot be {verb}: {}{remedy}", explain(error))
}

/// Stops it; `false` if it did not run.
fn end(service: &Service, name: &str) -> Result<bool, String> {
    match service.stop() {
        Err(error) if os_error(&error) == Some(NOT_ACTIVE) => return Ok(false),
        Err(error) => return Err(failed("stopped", name, &error)),
        Ok(_) => {}
    }
    let begun = Instant::now();
    loop {
        let status = service.query_status().map_err(|error| failed("asked", name, &error))?;
        if status.current_state == ServiceState::Stopped {
            return Ok(true);
        }
        if begun.elapsed() >= PATIENCE {
            return Err(format!("service {name} has not stopped within {} s", PATIENCE.as_secs()));
        }
        sleep(LOOK_EVERY);
    }
}

/// Waits until it is in another state than this one.
fn settle(service: &Service, name: &str, pending: ServiceState) -> Result<ServiceState, String> {
    let begun = Instant::now();
    loop {
        let status = service.query_status().map_err(|error| failed("asked", name, &error))?;
        if status.current_state != pending {
            return Ok(status.current_state);
        }
        if begun.elapsed() >= PATIENCE {
            return Err(format!("service {name} has not settled within {} s", PATIENCE.as_secs()));
        }
        sleep(LOOK_EVERY);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_services_are_plain() {
        assert_eq!(checked("wps-remote-agent"), Ok("wps-remote-agent"));
        for bad in ["", "a b", r"a\b", "..", "a/b", "ä"] {
            assert!(checked(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_folder_is_prepared_once_and_never_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("a b");
        let config = folder.join("remote.config");
        let fresh = prepare(&folder, &config).unwrap();
        assert!(fresh.folder && fresh.config && folder.join("services").is_dir());
        assert!(fs::read_to_string(&config).unwrap().contains("services_dir = services\r\n"));
        fs::write(&config, "mine").unwrap();
        let again = prepare(&folder, &config).unwrap();
        assert!(!again.folder && !again.config);
        assert_eq!(fs::read_to_string(&config).unwrap(), "mine");
    }
}
