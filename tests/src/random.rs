//! A small generator of random numbers, so that a run can be repeated by its seed.

use std::time::Duration;

/// Xorshift.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// The same numbers for the same seed.
    pub fn new(seed: u64) -> Self {
        // A generator at 0 stays there; and seeds that are neighbours must not begin alike.
        let mut random = Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        random.below(2);
        random
    }

    /// By `WPS_TEST_SEED`, else one of this run; printed with the name of the test.
    pub fn seeded(test: &str) -> Self {
        let seed = seed();
        crate::tell(&format!("{test}: WPS_TEST_SEED={seed}"));
        Self::new(seed)
    }

    /// 0 up to, and without, `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        // The lowest bits are the worst.
        (self.0 >> 11) % end.max(1)
    }

    /// One of these.
    pub fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.index(choices.len())]
    }

    /// An index of a list that is so long.
    pub fn index(&mut self, length: usize) -> usize {
        usize::try_from(self.below(length as u64)).unwrap_or(0)
    }

    /// Between these, in milliseconds.
    pub fn pause(&mut self, from_ms: u64, to_ms: u64) -> Duration {
        Duration::from_millis(from_ms + self.below(to_ms.saturating_sub(from_ms)))
    }
}

/// `WPS_TEST_SEED`, else one of this run.
pub fn seed() -> u64 {
    let wanted = std::env::var("WPS_TEST_SEED").ok().and_then(|text| text.parse().ok());
    wanted.unwrap_or_else(|| u64::from(std::process::id()) * 7919 + 1)
}
