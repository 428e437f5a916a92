//! Several orchestrators on one PostgreSQL and one XMPP server: any node serves any client, and when one dies, its jobs end on
//! another within seconds.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use e2e::Site;
use e2e::agent::Agent;
use e2e::caller::cli;
use e2e::client::{Execute, Status, Wps, document, output};
use e2e::fixtures::{HELLO, STUBBORN, WAITING, descriptor};
use e2e::orchestrator::Orchestrator;
use e2e::postgres::Postgres;
use e2e::proxy::{Link, Network};
use e2e::xmpp::Prosody;

const LONG: Duration = Duration::from_secs(60);

/// Runs a story where there are PostgreSQL and Prosody.
fn cluster(name: &str, story: impl FnOnce(&Site, &mut Postgres)) {
    let mut postgres = match Postgres::start() {
        Ok(postgres) => postgres,
        Err(why) => return e2e::skip(name, why),
    };
    let Some(prosody) = Prosody::start() else { return e2e::skip(name, "prosody is not installed") };
    e2e::run_on(name, Box::new(prosody), |site| story(site, &mut postgres));
}

fn node<'a>(site: &'a Site, name: &str, postgres: &Postgres) -> Orchestrator<'a> {
    site.orchestrator().named(name).sharing(postgres).config("[limits]\nheartbeat_s = 1").start()
}

fn agent<'a>(site: &'a Site, name: &str, parallel: u32) -> Agent<'a> {
    site.agent(name)
        .config(&format!("max_parallel_jobs = {parallel}\nkill_grace_seconds = 1"))
        .file("wait.ini", &descriptor("Wait", "wait.sh", ""))
        .file("wait.sh", WAITING)
        .file("stubborn.ini", &descriptor("Stubborn", "stubborn.sh", ""))
        .file("stubborn.sh", STUBBORN)
        .start()
}

const BOTH: &[&str] = &["test:Stubborn", "test:Wait"];

fn submit(wps: &mut Wps, count: usize) -> Vec<String> {
    (0..count).map(|_| wps.submit(&Execute::new("test:Wait").stored())).collect()
}

/// The status document of a job, on this node.
fn at(wps: &Wps, location: &str) -> String {
    wps.here(location)
}

fn succeeded_everywhere(nodes: &mut [&mut Wps], location: &str) {
    for wps in nodes {
        let here = at(wps, location);
        assert_eq!(wps.wait_until(&here, LONG, Status::is_final), Status::Succeeded);
        let response = document(&wps.fetch(&here), "ExecuteResponse");
        let text = output(&response, "result").text_of("ComplexData").expect("a result");
        assert!(text.ends_with("wait.sh"), "{text}");
    }
}

#[test]
fn any_node_serves_any_client() {
    cluster("any-node", |site, postgres| {
        site.expect_warning("test:Stubborn");
        let (a, b) = (node(site, "a", postgres), node(site, "b", postgres));
        let agent = agent(site, "one", 4);
        a.wait_for(BOTH);
        b.wait_for(BOTH);
        let (mut at_a, mut at_b) = (a.wps(), b.wps());

        // Seen while it runs and when it has ended, wherever it was accepted.
        let job = submit(&mut at_a, 1).remove(0);
        let seen = at(&at_b, &job);
        at_b.wait_until(&seen, LONG, |status| matches!(status, Status::Started(1..)));
        agent.write("release", "");
        succeeded_everywhere(&mut [&mut at_a, &mut at_b], &job);

        // Given up on the other node.
        let stubborn = at_a.submit(&Execute::new("test:Stubborn").stored());
        at_a.wait_until(&stubborn, LONG, |status| matches!(status, Status::Started(_)));
        let there = at(&at_b, &stubborn);
        assert_eq!(at_b.dismiss(&there).status, 200);
        for (wps, location) in [(&mut at_a, &stubborn), (&mut at_b, &there)] {
            let last = wps.wait_until(location, LONG, Status::is_final);
            assert!(matches!(&last, Status::Failed(text) if text.contains("dismissed")), "{last:?}");
        }
    });
}

