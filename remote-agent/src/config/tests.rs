//! `remote.config`: old files, minimal files, faults.

use super::*;

fn parse(text: &str) -> Result<AgentConfig, IniError> {
    let env = |_: &str| None;
    let file = |path: &str| {
        if path == "/run/secret" { Ok("s3cret\n".to_owned()) } else { Err("no such file".into()) }
    };
    let around = Surroundings { env: &env, file: &file, credential: &|_| None };
    AgentConfig::parse(Path::new("/etc/wps/remote.config"), text.as_bytes(), &around, "node7")
}

#[test]
fn the_file_of_the_old_agent_loads_with_its_meaning() {
    let text = include_str!("../../tests/fixtures/descriptors/10-remote.config");
    let expected: serde_json::Value =
        serde_json::from_str(include_str!("../../tests/fixtures/descriptors/expected/10.legacy.json"))
            .unwrap();
    let config = parse(text).unwrap();
    assert_eq!(config.address, expected["address"].as_str().unwrap());
    assert_eq!(config.port.to_string(), expected["port"].as_str().unwrap());
    assert_eq!(config.tls, Tls::Direct, "port 5223");
    assert_eq!(config.user, expected["user"].as_str().unwrap());
    assert_eq!(
        config.password.expose(),
        expected["password"].as_str().unwrap(),
        "a lone per cent sign stays"
    );
    assert_eq!(config.muc_service, expected["mucservice"].as_str().unwrap());
    assert_eq!(
        config.muc_password.as_ref().unwrap().expose(),
        expected["mucservicepassword"].as_str().unwrap()
    );
    assert_eq!(config.resource_file_dir, Path::new(expected["resource_file_dir"].as_str().unwrap()));
    assert_eq!(config.work_root, Path::new("/var/lib/wps-agent/work"));
    assert_eq!((config.capacity, config.load_threshold, config.load_window.as_secs()), (100.0, 90.0, 300));
    assert_eq!(config.blacklist.len(), 2);
    assert_eq!(config.blacklist[0].cmdline.as_deref(), Some("VACUUM"));
    let uploader = config.uploader.as_ref().unwrap();
    assert_eq!(
        (uploader.kind, uploader.host.as_str(), uploader.port),
        (UploaderKind::Ftps, "files.example.org", 990)
    );
    assert!(config.geoserver, "no other file has bus_class_name");
    let codes: Vec<_> = config.warnings.iter().map(|warning| warning.code).collect();
    assert_eq!(codes, ["geoserver-served", "trust-moderators"], "what to improve is said");
    let shown = format!("{config:?}");
    for secret in ["change-me", "room-secret", "bm90IGEg", "not-a-real"] {
        assert!(!shown.contains(secret), "{secret}");
    }
}

#[test]
fn descriptors_may_be_in_another_encoding() {
    let text = "[DEFAULT]\ndomain = d\nuser = u\npassword = p\n";
    assert!(!parse(text).unwrap().load_context().latin1);
    assert!(parse(&format!("{text}descriptor_encoding = latin1\n")).unwrap().load_context().latin1);
    assert!(parse(&format!("{text}descriptor_encoding = ebcdic\n")).is_err());
}

#[test]
fn geoserver_is_served_where_it_was_before_or_where_it_is_wanted() {
    let check = |lines: &str, served: bool, warned: &[&str]| {
        let config = parse(&format!("[DEFAULT]\ndomain = d\nuser = u\npassword = p\n{lines}")).unwrap();
        assert_eq!(config.geoserver, served, "{lines}");
        let codes: Vec<_> = config.warnings.iter().map(|warning| warning.code).collect();
        assert_eq!(codes, warned, "{lines}");
    };
    check("", false, &[]);
    check("geoserver = yes\n", true, &[]);
    let old = "bus_class_name = xmppBus.XMPPBus\n";
    check(old, true, &["geoserver-served", "trust-moderators"]);
    check(&format!("{old}trusted_orchestrators = admin@d\n"), true, &["geoserver-served"]);
    check(&format!("{old}geoserver = no\n"), false, &[]);
}

