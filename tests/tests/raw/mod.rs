//! A client that sends whatever it is told, byte by byte: for tests of what servers and peers do about it. Knows just
//! enough XMPP to get into a room over an unencrypted connection.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use e2e::http::base64;
use e2e::xmpp::Place;

pub struct Client {
    stream: TcpStream,
    seen: String,
}

impl Client {
    /// Logs in with the mechanism PLAIN and binds a resource.
    pub fn login(place: &Place, user: &str, password: &str) -> Self {
        let stream = TcpStream::connect((place.host.as_str(), place.port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        stream.set_write_timeout(Some(Duration::from_secs(5))).unwrap();
        let mut client = Self { stream, seen: String::new() };
        let header = format!(
            "<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' to='{}' version='1.0'>",
            place.domain
        );
        client.say(&format!("<?xml version='1.0'?>{header}"));
        client.hear("</stream:features>");
        let secret = base64(format!("\0{user}\0{password}").as_bytes());
        client.say(&format!(
            "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>{secret}</auth>"
        ));
        client.hear("<success");
        client.say(&header);
        client.hear("</stream:features>");
        client.say("<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>raw</resource></bind></iq>");
        client.hear("</jid>");
        client
    }

    /// Enters a room.
    pub fn join(&mut self, room: &str, nick: &str, password: &str) {
        self.say(&format!(
            "<presence to='{room}/{nick}'><x xmlns='http://jabber.org/protocol/muc'><password>{password}</password></x></presence>"
        ));
        self.hear("110");
    }

    /// Sends and gives what comes back until the connection ends, at most for some seconds.
    pub fn throw(mut self, bytes: &str) -> String {
        self.seen.clear();
        // The server may hang up before it has taken everything.
        let _ = self.stream.write_all(bytes.as_bytes());
        let deadline = Instant::now() + Duration::from_secs(5);
        while Instant::now() < deadline && self.read() {}
        self.seen
    }

    fn say(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).unwrap();
    }

    fn hear(&mut self, text: &str) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !self.seen.contains(text) {
            assert!(Instant::now() < deadline && self.read(), "waited for {text}, heard {}", self.seen);
        }
        self.seen.clear();
    }

    /// False at the end of the connection.
    fn read(&mut self) -> bool {
        let mut buffer = [0; 8192];
        match self.stream.read(&mut buffer) {
            Ok(0) => false,
            Ok(length) => {
                self.seen.push_str(&String::from_utf8_lossy(&buffer[..length]));
                true
            }
            Err(error) => matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
        }
    }
}
