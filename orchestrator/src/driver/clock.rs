//! The wall clock made safe: deadlines are counted by a clock that only goes forward and at one pace, while times that are
//! shown and stored follow the wall clock, however it is set.

use crate::engine::job::Timestamp;

/// A difference from here on is a clock that was set; below it is one that is being trimmed (milliseconds).
const SET_MS: u64 = 1_000;

/// Compares the wall clock with the monotonic one. Pure: both are arguments, in milliseconds.
#[derive(Debug)]
pub struct Clock {
    began_wall: u64,
    base_wall: u64,
    base_monotonic: u64,
    last: u64,
}

impl Clock {
    /// Begins at monotonic time 0.
    pub fn new(wall: u64) -> Self {
        Self { began_wall: wall, base_wall: wall, base_monotonic: 0, last: wall }
    }

    /// The time, and by how much the wall clock was set since the last look, if it was.
    pub fn look(&mut self, wall: u64, monotonic: u64) -> (Timestamp, Option<i64>) {
        let expected = self.base_wall.saturating_add(monotonic.saturating_sub(self.base_monotonic));
        if wall.abs_diff(expected) < SET_MS {
            // Never backwards by a trimming.
            self.last = self.last.max(wall);
            return (Timestamp(self.last), None);
        }
        let by = i64::try_from(i128::from(wall) - i128::from(expected)).unwrap_or(0);
        (self.base_wall, self.base_monotonic, self.last) = (wall, monotonic, wall);
        (Timestamp(wall), Some(by))
    }

    /// A time that no wall clock can push ahead, for what cannot be undone: nothing is removed before its time because the
    /// clock was set forward. Set backward, it stays with the wall clock.
    pub fn cautious(&self, wall: u64, monotonic: u64) -> Timestamp {
        Timestamp(wall.min(self.began_wall.saturating_add(monotonic)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_clock_is_told_and_a_trimmed_one_is_not() {
        let mut clock = Clock::new(1_000_000);
        assert_eq!(clock.look(1_000_500, 500), (Timestamp(1_000_500), None));
        assert_eq!(clock.look(1_000_400, 600), (Timestamp(1_000_500), None), "never backwards");
        assert_eq!(clock.look(9_000_700, 700), (Timestamp(9_000_700), Some(8_000_000)));
        assert_eq!(clock.look(9_000_800, 800), (Timestamp(9_000_800), None));
        assert_eq!(clock.look(900, 900), (Timestamp(900), Some(-9_000_000)));
        assert_eq!(clock.look(1_000, 1_000), (Timestamp(1_000), None));
    }

    #[test]
    fn nothing_expires_because_the_clock_was_set_forward() {
        let day = 24 * 3600 * 1000;
        let clock = Clock::new(100 * day);
        assert_eq!(clock.cautious(100 * day + 5, 5), Timestamp(100 * day + 5));
        assert_eq!(clock.cautious(4_000 * day, day), Timestamp(101 * day));
        assert_eq!(clock.cautious(50 * day, day), Timestamp(50 * day));
    }
}
