//! Every example runs as its page says, so that none of them can rot.

use std::process::{Command, Stdio};
use std::time::Duration;

use e2e::program::{Program, binary, processes_with};
use e2e::{free_port, installed, python, root, skip, wait_until};

#[test]
fn the_first_job_by_hand() {
    if !installed("curl") {
        return skip("the_first_job_by_hand", "curl is not installed");
    }
    let output = Command::new(root().join("examples/01-first-job/run"))
        .env("WPS_ORCHESTRATOR_BIN", binary("wps-orchestrator"))
        .env("WPS_REMOTE_AGENT_BIN", binary("wps-remote-agent"))
        .env("HTTP_PORT", free_port().to_string())
        .env("XMPP_PORT", free_port().to_string())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    for part in ["demo:DemStatistics", "Hello", "from,to,cells", "agent1"] {
        assert!(said.contains(part), "{part} is missing:\n{said}");
    }
}

#[test]
fn two_orchestrators_one_service() {
    let name = "two_orchestrators_one_service";
    if let Some(missing) = ["curl", "prosody", "setpriv"].into_iter().find(|program| !installed(program)) {
        return skip(name, &format!("{missing} is not installed"));
    }
    if let Err(why) = e2e::postgres::Postgres::start() {
        return skip(name, why);
    }
    let output = Command::new(root().join("examples/05-cluster/run"))
        .env("WPS_ORCHESTRATOR_BIN", binary("wps-orchestrator"))
        .env("WPS_REMOTE_AGENT_BIN", binary("wps-remote-agent"))
        .env("HTTP_PORT", free_port().to_string())
        .env("HTTP_PORT_2", free_port().to_string())
        .env("XMPP_PORT", free_port().to_string())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    for part in ["succeeded, says the second", "are taken over", "result: slept for 6 seconds"] {
        assert!(said.contains(part), "{part} is missing:\n{said}");
    }
}

#[test]
fn the_python_agents_are_kept() {
    if !installed("curl") {
        return skip("the_python_agents_are_kept", "curl is not installed");
    }
    let output = Command::new(root().join("examples/03-python-agent/run"))
        .env("WPS_ORCHESTRATOR_BIN", binary("wps-orchestrator"))
        .env("OLD_AGENT_BIN", binary("old-agent"))
        .env("HTTP_PORT", free_port().to_string())
        .env("XMPP_PORT", free_port().to_string())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    for part in ["default:Play", "\nHello\n", "default/Play@oldhost", "acknowledge a request", "result_roots"]
    {
        assert!(said.contains(part), "{part} is missing:\n{said}");
    }
}

#[test]
fn geoserver_is_kept() {
    let name = "geoserver_is_kept";
    if !installed("prosody") {
        return skip(name, "prosody is not installed");
    }
    let output = Command::new(root().join("examples/04-geoserver/run"))
        .env("WPS_REMOTE_AGENT_BIN", binary("wps-remote-agent"))
        .env("GEOSERVER_BIN", binary("geoserver-plugin"))
        .env("XMPP_PORT", free_port().to_string())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    for part in [
        "geoserver = yes",
        "registered: default:Hello by default@conference.geoserver.test/Hello@geoserver.test/master@",
        "result1: Hello, Ada",
        "no jobs left",
    ] {
        assert!(said.contains(part), "{part} is missing:\n{said}");
    }
    assert!(!said.contains("stumble"), "{said}");
}

#[test]
fn the_small_clients() {
    let name = "the_small_clients";
    if !installed("gdal_contour") {
        return skip(name, "GDAL is not installed (Debian: gdal-bin)");
    }
    e2e::run("clients", |site| {
        let orchestrator = site.orchestrator().start();
        let _agent = site.agent("a").service("gdal-contour").start();
        orchestrator.wait_for(&["gdal:Contour"]);
        let clients = root().join("examples/clients");
        let mut commands = Vec::new();
        if installed("curl") {
            commands.push(Command::new(clients.join("contour_curl")));
        } else {
            skip(name, "curl is not installed");
        }
        match python::owslib() {
            Ok(python) => {
                let mut command = Command::new(python);
                command.arg(clients.join("contour_owslib.py"));
                commands.push(command);
            }
            Err(why) => skip(name, &why),
        }
        for mut command in commands {
            let file = site.folder().join("contours.geojson");
            let output = command.arg(orchestrator.url()).arg("100").arg(&file).output().unwrap();
            let said = String::from_utf8_lossy(&output.stdout);
            assert!(
                output.status.success(),
                "{command:?}: {said}{}",
                String::from_utf8_lossy(&output.stderr)
            );
            let written = std::fs::read_to_string(&file).unwrap();
            assert!(written.contains("\"LineString\""), "{command:?}: {written:.200}");
            std::fs::remove_file(&file).unwrap();
        }
    });
}

