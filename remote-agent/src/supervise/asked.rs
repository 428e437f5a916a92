//! How a supervisor is asked to end its job: by signals on Unix. Windows has none; there it is a file in the control folder,
//! which also reaches a supervisor that was started by another agent, and the shutdown of the host.

use std::io;
use std::path::Path;

#[cfg(windows)]
use std::{fs, path::PathBuf, time::Duration};

/// Name of the file in the control folder that asks a supervisor to end its job.
#[cfg(windows)]
const END_FILE: &str = "end";
/// How often it is looked for.
#[cfg(windows)]
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Listens from its creation on: a request that comes while the program starts is not lost.
#[cfg(unix)]
pub(super) struct Requests {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
    hang_up: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Requests {
    pub(super) fn listen(_folder: &Path) -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for one.
    pub(super) async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
            _ = self.hang_up.recv() => {}
        }
    }
}

/// Listens from its creation on: a request that comes while the program starts is not lost.
#[cfg(windows)]
pub(super) struct Requests {
    file: PathBuf,
    shut_down: tokio::signal::windows::CtrlShutdown,
}

#[cfg(windows)]
impl Requests {
    pub(super) fn listen(folder: &Path) -> io::Result<Self> {
        Ok(Self { file: folder.join(END_FILE), shut_down: tokio::signal::windows::ctrl_shutdown()? })
    }

    /// Waits for one.
    pub(super) async fn next(&mut self) {
        let file_appears = async {
            while fs::symlink_metadata(&self.file).is_err() {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        tokio::select! {
            () = file_appears => {}
            _ = self.shut_down.recv() => {}
        }
    }
}

/// Asks the supervisor of this control folder to end its job.
#[cfg(windows)]
pub fn ask(folder: &Path) -> io::Result<()> {
    crate::files::options(0o600)
        .write(true)
        .create(true)
        .truncate(false)
        .open(folder.join(END_FILE))
        .map(drop)
}
