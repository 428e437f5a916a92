//! The commands of the terminal as a user or a CI job meets them: the real program, its answers and its exit codes.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value as Json;

const AGENT: &str = env!("CARGO_BIN_EXE_wps-remote-agent");

const RULES: &str = "[Description]\nservice = Slow\nnamespace = demo\nexecutable = /bin/true\n\
    [Output]\nr = {}\n[Logging]\nrule.1 = progress (\\d+)%\nrule.2 = log \\[(\\w+)\\] (.*)\nrule.3 = abort FATAL (.*)\n";

struct Answer {
    code: i32,
    out: String,
    err: String,
}

impl Answer {
    fn json(&self) -> Json {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {} {}", self.out, self.err))
    }
}

fn call(folder: &Path, args: &[&str]) -> Answer {
    let output = Command::new(AGENT).args(args).current_dir(folder).env("TMPDIR", folder).output().unwrap();
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    Answer { code: output.status.code().unwrap(), out: text(&output.stdout), err: text(&output.stderr) }
}

fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

fn codes(list: &Json) -> Vec<&str> {
    list.as_array().unwrap().iter().map(|finding| finding["code"].as_str().unwrap()).collect()
}

#[test]
fn every_answer_to_a_program_is_json_wrong_calls_included() {
    let folder = folder(&[("a.ini", RULES), ("bad.config", "[DEFAULT]\nport = x\n"), ("inputs.json", "[1]")]);
    let wrong: [(&[&str], i32, &str); 8] = [
        (&["check", "/nowhere/x.ini"], 2, "WrongCall"),
        (&["check", "a.ini", "--nonsense"], 2, "WrongCall"),
        (&["check", "a.ini", "-r", "bad.config"], 100, "BadConfiguration"),
        (&["describe", "/nowhere"], 2, "WrongCall"),
        (&["try", "--dry-run", "/nowhere/x.ini"], 2, "WrongCall"),
        (&["try", "--dry-run", "a.ini", "--inputs", "inputs.json"], 2, "WrongCall"),
        (&["try", "--dry-run", "a.ini", "--input", "x"], 2, "WrongCall"),
        (&["check", ".", "--log", "a.ini"], 2, "WrongCall"),
    ];
    for (args, code, name) in wrong {
        let answer = call(folder.path(), &[args, &["--format", "json"]].concat());
        assert_eq!(answer.code, code, "{args:?}: {} {}", answer.out, answer.err);
        let json = answer.json();
        assert_eq!(json["error"]["code"], name, "{args:?}");
        assert!(json["error"]["why"].as_str().is_some_and(|why| !why.is_empty()), "{json}");
        assert!(json["error"]["findings"].is_array() && json["error"]["locator"].is_null(), "{json}");
        // For people the same is one text on standard error.
        let answer = call(folder.path(), args);
        assert_eq!((answer.code, answer.out.as_str()), (code, ""), "{args:?}");
        assert!(!answer.err.is_empty());
    }
    let empty = tempfile::tempdir().unwrap();
    let answer = call(empty.path(), &["check", "--format=json"]);
    assert_eq!((answer.code, &answer.json()["error"]["code"]), (1, &"NothingFound".into()));
}

