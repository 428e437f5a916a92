//! Ports for servers that are told their port before they listen on it, as Prosody, ejabberd and our own programs are.

use std::fs::{self, File};
use std::net::TcpListener;
use std::ops::RangeInclusive;
use std::sync::{Mutex, PoisonError};

/// Below what Linux gives to outgoing connections and to listeners on port 0 (`net.ipv4.ip_local_port_range`, from 32768
/// on): between the choice and the moment when the server listens, only another caller of [`free_port`] could take it.
const RANGE: RangeInclusive<u16> = 12_000..=31_999;

/// One locked file for each port that this program has handed out, held until it ends.
static HELD: Mutex<Vec<File>> = Mutex::new(Vec::new());

/// A TCP port of 127.0.0.1 that nobody listens on, and that no other caller on this machine gets while this program lives.
///
/// # Panics
/// If no port of the range is left, or files cannot be made in the folder of temporary files.
pub fn free_port() -> u16 {
    let folder = std::env::temp_dir().join("wps-test-ports");
    fs::create_dir_all(&folder).expect("a folder can be made");
    let mut held = HELD.lock().unwrap_or_else(PoisonError::into_inner);
    // Programs that start together begin at different places; which, does not matter.
    let span = u32::from(RANGE.end() - RANGE.start()) + 1;
    let first = std::process::id().wrapping_mul(7919).wrapping_add(held.len() as u32);
    for step in 0..span {
        let port = RANGE.start() + (first.wrapping_add(step) % span) as u16;
        let file = File::create(folder.join(port.to_string())).expect("a file can be made");
        if file.try_lock().is_ok() && TcpListener::bind(("127.0.0.1", port)).is_ok() {
            held.push(file);
            return port;
        }
    }
    panic!("no port of {RANGE:?} is free on 127.0.0.1");
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_port_is_handed_out_twice_or_for_outgoing_connections() {
        let ports: Vec<u16> = (0..50).map(|_| free_port()).collect();
        assert_eq!(ports.iter().collect::<HashSet<_>>().len(), ports.len());
        assert!(ports.iter().all(|port| RANGE.contains(port)));
    }

    #[test]
    fn a_port_in_use_is_passed_over() {
        let listeners: Vec<TcpListener> =
            (0..5).map(|_| TcpListener::bind(("127.0.0.1", free_port())).expect("it is free")).collect();
        let taken: HashSet<u16> = listeners
            .iter()
            .filter_map(|listener| listener.local_addr().ok())
            .map(|address| address.port())
            .collect();
        assert!((0..50).all(|_| !taken.contains(&free_port())));
    }
}