#[test]
fn the_jobs_of_a_killed_node_end_on_the_other_within_seconds() {
    cluster("killed-node", |site, postgres| {
        site.expect_warning("no sign of life");
        let (a, b) = (node(site, "a", postgres), node(site, "b", postgres));
        let agents = [agent(site, "one", 3), agent(site, "two", 3)];
        a.wait_for(BOTH);
        b.wait_for(BOTH);
        e2e::wait_until(LONG, || (a.agents_present(2) && b.agents_present(2)).then_some(()))
            .expect("both nodes see both agents");
        let (mut at_a, mut at_b) = (a.wps(), b.wps());

        // Six run and four wait; the agents share their places among the nodes.
        let of_a = submit(&mut at_a, 8);
        let of_b = submit(&mut at_b, 2);
        for job in &of_a[..6] {
            at_a.wait_until(job, LONG, |status| matches!(status, Status::Started(_)));
        }
        let ended_alone = &of_a[0];
        a.kill();
        // Ends while its owner is dead.
        for agent in &agents {
            agent.write("release", "");
        }
        let begun = Instant::now();
        for job in of_a.iter().chain(&of_b) {
            let here = at(&at_b, job);
            assert_eq!(at_b.wait_until(&here, LONG, Status::is_final), Status::Succeeded, "{job}");
        }
        let took = begun.elapsed();
        e2e::tell(&format!(
            "10 jobs ended {:.1} s after the death of a node with a lease of 2 s",
            took.as_secs_f64()
        ));
        assert!(took < Duration::from_secs(30), "{took:?}");
        succeeded_everywhere(&mut [&mut at_b], ended_alone);
    });
}

#[test]
fn a_node_that_stops_in_order_hands_its_jobs_over_at_once_and_one_that_returns_serves_again() {
    cluster("handed-over", |site, postgres| {
        let (a, b) = (node(site, "a", postgres), node(site, "b", postgres));
        let agent = agent(site, "one", 4);
        a.wait_for(BOTH);
        b.wait_for(BOTH);
        let (mut at_a, mut at_b) = (a.wps(), b.wps());
        let jobs = submit(&mut at_a, 3);
        for job in &jobs {
            at_a.wait_until(job, LONG, |status| matches!(status, Status::Started(_)));
        }
        a.stop();
        agent.write("release", "");
        for job in &jobs {
            let here = at(&at_b, job);
            assert_eq!(at_b.wait_until(&here, LONG, Status::is_final), Status::Succeeded);
        }
        let a = node(site, "a", postgres);
        a.wait_for(BOTH);
        let mut at_a = a.wps();
        for job in &jobs {
            succeeded_everywhere(&mut [&mut at_a, &mut at_b], job);
        }
    });
}

#[test]
fn a_stopped_node_that_goes_on_writes_nothing_and_serves_again() {
    cluster("fenced-node", |site, postgres| {
        for text in ["no sign of life", "taken the jobs of this one over", "agent", "XMPP", "management room"]
        {
            site.expect_warning(text);
        }
        let (a, b) = (node(site, "a", postgres), node(site, "b", postgres));
        let agent = agent(site, "one", 4);
        a.wait_for(BOTH);
        b.wait_for(BOTH);
        let (mut at_a, mut at_b) = (a.wps(), b.wps());
        let jobs = submit(&mut at_a, 3);
        for job in &jobs {
            at_a.wait_until(job, LONG, |status| matches!(status, Status::Started(_)));
        }
        a.program().signal(Signal::STOP);
        // Its lease is over: the other node has the jobs, and they end there.
        e2e::wait_until(LONG, || b.program().log().contains("are taken over").then_some(()))
            .expect("taken over");
        agent.write("release", "");
        for job in &jobs {
            let here = at(&at_b, job);
            assert_eq!(at_b.wait_until(&here, LONG, Status::is_final), Status::Succeeded);
        }
        a.program().signal(Signal::CONT);
        e2e::wait_until(LONG, || a.program().log().contains("in service again").then_some(()))
            .expect("a serves");
        a.wait_for(BOTH);
        let mut at_a = a.wps();
        let more = submit(&mut at_a, 1).remove(0);
        succeeded_everywhere(&mut [&mut at_a, &mut at_b], &more);
        for job in &jobs {
            succeeded_everywhere(&mut [&mut at_a], job);
        }
    });
}

