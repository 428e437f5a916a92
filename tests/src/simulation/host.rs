//! A host of an agent: its disk with the control folders of executions, supervisors and programs that run on when the agent
//! dies, and the agent's half of an execution (`agent::execution`: record, supervisor, ending). A power cut ends all of it.

use std::collections::BTreeMap;

use wps_orchestrator::engine::job::JobId;
use wps_remote_agent::engine::{Event, Peer as Orchestrator};
use wps_remote_agent::workdir::Ending;
use wps_remote_protocol::{
    Content, ErrorKind, ExecutionError, ExecutionId, KillReceipt, Output, ProcessId, SharedFile, Value,
};

use super::agent::Agent;
use super::plan::Fate;
use super::world::{Happening, World};

/// A host: what outlives its agent.
#[derive(Debug, Default)]
pub struct Host {
    /// It has power.
    pub up: bool,
    /// Counts power cuts.
    pub boots: u64,
    /// Control folders.
    pub disk: BTreeMap<ExecutionId, Folder>,
    /// The mark that an operator wants no new work here.
    pub draining: bool,
    /// Its descriptors are there.
    pub offering: bool,
    /// Its agent, if it runs.
    pub agent: Option<Agent>,
}

/// A control folder.
#[derive(Debug, Clone)]
pub struct Folder {
    /// `job.json`.
    pub process: ProcessId,
    /// `job.json`.
    pub originator: Orchestrator,
    /// `job.json`.
    pub weight: f64,
    /// The supervisor has begun.
    pub begun: bool,
    /// The program runs; names this run.
    pub running: Option<u64>,
    /// Nobody watches the program.
    pub orphan: bool,
    /// `exit.json`.
    pub exit: Option<Exit>,
    /// `ending.json`.
    pub ending: Option<Ending>,
    /// `finished`, since when.
    pub finished: Option<u64>,
    /// It is on the platters: a power cut leaves it.
    pub synced: bool,
}

/// How a program ended, as its supervisor has put it down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// By itself.
    Code(i32),
    /// At the limit.
    TimedOut,
    /// On request.
    Aborted,
}

/// What happens on a host later, whether its agent lives or not.
#[derive(Debug, Clone)]
pub enum HostEvent {
    /// The program has come to its end.
    ProgramEnds { execution: ExecutionId, run: u64, exit: Exit },
}

/// What happens in the agent's half of an execution.
#[derive(Debug, Clone)]
pub enum ExecutionEvent {
    /// The record is written.
    Prepare,
    /// The supervisor is started.
    Launch,
    /// What was adopted is looked at.
    Resume,
    /// The supervisor has ended.
    Follow,
    /// The ending is pressed onto the platters.
    Sync,
}

impl World {
    pub(super) fn host_later(&mut self, host: usize, wait: u64, event: HostEvent) {
        let boots = self.hosts[host].boots;
        self.after(wait, Happening::Host { host, boots, event: Box::new(event) });
    }

    fn execution_later(&mut self, host: usize, wait: u64, execution: &ExecutionId, event: ExecutionEvent) {
        self.agent_later(host, wait, super::agent::AgentEvent::Execution(execution.clone(), event));
    }

    /// The agent starts an execution.
    pub(super) fn begin(&mut self, host: usize, execution: &ExecutionId) {
        let wait = self.random.between(1, 120);
        self.execution_later(host, wait, execution, ExecutionEvent::Prepare);
    }

    /// The agent goes on with what a former one has begun.
    pub(super) fn resume(&mut self, host: usize, execution: &ExecutionId) {
        let wait = self.random.between(1, 60);
        self.execution_later(host, wait, execution, ExecutionEvent::Resume);
    }

    pub(super) fn execution_event(&mut self, host: usize, execution: ExecutionId, event: ExecutionEvent) {
        match event {
            ExecutionEvent::Prepare => self.prepare(host, &execution),
            ExecutionEvent::Launch => {
                self.launch(host, &execution);
                self.agent_happened(host, &execution, Event::Started);
            }
            ExecutionEvent::Resume => {
                let folder = self.hosts[host].disk.get(&execution);
                let (begun, running) =
                    folder.map_or((true, false), |f| (f.begun, f.running.is_some() && !f.orphan));
                if !begun {
                    self.launch(host, &execution);
                } else if !running {
                    self.execution_later(host, 5, &execution, ExecutionEvent::Follow);
                }
                self.agent_happened(host, &execution, Event::Started);
            }
            ExecutionEvent::Follow => self.follow(host, &execution),
            ExecutionEvent::Sync => {
                if let Some(folder) = self.hosts[host].disk.get_mut(&execution) {
                    folder.synced = true;
                }
            }
        }
    }

    fn prepare(&mut self, host: usize, execution: &ExecutionId) {
        let Some(agent) = &mut self.hosts[host].agent else { return };
        let Some((process, originator, weight)) = agent.starting.remove(execution) else { return };
        if agent.aborted.contains(execution) {
            let ending = failed(ErrorKind::Aborted, "it was aborted before its program started", None);
            return self.agent_happened(host, execution, Event::Ended(ending));
        }
        if self.hosts[host].disk.contains_key(execution) {
            let ending = failed(ErrorKind::NotStarted, "its folder exists already", None);
            return self.agent_happened(host, execution, Event::Ended(ending));
        }
        let folder = Folder {
            process,
            originator,
            weight,
            begun: false,
            running: None,
            orphan: false,
            exit: None,
            ending: None,
            finished: None,
            synced: false,
        };
        self.hosts[host].disk.insert(execution.clone(), folder);
        let wait = self.random.between(1, 30);
        self.execution_later(host, wait, execution, ExecutionEvent::Launch);
    }

