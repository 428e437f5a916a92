//! The orchestrator as a service of its host: what systemd is told through sd_notify(3). Without the socket that systemd names in
//! the environment every call does nothing. Knows nothing of what the orchestrator does.

use std::time::Duration;

use sd_notify::NotifyState;
use tracing::debug;

/// What the service manager is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum News<'a> {
    /// Clients and agents can connect; also said when a reload is over.
    Ready,
    /// The configuration is read again; [`News::Ready`] follows.
    Reloading,
    /// It ends in order.
    Stopping,
    /// One line for people.
    Status(&'a str),
    /// The driver task is alive. Said by that task and by no other, or a hanging driver would go unnoticed.
    Alive,
}

/// Tells the service manager.
pub fn tell(news: News<'_>) {
    let told = match news {
        News::Ready => sd_notify::notify(&[NotifyState::Ready]),
        // Since systemd 253 the time belongs to it; older ones ignore it.
        News::Reloading => NotifyState::monotonic_usec_now()
            .and_then(|now| sd_notify::notify(&[NotifyState::Reloading, now])),
        News::Stopping => sd_notify::notify(&[NotifyState::Stopping]),
        News::Status(line) => sd_notify::notify(&[NotifyState::Status(line)]),
        News::Alive => sd_notify::notify(&[NotifyState::Watchdog]),
    };
    if let Err(error) = told {
        debug!("the service manager cannot be told: {error}");
    }
}

/// How often the driver says that it is alive: twice as often as systemd asks for (sd_watchdog_enabled(3)); `None` = never.
pub fn sign_of_life() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|period| period / 2).filter(|pause| !pause.is_zero())
}