#[test]
fn while_the_database_is_away_clients_are_told_so_and_nothing_is_lost() {
    cluster("database-away", |site, postgres| {
        for text in ["store", "database", "progress", "dismissals", "without an owner"] {
            site.expect_warning(text);
        }
        let a = node(site, "a", postgres);
        let agent = agent(site, "one", 4);
        a.wait_for(BOTH);
        let mut at_a = a.wps();
        let jobs = submit(&mut at_a, 2);
        for job in &jobs {
            at_a.wait_until(job, LONG, |status| matches!(status, Status::Started(_)));
        }
        postgres.kill();
        let refused = at_a.post(&Execute::new("test:Wait").stored().to_xml());
        assert_eq!(refused.status, 503, "{}", refused.text());
        assert!(refused.text().contains("ServerBusy") && refused.text().contains("try again later"));
        // They end while nobody can store it.
        agent.write("release", "");
        postgres.restart();
        for job in &jobs {
            assert_eq!(at_a.wait_until(job, LONG, Status::is_final), Status::Succeeded);
        }
        let again = e2e::wait_until(LONG, || {
            let answer = at_a.post(&Execute::new("test:Wait").raw("result").to_xml());
            (answer.status == 200).then_some(answer)
        });
        assert!(again.expect("new jobs are taken").text().ends_with("wait.sh"));
    });
}

#[test]
fn a_job_that_was_refused_because_the_answer_of_the_database_was_lost_never_runs() {
    cluster("answer-lost", |site, postgres| {
        for text in ["store", "database", "progress", "dismissals", "without an owner"] {
            site.expect_warning(text);
        }
        let network = Network::default();
        let way = network.socket(&site.make_folder("database"), postgres.socket());
        let url = Postgres::url_at(way.place());
        let a = site.orchestrator().named("a").sharing_at(&url).start();
        let agent = agent(site, "one", 4);
        a.wait_for(BOTH);
        let stored = |postgres: &Postgres| postgres.query("SELECT id FROM jobs").len();
        // Commits of jobs wait at a gate, so that the link can break between one and its answer.
        postgres.query(
            "CREATE TABLE gate (shut boolean); INSERT INTO gate VALUES (true);
             CREATE FUNCTION wait_at_gate() RETURNS trigger LANGUAGE plpgsql VOLATILE AS $$
             BEGIN WHILE (SELECT shut FROM gate) LOOP PERFORM pg_sleep(0.02); END LOOP; RETURN NULL; END $$;
             CREATE CONSTRAINT TRIGGER gate AFTER INSERT ON jobs DEFERRABLE INITIALLY DEFERRED
             FOR EACH ROW EXECUTE FUNCTION wait_at_gate()",
        );
        let waiting = || {
            let commits = "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
            !postgres.query(commits).is_empty()
        };
        let mut at_a = a.wps();
        let refused = std::thread::scope(|scope| {
            let refused = scope.spawn(|| at_a.post(&Execute::new("test:Wait").stored().to_xml()));
            e2e::wait_until(LONG, || waiting().then_some(())).expect("the commit is on its way");
            way.set(Link::Deaf);
            postgres.query("UPDATE gate SET shut = false");
            e2e::wait_until(LONG, || (stored(postgres) == 1).then_some(())).expect("the job is stored");
            way.set(Link::Cut);
            refused.join().expect("the client gets an answer")
        });
        assert_eq!(refused.status, 503, "{}", refused.text());
        assert_eq!(stored(postgres), 1, "it is there all the same");
        way.set(Link::Open);
        e2e::wait_until(LONG, || (stored(postgres) == 0).then_some(())).expect("it is taken back");
        agent.write("release", "");
        let again = e2e::wait_until(LONG, || {
            let answer = at_a.post(&Execute::new("test:Wait").raw("result").to_xml());
            (answer.status == 200).then_some(answer)
        });
        assert!(again.expect("new jobs are taken").text().ends_with("wait.sh"));
        assert_eq!(stored(postgres), 1, "the one and no other");
    });
}

