//! What becomes of executions: sent, seen, heard of, ended, or silent for too long. Every ending is told to the engine once,
//! and every `completed` is answered once the engine has stored it, however often it comes.

use std::time::{Duration, Instant};

use tracing::{debug, info};
use wps_remote_protocol::legacy::{LegacyRequest, Occupant, Order, Report, to_pickle};
use wps_remote_protocol::message::{MAX_CLAIMED, RefusalReason};
use wps_remote_protocol::native::MAX_TEXT;
use wps_remote_protocol::{
    AgentId, ErrorKind, ExecutionError, ExecutionId, FromAgent, LogLevel, Outputs, Refusal, Request, ToAgent,
};

use super::{Effect, HONEST, Inbound, Machine, Stage, Tracked};
use crate::engine::job::JobId;

/// How long a finished execution is remembered: the Python agent repeats `completed` for some sixteen minutes.
const REMEMBERED: Duration = Duration::from_secs(20 * 60);

impl Machine {
    /// An order of the engine.
    pub(in crate::bus) fn order(&mut self, agent: &AgentId, order: ToAgent, now: Instant) {
        match order {
            ToAgent::Invite { executions } => self.claimed(agent, executions, now),
            ToAgent::Request(request) => self.request(agent, *request, now),
            ToAgent::Abort { execution } => {
                let tracked = self
                    .executions
                    .entry(execution)
                    .or_insert_with(|| Tracked::new(agent.clone(), now, false));
                tracked.abort = true;
                if let Some(nick) = tracked.nick.clone() {
                    self.tell_job(agent, &nick, Order::Abort);
                }
            }
            ToAgent::Finish { execution } | ToAgent::Unknown { execution } => {
                let Some(tracked) = self.executions.get_mut(&execution) else { return };
                tracked.stage = Stage::Finished;
                tracked.since = now;
                if let Some(nick) = tracked.nick.clone() {
                    self.tell_job(agent, &nick, Order::Finish);
                }
            }
            // It is repeated by itself, and told anew then.
            ToAgent::Elsewhere { execution } => {
                if let Some(tracked) = self.executions.get_mut(&execution) {
                    tracked.stage = Stage::Open;
                }
            }
            ToAgent::GetLoad => {}
        }
    }

    fn tell_job(&mut self, agent: &AgentId, nick: &str, order: Order) {
        if let Some(namespace) = self.agents.get(agent).map(|agent| agent.namespace.clone()) {
            self.send(&namespace, nick, order);
        }
    }

    /// The engine believes these to run there. Which do, the agent cannot say; those whose occupant is in the room do.
    fn claimed(&mut self, id: &AgentId, executions: Vec<ExecutionId>, now: Instant) {
        let mut held = Vec::new();
        // More than fit into one invitation: some of ours would not be known here.
        let complete = executions.len() < MAX_CLAIMED;
        for execution in executions {
            let tracked = self
                .executions
                .entry(execution.clone())
                .or_insert_with(|| Tracked::new(id.clone(), now, false));
            if tracked.nick.is_some() {
                held.push(execution);
            }
        }
        let Some(agent) = self.agents.get_mut(id) else { return };
        agent.claimed = complete;
        let (namespace, nicks) = (agent.namespace.clone(), agent.jobs.clone());
        for nick in nicks {
            // An occupant that was there before its execution was known here.
            if let Occupant::Job { execution, .. } = Occupant::read(&nick) {
                self.seen(id, &namespace, &nick, &execution);
            }
        }
        let message = FromAgent::Executions { held, unknown: Vec::new() };
        self.tell(Inbound::Message { agent: id.clone(), message });
        self.invite(id, now);
    }

    fn request(&mut self, id: &AgentId, request: Request, now: Instant) {
        let execution = request.execution.clone();
        let refuse = |reason, text: String| Inbound::Message {
            agent: id.clone(),
            message: FromAgent::CannotExecute {
                execution: execution.clone(),
                refusal: Refusal { reason, text },
            },
        };
        let Some(agent) = self.agents.get(id) else {
            return self.tell(refuse(RefusalReason::Capacity, "the agent has left".to_owned()));
        };
        let Some(nick) = agent.master.clone() else {
            let text = "the agent's service process has left".to_owned();
            return self.tell(refuse(RefusalReason::Capacity, text));
        };
        let inputs = match to_pickle(&request.inputs, agent.description.as_deref()) {
            Ok(inputs) => inputs,
            Err(error) => return self.tell(refuse(RefusalReason::Undeliverable, error.to_string())),
        };
        let namespace = agent.namespace.clone();
        self.executions.insert(execution.clone(), Tracked::new(id.clone(), now, true));
        let order = Order::Request(LegacyRequest {
            execution: execution.clone(),
            base_url: request.base_url,
            inputs,
        });
        self.effects.push(Effect::Send { namespace, nick, order, execution: Some(execution) });
    }

