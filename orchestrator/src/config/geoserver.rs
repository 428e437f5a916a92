//! `remoteProcess.properties` of GeoServer's WPS Remote plugin, read as it is: its keys in the words of our own
//! configuration, and what the operator should improve. What our own file says wins. Parses texts only.

use std::collections::HashMap;

use wps_remote_protocol::ini::Document;

use super::schema::SCHEMA;

/// What a properties file says in our words.
#[derive(Debug, Default)]
pub(super) struct Translation {
    values: Vec<(&'static str, &'static str, String)>,
    pub(super) warnings: Vec<String>,
}

impl Translation {
    /// The values that our own file does not have, by the names of environment variables.
    pub(super) fn missing_in(&self, document: &Document) -> HashMap<String, String> {
        let missing = self.values.iter().filter(|(section, key, _)| {
            // A secret can be written in three ways.
            let written = |suffix: &str| document.entry(section, &format!("{key}{suffix}")).is_some();
            !["", "_file", "_env"].into_iter().any(written)
        });
        missing.map(|(section, key, value)| (SCHEMA.env_name(section, key), value.clone())).collect()
    }

    fn set(&mut self, section: &'static str, key: &'static str, value: impl Into<String>) {
        self.values.push((section, key, value.into()));
    }
}

/// Keys that mean nothing to an orchestrator, GeoServer's included.
const IDLE: [&str; 6] = [
    "remoteProcessStubCycleSleepTime",
    "xmpp_management_channel_user",
    "xmpp_packet_reply_timeout",
    "xmpp_connection_ping_timeout",
    "xmpp_connection_ping_initial_delay",
    "xmpp_server_embedded_certificate_password",
];

/// Reads the file.
pub(super) fn translate(bytes: &[u8], name: &str) -> Translation {
    let properties = properties(bytes);
    let get = |key: &str| {
        properties.iter().rev().find(|(k, _)| k == key).map(|(_, v)| v.trim()).filter(|v| !v.is_empty())
    };
    let mut to = Translation::default();
    let host = get("xmpp_server").unwrap_or("localhost").to_owned();
    let domain = get("xmpp_domain").unwrap_or("geoserver.org").to_owned();
    to.set("xmpp", "address", host.as_str());
    to.set("xmpp", "domain", domain.as_str());
    to.set("xmpp", "muc_service", format!("{}.{domain}", get("xmpp_bus").unwrap_or("conference")));
    let embedded = get("xmpp_server_embedded").is_some_and(|text| text.eq_ignore_ascii_case("true"));
    to.set("xmpp_server", "enabled", embedded.to_string());
    let straight: [(&str, &str, &str); 9] = [
        ("xmpp_port", "xmpp", "port"),
        ("xmpp_manager_username", "xmpp", "user"),
        ("xmpp_manager_password", "xmpp", "password"),
        ("xmpp_management_channel", "xmpp", "management_room"),
        ("xmpp_management_channel_pwd", "xmpp", "muc_password"),
        ("xmpp_cpu_perc_threshold", "legacy", "cpu_threshold"),
        ("xmpp_mem_perc_threshold", "legacy", "memory_threshold"),
        ("xmpp_force_execution", "legacy", "force_execution"),
        ("uploadedFilesBasePath", "legacy", "upload_dir"),
    ];
    for (theirs, section, ours) in straight {
        if let Some(value) = get(theirs) {
            to.set(section, ours, value);
        }
    }
    if let Some(password) = get("xmpp_service_channels_pwd") {
        to.set("legacy", "muc_password", password);
    }
    to.set("legacy", "rooms", get("xmpp_service_channels").unwrap_or("default"));
    if let Some(interval) = get("xmpp_connection_ping_interval").and_then(|text| text.parse::<u64>().ok()) {
        to.set("legacy", "heartbeat_s", (interval / 1000).max(1).to_string());
    }
    // GeoServer believes whoever is in the room; so must we, until somebody says whom it may be.
    to.set("legacy", "agents", "*@*");
    to.warnings.push(format!(
        "{name}: every agent in the rooms is believed, as GeoServer does; list those that are yours in [legacy] agents"
    ));
    if let Some(folder) = get("uploadedFilesBasePath") {
        to.set("legacy", "result_roots", folder);
        to.warnings.push(format!(
            "{name}: result files are taken from {folder} only; list the output folders of your agents in [legacy] result_roots"
        ));
    } else {
        to.warnings.push(format!(
            "{name}: there is no uploadedFilesBasePath: list the output folders of your agents in [legacy] result_roots"
        ));
    }
    security(&mut to, name, &host, get("xmpp_server_embedded_secure"), embedded);
    for weak in ["xmpp_manager_password", "xmpp_management_channel_pwd"] {
        if get(weak) == Some("admin") {
            to.warnings.push(format!("{name}: {weak} is the one that everybody knows; change it"));
        }
    }
    for (key, what) in [
        ("owc_wms_json_template", "map contexts are written without a template"),
        (
            "xmpp_server_embedded_certificate_file",
            "Java key stores are not read; set [xmpp] tls_ca_file or tls_fingerprint_sha256 to a certificate in PEM",
        ),
    ] {
        if get(key).is_some() {
            to.warnings.push(format!("{name}: {key} is ignored: {what}"));
        }
    }
    let known = |key: &str| {
        straight.iter().any(|(theirs, ..)| *theirs == key)
            || IDLE.contains(&key)
            || [
                "xmpp_server",
                "xmpp_domain",
                "xmpp_bus",
                "xmpp_service_channels",
                "xmpp_service_channels_pwd",
                "xmpp_connection_ping_interval",
                "xmpp_server_embedded",
                "xmpp_server_embedded_secure",
                "owc_wms_json_template",
                "xmpp_server_embedded_certificate_file",
            ]
            .contains(&key)
    };
    for (key, _) in properties.iter().filter(|(key, _)| !known(key)) {
        let key: String = key.chars().take(80).collect();
        to.warnings.push(format!("{name}: the key `{key}` is not known and ignored"));
    }
    to
}

