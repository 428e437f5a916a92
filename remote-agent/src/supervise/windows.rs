//! The supervisor's work as Windows wants it: the program and all that it starts live in one job object, which nobody else
//! holds open. So they end with their supervisor, however it ends, and not with the agent.

pub mod cgroup;
pub(super) mod exceeded;
pub(super) mod serve;
pub(super) mod start;
pub(super) mod tree;
