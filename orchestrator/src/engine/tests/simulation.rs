//! A fleet that is played in virtual time: agents of different speed and capacity around the real engine. What is asserted is
//! what the whole is for: work is done about as soon as somebody could who knows everything beforehand, nobody is overfilled,
//! and nobody pushes others out.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap};

use super::*;
use crate::engine::job::Terms;

/// One way of a message, in milliseconds.
const LATENCY_MS: u64 = 5;
/// Pause between two regular reports of a load.
const REPORT_MS: u64 = 10_000;

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Submit(usize),
    Arrive { agent: usize, job: JobId, execution: ExecutionId },
    End { agent: usize, execution: ExecutionId },
    Say { agent: usize, what: Saying },
    Report(usize),
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Saying {
    Started(ExecutionId),
    Completed(ExecutionId),
    Refused(ExecutionId),
    Load,
}

/// An agent as its host is: `places` at once, each `speed` times as fast as a usual one.
#[derive(Debug, Clone)]
struct Host {
    places: u32,
    speed: f64,
    running: BTreeMap<ExecutionId, JobId>,
    refusals: u32,
}

/// Work for one user, in milliseconds on a host of speed 1.
#[derive(Debug, Clone)]
struct Order {
    at: u64,
    user: &'static str,
    work_ms: u64,
}

struct Sim {
    world: World,
    begun: Timestamp,
    hosts: Vec<Host>,
    orders: Vec<Order>,
    jobs: HashMap<JobId, usize>,
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    serial: u64,
    /// Of each order: when it was sent, and when it ended.
    sent: Vec<Option<u64>>,
    ended: Vec<Option<u64>>,
    endings: Vec<u64>,
}

impl Sim {
    fn new(hosts: &[(u32, f64)], orders: Vec<Order>) -> Self {
        let hosts: Vec<Host> = hosts
            .iter()
            .map(|(places, speed)| Host {
                places: *places,
                speed: *speed,
                running: BTreeMap::new(),
                refusals: 0,
            })
            .collect();
        let mut world = World::new();
        for (n, host) in hosts.iter().enumerate() {
            let agent = world.agent(&name(n), 0);
            let capacity = 10.0 * f64::from(host.places);
            let told = Load { max_running: Some(host.places), capacity, cores: host.places, ..load(0) };
            world.say(&agent, FromAgent::Load(told));
        }
        world.out.clear();
        let count = orders.len();
        let mut sim = Self {
            begun: world.now,
            world,
            hosts,
            orders,
            jobs: HashMap::new(),
            events: BinaryHeap::new(),
            serial: 0,
            sent: vec![None; count],
            ended: vec![None; count],
            endings: Vec::new(),
        };
        for n in 0..count {
            sim.plan(sim.orders[n].at, Event::Submit(n));
        }
        for n in 0..sim.hosts.len() {
            sim.plan(n as u64 * 137 % REPORT_MS, Event::Report(n));
        }
        sim
    }

    fn plan(&mut self, at: u64, event: Event) {
        self.serial += 1;
        self.events.push(Reverse((at, self.serial, event)));
    }

    /// Until all orders have ended.
    fn run(&mut self) {
        while self.ended.iter().any(Option::is_none) {
            let Reverse((at, _, event)) = self.events.pop().expect("there is always a next report");
            assert!(at < 30 * 24 * 3600 * 1000, "it never ends");
            self.world.now = self.begun.plus_ms(at);
            self.happen(at, event);
            self.world.engine.tick(self.world.now, &mut self.world.out);
            self.perform(at);
        }
    }

