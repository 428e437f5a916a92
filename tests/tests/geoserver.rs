//! Our agent and GeoServer's plugin: a stand-in for the plugin in front of the real agent, over a real Prosody; and the
//! stand-in itself, which must notice whatever the plugin would stumble over.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, and so do its helpers")]

use std::time::Duration;

use e2e::agent::Agent;
use e2e::client::Execute;
use e2e::geoserver::reading::{Said, Whose, content, read, whose};
use e2e::geoserver::{GeoServer, State};
use e2e::xmpp::Prosody;
use e2e::{Site, wait_until};

const LONG: Duration = Duration::from_secs(60);
/// As an administrator of the Python agent has it.
const SERVICE: &str = "[DEFAULT]
service = Play
namespace = default
description = Does what it is told
active = True
executable_path = %(descriptor_dir)s
executable_cmd = ./play.sh
output_dir = %(descriptor_dir)s/../work
workdir = %(output_dir)s/%(unique_exe_id)s
max_running_time_seconds = 300
process_weight = {\"weight\": \"60\", \"coefficient\": \"1.0\"}

[Input1]
class = param
name = mode
title = Mode
type = string
description = What to do
min = 1
max = 1
default = ok

[Action1]
class = cmdline
input_ref = mode
template = value

[Action2]
class = cmdline
input_ref = folder
template = value

[Const1]
class = const
name = folder
type = string
description = Where to put it
value = %(workdir)s

[Output1]
name = result1
type = string
title = The text
description = Text result
filepath = %(workdir)s/out.txt

[Output2]
name = result2
type = image/geotiff
title = The file
description = File result
filepath = %(workdir)s/dem.tif
required = false

[Logging]
stdout_parser = [\\[INFO\\] ProgressInfo:([-+]?[0-9.]+)%, \\[(INFO|WARN)\\](.*)]
stdout_action = [progress, log]
";
const PLAY: &str = "#!/bin/sh
cd \"$2\" || exit 1
case $1 in
  fail) echo 'about to fail & 100% = bad'; exit 3 ;;
  hang) echo '[INFO] ProgressInfo:20%'; exec sleep 600 ;;
  long) for i in 1 2 3 4; do echo \"[INFO] ProgressInfo:$((i * 25))%\"; sleep 1; done; echo slept > out.txt ;;
  specials)
    echo '[INFO] reading http://x/wps?service=WPS&request=Execute 100% of it'
    echo '[INFO] fish & chips'
    echo '[WARN] half done 50%'
    echo '[INFO] a+b=c'
    echo '[INFO] x &topic=error&message=injected'
    echo '[INFO] café 漢字 😀'
    printf 'a=1&b=2\\nline two %%41 + \"quoted\" <xml/> \\\\back\\n\\ttab & end= é漢😀' > out.txt ;;
  json) printf '{\"a\": [1, null]}' > out.txt ;;
  file) printf 'a tif, as it were' > dem.tif; echo see the file > out.txt ;;
  *) printf %s \"$1\" > out.txt ;;
esac
";

/// A site with a Prosody in which anybody may open rooms, as GeoServer does.
fn on_prosody(name: &str, test: impl FnOnce(&Site)) {
    match Prosody::start_for_python_agents() {
        Some(prosody) => e2e::run_on(name, Box::new(prosody), test),
        None => e2e::skip(name, "prosody is not installed"),
    }
}

fn geoserver(site: &Site) -> GeoServer {
    GeoServer::start(&site.bus().login("admin"), &["default"], true)
}

fn agent<'a>(site: &'a Site, name: &str, lines: &str) -> Agent<'a> {
    let lines = format!("geoserver = yes\nagent_name = {name}\nkill_grace_seconds = 1\n{lines}");
    site.agent(name).config(&lines).file("service.config", SERVICE).file("play.sh", PLAY).start()
}

fn run(geoserver: &GeoServer, mode: &str) -> State {
    let id = geoserver.execute("default:Play", &[("mode", mode)]);
    geoserver.wait(&id)
}

