//! The real Python agent, unmodified, from its package: one job to its end and one that is dismissed. Its package is
//! installed into a temporary folder when the test runs; without Python 2.7, Prosody or the package the test is skipped.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, and so do its helpers")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use e2e::bus::Login;
use e2e::client::{Execute, Status};
use e2e::program::{Program, processes_with};
use e2e::xmpp::Prosody;

const NAME: &str = "the_real_python_agent";
/// A short job is told of after some 14 s: its first completion comes before its process is in the room.
const LONG: Duration = Duration::from_secs(90);

fn python() -> Command {
    let mut python = Command::new("python2.7");
    // Where several versions are managed by pyenv, one must be named.
    if std::env::var_os("PYENV_VERSION").is_none() {
        python.env("PYENV_VERSION", "2.7.18");
    }
    python
}

/// The folder of the agent's package, or why there is none.
fn package() -> Result<PathBuf, String> {
    if let Some(folder) = std::env::var_os("WPS_PYTHON_AGENT") {
        return Ok(folder.into());
    }
    let works = python().arg("--version").output().is_ok_and(|output| output.status.success());
    if !works {
        return Err("Python 2.7 is not installed".to_owned());
    }
    let folder = std::env::temp_dir().join("wps-remote-2.15.0-python2.7");
    let done = folder.join("installed");
    if !done.exists() {
        let mut pip = python();
        pip.args(["-m", "pip", "install", "--quiet", "--target"]).arg(&folder).arg("wps-remote==2.15.0");
        let output = pip.output().map_err(|error| error.to_string())?;
        if !output.status.success() {
            return Err("the package wps-remote 2.15.0 cannot be installed here".to_owned());
        }
        std::fs::write(&done, "").map_err(|error| error.to_string())?;
    }
    Ok(folder)
}

/// The files of an agent with one service, whose program says something, waits and writes a file.
fn write_agent(folder: &Path, login: &Login, tls_port: u16) {
    let shown = folder.display();
    let write = |name: &str, text: &str| std::fs::write(folder.join(name), text).unwrap();
    std::fs::create_dir_all(folder.join("work")).unwrap();
    std::fs::create_dir_all(folder.join("pids")).unwrap();
    write(
        "remote.config",
        &format!(
            "[DEFAULT]\nbus_class_name = xmppBus.XMPPBus\nport = {tls_port}\naddress = 127.0.0.1\ndomain = {}\nuser = {}\n\
             password = {}\nmucService = {}\nmucServicePassword = {}\nresource_file_dir = {shown}/pids\n[UPLOADER]\n",
            login.domain, login.user, login.password, login.muc_domain, login.room_password
        ),
    );
    write(
        "service.config",
        &format!(
            "[DEFAULT]\nservice = Real\nnamespace = default\ndescription = The real agent\nexecutable_path = {shown}\n\
             executable_cmd = /bin/sh {shown}/real.sh\noutput_dir = {shown}/work\nunique_execution_id = %(unique_exe_id)s\n\
             workdir = %(output_dir)s/%(unique_execution_id)s\nactive = True\nmax_running_time_seconds = 300\n\n\
             [Input1]\nclass = param\nname = seconds\ntitle = Seconds\ntype = int\ndescription = How long\nmin = 1\nmax = 1\n\
             default = 8\n\n\
             [Const1]\nclass = const\nname = workdir\ntype = string\ndescription = Folder\nvalue = %(workdir)s\n\n\
             [Action1]\nclass = cmdline\ninput_ref = seconds\nalias = s\ntemplate = -name value\n\n\
             [Action2]\nclass = cmdline\ninput_ref = workdir\nalias = w\ntemplate = -name value\n\n\
             [Output1]\nname = result1\ntype = string\ndescription = Text\ntitle = Text\nfilepath = %(workdir)s/result.txt\n\n\
             [Logging]\nstdout_parser = [.*\\[DEBUG\\](.*), .*\\[(INFO)\\] ProgressInfo\\:([-+]?[0-9]*\\.?[0-9]*)\\%, .*\\[(INFO)\\](.*), .*\\[(ERROR)\\](.*)]\n\
             stdout_action = [ignore, progress, log, abort]\n"
        ),
    );
    write(
        "real.sh",
        "#!/bin/sh\n# -s SECONDS -w FOLDER\nmkdir -p \"$4\"\ni=0\nwhile [ $i -lt \"$2\" ]; do\n  i=$((i + 1))\n  \
         echo \"12:00:00 [INFO] second $i & 50% = fish\"\n  sleep 1\ndone\nprintf 'done after %s' \"$2\" > \"$4/result.txt\"\n",
    );
    // A Python 2.7 that was built with OpenSSL 3 speaks TLS 1.0 only when it is allowed to.
    write(
        "openssl.cnf",
        "openssl_conf = whole\n[whole]\nssl_conf = ssl\n[ssl]\nsystem_default = old\n[old]\nMinProtocol = TLSv1\n\
         CipherString = DEFAULT@SECLEVEL=0\n",
    );
    write(
        "logger.properties",
        "[loggers]\nkeys=root\n[handlers]\nkeys=console\n[formatters]\nkeys=plain\n[logger_root]\nlevel=DEBUG\nhandlers=console\n\
         [handler_console]\nclass=StreamHandler\nlevel=DEBUG\nformatter=plain\nargs=(sys.stdout,)\n\
         [formatter_plain]\nformat=%(asctime)s [%(levelname)s] %(message)s\n",
    );
}

