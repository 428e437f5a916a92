//! SFTP over SSH. The host's key must be known: `uploader_known_hosts`, as OpenSSH writes it.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use russh::client::{self, AuthResult, Handle, KeyboardInteractiveAuthResponse};
use russh::keys::known_hosts::check_known_hosts_path;
use russh::keys::{HashAlg, PrivateKey, PrivateKeyWithHashAlg, PublicKeyOrCertificate};
use russh_sftp::client::SftpSession;
use russh_sftp::client::error::Error as SftpError;
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

use super::{CONNECT, PART, Parcel, SILENCE, Sum, Summing, UploadError, block_on, folders};
use crate::config::Uploader;

/// Bytes per write.
const PIECE: usize = 32 * 1024;

pub(super) fn send(uploader: &Uploader, parcels: &[Parcel]) -> Result<Vec<Sum>, UploadError> {
    block_on(uploader, async {
        let handle = connect(uploader).await?;
        let sftp = session(uploader, &handle).await?;
        let mut sums = Vec::new();
        for parcel in parcels {
            sums.push(put(uploader, &sftp, parcel).await?);
        }
        // The files are there whatever becomes of the farewell.
        let _ = timeout(CONNECT, sftp.close()).await;
        let _ = timeout(CONNECT, handle.disconnect(russh::Disconnect::ByApplication, "", "en")).await;
        Ok(sums)
    })
}

/// Looks at the server's key.
struct Host {
    known_hosts: Option<PathBuf>,
    name: String,
    port: u16,
    insecure: bool,
    /// Why the key was not accepted.
    doubt: Arc<Mutex<Option<String>>>,
}

impl client::Handler for Host {
    type Error = russh::Error;

    async fn check_server_key(&mut self, presented: &PublicKeyOrCertificate) -> Result<bool, Self::Error> {
        if self.insecure {
            tracing::warn!(server = %self.name, "uploader_insecure: the server's host key is not checked");
            return Ok(true);
        }
        let PublicKeyOrCertificate::PublicKey { key, .. } = presented else {
            return Ok(self.doubt("it shows a certificate instead of a key".to_owned()));
        };
        let print = key.fingerprint(HashAlg::Sha256);
        let Some(path) = &self.known_hosts else {
            return Ok(self.doubt(format!(
                "its host key is {print}; put it into a file (ssh-keyscan) and name that in uploader_known_hosts"
            )));
        };
        match check_known_hosts_path(&self.name, self.port, key, path) {
            Ok(true) => Ok(true),
            Ok(false) => Ok(self.doubt(format!("its host key {print} is not in {}", path.display()))),
            Err(error) => {
                Ok(self.doubt(format!("its host key {print} does not fit {}: {error}", path.display())))
            }
        }
    }
}

impl Host {
    fn doubt(&self, why: String) -> bool {
        *self.doubt.lock().unwrap_or_else(PoisonError::into_inner) = Some(why);
        false
    }
}

async fn connect(uploader: &Uploader) -> Result<Handle<Host>, UploadError> {
    let server = uploader.server();
    let doubt = Arc::new(Mutex::new(None));
    let host = Host {
        known_hosts: uploader.known_hosts.clone(),
        name: uploader.host.clone(),
        port: uploader.port,
        insecure: uploader.insecure,
        doubt: doubt.clone(),
    };
    let config = client::Config { inactivity_timeout: Some(SILENCE), ..client::Config::default() };
    let connecting = client::connect(Arc::new(config), (uploader.host.as_str(), uploader.port), host);
    let failed = |why: String| UploadError::Connection { server: server.clone(), why };
    let connected = timeout(CONNECT, connecting).await;
    let connected = connected.map_err(|_| failed(format!("no answer within {} s", CONNECT.as_secs())))?;
    let mut handle = match connected {
        Ok(handle) => handle,
        Err(error) => {
            return Err(match doubt.lock().unwrap_or_else(PoisonError::into_inner).take() {
                Some(why) => UploadError::Trust { server, why },
                None => failed(error.to_string()),
            });
        }
    };
    let key = uploader.key_file.as_deref().map(|path| key(uploader, path)).transpose()?;
    let means = if key.is_some() { "key" } else { "password" };
    let accepted = timeout(CONNECT, login(uploader, key, &mut handle)).await;
    let accepted = accepted.map_err(|_| failed("no answer to the login".to_owned()))?;
    if accepted.map_err(|error| failed(error.to_string()))? {
        return Ok(handle);
    }
    Err(UploadError::Login {
        server,
        user: uploader.user.clone(),
        why: format!("the {means} is not accepted"),
    })
}

