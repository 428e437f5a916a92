//! Speed and memory of the real programs, against a bare spawn of `/bin/true` or a static file in the same run: ratios carry
//! over from machine to machine, absolute figures do not. Prints one table; decides nothing. Run it in release mode and alone.
//!
//! ```sh
//! cargo run --release -p e2e --bin bench            # the usual amounts
//! cargo run --release -p e2e --bin bench -- 0.2     # a fifth of them
//! cargo run --release -p e2e --bin bench -- documents download    # only these
//! ```
//!
//! | name | what |
//! |---|---|
//! | `agent` | the agent alone |
//! | `descriptors` | a thousand descriptors |
//! | `dialects` | from a request to the start of its program and to its result, native and old dialect |
//! | `jobs` | jobs per second, memory of both programs |
//! | `documents` | GetCapabilities and DescribeProcess with 10, 200, 2,000 processes, against static files |
//! | `status` | GetStatus with 1,000 and 100,000 stored jobs |
//! | `download` | a result of 1 GiB against a static file |
//! | `store` | jobs per second that are accepted durably, SQLite and PostgreSQL |
//! | `dispatch` | the engine alone: time per job and per event with 500 and 5,000 waiting jobs, 100 and 1,000 agents |
//! | `fleet` | 1,000 stand-ins for agents with 10 processes each, on the embedded server and on Prosody |
//! | `cluster` | time until the jobs of a killed orchestrator are another one's |
//! | `reconnect` | time from the return of the XMPP server until 100 agents are in service again |
//! | `start` | time from the start of an orchestrator with 100,000 stored jobs to its first answer |

mod agent;
mod cluster;
mod descriptors;
mod dialects;
mod dispatch;
mod fleet;
mod recovery;
mod serving;
mod static_files;

use std::net::SocketAddr;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use e2e::client::{Execute, Status, Wps, document, status};
use e2e::http::Http;
use e2e::program::{processes_with, proportional, resident};
use e2e::{Site, tell, wait_until};

/// No inputs, and an output that is never written.
const TRUE: &str = "[Description]\nservice = True\nnamespace = bench\ntitle = True\ndescription = Does nothing\n\
    executable = /bin/true\n\n[Output]\nresult = {\"type\": \"string\", \"file\": \"none.txt\", \"required\": false}\n";
const SLEEP: &str = "[Description]\nservice = Sleep\nnamespace = bench\ntitle = Sleep\ndescription = Waits\n\
    executable = /bin/sleep\n\n[Options]\ncustomargs = 600\n\n\
    [Output]\nresult = {\"type\": \"string\", \"file\": \"none.txt\", \"required\": false}\n";

/// A measurement by its name; it is told how much of the usual amount is wanted.
type Bench = (&'static str, fn(&dyn Fn(usize) -> usize));

const BENCHES: [Bench; 13] = [
    ("descriptors", |_| descriptors::measure()),
    ("dialects", |amount| dialects::measure(amount(50))),
    ("agent", |amount| e2e::run("bench-agent", |site| alone(site, amount(1000)))),
    ("jobs", jobs),
    ("documents", serving::documents),
    ("status", serving::status),
    ("download", serving::download),
    ("store", |amount| cluster::accepted(amount(2000))),
    ("cluster", |_| cluster::adoption()),
    ("dispatch", |_| dispatch::measure()),
    ("fleet", fleet::large),
    ("reconnect", |_| recovery::reconnect()),
    ("start", |_| recovery::start()),
];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [argument, folder] = arguments.as_slice()
        && argument == static_files::ARGUMENT
    {
        return static_files::serve(folder.into());
    }
    let scale: f64 = arguments.iter().find_map(|text| text.parse().ok()).unwrap_or(1.0);
    let amount = |usual: usize| ((usual as f64 * scale) as usize).max(20);
    let named = |(name, _): &&Bench| arguments.iter().any(|argument| argument == name);
    let mut chosen: Vec<&Bench> = BENCHES.iter().filter(named).collect();
    let unknown =
        |text: &&String| text.parse::<f64>().is_err() && BENCHES.iter().all(|(name, _)| name != text);
    if let Some(unknown) = arguments.iter().find(unknown) {
        let names: Vec<&str> = BENCHES.iter().map(|(name, _)| *name).collect();
        tell(&format!("no bench is called `{unknown}`; there are: {}", names.join(", ")));
        std::process::exit(2);
    }
    if chosen.is_empty() {
        // The agent alone is part of `jobs`.
        chosen = BENCHES.iter().filter(|(name, _)| *name != "agent").collect();
    }
    if cfg!(debug_assertions) {
        tell("note: this is a debug build; figures of a release build are several times better");
    }
    for (_, bench) in chosen {
        bench(&amount);
    }
}

