//! Waiting for a condition with a deadline: the tests' only clock.

use std::time::{Duration, Instant};

/// Asks `condition` until it gives a value.
///
/// # Panics
/// When `limit` passes first; the message names `what` was waited for.
#[track_caller]
pub fn until<T>(what: &str, limit: Duration, mut condition: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(start.elapsed() < limit, "still not after {limit:?}: {what}");
        // The kernel offers no single event for "a condition of several programs holds".
        std::thread::park_timeout(Duration::from_millis(10));
    }
}

/// [`until`] for a condition without a value.
#[track_caller]
pub fn until_true(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) {
    until(what, limit, || condition().then_some(()));
}
