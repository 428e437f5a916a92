//! Results to an upload server: FTP, FTPS, SFTP or an S3-compatible store. A file goes up under a temporary name and gets
//! its own when it is whole; what fails for a passing reason is tried again. Knows no descriptors and no jobs. Blocks: for
//! a thread that may wait.

mod ftp;
mod s3;
mod sftp;
mod trust;

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::config::{Uploader, UploaderKind};
use crate::outputs::Parcel;

/// Attempts for all files of one job.
const ATTEMPTS: u32 = 3;
/// Pause before the second attempt, four times as long before the third.
const PAUSE: Duration = Duration::from_secs(1);
/// Longest wait for a connection.
const CONNECT: Duration = Duration::from_secs(15);
/// Longest silence of a server.
const SILENCE: Duration = Duration::from_secs(60);
/// End of the name under which a file goes up.
const PART: &str = ".part";
/// What may not stand in a path of a URL as it is (RFC 3986 §3.3).
const PATH: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'`')
    .add(b'{')
    .add(b'}');

/// A file that is there now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    /// Its address.
    pub href: String,
    /// Its size.
    pub bytes: u64,
    /// SHA-256 of what was sent, in hexadecimal.
    pub sha256: String,
}

/// Why files are not there.
#[derive(Debug, Error)]
pub enum UploadError {
    /// The server cannot be reached, or the connection broke.
    #[error("the upload server {server} cannot be reached: {why}")]
    Connection {
        /// Which.
        server: String,
        /// What happened.
        why: String,
    },
    /// It is not the server that it should be.
    #[error("the upload server {server} is not trusted: {why}")]
    Trust {
        /// Which.
        server: String,
        /// What is wrong, and what would be right.
        why: String,
    },
    /// It does not accept our account.
    #[error("the upload server {server} refuses the account `{user}`: {why}")]
    Login {
        /// Which.
        server: String,
        /// Who we said we are.
        user: String,
        /// What it says.
        why: String,
    },
    /// It does not do what we ask.
    #[error("the upload server {server} refuses {path}: {why}")]
    Refused {
        /// Which.
        server: String,
        /// What it was about.
        path: String,
        /// What it says.
        why: String,
    },
    /// A file here cannot be read.
    #[error("{} cannot be read for the upload: {source}", path.display())]
    Local {
        /// Which.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

impl UploadError {
    /// Whether the same could work a little later.
    fn passes(&self) -> bool {
        matches!(self, Self::Connection { .. } | Self::Refused { .. })
    }
}

/// Sends all files over one connection; either all are there under their names, or the error says what is not. Tried again
/// from the beginning when the reason may pass.
pub fn send(uploader: &Uploader, parcels: &[Parcel]) -> Result<Vec<Placed>, UploadError> {
    send_patiently(uploader, parcels, PAUSE)
}

fn send_patiently(
    uploader: &Uploader,
    parcels: &[Parcel],
    pause: Duration,
) -> Result<Vec<Placed>, UploadError> {
    let mut pause = pause;
    for attempt in 1.. {
        let sent = match uploader.kind {
            UploaderKind::Ftp | UploaderKind::Ftps => ftp::send(uploader, parcels),
            UploaderKind::Sftp => sftp::send(uploader, parcels),
            UploaderKind::S3 => s3::send(uploader, parcels),
        };
        match sent {
            Err(error) if error.passes() && attempt < ATTEMPTS => {
                tracing::warn!(attempt, %error, "the upload is tried again in {} ms", pause.as_millis());
                std::thread::sleep(pause);
                pause *= 4;
            }
            Err(error) => return Err(error),
            Ok(sums) => {
                let place = |(parcel, (bytes, sha256)): (&Parcel, Sum)| Placed {
                    href: href(uploader, &parcel.path),
                    bytes,
                    sha256,
                };
                return Ok(parcels.iter().zip(sums).map(place).collect());
            }
        }
    }
    Ok(Vec::new())
}

/// The address of a path: below the public one if there is one, else that of the server itself.
fn href(uploader: &Uploader, path: &[String]) -> String {
    let path: Vec<String> = path
        .iter()
        .filter(|part| !part.is_empty())
        .map(|part| utf8_percent_encode(part, PATH).to_string())
        .collect();
    format!("{}/{}", uploader.base_url(), path.join("/"))
}

/// Size and checksum of what was sent.
type Sum = (u64, String);

/// A file that is summed up while it is read.
struct Summing {
    file: File,
    hash: Sha256,
    bytes: u64,
}

impl Summing {
    fn open(path: &Path) -> Result<Self, UploadError> {
        let local = |source| UploadError::Local { path: path.to_owned(), source };
        Ok(Self { file: File::open(path).map_err(local)?, hash: Sha256::new(), bytes: 0 })
    }

    fn finish(self) -> Sum {
        (self.bytes, self.hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
    }
}

impl Read for Summing {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read(buffer)?;
        self.hash.update(&buffer[..count]);
        self.bytes += count as u64;
        Ok(count)
    }
}

/// The folders that must be there for a file, from the outermost one: `a`, `a/b` for `a/b/file`.
fn folders(path: &[String]) -> Vec<String> {
    let depth = path.len().saturating_sub(1);
    (1..=depth).map(|end| path[..end].join("/")).filter(|folder| !folder.is_empty()).collect()
}

/// Runs what is asynchronous to its end.
fn block_on<T>(
    uploader: &Uploader,
    future: impl Future<Output = Result<T, UploadError>>,
) -> Result<T, UploadError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| UploadError::Connection {
        server: uploader.server(),
        why: format!("no runtime: {error}"),
    })?;
    runtime.block_on(future)
}
