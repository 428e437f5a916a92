//! XMPP servers for tests: the embedded one, Prosody and ejabberd, each on free loopback ports with everything in a
//! temporary folder, with accounts, and with a way to be killed and to come back at the same place. Knows no
//! orchestrator and no agent.
//!
//! The account [`OWNER`] may create rooms, others may not, as the configurations in `deploy/xmpp` have it.

use std::cell::Cell;
use std::fmt;
use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use wps_remote_xmpp::net::{Connector, Security, Trust};
use wps_remote_xmpp::server::{self, Accounts, Certificate, Listen, Server, ServerConfig};
use wps_remote_xmpp::{BareJid, Jid};

use crate::{free_port, installed, wait_until};

/// The account that may create rooms.
pub const OWNER: &str = "orchestrator";
/// The domain of all test servers.
pub const DOMAIN: &str = "xmpp.test";

const START_DEADLINE: Duration = Duration::from_secs(60);

/// Where a server is, and whom it takes.
#[derive(Debug, Clone)]
pub struct Place {
    /// Loopback.
    pub host: String,
    /// Plain TCP, and STARTTLS for those who want it.
    pub port: u16,
    /// Direct TLS.
    pub tls_port: u16,
    /// Domain of the accounts.
    pub domain: String,
    /// Domain of the rooms.
    pub muc_domain: String,
    /// The server's own certificate, to be taken as CA file.
    pub ca_file: PathBuf,
}

impl Place {
    /// A connector of the given kind that trusts the server's certificate.
    pub fn connector(&self, security: Security) -> Connector {
        let port = if security == Security::DirectTls { self.tls_port } else { self.port };
        Connector::tcp(&self.host, port, security, &Trust::ca_file(&self.ca_file))
            .expect("the trust settings are good")
    }

    /// Address of an account, with its name as resource.
    pub fn jid(&self, user: &str) -> Jid {
        format!("{user}@{}/{user}", self.domain).parse().expect("test accounts have possible names")
    }

    /// Address of a room.
    pub fn room(&self, name: &str) -> BareJid {
        format!("{name}@{}", self.muc_domain).parse().expect("test rooms have possible names")
    }

    fn at(folder: &Path) -> Self {
        Self {
            host: Ipv4Addr::LOCALHOST.to_string(),
            port: free_port(),
            tls_port: free_port(),
            domain: DOMAIN.to_owned(),
            muc_domain: format!("conference.{DOMAIN}"),
            ca_file: folder.join("xmpp-certificate.pem"),
        }
    }

    fn is_reachable(&self) -> bool {
        [self.port, self.tls_port].into_iter().all(|port| {
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            TcpStream::connect_timeout(&address, Duration::from_millis(200)).is_ok()
        })
    }
}

/// A server that tests can treat like any other.
pub trait XmppServer: fmt::Debug + Send {
    /// Its name, for messages.
    fn label(&self) -> &'static str;
    /// Where it is.
    fn place(&self) -> &Place;
    /// Adds an account; at once usable.
    fn add_account(&self, user: &str, password: &str);
    /// Ends it without a chance to say good-bye.
    fn kill(&mut self);
    /// Starts it again, at the same place and with the same accounts; returns when it can be reached.
    fn restart(&mut self);
}

/// Every server that is installed here, started; says which are missing.
pub fn every_server(test: &str) -> Vec<Box<dyn XmppServer>> {
    let mut servers: Vec<Box<dyn XmppServer>> = vec![Box::new(Embedded::start())];
    match Prosody::start() {
        Some(prosody) => servers.push(Box::new(prosody)),
        None => crate::skip(test, "prosody is not installed"),
    }
    match Ejabberd::start() {
        Some(ejabberd) => servers.push(Box::new(ejabberd)),
        None => crate::skip(test, "ejabberd is not installed"),
    }
    servers
}

fn folder() -> TempDir {
    tempfile::Builder::new().prefix("wps-xmpp-").tempdir().expect("a temporary folder can be made")
}

