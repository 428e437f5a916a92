//! What answers are measured against: files from a folder, served by the same HTTP library as the orchestrator's, in a process
//! of its own.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use axum::Router;
use axum::body::Body;
use axum::extract::{Path as Name, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::serve::ListenerExt;
use tokio_util::io::ReaderStream;

/// The argument that makes the bench this server.
pub const ARGUMENT: &str = "--static-files";

/// A running server; ends when it is dropped.
pub struct StaticFiles {
    child: Child,
    pub address: SocketAddr,
}

impl StaticFiles {
    pub fn start(folder: &Path) -> Self {
        let bench = std::env::current_exe().expect("the path of this program is known");
        let mut child = Command::new(bench)
            .arg(ARGUMENT)
            .arg(folder)
            .stdout(Stdio::piped())
            .spawn()
            .expect("the bench can be started once more");
        let mut line = String::new();
        let out = child.stdout.take().expect("its output is piped");
        BufReader::new(out).read_line(&mut line).expect("it says where it listens");
        let address = line.trim().parse().expect("an address");
        Self { child, address }
    }
}

impl Drop for StaticFiles {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Serves until it is ended.
#[expect(clippy::print_stdout, reason = "whoever started this reads where it listens")]
pub fn serve(folder: PathBuf) {
    let runtime = tokio::runtime::Runtime::new().expect("threads can be started");
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
        println!("{}", listener.local_addr().expect("a bound socket has an address"));
        let router = Router::new().route("/{name}", get(file)).with_state(folder);
        // As every server that answers in pieces: else the second piece waits for the acknowledgement of the first.
        let listener =
            listener.tap_io(|stream| stream.set_nodelay(true).expect("an accepted socket takes options"));
        axum::serve(listener, router).await.expect("it is ended from outside");
    });
}

async fn file(State(folder): State<PathBuf>, Name(name): Name<String>) -> Response {
    let Ok(file) = tokio::fs::File::open(folder.join(name)).await else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let Ok(metadata) = file.metadata().await else { return StatusCode::NOT_FOUND.into_response() };
    let headers = [(header::CONTENT_LENGTH, metadata.len().to_string())];
    // The size of pieces that servers of static files commonly use.
    (headers, Body::from_stream(ReaderStream::with_capacity(file, 64 * 1024))).into_response()
}
