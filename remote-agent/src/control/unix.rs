//! A socket in the agent's folder of records, for its own user and root only.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::process::geteuid;
use tokio::net::{UnixListener, UnixStream};
use tracing::warn;

/// Name of the socket.
const SOCKET: &str = "control.sock";

/// Where the agent with this folder listens.
pub(super) fn address(folder: &Path) -> PathBuf {
    folder.join(SOCKET)
}

/// Listens. A socket that a former agent has left is replaced: the folder is locked for us.
pub(super) fn listen(folder: &Path) -> io::Result<UnixListener> {
    let path = address(folder);
    let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(named(error)),
        Ok(()) | Err(_) => {}
    }
    let listener = UnixListener::bind(&path).map_err(named)?;
    fs::set_permissions(&path, Permissions::from_mode(0o600)).map_err(named)?;
    Ok(listener)
}

/// The next operator; `None` = somebody else. The mode of the socket keeps others out already, but not in the moment before
/// it is set.
pub(super) async fn accept(listener: &mut UnixListener) -> io::Result<Option<UnixStream>> {
    let (stream, _) = listener.accept().await?;
    let user = stream.peer_cred()?.uid();
    if user == 0 || user == geteuid().as_raw() {
        return Ok(Some(stream));
    }
    warn!(user, "a user of this host who is neither root nor the agent's own wanted to give orders");
    Ok(None)
}

/// Connects to the agent with this folder.
pub(super) async fn connect(folder: &Path) -> io::Result<UnixStream> {
    UnixStream::connect(address(folder)).await
}
