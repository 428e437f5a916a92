//! Whether a program ended because of one of its limits, and which one. Says only what is known.

use super::cgroup::Group;
use crate::supervise::record::{Launch, Outcome};

/// What Windows ends a process with at its limit of CPU time, as status and as error.
const QUOTA: [u32; 2] = [0xC000_0044, 1816];

/// The words for a failure's text, if a limit has to do with it. `cpu_ms`: CPU time of the program itself.
pub(in crate::supervise) fn exceeded(
    launch: &Launch,
    outcome: &Outcome,
    cpu_ms: Option<u64>,
    _group: Option<&Group>,
) -> Option<String> {
    let Outcome::Exited(code) = outcome else { return None };
    if *code == 0 {
        return None;
    }
    if let Some(most) = launch.limits.cpu_seconds {
        let used_up = cpu_ms.is_some_and(|used| used >= most.saturating_mul(1000));
        if used_up || QUOTA.contains(&(*code as u32)) {
            return Some(format!("exceeded cpu_seconds = {most}"));
        }
    }
    // The system only refuses memory; what a program makes of that is its own affair.
    launch.limits.memory_mb.map(|mb| format!("limit memory_mb = {mb} was in force"))
}
