//! What was told a while ago is not told again.

use std::{collections::HashMap, hash::Hash, time::Duration};

/// Statements that are remembered; where all of them are fresh, they are forgotten: something is
/// told twice rather than not at all.
const STATEMENTS: usize = 4_096;

/// When statements were last made.
#[derive(Debug)]
pub(crate) struct Told<K> {
    last: HashMap<K, u64>,
}

// === impl Told ===

impl<K> Default for Told<K> {
    fn default() -> Self {
        Self {
            last: HashMap::new(),
        }
    }
}

impl<K: Eq + Hash> Told<K> {
    /// Whether to make a statement at `now_ns`: once in a `window`.
    pub(crate) fn is_due(&mut self, key: K, now_ns: u64, window: Duration) -> bool {
        let window = u64::try_from(window.as_nanos()).unwrap_or(u64::MAX);
        let is_fresh = |last: &u64| now_ns.saturating_sub(*last) < window;
        if self.last.get(&key).is_some_and(is_fresh) {
            return false;
        }
        if self.last.len() >= STATEMENTS {
            self.last.retain(|_, last| is_fresh(last));
            if self.last.len() >= STATEMENTS {
                self.last.clear();
            }
        }
        self.last.insert(key, now_ns);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_nanos(10);

    #[test]
    fn once_in_a_window() {
        let mut told = Told::default();
        assert!(told.is_due("a", 5, WINDOW));
        assert!(!told.is_due("a", 14, WINDOW));
        assert!(told.is_due("b", 14, WINDOW));
        assert!(told.is_due("a", 15, WINDOW));
    }

    #[test]
    fn it_is_bounded_and_keeps_what_is_fresh() {
        let mut told = Told::default();
        for key in 0..STATEMENTS {
            assert!(told.is_due(key, 0, WINDOW));
        }
        assert!(told.is_due(STATEMENTS, 20, WINDOW));
        assert_eq!(told.last.len(), 1, "what is stale makes room");
        for key in 0..STATEMENTS {
            told.is_due(key, 20, WINDOW);
        }
        assert!(told.last.len() <= STATEMENTS);
    }
}
