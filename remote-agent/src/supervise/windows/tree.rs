//! Ends everything that a program has started: first politely, over the console that they share, then by force through
//! the job object, and says what it took.

use std::io;
use std::process::{Child, ExitStatus};
use std::thread;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};
use wps_remote_protocol::KillReceipt;

use super::cgroup::Group;
use crate::supervise::record::Outcome;
use crate::winapi::console::{self, Event};
use crate::winapi::host;
use crate::winapi::job::Job;

/// How often the job object is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How long the hard way is tried before survivors are reported.
const FORCE_FOR: Duration = Duration::from_secs(5);
/// More processes than this are a fork storm, to which politeness only gives time to grow.
const STORM: u32 = 500;

/// The program itself, and the job object in which it and its descendants are.
pub(in crate::supervise) struct Main {
    job: Job,
    ended: oneshot::Receiver<ExitStatus>,
}

impl Main {
    /// A thread waits for its end: there is no call that waits without one.
    pub(super) fn watch(mut child: Child, job: Job) -> io::Result<Self> {
        let (done, ended) = oneshot::channel();
        thread::Builder::new().name("wait".to_owned()).stack_size(64 * 1024).spawn(move || {
            if let Ok(status) = child.wait() {
                // Nobody waits any more when the supervisor is about to end.
                let _ = done.send(status);
            }
        })?;
        Ok(Self { job, ended })
    }
}

/// All processes of the job.
pub(in crate::supervise) struct Tree {
    main: Main,
    status: Option<ExitStatus>,
    _ready: Readiness,
}

/// Everything that must be in place before the program starts. Console events for the program must not end us.
pub(in crate::supervise) struct Readiness {
    _interrupt: tokio::signal::windows::CtrlC,
    _break: tokio::signal::windows::CtrlBreak,
}

/// A process is never in its parent's session here; that question is one of Unix.
pub(in crate::supervise) fn own_session() -> bool {
    true
}

/// Makes this process ready to look after a program.
pub(in crate::supervise) fn prepare() -> io::Result<Readiness> {
    // Without a console there is nothing to notice, and nothing to send either.
    let _ = console::notice_interrupts();
    Ok(Readiness {
        _interrupt: tokio::signal::windows::ctrl_c()?,
        _break: tokio::signal::windows::ctrl_break()?,
    })
}

/// How the program ended, in the words of the record.
pub(in crate::supervise) fn outcome_of(status: ExitStatus) -> Outcome {
    Outcome::Exited(status.code().unwrap_or(-1))
}

impl Tree {
    pub(in crate::supervise) fn new(
        main: Main,
        ready: Readiness,
        _own_session: bool,
        _group: Option<Group>,
    ) -> Self {
        Self { main, status: None, _ready: ready }
    }

    /// The control group: there is none.
    pub(in crate::supervise) fn group(&self) -> Option<&Group> {
        None
    }

    /// Gives the control group back: there is none.
    pub(in crate::supervise) fn into_group(self) -> Option<Group> {
        None
    }

    /// Milliseconds of CPU time that all processes of the job have used.
    pub(in crate::supervise) fn cpu_ms(&self) -> Option<u64> {
        self.main.job.user_ms().ok()
    }

    /// Waits until the program itself has ended. May be dropped and called again.
    pub(in crate::supervise) async fn main_ended(&mut self) {
        if self.status.is_some() {
            return;
        }
        match (&mut self.main.ended).await {
            Ok(status) => self.status = Some(status),
            // The waiting thread has failed. The job object still knows whether anything lives.
            Err(_) => {
                while self.alive() > 0 {
                    sleep(LOOK_EVERY).await;
                }
            }
        }
    }

    /// How the program itself ended, if it has.
    pub(in crate::supervise) fn ended(&mut self) -> Option<ExitStatus> {
        if self.status.is_none() {
            self.status = self.main.ended.try_recv().ok();
        }
        self.status
    }

    /// Ends all that is left. `None` if nothing was.
    pub(in crate::supervise) async fn end(&mut self, grace: Duration) -> Option<KillReceipt> {
        if self.alive() == 0 {
            return None;
        }
        let begun = Instant::now();
        let found = self.alive();
        let mut receipt =
            KillReceipt { at_ms: crate::supervise::wall_clock_ms(), found, ..KillReceipt::default() };
        if !self.ask(begun, grace, &mut receipt).await {
            receipt.forced_after_ms = Some(millis(begun));
            self.force(&mut receipt).await;
        }
        receipt.ended = receipt.found.saturating_sub(self.alive());
        receipt.took_ms = millis(begun);
        // The program's own end may be noticed a moment later than that of its job object.
        let _ = tokio::time::timeout(Duration::from_secs(1), self.main_ended()).await;
        Some(receipt)
    }

    /// `true` if all have followed the request in time: Ctrl-C first, after half of the time Ctrl-Break, which also
    /// reaches programs that have turned Ctrl-C off.
    async fn ask(&mut self, begun: Instant, grace: Duration, receipt: &mut KillReceipt) -> bool {
        let alive = self.alive();
        if alive > STORM || grace.is_zero() || console::send(Event::Interrupt).is_err() {
            return false;
        }
        receipt.asked = alive;
        let mut insisted = false;
        while begun.elapsed() < grace {
            sleep(LOOK_EVERY).await;
            let alive = self.alive();
            if alive == 0 {
                return true;
            }
            if alive > STORM {
                return false;
            }
            if !insisted && begun.elapsed() >= grace / 2 {
                insisted = true;
                let _ = console::send(Event::Break);
            }
        }
        self.alive() == 0
    }

    async fn force(&mut self, receipt: &mut KillReceipt) {
        let until = Instant::now() + FORCE_FOR;
        receipt.forced = self.alive();
        loop {
            // A failure shows as survivors.
            let _ = self.main.job.terminate();
            if self.alive() == 0 {
                return;
            }
            if Instant::now() >= until {
                let left = self.main.job.processes(100).unwrap_or_default();
                receipt.survivors = left
                    .into_iter()
                    .map(|pid| format!("{pid} {}", host::program_of(pid).unwrap_or_default()))
                    .collect();
                return;
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// How many processes live. A job object that cannot be asked counts as empty: then there is nothing we could end.
    fn alive(&self) -> u32 {
        self.main.job.active().unwrap_or(0)
    }
}

fn millis(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}
