//! The two programs as services of their host: what the service manager hears, what operators can ask, what a reload changes,
//! and that no secret is ever written down.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::{Duration, Instant};

use e2e::client::{Execute, Status};
use e2e::fixtures::descriptor;
use e2e::http::base64;
use e2e::program::binary;
use e2e::wait_until;
use rustix::process::Signal;

const LONG: Duration = Duration::from_secs(20);
/// Runs until the file `go` appears beside it.
const UNTIL_TOLD: &str = "#!/bin/sh\necho 'progress: 50'\nuntil [ -e \"$(dirname \"$0\")/go\" ]; do sleep 0.05; done\necho done > result.txt\n";

/// A stand-in for systemd's end of sd_notify(3).
struct Manager {
    socket: UnixDatagram,
}

impl Manager {
    fn at(path: &Path) -> Self {
        let socket = UnixDatagram::bind(path).expect("the path is free");
        socket.set_read_timeout(Some(Duration::from_millis(200))).expect("a socket takes a time limit");
        Self { socket }
    }

    /// Everything up to and with the first message that contains this line.
    fn until(&self, wanted: &str) -> Vec<String> {
        let mut heard = Vec::new();
        let mut buffer = [0; 4096];
        let end = Instant::now() + LONG;
        while Instant::now() < end {
            let Ok(length) = self.socket.recv(&mut buffer) else { continue };
            let message = String::from_utf8_lossy(&buffer[..length]).into_owned();
            let found = message.lines().any(|line| line.contains(wanted));
            heard.push(message);
            if found {
                return heard;
            }
        }
        panic!("waited in vain for {wanted}; heard {heard:?}");
    }
}

#[test]
fn a_service_manager_hears_how_the_agent_is() {
    e2e::run("agent-notify", |site| {
        site.expect_warning("take effect after a restart: agent_name");
        site.expect_warning("capacity: `many` is not a number");
        let orchestrator = site.orchestrator().start();
        let path = site.folder().join("notify");
        let manager = Manager::at(&path);
        let agent = site
            .agent("a")
            .service("echo")
            .env("NOTIFY_SOCKET", &path.to_string_lossy())
            .env("WATCHDOG_USEC", "300000")
            .start();
        let begin = manager.until("READY=1");
        assert!(!begin.iter().any(|message| message.contains("STOPPING")), "{begin:?}");
        manager.until("STATUS=serving one orchestrator; 1 processes offered, 0 jobs running");
        orchestrator.wait_for(&["demo:Echo"]);
        let since = Instant::now();
        for _ in 0..5 {
            manager.until("WATCHDOG=1");
        }
        assert!(since.elapsed() < Duration::from_millis(5 * 300), "signs of life come too late");

        let sound = fs::read_to_string(agent.config_file()).unwrap();
        fs::write(agent.config_file(), format!("{sound}capacity = 7\nagent_name = other\n")).unwrap();
        agent.program().signal(Signal::HUP);
        let reload = manager.until("RELOADING=1");
        assert!(reload.last().unwrap().contains("MONOTONIC_USEC="), "{reload:?}");
        manager.until("READY=1");
        let log = agent.program().log();
        assert!(log.contains("configuration read again; changed: capacity"), "{log}");
        assert!(agent.operator("status", &[]).1.contains("0 of 7 units in use"));

        fs::write(agent.config_file(), format!("{sound}capacity = many\n")).unwrap();
        let (code, said) = agent.operator("reload", &[]);
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains("`many` is not a number"), "{said}");
        manager.until("READY=1");
        fs::write(agent.config_file(), &sound).unwrap();
        assert!(agent.operator("status", &[]).1.contains("0 of 7 units in use"), "a fault changes nothing");
        assert_eq!(agent.operator("reload", &[]), (Some(0), "changed: capacity\n".to_owned()));
        agent.stop();
        manager.until("STOPPING=1");
    });
}

#[test]
fn a_service_manager_hears_how_the_orchestrator_is() {
    e2e::run("orchestrator-notify", |site| {
        site.expect_warning(
            "SIGHUP: the configuration is sound; changes in [limits] take effect after a restart",
        );
        site.expect_warning("the configuration has a fault, a restart would fail");
        let path = site.folder().join("notify");
        let manager = Manager::at(&path);
        let orchestrator = site
            .orchestrator()
            .env("NOTIFY_SOCKET", &path.to_string_lossy())
            .env("WATCHDOG_USEC", "300000")
            .start();
        manager.until("READY=1");
        for _ in 0..3 {
            manager.until("WATCHDOG=1");
        }
        let _agent = site.agent("a").service("echo").start();
        manager.until("STATUS=1 agents, 0 jobs, 0 of them waiting");
        let sound = fs::read_to_string(orchestrator.config_file()).unwrap();
        fs::write(orchestrator.config_file(), format!("{sound}\n[limits]\nmax_queued = 5\n")).unwrap();
        orchestrator.program().signal(Signal::HUP);
        manager.until("RELOADING=1");
        manager.until("READY=1");
        assert!(orchestrator.program().log().contains("changes in [limits] take effect after a restart"));
        fs::write(orchestrator.config_file(), format!("{sound}\n[limits]\nmax_queued = lots\n")).unwrap();
        orchestrator.program().signal(Signal::HUP);
        manager.until("READY=1");
        assert!(orchestrator.program().log().contains("a restart would fail"));
        fs::write(orchestrator.config_file(), sound).unwrap();
        orchestrator.wait_for(&["demo:Echo"]);
        orchestrator.program().signal(Signal::HUP);
        manager.until("READY=1");
    });
}