#[test]
fn a_minimal_file_is_enough() {
    let config =
        parse("[DEFAULT]\ndomain = example.org\nuser = agent\npassword_file = /run/secret\n").unwrap();
    assert_eq!((config.address.as_str(), config.port, config.tls), ("example.org", 5222, Tls::StartTls));
    assert_eq!(config.password.expose(), "s3cret");
    assert_eq!(
        (config.muc_service.as_str(), config.management_room.as_str()),
        ("conference.example.org", "management")
    );
    assert_eq!((config.agent_name.as_str(), config.services_dir.as_path()), ("node7", Path::new("/etc/wps")));
    assert_eq!(config.resource_file_dir, Path::new("/etc/wps/running"));
    assert_eq!(config.trusted, Trusted::Moderators);
    assert_eq!(config.kill_grace.as_secs(), 10);
    assert!(config.interpreters.iter().any(|(extension, _)| extension == "py"));
}

#[test]
fn all_of_our_keys_are_read() {
    let text = "[DEFAULT]\ndomain=d\nuser=u\npassword=p\naddress=127.0.0.1\ntls = none\nallow_plaintext = true\n\
        trusted_orchestrators = boss@d, other@d\nallowed_paths = [/data, rel]\npath_map = D:\\share => /mnt/share\n\
        process_blacklist = [postgres, otb]\nmax_parallel_jobs = 3\ntls_fingerprint_sha256 = AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB\n\
        agent_name = north\n[Interpreters]\n.py = /opt/py/bin/python -u\n";
    let config = parse(text).unwrap();
    assert_eq!(config.tls, Tls::Plain);
    assert_eq!(config.trusted, Trusted::Addresses(vec!["boss@d".into(), "other@d".into()]));
    assert_eq!(config.allowed_paths, [Path::new("/data"), Path::new("/etc/wps/rel")]);
    assert_eq!(config.mapped("D:\\share\\a\\b.tif"), "/mnt/share/a/b.tif");
    assert_eq!(config.mapped("D:\\shared\\a"), "D:\\shared\\a");
    assert_eq!(config.blacklist[1].name.as_deref(), Some("otb"));
    assert_eq!(config.max_parallel_jobs, Some(3));
    assert_eq!(config.tls_fingerprint.as_deref(), Some("ab".repeat(32).as_str()));
    let python = config.interpreters.iter().find(|(extension, _)| extension == "py").unwrap();
    assert_eq!(python.1, ["/opt/py/bin/python", "-u"]);
}

#[test]
fn faults_name_line_key_and_remedy() {
    let check = |lines: &str, key: &str, part: &str| {
        let text = format!("[DEFAULT]\ndomain=d\nuser=u\npassword=p\n{lines}\n");
        let error = parse(&text).expect_err(lines);
        let found = error.findings.iter().find(|finding| finding.key.as_deref() == Some(key));
        let found = found.unwrap_or_else(|| panic!("{error}")).to_string();
        assert!(found.contains(part), "{found}");
    };
    check("port = 0", "port", "line 5: [DEFAULT] port: `0` is not between 1 and 65535");
    check("tls = none", "tls", "in clear");
    check("bus_class_name = zmq.Bus", "bus_class_name", "only the XMPP bus exists");
    check("password_file = /run/secret", "password", "more than once");
    check("process_blacklist = [{}]", "process_blacklist", "every process");
    check("allowed_paths = /", "allowed_paths", "root of the file system");
    check("path_map = /a", "path_map", "not a pair");
    check("tls_fingerprint_sha256 = 12", "tls_fingerprint_sha256", "64 hex digits");
    check("[UPLOADER]\nuploader_class_name = scp", "uploader_class_name", "write ftp, ftps, sftp or s3");
    check("[UPLOADER]\nuploader_class_name = ftp\nuploader_host=h", "uploader_class_name", "in clear");
    check("[UPLOADER]\nuploader_class_name = sftp", "uploader_host", "is required");
    let error = parse("[DEFAULT]\nuser=u\n").unwrap_err().to_string();
    assert!(error.contains("password: is required"), "{error}");
}

#[test]
fn names_that_the_old_agent_ignored_are_warnings() {
    let text =
        "[DEFAULT]\nbase = example.org\ndomain = %(base)s\nuser=u\npassword=p\ncapacty = 5\n[Other]\nx = 1\n";
    let config = parse(text).unwrap();
    let found: Vec<_> = config.warnings.iter().map(|w| (w.code, w.line, w.fatal)).collect();
    assert_eq!(found, [("unknown-key", 6, false), ("unknown-section", 7, false)]);
    assert!(config.warnings[0].to_string().contains("did you mean `capacity`?"));
}

