//! The programs of a chaos, how they are struck, and how they come back.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::fault::{Fault, Target};
use super::service::Service;
use super::{Plan, Xmpp};
use crate::http::Http;
use crate::postgres::Postgres;
use crate::program::{binary, processes_with};
use crate::proxy::{Link, Network, Proxy};
use crate::random::Random;
use crate::{Site, wait_until};

/// The process of all jobs.
pub(super) const PROCESS: &str = "test:Job";

const DESCRIPTOR: &str = "[Description]\nservice = Job\nnamespace = test\ntitle = Job\ndescription = Ends as it is told\n\
    executable = job.sh\n\n[Options]\nmax_running_time_seconds = 600\n\n\
    [Input]\nkey = {\"type\": \"string\"}\nlines = {\"type\": \"string\"}\npause = {\"type\": \"string\"}\n\
    way = {\"type\": \"string\"}\n\n[Output]\nresult = {\"type\": \"text/plain\", \"file\": \"result.txt\"}\n";
/// Leaves a mark when it begins and when it ends: who runs twice, or is killed, can be seen.
const SCRIPT: &str = "#!/bin/sh\n\
    for argument; do case $argument in\n\
    --key=*) key=${argument#*=};; --lines=*) lines=${argument#*=};; --pause=*) pause=${argument#*=};;\n\
    --way=*) way=${argument#*=};; esac; done\n\
    mark=${0%/*}/../../marks/$key\n\
    echo \"begin $WPS_EXECUTION_ID\" >> \"$mark\"\n\
    echo 'progress: 10'\n\
    sleep \"$pause\"\n\
    yes \"$key\" | head -n \"$lines\" > result.txt\n\
    echo \"end $WPS_EXECUTION_ID\" >> \"$mark\"\n\
    if [ \"$way\" = exit ]; then exit 3; fi\n";

/// Places of one agent.
const PLACES: u32 = 8;
const START: Duration = Duration::from_secs(60);

struct Node {
    http: SocketAddr,
    service: Service,
    link: Option<Proxy>,
    store: Option<Proxy>,
}

struct Agent {
    name: String,
    service: Service,
    link: Proxy,
}

/// Everything that runs.
pub(super) struct Scene<'a> {
    site: &'a Site,
    plan: Plan,
    nodes: Vec<Node>,
    agents: Vec<Agent>,
    postgres: Option<Postgres>,
    outages: Vec<(Fault, Instant)>,
    /// How often each fault happened.
    pub(super) happened: BTreeMap<Fault, usize>,
    _network: Network,
}

impl<'a> Scene<'a> {
    /// Starts everything, and waits until jobs can be sent.
    pub(super) fn set(site: &'a Site, plan: &Plan) -> Result<Self, &'static str> {
        let network = Network::default();
        let postgres = if plan.nodes > 1 { Some(Postgres::start()?) } else { None };
        fs::create_dir_all(site.make_folder("marks")).expect("the temporary folder can be written to");
        // Agents first: with the embedded server they wait a moment for it, and have their accounts.
        let agents = (0..plan.agents).map(|n| agent(site, &network, n)).collect();
        let nodes: Vec<Node> =
            (0..plan.nodes).map(|n| node(site, plan, &network, postgres.as_ref(), n)).collect();
        let scene = Self {
            site,
            plan: plan.clone(),
            nodes,
            agents,
            postgres,
            outages: Vec::new(),
            happened: BTreeMap::new(),
            _network: network,
        };
        let there = || {
            let count = format!("\nwps_agents {}\n", plan.agents);
            scene.nodes.iter().all(|node| metrics(node.http).contains(&count)).then_some(())
        };
        assert!(wait_until(START, there).is_some(), "not every orchestrator sees every agent");
        Ok(scene)
    }

    /// Where the orchestrators answer.
    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        self.nodes.iter().map(|node| node.http).collect()
    }

    /// How many faults there were.
    pub(super) fn faults(&self) -> usize {
        self.happened.values().sum()
    }