/// Despite its name, `xmpp_server_embedded_secure` decides whether GeoServer's client uses TLS, with any certificate.
fn security(to: &mut Translation, name: &str, host: &str, secure: Option<&str>, embedded: bool) {
    let secure = secure.is_none_or(|text| text.eq_ignore_ascii_case("true"));
    let loopback = host == "localhost" || host == "::1" || host.starts_with("127.");
    if embedded {
        to.warnings.push(format!(
            "{name}: our embedded server has accounts of its own (wps-orchestrator accounts add NAME), and old Python agents cannot \
             connect to it: it speaks no TLS 1.0; they need Prosody, ejabberd or Openfire"
        ));
    } else if !secure && loopback {
        to.set("xmpp", "tls", "none");
    } else {
        to.set("xmpp", "tls", "starttls");
        to.set("xmpp", "tls_insecure", "true");
        if !secure {
            to.warnings.push(format!(
                "{name}: passwords do not go to {host} without TLS: STARTTLS is used although xmpp_server_embedded_secure is false"
            ));
        }
    }
}

/// The lines of a Java properties file: comments, continued lines, escapes; UTF-8, or Latin-1 as Java used to write it.
fn properties(bytes: &[u8]) -> Vec<(String, String)> {
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text.trim_start_matches('\u{feff}').to_owned(),
        Err(_) => bytes.iter().map(|byte| char::from(*byte)).collect(),
    };
    let mut pairs = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let mut logical = line.trim_start().to_owned();
        if logical.is_empty() || logical.starts_with(['#', '!']) {
            continue;
        }
        while continues(&logical) {
            logical.pop();
            match lines.next() {
                Some(next) => logical.push_str(next.trim_start()),
                None => break,
            }
        }
        pairs.push(pair(&logical));
    }
    pairs
}

fn continues(line: &str) -> bool {
    line.bytes().rev().take_while(|byte| *byte == b'\\').count() % 2 == 1
}

fn pair(line: &str) -> (String, String) {
    let mut escaped = false;
    let end = line.find(|c: char| {
        let ends = !escaped && (c == '=' || c == ':' || c.is_whitespace());
        escaped = !escaped && c == '\\';
        ends
    });
    let (key, rest) = line.split_at(end.unwrap_or(line.len()));
    let rest = rest.trim_start();
    let value = rest.strip_prefix(['=', ':']).unwrap_or(rest).trim_start();
    (unescaped(key), unescaped(value))
}

