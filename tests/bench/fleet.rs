//! A thousand agents with ten processes each: how long until all are known, what that costs at rest, and what a client notices.

use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use e2e::Site;
use e2e::client::Execute;
use e2e::fleet::{Fleet, Spec};
use e2e::program::cpu_time;
use e2e::xmpp::Prosody;
use e2e::{skip, tell, wait_until};

use super::{median, parallel};

const CAPABILITIES: &str = "/wps?service=WPS&request=GetCapabilities";
/// How long the fleet rests while its cost is measured.
const REST: Duration = Duration::from_secs(30);

/// On the embedded server and on Prosody.
pub fn large(amount: &dyn Fn(usize) -> usize) {
    let agents = amount(1000);
    e2e::run("bench-fleet", |site| measure(site, "embedded server", agents));
    match Prosody::start() {
        Some(server) => {
            e2e::run_on("bench-fleet-prosody", Box::new(server), |site| measure(site, "Prosody", agents));
        }
        None => skip("fleet", "prosody is not installed"),
    }
}

fn measure(site: &Site, server: &str, agents: usize) {
    site.expect_warning("");
    let orchestrator = site.orchestrator().start();
    std::thread::sleep(Duration::from_secs(2));
    let before = orchestrator.program().resident();
    let logins = (0..agents).map(|n| site.bus().login(&format!("f{n:04}"))).collect();
    let spec = Spec { agents, processes: 10, places: 4, job: Duration::from_millis(200) };
    let begun = Instant::now();
    let fleet = Fleet::start(logins, spec);
    let figures = fleet.figures();
    let limit = Duration::from_secs(1800);
    let joined = wait_until(limit, || (figures.joined.load(Relaxed) >= agents).then(|| begun.elapsed()));
    let joined =
        joined.unwrap_or_else(|| panic!("{} of {agents} are in the room", figures.joined.load(Relaxed)));
    let all =
        wait_until(limit, || (figures.registered.load(Relaxed) >= agents * 10).then(|| begun.elapsed()));
    let all = all.unwrap_or_else(|| panic!("{} processes are known", figures.registered.load(Relaxed)));
    let present = orchestrator.metric("wps_agents");
    tell(&format!(
        "{agents} agents with 10 processes each, {server}: all in the room after {:.1} s, all known after {:.1} s \
         ({present:?} present)",
        joined.as_secs_f64(),
        all.as_secs_f64()
    ));
    std::thread::sleep(Duration::from_secs(5));
    let pid = orchestrator.program().pid();
    let (cpu, clock) = (cpu_time(pid), Instant::now());
    std::thread::sleep(REST);
    let used = cpu_time(pid).saturating_sub(cpu).as_secs_f64() / clock.elapsed().as_secs_f64();
    tell(&format!(
        "{agents} agents, {server}: the orchestrator{} takes {:.1} % of a core at rest, {:.1} MiB resident (before: {:.1})",
        if server.starts_with("embedded") { ", its XMPP server included," } else { "" },
        100.0 * used,
        orchestrator.program().resident() as f64 / f64::from(1 << 20),
        before as f64 / f64::from(1 << 20)
    ));
    let mut wps = orchestrator.wps();
    let mut times: Vec<Duration> = (0..50)
        .map(|_| {
            let begun = Instant::now();
            assert_eq!(wps.http.get(CAPABILITIES).expect("the orchestrator answers").status, 200);
            begun.elapsed()
        })
        .collect();
    tell(&format!("{agents} agents, {server}: GetCapabilities {:.2} ms (median of 50)", median(&mut times)));
    let address = orchestrator.address();
    let execute = Execute::new("fleet:P3").raw("result").to_xml();
    let jobs = parallel(16, 1000, |client| {
        let answer = client.http(address).post("/wps", "text/xml", execute.as_bytes());
        assert_eq!(answer.expect("the orchestrator answers").status, 200);
    });
    jobs.print(&format!("{agents} agents, {server}: jobs of 200 ms, 16 clients"), None);
    let used = figures.jobs.iter().filter(|jobs| jobs.load(Relaxed) > 0).count();
    tell(&format!("{agents} agents, {server}: 1,000 jobs went to {used} of them"));
}
