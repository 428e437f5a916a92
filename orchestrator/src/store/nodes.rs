//! The nodes that share a store, and which of them is dead. Pure: what was seen and when goes in.

use std::collections::HashMap;
use std::time::Duration;

/// A node as it stands in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Never used again.
    pub id: i64,
    /// Its name.
    pub name: String,
    /// Grows with each of its starts.
    pub generation: i64,
    /// Grows while it lives.
    pub beat: i64,
}

/// By what a node writes: its row, in the generation of this very process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Lease {
    /// The node.
    pub id: i64,
    /// Its generation.
    pub generation: i64,
}

/// Watches the beats of others by its own monotonic clock.
#[derive(Debug)]
pub struct Keeper {
    patience: Duration,
    seen: HashMap<i64, (i64, i64, Duration)>,
}

impl Keeper {
    /// One that takes a node for dead after so long without a beat.
    pub fn new(patience: Duration) -> Self {
        Self { patience, seen: HashMap::new() }
    }

    /// What the store holds at this time since the start; the nodes that are dead. A first look at a node is like a beat.
    pub fn look(&mut self, nodes: &[Node], now: Duration) -> Vec<Node> {
        self.seen.retain(|id, _| nodes.iter().any(|node| node.id == *id));
        let mut dead = Vec::new();
        for node in nodes {
            let seen = self.seen.entry(node.id).or_insert((node.generation, node.beat, now));
            if (seen.0, seen.1) != (node.generation, node.beat) {
                *seen = (node.generation, node.beat, now);
            } else if now.saturating_sub(seen.2) >= self.patience {
                dead.push(node.clone());
            }
        }
        dead
    }

    /// We could not look for a while, and perhaps nobody could beat: everybody's time begins anew.
    pub fn forget(&mut self) {
        self.seen.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_silence_that_was_watched_is_death() {
        let node = |beat, generation| Node { id: 1, name: "a".into(), generation, beat };
        let s = Duration::from_secs;
        let mut keeper = Keeper::new(s(5));
        assert_eq!(keeper.look(&[node(7, 1)], s(100)), []);
        assert_eq!(keeper.look(&[node(7, 1)], s(104)), []);
        assert_eq!(keeper.look(&[node(8, 1)], s(106)), []);
        assert_eq!(keeper.look(&[node(8, 2)], s(110)), []);
        assert_eq!(keeper.look(&[node(8, 2)], s(114)), []);
        assert_eq!(keeper.look(&[node(8, 2)], s(115)), [node(8, 2)]);
        keeper.forget();
        assert_eq!(keeper.look(&[node(8, 2)], s(200)), []);
        assert_eq!(keeper.look(&[], s(300)), []);
        assert_eq!(keeper.look(&[node(8, 2)], s(400)), []);
    }
}
