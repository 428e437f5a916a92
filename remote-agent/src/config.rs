//! `remote.config`: who the agent is on the bus, where its folders are, what it may take on. Keeps every key of the Python
//! agent and its meaning; ours have defaults, so that a minimal file works. Knows nothing of descriptors.

mod keys;
mod reload;
mod secrets;
#[cfg(test)]
mod tests;
mod uploader;

use std::path::{Path, PathBuf};
use std::time::Duration;

use wps_remote_protocol::ini::settings::{Secret, Settings, Surroundings};
use wps_remote_protocol::ini::{Document, Finding, IniError, Options, bracket_list};

pub use keys::SCHEMA;
pub use reload::{Differences, differences};
pub use uploader::{Uploader, UploaderKind};

use crate::descriptor::LoadContext;
use crate::descriptor::paths;

/// How the connection is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tls {
    /// TLS from the first byte.
    Direct,
    /// STARTTLS, required.
    StartTls,
    /// None; loopback only.
    Plain,
}

/// Who may order executions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trusted {
    /// Occupants whose role is moderator or whose affiliation is admin or owner.
    Moderators,
    /// These bare addresses.
    Addresses(Vec<String>),
    /// Anyone above visitor.
    Anyone,
}

/// A program that keeps new work away while it runs. Absent parts match anything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Forbidden {
    /// Part of the process name.
    pub name: Option<String>,
    /// Part of the working directory.
    pub cwd: Option<String>,
    /// Part of the command line.
    pub cmdline: Option<String>,
}

/// The agent's configuration.
#[derive(Debug, Clone)]
pub struct AgentConfig {
    /// The file.
    pub source: PathBuf,
    /// Host of the XMPP server.
    pub address: String,
    /// Its port.
    pub port: u16,
    /// Domain of the account.
    pub domain: String,
    /// Local part of the account.
    pub user: String,
    /// Password of the account.
    pub password: Secret,
    /// Protection of the connection.
    pub tls: Tls,
    /// Certificates that are trusted besides the system's.
    pub tls_ca_file: Option<PathBuf>,
    /// Name that the certificate must carry.
    pub tls_server_name: String,
    /// Certificates are not checked.
    pub tls_insecure: bool,
    /// SHA-256 of the one certificate that is accepted, lower-case hex without colons.
    pub tls_fingerprint: Option<String>,
    /// Domain of the rooms.
    pub muc_service: String,
    /// Password of the rooms.
    pub muc_password: Option<Secret>,
    /// Local part of the room in which agents and orchestrators meet.
    pub management_room: String,
    /// The agent's name among others.
    pub agent_name: String,
    /// Where the agent keeps its records.
    pub resource_file_dir: PathBuf,
    /// Parent of run directories for descriptors that name none.
    pub work_root: PathBuf,
    /// The folder shared with the orchestrator.
    pub shared_dir: Option<PathBuf>,
    /// Watched folder of descriptors.
    pub services_dir: PathBuf,
    /// Descriptors are ISO 8859-1.
    pub latin1_descriptors: bool,
    /// Units of weight that may run at a time.
    pub capacity: f64,
    /// Above this percentage of CPU or memory no new work is taken; 100 = never.
    pub load_threshold: f64,
    /// What the host is good for.
    pub labels: Vec<String>,
    /// Window of the mean load.
    pub load_window: Duration,
    /// Programs that keep new work away.
    pub blacklist: Vec<Forbidden>,
    /// Most executions at a time.
    pub max_parallel_jobs: Option<u32>,
    /// Weight of descriptors that name none.
    pub default_weight: f64,
    /// Time between polite and hard kill.
    pub kill_grace: Duration,
    /// How long the directory of a finished job is kept.
    pub retention: Duration,
    /// Who may order executions.
    pub trusted: Trusted,
    /// Directories outside the run directory that descriptors may use.
    pub allowed_paths: Vec<PathBuf>,
    /// User of the child.
    pub run_as: Option<String>,
    /// Group of the child.
    pub run_as_group: Option<String>,
    /// GeoServer's plugin is served as well.
    pub geoserver: bool,
    /// Outputs whose names do not begin with `result` are reported to GeoServer as `result_NAME`.
    pub geoserver_result_names: bool,
    /// Beginnings of result paths and what they become on the wire.
    pub path_map: Vec<(String, String)>,
    /// Pickled requests of GeoServer are read (plain data only).
    pub legacy_pickle: bool,
    /// Interpreters by lower-case extension without dot.
    pub interpreters: Vec<(String, Vec<String>)>,
    /// Upload server.
    pub uploader: Option<Uploader>,
    /// Name of this host.
    pub host_name: String,
    /// What is unwise.
    pub warnings: Vec<Finding>,
}