#[test]
fn the_real_python_agent() {
    let package = match package() {
        Ok(package) => package,
        Err(why) => return e2e::skip(NAME, &why),
    };
    let Some(prosody) = Prosody::start_for_python_agents() else {
        return e2e::skip(NAME, "prosody is not installed");
    };
    let tls_port = prosody.tls_port;
    e2e::run_on("python-agent", Box::new(prosody), |site| {
        // Killed, its socket lives on in the program that it started: a ghost in the room, which is noticed by its silence.
        site.expect_warning("does not tell its load any more");
        let lines = "[legacy]\nrooms = default\nagents = Real@*\nheartbeat_s = 2\ncpu_threshold = 100\nmemory_threshold = 100\n\
                     force_execution = true\n";
        let orchestrator = site.orchestrator().config(lines).start();
        let folder = site.make_folder("real");
        write_agent(&folder, &site.bus().login("svc-real"), tls_port);
        let mut agent = python();
        // The service process starts `python wpsagent.py` for each job, in this folder.
        let bin = site.make_folder("bin");
        let real = python().args(["-c", "import sys; print(sys.executable)"]).output().unwrap();
        let real = String::from_utf8(real.stdout).unwrap().trim().to_owned();
        std::os::unix::fs::symlink(&real, bin.join("python")).unwrap();
        let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap_or_default());
        agent
            .args(["wpsagent.py", "-r"])
            .arg(folder.join("remote.config"))
            .arg("-s")
            .arg(folder.join("service.config"))
            .arg("service")
            .current_dir(package.join("wpsremote"))
            .env("PYTHONPATH", &package)
            .env("OPENSSL_CONF", folder.join("openssl.cnf"))
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("PATH", path);
        let agent = Program::start("real", agent, &site.folder().join("python-agent.out")).unwrap();
        let offered = e2e::wait_until(LONG, || {
            assert!(agent.ended().is_none(), "the agent ended:\n{}", agent.tail());
            orchestrator
                .wps()
                .processes()
                .is_ok_and(|all| all.contains(&"default:Real".to_owned()))
                .then_some(())
        });
        assert!(offered.is_some(), "not offered:\n{}", agent.tail());
        let mut wps = orchestrator.wps();
        let request = |seconds: &str| Execute::new("default:Real").literal("seconds", seconds).stored();
        let location = wps.submit(&request("8"));
        let last = wps.wait_until(&location, LONG, Status::is_final);
        assert_eq!(last, Status::Succeeded, "{}", agent.tail());
        let text = wps.fetch(&location);
        assert!(text.text().contains("done after 8"), "{}", text.text());
        // A dismissal, once its process is in the room.
        let location = wps.submit(&request("20"));
        wps.wait_until(&location, LONG, |status| matches!(status, Status::Started(_)));
        assert_eq!(wps.dismiss(&location).status, 200);
        let last = wps.wait(&location);
        assert!(
            matches!(&last, Status::Failed(text) if text.to_lowercase().contains("dismissed")),
            "{last:?}"
        );
        agent.kill();
        // Nobody ended the program: that is what the job's log says of such agents. It runs to its end.
        let script = folder.join("real.sh").display().to_string();
        let ended = e2e::wait_until(LONG, || processes_with(&script).is_empty().then_some(()));
        assert!(ended.is_some(), "{:?}", processes_with(&script));
    });
}
