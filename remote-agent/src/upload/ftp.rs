//! FTP (RFC 959), in the clear or over TLS (RFC 4217): binary, passive.

use std::io::{self, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::Arc;

use rustls::version::TLS12;
use rustls::{ALL_VERSIONS, AlertDescription, SupportedProtocolVersion};
use suppaftp::types::{FileType, Mode};
use suppaftp::{FtpError, FtpResult, RustlsConnector, RustlsFtpStream, Status};

use super::{CONNECT, PART, Parcel, SILENCE, Sum, Summing, UploadError, folders};
use crate::config::{Uploader, UploaderKind};
use crate::upload::trust::client_config;

/// The port on which TLS begins with the first byte.
const IMPLICIT: u16 = 990;

pub(super) fn send(uploader: &Uploader, parcels: &[Parcel]) -> Result<Vec<Sum>, UploadError> {
    let mut stream = connect(uploader)?;
    let refused = |path: &str, error: FtpError| match error {
        FtpError::ConnectionError(error) => {
            UploadError::Connection { server: uploader.server(), why: error.to_string() }
        }
        other => {
            UploadError::Refused { server: uploader.server(), path: path.to_owned(), why: other.to_string() }
        }
    };
    let mut sums = Vec::new();
    for parcel in parcels {
        for folder in folders(&parcel.path) {
            // A server says nothing reliable about a folder that is there already: whether it is, the file will show.
            if let Err(error @ FtpError::ConnectionError(_)) = stream.mkdir(&folder) {
                return Err(refused(&folder, error));
            }
        }
        let target = parcel.target();
        let part = format!("{target}{PART}");
        let mut file = Summing::open(&parcel.file)?;
        put(&mut stream, &part, &mut file).map_err(|error| refused(&target, error))?;
        let sum = file.finish();
        match stream.size(&part) {
            Ok(size) if size as u64 != sum.0 => {
                let why = format!("{size} bytes arrived of {}", sum.0);
                return Err(UploadError::Refused { server: uploader.server(), path: target, why });
            }
            // Not every server tells sizes.
            Ok(_) | Err(_) => {}
        }
        if stream.rename(&part, &target).is_err() {
            // Some servers do not rename onto a name that is taken: by an earlier attempt of ours.
            let _ = stream.rm(&target);
            stream.rename(&part, &target).map_err(|error| refused(&target, error))?;
        }
        sums.push(sum);
    }
    // The files are there whatever the server says to the farewell.
    let _ = stream.quit();
    Ok(sums)
}

fn put(stream: &mut RustlsFtpStream, path: &str, file: &mut Summing) -> FtpResult<()> {
    let mut data = stream.put_with_stream(path)?;
    // Flushed at the beginning too: TLS shakes hands with the first bytes only, and an empty file has none.
    let sent = data.flush().and_then(|()| io::copy(file, &mut data)).and_then(|_| data.flush());
    // The server's answer says more about a broken transfer than the break.
    let answered = data.finish();
    answered.and(sent.map_err(FtpError::ConnectionError))
}

fn connect(uploader: &Uploader) -> Result<RustlsFtpStream, UploadError> {
    let server = uploader.server();
    let failed = |why: String| UploadError::Connection { server: server.clone(), why };
    let addresses = (uploader.host.as_str(), uploader.port).to_socket_addrs();
    let addresses: Vec<SocketAddr> = addresses.map_err(|error| failed(error.to_string()))?.collect();
    let mut last = failed("the name has no address".to_owned());
    for address in addresses {
        // Servers want the session of the control connection on every data connection. A session of TLS 1.2 can be used
        // any number of times, a ticket of 1.3 once, and an upload reads no new ones.
        let opened = match open(uploader, address, &[&TLS12]) {
            Err(Opening::Version) => open(uploader, address, ALL_VERSIONS),
            other => other,
        };
        match opened.map_err(|error| error.told(&server)) {
            Ok(stream) => return Ok(stream),
            // Another address of the same name has the same certificate and accounts.
            Err(error @ (UploadError::Trust { .. } | UploadError::Login { .. })) => return Err(error),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn with_limits(stream: TcpStream) -> FtpResult<TcpStream> {
    stream
        .set_read_timeout(Some(SILENCE))
        .and_then(|()| stream.set_write_timeout(Some(SILENCE)))
        .map_err(FtpError::ConnectionError)?;
    Ok(stream)
}

fn dial(address: SocketAddr) -> FtpResult<TcpStream> {
    with_limits(TcpStream::connect_timeout(&address, CONNECT).map_err(FtpError::ConnectionError)?)
}

/// Why no connection came to be.
enum Opening {
    /// The server does not speak this version of TLS.
    Version,
    Other(UploadError),
}

impl Opening {
    fn told(self, server: &str) -> UploadError {
        match self {
            Self::Version => UploadError::Trust {
                server: server.to_owned(),
                why: "it speaks no version of TLS that is safe (1.2 and 1.3 are)".to_owned(),
            },
            Self::Other(error) => error,
        }
    }
}

impl From<UploadError> for Opening {
    fn from(error: UploadError) -> Self {
        Self::Other(error)
    }
}

fn open(
    uploader: &Uploader,
    address: SocketAddr,
    versions: &[&'static SupportedProtocolVersion],
) -> Result<RustlsFtpStream, Opening> {
    let server = uploader.server();
    let failed = |error: FtpError| match error {
        FtpError::SecureError(why) => Opening::Other(UploadError::Trust { server: server.clone(), why }),
        FtpError::ConnectionError(error) => match tls_error(&error) {
            Some(rustls::Error::AlertReceived(AlertDescription::ProtocolVersion)) => Opening::Version,
            Some(_) => Opening::Other(UploadError::Trust {
                server: server.clone(),
                why: format!("{error}; `uploader_ca_file` names certificates to trust"),
            }),
            None => {
                Opening::Other(UploadError::Connection { server: server.clone(), why: error.to_string() })
            }
        },
        other => Opening::Other(UploadError::Connection { server: server.clone(), why: other.to_string() }),
    };
    let mut stream = match uploader.kind {
        UploaderKind::Ftps => {
            let config = client_config(uploader, versions)?;
            let connector = RustlsConnector::from(Arc::new(config));
            if uploader.port == IMPLICIT {
                let stream = RustlsFtpStream::connect_secure_implicit(address, connector, &uploader.host);
                let mut stream = stream.map_err(failed)?;
                for command in ["PBSZ 0", "PROT P"] {
                    stream.custom_command(command, &[Status::CommandOk]).map_err(failed)?;
                }
                stream
            } else {
                let plain = dial(address).and_then(RustlsFtpStream::connect_with_stream).map_err(failed)?;
                plain.into_secure(connector, &uploader.host).map_err(failed)?
            }
        }
        _ => dial(address).and_then(RustlsFtpStream::connect_with_stream).map_err(failed)?,
    };
    stream = stream.passive_stream_builder(dial);
    // EPSV (RFC 2428) names no address: it works for IPv6 and behind address translation.
    stream.set_mode(if address.is_ipv6() { Mode::ExtendedPassive } else { Mode::Passive });
    stream.set_passive_nat_workaround(true);
    stream.login(uploader.user.as_str(), uploader.password.expose()).map_err(|error| match error {
        FtpError::UnexpectedResponse(response) => Opening::Other(UploadError::Login {
            server: server.clone(),
            user: uploader.user.clone(),
            why: String::from_utf8_lossy(&response.body).trim().chars().take(200).collect(),
        }),
        other => failed(other),
    })?;
    stream.transfer_type(FileType::Binary).map_err(failed)?;
    Ok(stream)
}

/// The error of the TLS library that the system's error carries.
fn tls_error(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}