fn text(state: &State) -> String {
    let State::Completed(outputs) = state else { panic!("{state:?}") };
    String::from_utf8(outputs["result1"].clone()).unwrap()
}

fn nothing_wrong(geoserver: &GeoServer) {
    assert_eq!(geoserver.faults(), Vec::<String>::new());
}

/// The agent holds nothing any more: GeoServer has answered everything.
fn all_delivered(agent: &Agent<'_>) {
    let status = || agent.operator("status", &["--format", "json"]).1;
    let free = wait_until(LONG, || {
        status()
            .contains("\"jobs\":[]")
            .then_some(())
            .or_else(|| status().contains("\"jobs\": []").then_some(()))
    });
    assert!(free.is_some(), "{}", status());
}

#[test]
fn the_story_of_geoserver() {
    on_prosody("geoserver-story", |site| {
        let geoserver = geoserver(site);
        let agent = agent(site, "vm1", "");
        let registered = geoserver.wait_for("default:Play");
        assert_eq!(registered.inputs, [("mode".to_owned(), "string".to_owned())]);
        assert_eq!(registered.outputs.len(), 2);

        // Success: at once, with every letter, and with what separates fields.
        assert_eq!(text(&run(&geoserver, "fine é漢😀")), "fine é漢😀");
        let id = geoserver.execute("default:Play", &[("mode", "specials")]);
        assert_eq!(
            text(&geoserver.wait(&id)),
            "a=1&b=2\nline two %41 + \"quoted\" <xml/> \\back\n\ttab & end= é漢😀"
        );
        let log = geoserver.job(&id).log;
        for line in [
            ("INFO", "reading http://x/wps?service=WPS&request=Execute 100% of it"),
            ("INFO", "fish & chips"),
            ("WARNING", "half done 50%"),
            ("INFO", "a+b=c"),
            ("INFO", "x &topic=error&message=injected"),
            ("INFO", "café 漢字 😀"),
        ] {
            assert!(
                log.iter().any(|(level, text)| (level.as_str(), text.trim()) == line),
                "{line:?}: {log:?}"
            );
        }
        // A text that the plugin's library would take for an object, and a file by its path.
        assert_eq!(text(&run(&geoserver, "json")).trim(), "{\"a\": [1, null]}");
        let State::Completed(outputs) = run(&geoserver, "file") else { panic!() };
        assert_eq!(outputs["result2"], b"a tif, as it were");

        // Progress, and an occupant that is the job.
        let id = geoserver.execute("default:Play", &[("mode", "long")]);
        let job = geoserver.wait_job(&id, "no progress", |job| job.progress.is_some());
        let process = "default:Play".to_owned();
        assert_eq!(whose(&job.occupant), Whose::Job { process, execution: id.clone() });
        assert_eq!(text(&geoserver.wait(&id)).trim(), "slept");

        // Failure, with what the program said last.
        let State::Failed(why) = run(&geoserver, "fail") else { panic!() };
        assert!(
            why.contains("process exit code is 3") && why.contains("about to fail & 100% = bad"),
            "{why}"
        );

        // Abort: the program is gone, and the occupant leaves without a word.
        let id = geoserver.execute("default:Play", &[("mode", "hang")]);
        geoserver.wait_job(&id, "it does not start", |job| job.progress == Some(20.0));
        geoserver.abort(&id);
        let left = wait_until(LONG, || (!geoserver.sees(&id)).then_some(()));
        assert!(left.is_some() && geoserver.job(&id).state == State::Executing);

        // Invited again at any time, and a descriptor that changes or goes.
        let before = geoserver.registrations();
        geoserver.invite_again();
        assert!(wait_until(LONG, || (geoserver.registrations() > before).then_some(())).is_some());
        agent.write("service.config", &SERVICE.replace("Does what it is told", "Does it anew"));
        let anew = wait_until(LONG, || {
            (geoserver.wait_for("default:Play").description == "Does it anew").then_some(())
        });
        assert!(anew.is_some());
        all_delivered(&agent);
        agent.remove("service.config");
        geoserver.wait_without("default:Play");
        nothing_wrong(&geoserver);
    });
}