#[test]
fn a_drained_agent_finishes_its_jobs_and_takes_no_new_ones() {
    e2e::run("drain", |site| {
        site.expect_warning("test:Victim");
        site.expect_warning("the agent is draining and takes no new jobs");
        let orchestrator = site.orchestrator().start();
        let agent = site
            .agent("a")
            .file("victim.ini", &descriptor("Victim", "victim.sh", ""))
            .file("victim.sh", UNTIL_TOLD)
            .start();
        orchestrator.wait_for(&["test:Victim"]);
        let mut wps = orchestrator.wps();
        let running = wps.submit(&Execute::new("test:Victim").stored());
        wps.wait_until(&running, LONG, |status| *status == Status::Started(50));
        let (code, said) = agent.operator("status", &[]);
        assert_eq!(code, Some(0), "{said}");
        for part in ["takes new jobs  yes", "test:Victim", "running", "  50  "] {
            assert!(said.contains(part), "{part}: {said}");
        }

        let (code, said) = agent.operator("drain", &[]);
        assert_eq!((code, said.as_str()), (Some(0), "the agent takes no new jobs; 1 run\n"));
        let refused =
            wait_until(LONG, || agents(&orchestrator).contains("no: the agent is draining").then_some(()));
        assert!(refused.is_some(), "{}", agents(&orchestrator));
        let waiting = wps.submit(&Execute::new("test:Victim").stored());
        let told = wait_until(LONG, || {
            let text = wps.fetch(&waiting).text();
            text.contains("takes new work now (a@").then_some(text)
        });
        assert!(told.is_some_and(|text| text.contains("is draining")), "{}", wps.fetch(&waiting).text());
        assert!(orchestrator.program().log().contains("agent takes no new work: the agent is draining"));

        // A restart must not open a host that an administrator has closed.
        let agent = agent.stop_and_restart();
        orchestrator.wait_for(&["test:Victim"]);
        let taken_over =
            wait_until(LONG, || agent.operator("status", &[]).1.contains("running ").then_some(()));
        assert!(taken_over.is_some());
        assert!(agent.operator("status", &[]).1.contains("takes new jobs  no: the agent is draining"));

        let mut drained = std::process::Command::new(binary("wps-remote-agent"))
            .args(["drain", "--wait", "--config"])
            .arg(agent.config_file())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        assert!(drained.try_wait().unwrap().is_none());
        fs::write(agent.services().join("go"), "").unwrap();
        assert_eq!(wps.wait(&running), Status::Succeeded);
        let output = drained.wait_with_output().unwrap();
        assert!(output.status.success());
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(said.ends_with("the agent takes no new jobs and has none\n"), "{said}");
        assert!(!wps.status(&waiting).is_final(), "it waits as long as the agent is drained");
        let (code, said) = agent.operator("drain", &["--undo"]);
        assert_eq!((code, said.as_str()), (Some(0), "the agent takes new jobs\n"));
        assert_eq!(wps.wait(&waiting), Status::Succeeded);

        let socket = site.folder().join("a/running/control.sock");
        assert_eq!(fs::metadata(socket).unwrap().permissions().mode() & 0o777, 0o600);
        let file = agent.config_file().to_owned();
        agent.stop();
        let output = std::process::Command::new(binary("wps-remote-agent"))
            .args(["status", "--config"])
            .arg(file)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains("no agent answers at"), "{said}");
    });
}