/// Makes certificate and key in `folder` by means of the embedded server, so that no other program is needed.
fn make_certificate(folder: &Path) {
    let runtime = small_runtime();
    let _inside = runtime.enter();
    let config = ServerConfig {
        certificate: Some(Certificate::Generated { folder: folder.to_owned() }),
        ..ServerConfig::new(DOMAIN, folder.join("unused-accounts"))
    };
    drop(server::start(config).expect("a certificate can be made"));
}

fn small_runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime can be made")
}

/// The embedded server, in this process.
#[derive(Debug)]
pub struct Embedded {
    place: Place,
    folder: TempDir,
    running: Option<(Runtime, Server)>,
}

impl Embedded {
    /// Starts it.
    pub fn start() -> Self {
        let folder = folder();
        let place = Place::at(folder.path());
        let mut embedded = Self { place, folder, running: None };
        embedded.restart();
        embedded
    }

    fn accounts(&self) -> PathBuf {
        self.folder.path().join("accounts")
    }
}

impl XmppServer for Embedded {
    fn label(&self) -> &'static str {
        "embedded"
    }

    fn place(&self) -> &Place {
        &self.place
    }

    fn add_account(&self, user: &str, password: &str) {
        Accounts::new(self.accounts()).set(user, password).expect("an account can be added");
    }

    fn kill(&mut self) {
        if let Some((runtime, server)) = self.running.take() {
            // The tasks go first, so that the server cannot say good-bye.
            runtime.shutdown_timeout(Duration::from_secs(5));
            drop(server);
        }
    }

    fn restart(&mut self) {
        self.kill();
        let listen = |port, security| Listen { address: (Ipv4Addr::LOCALHOST, port).into(), security };
        let config = ServerConfig {
            owners: vec![OWNER.to_owned()],
            certificate: Some(Certificate::Generated { folder: self.folder.path().to_owned() }),
            listen: vec![
                listen(self.place.port, Security::StartTls),
                listen(self.place.tls_port, Security::DirectTls),
            ],
            ..ServerConfig::new(DOMAIN, self.accounts())
        };
        let runtime = small_runtime();
        let server = {
            let _inside = runtime.enter();
            wait_until(Duration::from_secs(10), || server::start(config.clone()).ok())
                .expect("the embedded server starts")
        };
        self.running = Some((runtime, server));
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Deref for Embedded {
    type Target = Place;
    fn deref(&self) -> &Place {
        &self.place
    }
}

/// A server that is a process of its own.
#[derive(Debug)]
struct Process {
    child: Option<Child>,
    log: PathBuf,
}

impl Process {
    fn launch(&mut self, mut command: Command, place: &Place) {
        let log =
            fs::OpenOptions::new().create(true).append(true).open(&self.log).expect("the log can be written");
        let errors = log.try_clone().expect("a file can be shared");
        command.stdin(Stdio::null()).stdout(log).stderr(errors);
        let mut child = command.spawn().expect("an installed server can be started");
        let up = wait_until(START_DEADLINE, || {
            let died = child.try_wait().ok().flatten();
            (died.is_some() || place.is_reachable()).then_some(died.is_none())
        });
        self.child = Some(child);
        if up != Some(true) {
            let log = fs::read_to_string(&self.log).unwrap_or_default();
            panic!("the server did not start: {}\n{log}", if up.is_none() { "deadline" } else { "it ended" });
        }
    }

    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended by itself; then there is nothing to kill.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Prosody, started from its own configuration.
#[derive(Debug)]
pub struct Prosody {
    place: Place,
    process: Process,
    folder: TempDir,
}

impl Prosody {
    /// Starts it, if it is installed.
    pub fn start() -> Option<Self> {
        Self::start_with(|config| config)
    }

    /// The same as the page about Python agents has it: TLS 1.0 on the port of direct TLS, rooms that anybody may make.
    pub fn start_for_python_agents() -> Option<Self> {
        Self::start_with(|config| {
            config
                .replace(
                    "c2s_direct_tls_ssl = {",
                    "c2s_direct_tls_ssl = { protocol = \"tlsv1+\", ciphers = \"DEFAULT@SECLEVEL=0\",",
                )
                .replace("restrict_room_creation = true", "restrict_room_creation = false")
                .replace("muc_room_locking = true", "muc_room_locking = false")
        })
    }

    fn start_with(change: impl FnOnce(String) -> String) -> Option<Self> {
        if !installed("prosody") {
            return None;
        }
        let folder = folder();
        make_certificate(folder.path());
        let place = Place::at(folder.path());
        let config = change(prosody_config(folder.path(), &place));
        fs::write(folder.path().join("prosody.cfg.lua"), config).expect("a file can be written");
        let process = Process { child: None, log: folder.path().join("prosody.log") };
        let mut prosody = Self { place, process, folder };
        prosody.restart();
        Some(prosody)
    }
}

fn prosody_config(folder: &Path, place: &Place) -> String {
    let (path, Place { port, tls_port, domain, muc_domain, .. }) = (folder.display(), place);
    format!(
        r#"run_as_root = true
daemonize = false
data_path = "{path}/data"
log = {{ info = "*console" }}
interfaces = {{ "127.0.0.1" }}
c2s_ports = {{ {port} }}
c2s_direct_tls_ports = {{ {tls_port} }}
s2s_ports = {{ }}
network_settings = {{ nagle = false }}
modules_enabled = {{ "roster", "saslauth", "tls", "disco", "ping", "smacks" }}
modules_disabled = {{ "s2s" }}
admins = {{ "{OWNER}@{domain}" }}
authentication = "internal_plain"
c2s_require_encryption = false
allow_unencrypted_plain_auth = true
c2s_stanza_size_limit = 262144
ssl = {{ certificate = "{path}/xmpp-certificate.pem", key = "{path}/xmpp-key.pem" }}
c2s_direct_tls_ssl = {{ certificate = "{path}/xmpp-certificate.pem", key = "{path}/xmpp-key.pem" }}

VirtualHost "{domain}"

Component "{muc_domain}" "muc"
  restrict_room_creation = true
  muc_room_locking = true
"#
    )
}

impl XmppServer for Prosody {
    fn label(&self) -> &'static str {
        "Prosody"
    }

    fn place(&self) -> &Place {
        &self.place
    }

    fn add_account(&self, user: &str, password: &str) {
        // What `prosodyctl register` would write, a second faster; Prosody looks at every login.
        let accounts = self.folder.path().join("data").join(DOMAIN.replace('.', "%2e")).join("accounts");
        fs::create_dir_all(&accounts).expect("a folder can be made");
        let content = format!("return {{ [\"password\"] = \"{password}\"; }};\n");
        fs::write(accounts.join(format!("{}.dat", user.replace('-', "%2d"))), content)
            .expect("a file can be written");
    }

    fn kill(&mut self) {
        self.process.kill();
    }

    fn restart(&mut self) {
        self.kill();
        let mut command = Command::new("prosody");
        command.arg("-F").arg("--config").arg(self.folder.path().join("prosody.cfg.lua"));
        self.process.launch(command, &self.place);
    }
}

impl Deref for Prosody {
    type Target = Place;
    fn deref(&self) -> &Place {
        &self.place
    }
}

/// ejabberd, started from its own configuration, as an Erlang node without a name: no `epmd` is needed or left.
#[derive(Debug)]
pub struct Ejabberd {
    place: Place,
    api_port: u16,
    process: Process,
    folder: TempDir,
    last_account: Cell<Instant>,
}

/// ejabberd's database keeps what it was told for two seconds before it writes it down.
const WRITES_AFTER: Duration = Duration::from_secs(3);

/// Where packages put ejabberd's Erlang applications.
const ERLANG_FOLDERS: [&str; 3] = ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib"];

impl Ejabberd {
    /// Starts it, if it is installed.
    pub fn start() -> Option<Self> {
        if !(installed("erl") && Self::libraries().is_some()) {
            return None;
        }
        let folder = folder();
        make_certificate(folder.path());
        let (place, api_port) = (Place::at(folder.path()), free_port());
        let read = |name: &str| fs::read(folder.path().join(name)).expect("the certificate was made");
        let both = [read("xmpp-key.pem"), read("xmpp-certificate.pem")].concat();
        fs::write(folder.path().join("both.pem"), both).expect("a file can be written");
        let config = ejabberd_config(folder.path(), &place, api_port);
        fs::write(folder.path().join("ejabberd.yml"), config).expect("a file can be written");
        let process = Process { child: None, log: folder.path().join("console.log") };
        let mut ejabberd = Self { place, api_port, process, folder, last_account: Cell::new(Instant::now()) };
        ejabberd.restart();
        Some(ejabberd)
    }

    fn libraries() -> Option<&'static str> {
        ERLANG_FOLDERS.into_iter().find(|folder| {
            fs::read_dir(folder).is_ok_and(|entries| {
                entries.flatten().any(|entry| entry.file_name().to_string_lossy().starts_with("ejabberd-"))
            })
        })
    }

    fn api(&self, command: &str, body: &str) -> Option<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.api_port)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
        let length = body.len();
        write!(
            stream,
            "POST /api/{command} HTTP/1.0\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{body}"
        )
        .ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        answer.split(' ').nth(1).is_some_and(|status| status == "200").then_some(answer)
    }
}