    /// A supervisor starts the program.
    fn launch(&mut self, host: usize, execution: &ExecutionId) {
        let run = self.net.number();
        let Some(folder) = self.hosts[host].disk.get_mut(execution) else { return };
        folder.begun = true;
        folder.running = Some(run);
        self.ledger.runs(execution);
        self.check_capacity(host);
        let program = JobId::of_execution(execution).and_then(|id| self.ledger.program(id));
        let Some((length_ms, fate)) = program else {
            return self.violated("a program was started that nobody wanted");
        };
        let exit = match fate {
            Fate::Well => Exit::Code(0),
            Fate::Badly(code) => Exit::Code(code),
            Fate::Limit => Exit::TimedOut,
        };
        self.host_later(
            host,
            u64::from(length_ms) + 1,
            HostEvent::ProgramEnds { execution: execution.clone(), run, exit },
        );
        // Asked for its end while it was being started.
        if self.hosts[host].agent.as_ref().is_some_and(|agent| agent.aborted.contains(execution)) {
            self.end_program(host, execution);
        }
    }

    /// The agent asks a supervisor to end its program.
    pub(super) fn end_program(&mut self, host: usize, execution: &ExecutionId) {
        let Some(folder) = self.hosts[host].disk.get(execution) else { return };
        if let Some(run) = folder.running.filter(|_| !folder.orphan) {
            let wait = self.random.between(5, 3_000);
            let execution = execution.clone();
            self.host_later(host, wait, HostEvent::ProgramEnds { execution, run, exit: Exit::Aborted });
        }
    }

    pub(super) fn host_event(&mut self, host: usize, event: HostEvent) {
        let HostEvent::ProgramEnds { execution, run, exit } = event;
        let Some(folder) = self.hosts[host].disk.get_mut(&execution).filter(|f| f.running == Some(run))
        else {
            return;
        };
        folder.running = None;
        if folder.orphan {
            return;
        }
        folder.exit = Some(exit);
        self.ledger.ended(&execution, exit);
        let wait = self.random.between(1, 150);
        self.execution_later(host, wait, &execution, ExecutionEvent::Follow);
    }

    /// Turns what the supervisor has put down into an ending.
    fn follow(&mut self, host: usize, execution: &ExecutionId) {
        let asked = self.hosts[host].agent.as_ref().is_some_and(|agent| agent.aborted.contains(execution));
        let Some(folder) = self.hosts[host].disk.get_mut(execution) else { return };
        if folder.ending.is_some() || (folder.running.is_some() && !folder.orphan) {
            return;
        }
        let receipt = Some(Box::new(KillReceipt { found: 1, ended: 1, asked: 1, ..KillReceipt::default() }));
        let ending = match folder.exit {
            Some(Exit::Code(0)) => {
                let path = format!("{execution}/result/r");
                let content = Content::Shared(SharedFile { path, bytes: 1, sha256: None });
                let value = Value::Complex { content, media_type: "text/plain".into(), schema: None };
                self.shared.insert(execution.clone());
                Ending::Completed(vec![Output::new("result", value)])
            }
            Some(Exit::Code(code)) => failed(ErrorKind::Exited(code), "process exit code", None),
            Some(Exit::TimedOut) => failed(ErrorKind::TimedOut, "maximum running time exceeded", receipt),
            Some(Exit::Aborted) if asked => failed(ErrorKind::Aborted, "aborted on request", receipt),
            Some(Exit::Aborted) => failed(ErrorKind::Signalled(15), "ended from outside", receipt),
            None => {
                // What is left of the program is ended.
                folder.running = None;
                folder.orphan = false;
                failed(if asked { ErrorKind::Aborted } else { ErrorKind::Lost }, "without a word", receipt)
            }
        };
        folder.ending = Some(ending.clone());
        self.execution_later(host, 3_000, execution, ExecutionEvent::Sync);
        self.agent_happened(host, execution, Event::Ended(ending));
    }

    /// A supervisor is killed; its program runs on unwatched until the agent ends it.
    pub(super) fn kill_supervisor(&mut self, host: usize, nth: usize) {
        let running: Vec<ExecutionId> = self.hosts[host]
            .disk
            .iter()
            .filter(|(_, folder)| folder.running.is_some() && !folder.orphan)
            .map(|(execution, _)| execution.clone())
            .collect();
        if running.is_empty() {
            return;
        }
        let execution = running[nth % running.len()].clone();
        if let Some(folder) = self.hosts[host].disk.get_mut(&execution) {
            folder.orphan = true;
        }
        self.execution_later(host, 100, &execution, ExecutionEvent::Follow);
    }

    /// The power goes. What was not pressed onto the platters is there again, or not.
    pub(super) fn crash_host(&mut self, host: usize) {
        if !self.hosts[host].up {
            return;
        }
        self.crash_agent(host, true);
        let place = &mut self.hosts[host];
        place.up = false;
        place.boots += 1;
        for folder in place.disk.values_mut() {
            folder.running = None;
            folder.orphan = false;
            // Without it nobody knows how the program ended.
            if !folder.synced && self.random.in_thousand(500) {
                (folder.exit, folder.ending) = (None, None);
                folder.finished = None;
            }
        }
    }

    pub(super) fn start_host(&mut self, host: usize) {
        self.hosts[host].up = true;
        self.start_agent(host);
    }
}

pub(super) fn failed(kind: ErrorKind, text: &str, receipt: Option<Box<KillReceipt>>) -> Ending {
    Ending::Failed(ExecutionError { kind, text: text.to_owned(), receipt })
}
