//! `[UPLOADER]`: read and checked; the upload itself is not part of the agent yet.

use std::path::PathBuf;

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
    /// Certificates to trust.
    pub ca_file: Option<PathBuf>,
    /// Known host keys.
    pub known_hosts: Option<PathBuf>,
    /// Nothing is checked.
    pub insecure: bool,
}

const U: &str = "UPLOADER";

pub(super) fn read(builder: &mut Builder<'_>) -> Option<Uploader> {
    let settings = builder.s;
    let class = settings.text(U, "uploader_class_name")?;
    let kind = match class {
        "ftp" | "ftpUpload.FtpUpload" => UploaderKind::Ftp,
        "ftps" | "ftpsUpload.FtpsUpload" => UploaderKind::Ftps,
        "sftp" | "sftpUpload.SFtpUpload" => UploaderKind::Sftp,
        other => {
            let why = format!("`{other}` is not an uploader");
            builder.error(U, "uploader_class_name", why, "write ftp, ftps or sftp");
            return None;
        }
    };
    if kind == UploaderKind::Ftp && !settings.is_true(U, "uploader_allow_plaintext") {
        let why = "plain ftp sends the password in clear";
        builder.error(
            U,
            "uploader_class_name",
            why,
            "use ftps or sftp, or set uploader_allow_plaintext = true",
        );
    }
    for key in ["uploader_host", "uploader_username", "uploader_password"] {
        if settings.text(U, key).is_none_or(str::is_empty) {
            builder.error(U, key, "is required beside uploader_class_name", "add it");
        }
    }
    let default_port = if kind == UploaderKind::Sftp { 22 } else { 21 };
    let written = settings.string(U, "uploader_host");
    let Some((host, port)) = split_host(&written, default_port) else {
        builder.error(
            U,
            "uploader_host",
            format!("`{written}` is not host or host:port"),
            "write files.example.org:990 or [::1]:21",
        );
        return None;
    };
    Some(Uploader {
        kind,
        host,
        port,
        user: settings.string(U, "uploader_username"),
        password: settings.secret(U, "uploader_password").unwrap_or_else(|| Secret::new("")),
        ca_file: settings.path(U, "uploader_ca_file"),
        known_hosts: settings.path(U, "uploader_known_hosts"),
        insecure: settings.is_true(U, "uploader_insecure"),
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