/// Interpreters that hold unless the configuration says otherwise.
pub fn default_interpreters() -> Vec<(String, Vec<String>)> {
    let table: [(&str, &str); 5] = if cfg!(windows) {
        [
            ("py", "py -3"),
            ("sh", "sh"),
            ("r", "Rscript"),
            ("jar", "java -jar"),
            ("ps1", "powershell -NoProfile -File"),
        ]
    } else {
        [
            ("py", "python3"),
            ("sh", "/bin/sh"),
            ("r", "Rscript"),
            ("jar", "java -jar"),
            ("ps1", "pwsh -NoProfile -File"),
        ]
    };
    table.iter().map(|(extension, line)| ((*extension).to_owned(), words(line))).collect()
}

fn words(line: &str) -> Vec<String> {
    line.split_whitespace().map(str::to_owned).collect()
}

impl AgentConfig {
    /// Reads a file and its surroundings from this host: environment, secret files, credentials, host name, permissions.
    pub fn load(path: &Path) -> Result<Self, IniError> {
        let (absolute, bytes) = read(path)?;
        let env = |name: &str| std::env::var(name).ok();
        let around = Surroundings { env: &env, file: &secrets::file, credential: &secrets::credential };
        let mut config = Self::parse(&absolute, &bytes, &around, &host_name())?;
        config.warnings.extend(secrets::exposed(&absolute, &bytes));
        Ok(config)
    }

    /// Reads the bytes of a file. `path` must be absolute; relative paths inside are placed by its directory.
    pub fn parse(
        path: &Path,
        bytes: &[u8],
        around: &Surroundings<'_>,
        host_name: &str,
    ) -> Result<Self, IniError> {
        let options = Options::new(path.to_string_lossy()).ignoring_case();
        let doc = Document::parse(bytes, &options)?;
        let settings = SCHEMA.read_leniently(&doc, around)?;
        Builder { doc: &doc, s: &settings, dir: path.parent().unwrap_or(Path::new("/")), errors: Vec::new() }
            .build(path, host_name)
    }

    /// What the agent lends to its descriptors.
    pub fn load_context(&self) -> LoadContext {
        LoadContext {
            work_root: self.work_root.clone(),
            shared_dir: self.shared_dir.clone(),
            host_name: self.host_name.clone(),
            allowed_paths: self.allowed_paths.clone(),
            interpreters: self.interpreters.clone(),
            default_weight: self.default_weight,
            latin1: self.latin1_descriptors,
            uploads: self.uploader.is_some(),
        }
    }

    /// A result path as the other side sees it.
    pub fn mapped(&self, path: &str) -> String {
        mapped(&self.path_map, path)
    }
}

/// A path of which the beginning is replaced as a `path_map` says it.
pub fn mapped(map: &[(String, String)], path: &str) -> String {
    for (from, to) in map {
        if let Some(rest) = path.strip_prefix(from.as_str())
            && (rest.is_empty() || rest.starts_with(['/', '\\']) || from.ends_with(['/', '\\']))
        {
            let rest = if from.contains('\\') && to.contains('/') {
                rest.replace('\\', "/")
            } else {
                rest.to_owned()
            };
            return format!("{to}{rest}");
        }
    }
    path.to_owned()
}

/// The absolute path of a configuration, and its bytes.
fn read(path: &Path) -> Result<(PathBuf, Vec<u8>), IniError> {
    let fail = |error: std::io::Error| IniError {
        file: path.to_string_lossy().into_owned(),
        findings: vec![
            Finding::error("not-readable", format!("cannot be read: {error}"))
                .remedy("name the file with --config FILE"),
        ],
    };
    let bytes = std::fs::read(path).map_err(fail)?;
    let base = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/"));
    Ok((paths::absolute(path, &base), bytes))
}

