//! The section `[agents]`: which account may announce what.

use std::path::Path;

use wps_remote_protocol::ini::settings::Part;

use super::Reader;
use crate::bus::{AgentTrust, Grants, is_pattern};

pub(super) const AGENTS: Part = Part {
    name: "agents",
    doc: "Which account may announce which processes: account = namespace, namespace:process, …; * at the end stands for anything. An account without @ is one of [xmpp] domain; the account * is every other one. Without any entry each account may announce anything, but those that were enrolled (wps-orchestrator accounts enrol) only what they were enrolled for",
    open: true,
    keys: &[],
};

/// File in the data folder with what enrolled agents may announce.
pub(crate) const GRANTS: &str = "agent-grants";

impl Reader<'_> {
    pub(super) fn trust(&mut self, domain: &str, data_dir: &Path) -> AgentTrust {
        let mut entries = Vec::new();
        for (account, value) in self.settings.open("agents").to_vec() {
            let may: Vec<String> =
                value.split(',').map(str::trim).filter(|word| !word.is_empty()).map(str::to_owned).collect();
            if let Some(wrong) = may.iter().find(|pattern| !is_pattern(pattern)) {
                let why = format!(
                    "`{wrong}` is neither a namespace nor namespace:process, with * at its end at most"
                );
                self.fault("agents", &account, why);
            }
            let full =
                if account == "*" || account.contains('@') { account } else { format!("{account}@{domain}") };
            entries.push((full, may));
        }
        AgentTrust { listed: Grants::new(entries), enrolled: Some(data_dir.join(GRANTS)) }
    }
}
