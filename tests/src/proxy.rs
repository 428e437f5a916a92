//! Connections that a test can cut or freeze: each proxy passes the bytes of one way from a program to a server on, until it is
//! told otherwise. Knows nothing of what the bytes say.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::runtime::{Handle, Runtime};
use tokio::sync::watch;

use crate::free_port;

/// What becomes of the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    /// They pass.
    Open,
    /// The server hears, and its answers do not come back.
    Deaf,
    /// Connections are closed, and so is every new one.
    Cut,
    /// Connections stay, new ones are taken, and no byte passes: a firewall that forgot, a cable that was pulled.
    Frozen,
}

/// In which direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    There,
    Back,
}

impl Link {
    fn holds(self, way: Way) -> bool {
        self == Self::Frozen || (self == Self::Deaf && way == Way::Back)
    }
}

#[derive(Debug, Clone, Copy)]
struct State {
    link: Link,
    /// A connection of before the last cut is one too many, however soon the link was opened again.
    cuts: u64,
}

/// The proxies of a test, and the threads that run them.
#[derive(Debug)]
pub struct Network {
    runtime: Runtime,
}

impl Default for Network {
    fn default() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        Self { runtime: runtime.expect("a runtime can be made") }
    }
}

impl Network {
    /// A port of its own that leads to this one, both on loopback.
    pub fn port(&self, to: u16) -> Proxy {
        let port = free_port();
        let proxy = Proxy::new(port.to_string());
        let _inside = self.runtime.enter();
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port)).expect("the port is free");
        listener.set_nonblocking(true).expect("a listener can be asked without waiting");
        let listener = TcpListener::from_std(listener).expect("the runtime takes a listener");
        let (state, handle) = (proxy.state.clone(), self.runtime.handle().clone());
        self.runtime.spawn(async move {
            let to = SocketAddr::from((Ipv4Addr::LOCALHOST, to));
            while let Ok((from, _)) = listener.accept().await {
                pass(&handle, from, TcpStream::connect(to), state.subscribe());
            }
        });
        proxy
    }

    /// A socket of the same name in a folder of its own, as PostgreSQL's programs look for it.
    pub fn socket(&self, folder: &Path, to: PathBuf) -> Proxy {
        let path = folder.join(to.file_name().expect("a socket has a name"));
        let proxy = Proxy::new(folder.display().to_string());
        let _inside = self.runtime.enter();
        let listener = UnixListener::bind(path).expect("the folder can be written to");
        let (state, handle) = (proxy.state.clone(), self.runtime.handle().clone());
        self.runtime.spawn(async move {
            while let Ok((from, _)) = listener.accept().await {
                pass(&handle, from, UnixStream::connect(to.clone()), state.subscribe());
            }
        });
        proxy
    }
}

/// One way to a server.
#[derive(Debug)]
pub struct Proxy {
    place: String,
    state: watch::Sender<State>,
}

impl Proxy {
    fn new(place: String) -> Self {
        Self { place, state: watch::Sender::new(State { link: Link::Open, cuts: 0 }) }
    }

    /// Its port, or the folder of its socket.
    pub fn place(&self) -> &str {
        &self.place
    }

    /// From now on.
    pub fn set(&self, link: Link) {
        self.state.send_modify(|state| {
            state.cuts += u64::from(link == Link::Cut);
            state.link = link;
        });
    }
}

/// One connection, until either side or a cut ends it.
fn pass<S>(
    handle: &Handle,
    from: S,
    connecting: impl Future<Output = io::Result<S>> + Send + 'static,
    mut state: watch::Receiver<State>,
) where
    S: AsyncRead + AsyncWrite + Send + 'static,
{
    let cuts = state.borrow().cuts;
    let inner = handle.clone();
    handle.spawn(async move {
        if !passable(&mut state, cuts, Way::There).await {
            return;
        }
        let Ok(to) = connecting.await else { return };
        let ((from_read, from_write), (to_read, to_write)) = (split(from), split(to));
        let there = inner.spawn(pump(from_read, to_write, state.clone(), (cuts, Way::There)));
        let back = inner.spawn(pump(to_read, from_write, state, (cuts, Way::Back)));
        let (stop_there, stop_back) = (there.abort_handle(), back.abort_handle());
        tokio::select! { _ = there => {} _ = back => {} }
        // Both ways end together: that is what a program sees when its connection breaks.
        stop_there.abort();
        stop_back.abort();
    });
}

/// Waits while nothing passes; `false` = the connection is cut.
async fn passable(state: &mut watch::Receiver<State>, cuts: u64, way: Way) -> bool {
    let known = state.wait_for(|state| !state.link.holds(way) || state.cuts != cuts).await;
    known.is_ok_and(|state| state.link != Link::Cut && state.cuts == cuts)
}

async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut state: watch::Receiver<State>,
    (cuts, way): (u64, Way),
) {
    let mut buffer = vec![0; 16 * 1024];
    while passable(&mut state, cuts, way).await {
        let mut news = state.clone();
        let read = tokio::select! {
            read = from.read(&mut buffer) => read,
            _ = news.wait_for(|state| state.link.holds(way) || state.cuts != cuts) => continue,
        };
        let Ok(length @ 1..) = read else { return };
        if !passable(&mut state, cuts, way).await || to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener as Listener;
    use std::net::TcpStream as Stream;
    use std::time::Duration;

    use super::*;

    #[test]
    fn bytes_pass_wait_or_find_no_way() {
        let server = Listener::bind((Ipv4Addr::LOCALHOST, free_port())).unwrap();
        let network = Network::default();
        let proxy = network.port(server.local_addr().unwrap().port());
        let place = (Ipv4Addr::LOCALHOST, proxy.place().parse::<u16>().unwrap());
        let mut client = Stream::connect(place).unwrap();
        let (mut served, _) = server.accept().unwrap();
        let mut byte = [0];
        client.write_all(b"a").unwrap();
        served.read_exact(&mut byte).unwrap();

        proxy.set(Link::Frozen);
        client.write_all(b"b").unwrap();
        served.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        assert!(served.read_exact(&mut byte).is_err(), "frozen bytes do not arrive");
        proxy.set(Link::Open);
        served.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        served.read_exact(&mut byte).unwrap();
        assert_eq!(&byte, b"b", "but are not lost");

        proxy.set(Link::Cut);
        assert_eq!(served.read(&mut byte).unwrap_or(0), 0, "closed");
        assert_eq!(client.read(&mut byte).unwrap_or(0), 0, "at both ends");
        let mut refused = Stream::connect(place).unwrap();
        assert_eq!(refused.read(&mut byte).unwrap_or(0), 0);
        proxy.set(Link::Open);
        let mut again = Stream::connect(place).unwrap();
        let (mut served, _) = server.accept().unwrap();
        served.write_all(b"c").unwrap();
        again.read_exact(&mut byte).unwrap();
        assert_eq!(&byte, b"c");
    }
}
