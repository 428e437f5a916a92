//! Waiting times between attempts: doubling, capped, with jitter. Pure: the random number is an argument.

use std::time::Duration;

/// A growing waiting time.
#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    first: Duration,
    cap: Duration,
    next: Duration,
}

impl Backoff {
    pub(crate) fn new(first: Duration, cap: Duration) -> Self {
        Self { first, cap, next: first }
    }

    /// The time to wait now; `random` in 0..1 spreads it over 75 to 125 % of its nominal length, so that
    /// a hundred agents do not come back in one instant after a server restart.
    pub(crate) fn wait(&mut self, random: f64) -> Duration {
        let nominal = self.next.min(self.cap);
        self.next = (nominal * 2).min(self.cap);
        nominal.mul_f64(0.75 + random.clamp(0.0, 1.0) * 0.5)
    }

    /// Like [`Backoff::wait`], but at least `floor` and growing to `cap` instead of the usual one.
    pub(crate) fn wait_slowly(&mut self, floor: Duration, cap: Duration, random: f64) -> Duration {
        let nominal = self.next.clamp(floor, cap.max(floor));
        self.next = nominal * 2;
        nominal.mul_f64(0.75 + random.clamp(0.0, 1.0) * 0.5)
    }

    /// All is well again.
    pub(crate) fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_cap() {
        let mut backoff = Backoff::new(Duration::from_millis(250), Duration::from_secs(5));
        let waits: Vec<_> = (0..7).map(|_| backoff.wait(0.5).as_millis()).collect();
        assert_eq!(waits, [250, 500, 1000, 2000, 4000, 5000, 5000]);
        backoff.reset();
        assert_eq!(backoff.wait(0.5), Duration::from_millis(250));
    }

    #[test]
    fn jitter_stays_within_a_quarter() {
        let mut backoff = Backoff::new(Duration::from_secs(4), Duration::from_secs(4));
        assert_eq!(backoff.wait(0.0), Duration::from_secs(3));
        assert_eq!(backoff.wait(1.0), Duration::from_secs(5));
    }

    #[test]
    fn slow_waits_have_their_own_floor_and_cap() {
        let mut backoff = Backoff::new(Duration::from_millis(250), Duration::from_secs(5));
        let (floor, cap) = (Duration::from_secs(2), Duration::from_secs(30));
        let waits: Vec<_> = (0..6).map(|_| backoff.wait_slowly(floor, cap, 0.5).as_secs()).collect();
        assert_eq!(waits, [2, 4, 8, 16, 30, 30]);
    }
}
