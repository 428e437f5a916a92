//! A named pipe. The system's own default lets the agent's account, the system and administrators write to it, nobody else, and
//! nobody from another host.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio::net::windows::named_pipe::{ClientOptions, NamedPipeClient, NamedPipeServer, ServerOptions};
use tokio::time::sleep;

use crate::files;

/// What the system says when all instances of a pipe are taken for the moment.
const PIPE_BUSY: i32 = 231;
/// How often and for how long it is tried again then.
const TRIES: u32 = 50;
const TRY_EVERY: Duration = Duration::from_millis(20);

/// The name, and the instance that waits for the next operator.
pub(super) struct Listener {
    name: PathBuf,
    waiting: NamedPipeServer,
}

/// Where the agent with this folder listens: pipes have names of their own, so the folder's is made into one.
pub(super) fn address(folder: &Path) -> PathBuf {
    let folder = files::canonical(folder).unwrap_or_else(|_| folder.to_owned());
    let hash = Sha256::digest(folder.to_string_lossy().to_lowercase());
    let short: String = hash.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    PathBuf::from(format!(r"\\.\pipe\wps-remote-agent-{short}"))
}

/// Listens. Fails if somebody else has taken the name.
pub(super) fn listen(folder: &Path) -> io::Result<Listener> {
    let name = address(folder);
    let waiting = ServerOptions::new().first_pipe_instance(true).create(&name)?;
    Ok(Listener { name, waiting })
}

/// The next operator. The system has kept others out.
pub(super) async fn accept(listener: &mut Listener) -> io::Result<Option<NamedPipeServer>> {
    listener.waiting.connect().await?;
    let next = ServerOptions::new().create(&listener.name)?;
    Ok(Some(std::mem::replace(&mut listener.waiting, next)))
}

/// Connects to the agent with this folder.
pub(super) async fn connect(folder: &Path) -> io::Result<NamedPipeClient> {
    let name = address(folder);
    let mut tries = TRIES;
    loop {
        match ClientOptions::new().open(&name) {
            Err(error) if error.raw_os_error() == Some(PIPE_BUSY) && tries > 0 => {
                tries -= 1;
                sleep(TRY_EVERY).await;
            }
            result => return result,
        }
    }
}