/// Name of this host; `localhost` if the system has none.
#[cfg(unix)]
pub fn host_name() -> String {
    let name = rustix::system::uname();
    let name = name.nodename().to_string_lossy();
    if name.is_empty() { "localhost".to_owned() } else { name.into_owned() }
}

/// Name of this host; `localhost` if the system has none.
#[cfg(not(unix))]
pub fn host_name() -> String {
    std::env::var("COMPUTERNAME").unwrap_or_else(|_| "localhost".to_owned())
}

struct Builder<'a> {
    doc: &'a Document,
    s: &'a Settings,
    dir: &'a Path,
    errors: Vec<Finding>,
}

/// Where records are kept unless the file says otherwise, beside it.
const DEFAULT_RECORDS: &str = "running";

const D: &str = wps_remote_protocol::ini::DEFAULT_SECTION;

impl Builder<'_> {
    fn error(&mut self, section: &str, key: &str, why: impl Into<String>, remedy: &str) {
        let line = self.doc.section(section).and_then(|found| found.entry(key)).map_or(0, |entry| entry.line);
        let finding = Finding::error("bad-value", why).at(line).section(section).key(key).remedy(remedy);
        self.errors.push(finding);
    }

    fn text(&self, key: &str) -> Option<String> {
        self.s.text(D, key).filter(|text| !text.is_empty()).map(str::to_owned)
    }

    fn path(&self, key: &str) -> Option<PathBuf> {
        self.s.path(D, key).map(|path| paths::absolute(&path, self.dir))
    }

    fn seconds(&self, key: &str) -> Duration {
        let seconds = self.s.integer(D, key).unwrap_or_default();
        Duration::from_secs(u64::try_from(seconds).unwrap_or_default())
    }

    fn build(mut self, source: &Path, host_name: &str) -> Result<AgentConfig, IniError> {
        let (address, domain) = match (self.text("address"), self.text("domain")) {
            (Some(address), Some(domain)) => (address, domain),
            (Some(one), None) | (None, Some(one)) => (one.clone(), one),
            (None, None) => {
                self.error(
                    D,
                    "domain",
                    "is required",
                    "add `domain = example.org`, the domain of the XMPP account",
                );
                (String::new(), String::new())
            }
        };
        if let Some(bus) = self.text("bus_class_name").filter(|bus| bus != "xmppBus.XMPPBus") {
            let why = format!("`{bus}` is not known: only the XMPP bus exists");
            self.error(D, "bus_class_name", why, "remove the key");
        }
        let port = self.s.integer(D, "port").and_then(|port| u16::try_from(port).ok()).unwrap_or(5222);
        let tls = self.tls(port, &address);
        let resource_file_dir =
            self.path("resource_file_dir").unwrap_or_else(|| self.dir.join(DEFAULT_RECORDS));
        let beside = resource_file_dir.parent().unwrap_or(self.dir).join("work");
        let blacklist = self.blacklist();
        let path_map = self.path_map();
        let allowed_paths = self.allowed_paths();
        let labels = self.labels();
        let interpreters = self.interpreters();
        let uploader = uploader::read(&mut self);
        let trusted = match self.s.list(D, "trusted_orchestrators").as_slice() {
            [one] if one == "moderators" => Trusted::Moderators,
            [one] if one == "*" => Trusted::Anyone,
            list => Trusted::Addresses(list.to_vec()),
        };
        let fingerprint = self.fingerprint();
        let mut warnings = self.s.warnings().to_vec();
        if self.s.is_true(D, "tls_insecure") {
            warnings.push(
                Finding::warning("tls-insecure", "certificates are not checked")
                    .section(D)
                    .key("tls_insecure")
                    .remedy("set tls_ca_file or tls_fingerprint_sha256 instead"),
            );
        }
        let geoserver = self.geoserver(&mut warnings);
        let agent_name = self.text("agent_name").unwrap_or_else(|| host_name.to_owned());
        if agent_name.contains(['/', '@', '&', '=', '%', ' ']) || agent_name.chars().any(char::is_control) {
            self.error(
                D,
                "agent_name",
                format!("`{agent_name}` cannot be part of a nickname"),
                "use letters, digits, - _ and .",
            );
        }
        let config = AgentConfig {
            source: source.to_path_buf(),
            address,
            port,
            user: self.s.string(D, "user"),
            password: self.s.secret(D, "password").unwrap_or_else(|| Secret::new("")),
            tls,
            tls_ca_file: self.path("tls_ca_file"),
            tls_server_name: self.text("tls_server_name").unwrap_or_else(|| domain.clone()),
            tls_insecure: self.s.is_true(D, "tls_insecure"),
            tls_fingerprint: fingerprint,
            muc_service: self.text("mucservice").unwrap_or_else(|| format!("conference.{domain}")),
            muc_password: self.s.secret(D, "mucservicepassword").filter(|secret| !secret.expose().is_empty()),
            management_room: self.s.string(D, "management_room"),
            agent_name,
            work_root: self.path("work_root").unwrap_or(beside),
            resource_file_dir,
            shared_dir: self.path("wps_execution_shared_dir"),
            latin1_descriptors: self.s.text(D, "descriptor_encoding") == Some("latin1"),
            services_dir: self.path("services_dir").unwrap_or_else(|| self.dir.to_path_buf()),
            capacity: self.s.number(D, "capacity").unwrap_or(100.0),
            load_threshold: self.s.number(D, "load_threshold").unwrap_or(100.0),
            labels,
            load_window: Duration::from_secs_f64(
                60.0 * self.s.number(D, "load_average_scan_minutes").unwrap_or(15.0),
            ),
            blacklist,
            max_parallel_jobs: self.s.integer(D, "max_parallel_jobs").and_then(|n| u32::try_from(n).ok()),
            default_weight: self.s.number(D, "default_process_weight").unwrap_or(0.0),
            kill_grace: self.seconds("kill_grace_seconds"),
            retention: self.seconds("retention_seconds"),
            trusted,
            allowed_paths,
            run_as: self.text("run_as"),
            run_as_group: self.text("run_as_group"),
            geoserver,
            geoserver_result_names: self.s.is_true(D, "geoserver_result_names"),
            path_map,
            legacy_pickle: self.s.is_true(D, "legacy_pickle"),
            interpreters,
            uploader,
            host_name: host_name.to_owned(),
            domain,
            warnings,
        };
        if self.errors.is_empty() {
            return Ok(config);
        }
        self.errors.sort_by_key(|finding| finding.line);
        Err(self.doc.error(self.errors))
    }

    /// Whether GeoServer's plugin is served. Files of the Python agent must come up and work as they are, and no other has
    /// `bus_class_name`.
    fn geoserver(&self, warnings: &mut Vec<Finding>) -> bool {
        let from_python = self.text("bus_class_name").is_some();
        let wanted = match self.s.text(D, "geoserver") {
            Some("yes") => return true,
            Some("no") => return false,
            _ => from_python,
        };
        if wanted {
            let warn = |code, key, why: &str, remedy: &str| {
                Finding::warning(code, why.to_owned()).section(D).key(key).remedy(remedy)
            };
            warnings.push(warn(
                "geoserver-served",
                "geoserver",
                "is not set; because of `bus_class_name` this is taken for a file of the Python agent, and GeoServer's plugin \
                 is served as well",
                "write geoserver = yes, or no where only wps-orchestrator gives orders",
            ));
            let listed = self.doc.section(D).is_some_and(|all| all.entry("trusted_orchestrators").is_some());
            if !listed {
                warnings.push(warn(
                    "trust-moderators",
                    "trusted_orchestrators",
                    "is not set: only moderators and owners of a room may give orders, where the Python agent obeyed \
                     everybody in it",
                    "name GeoServer's account, such as trusted_orchestrators = admin@example.org",
                ));
            }
        }
        wanted
    }

    fn tls(&mut self, port: u16, address: &str) -> Tls {
        match self.s.text(D, "tls") {
            Some("direct") => Tls::Direct,
            Some("starttls") => Tls::StartTls,
            Some("none") => {
                let loopback = address == "localhost"
                    || address.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
                if !loopback || !self.s.is_true(D, "allow_plaintext") {
                    let why = "passwords and inputs would travel in clear";
                    self.error(
                        D,
                        "tls",
                        why,
                        "use starttls or direct; none needs a loopback address and allow_plaintext = true",
                    );
                }
                Tls::Plain
            }
            _ if port == 5223 => Tls::Direct,
            _ => Tls::StartTls,
        }
    }

    fn fingerprint(&mut self) -> Option<String> {
        let text = self.text("tls_fingerprint_sha256")?;
        let hex: String =
            text.chars().filter(|c| *c != ':' && *c != ' ').collect::<String>().to_ascii_lowercase();
        if hex.len() != 64 || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
            self.error(
                D,
                "tls_fingerprint_sha256",
                "is not a SHA-256 fingerprint",
                "write 64 hex digits, colons allowed",
            );
        }
        Some(hex)
    }

    /// A JSON list of objects or of names, or a list of names in brackets.
    fn blacklist(&mut self) -> Vec<Forbidden> {
        let Some(text) = self.text("process_blacklist") else { return Vec::new() };
        let named = |name: String| Forbidden { name: Some(name), ..Forbidden::default() };
        let Ok(list) = serde_json::from_str::<Vec<serde_json::Value>>(&text) else {
            return bracket_list(&text).into_iter().filter(|name| !name.is_empty()).map(named).collect();
        };
        let mut out = Vec::new();
        for entry in list {
            match entry {
                serde_json::Value::String(name) => out.push(named(name)),
                serde_json::Value::Object(object) => {
                    let part =
                        |key: &str| object.get(key).and_then(|value| value.as_str()).map(str::to_owned);
                    let entry = Forbidden { name: part("name"), cwd: part("cwd"), cmdline: part("cmdline") };
                    if entry == Forbidden::default() {
                        let why =
                            "has an entry without name, cwd and cmdline, which would match every process";
                        self.error(D, "process_blacklist", why, "write {\"name\": \"…\"}");
                    } else {
                        out.push(entry);
                    }
                }
                other => {
                    let why = format!("has the entry {other}, which is neither an object nor a name");
                    self.error(D, "process_blacklist", why, "write [{\"name\": \"…\"}] or [name, name]");
                }
            }
        }
        out
    }

    fn path_map(&mut self) -> Vec<(String, String)> {
        let mut map = Vec::new();
        for entry in self.s.list(D, "path_map").iter().flat_map(|text| text.split('\n')) {
            match entry.split_once("=>") {
                Some((from, to)) if !from.trim().is_empty() => {
                    map.push((from.trim().to_owned(), to.trim().to_owned()));
                }
                _ if entry.trim().is_empty() => {}
                _ => {
                    let why = format!("`{entry}` is not a pair");
                    self.error(
                        D,
                        "path_map",
                        why,
                        "write D:\\share => /mnt/share, several separated by commas",
                    );
                }
            }
        }
        map
    }

    fn labels(&mut self) -> Vec<String> {
        let labels: Vec<String> =
            self.s.list(D, "labels").into_iter().filter(|label| !label.is_empty()).collect();
        let good = |label: &String| {
            (1..=64).contains(&label.len())
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
        };
        if let Some(bad) = labels.iter().find(|label| !good(label)) {
            let why = format!("`{}` is no label", bad.chars().take(80).collect::<String>());
            self.error(D, "labels", why, "use 1 to 64 of A-Z a-z 0-9 . _ - for each, separated by commas");
        }
        if labels.len() > 64 {
            self.error(D, "labels", "has more than 64 labels", "leave some out");
        }
        labels
    }

    fn allowed_paths(&mut self) -> Vec<PathBuf> {
        let list = self.s.list(D, "allowed_paths");
        let list = list
            .iter()
            .flat_map(|text| text.split(['\n', ';']))
            .map(str::trim)
            .filter(|text| !text.is_empty());
        let mut out = Vec::new();
        for text in list.map(str::to_owned).collect::<Vec<_>>() {
            let path = paths::absolute(Path::new(&text), self.dir);
            if path.parent().is_none() {
                self.error(
                    D,
                    "allowed_paths",
                    format!("`{text}` is the root of the file system"),
                    "name the directories that descriptors need",
                );
            }
            out.push(path);
        }
        out
    }

    fn interpreters(&mut self) -> Vec<(String, Vec<String>)> {
        let mut table = default_interpreters();
        for (extension, line) in self.s.open("Interpreters").to_vec() {
            let extension = extension.trim_start_matches('.').to_lowercase();
            let words = words(&line);
            table.retain(|(known, _)| *known != extension);
            if !words.is_empty() {
                table.push((extension, words));
            }
        }
        table
    }
}
