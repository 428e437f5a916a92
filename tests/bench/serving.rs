//! Documents and results against static files of the same size, and status documents with few and many stored jobs.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use e2e::client::{Execute, Status};
use e2e::fixtures::{HELLO, descriptor};
use e2e::orchestrator::Orchestrator;
use e2e::{Site, root, skip, tell};

use super::static_files::StaticFiles;
use super::{Client, Measured, parallel};

const CAPABILITIES: &str = "/wps?service=WPS&request=GetCapabilities";
const ALL: &str = "/wps?service=WPS&version=1.0.0&request=DescribeProcess&identifier=all";
const ONE: &str = "/wps?service=WPS&version=1.0.0&request=DescribeProcess&identifier=test:P0007";

/// GetCapabilities and DescribeProcess with 10, 200 and 2,000 processes.
pub fn documents(amount: &dyn Fn(usize) -> usize) {
    for processes in [10, 200, 2000] {
        e2e::run("bench-documents", |site| {
            site.expect_warning("");
            let orchestrator = site.orchestrator().start();
            let inputs = "a = {\"type\": \"double\", \"title\": \"A\", \"description\": \"Any number\", \"min\": 0}\n\
                          b = {\"type\": \"text/xml\", \"title\": \"B\", \"description\": \"Any document\", \"min\": 0}";
            let mut agent = site.agent("a").file("hello.sh", HELLO);
            for n in 0..processes {
                let service = format!("P{n:04}");
                agent = agent.file(&format!("{service}.ini"), &descriptor(&service, "hello.sh", inputs));
            }
            let _agent = agent.start();
            let limit = Duration::from_secs(180);
            orchestrator.wait_until_offer(limit, "all processes", |offered| offered.len() == processes);
            let count = amount(20_000 / (1 + processes / 20)).max(50);
            for (what, target) in [
                ("GetCapabilities", CAPABILITIES),
                ("DescribeProcess all", ALL),
                ("DescribeProcess one", ONE),
            ] {
                beside_static(site, &orchestrator, &format!("{what}, {processes} processes"), target, count);
            }
        });
    }
}

fn beside_static(site: &Site, orchestrator: &Orchestrator<'_>, what: &str, target: &str, count: usize) {
    let folder = site.make_folder("static");
    let document = orchestrator.wps().http.get(target).expect("the orchestrator answers");
    assert_eq!(document.status, 200, "{}", document.text());
    fs::write(folder.join("document.xml"), &document.body).expect("the temporary folder can be written to");
    let files = StaticFiles::start(&folder);
    let measure = |address: SocketAddr, target: &str| {
        let work = |client: &mut Client| {
            let answer = client.http(address).get(target).expect("the server answers");
            assert_eq!(answer.body.len(), document.body.len());
        };
        parallel(2, count / 10 + 1, work);
        parallel(4, count, work)
    };
    let fixed = measure(files.address, "/document.xml");
    let ours = measure(orchestrator.address(), target);
    fixed.print(&format!("static file of {} kB", document.body.len() / 1000), None);
    ours.print(what, None);
    tell(&format!("{what}: {:.2} of the rate of the static file", ours.rate() / fixed.rate()));
}