/// Jobs per second, and memory.
fn jobs(amount: &dyn Fn(usize) -> usize) {
    e2e::run("bench", |site| {
        site.expect_warning("");
        let orchestrator = site.orchestrator().start();
        let agent =
            site.agent("a").config("capacity = 100").file("true.ini", TRUE).file("sleep.ini", SLEEP).start();
        orchestrator.wait_for(&["bench:True", "bench:Sleep"]);
        let address = orchestrator.address();
        // Both have settled after their start, of which an agent lets go of the code pages after ten seconds.
        std::thread::sleep(Duration::from_secs(15));
        let idle = (orchestrator.program().resident(), agent.program().resident());
        let idle_in_all = agent_in_all(site, agent.program().pid());

        let bare = parallel(1, amount(2000), |_| spawn_true());
        let bare2 = parallel(2, amount(4000), |_| spawn_true());
        bare.print("bare spawn of /bin/true, 1 thread", None);
        bare2.print("bare spawn of /bin/true, 2 threads", None);

        alone(site, amount(1000));

        let static_answer = parallel(1, amount(5000), |client| drop(client.http(address).get("/health")));
        static_answer.print("GET /health, 1 connection", None);
        let static_answer = parallel(8, amount(20_000), |client| drop(client.http(address).get("/health")));
        static_answer.print("GET /health, 8 connections", None);
        let documents = parallel(8, amount(10_000), |client| {
            drop(client.http(address).get("/wps?service=WPS&request=GetCapabilities"));
        });
        documents.print("GetCapabilities, 8 connections", None);

        let execute = Execute::new("bench:True").to_xml();
        parallel(2, amount(100), |client| sync(client.wps(address), &execute));
        let mut rates = Vec::new();
        for (clients, jobs) in [(1, 1000), (8, 2000), (16, 2000)] {
            let measured = parallel(clients, amount(jobs), |client| sync(client.wps(address), &execute));
            measured.print(&format!("synchronous Execute, {clients} clients"), Some(&bare));
            rates.push(measured.rate());
        }
        let stored = Execute::new("bench:True").stored();
        let completed = parallel(16, amount(2000), |client| {
            let wps = client.wps(address);
            let location = wps.submit(&stored);
            let last = wps.wait_until(&location, Duration::from_secs(60), Status::is_final);
            assert_eq!(last, Status::Succeeded);
        });
        completed.print("asynchronous Execute to completion, 16 clients", Some(&bare));
        tell(&format!(
            "jobs per second at 16 clients: 1/{:.1} of the bare spawn rate on two threads",
            bare2.rate() / rates[2]
        ));

        let mut wps = orchestrator.wps();
        let sleeping = Execute::new("bench:Sleep").stored();
        let jobs: Vec<String> = (0..100).map(|_| wps.submit(&sleeping)).collect();
        for job in &jobs {
            wps.wait_until(job, Duration::from_secs(60), |status| matches!(status, Status::Started(_)));
        }
        let supervisors: Vec<u64> = processes_with(&site.folder().to_string_lossy())
            .iter()
            .filter(|(_, line)| line.contains("supervise"))
            .map(|(pid, _)| resident(*pid))
            .collect();
        let busy_in_all = agent_in_all(site, agent.program().pid());
        let busy = (orchestrator.program().resident(), agent.program().resident());
        for job in &jobs {
            assert_eq!(wps.dismiss(job).status, 200);
        }
        let ended = wait_until(Duration::from_secs(60), || {
            jobs.iter().all(|job| wps.status(job).is_final()).then_some(())
        });
        assert!(ended.is_some(), "100 jobs were not dismissed within a minute");
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        tell(&format!("resident, idle: orchestrator {:.1} MiB, agent {:.1} MiB", mib(idle.0), mib(idle.1)));
        // Shared pages are counted once in all: that is what the host has to give for one job more.
        tell(&format!(
            "proportional (PSS) of agent, fork server and supervisors: idle {:.1} MiB, 100 jobs {:.1} MiB, {:.2} MiB a job",
            mib(idle_in_all),
            mib(busy_in_all),
            mib(busy_in_all.saturating_sub(idle_in_all)) / jobs.len() as f64
        ));
        tell(&format!(
            "resident, 100 running jobs: orchestrator {:.1} MiB, agent {:.1} MiB, {} supervisors {:.1} MiB each",
            mib(busy.0),
            mib(busy.1),
            supervisors.len(),
            mib(supervisors.iter().sum::<u64>()) / supervisors.len().max(1) as f64
        ));
    });
}

