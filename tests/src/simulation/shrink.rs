//! Cuts a plan that breaks an invariant down to what is needed for that (delta debugging).

use super::plan::{Op, Plan};
use super::world::{Sabotage, World};

/// The same invariant is broken, whatever the names of jobs and executions.
fn same(one: &str, other: &str) -> bool {
    let words = |text: &str| -> Vec<String> {
        let plain = |word: &&str| !word.contains(|c: char| c.is_ascii_digit());
        text.split(' ').filter(plain).map(str::to_owned).collect()
    };
    words(one) == words(other)
}

/// A shorter plan that still breaks the same invariant, after at most so many attempts.
pub fn shrink(plan: &Plan, sabotage: Sabotage, violation: &str, mut attempts: usize) -> Plan {
    let fails = |steps: &[(u32, Op)], attempts: &mut usize| {
        *attempts = attempts.saturating_sub(1);
        let plan = Plan { steps: steps.to_vec(), ..plan.clone() };
        World::run(&plan, sabotage, false).violation.is_some_and(|other| same(violation, &other))
    };
    let mut steps = plan.steps.clone();
    let mut chunk = steps.len().div_ceil(2);
    while chunk > 0 && attempts > 0 {
        let mut at = 0;
        let mut any = false;
        while at < steps.len() && attempts > 0 {
            let end = (at + chunk).min(steps.len());
            let mut shorter = steps.clone();
            let waited: u32 = shorter.drain(at..end).map(|(wait, _)| wait).fold(0, u32::saturating_add);
            // The time that went by may matter when the operations do not.
            let mut patient = shorter.clone();
            if let Some(next) = patient.get_mut(at) {
                next.0 = next.0.saturating_add(waited);
            }
            if fails(&shorter, &mut attempts) {
                (steps, any) = (shorter, true);
            } else if patient != shorter && fails(&patient, &mut attempts) {
                (steps, any) = (patient, true);
            } else {
                at = end;
            }
        }
        chunk = if any && chunk == 1 { 1 } else { chunk / 2 };
    }
    Plan { steps, ..plan.clone() }
}
