//! Upload servers for tests, each on a free loopback port with everything in a temporary folder: ProFTPD for FTP, FTPS and
//! SFTP with passwords, OpenSSH for SFTP with keys, and an S3 store. Knows nothing of agents.

use std::fs;
use std::io::Write as _;
use std::net::TcpStream;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::program::Program;
use crate::{free_port, installed, root, wait_until};

/// The account of every server here, except OpenSSH, which takes the account that runs the tests.
pub const USER: &str = "uploads";
/// Its password.
pub const PASSWORD: &str = "a pass:word & more";
/// The bucket of the S3 store; its account is fixed in the program.
pub const BUCKET: &str = "results";
/// Account and secret of the S3 store.
pub const S3_ACCOUNT: &str = "S3RVER";

const START: Duration = Duration::from_secs(30);

/// What a server speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// In the clear.
    Ftp,
    /// Explicit TLS.
    Ftps,
    /// By password.
    Sftp,
    /// By key.
    SftpKey,
    /// An object store, over HTTP.
    S3,
}

/// A running server.
#[derive(Debug)]
pub struct UploadServer {
    protocol: Protocol,
    port: u16,
    folder: TempDir,
    program: Option<Program>,
}

impl UploadServer {
    /// Starts one, or says why there is none here.
    pub fn start(protocol: Protocol) -> Result<Self, String> {
        let folder = tempfile::Builder::new().prefix("wps-upload-").tempdir().map_err(|e| e.to_string())?;
        // The server's own account must get through.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).map_err(|e| e.to_string())?;
        let mut server = Self { protocol, port: free_port(), folder, program: None };
        fs::create_dir(server.files()).map_err(|error| error.to_string())?;
        fs::set_permissions(server.files(), fs::Permissions::from_mode(0o777)).map_err(|e| e.to_string())?;
        match protocol {
            Protocol::Ftp | Protocol::Ftps | Protocol::Sftp => server.prepare_proftpd()?,
            Protocol::SftpKey => server.prepare_sshd()?,
            Protocol::S3 => {}
        }
        server.restart()?;
        Ok(server)
    }

    /// Where uploads with a relative root land.
    pub fn files(&self) -> PathBuf {
        self.folder.path().join("files")
    }

    /// Where an object or file of this path is kept.
    pub fn file(&self, path: &str) -> PathBuf {
        match self.protocol {
            // The store has its own way to write what is not plain in a name.
            Protocol::S3 => {
                let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
                let folder = self.files().join(BUCKET).join(folder);
                let plain: String = name.chars().take_while(char::is_ascii_alphanumeric).collect();
                let names =
                    fs::read_dir(&folder).into_iter().flatten().flatten().map(|entry| entry.file_name());
                let found = names.filter_map(|name| name.into_string().ok());
                let mut found =
                    found.filter(|name| name.starts_with(&plain) && name.ends_with("_S3rver_object"));
                folder.join(found.next().unwrap_or_default())
            }
            _ => self.files().join(path),
        }
    }

    /// What it wrote, for messages.
    pub fn log(&self) -> String {
        let read = |name: &str| fs::read_to_string(self.folder.path().join(name)).unwrap_or_default();
        format!("{}{}", read("server.log"), read("proftpd.log"))
    }

    /// Ends it at once.
    pub fn kill(&mut self) {
        if let Some(program) = self.program.take() {
            program.kill();
        }
    }

    /// Starts it again at the same place.
    pub fn restart(&mut self) -> Result<(), String> {
        self.kill();
        let folder = self.folder.path();
        let command = match self.protocol {
            Protocol::Ftp | Protocol::Ftps | Protocol::Sftp => {
                let mut command = Command::new("/usr/sbin/proftpd");
                command.args(["--nodaemon", "--quiet", "--config"]).arg(folder.join("proftpd.conf"));
                command
            }
            Protocol::SftpKey => {
                let mut command = Command::new("/usr/sbin/sshd");
                command.args(["-D", "-e", "-f"]).arg(folder.join("sshd_config"));
                command
            }
            Protocol::S3 => {
                let mut command = Command::new(s3rver()?);
                command
                    .args(["--address", "127.0.0.1", "--port", &self.port.to_string()])
                    .args(["--configure-bucket", BUCKET, "--directory"])
                    .arg(self.files());
                command
            }
        };
        let program = Program::start("upload server", command, &folder.join("server.log"));
        let program = program.map_err(|error| error.to_string())?;
        let up = wait_until(START, || {
            if program.ended().is_some() {
                return Some(false);
            }
            TcpStream::connect(("127.0.0.1", self.port)).is_ok().then_some(true)
        });
        if up != Some(true) {
            return Err(format!("the server does not start:\n{}", program.tail()));
        }
        self.program = Some(program);
        Ok(())
    }

