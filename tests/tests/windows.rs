//! A Windows agent under wine that serves a Linux orchestrator over Prosody: arguments, dismissal, and a hard kill of the
//! agent while its jobs run. `tests/windows/run` builds the agent and the jobs' program for Windows and starts these tests; by
//! themselves they have nothing to start.

use std::path::PathBuf;
use std::time::Duration;

use e2e::Site;
use e2e::agent::Agent;
use e2e::client::{Execute, Status, execution_id};
use e2e::program::processes_with;
use e2e::xmpp::Prosody;

/// Everything takes longer under wine.
const LONG: Duration = Duration::from_secs(90);
const WHY: &str = "tests/windows/run sets WPS_WINDOWS_PROGRAM and WPS_REMOTE_AGENT_BIN";

/// Runs a test on a site over Prosody, if that is installed.
fn over_prosody(name: &str, test: impl FnOnce(&Site)) {
    match Prosody::start() {
        Some(prosody) => e2e::run_on(name, Box::new(prosody), test),
        None => e2e::skip(name, "prosody is not installed"),
    }
}

/// A path of this system as wine shows it.
fn windows_path(path: &str) -> String {
    format!("Z:{}", path.replace('/', "\\"))
}

fn descriptor(service: &str, what: &str, file: Option<&str>) -> String {
    let program = windows_path(&std::env::var("WPS_WINDOWS_PROGRAM").expect(WHY));
    let second = match file {
        // A backslash is one in JSON only when there are two.
        Some(file) => {
            format!("file = {{\"type\": \"string\", \"const\": \"{}\"}}", file.replace('\\', "\\\\"))
        }
        None => "text = {\"type\": \"string\", \"default\": \"x\"}".to_owned(),
    };
    format!(
        "[Description]\nservice = {service}\nnamespace = test\ntitle = {service}\ndescription = For tests\n\
         executable = {program}\n\n[Options]\nargformat = --key=value\nmax_running_time_seconds = 300\n\n\
         [Input]\nwhat = {{\"type\": \"string\", \"const\": \"{what}\"}}\n{second}\n\n\
         [Output]\nresult = {{\"type\": \"text/plain\", \"file\": \"result.txt\"}}\n"
    )
}

/// Name of a job's folders.
fn folder_of(job: &str) -> String {
    execution_id(job).replace('-', "")
}

fn start<'a>(site: &'a Site, files: &[(&str, String)]) -> Agent<'a> {
    let mut builder = site.agent("win").config("kill_grace_seconds = 2");
    for (name, text) in files {
        builder = builder.file(name, text);
    }
    builder.start()
}

#[test]
#[ignore = "needs an agent for Windows: tests/windows/run"]
fn a_windows_agent_passes_every_argument_as_it_is() {
    over_prosody("windows-arguments", |site| {
        let orchestrator = site.orchestrator().start();
        let agent = start(site, &[("args.ini", descriptor("Args", "args", None))]);
        orchestrator.wait_until_offer(LONG, "the process of Windows", |offer| offer == ["test:Args"]);
        let mut wps = orchestrator.wps();
        for value in [
            "plain",
            "two words",
            r#"a "b" c"#,
            r"C:\dir with blank\",
            r#"\\"x\"#,
            "%PATH% ^& | > x",
            "für 日本",
        ] {
            let answer = wps.execute(&Execute::new("test:Args").literal("text", value).raw("result"));
            assert_eq!(answer.text(), format!("<--text={value}>"));
        }
        agent.kill();
    });
}

#[test]
#[ignore = "needs an agent for Windows: tests/windows/run"]
fn a_killed_windows_agent_takes_its_jobs_over_and_delivers_what_ended_meanwhile() {
    over_prosody("windows-killed", |site| {
        site.expect_warning("");
        let orchestrator = site.orchestrator().start();
        let release = |name: &str| site.folder().join(name);
        let waiting = |name: &str| {
            let release = windows_path(&release(name).to_string_lossy());
            descriptor(name, "wait", Some(&release))
        };
        let agent = start(site, &[("a.ini", waiting("During")), ("b.ini", waiting("After"))]);
        orchestrator.wait_until_offer(LONG, "the processes of Windows", |offer| offer.len() == 2);
        let mut wps = orchestrator.wps();
        let during = wps.submit(&Execute::new("test:During").stored());
        let after = wps.submit(&Execute::new("test:After").stored());
        for job in [&during, &after] {
            wps.wait_until(job, LONG, |status| matches!(status, Status::Started(_)));
        }
        let supervisors = |job: &str| {
            let mark = folder_of(job);
            processes_with("supervise").into_iter().filter(|(_, line)| line.contains(&mark)).count()
        };
        let both = || (supervisors(&during) == 1 && supervisors(&after) == 1).then_some(());
        assert!(e2e::wait_until(LONG, both).is_some(), "the jobs have no supervisors");

        let agent = agent.kill_and_restart_after(|| {
            // Both supervisors have outlived it; one job ends while no agent is there to see it.
            assert!(supervisors(&during) == 1 && supervisors(&after) == 1);
            std::fs::write(release("During"), "").expect("the temporary folder can be written to");
            let gone = e2e::wait_until(LONG, || (supervisors(&during) == 0).then_some(()));
            assert!(gone.is_some(), "the job without an agent did not end");
        });
        assert_eq!(wps.wait(&during), Status::Succeeded);
        assert!(!wps.status(&after).is_final());
        std::fs::write(release("After"), "").expect("the temporary folder can be written to");
        assert_eq!(wps.wait(&after), Status::Succeeded);
        agent.kill();
    });
}

#[test]
#[ignore = "needs an agent for Windows: tests/windows/run"]
fn a_dismissed_job_is_asked_first_and_ended_with_all_that_it_started() {
    over_prosody("windows-dismissed", |site| {
        let orchestrator = site.orchestrator().start();
        let mark = format!("mark-{}", std::process::id());
        let agent = start(
            site,
            &[
                ("a.ini", descriptor("Stubborn", "stubborn", Some(&mark))),
                ("b.ini", descriptor("Polite", "polite", None)),
            ],
        );
        orchestrator.wait_until_offer(LONG, "the processes of Windows", |offer| offer.len() == 2);
        let mut wps = orchestrator.wps();
        let stubborn = wps.submit(&Execute::new("test:Stubborn").stored());
        let alive = || processes_with(&mark).len();
        let started = e2e::wait_until(LONG, || (alive() == 3).then_some(()));
        assert!(started.is_some(), "the program and its two helpers do not run: {:?}", processes_with(&mark));
        wps.dismiss(&stubborn);
        let gone = e2e::wait_until(LONG, || (alive() == 0).then_some(()));
        assert!(gone.is_some(), "still there: {:?}", processes_with(&mark));

        let polite = wps.submit(&Execute::new("test:Polite").stored());
        wps.wait_until(&polite, LONG, |status| matches!(status, Status::Started(50..)));
        let folder: PathBuf = site.folder().join("win/work").join(folder_of(&polite));
        wps.dismiss(&polite);
        let asked = e2e::wait_until(LONG, || std::fs::read_to_string(folder.join("result.txt")).ok());
        assert_eq!(asked.as_deref(), Some("asked"));
        agent.kill();
    });
}
