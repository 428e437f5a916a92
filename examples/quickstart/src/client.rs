//! The least that a WPS client needs: one HTTP request at a time, and the four things that it looks for in an answer.
//! Knows nothing of the programs behind the address.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Largest answer that is read: the contours of the sample are below 4 MB.
const MAX_ANSWER: u64 = 64 << 20;

/// GET of a path with query; gives status code and body.
pub async fn get(address: SocketAddr, target: &str) -> io::Result<(u16, Vec<u8>)> {
    let mut stream = TcpStream::connect(address).await?;
    // HTTP/1.0: the end of the connection is the end of the answer, and there are no chunks.
    let request = format!("GET {target} HTTP/1.0\r\nHost: {address}\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(MAX_ANSWER).read_to_end(&mut answer).await?;
    let split = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n");
    let status =
        answer.get(9..12).and_then(|code| std::str::from_utf8(code).ok()).and_then(|code| code.parse().ok());
    match (split, status) {
        (Some(at), Some(status)) => Ok((status, answer.split_off(at + 4))),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "the answer is no HTTP")),
    }
}

/// The value of the first attribute of this name in a document, with `&amp;` replaced.
pub fn attribute(document: &str, name: &str) -> Option<String> {
    let (_, rest) = document.split_once(&format!(" {name}=\""))?;
    let (value, _) = rest.split_once('"')?;
    Some(value.replace("&amp;", "&"))
}

/// The path and query of an address on this server.
pub fn target(url: &str) -> String {
    let path = url.split_once("://").map_or(url, |(_, rest)| rest);
    path.find('/').map_or_else(|| "/".to_owned(), |at| path[at..].to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_it_looks_for() {
        let document = "<a statusLocation=\"http://h:1/wps?a=1&amp;b=2\"><b percentCompleted=\"7\"/></a>";
        assert_eq!(attribute(document, "percentCompleted").as_deref(), Some("7"));
        let location = attribute(document, "statusLocation").unwrap();
        assert_eq!(target(&location), "/wps?a=1&b=2");
        assert_eq!(attribute(document, "missing"), None);
    }
}
