//! One HTTP request to one checked address; the body goes straight into a file.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{HeaderName, HeaderValue};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use url::Url;

use super::{FetchError, Policy, shown};

/// Longest wait for a connection.
const CONNECT: Duration = Duration::from_secs(15);
/// Headers that are ours, or that would change what the connection means.
const RESERVED: &[&str] = &[
    "host",
    "content-length",
    "transfer-encoding",
    "connection",
    "upgrade",
    "te",
    "trailer",
    "expect",
    "accept-encoding",
    "proxy-authorization",
    "proxy-connection",
    "keep-alive",
];

pub(super) enum Answer {
    Body(u64),
    Redirect { to: Url, keep_method: bool },
}

pub(super) async fn request(
    url: &Url,
    addresses: &[SocketAddr],
    tls: Arc<rustls::ClientConfig>,
    headers: &[(String, String)],
    body: Option<&[u8]>,
    policy: &Policy,
    file: &mut tokio::fs::File,
) -> Result<Answer, FetchError> {
    let failed = |why: String| FetchError::Failed { url: shown(url.as_str()), why };
    let stream = connect(addresses).await.map_err(failed)?;
    if url.scheme() == "https" {
        let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let name =
            ServerName::try_from(host).map_err(|_| failed("the host cannot be named in TLS".to_owned()))?;
        let secured = TlsConnector::from(tls).connect(name, stream).await;
        let secured = secured.map_err(|error| failed(format!("TLS: {error}")))?;
        exchange(url, secured, headers, body, policy, file).await
    } else {
        exchange(url, stream, headers, body, policy, file).await
    }
}

/// Connects to the first address that answers: a host may have one that cannot be reached from here.
pub(super) async fn connect(addresses: &[SocketAddr]) -> Result<TcpStream, String> {
    let mut why = "no address".to_owned();
    for address in addresses {
        match tokio::time::timeout(CONNECT, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => why = error.to_string(),
            Err(_) => why = format!("no connection within {} s", CONNECT.as_secs()),
        }
    }
    Err(why)
}

async fn exchange(
    url: &Url,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    headers: &[(String, String)],
    body: Option<&[u8]>,
    policy: &Policy,
    file: &mut tokio::fs::File,
) -> Result<Answer, FetchError> {
    let failed = |why: String| FetchError::Failed { url: shown(url.as_str()), why };
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|error| failed(error.to_string()))?;
    // It ends with the connection, at the latest when the sender is dropped.
    let connection = tokio::spawn(connection);
    let request = build(url, headers, body).map_err(failed)?;
    let answer = sender.send_request(request).await.map_err(|error| failed(error.to_string()))?;
    let status = answer.status();
    if status.is_redirection() && status != StatusCode::NOT_MODIFIED {
        connection.abort();
        let to = answer.headers().get(hyper::header::LOCATION).and_then(|to| to.to_str().ok());
        let to = to
            .and_then(|to| url.join(to).ok())
            .ok_or_else(|| failed(format!("{status} without a usable Location")))?;
        super::parse(to.as_str())?;
        let keep_method = matches!(status, StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT);
        return Ok(Answer::Redirect { to, keep_method });
    }
    if !status.is_success() {
        connection.abort();
        return Err(failed(format!("the server answered {status}")));
    }
    let too_large = || FetchError::TooLarge { url: shown(url.as_str()), limit: policy.max_bytes };
    let mut body = answer.into_body();
    if hyper::body::Body::size_hint(&body).lower() > policy.max_bytes {
        return Err(too_large());
    }
    let mut bytes = 0u64;
    while let Some(frame) = body.frame().await {
        let frame =
            frame.map_err(|error| failed(format!("the answer broke off after {bytes} bytes: {error}")))?;
        if let Ok(data) = frame.into_data() {
            bytes += data.len() as u64;
            if bytes > policy.max_bytes {
                return Err(too_large());
            }
            file.write_all(&data).await?;
        }
    }
    file.flush().await?;
    Ok(Answer::Body(bytes))
}

fn build(
    url: &Url,
    headers: &[(String, String)],
    body: Option<&[u8]>,
) -> Result<Request<Full<Bytes>>, String> {
    let path = match url.query() {
        Some(query) => format!("{}?{query}", url.path()),
        None => url.path().to_owned(),
    };
    let host = match (url.host_str(), url.port()) {
        (Some(host), Some(port)) => format!("{host}:{port}"),
        (host, None) => host.unwrap_or_default().to_owned(),
        (None, Some(_)) => String::new(),
    };
    let mut request = Request::builder()
        .method(if body.is_some() { Method::POST } else { Method::GET })
        .uri(path)
        .header("host", host)
        // Agents and programs get the bytes as they come.
        .header("accept-encoding", "identity")
        .header("user-agent", concat!("wps-orchestrator/", env!("CARGO_PKG_VERSION")));
    let mut typed = false;
    for (name, value) in headers {
        let (Ok(name), Ok(value)) = (HeaderName::try_from(name.trim()), HeaderValue::try_from(value.trim()))
        else {
            return Err(format!("`{}` is not a header that can be sent", shown(name)));
        };
        if RESERVED.contains(&name.as_str()) {
            continue;
        }
        typed |= name == hyper::header::CONTENT_TYPE;
        request = request.header(name, value);
    }
    if body.is_some() && !typed {
        request = request.header("content-type", "text/xml");
    }
    let body = Full::new(Bytes::copy_from_slice(body.unwrap_or_default()));
    request.body(body).map_err(|error| error.to_string())
}
