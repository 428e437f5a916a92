//! What is not believed of the occupants of the management room, and how that is told. Holds no state of its own.

use wps_remote_protocol::{AgentId, FromAgent};

use super::Task;

/// Earlier starts of one agent that are remembered.
const MAX_FORMER: usize = 16;

impl Task {
    /// The starts of an agent's program that this one replaces while they may still be there. One that was replaced and
    /// speaks again is a second agent of the same name, which some servers let in.
    pub(super) fn replaced(
        &mut self,
        agent: &AgentId,
        instance: &str,
        fresh: bool,
        account: Option<&str>,
    ) -> Vec<String> {
        let Some(present) = self.agents.get_mut(agent).filter(|_| !fresh) else { return Vec::new() };
        let mut former = std::mem::take(&mut present.former);
        if present.instance != instance {
            former.push(present.instance.clone());
        }
        if former.iter().any(|other| other == instance) {
            let why = "two agents use this name at the same time: give each an account of its own, or its own agent_name";
            self.doubt("name", agent, account, why);
        }
        former.drain(..former.len().saturating_sub(MAX_FORMER));
        former
    }

    /// Somebody did what it may not do: counted, shown to operators, and logged from time to time.
    pub(super) fn doubt(&mut self, what: &'static str, sender: &AgentId, account: Option<&str>, why: &str) {
        self.config.telemetry.not_believed(what, sender.as_str(), account, why);
        let room = self.config.room.clone();
        let shown = match account {
            Some(account) => format!("{sender} ({account})"),
            None => sender.to_string(),
        };
        self.complaints.about(&room.to_string(), &shown, std::time::Instant::now(), why);
    }

    /// Whether an occupant may say this; if not, why.
    pub(super) fn believe(
        &mut self,
        agent: &AgentId,
        message: &FromAgent,
    ) -> Result<(), (&'static str, String)> {
        let Some(present) = self.agents.get(agent) else {
            let account = self.unbelieved.get(agent).cloned();
            let why =
                "announce yourself as an agent, under the name of your own account, in the presence first";
            self.doubt("stranger", agent, account.as_deref(), "it speaks like an agent and is none");
            return Err(("not-allowed", why.to_owned()));
        };
        let account = present.account.clone();
        if let FromAgent::Register(description) = message
            && let Err(why) = self.trust.may_announce(account.as_deref(), &description.id)
        {
            self.doubt("process", agent, account.as_deref(), &why);
            return Err(("forbidden", why));
        }
        if let Err(why) = self.trust.may_report(agent, message) {
            self.doubt("report", agent, account.as_deref(), &why);
            return Err(("forbidden", "this execution is another agent's".to_owned()));
        }
        Ok(())
    }
}