    fn happen(&mut self, at: u64, event: Event) {
        match event {
            Event::Submit(n) => {
                self.world.ids += 1;
                let id = JobId::new(uuid::Uuid::from_u128(self.world.ids));
                self.jobs.insert(id, n);
                let new = Accepted {
                    id,
                    description: description("a:b", false).into(),
                    inputs: vec![],
                    form: Form::default(),
                    owner: UserId(self.orders[n].user.to_owned()),
                    role: None,
                    terms: Arc::new(Terms::default()),
                };
                self.world.engine.execute(new, self.world.now, &mut self.world.out).unwrap();
            }
            Event::Arrive { agent, job, execution } => {
                let host = &mut self.hosts[agent];
                if host.running.len() as u32 >= host.places {
                    host.refusals += 1;
                    self.plan(at + LATENCY_MS, Event::Say { agent, what: Saying::Refused(execution) });
                    return;
                }
                host.running.insert(execution.clone(), job);
                let work = self.orders[self.jobs[&job]].work_ms as f64;
                let takes = (work / host.speed).ceil() as u64;
                self.plan(at + LATENCY_MS, Event::Say { agent, what: Saying::Started(execution.clone()) });
                self.plan(at + takes, Event::End { agent, execution });
                self.plan(at + LATENCY_MS, Event::Say { agent, what: Saying::Load });
            }
            Event::End { agent, execution } => {
                let job = self.hosts[agent].running.remove(&execution).expect("it ran");
                self.ended[self.jobs[&job]] = Some(at);
                self.endings.push(at);
                self.plan(at + LATENCY_MS, Event::Say { agent, what: Saying::Completed(execution) });
                self.plan(at + LATENCY_MS, Event::Say { agent, what: Saying::Load });
            }
            Event::Report(agent) => {
                self.plan(at + REPORT_MS, Event::Report(agent));
                self.happen(at, Event::Say { agent, what: Saying::Load });
            }
            Event::Say { agent, what } => {
                let id = AgentId::new(name(agent));
                let host = &self.hosts[agent];
                let running = host.running.len() as u32;
                let message = match what {
                    Saying::Started(execution) => FromAgent::Started { execution },
                    Saying::Completed(execution) => FromAgent::Completed { execution, outputs: vec![] },
                    Saying::Refused(execution) => FromAgent::CannotExecute {
                        execution,
                        refusal: Refusal { reason: RefusalReason::Capacity, text: "full".into() },
                    },
                    Saying::Load => FromAgent::Load(Load {
                        cpu_percent: 100.0 * f64::from(running) / f64::from(host.places),
                        running,
                        used: 10.0 * f64::from(running),
                        capacity: 10.0 * f64::from(host.places),
                        cores: host.places,
                        max_running: Some(host.places),
                        ..load(0)
                    }),
                };
                self.world.say(&id, message);
            }
        }
    }

    fn perform(&mut self, at: u64) {
        while !self.world.out.is_empty() {
            for action in std::mem::take(&mut self.world.out) {
                match action {
                    Action::Send(agent, ToAgent::Request(request)) => {
                        let agent: usize = agent.as_str()[1..].parse().unwrap();
                        let job = self.world.engine.job_of_execution(&request.execution).unwrap().id;
                        let there = self.world.engine.fleet().agent(&AgentId::new(name(agent))).unwrap();
                        assert!(
                            there.executions.len() <= self.hosts[agent].places as usize,
                            "more than it can take was sent to agent {agent}"
                        );
                        self.sent[self.jobs[&job]] = Some(at);
                        self.plan(
                            at + LATENCY_MS,
                            Event::Arrive { agent, job, execution: request.execution },
                        );
                    }
                    Action::Collect(_, execution, outputs) => {
                        let (engine, now) = (&mut self.world.engine, self.world.now);
                        engine.collected(&execution, Ok(outputs), now, &mut self.world.out);
                    }
                    _ => {}
                }
            }
        }
    }

    fn makespan(&self) -> u64 {
        self.ended.iter().flatten().copied().max().unwrap_or(0)
    }
}

fn name(n: usize) -> String {
    format!("a{n}")
}

/// 20 agents, 1 to 8 places, half as fast to three times as fast as a usual one.
fn fleet() -> Vec<(u32, f64)> {
    (0..20).map(|n: u32| (1 + n * 5 % 8, [0.5, 0.8, 1.0, 1.5, 3.0][n as usize % 5])).collect()
}

/// Repeatable figures that look like chance (a linear congruence).
fn works(count: usize, seed: u64) -> impl Iterator<Item = u64> {
    let mut state = seed;
    (0..count).map(move |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        // 2 to 60 s, short ones more often.
        let u = ((state >> 33) as f64) / f64::from(1_u32 << 31);
        (2_000.0 + 58_000.0 * u * u) as u64
    })
}

/// When everything is done if somebody knows all times and speeds beforehand: the longest job first, each to the place where it
/// ends soonest.
fn clairvoyant(hosts: &[(u32, f64)], mut works: Vec<u64>) -> u64 {
    works.sort_unstable_by_key(|work| Reverse(*work));
    let mut places: Vec<(f64, f64)> =
        hosts.iter().flat_map(|(places, speed)| (0..*places).map(|_| (0.0, *speed))).collect();
    for work in works {
        let end = |place: &(f64, f64)| place.0 + work as f64 / place.1;
        let best = places.iter_mut().min_by(|a, b| end(a).total_cmp(&end(b))).expect("there are places");
        best.0 += work as f64 / best.1;
    }
    places.iter().map(|place| place.0).fold(0.0, f64::max) as u64
}