    /// The lines of `[UPLOADER]` for it.
    pub fn config(&self) -> String {
        let folder = self.folder.path();
        let secret = folder.join("password");
        private(&secret, PASSWORD).expect("the temporary folder can be written to");
        let account = format!("uploader_username = {USER}\nuploader_password_file = {}\n", secret.display());
        let class_and_trust = match self.protocol {
            Protocol::Ftp => {
                format!("uploader_class_name = ftp\nuploader_allow_plaintext = true\n{account}")
            }
            Protocol::Ftps => format!(
                "uploader_class_name = ftps\nuploader_ca_file = {}\n{account}",
                folder.join("cert.pem").display()
            ),
            Protocol::Sftp => format!(
                "uploader_class_name = sftp\nuploader_known_hosts = {}\n{account}",
                folder.join("known_hosts").display()
            ),
            Protocol::SftpKey => format!(
                "uploader_class_name = sftp\nuploader_known_hosts = {}\nuploader_username = {}\nuploader_key_file = {}\nuploader_passphrase = {PASSWORD}\n",
                folder.join("known_hosts").display(),
                account_name(),
                folder.join("user_key").display()
            ),
            Protocol::S3 => {
                private(&secret, S3_ACCOUNT).expect("the temporary folder can be written to");
                format!(
                    "uploader_class_name = s3\nuploader_allow_plaintext = true\nuploader_bucket = {BUCKET}\nuploader_username = {S3_ACCOUNT}\nuploader_password_file = {}\n",
                    secret.display()
                )
            }
        };
        format!("[UPLOADER]\nuploader_host = 127.0.0.1:{}\n{class_and_trust}", self.port)
    }

    /// The path that an upload with a root must begin with to land in [`files`](Self::files).
    pub fn root(&self) -> String {
        match self.protocol {
            // OpenSSH begins in the home of the account.
            Protocol::SftpKey => self.files().display().to_string(),
            _ => String::new(),
        }
    }

    fn prepare_proftpd(&self) -> Result<(), String> {
        for module in ["mod_tls.so", "mod_sftp.so"] {
            if !Path::new("/usr/lib/proftpd").join(module).exists() {
                return Err(format!("proftpd with {module} is not installed"));
            }
        }
        if !rustix::process::geteuid().is_root() {
            return Err("proftpd needs root for its accounts".to_owned());
        }
        let folder = self.folder.path();
        let hash = output(Command::new("openssl").args(["passwd", "-6", PASSWORD]))?;
        let accounts = format!("{USER}:{}:65534:65534::{}:/bin/false\n", hash.trim(), self.files().display());
        private(&folder.join("accounts"), &accounts)?;
        certificate(folder)?;
        ssh_key(&folder.join("host_key"), "", "PEM")?;
        self.known_hosts("host_key")?;
        let dir = folder.display();
        let engine = match self.protocol {
            Protocol::Ftps => format!(
                "TLSEngine on\nTLSRequired on\nTLSRSACertificateFile {dir}/cert.pem\nTLSRSACertificateKeyFile {dir}/key.pem\n"
            ),
            Protocol::Sftp => {
                format!(
                    "SFTPEngine on\nSFTPHostKey {dir}/host_key\nSFTPAuthMethods password\nSFTPLog {dir}/proftpd.log\n"
                )
            }
            _ => String::new(),
        };
        let text = format!(
            "LoadModule mod_tls.c\nLoadModule mod_sftp.c\nServerName test\nServerType standalone\nDefaultServer on\nDefaultAddress 127.0.0.1\nPort {}\nUser nobody\nGroup nogroup\nUseIPv6 off\nUseReverseDNS off\nRequireValidShell off\nAuthOrder mod_auth_file.c\nAuthUserFile {dir}/accounts\nDefaultRoot ~\nWtmpLog off\nTransferLog none\nSystemLog {dir}/proftpd.log\nScoreboardFile {dir}/scoreboard\nPidFile {dir}/proftpd.pid\nDelayEngine off\nAllowOverwrite on\n{engine}",
            self.port
        );
        fs::write(folder.join("proftpd.conf"), text).map_err(|error| error.to_string())
    }