    /// A request went out under this stanza id, or did not.
    pub(in crate::bus) fn sent(&mut self, execution: &ExecutionId, result: Result<String, Refusal>) {
        let Some(tracked) = self.executions.get_mut(execution) else { return };
        match result {
            Ok(stanza) => tracked.stanza = Some(stanza),
            Err(refusal) => self.refused(execution, refusal),
        }
    }

    /// A message came back.
    pub(in crate::bus) fn bounced(&mut self, stanza: Option<&str>, condition: &str) {
        let Some(stanza) = stanza else { return };
        let open = |tracked: &Tracked| tracked.stanza.as_deref() == Some(stanza) && !tracked.seen;
        let found = self.executions.iter().find(|(_, tracked)| open(tracked)).map(|(id, _)| id.clone());
        if let Some(execution) = found {
            let text = format!("the request could not be delivered ({condition})");
            self.refused(&execution, Refusal { reason: RefusalReason::Capacity, text });
        }
    }

    fn refused(&mut self, execution: &ExecutionId, refusal: Refusal) {
        if let Some(tracked) = self.executions.remove(execution) {
            let message = FromAgent::CannotExecute { execution: execution.clone(), refusal };
            self.tell(Inbound::Message { agent: tracked.agent, message });
        }
    }

    /// The occupant of a running job is in the room.
    #[expect(clippy::too_many_arguments, reason = "what a presence says, in one call")]
    pub(super) fn job_occupant(
        &mut self,
        id: &AgentId,
        namespace: &str,
        nick: &str,
        service: &str,
        account: Option<String>,
        execution: &str,
        now: Instant,
    ) {
        // Another orchestrator's jobs are none of our business; ids of ours have a form of their own.
        let ours = ExecutionId::new(execution).is_ok_and(|execution| {
            JobId::of_execution(&execution).is_some() || self.executions.contains_key(&execution)
        });
        if !ours {
            return;
        }
        let agent = self.present(id, namespace, service, account.clone());
        if let (Some(known), Some(account)) = (&agent.account, &account)
            && known != account
        {
            let why = "not believed: it has another account than the service process";
            self.complaints.about(namespace, nick, now, why);
            return;
        }
        agent.jobs.insert(nick.to_owned());
        self.seen(id, namespace, nick, execution);
    }

    fn seen(&mut self, id: &AgentId, namespace: &str, nick: &str, execution: &str) {
        let Ok(execution) = ExecutionId::new(execution) else { return };
        let Some(tracked) = self.executions.get_mut(&execution).filter(|tracked| tracked.agent == *id) else {
            return;
        };
        tracked.nick = Some(nick.to_owned());
        tracked.left = None;
        let (abort, finished) = (tracked.abort, tracked.stage == Stage::Finished);
        self.begun(&execution);
        if finished {
            self.send(namespace, nick, Order::Finish);
        } else if abort {
            self.send(namespace, nick, Order::Abort);
        }
    }

    /// The first sign of an execution: it runs, and its log says at what kind of agent.
    fn begun(&mut self, execution: &ExecutionId) {
        let Some(tracked) = self.executions.get_mut(execution) else { return };
        if std::mem::replace(&mut tracked.seen, true) || tracked.stage != Stage::Open {
            return;
        }
        let agent = tracked.agent.clone();
        let started = FromAgent::Started { execution: execution.clone() };
        self.tell(Inbound::Message { agent: agent.clone(), message: started });
        let message =
            FromAgent::Log { execution: execution.clone(), level: LogLevel::Info, text: HONEST.to_owned() };
        self.tell(Inbound::Message { agent, message });
    }

    /// The occupant of a job has left the room.
    pub(super) fn job_gone(&mut self, id: &AgentId, execution: &str, now: Instant) {
        let Ok(execution) = ExecutionId::new(execution) else { return };
        let Some(tracked) = self.executions.get_mut(&execution).filter(|tracked| tracked.agent == *id) else {
            return;
        };
        tracked.nick = None;
        tracked.left = Some(now);
        if tracked.abort && tracked.stage == Stage::Open {
            let text = "the agent's process for the job has ended; whether the program has, an agent of the old dialect \
                        does not tell";
            self.failed(&execution, ErrorKind::Aborted, text.to_owned());
        }
    }

