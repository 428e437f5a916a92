//! What `deploy` ships is what the programs take: the printed samples are theirs, the units are sound.

use std::fs;
use std::process::Command;

use e2e::program::binary;
use e2e::{installed, root, skip};

#[test]
fn the_samples_are_what_the_programs_print() {
    for (program, sample) in [("wps-orchestrator", "orchestrator.ini"), ("wps-remote-agent", "remote.config")]
    {
        let output = Command::new(binary(program)).arg("config").output().unwrap();
        assert!(output.status.success(), "{program} config: {}", String::from_utf8_lossy(&output.stderr));
        let printed = String::from_utf8(output.stdout).unwrap();
        let file = root().join("deploy/config").join(sample);
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(&file, &printed).unwrap();
        }
        let shipped = fs::read_to_string(&file).unwrap_or_default();
        assert!(
            shipped == printed,
            "{} is not what `{program} config` prints; UPDATE_GOLDEN=1 renews it",
            file.display()
        );
    }
}

#[test]
fn the_sample_of_the_orchestrator_passes_as_it_is() {
    let scratch = tempfile::tempdir().unwrap();
    let file = scratch.path().join("orchestrator.ini");
    fs::copy(root().join("deploy/config/orchestrator.ini"), &file).unwrap();
    let output =
        Command::new(binary("wps-orchestrator")).arg("--config").arg(&file).arg("check").output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    // The ports of the sample may be taken on this machine; the file itself must be sound.
    assert!(!said.contains("orchestrator.ini:"), "{said}");
}

#[test]
fn the_units_are_sound() {
    if !installed("systemd-analyze") {
        return skip("the_units_are_sound", "systemd-analyze is not installed");
    }
    let scratch = tempfile::tempdir().unwrap();
    for (unit, program) in
        [("wps-orchestrator.service", "wps-orchestrator"), ("wps-remote-agent.service", "wps-remote-agent")]
    {
        let text = fs::read_to_string(root().join("deploy/systemd").join(unit)).unwrap();
        let here = text.replace(&format!("/usr/bin/{program}"), &binary(program).to_string_lossy());
        let file = scratch.path().join(unit);
        fs::write(&file, here).unwrap();
        let output =
            Command::new("systemd-analyze").arg("verify").arg("--man=no").arg(&file).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        let ours: Vec<&str> = said.lines().filter(|line| line.contains(unit)).collect();
        assert!(ours.is_empty(), "{ours:?}");
    }
}

#[test]
fn the_units_are_hardened_and_tell_how_they_are() {
    for unit in ["wps-orchestrator.service", "wps-remote-agent.service"] {
        let file = root().join("deploy/systemd").join(unit);
        let text = fs::read_to_string(&file).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        for line in
            ["Type=notify", "NotifyAccess=main", "WatchdogSec=60", "ExecReload=/bin/kill -HUP $MAINPID"]
        {
            assert!(lines.contains(&line), "{unit}: {line}");
        }
        if unit == "wps-remote-agent.service" {
            assert!(lines.contains(&"KillMode=process"), "supervisors must outlive the agent");
        }
        if !installed("systemd-analyze") {
            skip("the_units_are_hardened_and_tell_how_they_are", "systemd-analyze is not installed");
            continue;
        }
        // Exposure from 0.0 to 10.0; the agent's jobs need more than the orchestrator.
        let most = if unit == "wps-orchestrator.service" { "20" } else { "30" };
        let output = Command::new("systemd-analyze")
            .args(["security", "--offline=yes", "--no-pager", "--threshold", most])
            .arg(&file)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        if errors.contains("unrecognized option") {
            skip("the_units_are_hardened_and_tell_how_they_are", "this systemd-analyze works online only");
            continue;
        }
        assert!(output.status.success(), "{unit}: {} {errors}", said.lines().last().unwrap_or_default());
    }
}