    fn prepare_sshd(&self) -> Result<(), String> {
        if !Path::new("/usr/sbin/sshd").exists() {
            return Err("openssh-server is not installed".to_owned());
        }
        let folder = self.folder.path();
        ssh_key(&folder.join("host_key"), "", "RFC4716")?;
        ssh_key(&folder.join("user_key"), PASSWORD, "RFC4716")?;
        self.known_hosts("host_key")?;
        // Privilege separation wants this folder; the service's start script makes it otherwise.
        if rustix::process::geteuid().is_root() {
            fs::create_dir_all("/run/sshd").map_err(|error| error.to_string())?;
        }
        let dir = folder.display();
        let text = format!(
            "ListenAddress 127.0.0.1\nPort {}\nHostKey {dir}/host_key\nAuthorizedKeysFile {dir}/user_key.pub\nStrictModes no\nUsePAM no\nPasswordAuthentication no\nPermitRootLogin prohibit-password\nPidFile {dir}/sshd.pid\nSubsystem sftp internal-sftp\n",
            self.port
        );
        fs::write(folder.join("sshd_config"), text).map_err(|error| error.to_string())
    }

    fn known_hosts(&self, key: &str) -> Result<(), String> {
        let public = fs::read_to_string(self.folder.path().join(format!("{key}.pub")));
        let line = format!("[127.0.0.1]:{} {}", self.port, public.map_err(|error| error.to_string())?);
        fs::write(self.folder.path().join("known_hosts"), line).map_err(|error| error.to_string())
    }

    /// Puts the key of another host into the file of known ones.
    pub fn forget_host(&self) {
        let folder = self.folder.path();
        ssh_key(&folder.join("other_key"), "", "RFC4716").expect("a key can be made");
        self.known_hosts("other_key").expect("the temporary folder can be written to");
    }
}

impl Drop for UploadServer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The S3 store that `tests/run` installs, or the one that is named in the environment.
fn s3rver() -> Result<PathBuf, String> {
    let named = std::env::var_os("WPS_TEST_S3RVER").map(PathBuf::from);
    let path = named.unwrap_or_else(|| root().join("target/s3rver/node_modules/.bin/s3rver"));
    if path.exists() && installed("node") {
        Ok(path)
    } else {
        Err("no S3 store: tests/run installs s3rver".to_owned())
    }
}

fn account_name() -> String {
    output(Command::new("id").arg("-un")).unwrap_or_default().trim().to_owned()
}

fn output(command: &mut Command) -> Result<String, String> {
    let output = command.stdin(Stdio::null()).output().map_err(|error| format!("{command:?}: {error}"))?;
    if !output.status.success() {
        return Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr)));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn certificate(folder: &Path) -> Result<(), String> {
    let mut command = Command::new("openssl");
    command
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-days",
            "2",
        ])
        .args(["-subj", "/CN=upload test", "-addext", "subjectAltName=IP:127.0.0.1"])
        .args(["-addext", "basicConstraints=critical,CA:FALSE"])
        .arg("-keyout")
        .arg(folder.join("key.pem"))
        .arg("-out")
        .arg(folder.join("cert.pem"));
    output(&mut command).map(|_| ())
}

fn ssh_key(path: &Path, passphrase: &str, format: &str) -> Result<(), String> {
    let mut command = Command::new("ssh-keygen");
    // The old format only knows the old kinds of keys.
    let kind = if format == "PEM" { "ecdsa" } else { "ed25519" };
    command.args(["-q", "-t", kind, "-m", format, "-N", passphrase, "-f"]).arg(path);
    output(&mut command).map(|_| ())
}

fn private(path: &Path, text: &str) -> Result<(), String> {
    let file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes())).map_err(|error| error.to_string())
}
