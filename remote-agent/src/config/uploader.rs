//! `[UPLOADER]`: where outputs with `upload_data = true` go.

use std::path::PathBuf;

use url::Url;
use wps_remote_protocol::ini::settings::Secret;

use super::Builder;

/// Protocols of upload servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UploaderKind {
    /// Plain FTP.
    Ftp,
    /// FTP over TLS: explicit, or implicit on port 990.
    Ftps,
    /// SFTP.
    Sftp,
    /// A store that speaks the S3 protocol.
    S3,
}

/// An upload server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uploader {
    /// Its protocol.
    pub kind: UploaderKind,
    /// Its host.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Account.
    pub user: String,
    /// Password.
    pub password: Secret,
    /// Private key, for SFTP.
    pub key_file: Option<PathBuf>,
    /// Its passphrase.
    pub passphrase: Option<Secret>,
    /// Bucket, for S3.
    pub bucket: String,
    /// Region, for S3.
    pub region: String,
    /// Address under which clients reach what was uploaded, without a slash at its end.
    pub public_url: Option<String>,
    /// Certificates to trust.
    pub ca_file: Option<PathBuf>,
    /// Known host keys.
    pub known_hosts: Option<PathBuf>,
    /// Nothing is checked.
    pub insecure: bool,
    /// Nothing is encrypted where the protocol does not do it by itself.
    pub plaintext: bool,
}

impl Uploader {
    /// Host and port, for people.
    pub fn server(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// Address of an S3 store.
    pub fn endpoint(&self) -> String {
        let scheme = if self.plaintext { "http" } else { "https" };
        format!("{scheme}://{}", self.server())
    }

    /// What the addresses of uploaded files begin with, without a slash at its end.
    pub fn base_url(&self) -> String {
        if let Some(url) = &self.public_url {
            return url.clone();
        }
        match self.kind {
            UploaderKind::Ftp => format!("ftp://{}", self.server()),
            UploaderKind::Ftps => format!("ftps://{}", self.server()),
            UploaderKind::Sftp => format!("sftp://{}", self.server()),
            UploaderKind::S3 => format!("{}/{}", self.endpoint(), self.bucket),
        }
    }

    fn default_port(kind: UploaderKind, plaintext: bool) -> u16 {
        match kind {
            UploaderKind::Ftp | UploaderKind::Ftps => 21,
            UploaderKind::Sftp => 22,
            UploaderKind::S3 if plaintext => 80,
            UploaderKind::S3 => 443,
        }
    }
}

const U: &str = "UPLOADER";

pub(super) fn read(builder: &mut Builder<'_>) -> Option<Uploader> {
    let settings = builder.s;
    let class = settings.text(U, "uploader_class_name")?;
    let kind = match class {
        "ftp" | "ftpUpload.FtpUpload" => UploaderKind::Ftp,
        "ftps" | "ftpsUpload.FtpsUpload" => UploaderKind::Ftps,
        "sftp" | "sftpUpload.SFtpUpload" => UploaderKind::Sftp,
        "s3" => UploaderKind::S3,
        other => {
            let why = format!("`{other}` is not an uploader");
            builder.error(U, "uploader_class_name", why, "write ftp, ftps, sftp or s3");
            return None;
        }
    };
    if !cfg!(feature = "upload") {
        let why = "this program was built without uploads";
        builder.error(U, "uploader_class_name", why, "remove [UPLOADER], or build with the feature `upload`");
        return None;
    }
    let plaintext = settings.is_true(U, "uploader_allow_plaintext");
    if kind == UploaderKind::Ftp && !plaintext {
        let why = "plain ftp sends the password in clear";
        builder.error(
            U,
            "uploader_class_name",
            why,
            "use ftps or sftp, or set uploader_allow_plaintext = true",
        );
    }
    let key_file = settings.path(U, "uploader_key_file");
    if key_file.is_some() && kind != UploaderKind::Sftp {
        builder.error(
            U,
            "uploader_key_file",
            "is for sftp only",
            "remove it, or write uploader_class_name = sftp",
        );
    }
    let mut required = vec!["uploader_host", "uploader_username"];
    if key_file.is_none() {
        required.push("uploader_password");
    }
    if kind == UploaderKind::S3 {
        required.push("uploader_bucket");
    }
    for key in required {
        if settings.text(U, key).is_none_or(str::is_empty) {
            builder.error(U, key, "is required beside uploader_class_name", "add it");
        }
    }
    let written = settings.string(U, "uploader_host");
    let Some((host, port)) = split_host(&written, Uploader::default_port(kind, plaintext)) else {
        builder.error(
            U,
            "uploader_host",
            format!("`{written}` is not host or host:port"),
            "write files.example.org:990 or [::1]:21",
        );
        return None;
    };
    let public_url = settings.text(U, "uploader_public_url").filter(|url| !url.is_empty());
    if let Some(url) = public_url
        && !Url::parse(url)
            .is_ok_and(|url| url.has_host() && url.query().is_none() && url.fragment().is_none())
    {
        let why = format!("`{url}` is no address");
        builder.error(U, "uploader_public_url", why, "write https://files.example.org/results");
    }
    Some(Uploader {
        kind,
        host,
        port,
        user: settings.string(U, "uploader_username"),
        password: settings.secret(U, "uploader_password").unwrap_or_else(|| Secret::new("")),
        key_file,
        passphrase: settings.secret(U, "uploader_passphrase"),
        bucket: settings.string(U, "uploader_bucket"),
        region: settings.string(U, "uploader_region"),
        public_url: public_url.map(|url| url.trim_end_matches('/').to_owned()),
        ca_file: settings.path(U, "uploader_ca_file"),
        known_hosts: settings.path(U, "uploader_known_hosts"),
        insecure: settings.is_true(U, "uploader_insecure"),
        plaintext,
    })
}

/// `host`, `host:port`, `[v6]` or `[v6]:port`; a bare text with two colons is an IPv6 address.
pub(super) fn split_host(text: &str, default_port: u16) -> Option<(String, u16)> {
    if let Some(rest) = text.strip_prefix('[') {
        let (host, after) = rest.split_once(']')?;
        let port = match after {
            "" => default_port,
            after => after.strip_prefix(':')?.parse().ok()?,
        };
        return Some((host.to_owned(), port));
    }
    match text.split_once(':') {
        Some((host, port)) if !port.contains(':') => Some((host.to_owned(), port.parse().ok()?)),
        _ => Some((text.to_owned(), default_port)),
    }
}