#[test]
fn two_agents_share_the_work_and_a_full_one_refuses() {
    on_prosody("geoserver-two", |site| {
        let geoserver = geoserver(site);
        let (one, two) = (agent(site, "vm1", ""), agent(site, "vm2", ""));
        geoserver.wait_for("default:Play");
        let both = wait_until(LONG, || (geoserver.nodes().len() == 2).then_some(()));
        assert!(both.is_some(), "{:?}", geoserver.nodes());
        // Each has 100 units and a job takes 60.
        let jobs: Vec<String> =
            (0..4).map(|_| geoserver.execute("default:Play", &[("mode", "long")])).collect();
        let mut hosts = Vec::new();
        for id in &jobs {
            assert_eq!(text(&geoserver.wait(id)).trim(), "slept");
            hosts.push(geoserver.job(id).occupant.rsplit('@').next().unwrap().to_owned());
        }
        assert!(hosts.contains(&"vm1".to_owned()) && hosts.contains(&"vm2".to_owned()), "{hosts:?}");
        assert!(
            jobs.iter().any(|id| geoserver.job(id).refused > 0),
            "more jobs than room, so some were refused"
        );
        // The process stays as long as one of them is there.
        one.stop();
        assert_eq!(text(&run(&geoserver, "still")), "still");
        two.stop();
        geoserver.wait_without("default:Play");
        nothing_wrong(&geoserver);
    });
}

#[test]
fn both_orchestrators_at_once_share_one_capacity() {
    on_prosody("geoserver-both", |site| {
        // Both are in both rooms, and each room belongs to whoever came first.
        site.expect_warning("belongs to another account");
        let orchestrator = site.orchestrator().config("[legacy]\nrooms = default\nagents = *@*\n").start();
        let geoserver = GeoServer::start(&site.bus().login("admin"), &["default"], true);
        let lines = "trusted_orchestrators = orchestrator, orchestrator@xmpp.test, admin@xmpp.test\n";
        let agent = agent(site, "vm1", lines);
        geoserver.wait_for("default:Play");
        orchestrator.wait_for(&["default:Play"]);
        let mut wps = orchestrator.wps();
        let hang = geoserver.execute("default:Play", &[("mode", "hang")]);
        geoserver.wait_job(&hang, "it does not start", |job| job.progress.is_some());
        // 60 of 100 units are GeoServer's: ours has to wait for them.
        let location = wps.submit(&Execute::new("default:Play").literal("mode", "mine").stored());
        let refused = wait_until(LONG, || agent.program().log().contains("are needed").then_some(()));
        assert!(refused.is_some(), "{}", agent.program().log());
        geoserver.abort(&hang);
        assert_eq!(wps.wait(&location), e2e::client::Status::Succeeded);
        // And the other way round.
        let location = wps.submit(&Execute::new("default:Play").literal("mode", "hang").stored());
        wps.wait_until(&location, LONG, |status| *status == e2e::client::Status::Started(20));
        let id = geoserver.execute("default:Play", &[("mode", "theirs")]);
        geoserver.wait_job(&id, "it is not refused", |job| job.refused > 0);
        assert_eq!(wps.dismiss(&location).status, 200);
        assert_eq!(text(&geoserver.wait(&id)), "theirs");
        let agents = e2e::http::Http::new(orchestrator.address()).get("/agents").unwrap();
        let agents: serde_json::Value = serde_json::from_slice(&agents.body).unwrap();
        assert_eq!(agents["agents"].as_array().unwrap().len(), 1, "it is not seen twice: {agents}");
        nothing_wrong(&geoserver);
    });
}