/// The agent without orchestrator and XMPP.
fn alone(site: &Site, jobs: usize) {
    let (bare, whole) = agent::measure(&site.make_folder("alone"), jobs);
    let (bare, whole) = (Measured::of(bare), Measured::of(whole));
    bare.print("bare spawn of /bin/true, by turns with the next", None);
    whole.print("agent alone, one job with its supervisor", Some(&bare));
}

/// Memory of the agent with everything that it has started, programs of jobs left out.
fn agent_in_all(site: &Site, agent: u32) -> u64 {
    let folder = site.folder().to_string_lossy().into_owned();
    let others = processes_with(&folder).into_iter().filter(|(_, line)| line.contains("supervise"));
    proportional(agent) + others.map(|(pid, _)| proportional(pid)).sum::<u64>()
}

fn spawn_true() {
    let status = Command::new("/bin/true").status().expect("/bin/true can be started");
    assert!(status.success());
}

fn sync(wps: &mut Wps, execute: &str) {
    let answer = wps.post(execute);
    assert_eq!(status(&document(&answer, "ExecuteResponse")), Status::Succeeded, "{}", answer.text());
}

/// What one thread of load has: connections that it keeps.
#[derive(Default)]
struct Client {
    http: Option<Http>,
    wps: Option<Wps>,
    asked: usize,
}

impl Client {
    fn http(&mut self, address: SocketAddr) -> &mut Http {
        self.http.get_or_insert_with(|| Http::new(address))
    }

    /// Counts from 1.
    fn next(&mut self) -> usize {
        self.asked += 1;
        self.asked
    }

    fn wps(&mut self, address: SocketAddr) -> &mut Wps {
        self.wps.get_or_insert_with(|| Wps::new(address))
    }
}

/// Durations of all operations of one measurement, sorted, and how long it took as a whole.
struct Measured {
    each: Vec<Duration>,
    whole: Duration,
}

/// Does the work `count` times, spread over threads.
fn parallel(threads: usize, count: usize, work: impl Fn(&mut Client) + Sync) -> Measured {
    let next = AtomicUsize::new(0);
    let start = Instant::now();
    let mut each: Vec<Duration> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads)
            .map(|_| {
                scope.spawn(|| {
                    let mut client = Client::default();
                    let mut times = Vec::new();
                    while next.fetch_add(1, Ordering::Relaxed) < count {
                        let begin = Instant::now();
                        work(&mut client);
                        times.push(begin.elapsed());
                    }
                    times
                })
            })
            .collect();
        threads
            .into_iter()
            .flat_map(|thread| thread.join().expect("a thread of load does not panic"))
            .collect()
    });
    let whole = start.elapsed();
    each.sort();
    Measured { each, whole }
}

/// The middle one.
fn median(times: &mut [Duration]) -> f64 {
    times.sort();
    times[times.len() / 2].as_secs_f64() * 1000.0
}

impl Measured {
    /// One after the other.
    fn of(mut each: Vec<Duration>) -> Self {
        each.sort();
        Self { whole: each.iter().sum(), each }
    }

    fn rate(&self) -> f64 {
        self.each.len() as f64 / self.whole.as_secs_f64()
    }

    fn percentile(&self, percent: usize) -> f64 {
        let at = (self.each.len() * percent / 100).min(self.each.len() - 1);
        self.each[at].as_secs_f64() * 1000.0
    }

    fn print(&self, what: &str, bare: Option<&Self>) {
        let ratio = bare
            .map(|bare| format!("  p50 = {:.1} x bare", self.percentile(50) / bare.percentile(50)))
            .unwrap_or_default();
        tell(&format!(
            "{what:<48} {:>9.0}/s  p50 {:>8.2} ms  p99 {:>8.2} ms{ratio}",
            self.rate(),
            self.percentile(50),
            self.percentile(99)
        ));
    }
}
