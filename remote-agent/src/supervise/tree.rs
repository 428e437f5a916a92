//! Ends everything that a program has started: first politely, then by force, until nothing is left, and says what it
//! took. Works on the children of this process, which must be their subreaper; knows nothing of files or limits.

use std::collections::HashSet;
use std::io;
use std::time::Duration;

use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, WaitOptions, WaitStatus, getpid, kill_process_group,
    set_child_subreaper, setsid, wait, waitid,
};
use tokio::signal::unix::{Signal as Signals, SignalKind, signal};
use tokio::time::{Instant, sleep, timeout_at};
use wps_remote_protocol::KillReceipt;

use super::cgroup::Group;
use super::record::Outcome;
use crate::execution::unix::{self, Seen};

/// How often newcomers are looked for while the polite time runs.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How long the hard way is tried before survivors are reported: only processes that hang in the kernel take longer.
const FORCE_FOR: Duration = Duration::from_secs(5);
/// More descendants than this are a fork storm, to which politeness only gives time to grow.
const STORM: usize = 500;

/// All children of this process, one of which is the program itself.
pub(super) struct Tree {
    me: i32,
    main: Pid,
    ended: Option<WaitStatus>,
    ready: Readiness,
    own_session: bool,
    group: Option<Group>,
    /// CPU time of the program itself, in clock ticks; known when it has ended.
    cpu: Option<u64>,
    /// Every process that was there when an end was made.
    found: HashSet<(i32, u64)>,
}

/// Makes this process the leader of a session of its own, if it can: no terminal and no signal to another group reaches
/// it, and no stranger can be in a group with its descendants.
pub(super) fn own_session() -> bool {
    setsid().is_ok()
}

/// What must be in place as long as a program is looked after.
pub(super) struct Readiness {
    child_ended: Signals,
    _pipe: Signals,
}

/// Makes this process ready to look after a program and to be told of ended children: before the program starts.
pub(super) fn prepare() -> io::Result<Readiness> {
    set_child_subreaper(Some(getpid()))?;
    Ok(Readiness {
        child_ended: signal(SignalKind::child())?,
        // Programs written in Rust ignore this one, and the new process would inherit that; what is caught here it does not.
        _pipe: signal(SignalKind::pipe())?,
    })
}

/// How a program ended, in the words of the record.
pub(super) fn outcome_of(status: WaitStatus) -> Outcome {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => Outcome::Exited(code),
        (None, Some(number)) => Outcome::Signalled(number),
        // wait(2) without WUNTRACED reports nothing else.
        (None, None) => Outcome::Exited(-1),
    }
}

impl Tree {
    /// `own_session`: whether this process leads its session, so that no stranger can be in a group with its descendants.
    /// `group`: the control group that holds all of them and nobody else.
    pub(super) fn new(main: Pid, ready: Readiness, own_session: bool, group: Option<Group>) -> Self {
        let me = getpid().as_raw_nonzero().get();
        Self { me, main, ended: None, ready, own_session, group, cpu: None, found: HashSet::new() }
    }

    /// The control group, if there is one.
    pub(super) fn group(&self) -> Option<&Group> {
        self.group.as_ref()
    }

    /// Gives the control group back.
    pub(super) fn into_group(self) -> Option<Group> {
        self.group
    }

    /// Milliseconds of CPU time that the program itself has used; known when it has ended.
    pub(super) fn cpu_ms(&self) -> Option<u64> {
        self.cpu.map(|ticks| ticks * 1000 / rustix::param::clock_ticks_per_second().max(1))
    }

    /// Waits until the program itself has ended.
    pub(super) async fn main_ended(&mut self) -> WaitStatus {
        loop {
            self.collect();
            if let Some(status) = self.ended {
                return status;
            }
            self.ready.child_ended.recv().await;
        }
    }

    /// How the program itself ended, if it has.
    pub(super) fn ended(&mut self) -> Option<WaitStatus> {
        self.collect();
        self.ended
    }

