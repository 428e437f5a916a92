//! How many requests in how much time: a bucket of permits for each source that fills evenly (a minute's worth at most). Pure:
//! the time is an argument. Memory is bounded.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Most sources that are remembered.
const MAX_SOURCES: usize = 50_000;

#[derive(Debug, Clone, Copy)]
struct Bucket {
    permits: f64,
    at: Instant,
}

/// Permits by source.
#[derive(Debug)]
pub(super) struct Rates<K> {
    per_minute: u32,
    buckets: Mutex<HashMap<K, Bucket>>,
}

impl<K: Hash + Eq> Rates<K> {
    /// 0 = no limit.
    pub(super) fn new(per_minute: u32) -> Self {
        Self { per_minute, buckets: Mutex::default() }
    }

    /// Takes a permit, or says when there will be one.
    pub(super) fn take(&self, source: K, now: Instant) -> Result<(), Duration> {
        if self.per_minute == 0 {
            return Ok(());
        }
        let most = f64::from(self.per_minute);
        let per_second = most / 60.0;
        let filled = |bucket: &Bucket| {
            (bucket.permits + now.saturating_duration_since(bucket.at).as_secs_f64() * per_second).min(most)
        };
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= MAX_SOURCES && !buckets.contains_key(&source) {
            // A full bucket says no more than none at all.
            buckets.retain(|_, bucket| filled(bucket) < most);
            if buckets.len() >= MAX_SOURCES {
                return Ok(());
            }
        }
        let bucket = buckets.entry(source).or_insert(Bucket { permits: most, at: now });
        let permits = filled(bucket);
        let allowed = permits >= 1.0;
        *bucket = Bucket { permits: if allowed { permits - 1.0 } else { permits }, at: now };
        if allowed { Ok(()) } else { Err(Duration::from_secs_f64((1.0 - permits) / per_second)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_gets_its_rate_and_no_more() {
        let rates = Rates::new(60);
        let start = Instant::now();
        assert!((0..60).all(|_| rates.take("a", start).is_ok()));
        assert_eq!(rates.take("a", start), Err(Duration::from_secs(1)));
        assert!(rates.take("b", start).is_ok(), "another source has its own permits");
        assert!(rates.take("a", start + Duration::from_millis(1001)).is_ok());
        assert!(rates.take("a", start + Duration::from_millis(1002)).is_err());
        let later = start + Duration::from_secs(3600);
        assert!((0..60).all(|_| rates.take("a", later).is_ok()), "never more than a minute's worth");
        assert!(rates.take("a", later).is_err());
    }

    #[test]
    fn no_rate_is_no_limit_and_memory_is_bounded() {
        let free = Rates::new(0);
        let now = Instant::now();
        assert!((0..1000).all(|_| free.take(1, now).is_ok()));
        let rates = Rates::new(1);
        for source in 0..MAX_SOURCES + 10 {
            assert!(rates.take(source, now).is_ok());
        }
        assert_eq!(rates.buckets.lock().expect("readable").len(), MAX_SOURCES);
        let later = now + Duration::from_secs(61);
        assert!(rates.take(MAX_SOURCES + 11, later).is_ok());
        assert_eq!(rates.buckets.lock().expect("readable").len(), 1, "what is full again is forgotten");
    }
}