#[test]
fn the_quickstart_leaves_no_process_behind() {
    let scratch = tempfile::tempdir().unwrap();
    let log = scratch.path().join("quickstart.log");
    let mut command = Command::new(binary("quickstart"));
    // Its own temporary folder lies in this one, so that its processes can be told from others.
    command.env("TMPDIR", scratch.path());
    let program = Program::start("quickstart", command, &log).unwrap();
    let ready = wait_until(Duration::from_secs(60), || {
        assert!(program.ended().is_none(), "it ended:\n{}", program.log());
        program.log().contains("Ctrl-C ends everything").then_some(())
    });
    assert!(ready.is_some(), "not ready:\n{}", program.log());
    let said = program.log();
    assert!(said.contains("100 %") && said.contains("result"), "{said}");

    // What it tells the user to try works, and a job that is running then goes with it.
    let curls: Vec<String> = said
        .lines()
        .filter_map(|line| line.trim().strip_prefix("curl '")?.strip_suffix('\'').map(str::to_owned))
        .collect();
    assert_eq!(curls.len(), 3, "{said}");
    for url in &curls {
        let (address, target) = url.strip_prefix("http://").unwrap().split_once('/').unwrap();
        let answer = e2e::http::Http::new(address.parse().unwrap()).get(&format!("/{target}")).unwrap();
        assert_eq!(answer.status, 200, "{url}: {}", answer.text());
    }
    let marker = scratch.path().to_string_lossy().into_owned();
    let running = wait_until(Duration::from_secs(20), || {
        processes_with(&marker).iter().any(|(_, line)| line.contains("sleep.sh")).then_some(())
    });
    assert!(running.is_some(), "the third curl starts no job:\n{}", program.log());
    let stopping = std::time::Instant::now();
    let status = program.stop();
    let stopping = stopping.elapsed();
    assert!(status.success(), "{status}\n{}", program.log());
    let gone = wait_until(Duration::from_secs(5), || processes_with(&marker).is_empty().then_some(()));
    assert!(gone.is_some(), "left behind: {:?}", processes_with(&marker));
    assert!(!program.log().contains("ERROR"), "{}", program.log());
    // A job that does not end at the first word keeps the program waiting; it says for what.
    let silent = program.log().contains("stopping: running jobs are asked to end");
    let quick = stopping < Duration::from_millis(300);
    assert!(silent || quick, "{:?} without a word:\n{}", stopping, program.log());
}

#[test]
fn the_service_of_the_readme() {
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    let block = |begin: &str| {
        let start = readme.find(begin).unwrap_or_else(|| panic!("the README has no {begin}"));
        readme[start..].split("```").next().unwrap().to_owned()
    };
    e2e::run("readme", |site| {
        let orchestrator = site.orchestrator().start();
        let agent = site.agent("a").file("hello.sh", &block("#!/bin/sh\n# hello.sh")).start();
        agent.write("hello.ini", &block("; hello.ini"));
        orchestrator.wait_for(&["my:Hello"]);
        let mut wps = orchestrator.wps();
        for (input, greeting) in [("", "Hello, World"), ("name=Ada", "Hello, Ada")] {
            let answer = wps
                .get(&format!("request=Execute&identifier=my:Hello&DataInputs={input}&RawDataOutput=result"));
            assert_eq!(answer.text().trim(), greeting);
        }
        // What it says about the agent's own tools.
        let descriptor = agent.services().join("hello.ini");
        for (arguments, part) in
            [(&["check"][..], ""), (&["describe"][..], "Hello"), (&["try"][..], "Hello, World")]
        {
            let output =
                Command::new(binary("wps-remote-agent")).args(arguments).arg(&descriptor).output().unwrap();
            let said = String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success() && said.contains(part), "{arguments:?}: {said}{output:?}");
        }
        let output = Command::new(binary("wps-remote-agent"))
            .arg("try")
            .arg(&descriptor)
            .args(["--input", "name=Ada", "--dry-run", "--format", "json"])
            .output()
            .unwrap();
        let plan: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let argv: Vec<&str> =
            plan["argv"].as_array().unwrap().iter().filter_map(|word| word.as_str()).collect();
        assert_eq!(argv.last(), Some(&"--name=Ada"), "{plan}");
    });
}
