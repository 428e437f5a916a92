//! The configuration: defaults, relative paths, the environment, and faults with their places.

use super::*;

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(text.as_bytes(), "orchestrator.ini", Path::new("/etc/wps"), &|_| None)
}

#[test]
fn nothing_written_is_a_working_configuration() {
    let config = parse("").unwrap();
    assert_eq!(config.http.listen.to_string(), "127.0.0.1:8080");
    assert_eq!(config.store, Path::new("/etc/wps/data/jobs.sqlite"));
    assert_eq!(config.shared_dir.as_deref(), Some(Path::new("/etc/wps/data/shared")));
    assert_eq!(config.xmpp.muc_service, "conference.wps.localhost");
    assert_eq!(config.server.unwrap().listen.to_string(), "127.0.0.1:5222");
    assert!(config.warnings.is_empty());
}

#[test]
fn the_sample_changes_nothing() {
    let sample = SCHEMA.sample();
    let (sample, plain) = (parse(&sample).unwrap(), parse("").unwrap());
    assert_eq!(format!("{sample:?}"), format!("{plain:?}"));
}

#[test]
fn what_is_written_counts_and_the_environment_more() {
    let env = |name: &str| (name == "WPS_ORCHESTRATOR_HTTP_LISTEN").then(|| "127.0.0.1:9".to_owned());
    let text = "[http]\nlisten = 127.0.0.1:1\n[store]\ndata_dir = /var/lib/wps\n[results]\nshared_dir = none\n[xmpp]\nport = 5223\n";
    let config = Config::parse(text.as_bytes(), "o.ini", Path::new("."), &env).unwrap();
    assert_eq!(config.http.listen.port(), 9);
    assert_eq!(config.store, Path::new("/var/lib/wps/jobs.sqlite"));
    assert_eq!((config.shared_dir, config.xmpp.tls), (None, Tls::Direct));
}

#[test]
fn faults_name_file_line_key_and_remedy() {
    for (text, parts) in [
        ("[http]\nlisen = x\n", ["orchestrator.ini", "2", "did you mean `listen`"]),
        ("[http]\n\nlisten = nowhere\n", ["orchestrator.ini", "3", "127.0.0.1:8080"]),
        ("[http]\npublic_url = ftp://x\n", ["public_url", "2", "http"]),
        ("[http]\ntrusted_proxies = 10.0.0.1, proxy\n", ["trusted_proxies", "2", "`proxy`"]),
        ("[xmpp_server]\nenabled = false\n", ["[xmpp]", "password", "password_file"]),
        ("[xmpp_server]\ncertificate = a.pem\n", ["certificate", "2", "together"]),
        ("[aliases]\nx.y = Echo\n", ["x.y", "2", "namespace:service"]),
        ("[aliases]\nx,y = demo:Echo\n", ["x,y", "2", "comma"]),
        ("[limits]\nmax_queued = 0\n", ["max_queued", "2", "1"]),
    ] {
        let error = parse(text).unwrap_err().to_string();
        assert!(parts.iter().all(|part| error.contains(part)), "{text}: {error}");
    }
}

#[test]
fn only_a_server_that_others_reach_bounds_connections_by_address() {
    let bounds = |lines: &str| {
        let server = parse(&format!("[xmpp_server]\n{lines}")).unwrap().server.unwrap();
        (server.max_connections, server.max_connections_per_address)
    };
    assert_eq!(bounds(""), (4096, 0));
    assert_eq!(bounds("listen = 0.0.0.0:5222\n"), (4096, 256));
    assert_eq!(bounds("tls_listen = 192.0.2.1:5223\n"), (4096, 256));
    assert_eq!(
        bounds("listen = 0.0.0.0:5222\nmax_connections_per_address = 0\nmax_connections = 9\n"),
        (9, 0)
    );
}

#[test]
fn aliases_keep_their_letters() {
    let config = parse("[aliases]\norg.n52.Test-Echo = demo:Echo\nb = demo:Echo\n").unwrap();
    let aliases: Vec<_> = config.aliases.iter().map(|(alias, id)| (alias.as_str(), id.to_string())).collect();
    assert_eq!(aliases, [("b", "demo:Echo".to_owned()), ("org.n52.Test-Echo", "demo:Echo".to_owned())]);
}

#[test]
fn secrets_are_not_shown() {
    let config = parse("[xmpp]\npassword = geheim\nmuc_password = geheim\n").unwrap();
    assert!(!format!("{config:?}").contains("geheim"));
}
