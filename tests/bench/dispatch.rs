//! The orchestrator's engine alone, in memory: what one job and one report of a load cost while many wait. The figures must
//! hardly grow with the number of waiting jobs.

use std::sync::Arc;
use std::time::Instant;

use e2e::tell;
use wps_orchestrator::engine::job::{Form, JobId, Timestamp, UserId};
use wps_orchestrator::engine::{Accepted, Action, Engine, Limits};
use wps_remote_protocol::{AgentId, ExecutionId, FromAgent, Load, ProcessDescription, ToAgent};

/// Times with few and many waiting jobs, and with few and many agents.
pub fn measure() {
    for (agents, waiting) in [(100, 500), (100, 5_000), (1_000, 500), (1_000, 5_000)] {
        one(agents, waiting);
    }
}

fn description(n: usize) -> ProcessDescription {
    serde_json::from_value(serde_json::json!({ "id": format!("a:p{n}"), "title": "p", "weight": 1.0 }))
        .expect("a description")
}

fn load(cpu_percent: f64) -> Load {
    Load {
        cpu_percent,
        memory_percent: 1.0,
        cores: 4,
        capacity: 4.0,
        used: 0.0,
        running: 0,
        max_running: Some(4),
        accepting: true,
        warning: None,
        refusing: None,
        labels: Vec::new(),
    }
}

fn one(agents: usize, waiting: usize) {
    let mut engine = Engine::new(Limits::default(), String::new());
    let mut out = Vec::new();
    let mut now = Timestamp(1_000_000);
    let names: Vec<AgentId> = (0..agents).map(|n| AgentId::new(format!("agent{n}"))).collect();
    for name in &names {
        engine.agent_joined(name, now, &mut out);
        engine.receive(name, FromAgent::Executions { held: vec![], unknown: vec![] }, now, &mut out);
        for n in 0..10 {
            engine.receive(name, FromAgent::Register(Box::new(description(n))), now, &mut out);
        }
        engine.receive(name, FromAgent::Load(load(1.0)), now, &mut out);
    }
    out.clear();
    let processes: Vec<Arc<ProcessDescription>> = (0..10).map(|n| Arc::new(description(n))).collect();
    let places = 4 * agents;
    let begun = Instant::now();
    for n in 0..places + waiting {
        let new = Accepted {
            id: JobId::new(uuid::Uuid::from_u128(n as u128 + 1)),
            description: processes[n % 10].clone(),
            inputs: vec![],
            form: Form::default(),
            owner: UserId(format!("user{}", n % 50)),
            role: None,
            terms: Arc::default(),
        };
        engine.execute(new, now, &mut out).expect("the queue has room");
    }
    let accept = begun.elapsed() / u32::try_from(places + waiting).unwrap_or(u32::MAX);
    assert_eq!(engine.queued(), waiting);
    let mut sent: Vec<(AgentId, ExecutionId)> = requests(&mut out);
    // Reports that change nothing.
    let begun = Instant::now();
    for n in 0..10_000 {
        now = now.plus_ms(1);
        let name = &names[n % agents];
        let full = Load { running: 4, used: 4.0, ..load(100.0) };
        engine.receive(name, FromAgent::Load(full), now, &mut out);
        engine.tick(now, &mut out);
    }
    let report = begun.elapsed() / 10_000;
    out.clear();
    // Jobs end, others go out.
    let begun = Instant::now();
    let mut ended = 0_u32;
    while let Some((agent, execution)) = sent.pop() {
        now = now.plus_ms(1);
        engine.receive(
            &agent,
            FromAgent::Completed { execution: execution.clone(), outputs: vec![] },
            now,
            &mut out,
        );
        engine.collected(&execution, Ok(vec![]), now, &mut out);
        engine.tick(now, &mut out);
        sent.extend(requests(&mut out));
        ended += 1;
    }
    let end = begun.elapsed() / ended;
    assert_eq!(engine.jobs().count(), 0);
    tell(&format!(
        "engine, {agents:>5} agents, {waiting:>5} waiting jobs: {:>6.1} us to accept (and send) a job, {:>6.1} us for a report, \
         {:>6.1} us for an ending and the next job",
        accept.as_secs_f64() * 1e6,
        report.as_secs_f64() * 1e6,
        end.as_secs_f64() * 1e6
    ));
}

fn requests(out: &mut Vec<Action>) -> Vec<(AgentId, ExecutionId)> {
    out.drain(..)
        .filter_map(|action| match action {
            Action::Send(agent, ToAgent::Request(request)) => Some((agent, request.execution)),
            _ => None,
        })
        .collect()
}
