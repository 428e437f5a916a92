//! Who may connect how often: counts of open connections, and the memory of failed logins. Pure: the time is an
//! argument. Knows addresses only.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A failed login is forgotten after this time without another.
const MEMORY: Duration = Duration::from_secs(60);
const FIRST_DELAY: Duration = Duration::from_millis(100);
const LONGEST_DELAY: Duration = Duration::from_secs(5);
/// Addresses remembered at once.
const MAX_ADDRESSES: usize = 10_000;

/// Open connections and failed logins.
#[derive(Debug)]
pub(super) struct Admissions {
    total: usize,
    per_address: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    open: usize,
    by_address: HashMap<IpAddr, usize>,
    failures: HashMap<IpAddr, (u32, Instant)>,
}

/// Why a connection is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Excess {
    Total,
    Address,
}

/// A counted connection, counted down on drop.
#[derive(Debug)]
pub(super) struct Admission {
    admissions: Arc<Admissions>,
    address: IpAddr,
}

impl Admissions {
    pub(super) fn new(total: usize, per_address: usize) -> Arc<Self> {
        Arc::new(Self { total, per_address, state: Mutex::default() })
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn admit(self: &Arc<Self>, address: IpAddr) -> Result<Admission, Excess> {
        let mut state = self.state();
        if state.open >= self.total {
            return Err(Excess::Total);
        }
        let here = state.by_address.entry(address).or_default();
        if self.per_address > 0 && *here >= self.per_address {
            return Err(Excess::Address);
        }
        *here += 1;
        state.open += 1;
        Ok(Admission { admissions: self.clone(), address })
    }

    /// How long to wait before this failure is answered: doubling with each recent one from the address. Successful
    /// logins never wait, so one misconfigured agent does not lock out its neighbours.
    pub(super) fn failed(&self, address: IpAddr, now: Instant) -> Duration {
        let mut state = self.state();
        if state.failures.len() >= MAX_ADDRESSES {
            state.failures.retain(|_, (_, last)| now.duration_since(*last) < MEMORY);
            if state.failures.len() >= MAX_ADDRESSES {
                return LONGEST_DELAY;
            }
        }
        let (count, last) = state.failures.entry(address).or_insert((0, now));
        if now.duration_since(*last) >= MEMORY {
            *count = 0;
        }
        *last = now;
        *count = count.saturating_add(1);
        FIRST_DELAY.saturating_mul(1 << (*count - 1).min(10)).min(LONGEST_DELAY)
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        let mut state = self.admissions.state();
        state.open -= 1;
        if let Some(here) = state.by_address.get_mut(&self.address) {
            *here -= 1;
            if *here == 0 {
                state.by_address.remove(&self.address);
            }
        }
    }
}

/// Lets one message through in a while and counts those that it holds back, so that a flood does not fill the log.
#[derive(Debug, Default)]
pub(super) struct Seldom {
    last: Option<Instant>,
    held: u64,
}

impl Seldom {
    /// `Some` if the message should be written now, with the number of those since the last one that were not.
    pub(super) fn say(&mut self, now: Instant) -> Option<u64> {
        if self.last.is_some_and(|last| now.duration_since(last) < Duration::from_secs(10)) {
            self.held += 1;
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.held))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
    const B: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));

    #[test]
    fn connections_are_limited_in_total_and_per_address() {
        let admissions = Admissions::new(3, 2);
        let first = admissions.admit(A).unwrap();
        let _second = admissions.admit(A).unwrap();
        assert_eq!(admissions.admit(A).unwrap_err(), Excess::Address);
        let _third = admissions.admit(B).unwrap();
        assert_eq!(admissions.admit(B).unwrap_err(), Excess::Total);
        drop(first);
        admissions.admit(A).unwrap();
        let unbound = Admissions::new(3, 0);
        let open: Vec<_> = (0..3).map(|_| unbound.admit(A).unwrap()).collect();
        assert_eq!((unbound.admit(A).unwrap_err(), open.len()), (Excess::Total, 3));
    }

    #[test]
    fn failures_are_answered_ever_later_and_forgotten() {
        let admissions = Admissions::new(1, 1);
        let start = Instant::now();
        let delays: Vec<_> = (0..8).map(|_| admissions.failed(A, start).as_millis()).collect();
        assert_eq!(delays, [100, 200, 400, 800, 1600, 3200, 5000, 5000]);
        assert_eq!(admissions.failed(B, start).as_millis(), 100);
        assert_eq!(admissions.failed(A, start + MEMORY).as_millis(), 100);
    }

    #[test]
    fn a_flood_is_one_message_in_a_while() {
        let (mut seldom, start) = (Seldom::default(), Instant::now());
        assert_eq!(seldom.say(start), Some(0));
        assert!((1..100).all(|ms| seldom.say(start + Duration::from_millis(ms)).is_none()));
        assert_eq!(seldom.say(start + Duration::from_secs(10)), Some(99));
        assert_eq!(seldom.say(start + Duration::from_secs(20)), Some(0));
    }
}