#[test]
fn results_survive_restarts_of_geoserver_of_the_agent_and_of_the_server() {
    on_prosody("geoserver-restarts", |site| {
        for told in ["not connected", "session is offline", "out of the", "no longer in the room"] {
            site.expect_warning(told);
        }
        let login = site.bus().login("admin");
        let first = GeoServer::start(&login, &["default"], false);
        let mut agent = agent(site, "vm1", "");
        first.wait_for("default:Play");

        // A result that nobody has answered is said again to the GeoServer that comes back.
        let unanswered = first.execute("default:Play", &[("mode", "kept")]);
        first.wait_job(&unanswered, "no result", |job| job.completed == 1);
        nothing_wrong(&first);
        drop(first);
        let second = GeoServer::start(&login, &["default"], true);
        second.wait_for("default:Play");
        all_delivered(&agent);

        // The agent dies; the program goes on, and its result comes under the same name.
        let id = second.execute("default:Play", &[("mode", "long")]);
        second.wait_job(&id, "it does not start", |job| job.progress.is_some());
        agent = agent.kill_and_restart();
        assert_eq!(text(&second.wait(&id)).trim(), "slept");
        all_delivered(&agent);

        // The server is killed.
        let id = second.execute("default:Play", &[("mode", "long")]);
        second.wait_job(&id, "it does not start", |job| job.progress.is_some());
        site.bus().server().kill();
        site.bus().server().restart();
        assert_eq!(text(&second.wait(&id)).trim(), "slept");
        second.wait_for("default:Play");
        all_delivered(&agent);
        nothing_wrong(&second);
    });
}

#[test]
fn several_geoservers_each_get_their_own_and_strangers_get_nothing() {
    on_prosody("geoserver-several", |site| {
        site.expect_warning("to obey this sender");
        let one = GeoServer::start(&site.bus().login("admin"), &["default"], true);
        let trust = "trusted_orchestrators = admin@xmpp.test, second@xmpp.test\n";
        let agent = agent(site, "vm1", &format!("{trust}capacity = 1000\n"));
        one.wait_for("default:Play");
        let two = GeoServer::start(&site.bus().login("second"), &["default"], true);
        two.wait_for("default:Play");
        let (a, b) = (
            one.execute("default:Play", &[("mode", "long")]),
            two.execute("default:Play", &[("mode", "long")]),
        );
        assert_eq!(text(&one.wait(&a)).trim(), "slept");
        assert_eq!(text(&two.wait(&b)).trim(), "slept");
        let _stranger = GeoServer::start(&site.bus().login("eve"), &["default"], true);
        let named = wait_until(LONG, || {
            agent.program().log().contains("default@conference.xmpp.test/eve@xmpp.test").then_some(())
        });
        assert!(named.is_some(), "{}", agent.program().log());
        nothing_wrong(&one);
        nothing_wrong(&two);
    });
}

#[test]
fn the_file_of_the_python_agent_comes_up_as_it_is_and_says_what_to_improve() {
    on_prosody("geoserver-old-file", |site| {
        for told in ["bus_class_name", "trusted_orchestrators", "geoserver-drops-output"] {
            site.expect_warning(told);
        }
        let geoserver = geoserver(site);
        // No shared folder: a result stays where it is, and GeoServer opens it there.
        let lines = "bus_class_name = xmppBus.XMPPBus\nload_threshold = 100\nload_average_scan_minutes = 15\n\
                     process_blacklist = []\n";
        let agent = site
            .agent("old")
            .alone()
            .config(lines)
            .file("service.config", SERVICE)
            .file("play.sh", PLAY)
            .start();
        geoserver.wait_for("default:Play");
        let log = agent.program().log();
        assert!(log.contains("geoserver = yes") && log.contains("trusted_orchestrators = admin@"), "{log}");
        let State::Completed(outputs) = run(&geoserver, "file") else { panic!() };
        assert_eq!(outputs["result2"], b"a tif, as it were");
        nothing_wrong(&geoserver);
    });
}