fn key(uploader: &Uploader, path: &Path) -> Result<Arc<PrivateKey>, UploadError> {
    let passphrase = uploader.passphrase.as_ref().map(|secret| secret.expose());
    let key = russh::keys::load_secret_key(path, passphrase);
    key.map(Arc::new).map_err(|error| UploadError::Login {
        server: uploader.server(),
        user: uploader.user.clone(),
        why: format!("{} cannot be used as a key: {error}", path.display()),
    })
}

/// By key; else by password, or by a dialogue whose every question is taken to be for the password: servers ask in both ways.
async fn login(
    uploader: &Uploader,
    key: Option<Arc<PrivateKey>>,
    handle: &mut Handle<Host>,
) -> Result<bool, russh::Error> {
    if let Some(key) = key {
        // Only RSA has a choice of hashes; servers of today no longer take the oldest.
        let hash = handle.best_supported_rsa_hash().await?.flatten().or(Some(HashAlg::Sha256));
        let key = PrivateKeyWithHashAlg::new(key, hash);
        return Ok(handle.authenticate_publickey(uploader.user.as_str(), key).await?.success());
    }
    let (user, password) = (uploader.user.as_str(), uploader.password.expose());
    if let AuthResult::Success = handle.authenticate_password(user, password).await? {
        return Ok(true);
    }
    let mut answer = handle.authenticate_keyboard_interactive_start(user, None::<String>).await?;
    for _ in 0..4 {
        match answer {
            KeyboardInteractiveAuthResponse::Success => return Ok(true),
            KeyboardInteractiveAuthResponse::Failure { .. } => return Ok(false),
            KeyboardInteractiveAuthResponse::InfoRequest { prompts, .. } => {
                let answers = prompts.iter().map(|_| password.to_owned()).collect();
                answer = handle.authenticate_keyboard_interactive_respond(answers).await?;
            }
        }
    }
    Ok(false)
}

async fn session(uploader: &Uploader, handle: &Handle<Host>) -> Result<SftpSession, UploadError> {
    let failed = |why: String| UploadError::Connection { server: uploader.server(), why };
    let opening = async {
        let channel = handle.channel_open_session().await.map_err(|error| error.to_string())?;
        channel.request_subsystem(true, "sftp").await.map_err(|error| error.to_string())?;
        SftpSession::new(channel.into_stream()).await.map_err(|error| error.to_string())
    };
    let session = timeout(CONNECT, opening).await.map_err(|_| failed("SFTP does not answer".to_owned()))?;
    let session = session.map_err(|why| failed(format!("SFTP: {why}")))?;
    session.set_timeout(SILENCE.as_secs());
    Ok(session)
}

async fn put(uploader: &Uploader, sftp: &SftpSession, parcel: &Parcel) -> Result<Sum, UploadError> {
    let target = parcel.target();
    let refused = |error: &dyn std::fmt::Display| UploadError::Refused {
        server: uploader.server(),
        path: target.clone(),
        why: error.to_string(),
    };
    for folder in folders(&parcel.path) {
        // Whether it was there or could not be made, the file will show.
        if let Err(error @ (SftpError::IO(_) | SftpError::Timeout)) = sftp.create_dir(folder).await {
            return Err(UploadError::Connection { server: uploader.server(), why: error.to_string() });
        }
    }
    let part = format!("{target}{PART}");
    let mut from = Summing::open(&parcel.file)?;
    let mut to = sftp.create(part.as_str()).await.map_err(|error| refused(&error))?;
    let mut piece = vec![0; PIECE];
    loop {
        let count = from
            .read(&mut piece)
            .map_err(|source| UploadError::Local { path: parcel.file.clone(), source })?;
        if count == 0 {
            break;
        }
        let written = timeout(SILENCE, to.write_all(&piece[..count])).await;
        written
            .map_err(|_| refused(&"the server has stopped taking data"))?
            .map_err(|error| refused(&error))?;
    }
    let ended = timeout(SILENCE, to.shutdown()).await;
    ended.map_err(|_| refused(&"the server has stopped taking data"))?.map_err(|error| refused(&error))?;
    let sum = from.finish();
    let size = sftp.metadata(part.as_str()).await.map_err(|error| refused(&error))?.size;
    if size.is_some_and(|size| size != sum.0) {
        return Err(refused(&format!("{} bytes arrived of {}", size.unwrap_or_default(), sum.0)));
    }
    // Servers do not rename onto a name that is taken, by an earlier attempt of ours; some end the session over the try.
    if sftp.try_exists(target.as_str()).await.map_err(|error| refused(&error))? {
        sftp.remove_file(target.as_str()).await.map_err(|error| refused(&error))?;
    }
    sftp.rename(part.as_str(), target.as_str()).await.map_err(|error| refused(&error))?;
    Ok(sum)
}