fn ejabberd_config(folder: &Path, place: &Place, api_port: u16) -> String {
    let (path, Place { port, tls_port, domain, .. }) = (folder.display(), place);
    format!(
        r#"loglevel: info
hosts: [{domain}]
certfiles: ["{path}/both.pem"]
listen:
  - {{port: {port}, ip: "127.0.0.1", module: ejabberd_c2s, max_stanza_size: 262144, shaper: none, access: c2s, starttls: true}}
  - {{port: {tls_port}, ip: "127.0.0.1", module: ejabberd_c2s, max_stanza_size: 262144, shaper: none, access: c2s, tls: true}}
  - {{port: {api_port}, ip: "127.0.0.1", module: ejabberd_http, request_handlers: {{/api: mod_http_api}}}}
auth_password_format: scram
acl:
  owner: {{user: {OWNER}}}
  loopback: {{ip: [127.0.0.0/8]}}
access_rules:
  c2s: {{allow: all}}
  muc_create: {{allow: owner}}
api_permissions:
  tests: {{who: {{access: {{allow: [{{acl: loopback}}]}}}}, what: [register, change_password, status]}}
modules:
  mod_admin_extra: {{}}
  mod_http_api: {{}}
  mod_muc: {{access_create: muc_create}}
  mod_ping: {{}}
  mod_stream_mgmt: {{}}
"#
    )
}