    fn failed(&mut self, execution: &ExecutionId, kind: ErrorKind, mut text: String) {
        let Some(tracked) = self.executions.get_mut(execution) else { return };
        tracked.stage = Stage::Told;
        let mut end = text.len().min(MAX_TEXT);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        let message = FromAgent::Error {
            execution: execution.clone(),
            error: ExecutionError { kind, text, receipt: None },
        };
        let agent = tracked.agent.clone();
        self.tell(Inbound::Message { agent, message });
    }

    /// A text from an occupant.
    pub(in crate::bus) fn message(&mut self, namespace: &str, nick: &str, body: &str, now: Instant) {
        let Some((id, occupant)) = self.identify(namespace, nick) else {
            return self.complaints.about(
                namespace,
                nick,
                now,
                "a message of somebody who is no agent is ignored",
            );
        };
        let is_master = self.agents.get(&id).is_some_and(|agent| agent.master.as_deref() == Some(nick));
        let is_job = self.agents.get(&id).is_some_and(|agent| agent.jobs.contains(nick));
        if !is_master && !is_job {
            return self.complaints.about(
                namespace,
                nick,
                now,
                "a message of an agent that is not believed is ignored",
            );
        }
        let report = match Report::decode(body) {
            Ok(report) => report,
            Err(error) => {
                return self.complaints.about(
                    namespace,
                    nick,
                    now,
                    &format!("a message is refused: {error}"),
                );
            }
        };
        let execution = match &report {
            Report::Register(_) | Report::Unregister(_) | Report::Load(_) => {
                if is_master {
                    self.heard_master(&id, nick, report, now);
                }
                return;
            }
            Report::CannotExecute { execution }
            | Report::Log { execution, .. }
            | Report::Progress { execution, .. }
            | Report::Completed { execution, .. }
            | Report::Error { execution, .. } => execution.clone(),
        };
        let own = matches!(&occupant, Occupant::Job { execution: named, .. } if *named == execution.as_str());
        // An error may come from the service process, a refusal comes from nobody else; all the rest only from the job.
        let entitled = match &report {
            Report::CannotExecute { .. } => is_master,
            Report::Error { .. } => is_master || own,
            _ => own,
        };
        if !entitled {
            let why = format!(
                "a message about the execution {execution}, which this occupant does not run, is ignored"
            );
            return self.complaints.about(namespace, nick, now, &why);
        }
        self.about_execution(&id, nick, execution, report);
    }

    fn about_execution(&mut self, id: &AgentId, nick: &str, execution: ExecutionId, report: Report) {
        let claimed = self.agents.get(id).is_some_and(|agent| agent.claimed);
        let Some(tracked) = self.executions.get_mut(&execution).filter(|tracked| tracked.agent == *id) else {
            // Nothing of ours, or of a time before our start. As long as the engine has not said what it holds, there is
            // no telling: the message will be repeated.
            if claimed && matches!(report, Report::Completed { .. }) {
                self.tell_job(id, nick, Order::Finish);
            }
            return;
        };
        let stage = tracked.stage;
        match report {
            Report::CannotExecute { .. } => {
                if !tracked.seen && stage == Stage::Open {
                    let text = "the agent has no capacity at the moment".to_owned();
                    self.refused(&execution, Refusal { reason: RefusalReason::Capacity, text });
                }
            }
            Report::Log { level, text, .. } if stage == Stage::Open => {
                self.begun(&execution);
                let text = text.chars().take(MAX_TEXT / 4).collect();
                let message = FromAgent::Log { execution, level, text };
                self.tell(Inbound::Message { agent: id.clone(), message });
            }
            Report::Progress { percent, .. } if stage == Stage::Open => {
                self.begun(&execution);
                let message = FromAgent::Progress {
                    execution,
                    percent: percent.clamp(0.0, 100.0),
                    message: String::new(),
                };
                self.tell(Inbound::Message { agent: id.clone(), message });
            }
            Report::Completed { outputs, broken, .. } => match stage {
                Stage::Open => {
                    self.begun(&execution);
                    if let Some(tracked) = self.executions.get_mut(&execution) {
                        tracked.stage = Stage::Collecting;
                    }
                    let description = self.agents.get(id).and_then(|agent| agent.description.clone());
                    self.effects.push(Effect::Collect { execution, outputs, broken, description });
                }
                // The engine has it, and will say when it is stored.
                Stage::Collecting | Stage::Told => {}
                Stage::Finished => self.tell_job(id, nick, Order::Finish),
            },
            Report::Error { text, .. } if stage == Stage::Open => {
                self.begun(&execution);
                self.failed(&execution, kind_of(&text), text.trim_end().to_owned());
            }
            // The first ending has decided.
            _ => debug!(agent = %id, execution.id = %execution, "a message after the ending is ignored"),
        }
    }

