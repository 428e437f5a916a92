//! Where secrets come from on this host, and which of them others can read.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use wps_remote_protocol::ini::{Document, Finding, Options, Variables};

use super::paths;

/// Longest secret, in bytes.
const MOST: u64 = 64 * 1024;

/// Keys that hold a secret in clear.
const CLEAR: [&str; 4] = ["password", "mucservicepassword", "uploader_password", "uploader_passphrase"];
/// Keys that name a file with a secret.
const FILES: [&str; 4] =
    ["password_file", "muc_password_file", "uploader_password_file", "uploader_passphrase_file"];

/// The content of a file with a secret.
pub(super) fn file(path: &str) -> Result<String, String> {
    read(Path::new(path)).map_err(|error| error.to_string())
}

/// The credential that systemd hands over (systemd.exec(5), `LoadCredential`), if there is one of this name.
pub(super) fn credential(name: &str) -> Option<Result<String, String>> {
    let folder = std::env::var_os("CREDENTIALS_DIRECTORY").filter(|folder| !folder.is_empty())?;
    match read(&PathBuf::from(folder).join(name)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        read => Some(read.map_err(|error| error.to_string())),
    }
}

fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(MOST + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MOST {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("longer than {MOST} bytes")));
    }
    Ok(text)
}

/// Warnings of secrets that more people can read than should.
pub(super) fn exposed(source: &Path, bytes: &[u8]) -> Vec<Finding> {
    let Ok(doc) = Document::parse(bytes, &Options::new("").ignoring_case()) else { return Vec::new() };
    let written = |key: &str| {
        let sections = doc.sections().iter();
        let mut found = sections.filter_map(|section| Some((section.name.clone(), section.entry(key)?)));
        found.find(|(_, entry)| !entry.value.is_empty())
    };
    let mut warnings = Vec::new();
    if CLEAR.iter().any(|key| written(key).is_some()) && is_readable_by_all(source) {
        let why = "holds a password and can be read by every user of this host";
        warnings.push(Finding::warning("readable-by-all", why).remedy("chmod 640 it, or use password_file"));
    }
    for key in FILES {
        let Some((section, entry)) = written(key) else { continue };
        let Ok(Some(path)) = doc.resolve(&section, key, &Variables::default()) else { continue };
        let path = paths::absolute(Path::new(&path.to_string()), Path::new("/"));
        if is_readable_by_all(&path) {
            let why = format!("{} can be read by every user of this host", path.display());
            let finding = Finding::warning("readable-by-all", why).at(entry.line).section(&section).key(key);
            warnings.push(finding.remedy("chmod 600 it"));
        }
    }
    if let Some((section, entry)) = written("uploader_password") {
        let why = "an upload password stands in this file; a key beside it, as the Python agent had it, hides it from \
                   nobody who can read the file";
        let finding = Finding::warning("clear-upload-password", why).at(entry.line).section(&section);
        let remedy = "write it into a file of its own, mode 600, and name that: uploader_password_file = …";
        warnings.push(finding.key("uploader_password").remedy(remedy));
    }
    warnings
}

#[cfg(unix)]
fn is_readable_by_all(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path).is_ok_and(|meta| meta.permissions().mode() & 0o004 != 0)
}

#[cfg(not(unix))]
fn is_readable_by_all(_: &Path) -> bool {
    false
}
