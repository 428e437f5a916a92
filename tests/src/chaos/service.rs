//! A program as a service manager keeps it: started again when it ended by itself, killed and halted when the plan says so.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::program::Program;
use crate::wait_until;

/// As long as a service manager would wait before it starts a program again.
const AGAIN: Duration = Duration::from_millis(500);
/// Longest orderly end.
const STOP: Duration = Duration::from_secs(30);

/// A program that is kept running, unless it is down on purpose.
pub(super) struct Service {
    name: String,
    log: PathBuf,
    command: Box<dyn Fn() -> Command>,
    program: Option<Program>,
    ended: Option<Instant>,
    down: bool,
    /// Asked to end, and not started since.
    stopping: bool,
    /// How often it ended by itself.
    pub(super) ended_itself: u32,
}

impl Service {
    /// Starts it.
    pub(super) fn start(name: &str, log: PathBuf, command: impl Fn() -> Command + 'static) -> Self {
        let mut service = Self {
            name: name.to_owned(),
            log,
            command: Box::new(command),
            program: None,
            ended: None,
            down: true,
            stopping: false,
            ended_itself: 0,
        };
        service.up();
        service
    }

    /// Its process.
    pub(super) fn pid(&self) -> Option<u32> {
        self.program.as_ref().map(Program::pid)
    }

    /// Starts it if it is not running; if it is about to end, as soon as it has.
    pub(super) fn up(&mut self) {
        self.down = false;
        self.ended = None;
        if self.program.as_ref().is_none_or(|program| program.ended().is_some()) {
            self.stopping = false;
            let started = Program::start(&self.name, (self.command)(), &self.log);
            self.program = Some(started.expect("the program can be started"));
        }
    }

    /// What a service manager does every now and then.
    pub(super) fn keep(&mut self) {
        if self.down || self.program.as_ref().is_some_and(|program| program.ended().is_none()) {
            return;
        }
        let ended = *self.ended.get_or_insert_with(|| {
            self.ended_itself += u32::from(!self.stopping);
            Instant::now()
        });
        if ended.elapsed() >= AGAIN {
            self.up();
        }
    }

    /// Kills it (SIGKILL); it stays down.
    pub(super) fn kill(&mut self) {
        self.down = true;
        if let Some(program) = &self.program {
            program.kill();
        }
    }

    /// Sends it a signal. After TERM it stays down.
    pub(super) fn signal(&mut self, signal: Signal) {
        self.down |= signal == Signal::TERM;
        self.stopping |= signal == Signal::TERM;
        if let Some(program) = &self.program {
            program.signal(signal);
        }
    }

    /// Waits for its end after TERM; what was wrong with it.
    pub(super) fn ended_in_order(&self) -> Option<String> {
        let program = self.program.as_ref()?;
        match wait_until(STOP, || program.ended()) {
            Some(status) if status.success() => None,
            Some(status) => Some(format!("{} ended with {status} when it was stopped", self.name)),
            None => Some(format!("{} did not end within {STOP:?} after SIGTERM", self.name)),
        }
    }

    /// Lines of its log that tell of a panic.
    pub(super) fn panics(&self) -> Vec<String> {
        let log = std::fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let panics = log.lines().filter(|line| line.contains("panicked at"));
        panics.map(|line| format!("{}: {line}", self.name)).collect()
    }
}
