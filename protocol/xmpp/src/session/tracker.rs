//! Who waits for the answer to which request. Pure bookkeeping: an answer is only accepted from the address that was
//! asked, because ids can be guessed.

use crate::Jid;
use std::collections::HashMap;

/// Requests without answer yet; `W` is who waits.
#[derive(Debug)]
pub(crate) struct Tracker<W> {
    pending: HashMap<String, (Option<Jid>, W)>,
    next: u64,
    prefix: String,
    prune_at: usize,
}

impl<W> Tracker<W> {
    /// `prefix` makes the ids of this session differ from those of an earlier one, whose late answers may still come.
    pub(crate) fn new(prefix: String) -> Self {
        Self { pending: HashMap::new(), next: 0, prefix, prune_at: 64 }
    }

    /// A fresh id that ends in `suffix`.
    pub(crate) fn id(&mut self, suffix: &str) -> String {
        self.next += 1;
        format!("{}-{}-{suffix}", self.prefix, self.next)
    }

    /// Remembers who waits for the answer of `to` (`None`: our own server).
    pub(crate) fn expect(&mut self, id: String, to: Option<Jid>, waiter: W, abandoned: impl Fn(&W) -> bool) {
        if self.pending.len() >= self.prune_at {
            self.pending.retain(|_, (_, waiter)| !abandoned(waiter));
            self.prune_at = (self.pending.len() * 2).max(64);
        }
        self.pending.insert(id, (to, waiter));
    }

    /// The waiter for an answer with this id from this address.
    pub(crate) fn answer(&mut self, id: &str, from: Option<&Jid>) -> Option<W> {
        let (to, _) = self.pending.get(id)?;
        let matches = match (to, from) {
            (Some(to), Some(from)) => to == from,
            (None, _) => true,
            (Some(_), None) => false,
        };
        if !matches {
            return None;
        }
        self.pending.remove(id).map(|(_, waiter)| waiter)
    }

    /// Forgets everybody, e.g. because the connection is gone.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = W> {
        std::mem::take(&mut self.pending).into_values().map(|(_, waiter)| waiter)
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.pending.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jid(text: &str) -> Jid {
        text.parse().unwrap()
    }

    #[test]
    fn an_answer_counts_once_and_only_from_the_address_asked() {
        let mut tracker = Tracker::new("s".into());
        let id = tracker.id("ping");
        assert_eq!(id, "s-1-ping");
        tracker.expect(id.clone(), Some(jid("room@muc/a")), 'a', |_| false);
        assert_eq!(tracker.answer(&id, Some(&jid("room@muc/b"))), None);
        assert_eq!(tracker.answer(&id, None), None);
        assert_eq!(tracker.answer(&id, Some(&jid("room@muc/a"))), Some('a'));
        assert_eq!(tracker.answer(&id, Some(&jid("room@muc/a"))), None);
    }

    #[test]
    fn abandoned_requests_do_not_pile_up() {
        let mut tracker = Tracker::new("s".into());
        for n in 0..10_000 {
            let id = tracker.id("x");
            tracker.expect(id, None, n, |n| n % 100 != 0);
        }
        assert!(tracker.len() < 300, "{} kept", tracker.len());
    }
}
