//! The orchestrator's configuration: every key with its default, unit and one line of documentation; what is wrong stops
//! the start, what is unwise is warned about. Opens nothing but the file and the secret files that it names.

mod access;
mod agents;
mod geoserver;
mod http;
mod legacy;
mod limits;
mod schema;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use thiserror::Error;
use wps_remote_protocol::ini::settings::{Secret, Settings, Surroundings};
use wps_remote_protocol::ini::{Document, Finding, IniError, Options};

use crate::access::AccessConfig;
use crate::bus::{AgentTrust, LegacyConfig};
use crate::engine::Limits;
use crate::http::HttpConfig;
use crate::jobs::Aliases;
use crate::limits::LimitRules;
use crate::references::Policy;
use crate::store::{Durability, PostgresOptions};

pub(crate) use agents::GRANTS;
pub use schema::SCHEMA;

/// Longest alias of a process, in bytes.
const MAX_ALIAS: usize = 200;

/// Everything that the orchestrator needs to know.
#[derive(Debug, Clone)]
pub struct Config {
    /// HTTP and the texts of the service.
    pub http: HttpConfig,
    /// Our XMPP session.
    pub xmpp: Xmpp,
    /// The embedded XMPP server, if it is on.
    pub server: Option<EmbeddedServer>,
    /// The SQLite file.
    pub store: PathBuf,
    /// The PostgreSQL database, if that is the store.
    pub postgres: Option<PostgresOptions>,
    /// Our name among the orchestrators that share it, if one is given.
    pub node: Option<String>,
    /// How long an orchestrator that shares it may give no sign of life.
    pub lease: Duration,
    /// How hard commits are pressed onto the disk.
    pub durability: Durability,
    /// The folder that agents share with us.
    pub shared_dir: Option<PathBuf>,
    /// Where results are kept.
    pub results_dir: PathBuf,
    /// What is fetched on behalf of clients.
    pub references: Policy,
    /// Other identifiers of processes.
    pub aliases: Aliases,
    /// Who may do what.
    pub access: AccessConfig,
    /// The engine's times and bounds.
    pub limits: Limits,
    /// How much each user may ask for.
    pub limit_rules: LimitRules,
    /// Pause between two questions for an agent's load.
    pub heartbeat: Duration,
    /// How long an agent may take to answer.
    pub answer_timeout: Duration,
    /// Which account may announce what.
    pub trust: AgentTrust,
    /// Agents of the old dialect.
    pub legacy: LegacyConfig,
    /// Password of their rooms, if it is another one.
    pub legacy_password: Option<Secret>,
    /// Where everything lies that has no place of its own.
    pub data_dir: PathBuf,
    /// The `remoteProcess.properties` that was read too.
    pub geoserver_properties: Option<PathBuf>,
    /// What is readable but unwise.
    pub warnings: Vec<String>,
}

/// Our session on the bus.
#[derive(Debug, Clone)]
pub struct Xmpp {
    /// Host of the server; unused with the embedded one.
    pub address: String,
    /// Its port.
    pub port: u16,
    /// Domain of accounts.
    pub domain: String,
    /// Our account's local part.
    pub user: String,
    /// Its password; made anew at each start for the embedded server.
    pub password: Option<Secret>,
    /// `direct`, `starttls` or `none`.
    pub tls: Tls,
    /// Certificates that are trusted besides or instead of the system's.
    pub tls_ca_file: Option<PathBuf>,
    /// The name in the server's certificate, if it is not the domain.
    pub tls_server_name: Option<String>,
    /// SHA-256 of the one certificate that is trusted.
    pub tls_fingerprint: Option<String>,
    /// Trust anything.
    pub tls_insecure: bool,
    /// Domain of rooms.
    pub muc_service: String,
    /// Password of the rooms; made once and kept if none is given.
    pub muc_password: Option<Secret>,
    /// Local part of the room where agents and orchestrators meet.
    pub management_room: String,
    /// Our name there, if one is given.
    pub nick: Option<String>,
}

/// How the connection is secured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tls {
    /// From the first byte.
    Direct,
    /// Upgraded.
    StartTls,
    /// Not at all: loopback only.
    None,
}