    /// Collects ended children; `true` if no child is left at all. That also means: no descendant, because those that
    /// lose their parent become ours.
    fn collect(&mut self) -> bool {
        let only_look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        if self.ended.is_none() && matches!(waitid(WaitId::Pid(self.main), only_look), Ok(Some(_))) {
            // Once it is collected nobody can tell any more.
            self.cpu = unix::look(self.main.as_raw_nonzero().get()).map(|seen| seen.cpu);
        }
        loop {
            match wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) if pid == self.main => self.ended = Some(status),
                Ok(Some(_)) | Err(rustix::io::Errno::INTR) => {}
                Ok(None) => return false,
                Err(_) => return true,
            }
        }
    }

    /// Ends all that is left. `None` if nothing was.
    pub(super) async fn end(&mut self, grace: Duration) -> Option<KillReceipt> {
        if self.collect() {
            return None;
        }
        let begun = Instant::now();
        let mut receipt = KillReceipt { at_ms: super::wall_clock_ms(), ..KillReceipt::default() };
        if !self.ask(begun + grace, &mut receipt).await {
            receipt.forced_after_ms = Some(milliseconds(begun.elapsed()));
            self.force(&mut receipt).await;
        }
        receipt.took_ms = milliseconds(begun.elapsed());
        receipt.found = u32::try_from(self.found.len()).unwrap_or(u32::MAX);
        receipt.ended =
            receipt.found.saturating_sub(u32::try_from(receipt.survivors.len()).unwrap_or(u32::MAX));
        Some(receipt)
    }

    /// `true` if all have followed the polite signal in time.
    async fn ask(&mut self, until: Instant, receipt: &mut KillReceipt) -> bool {
        let mut asked = HashSet::new();
        while Instant::now() < until {
            let alive = self.alive();
            let storm = alive.len() > STORM;
            for seen in alive {
                self.found.insert((seen.pid, seen.started));
                if asked.insert((seen.pid, seen.started)) && unix::signal(&seen, Signal::TERM) {
                    receipt.asked += 1;
                    // A stopped process takes no notice of the request before it goes on.
                    unix::signal(&seen, Signal::CONT);
                }
            }
            let next_look = until.min(Instant::now() + LOOK_EVERY);
            loop {
                if self.collect() {
                    return true;
                }
                if timeout_at(next_look, self.ready.child_ended.recv()).await.is_err() {
                    break;
                }
            }
            if storm {
                return false;
            }
        }
        self.collect()
    }

    async fn force(&mut self, receipt: &mut KillReceipt) {
        let until = Instant::now() + FORCE_FOR;
        let mut forced = HashSet::new();
        loop {
            let alive = self.alive();
            if let Some(group) = &self.group {
                group.kill();
            }
            // A signal to a group reaches all its members at one instant: no fork slips through, as it would between
            // two single signals.
            let groups: HashSet<i32> = alive.iter().map(|seen| seen.group).collect();
            for group in groups.into_iter().filter(|group| self.own_session && *group != self.me) {
                if let Some(group) = Pid::from_raw(group) {
                    let _ = kill_process_group(group, Signal::KILL);
                }
            }
            for seen in &alive {
                unix::signal(seen, Signal::STOP);
            }
            for seen in &alive {
                unix::signal(seen, Signal::KILL);
                forced.insert((seen.pid, seen.started));
                self.found.insert((seen.pid, seen.started));
            }
            receipt.forced = u32::try_from(forced.len()).unwrap_or(u32::MAX);
            if self.collect() {
                return;
            }
            if Instant::now() >= until {
                let left = self.alive();
                receipt.survivors = left
                    .iter()
                    .take(100)
                    .map(|seen| format!("{} {} {}", seen.pid, seen.name, seen.state))
                    .collect();
                return;
            }
            let _ = tokio::time::timeout(Duration::from_millis(20), self.ready.child_ended.recv()).await;
            // Many deaths give many wake-ups; one look for all of them is enough.
            sleep(Duration::from_millis(2)).await;
        }
    }

    /// Descendants that are not merely waiting to be collected. If /proc cannot be read, the program itself at least.
    fn alive(&self) -> Vec<Seen> {
        let mut seen = unix::descendants(self.me)
            .unwrap_or_else(|_| unix::look(self.main.as_raw_nonzero().get()).into_iter().collect());
        seen.retain(|seen| !seen.is_zombie());
        seen
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
