//! The agent as a service of Windows: what the service manager calls, and (in `manage`) what an administrator asks the
//! service manager for. The agent itself is the same as on a console.

pub(crate) mod log;
pub(crate) mod manage;

use std::ffi::OsString;
use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use windows_service::service::{
    ServiceControl, ServiceControlAccept, ServiceExitCode, ServiceState, ServiceStatus, ServiceType,
};
use windows_service::service_control_handler::{self, ServiceControlHandlerResult, ServiceStatusHandle};
use windows_service::{define_windows_service, service_dispatcher};

use crate::Options;
use crate::cli::service::RunAs;
use crate::config::AgentConfig;
use crate::winapi::report::Kind;

/// What a service ends with when it could not start; the number is that of the program on a console.
const CANNOT_START: u32 = 100;
/// The same when it broke while running.
const BROKE: u32 = 101;
/// How long the service manager is asked to wait for a start or a stop.
const PATIENCE: Duration = Duration::from_secs(30);
/// What StartServiceCtrlDispatcher says when it is not the service manager that has started the program.
const NOT_A_SERVICE: i32 = 1063;

/// What the service manager's call does not carry along.
static RUN: OnceLock<RunAs> = OnceLock::new();

define_windows_service!(service_entry, service_main);

/// Hands the process over to the service manager; returns when the service has ended.
pub(crate) fn run(wanted: RunAs) -> Result<(), String> {
    let name = wanted.named.name.clone();
    // Nobody else sets it: a process calls this once.
    let _ = RUN.set(wanted);
    service_dispatcher::start(&name, service_entry).map_err(|error| match os_error(&error) {
        Some(NOT_A_SERVICE) => {
            "`service run` is for the service manager: use `wps-remote-agent service start`, or \
                                `wps-remote-agent run` to run in this console"
                .to_owned()
        }
        _ => format!("the service manager cannot be reached: {}", explain(&error)),
    })
}

fn service_main(_arguments: Vec<OsString>) {
    let Some(RunAs { named, config }) = RUN.get() else { return };
    let stop = CancellationToken::new();
    let asked = stop.clone();
    let handler = move |control| match control {
        ServiceControl::Stop | ServiceControl::Shutdown | ServiceControl::Preshutdown => {
            asked.cancel();
            ServiceControlHandlerResult::NoError
        }
        ServiceControl::Interrogate => ServiceControlHandlerResult::NoError,
        _ => ServiceControlHandlerResult::NotImplemented,
    };
    let handle = match service_control_handler::register(&named.name, handler) {
        Ok(handle) => handle,
        Err(error) => {
            let text = format!("the service manager takes no handler: {}", explain(&error));
            log::event(&named.name, Kind::Error, log::Id::CannotStart, &text);
            return;
        }
    };
    tell(&handle, ServiceState::StartPending, 0);
    let code = match serve(&named.name, config, &handle, &stop) {
        Ok(()) => {
            log::event(&named.name, Kind::Information, log::Id::Stopped, "The agent has stopped.");
            0
        }
        Err((code, why)) => {
            // Into the file as well; at this level it is not put into the event log a second time.
            tracing::warn!("the agent cannot start, or broke: {why}");
            let id = if code == BROKE { log::Id::Broke } else { log::Id::CannotStart };
            log::event(&named.name, Kind::Error, id, &why);
            code
        }
    };
    // The last word: the process may be ended the moment after it.
    tell(&handle, ServiceState::Stopped, code);
}

fn serve(
    name: &str,
    config: &Path,
    handle: &ServiceStatusHandle,
    stop: &CancellationToken,
) -> Result<(), (u32, String)> {
    let cannot = |why: String| (CANNOT_START, why);
    let folder = config.parent().unwrap_or(config).join("log");
    log::start(name, &folder)
        .map_err(|error| cannot(format!("the log in {} cannot be written: {error}", folder.display())))?;
    let config_read = AgentConfig::load(config).map_err(|error| cannot(error.to_string()))?;
    let options = Options::new().map_err(|error| cannot(error.to_string()))?;
    let runtime = crate::cli::runtime().map_err(|error| cannot(error.to_string()))?;
    let outcome = runtime.block_on(async {
        let mut agent = tokio::spawn(crate::run(config_read, options, stop.clone()));
        tell(handle, ServiceState::Running, 0);
        let text = format!("The agent runs with {}; its log is in {}.", config.display(), folder.display());
        log::event(name, Kind::Information, log::Id::Started, &text);
        tokio::select! {
            ended = &mut agent => ended,
            () = stop.cancelled() => {
                tell(handle, ServiceState::StopPending, 0);
                agent.await
            }
        }
    });
    // A blocking read on a dead network file system must not keep the service from ending.
    runtime.shutdown_background();
    match outcome {
        Ok(ended) => ended.map_err(|error| cannot(error.to_string())),
        Err(panic) => Err((BROKE, format!("the agent broke: {panic}"))),
    }
}

/// Tells the service manager how it stands. That it does not listen is no reason to end.
fn tell(handle: &ServiceStatusHandle, state: ServiceState, code: u32) {
    let pending = matches!(state, ServiceState::StartPending | ServiceState::StopPending);
    let accepted = if state == ServiceState::Running {
        ServiceControlAccept::STOP | ServiceControlAccept::PRESHUTDOWN
    } else {
        ServiceControlAccept::empty()
    };
    let status = ServiceStatus {
        service_type: ServiceType::OWN_PROCESS,
        current_state: state,
        controls_accepted: accepted,
        exit_code: if code == 0 { ServiceExitCode::NO_ERROR } else { ServiceExitCode::ServiceSpecific(code) },
        checkpoint: u32::from(pending),
        wait_hint: if pending { PATIENCE } else { Duration::ZERO },
        process_id: None,
    };
    if let Err(error) = handle.set_service_status(status) {
        tracing::warn!("the service manager does not listen: {}", explain(&error));
    }
}

fn os_error(error: &windows_service::Error) -> Option<i32> {
    match error {
        windows_service::Error::Winapi(error) => error.raw_os_error(),
        _ => None,
    }
}

/// The crate's own texts name a call; the reason is what the system said.
fn explain(error: &windows_service::Error) -> String {
    match error {
        windows_service::Error::Winapi(error) => error.to_string(),
        other => other.to_string(),
    }
}