/// The embedded server.
#[derive(Debug, Clone)]
pub struct EmbeddedServer {
    /// Where it listens with STARTTLS (plain is possible on loopback only).
    pub listen: SocketAddr,
    /// Where it listens with TLS from the first byte.
    pub tls_listen: Option<SocketAddr>,
    /// File of accounts.
    pub accounts: PathBuf,
    /// Certificate and key, if given; else they are generated.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// Folder of the generated certificate.
    pub tls_dir: PathBuf,
    /// Most connections at once.
    pub max_connections: usize,
    /// The same from one address; 0 = no bound.
    pub max_connections_per_address: usize,
}

/// Why the configuration cannot be used.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{path} cannot be read: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The file says something wrong.
    #[error("{0}")]
    Ini(#[from] IniError),
}

impl Config {
    /// Reads a file, or takes the defaults if there is none. Relative paths are relative to the file's folder.
    pub fn load(path: Option<&Path>) -> Result<Self, ConfigError> {
        Self::load_with(path, None)
    }

    /// The same; what the file does not say is taken from a `remoteProcess.properties` of GeoServer's plugin.
    pub fn load_with(path: Option<&Path>, properties: Option<&Path>) -> Result<Self, ConfigError> {
        let geoserver = match properties {
            Some(path) => {
                let bytes = std::fs::read(path)
                    .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
                Some(geoserver::translate(&bytes, &path.display().to_string()))
            }
            None => None,
        };
        let (bytes, name, folder) = match path {
            Some(path) => {
                let bytes = std::fs::read(path)
                    .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
                let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
                (bytes, path.display().to_string(), folder.to_owned())
            }
            None => (Vec::new(), "built-in defaults".to_owned(), PathBuf::from(".")),
        };
        let env = |name: &str| std::env::var(name).ok();
        let config = Self::parse_with(&bytes, &name, &folder, &env, geoserver)?;
        Ok(Self { geoserver_properties: properties.map(Path::to_owned), ..config })
    }

    /// The sections whose values differ from those of another configuration. Secrets are compared, not shown.
    pub fn changed(&self, other: &Self) -> Vec<&'static str> {
        let same =
            |one: &dyn std::fmt::Debug, two: &dyn std::fmt::Debug| format!("{one:?}") == format!("{two:?}");
        let passwords = |config: &Self| (config.xmpp.password.clone(), config.xmpp.muc_password.clone());
        let parts = [
            ("[http] or [service]", same(&self.http, &other.http)),
            ("[xmpp]", same(&self.xmpp, &other.xmpp) && passwords(self) == passwords(other)),
            ("[xmpp_server]", same(&self.server, &other.server)),
            (
                "[store]",
                same(
                    &(&self.store, &self.postgres, &self.node, &self.lease, &self.durability, &self.data_dir),
                    &(
                        &other.store,
                        &other.postgres,
                        &other.node,
                        &other.lease,
                        &other.durability,
                        &other.data_dir,
                    ),
                ),
            ),
            (
                "[results]",
                same(&(&self.shared_dir, &self.results_dir), &(&other.shared_dir, &other.results_dir)),
            ),
            ("[references]", same(&self.references, &other.references)),
            ("[aliases]", same(&self.aliases, &other.aliases)),
            ("[agents]", same(&self.trust, &other.trust)),
            ("[legacy]", same(&self.legacy, &other.legacy) && self.legacy_password == other.legacy_password),
            (
                "[limits]",
                same(
                    &(&self.limits, &self.heartbeat, &self.answer_timeout, &self.limit_rules.general),
                    &(&other.limits, &other.heartbeat, &other.answer_timeout, &other.limit_rules.general),
                ),
            ),
            ("[role …], [user …], [process …]", {
                let of =
                    |rules: &LimitRules| (rules.roles.clone(), rules.users.clone(), rules.processes.clone());
                of(&self.limit_rules) == of(&other.limit_rules)
            }),
        ];
        parts.into_iter().filter(|(_, same)| !same).map(|(name, _)| name).collect()
    }

    /// Reads a text.
    pub fn parse(
        bytes: &[u8],
        name: &str,
        folder: &Path,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, ConfigError> {
        Self::parse_with(bytes, name, folder, env, None)
    }

    fn parse_with(
        bytes: &[u8],
        name: &str,
        folder: &Path,
        env: &dyn Fn(&str) -> Option<String>,
        geoserver: Option<geoserver::Translation>,
    ) -> Result<Self, ConfigError> {
        let document = Document::parse(bytes, &Options::new(name))?;
        let geoserver = geoserver.unwrap_or_default();
        let written = geoserver.missing_in(&document);
        let env = |name: &str| env(name).or_else(|| written.get(name).cloned());
        let env: &dyn Fn(&str) -> Option<String> = &env;
        let file = |path: &str| std::fs::read_to_string(folder.join(path)).map_err(|error| error.to_string());
        // systemd.exec(5), LoadCredential: a folder that only this service can read.
        let credential = |name: &str| {
            let path = PathBuf::from(env("CREDENTIALS_DIRECTORY").filter(|dir| !dir.is_empty())?).join(name);
            match std::fs::read_to_string(path) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
                read => Some(read.map_err(|error| error.to_string())),
            }
        };
        let settings = SCHEMA.read(&document, &Surroundings { env, file: &file, credential: &credential })?;
        let warnings = geoserver.warnings;
        Reader { settings: &settings, document: &document, folder, faults: Vec::new(), warnings }.read()
    }
}