fn agents(orchestrator: &e2e::orchestrator::Orchestrator<'_>) -> String {
    let output = std::process::Command::new(binary("wps-orchestrator"))
        .arg("--config")
        .arg(orchestrator.config_file())
        .arg("agents")
        .output()
        .expect("the orchestrator's program can be started");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn a_weight_command_decides_what_a_job_takes() {
    e2e::run("weight-command", |site| {
        site.expect_warning("test:Victim");
        let orchestrator = site.orchestrator().start();
        let weighed = descriptor("Victim", "victim.sh", "")
            .replace("[Options]", "[Options]\nweight_command = weigh.sh");
        assert!(weighed.contains("weight_command"), "{weighed}");
        let agent = site
            .agent("a")
            .config("capacity = 10")
            .file("victim.ini", &weighed)
            .file("victim.sh", UNTIL_TOLD)
            .file("weigh.sh", "#!/bin/sh\ngrep -q test:Victim && echo 6\n")
            .start();
        orchestrator.wait_for(&["test:Victim"]);
        let mut wps = orchestrator.wps();
        let first = wps.submit(&Execute::new("test:Victim").stored());
        wps.wait_until(&first, LONG, |status| *status == Status::Started(50));
        assert!(agent.operator("status", &[]).1.contains("6 of 10 units in use"));
        let second = wps.submit(&Execute::new("test:Victim").stored());
        let told = wait_until(LONG, || {
            wps.fetch(&second).text().contains("capacity 10 has 4 units left, 6 are needed").then_some(())
        });
        assert!(told.is_some(), "{}", wps.fetch(&second).text());
        fs::write(agent.services().join("go"), "").unwrap();
        assert_eq!(wps.wait(&first), Status::Succeeded);
        assert_eq!(wps.wait(&second), Status::Succeeded);
    });
}

#[test]
fn no_secret_is_ever_written_down() {
    e2e::run("secrets", |site| {
        // At this level the libraries warn of whatever they like.
        site.expect_warning("");
        let orchestrator = site.orchestrator().env("WPS_ORCHESTRATOR_LOG", "trace").start();
        let spy = "#!/bin/sh\nenv\necho done > result.txt\n";
        let builder =
            site.agent("a").file("victim.ini", &descriptor("Victim", "victim.sh", "")).file("victim.sh", spy);
        // From the file into a credential, as systemd would hand it over; the upload password stays.
        let credentials = site.make_folder("credentials");
        let agent = builder
            .config("[UPLOADER]\nuploader_class_name = sftp\nuploader_host = h\nuploader_username = u\nuploader_password = upload-s3cret")
            .env("CREDENTIALS_DIRECTORY", &credentials.to_string_lossy())
            .env("SOME_NAME", "upload-s3cret")
            .argument("-vv")
            .start();
        orchestrator.wait_for(&["test:Victim"]);
        let config = fs::read_to_string(agent.config_file()).unwrap();
        let secret = |key: &str| {
            let line = config.lines().find_map(|line| line.strip_prefix(key)?.trim_start().strip_prefix('='));
            line.map(|value| value.trim().to_owned()).unwrap_or_else(|| panic!("{key} in {config}"))
        };
        let (password, room) = (secret("password"), secret("mucServicePassword"));
        fs::write(credentials.join("password"), format!("{password}\n")).unwrap();
        let agent = agent.stop_and_restart();
        orchestrator.wait_for(&["test:Victim"]);
        let mut wps = orchestrator.wps();
        let job = wps.submit(&Execute::new("test:Victim").stored());
        assert_eq!(wps.wait(&job), Status::Succeeded);
        for command in ["status", "reload"] {
            let (_, said) = agent.operator(command, &[]);
            assert!(!said.contains(&password) && !said.contains("upload-s3cret"), "{said}");
        }
        let log = agent.program().log();
        assert!(
            log.contains("unused-secret") || log.contains("is not used: the credential `password`"),
            "{log}"
        );
        assert!(log.contains("an upload password stands in this file"));
        // SASL PLAIN (RFC 4616) says it in base64.
        let plain = base64(format!("\0a\0{password}").as_bytes());
        let forbidden =
            [password.clone(), room, "upload-s3cret".to_owned(), base64(password.as_bytes()), plain];
        let own = [
            agent.config_file().to_owned(),
            orchestrator.config_file().to_owned(),
            credentials.join("password"),
        ];
        let mut looked = 0;
        each_file(site.folder(), &mut |path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if own.iter().any(|file| file == path) || name == "room-password" {
                return;
            }
            looked += 1;
            let bytes = fs::read(path).unwrap_or_default();
            for secret in &forbidden {
                let found = bytes.windows(secret.len()).position(|window| window == secret.as_bytes());
                if let Some(at) = found {
                    let around = &bytes[at.saturating_sub(200)..(at + secret.len()).min(bytes.len())];
                    panic!("{} holds {secret}: {}", path.display(), String::from_utf8_lossy(around));
                }
            }
        });
        assert!(looked >= 3, "logs were looked at");
    });
}

fn each_file(folder: &Path, look: &mut dyn FnMut(&Path)) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => each_file(&entry.path(), look),
            Ok(kind) if kind.is_file() => look(&entry.path()),
            _ => {}
        }
    }
}