#[test]
fn five_thousand_jobs_end_nearly_as_soon_as_if_all_was_known_beforehand() {
    let hosts = fleet();
    let works: Vec<u64> = works(5_000, 7).collect();
    let users = ["ann", "bob", "cem", "dan", "eve"];
    let orders = works.iter().enumerate();
    let orders = orders.map(|(n, work_ms)| Order { at: 0, user: users[n % 5], work_ms: *work_ms }).collect();
    let mut sim = Sim::new(&hosts, orders);
    sim.run();
    let (ours, best) = (sim.makespan(), clairvoyant(&hosts, works));
    let ratio = ours as f64 / best as f64;
    println!("makespan {} s, clairvoyant list scheduler {} s: {ratio:.3}", ours / 1000, best / 1000);
    assert!(ratio <= 1.15, "{ratio:.3} times the time of a clairvoyant list scheduler");
    let refusals: u32 = sim.hosts.iter().map(|host| host.refusals).sum();
    assert_eq!(refusals, 0, "requests to agents that were full");
}

#[test]
fn a_burst_spreads_as_capacity_says() {
    let hosts: Vec<(u32, f64)> = [2, 4, 8, 16, 32, 64, 128].map(|places| (places, 1.0)).into();
    let orders = vec![Order { at: 0, user: "ann", work_ms: 50_000 }; 200];
    let mut sim = Sim::new(&hosts, orders);
    for n in 0..200 {
        sim.happen(0, Event::Submit(n));
    }
    let all: u32 = hosts.iter().map(|(places, _)| places).sum();
    for (n, (places, _)) in hosts.iter().enumerate() {
        let agent = sim.world.engine.fleet().agent(&AgentId::new(name(n))).unwrap();
        let share = 200.0 * f64::from(*places) / f64::from(all);
        let got = agent.executions.len() as f64;
        let most = 1.0 + 0.05 * f64::from(*places);
        assert!((got - share).abs() <= most, "agent with {places} places got {got}, its share is {share:.1}");
    }
}

#[test]
fn one_greedy_user_delays_others_by_a_bounded_number_of_jobs() {
    let hosts = fleet();
    let mut orders: Vec<Order> =
        works(5_000, 3).map(|work_ms| Order { at: 0, user: "greedy", work_ms }).collect();
    orders.extend((0..10).map(|_| Order { at: 60_000, user: "modest", work_ms: 10_000 }));
    let mut sim = Sim::new(&hosts, orders);
    sim.run();
    // Every second place that becomes free is the other user's, whatever waits: its n-th job goes out with the 2n-th.
    for n in 0..10 {
        let sent = sim.sent[5_000 + n].expect("it was sent");
        let before = sim.endings.iter().filter(|at| **at >= 60_000 && **at + LATENCY_MS <= sent).count();
        assert!(before <= 2 * n + 2, "job {n} of the modest user waited for {before} other jobs to end");
    }
    let last = sim.sent[5_009].expect("it was sent") - 60_000;
    println!("the last of the modest user's jobs was sent after {last} ms");
}

#[test]
fn a_user_of_twice_the_weight_gets_twice_as_much() {
    let mut w = World::new();
    let agent = w.agent("a", 1);
    let mut ids = HashMap::new();
    for (user, weight) in [("ann", 2), ("bob", 1)] {
        for _ in 0..60 {
            w.ids += 1;
            let id = JobId::new(uuid::Uuid::from_u128(w.ids));
            ids.insert(id, user);
            let new = Accepted {
                id,
                description: description("a:b", false).into(),
                inputs: vec![],
                form: Form::default(),
                owner: UserId(user.to_owned()),
                role: None,
                terms: Arc::new(Terms { weight, ..Terms::default() }),
            };
            w.engine.execute(new, w.now, &mut w.out).unwrap();
        }
    }
    let mut got = HashMap::from([("ann", 0), ("bob", 0)]);
    for _ in 0..30 {
        let job = w.engine.jobs().find(|job| job.state.execution().is_some()).unwrap();
        let (id, execution) = (job.id, job.state.execution().unwrap().id.clone());
        *got.get_mut(ids[&id]).unwrap() += 1;
        w.say(&agent, FromAgent::Error { execution, error: aborted() });
    }
    assert!((19..=21).contains(&got["ann"]), "{got:?}");
}
