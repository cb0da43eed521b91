//! Random decisions that a seed repeats.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// `DAVIT_TEST_SEED`, or the time.
pub(crate) fn seed() -> u64 {
    let given = std::env::var("DAVIT_TEST_SEED").ok();
    given.and_then(|text| text.parse().ok()).unwrap_or_else(|| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        now.as_secs()
    })
}

/// xorshift64*: what a test needs of randomness.
pub(crate) struct Dice(u64);

impl Dice {
    /// The decisions of one worker.
    pub(crate) fn new(seed: u64, worker: u32) -> Dice {
        // Neighbouring seeds must not give neighbouring sequences, and zero would give nothing but zeros.
        let mixed = (seed ^ (u64::from(worker) << 56)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Dice(mixed | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// A moment up to `limit` from now.
    pub(crate) fn within(&mut self, limit: Duration) -> Duration {
        let nanos = u64::try_from(limit.as_nanos()).unwrap();
        Duration::from_nanos(self.below(nanos))
    }
}
