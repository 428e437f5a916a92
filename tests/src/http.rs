//! A small HTTP/1.1 client that keeps its connection: enough to talk to the orchestrator, and to misbehave on purpose.
//! Knows nothing of WPS.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Longest wait for the bytes of one answer; synchronous jobs of the tests end well before.
const READ_TIMEOUT: Duration = Duration::from_secs(120);

/// What the server said.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// Decoded body.
    pub body: Vec<u8>,
}

impl Answer {
    /// Value of a header; `name` in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The body as text, with replacement characters where it is none.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// One connection to one server, opened anew when it was closed.
#[derive(Debug)]
pub struct Http {
    address: SocketAddr,
    patience: Duration,
    open: Option<BufReader<TcpStream>>,
}

impl Http {
    /// Does not connect yet.
    pub fn new(address: SocketAddr) -> Self {
        Self { address, patience: READ_TIMEOUT, open: None }
    }

    /// Waits no longer than this for the bytes of an answer.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// GET of a target such as `/wps?service=WPS`.
    pub fn get(&mut self, target: &str) -> io::Result<Answer> {
        self.exchange(format!("GET {target} HTTP/1.1\r\nHost: {}\r\n\r\n", self.address).as_bytes())
    }

    /// POST with a body.
    pub fn post(&mut self, target: &str, content_type: &str, body: &[u8]) -> io::Result<Answer> {
        let mut request = format!(
            "POST {target} HTTP/1.1\r\nHost: {}\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n\r\n",
            self.address,
            body.len()
        )
        .into_bytes();
        request.extend_from_slice(body);
        self.exchange(&request)
    }

    /// Sends these bytes as they are and reads one answer. A kept connection that the server has closed meanwhile is
    /// replaced once.
    pub fn exchange(&mut self, request: &[u8]) -> io::Result<Answer> {
        let kept = self.open.is_some();
        match self.attempt(request) {
            Err(error) if kept && is_closed(&error) => self.attempt(request),
            other => other,
        }
    }

    fn attempt(&mut self, request: &[u8]) -> io::Result<Answer> {
        let mut stream = match self.open.take() {
            Some(stream) => stream,
            None => {
                let stream = TcpStream::connect_timeout(&self.address, Duration::from_secs(5))?;
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(self.patience))?;
                BufReader::new(stream)
            }
        };
        // A server that refuses early (too large a body) answers before it has read everything, and may then close: its
        // answer counts, not the broken pipe.
        let sent = stream.get_mut().write_all(request);
        let (answer, keep) = match (read_answer(&mut stream), sent) {
            (Ok(read), _) => read,
            (Err(_), Err(error)) | (Err(error), Ok(())) => return Err(error),
        };
        if keep {
            self.open = Some(stream);
        }
        Ok(answer)
    }
}

fn is_closed(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::UnexpectedEof
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
    )
}

/// Reads one answer; the flag says whether the connection can be used again.
pub fn read_answer(stream: &mut impl BufRead) -> io::Result<(Answer, bool)> {
    let first = line(stream)?;
    let status =
        first.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidData, format!("no status line: {first:?}"))
        })?;
    let mut headers = Vec::new();
    loop {
        let line = line(stream)?;
        if line.is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':') {
            headers.push((name.trim().to_ascii_lowercase(), value.trim().to_owned()));
        }
    }
    let mut answer = Answer { status, headers, body: Vec::new() };
    let mut keep = answer.header("connection").is_none_or(|value| !value.eq_ignore_ascii_case("close"));
    if answer.header("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked")) {
        loop {
            let size = line(stream)?;
            let size = usize::from_str_radix(size.split(';').next().unwrap_or_default().trim(), 16)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            let start = answer.body.len();
            answer.body.resize(start + size, 0);
            stream.read_exact(&mut answer.body[start..])?;
            line(stream)?;
            if size == 0 {
                break;
            }
        }
    } else if let Some(length) = answer.header("content-length").and_then(|value| value.parse().ok()) {
        answer.body.resize(length, 0);
        stream.read_exact(&mut answer.body)?;
    } else if status != 204 && status != 304 {
        stream.read_to_end(&mut answer.body)?;
        keep = false;
    }
    Ok((answer, keep))
}

/// RFC 4648 §4, for logins.
pub fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for part in bytes.chunks(3) {
        let n = part.iter().fold(0u32, |n, byte| n << 8 | u32::from(*byte)) << (8 * (3 - part.len()));
        for place in 0..4 {
            let letter = LETTERS[(n >> (18 - 6 * place)) as usize & 63];
            text.push(if place <= part.len() { char::from(letter) } else { '=' });
        }
    }
    text
}

fn line(stream: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    if stream.read_line(&mut line)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_both_kinds_of_bodies() {
        let bytes = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcHTTP/1.1 400 Bad Request\r\n\
                      Transfer-Encoding: chunked\r\n\r\n2\r\nde\r\n1\r\nf\r\n0\r\n\r\n";
        let mut stream = BufReader::new(&bytes[..]);
        let (first, keep) = read_answer(&mut stream).unwrap();
        assert_eq!((first.status, first.text().as_str(), keep), (200, "abc", true));
        let (second, _) = read_answer(&mut stream).unwrap();
        assert_eq!((second.status, second.text().as_str()), (400, "def"));
    }
}
