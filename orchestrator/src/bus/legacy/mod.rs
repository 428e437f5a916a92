//! Agents of the old dialect: the Python agent, and whatever else speaks the text bodies of GeoServer's plugin. A pure
//! machine turns rooms, nicknames and bodies into the events that native agents give by themselves, and the engine's
//! orders into bodies, so that nothing beyond the bus knows which dialect an agent speaks.
//!
//! What the dialect does not have is made up for here, or said: a request is not acknowledged, so silence is given a
//! limit; an agent cannot say what it holds, so the presence of a job's own occupant stands for it; `abort` makes that
//! occupant leave without a word, and does not end its program. An ending is believed only from the occupant that runs
//! the job, or, for errors, from the service process that the job was given to.

mod agents;
mod executions;
mod files;
mod settings;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Instant;

use wps_remote_protocol::legacy::{LegacyLoad, LegacyOutput, Order};
use wps_remote_protocol::{AgentId, ExecutionId, ProcessDescription};

use super::Inbound;
use super::complaints::Complaints;
pub(super) use files::collect;
pub use settings::{LegacyAgents, LegacyConfig, LegacyFiles, PatternError};

/// What the operator reads about every agent of this dialect.
pub const SOFTWARE: &str = "old dialect (Python agent)";
/// What the operator may not expect of such an agent.
pub const CANNOT: [&str; 3] =
    ["acknowledge a request", "end the program of a dismissed job", "tell which jobs it holds"];
/// The first line in the log of every job that runs at one.
const HONEST: &str = "runs at an agent of the old dialect: nothing is acknowledged there, and dismissing the job ends the agent's \
                      process for it, but not a program that ignores this";

/// What must happen now, in this order.
#[derive(Debug)]
pub(super) enum Effect {
    /// The driver shall hear it.
    Tell(Inbound),
    /// A message to an occupant of the room of a namespace; `execution` is that of a request.
    Send { namespace: String, nick: String, order: Order, execution: Option<ExecutionId> },
    /// Take the files of a completed execution over, then call [`Machine::collected`].
    Collect {
        execution: ExecutionId,
        outputs: Vec<LegacyOutput>,
        broken: Vec<(String, String)>,
        description: Option<Arc<ProcessDescription>>,
    },
}

/// Everything that is known of agents of the old dialect.
pub(super) struct Machine {
    config: LegacyConfig,
    agents: HashMap<AgentId, Agent>,
    executions: HashMap<ExecutionId, Tracked>,
    complaints: Complaints,
    effects: Vec<Effect>,
}

/// One service process, or what is left of it while its jobs run on.
struct Agent {
    namespace: String,
    service: String,
    /// Nickname of the service process while it is in the room.
    master: Option<String>,
    account: Option<String>,
    /// Occupants of running jobs of ours.
    jobs: BTreeSet<String>,
    /// The engine has said what it believes to run there: before that no ending is answered.
    claimed: bool,
    invited: Option<Instant>,
    asked: Option<Instant>,
    /// Questions for the load since the last answer.
    unanswered: u32,
    load: Option<LegacyLoad>,
    description: Option<Arc<ProcessDescription>>,
    /// The engine knows its process.
    offered: bool,
}

/// One execution of ours at such an agent.
struct Tracked {
    agent: AgentId,
    /// When it was sent, or taken over from before our start.
    since: Instant,
    /// Whether it was sent by this very process: else there is no telling how long it may need to be seen.
    sent_here: bool,
    /// Id of the stanza that carried the request.
    stanza: Option<String>,
    /// Its occupant, while it is there.
    nick: Option<String>,
    /// Whether it was ever seen or heard.
    seen: bool,
    /// Since when its occupant is gone.
    left: Option<Instant>,
    /// It shall end; said to its occupant as soon as there is one.
    abort: bool,
    stage: Stage,
}

/// How far the ending of an execution has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Not ended, as far as is known.
    Open,
    /// It has completed; its files are being taken over.
    Collecting,
    /// The engine knows its ending and has not stored it yet.
    Told,
    /// Stored: every further `completed` is answered.
    Finished,
}

impl Machine {
    /// With this book of what is not believed.
    pub(super) fn complaining(self, complaints: Complaints) -> Self {
        Self { complaints, ..self }
    }

    pub(super) fn new(config: LegacyConfig) -> Self {
        Self {
            config,
            agents: HashMap::new(),
            executions: HashMap::new(),
            complaints: Complaints::default(),
            effects: Vec::new(),
        }
    }

    /// Whether an agent speaks this dialect.
    pub(super) fn knows(&self, agent: &AgentId) -> bool {
        self.agents.contains_key(agent)
            || agent.as_str().split_once('/').is_some_and(|(namespace, _)| self.is_room(namespace))
    }

    /// Whether the room of this name belongs to this dialect.
    pub(super) fn is_room(&self, namespace: &str) -> bool {
        self.config.rooms.iter().any(|room| room.eq_ignore_ascii_case(namespace))
    }

    /// What must happen now.
    pub(super) fn take(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    fn tell(&mut self, inbound: Inbound) {
        self.effects.push(Effect::Tell(inbound));
    }

    fn send(&mut self, namespace: &str, nick: &str, order: Order) {
        let (namespace, nick) = (namespace.to_owned(), nick.to_owned());
        self.effects.push(Effect::Send { namespace, nick, order, execution: None });
    }
}