    /// The files of a completed execution were taken over, or not.
    pub(in crate::bus) fn collected(
        &mut self,
        execution: &ExecutionId,
        result: Result<(Outputs, Vec<String>), (String, String)>,
    ) {
        let Some(tracked) = self.executions.get_mut(execution) else { return };
        tracked.stage = Stage::Told;
        let agent = tracked.agent.clone();
        match result {
            Ok((outputs, notes)) => {
                for text in notes {
                    let message =
                        FromAgent::Log { execution: execution.clone(), level: LogLevel::Warning, text };
                    self.tell(Inbound::Message { agent: agent.clone(), message });
                }
                let message = FromAgent::Completed { execution: execution.clone(), outputs };
                self.tell(Inbound::Message { agent, message });
            }
            Err((output, why)) => self.failed(execution, ErrorKind::OutputMissing(output), why),
        }
    }

    /// We are in the room (again): silence counts from now on, because until now nobody could have been heard.
    pub(in crate::bus) fn in_room(&mut self, namespace: &str, now: Instant) {
        info!(room = namespace, "in the room of a namespace, ready for agents of the old dialect");
        let prefix = format!("{namespace}/");
        for tracked in self.executions.values_mut().filter(|t| t.agent.as_str().starts_with(&prefix)) {
            tracked.since = tracked.since.max(now);
            tracked.left = tracked.left.map(|_| now);
        }
    }

    /// Time has passed.
    pub(in crate::bus) fn tick(&mut self, now: Instant) {
        self.ask_loads(now);
        let lost = self.config.lost_timeout;
        let mut silent = Vec::new();
        for (execution, tracked) in &self.executions {
            if tracked.stage != Stage::Open || tracked.nick.is_some() {
                continue;
            }
            let seconds = |limit: Duration| limit.as_secs();
            let (since, limit, why) = match (tracked.left, tracked.seen) {
                (Some(left), _) => (left, lost, "its process at the agent has left without a word"),
                (None, false) if tracked.sent_here => {
                    let limit = self.config.accept_timeout;
                    (tracked.since, limit, "there was no sign of it, neither a refusal nor a process")
                }
                _ => (tracked.since, lost, "its process at the agent did not come back"),
            };
            if now.duration_since(since) >= limit {
                let text = format!(
                    "{why}, for {} s: an agent of the old dialect tells no more, and repeats a result for some 16 minutes only",
                    seconds(limit)
                );
                silent.push((execution.clone(), text));
            }
        }
        for (execution, text) in silent {
            self.failed(&execution, ErrorKind::Lost, text);
        }
        self.executions.retain(|_, tracked| {
            tracked.stage != Stage::Finished
                || tracked.nick.is_some()
                || now.duration_since(tracked.since) < REMEMBERED
        });
    }
}

impl Tracked {
    fn new(agent: AgentId, now: Instant, sent_here: bool) -> Self {
        Self {
            agent,
            since: now,
            sent_here,
            stanza: None,
            nick: None,
            seen: false,
            left: None,
            abort: false,
            stage: Stage::Open,
        }
    }
}

/// What kind of failure the words of the Python agent stand for.
fn kind_of(text: &str) -> ErrorKind {
    let code = |prefix: &str| -> Option<i32> {
        let rest = text.split_once(prefix)?.1.trim_start();
        let end = rest.find(|c: char| c != '-' && !c.is_ascii_digit()).unwrap_or(rest.len());
        rest[..end].parse().ok()
    };
    if text.starts_with("process exit code is") {
        return match code("process exit code is") {
            Some(signal) if signal < 0 => ErrorKind::Signalled(-signal),
            Some(code) => ErrorKind::Exited(code),
            None => ErrorKind::Reported,
        };
    }
    if let Some(rest) = text.split_once("cannot set value ").map(|(_, rest)| rest)
        && let Some((_, parameter)) = rest.rsplit_once(" for parameter ")
    {
        let locator = parameter.split_whitespace().next().unwrap_or_default().to_owned();
        return ErrorKind::InvalidInput { code: "InvalidParameterValue".to_owned(), locator };
    }
    if text.starts_with("process failure") { ErrorKind::NotStarted } else { ErrorKind::Reported }
}
