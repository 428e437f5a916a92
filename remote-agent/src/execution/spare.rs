//! A supervisor that has been started before there is a job for it and waits for the name of its job's folder. Starting a
//! process of this size takes longer than most of what a short job does; so it is done while nobody waits.

use std::io::{PipeWriter, Write};
use std::os::unix::ffi::OsStrExt;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard};

use tokio::process::Child;

use super::Host;
use super::supervisor::command;
use crate::supervise::STANDBY;
use crate::workdir::Folder;

/// At most one waiting supervisor. It ends by itself when this is dropped: the end of its input is the end of its wait.
#[derive(Debug, Default)]
pub struct Spare {
    waiting: Mutex<Option<(Child, PipeWriter)>>,
    kept: AtomicBool,
}

impl Spare {
    /// Gives the job of this control folder to the waiting supervisor, if there is one that lives.
    pub(super) fn take(&self, folder: &Folder) -> Option<Child> {
        let (mut child, mut input) = self.slot().take()?;
        let mut line = folder.path().as_os_str().as_bytes().to_vec();
        // The name ends with the line; a name with a line break in it is for a supervisor that gets it as an argument.
        if line.contains(&b'\n') || !matches!(child.try_wait(), Ok(None)) {
            return None;
        }
        line.push(b'\n');
        // If it does not arrive whole, the supervisor finds no end of the line and does nothing.
        input.write_all(&line).ok()?;
        Some(child)
    }

    /// From now on one is kept waiting. Must be called within a tokio runtime.
    pub fn keep(&self, host: &Host) {
        self.kept.store(true, Relaxed);
        self.refill(host);
    }

    /// Starts one if one is wanted and none waits. Without a spare, jobs only start a little later.
    pub(super) fn refill(&self, host: &Host) {
        if !self.kept.load(Relaxed) {
            return;
        }
        let mut slot = self.slot();
        if slot.is_some() {
            return;
        }
        let (Some(mut command), Ok((reader, writer))) = (command(host), std::io::pipe()) else { return };
        match command.arg(STANDBY).stdin(Stdio::from(reader)).spawn() {
            Ok(child) => *slot = Some((child, writer)),
            Err(error) => tracing::debug!("no supervisor is kept ready: {error}"),
        }
    }

    fn slot(&self) -> MutexGuard<'_, Option<(Child, PipeWriter)>> {
        self.waiting.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}
