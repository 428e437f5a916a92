//! Which connections are open: counted in all and by address, and given up when a place is needed, the one that was idle for
//! the longest time first. Knows no HTTP and no sockets.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::access::source;

/// Bounds; 0 = none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bounds {
    pub(super) total: usize,
    pub(super) per_address: usize,
}

/// Why there is no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Excess {
    /// All places are taken, and each by a connection that does something.
    Total,
    /// This address has its share.
    Address,
}

/// What a connection does at this moment.
#[derive(Debug)]
pub(super) struct Activity {
    start: Instant,
    /// Requests that are being answered.
    busy: AtomicU32,
    /// When the last byte came or went, in milliseconds since the start.
    last_ms: AtomicU64,
}

impl Activity {
    fn new(start: Instant) -> Self {
        let this = Self { start, busy: AtomicU32::new(0), last_ms: AtomicU64::new(0) };
        this.moved();
        this
    }

    /// A byte came or went.
    pub(super) fn moved(&self) {
        let since = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_ms.store(since, Relaxed);
    }

    /// A request is being answered until the guard is dropped.
    pub(super) fn answering(self: &Arc<Self>) -> Answering {
        self.busy.fetch_add(1, Relaxed);
        Answering(self.clone())
    }
}

/// See [`Activity::answering`].
#[derive(Debug)]
pub(super) struct Answering(Arc<Activity>);

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.busy.fetch_sub(1, Relaxed);
        self.0.moved();
    }
}

#[derive(Debug)]
struct Entry {
    address: IpAddr,
    activity: Arc<Activity>,
    given_up: CancellationToken,
}

#[derive(Debug, Default)]
struct State {
    open: HashMap<u64, Entry>,
    by_address: HashMap<IpAddr, usize>,
    next: u64,
}

/// All open connections.
#[derive(Debug)]
pub(super) struct Connections {
    bounds: Bounds,
    start: Instant,
    state: Mutex<State>,
}

/// A place among them, free again on drop.
#[derive(Debug)]
pub(super) struct Place {
    connections: Arc<Connections>,
    id: u64,
    /// What the connection does.
    pub(super) activity: Arc<Activity>,
    /// The place is needed for another one.
    pub(super) given_up: CancellationToken,
}

impl Connections {
    pub(super) fn new(bounds: Bounds) -> Arc<Self> {
        Arc::new(Self { bounds, start: Instant::now(), state: Mutex::default() })
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many are open.
    pub(super) fn count(&self) -> usize {
        self.state().open.len()
    }

    /// A place for one more. `shared` addresses, those of proxies, stand for many clients and are not counted. The flag says
    /// that an idle connection was given up for it.
    pub(super) fn admit(self: &Arc<Self>, address: IpAddr, shared: bool) -> Result<(Place, bool), Excess> {
        let Bounds { total, per_address } = self.bounds;
        let address = source(address);
        let mut state = self.state();
        let here = state.by_address.get(&address).copied().unwrap_or(0);
        if per_address > 0 && !shared && here >= per_address {
            return Err(Excess::Address);
        }
        let mut gave_up = false;
        if total > 0 && state.open.len() >= total {
            let idle = state.open.iter().filter(|(_, entry)| {
                entry.activity.busy.load(Relaxed) == 0 && !entry.given_up.is_cancelled()
            });
            let longest = idle.min_by_key(|(id, entry)| (entry.activity.last_ms.load(Relaxed), **id));
            let Some((_, entry)) = longest else { return Err(Excess::Total) };
            entry.given_up.cancel();
            gave_up = true;
        }
        let id = state.next;
        state.next += 1;
        let place = Place {
            connections: self.clone(),
            id,
            activity: Arc::new(Activity::new(self.start)),
            given_up: CancellationToken::new(),
        };
        let entry = Entry { address, activity: place.activity.clone(), given_up: place.given_up.clone() };
        state.open.insert(id, entry);
        *state.by_address.entry(address).or_default() += 1;
        Ok((place, gave_up))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.connections.state();
        let Some(entry) = state.open.remove(&self.id) else { return };
        if let Some(count) = state.by_address.get_mut(&entry.address) {
            *count -= 1;
            if *count == 0 {
                state.by_address.remove(&entry.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
    const B: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));

    #[test]
    fn an_address_has_its_share_and_the_longest_idle_makes_room() {
        let connections = Connections::new(Bounds { total: 3, per_address: 2 });
        let (first, _) = connections.admit(A, false).expect("a place");
        let moved = |place: &Place, at: u64| place.activity.last_ms.store(at, Relaxed);
        moved(&first, 1);
        let (second, _) = connections.admit(A, false).expect("a place");
        assert_eq!(connections.admit(A, false).map(|_| ()), Err(Excess::Address));
        moved(&second, 2);
        let (third, gave_up) = connections.admit(A, true).expect("a proxy has many clients");
        moved(&third, 3);
        assert!(!gave_up);
        let answering = first.activity.answering();
        let (fourth, gave_up) = connections.admit(B, false).expect("room was made");
        assert!(gave_up);
        assert!(second.given_up.is_cancelled() && !first.given_up.is_cancelled());
        drop(second);
        assert_eq!(connections.count(), 3);
        drop(answering);
        moved(&first, 4);
        moved(&fourth, 5);
        // All three are idle now: the third has been so for the longest time.
        connections.admit(B, false).expect("room was made");
        assert!(third.given_up.is_cancelled() && !first.given_up.is_cancelled());
    }

    #[test]
    fn whoever_is_served_is_never_given_up() {
        let connections = Connections::new(Bounds { total: 1, per_address: 0 });
        let (place, _) = connections.admit(A, false).expect("a place");
        let _answering = place.activity.answering();
        assert_eq!(connections.admit(B, false).map(|_| ()), Err(Excess::Total));
        assert!(!place.given_up.is_cancelled());
    }
}