impl XmppServer for Ejabberd {
    fn label(&self) -> &'static str {
        "ejabberd"
    }

    fn place(&self) -> &Place {
        &self.place
    }

    fn add_account(&self, user: &str, password: &str) {
        let body = format!(r#"{{"user":"{user}","host":"{DOMAIN}","password":"{password}"}}"#);
        let added = wait_until(Duration::from_secs(10), || self.api("register", &body));
        assert!(added.is_some(), "ejabberd did not add the account {user}");
        self.last_account.set(Instant::now());
    }

    fn kill(&mut self) {
        std::thread::sleep(WRITES_AFTER.saturating_sub(self.last_account.get().elapsed()));
        self.process.kill();
    }

    fn restart(&mut self) {
        self.kill();
        let folder = self.folder.path();
        let mut command = Command::new("erl");
        command
            .args(["-noinput", "-mnesia", "dir"])
            .arg(format!("\"{}\"", folder.join("spool").display()))
            .args(["-s", "ejabberd"])
            .current_dir(folder)
            .env("HOME", folder)
            .env("ERL_LIBS", Self::libraries().unwrap_or_default())
            .env("ERL_CRASH_DUMP_BYTES", "0")
            .env("EJABBERD_CONFIG_PATH", folder.join("ejabberd.yml"))
            .env("EJABBERD_LOG_PATH", folder.join("ejabberd.log"));
        self.process.launch(command, &self.place);
    }
}

impl Deref for Ejabberd {
    type Target = Place;
    fn deref(&self) -> &Place {
        &self.place
    }
}
