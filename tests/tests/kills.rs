//! The agent is killed again and again, at random moments, while jobs begin, run and end: no job is lost, none runs twice, and
//! each ends as its program did.

use std::collections::HashMap;
use std::fs;
use std::time::{Duration, Instant};

use e2e::client::{Execute, Status, document};
use e2e::http::Answer;
use e2e::random::Random;
use e2e::tell;

const KILLS: u32 = 50;
const JOBS_AT_ONCE: usize = 20;
/// More than enough; what it takes is printed.
const LIMIT: Duration = Duration::from_secs(240);

const DESCRIPTOR: &str = "[Description]\nservice = Job\nnamespace = test\ntitle = Job\ndescription = Ends as it is told\n\
    executable = job.sh\n\n[Input]\nkey = {\"type\": \"string\"}\nway = {\"type\": \"string\"}\n\
    pause = {\"type\": \"string\"}\n\n[Output]\nresult = {\"type\": \"string\", \"file\": \"result.txt\"}\n";
/// Writes down that it runs, before all else.
const SCRIPT: &str = "#!/bin/sh\n\
    for argument; do case $argument in\n\
    --key=*) key=${argument#*=};; --way=*) way=${argument#*=};; --pause=*) pause=${argument#*=};; esac; done\n\
    echo run >> \"${0%/*}/../runs/$key\"\n\
    sleep $pause\n\
    printf %s \"$key\" > result.txt\n\
    case $way in exit) exit 3;; signal) kill -SEGV $$;; lacking) rm result.txt;; esac\n";

/// Where the status of an accepted job is; `None` if it was refused.
fn location(answer: &Answer) -> Option<String> {
    let text = answer.text();
    if text.contains("ExceptionReport") {
        assert!(text.contains("test:Job"), "refused for another reason: {text}");
        return None;
    }
    document(answer, "ExecuteResponse").attribute("statusLocation").map(str::to_owned)
}

fn is_true(way: &str, last: &Status) -> bool {
    match (way, last) {
        ("well", Status::Succeeded) => true,
        ("exit", Status::Failed(text)) => text.contains("exit code is 3"),
        ("signal", Status::Failed(text)) => text.contains("exit code is -11"),
        ("lacking", Status::Failed(text)) => text.contains("was not written"),
        _ => false,
    }
}

#[test]
fn fifty_kills_of_the_agent_lose_no_job_and_run_none_twice() {
    let mut random = Random::seeded("fifty_kills_of_the_agent");
    e2e::run("kills", |site| {
        // The agent's connection breaks off fifty times.
        site.expect_warning("");
        let orchestrator = site.orchestrator().start();
        let runs = site.make_folder("a/runs");
        let mut agent = site.agent("a").file("job.ini", DESCRIPTOR).file("job.sh", SCRIPT).start();
        orchestrator.wait_for(&["test:Job"]);
        let mut wps = orchestrator.wps();
        let mut open: HashMap<String, (String, &str)> = HashMap::new();
        let (mut kills, mut jobs, mut ended) = (0, 0, 0);
        let begun = Instant::now();
        let mut next_kill = begun + Duration::from_millis(random.below(500));
        let mut wrong = Vec::new();
        while kills < KILLS || !open.is_empty() {
            assert!(
                begun.elapsed() < LIMIT,
                "after {LIMIT:?} and {kills} kills these have not ended: {open:?}"
            );
            if kills < KILLS && Instant::now() >= next_kill {
                agent = agent.kill_and_restart();
                kills += 1;
                next_kill = Instant::now() + Duration::from_millis(random.below(800));
            }
            while kills < KILLS && open.len() < JOBS_AT_ONCE {
                let key = format!("job-{jobs}");
                let way = ["well", "well", "exit", "signal", "lacking"][random.below(5) as usize];
                let pause = format!("{}.{:03}", random.below(2), random.below(1000));
                let execute = Execute::new("test:Job").literal("key", &key).literal("way", way);
                let answer = wps.execute(&execute.literal("pause", &pause).stored());
                // While the agent is away for long enough, nobody offers the process.
                let Some(location) = location(&answer) else { break };
                open.insert(location, (key, way));
                jobs += 1;
            }
            open.retain(|location, (key, way)| {
                let last = wps.status(location);
                if !last.is_final() {
                    return true;
                }
                if !is_true(way, &last) {
                    wrong.push(format!("{key} ({way}): {last:?}"));
                }
                ended += 1;
                false
            });
            std::thread::sleep(Duration::from_millis(5));
        }
        let took = begun.elapsed();
        let counts: Vec<(String, usize)> = (0..jobs)
            .map(|job| {
                let key = format!("job-{job}");
                let text = fs::read_to_string(runs.join(&key)).unwrap_or_default();
                (key, text.lines().count())
            })
            .filter(|(_, count)| *count != 1)
            .collect();
        tell(&format!(
            "{kills} kills in {:.1} s, {jobs} jobs, {ended} ended; wrong: {}, lost or run twice: {}",
            took.as_secs_f64(),
            wrong.len(),
            counts.len()
        ));
        assert_eq!((wrong, counts, ended), (vec![], vec![], jobs));
        drop(agent);
    });
}