fn unescaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        match rest.next() {
            Some('t') => out.push('\t'),
            Some('n') => out.push('\n'),
            Some('r') => out.push('\r'),
            Some('f') => out.push('\u{c}'),
            Some('u') => {
                let digits: String = rest.clone().take(4).collect();
                match u32::from_str_radix(&digits, 16).ok().and_then(char::from_u32) {
                    Some(c) if digits.len() == 4 => {
                        out.push(c);
                        rest.nth(3);
                    }
                    _ => out.push('u'),
                }
            }
            Some(other) => out.push(other),
            None => {}
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::{Config, Tls};
    use super::*;

    /// The keys and values of the file that GeoServer installs.
    const BUILT_IN: &str = "# comment\nremoteProcessStubCycleSleepTime = 100\nuploadedFilesBasePath=/tmp\nxmpp_server: localhost\n\
        xmpp_port = 5222\nxmpp_domain = geoserver.org\nxmpp_bus = conference\nxmpp_manager_username = admin\n\
        xmpp_manager_password = admin\nxmpp_management_channel = management\nxmpp_management_channel_user = admin\n\
        xmpp_management_channel_pwd = admin\nxmpp_service_channels = default,\\\n   geosolutions\nxmpp_packet_reply_timeout = 500\n\
        xmpp_connection_ping_interval = 30000\nxmpp_connection_ping_timeout = 10000\nxmpp_connection_ping_initial_delay = 20000\n\
        xmpp_cpu_perc_threshold = 82.5\nxmpp_mem_perc_threshold = 84.6\nxmpp_server_embedded = false\n\
        xmpp_server_embedded_secure = true\nxmpp_server_embedded_certificate_file = bogus_mina_tls.cert\n\
        xmpp_server_embedded_certificate_password = boguspw\n";

    fn read(ini: &str, properties: &str) -> Config {
        let translation = translate(properties.as_bytes(), "remoteProcess.properties");
        Config::parse_with(ini.as_bytes(), "o.ini", Path::new("/etc/wps"), &|_| None, Some(translation))
            .unwrap()
    }

    #[test]
    fn the_file_that_geoserver_installs_is_a_working_configuration() {
        let config = read("", BUILT_IN);
        assert!(config.server.is_none());
        assert_eq!((config.xmpp.address.as_str(), config.xmpp.port), ("localhost", 5222));
        assert_eq!((config.xmpp.user.as_str(), config.xmpp.domain.as_str()), ("admin", "geoserver.org"));
        assert_eq!(config.xmpp.password.unwrap().expose(), "admin");
        assert_eq!(config.xmpp.muc_service, "conference.geoserver.org");
        assert_eq!((config.xmpp.tls, config.xmpp.tls_insecure), (Tls::StartTls, true));
        assert_eq!(config.legacy.rooms, ["default", "geosolutions"]);
        assert!(config.legacy.agents.lists("default", "Any", "host"));
        assert_eq!((config.legacy.cpu_threshold, config.legacy.memory_threshold), (82.5, 84.6));
        assert_eq!(config.legacy.heartbeat.as_secs(), 30);
        assert_eq!(config.legacy.files.base.as_deref(), Some(Path::new("/tmp")));
        let warnings = config.warnings.join("\n");
        for part in
            ["[legacy] agents", "[legacy] result_roots", "everybody knows", "key stores", "tls_insecure"]
        {
            assert!(warnings.contains(part), "{part}: {warnings}");
        }
    }

    #[test]
    fn our_own_file_wins_and_oddities_are_named() {
        let config = read(
            "[xmpp]\nport = 5299\n[legacy]\nagents = Play@vm\n",
            "xmpp_port 5222\nxmpp_new_key = 1\nxmpp_server_embedded_secure=false\nxmpp_manager_password=p\\u00e4\\=\n",
        );
        assert_eq!(config.xmpp.port, 5299);
        assert!(!config.legacy.agents.lists("default", "Other", "vm"));
        assert_eq!(config.xmpp.tls, Tls::None);
        assert!(config.warnings.iter().any(|warning| warning.contains("`xmpp_new_key`")));
        assert_eq!(
            properties(b"a=\\u00e4\\=\nb : c d\n! no\ne"),
            [("a".into(), "ä=".into()), ("b".into(), "c d".into()), ("e".into(), String::new()),]
        );
        assert_eq!(properties(b"k=\xe4"), [("k".to_owned(), "ä".to_owned())]);
    }
}
