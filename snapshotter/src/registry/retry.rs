//! When a request is tried again, and after how long.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// How often and how patiently a request is repeated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// How many times in all a request is sent.
    pub attempts: u32,
    /// The pause after the first failure; it doubles with every further one.
    pub first_delay: Duration,
    /// The longest pause, and the longest `Retry-After` that is waited for.
    pub max_delay: Duration,
}

impl Default for RetryPolicy {
    fn default() -> RetryPolicy {
        RetryPolicy {
            attempts: 5,
            first_delay: Duration::from_millis(200),
            max_delay: Duration::from_secs(30),
        }
    }
}

impl RetryPolicy {
    /// The pause before attempt `next` (the second one is 1): half of it fixed and half random, so that many nodes
    /// which failed together do not come back together. A server's `Retry-After` is the least that is waited.
    pub(crate) fn delay(&self, next: u32, retry_after: Option<Duration>) -> Duration {
        let doubled = self.first_delay.saturating_mul(
            1_u32
                .checked_shl(next.saturating_sub(1))
                .unwrap_or(u32::MAX),
        );
        let full = doubled.min(self.max_delay);
        let random = u32::try_from(RandomState::new().hash_one(next) % 1000).unwrap_or(0);
        let jittered = full / 2 + (full / 2) * random / 1000;
        jittered
            .max(retry_after.unwrap_or_default())
            .min(self.max_delay)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_obey_the_server() {
        let policy = RetryPolicy {
            attempts: 9,
            first_delay: Duration::from_millis(100),
            max_delay: Duration::from_secs(2),
        };
        for (next, least, most) in [
            (1, 50, 100),
            (2, 100, 200),
            (3, 200, 400),
            (6, 1000, 2000),
            (60, 1000, 2000),
        ] {
            let delay = policy.delay(next, None);
            assert!(
                (Duration::from_millis(least)..=Duration::from_millis(most)).contains(&delay),
                "{next}: {delay:?}"
            );
        }
        assert_eq!(
            policy.delay(1, Some(Duration::from_secs(1))),
            Duration::from_secs(1)
        );
        assert_eq!(
            policy.delay(1, Some(Duration::from_secs(100))),
            Duration::from_secs(2)
        );
    }
}