#[test]
fn the_doctor_names_place_and_remedy_of_what_will_go_wrong() {
    let shell = "[DEFAULT]\nservice = Danger\nnamespace = demo\ndescription = d\nactive = true\n\
        max_running_time_seconds = 60\nexecutable_path = /nowhere/at/all\nexecutable_cmd = /bin/sh -c\n\
        output_dir = /dev/null/x\nworkdir = %(output_dir)s/%(unique_exe_id)s\n\
        [Input1]\nclass = param\nname = code\ntype = string\ndescription = d\n\
        [Action1]\nclass = cmdline\ninput_ref = code\ntemplate = value\n\
        [Output1]\nname = result\ntype = string\nfilepath = %(workdir)s/r\n";
    let missing = RULES.replace("/bin/true", "greet.pl");
    let folder = folder(&[("a.ini", &missing), ("b.ini", RULES), ("c.config", shell), ("greet.py", "")]);
    let answer = call(folder.path(), &["check", ".", "--format", "json"]);
    assert_eq!(answer.code, 0, "{} {}", answer.out, answer.err);
    let json = answer.json();
    let file = |name: &str| {
        let found =
            json.as_array().unwrap().iter().find(|file| file["file"].as_str().unwrap().ends_with(name));
        found.unwrap().clone()
    };
    let a = file("a.ini");
    assert_eq!(codes(&a["warnings"]), ["program-missing"]);
    assert!(a["warnings"][0]["remedy"].as_str().unwrap().contains("did you mean `greet.py`"), "{a}");
    assert!(a["warnings"][0]["place"].as_str().unwrap().ends_with("a.ini:4"), "{a}");
    assert_eq!(codes(&file("b.ini")["warnings"]), ["duplicate-service"]);
    let c = file("c.config");
    for code in ["value-as-code", "folder-missing", "folder-unwritable"] {
        assert!(codes(&c["warnings"]).contains(&code), "{code}: {c}");
    }
    for member in
        ["file", "kind", "usable", "dialect", "process", "active", "description", "sample", "held", "keys"]
    {
        assert!(c.get(member).is_some(), "{member}");
    }
    let answer = call(folder.path(), &["check", ".", "--strict"]);
    assert_eq!(answer.code, 1);
    assert!(
        answer.out.contains("c.config:16: [Action1]: `sh` reads the value of `code` as code"),
        "{}",
        answer.out
    );
}

#[test]
fn the_agents_configuration_is_looked_at_too() {
    use std::os::unix::fs::PermissionsExt;
    let config =
        "[DEFAULT]\ndomain = example.org\nuser = a\npassword = s3cret\nresource_file_dir = /dev/null/x\n";
    let folder = folder(&[("a.ini", RULES), ("remote.config", config)]);
    let path = folder.path().join("remote.config");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    for args in [
        &["check", "a.ini", "-r", "remote.config", "--format", "json"][..],
        &["check", "remote.config", "--format", "json"],
    ] {
        let answer = call(folder.path(), args);
        let json = answer.json();
        assert_eq!(json[0]["kind"], "configuration", "{json}");
        let found = codes(&json[0]["warnings"]);
        assert!(found.contains(&"readable-by-all") && found.contains(&"folder-unwritable"), "{json}");
        assert!(!answer.out.contains("s3cret"), "{}", answer.out);
    }
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    assert!(!call(folder.path(), &["check", "remote.config"]).out.contains("readable-by-all"));
    // Under any name: it is known by what is in it.
    fs::rename(&path, folder.path().join("agent-7.config")).unwrap();
    let answer = call(folder.path(), &["check", "agent-7.config", "--format", "json"]);
    assert_eq!(answer.json()[0]["kind"], "configuration", "{}", answer.out);
}

#[test]
fn a_log_is_tried_on_the_rules_in_any_encoding_and_of_any_length() {
    let folder = folder(&[("a.ini", RULES)]);
    fs::write(folder.path().join("old.log"), b"start\n10%\r20%\r30%\n[INFO] caf\xe9\n").unwrap();
    let args = ["check", "a.ini", "--log", "old.log", "--encoding", "latin1"];
    let answer = call(folder.path(), &args);
    assert_eq!(answer.code, 0, "{}", answer.err);
    for part in [
        "2.3  rule 1   progress 30 %",
        "3  rule 2   log INFO",
        "| [INFO] café",
        "3 x rule 1",
        "never matched: rule 3",
    ] {
        assert!(answer.out.contains(part), "{part} not in\n{}", answer.out);
    }
    let answer = call(folder.path(), &[&args[..], &["--format", "json", "--strict"]].concat());
    assert_eq!(answer.code, 1, "a rule never matched");
    let json = answer.json();
    assert_eq!(json["lines"].as_array().unwrap().len(), 5, "{json}");
    assert_eq!(
        json["lines"][3],
        serde_json::json!({
            "line": 2, "part": 3, "rule": 1, "result": "progress", "percent": 30.0, "level": null, "said": null,
            "text": "30%",
        })
    );
    assert_eq!((&json["unmatched"], &json["never_matched"]), (&1.into(), &serde_json::json!([3])));
    assert_eq!(json["rules"][0]["line"], 8);

    // 64 MiB through a pipe in little memory: the process may have no more than 40 MiB of address space for data.
    let mut child = Command::new("sh")
        .args(["-c", "ulimit -d 40960; exec \"$0\" check a.ini --log - --summary", AGENT])
        .current_dir(folder.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut to = child.stdin.take().unwrap();
    let block = format!("50%\r{}\n", "a long line ".repeat(160)).repeat(512);
    let rounds = 64 * 1024 * 1024 / block.len();
    for _ in 0..rounds {
        to.write_all(block.as_bytes()).unwrap();
    }
    drop(to);
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}");
    assert!(said.contains(&format!("{} x rule 1", rounds * 512)), "{said}");
}

