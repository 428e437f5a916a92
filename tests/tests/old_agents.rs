//! The orchestrator and agents of the old dialect: a stand-in for the Python agent behind the real orchestrator, over every
//! XMPP server that is there.

use std::time::Duration;

use e2e::caller::cli;
use e2e::client::{Execute, Status, document, execution_id, output};
use e2e::http::Http;
use e2e::old_agent::{OldAgent, OldAgentSpec};
use e2e::orchestrator::Orchestrator;
use e2e::xmpp::Prosody;
use e2e::{Site, wait_until};

const LONG: Duration = Duration::from_secs(40);
const LISTED: &str = "[legacy]\nrooms = default\nagents = Play@*\nheartbeat_s = 1\n";

fn play(mode: &str) -> Execute {
    Execute::new("default:Play").literal("mode", mode)
}

fn agent(site: &Site, account: &str, host: &str) -> OldAgent {
    OldAgent::start(site.bus().login(account), OldAgentSpec::play(host))
}

/// The job as the operator sees it, with its log.
fn job_text(orchestrator: &Orchestrator<'_>, location: &str) -> String {
    cli(orchestrator, &["jobs", &execution_id(location)]).1
}

fn failed_with(status: &Status, part: &str) {
    assert!(matches!(status, Status::Failed(text) if text.contains(part)), "{part}: {status:?}");
}

#[test]
fn the_story_of_a_python_agent() {
    let story = |site: &Site| {
        let orchestrator = site.orchestrator().config(LISTED).start();
        let old = agent(site, "svc-play", "vm1");
        orchestrator.wait_for(&["default:Play"]);
        let mut wps = orchestrator.wps();

        // At once and with a progress that is told out of range; both are answered with finish exactly once.
        assert_eq!(wps.execute(&play("ok:fine é漢😀").raw("result1")).text(), "fine é漢😀");
        let location = wps.submit(&play("long:8").stored());
        wps.wait_until(&location, LONG, |status| matches!(status, Status::Started(1..)));
        assert_eq!(wps.wait(&location), Status::Succeeded);
        let finished = wait_until(LONG, || (old.count("topic=finish") == 2).then_some(()));
        assert!(finished.is_some(), "{:?}", old.heard());
        assert!(job_text(&orchestrator, &location).contains("nothing is acknowledged"));

        // Lines that nobody escaped, and an output full of what separates fields.
        let location = wps.submit(&play("specials").stored());
        assert_eq!(wps.wait(&location), Status::Succeeded);
        let response = document(&wps.fetch(&location), "ExecuteResponse");
        let text = output(&response, "result1").find("LiteralData").unwrap().text.clone();
        assert_eq!(text, "a=1&b=2\nline two %41 + \"quoted\" <xml/> \\back\n\ttab & end= é漢😀");
        let log = job_text(&orchestrator, &location);
        for line in [
            "request=Execute 100% of it",
            "fish & chips",
            "half done 50%",
            "message=injected",
            "café 漢字 😀",
        ] {
            assert!(log.contains(line), "{line}: {log}");
        }

        // Failures: with its own words, told by the service process alone, and an error that is no ending for the agent.
        failed_with(
            &{
                let job = wps.submit(&play("fail").stored());
                wps.wait(&job)
            },
            "process exit code is 3",
        );
        failed_with(
            &{
                let job = wps.submit(&play("early").stored());
                wps.wait(&job)
            },
            "terminated with exit code -9",
        );
        let location = wps.submit(&play("critical").stored());
        failed_with(&wps.wait(&location), "the model diverged & x=1");

        // A dismissal: the occupant is told and leaves; what that means is said.
        let location = wps.submit(&play("hang").stored());
        wps.wait_until(&location, LONG, |status| *status == Status::Started(20));
        assert_eq!(wps.dismiss(&location).status, 200);
        failed_with(&wps.wait(&location), "dismissed");
        assert_eq!(old.count("topic=abort"), 1);
        assert!(job_text(&orchestrator, &location).contains("an agent of the old dialect"));

        // The operator sees what kind of agent this is.
        let agents = Http::new(orchestrator.address()).get("/agents").unwrap();
        let agents: serde_json::Value = serde_json::from_slice(&agents.body).unwrap();
        assert_eq!(agents["agents"][0]["id"], "default/Play@vm1");
        assert_eq!(agents["agents"][0]["cannot"][0], "acknowledge a request");

        // The agent dies, its processes go; it comes back, they do.
        drop(old);
        orchestrator.wait_without(&["default:Play"]);
        let _old = agent(site, "svc-play", "vm1");
        orchestrator.wait_for(&["default:Play"]);
        assert_eq!(wps.execute(&play("ok:again").raw("result1")).text(), "again");
    };
    e2e::run("old-story", story);
    match Prosody::start() {
        Some(prosody) => e2e::run_on("old-story-prosody", Box::new(prosody), story),
        None => e2e::skip("the_story_of_a_python_agent", "prosody is not installed"),
    }
}

