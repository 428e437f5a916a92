//! Both real engines in a world of chance: several orchestrators on one store with leases, agents with their disks and
//! supervisors, an XMPP server between them, all simulated, and a virtual clock. Programs, hosts and servers die and come back,
//! stanzas get lost, come twice or late, ways are cut, clocks are set. Whatever happens, the invariants of the README hold, and
//! every accepted job ends exactly once.
//!
//! What is real: `orchestrator::engine` with its `Question`s, the driver's clock, the keeper of leases; `agent::engine`. What is
//! modelled, because in the programs it is entangled with tasks and sockets: the order in which drivers perform actions, the
//! bus, the session, the store (held against the real one by a test), supervisors and control folders.
//!
//! A plan is made from a seed. One that breaks an invariant is cut down to the operations that matter, written to a file, and
//! done again with every test run.

mod agent;
mod bus;
mod host;
mod ledger;
mod network;
mod node;
mod perform;
pub mod plan;
pub mod random;
mod shrink;
pub mod store;
mod world;

pub use plan::Plan;
pub use shrink::shrink;
pub use world::{Outcome, Sabotage, World};

/// Does a plan with the real rules.
pub fn run(plan: &Plan) -> Outcome {
    World::run(plan, Sabotage::Nothing, false)
}