#[test]
fn a_trial_run_leaves_nothing_behind_unless_it_is_told_to() {
    use std::os::unix::fs::PermissionsExt;
    let text = "[Description]\nservice = Echo\nnamespace = demo\nexecutable = say.sh\n[Output]\nr = {\"file\": \"r\"}\n";
    let folder = folder(&[("a.ini", text), ("say.sh", "ls -ld ../.. > r\n")]);
    let left = || -> Vec<_> {
        let all = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
        all.filter(|path| path.is_dir()).collect()
    };
    let answer = call(folder.path(), &["try", "a.ini"]);
    assert_eq!(answer.code, 0, "{} {}", answer.out, answer.err);
    assert!(answer.out.contains("drwx------"), "{}", answer.out);
    assert!(left().is_empty(), "{:?}", left());
    call(folder.path(), &["try", "a.ini", "--dry-run"]);
    assert!(left().is_empty(), "{:?}", left());
    let answer = call(folder.path(), &["try", "a.ini", "--keep"]);
    let kept = left();
    assert!(kept.len() == 1 && answer.out.contains(kept[0].to_str().unwrap()), "{} {kept:?}", answer.out);
    assert_eq!(fs::metadata(&kept[0]).unwrap().permissions().mode() & 0o777, 0o700);
}

#[test]
fn descriptors_are_written_anew_and_nothing_is_overwritten_unasked() {
    let old = "[DEFAULT]\nservice = Old\nnamespace = n\ndescription = caf\u{e9}\nactive = yes\nexecutable_path = /tmp\n\
        max_running_time_seconds = 9\nexecutable_cmd = /bin/true\nworkdir = %(output_dir)s/%(unique_exe_id)s\n\
        [Output1]\nname = result\ntype = string\nfilepath = r.txt\n";
    let folder = folder(&[("a.ini", RULES), ("broken.ini", "[Description]\nservice = X\n")]);
    let latin: Vec<u8> = old.chars().map(|c| c as u8).collect();
    fs::create_dir(folder.path().join("sub")).unwrap();
    fs::write(folder.path().join("sub/old.config"), latin).unwrap();
    let answer = call(folder.path(), &["migrate", "a.ini"]);
    assert_eq!(answer.code, 0, "{}", answer.err);
    assert!(answer.out.starts_with("# a.ini, from dialect B"), "{}", answer.out);
    assert!(answer.out.contains("rule.2 = log \\[(\\w+)\\] (.*)"), "{}", answer.out);
    let write = ["migrate", "sub/old.config", "-o", "new.config", "--encoding", "latin1"];
    assert_eq!(call(folder.path(), &write).code, 0);
    let new = fs::read_to_string(folder.path().join("new.config")).unwrap();
    assert!(new.contains("description = café") && new.contains("active = false"), "{new}");
    assert!(new.contains("(active-not-boolean)"), "{new}");
    assert_eq!(call(folder.path(), &["check", "new.config", "--strict"]).code, 0);
    let answer = call(folder.path(), &write);
    assert!(answer.code == 1 && answer.err.contains("--force"), "{}", answer.err);
    assert_eq!(call(folder.path(), &[&write[..], &["--force"]].concat()).code, 0);
    assert_eq!(call(folder.path(), &["migrate", "."]).code, 2, "a folder needs a folder");
    fs::remove_file(folder.path().join("new.config")).unwrap();
    let answer =
        call(folder.path(), &["migrate", ".", "-o", "out", "--encoding", "latin1", "--format", "json"]);
    assert_eq!(answer.code, 1, "one is broken");
    let json = answer.json();
    let done: Vec<bool> =
        json.as_array().unwrap().iter().map(|file| file["migrated"].as_bool().unwrap()).collect();
    assert_eq!(done, [true, false, true], "{json}");
    assert!(
        folder.path().join("out/sub/old.config").exists()
            && !folder.path().join("out/broken.config").exists()
    );
}