/// GetStatus with 1,000 and with 100,000 stored jobs.
pub fn status(amount: &dyn Fn(usize) -> usize) {
    e2e::run("bench-status", |site| {
        site.expect_warning("");
        let orchestrator = site.orchestrator().start();
        let _agent = site.agent("a").service("echo").start();
        orchestrator.wait_for(&["demo:Echo"]);
        let mut wps = orchestrator.wps();
        let job = wps.submit(&Execute::new("demo:Echo").literal("text", "x").stored());
        assert_eq!(wps.wait(&job), Status::Succeeded);
        let store = orchestrator.config_file().with_file_name("data").join("jobs.sqlite");
        let mut p99 = Vec::new();
        for jobs in [1_000, 100_000] {
            let filled = Command::new("python3")
                .arg(root().join("tests/bench/fill.py"))
                .arg(&store)
                .arg(jobs.to_string())
                .output();
            let ids = match filled {
                Ok(output) if output.status.success() => String::from_utf8_lossy(&output.stdout).into_owned(),
                Ok(output) => panic!("{}", String::from_utf8_lossy(&output.stderr)),
                Err(error) => return skip("status", &format!("no python3 to fill the store with: {error}")),
            };
            let ids: Vec<&str> = ids.lines().collect();
            let address = orchestrator.address();
            let ask = |client: &mut Client| {
                let n = client.next();
                let target =
                    format!("/wps?service=WPS&version=2.0.0&request=GetStatus&jobId={}", ids[n % ids.len()]);
                let answer = client.http(address).get(&target).expect("the orchestrator answers");
                assert!(answer.text().contains(">Succeeded<"), "{}", answer.text());
            };
            parallel(2, amount(2000), ask);
            // The best of three: one hiccup of the machine must not look like the store's.
            let measured = (0..3).map(|_| parallel(2, amount(8000), ask)).min_by(by_p99);
            let measured = measured.expect("three are more than none");
            measured.print(&format!("GetStatus, {jobs} stored jobs"), None);
            p99.push(measured.percentile(99));
        }
        tell(&format!("GetStatus: p99 with 100,000 jobs is {:.2} x that with 1,000", p99[1] / p99[0]));
    });
}

fn by_p99(a: &Measured, b: &Measured) -> std::cmp::Ordering {
    a.percentile(99).total_cmp(&b.percentile(99))
}

/// One result of 1 GiB, and the same file served as it is.
pub fn download(amount: &dyn Fn(usize) -> usize) {
    let bytes = u64::try_from(amount(1 << 30)).unwrap_or(u64::MAX);
    e2e::run("bench-download", |site| {
        site.expect_warning("");
        let orchestrator = site.orchestrator().start();
        let script = format!("#!/bin/sh\nhead -c {bytes} /dev/zero > result.txt\n");
        let large = descriptor("Large", "large.sh", "").replace("text/plain", "application/octet-stream");
        let _agent = site.agent("a").file("large.sh", &script).file("large.ini", &large).start();
        orchestrator.wait_for(&["test:Large"]);
        let mut wps = orchestrator.wps();
        let job = wps.submit(&Execute::new("test:Large").stored_reference("result"));
        assert_eq!(wps.wait_until(&job, Duration::from_secs(300), Status::is_final), Status::Succeeded);
        let text = wps.fetch(&job).text();
        let link = text.split(" href=\"").nth(1).and_then(|rest| rest.split('"').next()).expect("a link");
        let target = wps.target(link);
        let folder = site.make_folder("static");
        let stored = orchestrator.config_file().with_file_name("data").join("results");
        let id = e2e::client::execution_id(&job);
        let file = stored.join(id).join("result/result.txt");
        fs::hard_link(&file, folder.join("large")).expect("the result can be linked");
        let files = StaticFiles::start(&folder);
        let before = orchestrator.program().resident();
        let measured = orchestrator.program().forget_peak();
        let (mut fixed, mut ours) = (0.0_f64, 0.0_f64);
        // In turn, the best of three each.
        for _ in 0..3 {
            fixed = fixed.max(take(files.address, "/large", bytes));
            ours = ours.max(take(orchestrator.address(), &target, bytes));
        }
        let peak = orchestrator.program().peak().saturating_sub(before);
        tell(&format!("static file of {} MiB: {fixed:.0} MB/s", bytes >> 20));
        tell(&format!("result of {} MiB: {ours:.0} MB/s, {:.2} of static", bytes >> 20, ours / fixed));
        if measured {
            tell(&format!(
                "memory of the orchestrator meanwhile: {:.1} MiB more at the peak",
                peak as f64 / 1048576.0
            ));
        }
    });
}

/// Downloads and throws away; MB/s.
fn take(address: SocketAddr, target: &str, expected: u64) -> f64 {
    let begin = Instant::now();
    let mut stream = TcpStream::connect(address).expect("the server listens");
    let request = format!("GET {target} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("the server reads");
    let mut buffer = vec![0; 1 << 20];
    let mut taken = 0u64;
    loop {
        match stream.read(&mut buffer).expect("the server sends") {
            0 => break,
            n => taken += n as u64,
        }
    }
    assert!(taken >= expected, "{taken} of {expected} bytes");
    taken as f64 / begin.elapsed().as_secs_f64() / 1e6
}