/// What the agent says, changed in one place each: the stand-in must notice every change, or it proves nothing.
#[test]
fn the_stand_in_notices_what_the_plugin_would_stumble_over() {
    let says = |body: &str| read(body).unwrap_err();
    // Nicknames: the plugin sees a service in three parts, the last of which begins with `master`.
    let master = "default@conference.d/Play@d/master@vm";
    assert_eq!(whose(master), Whose::Master { process: "default:Play".into() });
    for wrong in ["default@conference.d/Play@d", "default@conference.d/Play/d/master@vm"] {
        assert_eq!(whose(wrong), Whose::Stranger, "{wrong}");
    }
    assert_ne!(whose("default@conference.d/vm@d/master@Play"), whose(master));
    let job = "default@conference.d/Play@d/e1@vm";
    assert_eq!(whose(job), Whose::Job { process: "default:Play".into(), execution: "e1".into() });

    // Percent-encoding.
    assert!(read("topic=log&id=e1&level=INFO&message=fish%20%26%20chips").is_ok());
    assert!(says("topic=log&id=e1&level=INFO&message=fish & chips").contains("` chips` has no value"));
    assert!(says("topic=log&id=e1&level=INFO&message=").contains("has no value"));
    assert!(says("topic=log&id=e1&level=INFO&message=half 50% done").contains("stray per cent"));
    let plus = read("topic=log&id=e1&level=INFO&message=a+b").unwrap();
    assert_eq!(plus, Said::Log("e1".into(), "INFO".into(), "a b".into()));

    // The pair's second element, bounds, types, texts.
    let register = |pair: &str, description: &str| {
        let message =
            format!(r#"{{"title": "T", "description": {description}, "input": [{pair}], "output": []}}"#);
        let quoted: String = message.bytes().map(|byte| format!("%{byte:02X}")).collect();
        read(&format!("topic=register&service=default.Play&message={quoted}"))
    };
    assert!(register(r#"["a", "{\"type\": \"int\", \"min\": 0}"]"#, "\"d\"").is_ok());
    let wrong = |pair: &str| register(pair, "\"d\"").unwrap_err();
    assert!(wrong(r#"["a", {"type": "int"}]"#).contains("no document in a text"));
    assert!(wrong(r#"["a", "type=int"]"#).contains("holds no object"));
    assert!(wrong(r#"["a", "{\"type\": \"int\", \"max\": null}"]"#).contains("no Integer"));
    assert!(wrong(r#"["a", "{\"type\": \"image/png\"}"]"#).contains("class not found"));
    assert!(register("", "null").is_err());
    for description in ["null", "\"null\"", "\"[1]\""] {
        let pair = r#"["a", "{\"type\": \"int\"}"]"#;
        assert!(register(pair, description).unwrap_err().contains("no text"), "{description}");
    }

    // Loads, refusals, results.
    let load =
        "topic=loadavg&id=master&message=loadavg&result_vmem=%7B%22vmem_value%22%3A%205.5%7D&result_loadavg=";
    assert!(read(&format!("{load}%7B%22loadavg_value%22%3A%2050.0%7D")).is_ok());
    assert!(says(&format!("{load}%7B%22loadavg_value%22%3A%2050%7D")).contains("no Double"));
    assert!(says("topic=cantexec&id=e1&message=cantexec&exec_id=e1").contains("instead of `master`"));
    assert!(says("topic=completed&id=e1&baseURL=&message=completed").contains("has no value"));
    assert_eq!(
        read("topic=completed&id=e1&baseURL=u&message=completed&other=%7B%7D"),
        Ok(Said::Completed("e1".into(), vec![]))
    );
    let output = |json: &str| content("result1", &serde_json::from_str(json).unwrap());
    assert!(output(r#"{"result1_type": "textual", "result1_value": "x", "result1_pub": false}"#).is_ok());
    assert!(output(r#"{"result1_type": "textual", "result1_value": {}, "result1_pub": false}"#).is_err());
    assert!(
        output(r#"{"result1_type": "textual", "result1_value": "x"}"#).unwrap_err().contains("published")
    );
    assert!(output(r#"{"result1_type": "image/png", "result1_value": "/x", "result1_pub": true}"#).is_err());
    assert!(
        output(r#"{"result1_type": "image/geotiff", "result1_value": "x.tif", "result1_pub": true}"#)
            .is_err()
    );
}