#[test]
fn the_doctor_sees_what_agents_see() {
    cluster("doctor", |site, postgres| {
        site.expect_warning("wps_execution_shared_dir");
        let a = node(site, "a", postgres);
        let _agent = agent(site, "one", 4);
        let elsewhere = site.make_folder("elsewhere");
        let _stranger = site
            .agent("stranger")
            .config(&format!("wps_execution_shared_dir = {}", elsewhere.display()))
            .file("hello.ini", &descriptor("Hello", "hello.sh", ""))
            .file("hello.sh", HELLO)
            .start();
        a.wait_for(&["test:Hello", "test:Wait"]);
        let (good, said) = cli(&a, &["check"]);
        assert!(!good, "a fault is an exit code: {said}");
        for part in [
            "ok    job store: postgres://",
            "orchestrators there: orchestrator-a",
            "reads and writes the shared folder; its clock agrees with ours",
            "FAIL  agents: stranger@",
            "does not share the folder: ",
            "wps_execution_shared_dir there must be one folder",
        ] {
            assert!(said.contains(part), "{part} is missing:\n{said}");
        }
        assert_eq!(said.matches("FAIL").count(), 1, "{said}");
        let left = std::fs::read_dir(site.shared_folder()).expect("it can be read").count();
        assert_eq!(left, 0, "the check leaves nothing behind");
    });
}

#[test]
fn limits_and_drained_agents_are_those_of_all_nodes() {
    cluster("shared-limits", |site, postgres| {
        // Callers without a login are one user here, with a limit of its own.
        let limits = "[limits]\nheartbeat_s = 1\n[user anonymous]\nmax_running = 2\nmax_queued = 3";
        let node = |name: &str| site.orchestrator().named(name).sharing(postgres).config(limits).start();
        let (a, b) = (node("a"), node("b"));
        let agent = agent(site, "one", 10);
        a.wait_for(BOTH);
        b.wait_for(BOTH);
        let (mut at_a, mut at_b) = (a.wps(), b.wps());
        let first = submit(&mut at_a, 2);
        for job in &first {
            at_a.wait_until(job, LONG, |status| matches!(status, Status::Started(_)));
        }
        // Until the other node has heard of them: four times in a lease of two seconds.
        std::thread::sleep(Duration::from_secs(2));
        let second = submit(&mut at_b, 2);
        let told =
            e2e::wait_until(LONG, || at_b.fetch(&second[0]).text().contains("max_running").then_some(()));
        assert!(told.is_some(), "{}", at_b.fetch(&second[0]).text());
        // What waits anywhere counts at once.
        let third = submit(&mut at_a, 1);
        let refused = at_a.execute(&Execute::new("test:Wait").stored());
        assert_eq!(refused.status, 429, "{}", refused.text());
        assert!(refused.text().contains("[user anonymous] max_queued"), "{}", refused.text());

        // Drained here, drained there.
        let name = e2e::wait_until(LONG, || agents_of(&a).pop()).expect("the node sees the agent");
        let (done, said) = cli(&a, &["agents", "drain", &name, "--reason", "moving"]);
        assert!(done, "{said}");
        let drained = e2e::wait_until(LONG, || {
            let answer = b.wps().http.get("/agents").ok()?.text();
            answer.contains("no: drained: moving").then_some(())
        });
        assert!(drained.is_some(), "the other node does not know of the drain");
        let (done, said) = cli(&b, &["agents", "undrain", &name]);
        assert!(done, "{said}");

        agent.write("release", "");
        for (wps, jobs) in [
            (&mut at_a, first.iter().chain(&third).collect::<Vec<_>>()),
            (&mut at_b, second.iter().collect()),
        ] {
            for job in jobs {
                assert_eq!(wps.wait_until(job, LONG, Status::is_final), Status::Succeeded);
            }
        }
    });
}

fn agents_of(orchestrator: &Orchestrator<'_>) -> Vec<String> {
    let answer = orchestrator.wps().http.get("/agents").expect("the orchestrator answers");
    let list: serde_json::Value = serde_json::from_slice(&answer.body).expect("JSON");
    let agents = list["agents"].as_array().cloned().unwrap_or_default();
    agents.iter().filter_map(|agent| agent["id"].as_str().map(str::to_owned)).collect()
}