#[test]
fn hosts_with_ports_are_split() {
    let check = |text: &str, expected: Option<(&str, u16)>| {
        let found = uploader::split_host(text, 21);
        assert_eq!(found, expected.map(|(host, port)| (host.to_owned(), port)), "{text}");
    };
    check("h", Some(("h", 21)));
    check("h:990", Some(("h", 990)));
    check("[::1]:22", Some(("::1", 22)));
    check("fe80::1", Some(("fe80::1", 21)));
    check("h:x", None);
}

#[test]
fn the_printed_sample_shows_every_key() {
    let sample = SCHEMA.sample();
    for key in ["domain", "mucservice", "muc_password_file", "kill_grace_seconds", "trusted_orchestrators"] {
        assert!(sample.contains(key), "{key}");
    }
    assert!(!AgentConfig::load(Path::new("/none/remote.config")).unwrap_err().to_string().is_empty());
}

#[cfg(unix)]
#[test]
fn a_password_that_everybody_can_read_is_a_warning() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("remote.config");
    std::fs::write(&path, "[DEFAULT]\ndomain=d\nuser=u\npassword=p\n").unwrap();
    let warned = |mode: u32| {
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        AgentConfig::load(&path).unwrap().warnings.iter().any(|w| w.code == "readable-by-all")
    };
    assert!(warned(0o644));
    assert!(!warned(0o640));
}

#[cfg(unix)]
#[test]
fn secrets_that_others_can_read_are_named() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let (path, secret) = (dir.path().join("remote.config"), dir.path().join("secret"));
    std::fs::write(&secret, "s3cret\n").unwrap();
    let text = format!("[DEFAULT]\ndomain=d\nuser=u\npassword_file={}\n", secret.display());
    let codes = |text: &str, mode: u32| {
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(mode)).unwrap();
        let config = AgentConfig::load(&path).unwrap();
        assert!(!format!("{config:?}").contains("s3cret"));
        config
            .warnings
            .iter()
            .map(|w| (w.code, w.key.clone().unwrap_or_default().to_string()))
            .collect::<Vec<_>>()
    };
    assert_eq!(codes(&text, 0o600), []);
    assert_eq!(codes(&text, 0o644), [("readable-by-all", "password_file".to_owned())]);
    let uploader = format!(
        "{text}[UPLOADER]\nuploader_class_name = sftp\nuploader_host = h\nuploader_username = u\nuploader_password = x\n"
    );
    let found = codes(&uploader, 0o600);
    assert!(found.contains(&("clear-upload-password", "uploader_password".to_owned())), "{found:?}");
}

#[test]
fn a_running_agent_is_found_without_its_secrets() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("remote.config");
    std::fs::write(&path, "[DEFAULT]\ndomain=d\nuser=u\nresource_file_dir = here\n").unwrap();
    assert!(AgentConfig::load(&path).is_err(), "the password is missing");
    assert_eq!(AgentConfig::records_of(&path).unwrap(), dir.path().join("here"));
    std::fs::write(&path, "[DEFAULT]\ncapacity = many\n").unwrap();
    assert_eq!(
        AgentConfig::records_of(&path).unwrap(),
        dir.path().join("running"),
        "faults elsewhere are no matter"
    );
}

#[test]
fn what_changed_is_told_apart_by_when_it_takes_effect() {
    let base = "[DEFAULT]\ndomain=d\nuser=u\npassword=p\n";
    let started = parse(base).unwrap();
    let check = |lines: &str, live: &[&str], restart: &[&str]| {
        let found = differences(&started, &started, &parse(&format!("{base}{lines}\n")).unwrap());
        assert_eq!((found.live.as_slice(), found.restart.as_slice()), (live, restart), "{lines}");
    };
    check("", &[], &[]);
    check("capacity = 7\nprocess_blacklist = [x]", &["capacity", "process_blacklist"], &[]);
    check("retention_seconds = 1\nagent_name = n", &["retention_seconds"], &["agent_name"]);
    check("[Interpreters]\npy = python3 -u", &[], &["[Interpreters]"]);
}
