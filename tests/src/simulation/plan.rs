//! What is done to a world: a list of operations that can be made by chance, written down, cut shorter and done again.

#![expect(missing_docs, reason = "the fields of an operation are what their names say")]

use serde::{Deserialize, Serialize};

use super::random::Random;

/// How a program ends if it is left alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    /// With exit code 0.
    Well,
    /// With this exit code.
    Badly(i32),
    /// At the limit of its running time.
    Limit,
}

/// One of the processes that agents offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Must not run twice.
    Once,
    /// Its descriptor says that it may run again.
    Repeatable,
    /// Takes more than half of an agent's capacity.
    Heavy,
}

/// One thing that is done. Nodes and agents are counted from 0; one that does not exist wraps around.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Op {
    /// A client wants a job.
    Submit { node: u8, kind: Kind, length_ms: u32, fate: Fate },
    /// A client gives a job up, at any node.
    Dismiss { node: u8, nth: u16 },
    /// An orchestrator is killed.
    CrashNode(u8),
    /// It is killed in the middle of its next step, after so many actions; 0 = before anything is stored.
    CrashNodeWithin { node: u8, actions: u8 },
    /// It is stopped in order.
    StopNode(u8),
    /// It is started, if it does not run.
    StartNode(u8),
    /// An agent is killed; its jobs run on.
    CrashAgent(u8),
    /// It is started, if it does not run and its host does.
    StartAgent(u8),
    /// A host loses its power.
    CrashHost(u8),
    /// It boots, and starts its agent.
    StartHost(u8),
    /// The supervisor of a running program is killed.
    KillSupervisor { host: u8, nth: u8 },
    /// An agent takes no new work, or does so again.
    Drain { agent: u8, on: bool },
    /// An agent offers its processes, or withdraws them.
    Offer { agent: u8, on: bool },
    /// A node cannot reach the XMPP server.
    CutNode(u8),
    /// It can again.
    MendNode(u8),
    /// An agent cannot reach the XMPP server.
    CutAgent(u8),
    /// It can again.
    MendAgent(u8),
    /// A node cannot reach the database.
    CutStore(u8),
    /// It can again.
    MendStore(u8),
    /// The next commit of a node is done, but the node does not hear of it.
    DoubtfulCommit(u8),
    /// The XMPP server is started anew.
    RestartServer { down_ms: u32 },
    /// From now on so many of a thousand stanzas are lost, so many come twice, and each takes up to so long.
    Weather { lost: u16, twice: u16, delay_ms: u32 },
    /// The wall clock of a node is set.
    SetClock { node: u8, by_s: i32 },
    /// Results of the next executions cannot be taken over.
    BadFolder { times: u8 },
    /// Time passes.
    Wait,
}

/// An operation, so many milliseconds after the one before it.
pub type Step = (u32, Op);

/// How large a world is, and what is done to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// What chance does besides the operations.
    pub seed: u64,
    /// Orchestrators; one is alone on its store.
    pub nodes: u8,
    /// Agents, each on a host of its own.
    pub agents: u8,
    /// The operations.
    pub steps: Vec<Step>,
}

impl Plan {
    /// A world by chance, with so many operations.
    pub fn by_chance(seed: u64, operations: usize) -> Self {
        let mut random = Random::new(seed);
        let nodes = 1 + random.below(3) as u8;
        let agents = 1 + random.below(3) as u8;
        // Some worlds are hurried, some slow, some calm: rare coincidences need all three.
        let pause = [50, 400, 2_000, 8_000][random.below(4) as usize];
        let trouble = [150, 350, 600][random.below(3) as usize];
        let steps = (0..operations).map(|_| {
            let wait = random.below(2 * pause + 1);
            let wait = if random.in_thousand(5) { random.between(60_000, 400_000) } else { wait };
            let op = if random.in_thousand(trouble) {
                trouble_by_chance(&mut random)
            } else {
                work_by_chance(&mut random)
            };
            (wait as u32, op)
        });
        Self { seed, nodes, agents, steps: steps.collect() }
    }
}

fn byte(random: &mut Random) -> u8 {
    random.below(12) as u8
}

fn work_by_chance(random: &mut Random) -> Op {
    match random.below(10) {
        0..6 => Op::Submit {
            node: byte(random),
            kind: [Kind::Once, Kind::Once, Kind::Repeatable, Kind::Heavy][random.below(4) as usize],
            length_ms: [random.below(300), random.below(5_000), random.below(60_000), random.below(300_000)]
                [random.below(4) as usize] as u32,
            fate: match random.below(8) {
                0 => Fate::Badly(1 + random.below(100) as i32),
                1 => Fate::Limit,
                _ => Fate::Well,
            },
        },
        6 | 7 => Op::Dismiss { node: byte(random), nth: random.below(8) as u16 },
        _ => Op::Wait,
    }
}

fn trouble_by_chance(random: &mut Random) -> Op {
    let one = byte(random);
    match random.below(32) {
        0 => Op::CrashNode(one),
        1 | 2 => Op::CrashNodeWithin { node: one, actions: random.below(6) as u8 },
        3 => Op::StopNode(one),
        4..=6 => Op::StartNode(one),
        7 | 8 => Op::CrashAgent(one),
        9..=11 => Op::StartAgent(one),
        12 => Op::CrashHost(one),
        13 | 14 => Op::StartHost(one),
        15 => Op::KillSupervisor { host: one, nth: byte(random) },
        16 => Op::Drain { agent: one, on: random.in_thousand(400) },
        17 => Op::Offer { agent: one, on: random.in_thousand(700) },
        18 => Op::CutNode(one),
        19 | 20 => Op::MendNode(one),
        21 => Op::CutAgent(one),
        22 | 23 => Op::MendAgent(one),
        24 => Op::CutStore(one),
        25 | 26 => Op::MendStore(one),
        27 => Op::DoubtfulCommit(one),
        28 => Op::RestartServer { down_ms: random.below(20_000) as u32 },
        29 => Op::Weather {
            lost: [0, 0, 5, 50, 200][random.below(5) as usize],
            twice: [0, 0, 20, 200][random.below(4) as usize],
            delay_ms: [5, 50, 1_000, 6_000][random.below(4) as usize],
        },
        30 => Op::SetClock { node: one, by_s: random.below(400_000) as i32 - 200_000 },
        _ => Op::BadFolder { times: 1 + random.below(3) as u8 },
    }
}