#[test]
fn two_agents_share_the_work_and_a_full_one_is_asked_later() {
    e2e::run("old-two", |site| {
        let orchestrator = site.orchestrator().config(LISTED).start();
        let small = |account: &str, host: &str| {
            let spec = OldAgentSpec { capacity: 1, ..OldAgentSpec::play(host) };
            OldAgent::start(site.bus().login(account), spec)
        };
        let (one, two) = (small("svc-one", "vm1"), small("svc-two", "vm2"));
        orchestrator.wait_for(&["default:Play"]);
        let both = wait_until(LONG, || orchestrator.agents_present(2).then_some(()));
        assert!(both.is_some());
        let mut wps = orchestrator.wps();
        let jobs: Vec<String> = (0..6).map(|_| wps.submit(&play("long:3").stored())).collect();
        for job in &jobs {
            assert_eq!(wps.wait(job), Status::Succeeded);
        }
        let requests = (one.count("topic=request"), two.count("topic=request"));
        assert!(requests.0 > 0 && requests.1 > 0, "{requests:?}");
        assert!(requests.0 + requests.1 > 6, "more jobs than room, so that some were refused: {requests:?}");
    });
}

#[test]
fn an_overloaded_agent_is_spared_unless_execution_is_forced_and_then_its_own_service_runs() {
    e2e::run("old-forced", |site| {
        let orchestrator = site.orchestrator().config(LISTED).start();
        let loaded = OldAgentSpec { cpu_percent: 95.0, ..OldAgentSpec::play("vm1") };
        let loaded = OldAgent::start(site.bus().login("svc-play"), loaded);
        // Idle, but of another service.
        let other = OldAgentSpec { service: "Other".into(), ..OldAgentSpec::play("vm2") };
        site.expect_warning("not believed");
        let other = OldAgent::start(site.bus().login("svc-other"), other);
        orchestrator.wait_for(&["default:Play"]);
        let mut wps = orchestrator.wps();
        let location = wps.submit(&play("ok:at last").stored());
        let why = wait_until(LONG, || {
            let text = job_text(&orchestrator, &location);
            text.contains("default/Play@vm1 is overloaded").then_some(())
        });
        assert!(why.is_some(), "{}", job_text(&orchestrator, &location));
        let (_, explained) = cli(&orchestrator, &["jobs", "explain", &execution_id(&location)]);
        let why = "95 % of its processors are in use, and from `[legacy] cpu_threshold = 82` on";
        assert!(explained.contains(why), "{explained}");
        assert_eq!(loaded.count("topic=request"), 0);

        site.expect_warning("");
        let config = orchestrator.config_file().to_owned();
        let text = std::fs::read_to_string(&config).unwrap();
        let forced = text.replace(
            "agents = Play@*",
            "agents = Play@*, Other@*\nforce_execution = true\ncpu_threshold = 50",
        );
        assert_ne!(text, forced);
        std::fs::write(&config, forced).unwrap();
        let orchestrator = orchestrator.restart();
        orchestrator.wait_for(&["default:Other", "default:Play"]);
        let mut wps = orchestrator.wps();
        assert_eq!(wps.wait(&location), Status::Succeeded);
        assert_eq!((loaded.count("topic=request"), other.count("topic=request")), (1, 0));
    });
}

#[test]
fn result_files_come_from_below_the_roots_and_from_nowhere_else() {
    e2e::run("old-files", |site| {
        let out = site.make_folder("agent-output");
        let lines = format!("{LISTED}result_roots = {}\n", out.display());
        let orchestrator = site.orchestrator().config(&lines).start();
        let _old = agent(site, "svc-play", "vm1");
        orchestrator.wait_for(&["default:Play"]);
        let mut wps = orchestrator.wps();
        let file = out.join("dem.tif");
        std::fs::write(&file, b"a tif, as it were").unwrap();
        let answer = wps.execute(&play(&format!("file:{}", file.display())).raw("result2"));
        assert_eq!(answer.body, b"a tif, as it were");
        let secret = site.folder().join("orchestrator/orchestrator.ini");
        for path in
            [secret.to_str().unwrap(), "/etc/passwd", "../orchestrator/orchestrator.ini", "nowhere.tif"]
        {
            let location = wps.submit(&play(&format!("file:{path}")).stored());
            failed_with(&wps.wait(&location), "result2");
        }
    });
}

#[test]
fn strangers_and_unlisted_agents_are_not_believed() {
    e2e::run("old-trust", |site| {
        site.expect_warning("not believed");
        let orchestrator =
            site.orchestrator().config("[legacy]\nrooms = default\nagents = Play@vm1\n").start();
        let _unlisted = agent(site, "svc-other", "vm9");
        let warned = wait_until(LONG, || {
            orchestrator.program().log().contains("add `Play@vm9` to [legacy] agents").then_some(())
        });
        assert!(warned.is_some(), "{}", orchestrator.program().log());
        assert!(orchestrator.wps().processes().unwrap().is_empty());
        let _listed = agent(site, "svc-play", "vm1");
        orchestrator.wait_for(&["default:Play"]);
    });
}

#[test]
fn an_orchestrator_that_comes_back_gets_the_results_of_its_jobs() {
    let Some(prosody) = Prosody::start() else {
        return e2e::skip(
            "an_orchestrator_that_comes_back_gets_the_results_of_its_jobs",
            "prosody is not installed",
        );
    };
    e2e::run_on("old-back", Box::new(prosody), |site| {
        site.expect_warning("");
        let orchestrator = site.orchestrator().config(LISTED).start();
        let old = agent(site, "svc-play", "vm1");
        orchestrator.wait_for(&["default:Play"]);
        let mut wps = orchestrator.wps();
        let location = wps.submit(&play("long:20").stored());
        wps.wait_until(&location, LONG, |status| matches!(status, Status::Started(1..)));
        let orchestrator = orchestrator.kill_and_restart();
        let mut wps = orchestrator.wps();
        assert_eq!(wps.wait(&location), Status::Succeeded);
        assert_eq!(old.count("topic=request"), 1, "never sent twice");
    });
}
