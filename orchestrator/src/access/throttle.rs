//! Slows down whoever guesses: after a few failed logins from one address the next ones are not even looked at for a
//! while that doubles. Bounded memory.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Failures that are nobody's business: people mistype.
const FREE: u32 = 10;
/// First pause after those.
const FIRST: Duration = Duration::from_secs(1);
/// Longest pause.
const LONGEST: Duration = Duration::from_secs(300);
/// Most addresses that are remembered.
const MAX_ADDRESSES: usize = 10_000;

#[derive(Debug, Clone, Copy)]
struct Record {
    failures: u32,
    last: Instant,
}

impl Record {
    fn pause(self) -> Duration {
        match self.failures.checked_sub(FREE) {
            None => Duration::ZERO,
            Some(more) => FIRST.saturating_mul(1 << more.min(20)).min(LONGEST),
        }
    }

    /// Whether nothing is left to remember.
    fn is_over(self, now: Instant) -> bool {
        now.duration_since(self.last) > LONGEST.max(self.pause())
    }
}

/// Failures by address.
#[derive(Debug, Default)]
pub(super) struct Throttle(Mutex<HashMap<IpAddr, Record>>);

/// What counts as one client: one network of IPv6 is one guesser, because its 2^64 addresses cost nothing.
pub fn source(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

impl Throttle {
    /// How long an address must wait before its next attempt is looked at.
    pub(super) fn blocked(&self, address: IpAddr) -> Option<Duration> {
        self.blocked_at(address, Instant::now())
    }

    fn blocked_at(&self, address: IpAddr, now: Instant) -> Option<Duration> {
        let records = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let record = records.get(&source(address))?;
        record.pause().checked_sub(now.duration_since(record.last)).filter(|wait| !wait.is_zero())
    }

    /// An attempt from this address failed.
    pub(super) fn failed(&self, address: IpAddr) {
        self.failed_at(address, Instant::now());
    }

    fn failed_at(&self, address: IpAddr, now: Instant) {
        let mut records = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if records.len() >= MAX_ADDRESSES {
            records.retain(|_, record| !record.is_over(now));
        }
        if records.len() >= MAX_ADDRESSES && !records.contains_key(&source(address)) {
            return;
        }
        let record = records.entry(source(address)).or_insert(Record { failures: 0, last: now });
        if record.is_over(now) {
            record.failures = 0;
        }
        record.failures = record.failures.saturating_add(1);
        record.last = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guessing_gets_slower_and_slower_and_is_forgotten() {
        let throttle = Throttle::default();
        let (guesser, other) = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2]));
        let start = Instant::now();
        for _ in 0..FREE - 1 {
            throttle.failed_at(guesser, start);
            assert_eq!(throttle.blocked_at(guesser, start), None);
        }
        throttle.failed_at(guesser, start);
        assert_eq!(throttle.blocked_at(guesser, start), Some(FIRST));
        throttle.failed_at(guesser, start);
        assert_eq!(throttle.blocked_at(guesser, start), Some(FIRST * 2));
        assert_eq!(throttle.blocked_at(guesser, start + FIRST * 2), None);
        assert_eq!(throttle.blocked_at(other, start), None);
        for _ in 0..100 {
            throttle.failed_at(guesser, start);
        }
        assert_eq!(throttle.blocked_at(guesser, start), Some(LONGEST));
        let later = start + LONGEST * 2;
        throttle.failed_at(guesser, later);
        assert_eq!(throttle.blocked_at(guesser, later), None);
    }

    #[test]
    fn a_network_of_ipv6_is_one_guesser() {
        let throttle = Throttle::default();
        let now = Instant::now();
        let address = |n: u16| IpAddr::from([0x2001, 0xdb8, 0, 7, 0, 0, 0, n]);
        for n in 0..FREE as u16 {
            throttle.failed_at(address(n), now);
        }
        assert!(throttle.blocked_at(address(999), now).is_some());
        assert!(throttle.blocked_at(IpAddr::from([0x2001, 0xdb8, 0, 8, 0, 0, 0, 1]), now).is_none());
    }
}