    /// One more fault, unless what it would befall is down already.
    pub(super) fn strike(&mut self, random: &mut Random, at: Duration) {
        let (fault, lasts) = Fault::draw(random, &self.plan);
        if self.outages.iter().any(|(other, _)| other.target() == fault.target()) {
            return;
        }
        fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.site.folder().join("faults.log"))
            .and_then(|mut log| {
                use std::io::Write;
                writeln!(log, "{:8.3} s: {fault:?} for {:.1} s", at.as_secs_f64(), lasts.as_secs_f64())
            })
            .expect("the temporary folder can be written to");
        self.inflict(fault);
        *self.happened.entry(fault).or_default() += 1;
        self.outages.push((fault, Instant::now() + lasts));
    }

    fn inflict(&mut self, fault: Fault) {
        let cut = |link: &Option<Proxy>, how| {
            if let Some(link) = link {
                link.set(how);
            }
        };
        match fault {
            Fault::NodeKilled(n) => self.nodes[n].service.kill(),
            Fault::NodeStopped(n) => self.nodes[n].service.signal(Signal::TERM),
            Fault::NodeHalted(n) => self.nodes[n].service.signal(Signal::STOP),
            Fault::NodeCut(n) => cut(&self.nodes[n].link, Link::Cut),
            Fault::NodeFrozen(n) => cut(&self.nodes[n].link, Link::Frozen),
            Fault::StoreCut(n) => cut(&self.nodes[n].store, Link::Cut),
            Fault::StoreFrozen(n) => cut(&self.nodes[n].store, Link::Frozen),
            Fault::AgentKilled(n) => self.agents[n].service.kill(),
            Fault::AgentAndForksKilled(n) => {
                // First, so that the agent has no time to notice. Supervisors have the same command line, but another parent.
                let agent = self.agents[n].service.pid();
                for (pid, line) in processes_with(&self.control_folder(n).to_string_lossy()) {
                    if line.trim_end().ends_with("supervise --serve")
                        && parent(pid) == agent
                        && let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw)
                    {
                        // It may have gone by itself meanwhile.
                        let _ = kill_process(pid, Signal::KILL);
                    }
                }
                self.agents[n].service.kill();
            }
            Fault::AgentHalted(n) => self.agents[n].service.signal(Signal::STOP),
            Fault::AgentCut(n) => self.agents[n].link.set(Link::Cut),
            Fault::AgentFrozen(n) => self.agents[n].link.set(Link::Frozen),
            Fault::ServerKilled => self.site.bus().server().kill(),
            Fault::DatabaseKilled => {
                if let Some(postgres) = &mut self.postgres {
                    postgres.kill();
                }
            }
        }
    }

    fn control_folder(&self, agent: usize) -> PathBuf {
        self.site.folder().join(&self.agents[agent].name)
    }

    fn repair(&mut self, fault: Fault) {
        match fault.target() {
            Target::Node(n) => {
                let service = &mut self.nodes[n].service;
                service.signal(Signal::CONT);
                service.up();
            }
            Target::NodeLink(n) => self.nodes[n].link.iter().for_each(|link| link.set(Link::Open)),
            Target::StoreLink(n) => self.nodes[n].store.iter().for_each(|link| link.set(Link::Open)),
            Target::Agent(n) => {
                self.agents[n].service.signal(Signal::CONT);
                self.agents[n].service.up();
            }
            Target::AgentLink(n) => self.agents[n].link.set(Link::Open),
            Target::Server => self.site.bus().server().restart(),
            Target::Database => {
                if let Some(postgres) = &mut self.postgres {
                    postgres.restart();
                }
            }
        }
    }

    /// Brings back what has been away for long enough, and what ended by itself.
    pub(super) fn tend(&mut self) {
        let now = Instant::now();
        let due: Vec<Fault> =
            self.outages.iter().filter(|(_, until)| *until <= now).map(|(fault, _)| *fault).collect();
        self.outages.retain(|(_, until)| *until > now);
        due.into_iter().for_each(|fault| self.repair(fault));
        self.services().for_each(Service::keep);
    }

    fn services(&mut self) -> impl Iterator<Item = &mut Service> {
        let nodes = self.nodes.iter_mut().map(|node| &mut node.service);
        self.agents.iter_mut().map(|agent| &mut agent.service).chain(nodes)
    }

    /// Brings everything back.
    pub(super) fn heal(&mut self) {
        for (fault, _) in std::mem::take(&mut self.outages) {
            self.repair(fault);
        }
    }

    /// Waits until no job is active any more; what still is after this time.
    pub(super) fn settle(&mut self, limit: Duration) -> Vec<String> {
        let begun = Instant::now();
        loop {
            let active = self.active();
            if active.is_empty() || begun.elapsed() > limit {
                return active;
            }
            self.tend();
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    fn active(&self) -> Vec<String> {
        if let Some(postgres) = &self.postgres {
            return postgres.query("SELECT id, state, node FROM jobs WHERE finished IS NULL");
        }
        let gauges = self.nodes.iter().map(|node| metrics(node.http));
        let line = |line: &&str| line.starts_with("wps_jobs{") && !line.ends_with(" 0");
        gauges
            .flat_map(|page| match page.is_empty() {
                true => vec!["an orchestrator does not answer".to_owned()],
                false => page.lines().filter(line).map(str::to_owned).collect(),
            })
            .collect()
    }

    /// State of each stored job by the key that its client gave it; `None` if the store cannot be asked from outside.
    pub(super) fn stored(&self) -> Option<Vec<(String, String)>> {
        let sql = "SELECT state, (regexp_match(document, 'job-[0-9]+-[0-9]+'))[1] FROM jobs";
        let rows = self.postgres.as_ref()?.query(sql);
        let pair = |row: &String| {
            let (state, key) = row.split_once('\t')?;
            Some((key.to_owned(), state.to_owned()))
        };
        Some(rows.iter().filter_map(pair).collect())
    }

    /// Lines of the mark that the program of a job has left.
    pub(super) fn marks(&self, key: &str) -> Vec<String> {
        let mark = fs::read_to_string(self.site.folder().join("marks").join(key)).unwrap_or_default();
        mark.lines().map(str::to_owned).collect()
    }

    /// Panics in the logs.
    pub(super) fn panics(&mut self) -> Vec<String> {
        self.services().flat_map(|service| service.panics()).collect()
    }

    /// How often programs ended by themselves and were started again.
    pub(super) fn ended_themselves(&mut self) -> u32 {
        self.services().map(|service| service.ended_itself).sum()
    }

    /// Folders of executions that nobody has tidied up in the shared folder.
    pub(super) fn left_in_shared_folder(&self) -> Vec<String> {
        let entries = fs::read_dir(self.site.shared_folder()).into_iter().flatten().flatten();
        let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        // The folder of staged inputs stays, empty.
        names.filter(|name| name != "in").collect()
    }

    /// Stops everything in order; what was wrong with that.
    pub(super) fn stop(&mut self) -> Vec<String> {
        let mut wrong = Vec::new();
        for service in self.services() {
            service.signal(Signal::TERM);
            wrong.extend(service.ended_in_order());
        }
        wrong
    }
}

fn node(site: &Site, plan: &Plan, network: &Network, postgres: Option<&Postgres>, n: usize) -> Node {
    let name = format!("node-{}", n + 1);
    let mut builder =
        site.orchestrator().named(&name).config("[limits]\nheartbeat_s = 1\nanswer_timeout_s = 5");
    let store = postgres.map(|postgres| {
        let folder = site.make_folder(&format!("{name}-database"));
        network.socket(&folder, postgres.socket())
    });
    if let Some(store) = &store {
        builder = builder.sharing_at(&Postgres::url_at(store.place()));
    }
    let link = (plan.xmpp != Xmpp::Embedded).then(|| network.port(site.bus().agents_port()));
    if let Some(link) = &link {
        builder = builder.through(link);
    }
    let (file, http) = builder.write();
    let command = move || {
        let mut command = Command::new(binary("wps-orchestrator"));
        command.args(["serve", "--config"]).arg(&file);
        command
    };
    let log = site.folder().join(format!("{name}.log"));
    Node { http, service: Service::start(&name, log, command), link, store }
}

fn agent(site: &Site, network: &Network, n: usize) -> Agent {
    let name = format!("agent-{}", n + 1);
    let link = network.port(site.bus().agents_port());
    let builder = site
        .agent(&name)
        .config(&format!(
            "max_parallel_jobs = {PLACES}\ncapacity = 1000\nload_threshold = 100\nkill_grace_seconds = 1"
        ))
        .file("job.ini", DESCRIPTOR)
        .file("job.sh", SCRIPT)
        .through(&link);
    let file = builder.write();
    let command = move || {
        let mut command = Command::new(binary("wps-remote-agent"));
        command.args(["run", "--config"]).arg(&file);
        command
    };
    let log = site.folder().join(format!("{name}.log"));
    Agent { service: Service::start(&name, log, command), name, link }
}

/// The parent of a process, as proc(5) tells it.
fn parent(pid: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("PPid:")?.trim().parse().ok())
}

fn metrics(address: SocketAddr) -> String {
    let page = Http::new(address).patience(Duration::from_secs(5)).get("/metrics");
    page.map(|answer| answer.text()).unwrap_or_default()
}