struct Reader<'a> {
    settings: &'a Settings,
    document: &'a Document,
    folder: &'a Path,
    faults: Vec<Finding>,
    warnings: Vec<String>,
}

fn size(n: u64) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}

impl Reader<'_> {
    fn fault(&mut self, section: &str, key: &str, why: impl Into<String>) {
        let line = self.document.entry(section, key).map(|entry| entry.line);
        let mut finding = Finding::error("bad-value", why).section(section).key(key);
        if let Some(line) = line {
            finding = finding.at(line);
        }
        self.faults.push(finding);
    }

    fn path(&self, section: &str, key: &str) -> Option<PathBuf> {
        let text = self.settings.text(section, key).filter(|text| !text.is_empty())?;
        Some(self.folder.join(text))
    }

    fn text(&self, section: &str, key: &str) -> Option<String> {
        self.settings.text(section, key).filter(|text| !text.is_empty()).map(str::to_owned)
    }

    fn unsigned(&self, section: &str, key: &str) -> u64 {
        self.settings.integer(section, key).and_then(|n| u64::try_from(n).ok()).unwrap_or(0)
    }

    /// A bound on what one address may have, 0 = none; not written, it is the usual one. On loopback everybody has the same
    /// address, so that there is none then.
    fn per_address(&self, section: &str, key: &str, loopback: bool, usual: u64) -> u64 {
        match self.settings.integer(section, key) {
            Some(given) => u64::try_from(given).unwrap_or(u64::MAX),
            None if loopback => 0,
            None => usual,
        }
    }

    fn seconds(&self, section: &str, key: &str) -> Duration {
        Duration::from_secs(self.unsigned(section, key))
    }

    fn socket(&mut self, section: &str, key: &str) -> Option<SocketAddr> {
        let text = self.text(section, key)?;
        match text.parse() {
            Ok(address) => Some(address),
            Err(_) => {
                self.fault(
                    section,
                    key,
                    format!("`{text}` is not an address with a port such as 127.0.0.1:8080"),
                );
                None
            }
        }
    }

    fn read(mut self) -> Result<Config, ConfigError> {
        let data_dir = self.path("store", "data_dir").unwrap_or_else(|| self.folder.join("data"));
        let below = |reader: &Self, section: &str, key: &str, name: &str| {
            reader.path(section, key).unwrap_or_else(|| data_dir.join(name))
        };
        let server = self.server(&data_dir);
        let xmpp = self.xmpp(server.as_ref());
        let http = self.http();
        let access = self.access(&http, &data_dir);
        let references = self.references();
        let durability = match self.settings.text("store", "synchronous") {
            Some("normal") => Durability::Normal,
            _ => Durability::Full,
        };
        let postgres = self.postgres(durability, &xmpp, server.is_none());
        let node = self.node();
        let aliases = self.aliases();
        let limits = Limits {
            max_queued: usize::try_from(self.unsigned("limits", "max_queued")).unwrap_or(usize::MAX),
            max_queue_ms: self.unsigned("limits", "max_queue_time_s") * 1000,
            agent_lost_ms: self.unsigned("limits", "agent_lost_timeout_s") * 1000,
            dismiss_ms: self.unsigned("limits", "dismiss_timeout_s") * 1000,
            retention_ms: self.unsigned("results", "retention_h").saturating_mul(3_600_000),
            max_attempts: u8::try_from(self.unsigned("limits", "max_attempts")).unwrap_or(u8::MAX),
            stale_ms: (2 * self.unsigned("limits", "heartbeat_s")
                + self.unsigned("limits", "answer_timeout_s"))
                * 1000,
            ..Limits::default()
        };
        let limit_rules = self.limit_rules();
        let shared_dir = match self.settings.text("results", "shared_dir") {
            Some("none") => None,
            _ => Some(below(&self, "results", "shared_dir", "shared")),
        };
        let trust = self.trust(&xmpp.domain, &data_dir);
        let (legacy, legacy_password) = self.legacy(shared_dir.as_deref(), limits.agent_lost_ms);
        let config = Config {
            trust,
            legacy,
            legacy_password,
            geoserver_properties: None,
            store: below(&self, "store", "sqlite", "jobs.sqlite"),
            postgres,
            node,
            lease: self.seconds("store", "lease_s"),
            durability,
            shared_dir,
            results_dir: below(&self, "results", "store_dir", "results"),
            references,
            aliases,
            access,
            limits,
            limit_rules,
            heartbeat: self.seconds("limits", "heartbeat_s"),
            answer_timeout: self.seconds("limits", "answer_timeout_s"),
            http,
            xmpp,
            server,
            data_dir,
            warnings: {
                self.warnings.extend(self.settings.warnings().iter().map(ToString::to_string));
                std::mem::take(&mut self.warnings)
            },
        };
        if self.faults.is_empty() { Ok(config) } else { Err(self.document.error(self.faults).into()) }
    }

    fn postgres(
        &mut self,
        durability: Durability,
        xmpp: &Xmpp,
        server_of_its_own: bool,
    ) -> Option<PostgresOptions> {
        let url = self.text("store", "url")?;
        let password = self.settings.secret("store", "password");
        let options = PostgresOptions::new(&url, password.as_ref().map(Secret::expose));
        if server_of_its_own && xmpp.muc_password.is_none() {
            self.fault(
                "xmpp",
                "muc_password",
                "is needed with [store] url, the same for all orchestrators (or `muc_password_file`, `muc_password_env`)",
            );
        }
        match options {
            Ok(mut options) => {
                options.durability = durability;
                options.max_connections =
                    u32::try_from(self.unsigned("store", "max_connections")).unwrap_or(u32::MAX);
                Some(options)
            }
            Err(error) => {
                self.fault("store", "url", error.to_string());
                None
            }
        }
    }

    fn node(&mut self) -> Option<String> {
        let node = self.text("store", "node")?;
        let good = node.len() <= 40
            && node.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
        if !good {
            self.fault("store", "node", "is no node name: 1 to 40 of A-Z a-z 0-9 . _ -");
        }
        Some(node)
    }

    fn aliases(&mut self) -> Aliases {
        let mut aliases = Aliases::new();
        for (alias, process) in self.settings.open("aliases") {
            if alias.len() > MAX_ALIAS
                || alias.chars().any(|c| c.is_whitespace() || c.is_control() || c == ',')
            {
                let why = format!("is no identifier: at most {MAX_ALIAS} bytes, no blank and no comma");
                self.fault("aliases", alias, why);
            }
            match process.parse() {
                Ok(process) => {
                    aliases.insert(alias.clone(), process);
                }
                Err(error) => self.fault("aliases", alias, error.to_string()),
            }
        }
        aliases
    }

    fn references(&mut self) -> Policy {
        let list = |key: &str| self.settings.list("references", key);
        let mut policy = Policy::new(&list("allow"), &list("rewrite")).unwrap_or_else(|error| {
            let key = if error.is_about_rewriting() { "rewrite" } else { "allow" };
            self.fault("references", key, error.to_string());
            Policy::default()
        });
        policy.max_bytes = self.unsigned("references", "max_mb").saturating_mul(1 << 20);
        policy.timeout = self.seconds("references", "timeout_s");
        policy.max_redirects =
            u32::try_from(self.unsigned("references", "max_redirects")).unwrap_or(u32::MAX);
        policy
    }

    fn server(&mut self, data_dir: &Path) -> Option<EmbeddedServer> {
        if !self.settings.is_true("xmpp_server", "enabled") {
            return None;
        }
        let listen = self.socket("xmpp_server", "listen");
        let tls_listen = self.socket("xmpp_server", "tls_listen");
        let certificate = match (self.path("xmpp_server", "certificate"), self.path("xmpp_server", "key")) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            _ => {
                self.fault(
                    "xmpp_server",
                    "certificate",
                    "`certificate` and `key` are given together or not at all",
                );
                None
            }
        };
        let listen = listen.unwrap_or(SocketAddr::from(([127, 0, 0, 1], 5222)));
        let local = listen.ip().is_loopback() && tls_listen.is_none_or(|tls| tls.ip().is_loopback());
        let per_address = self.per_address("xmpp_server", "max_connections_per_address", local, 256);
        Some(EmbeddedServer {
            listen,
            tls_listen,
            max_connections: size(self.unsigned("xmpp_server", "max_connections")),
            max_connections_per_address: size(per_address),
            accounts: self.path("xmpp_server", "accounts").unwrap_or_else(|| data_dir.join("xmpp-accounts")),
            certificate,
            tls_dir: data_dir.join("tls"),
        })
    }

    fn xmpp(&mut self, server: Option<&EmbeddedServer>) -> Xmpp {
        let domain = self.settings.string("xmpp", "domain");
        let port = u16::try_from(self.unsigned("xmpp", "port")).unwrap_or(5222);
        let tls = match self.settings.text("xmpp", "tls") {
            Some("direct") => Tls::Direct,
            Some("none") => Tls::None,
            Some("starttls") => Tls::StartTls,
            _ if port == 5223 => Tls::Direct,
            _ => Tls::StartTls,
        };
        let address = self.text("xmpp", "address").unwrap_or_else(|| domain.clone());
        let password = self.settings.secret("xmpp", "password");
        if server.is_none() && password.is_none() {
            self.fault(
                "xmpp",
                "password",
                "is needed to log in to an XMPP server of your own (or `password_file`, or `password_env`)",
            );
        }
        if server.is_some() && self.text("xmpp", "address").is_some() {
            self.warnings.push(
                "[xmpp] address is ignored, because the embedded server is on; set [xmpp_server] enabled = false to use yours"
                    .to_owned(),
            );
        }
        let muc_service = self.text("xmpp", "muc_service").unwrap_or_else(|| format!("conference.{domain}"));
        if self.settings.is_true("xmpp", "tls_insecure") {
            self.warnings.push("[xmpp] tls_insecure: the server's certificate is not checked; pin it with tls_fingerprint_sha256 instead".to_owned());
        }
        Xmpp {
            address,
            port,
            user: self.settings.string("xmpp", "user"),
            password,
            tls,
            tls_ca_file: self.path("xmpp", "tls_ca_file"),
            tls_server_name: self.text("xmpp", "tls_server_name"),
            tls_fingerprint: self.text("xmpp", "tls_fingerprint_sha256"),
            tls_insecure: self.settings.is_true("xmpp", "tls_insecure"),
            muc_service,
            muc_password: self.settings.secret("xmpp", "muc_password"),
            management_room: self.settings.string("xmpp", "management_room"),
            nick: self.text("xmpp", "nick"),
            domain,
        }
    }
}

#[cfg(test)]
mod tests;
