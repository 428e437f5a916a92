//! The agent as a service of its host: what the service manager is told (ready, stopping, one line of status, signs of
//! life) and what it asks for (a reload). Knows nothing of what the agent does.
//!
//! The seam between systems is the trait [`Manager`]. A manager that calls instead of signalling (Windows) asks through
//! [`Service::ask_reload`] and the shutdown token of [`crate::run`].

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

/// What a service manager is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum News<'a> {
    /// The agent does its work; also said when a reload is over.
    Ready,
    /// The configuration is read again; [`News::Ready`] follows.
    Reloading,
    /// The agent ends in order.
    Stopping,
    /// One line for people.
    Status(&'a str),
    /// The driver task is alive. Said by that task and by no other, or a hanging driver would go unnoticed.
    Alive,
}

/// A service manager, as far as the agent cares. Calls must not block.
pub trait Manager: Send + Sync {
    /// Takes note. Errors are the manager's own concern: the agent works without one.
    fn tell(&self, news: News<'_>);

    /// How often it wants to hear [`News::Alive`] at least; `None` = never.
    fn watchdog(&self) -> Option<Duration> {
        None
    }
}

/// The handle that the parts of the agent share.
#[derive(Clone)]
pub struct Service {
    manager: Arc<dyn Manager>,
    reload: Arc<Notify>,
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service").field("watchdog", &self.manager.watchdog()).finish_non_exhaustive()
    }
}

impl Service {
    /// With this manager.
    pub fn new(manager: Arc<dyn Manager>) -> Self {
        Self { manager, reload: Arc::new(Notify::new()) }
    }

    /// Without a manager: for embedding programs and for people at a terminal.
    pub fn nobody() -> Self {
        Self::new(Arc::new(Nobody))
    }

    /// The manager that has started this program, as the environment tells.
    #[cfg(unix)]
    pub fn of_this_host() -> Self {
        match systemd::Systemd::here() {
            Some(manager) => Self::new(Arc::new(manager)),
            None => Self::nobody(),
        }
    }

    /// The manager that has started this program: none that wants to be told anything but what `scm` tells it.
    #[cfg(not(unix))]
    pub fn of_this_host() -> Self {
        Self::nobody()
    }

    /// Tells the manager.
    pub fn tell(&self, news: News<'_>) {
        self.manager.tell(news);
    }

    /// How often the driver says that it is alive: twice as often as is asked for (sd_watchdog_enabled(3)).
    pub fn sign_of_life(&self) -> Option<Duration> {
        self.manager.watchdog().map(|period| period / 2).filter(|pause| !pause.is_zero())
    }

    /// Asks for a reload of the configuration.
    pub fn ask_reload(&self) {
        self.reload.notify_one();
    }

    /// Waits until a reload is asked for. Several that were asked for meanwhile are one.
    pub async fn reload_asked(&self) {
        self.reload.notified().await;
    }
}

struct Nobody;

impl Manager for Nobody {
    fn tell(&self, _: News<'_>) {}
}

#[cfg(unix)]
mod systemd {
    //! sd_notify(3), through the socket that systemd names in the environment.

    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    use sd_notify::NotifyState;
    use tracing::warn;

    use super::{Manager, News};

    pub(super) struct Systemd {
        watchdog: Option<Duration>,
        warned: AtomicBool,
    }

    impl Systemd {
        pub(super) fn here() -> Option<Self> {
            std::env::var_os("NOTIFY_SOCKET").filter(|socket| !socket.is_empty())?;
            Some(Self { watchdog: sd_notify::watchdog_enabled(), warned: AtomicBool::new(false) })
        }
    }

    impl Manager for Systemd {
        fn tell(&self, news: News<'_>) {
            let told = match news {
                News::Ready => sd_notify::notify(&[NotifyState::Ready]),
                // Since systemd 253 the time belongs to it; older ones ignore it.
                News::Reloading => NotifyState::monotonic_usec_now()
                    .and_then(|now| sd_notify::notify(&[NotifyState::Reloading, now])),
                News::Stopping => sd_notify::notify(&[NotifyState::Stopping]),
                News::Status(line) => sd_notify::notify(&[NotifyState::Status(line)]),
                News::Alive => sd_notify::notify(&[NotifyState::Watchdog]),
            };
            if let Err(error) = told
                && !self.warned.swap(true, Ordering::Relaxed)
            {
                warn!("the service manager cannot be told how the agent is: {error} (NOTIFY_SOCKET)");
            }
        }

        fn watchdog(&self) -> Option<Duration> {
            self.watchdog
        }
    }
}
