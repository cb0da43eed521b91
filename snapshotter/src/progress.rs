//! What a pull or an import reports while it runs, for progress bars.

use std::fmt;
use std::sync::Arc;

use crate::digest::Digest;

/// What happens to one layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It waits for its turn.
    Waiting,
    /// Its bytes arrive and are unpacked at the same time.
    Downloading,
    /// All bytes are there, the rest of it is being written.
    Unpacking,
    /// It is complete.
    Done,
    /// It was there already.
    Exists,
}

/// One step of one layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The layer, by the digest that its manifest names.
    pub layer: Digest,
    /// What happens to it.
    pub phase: Phase,
    /// How many compressed bytes of it were read.
    pub current: u64,
    /// How many there are.
    pub total: u64,
}

/// Where progress goes. Called from many threads, so it must be quick and must not block.
#[derive(Clone)]
pub struct ProgressSink(Option<Arc<dyn Fn(Progress) + Send + Sync>>);

impl ProgressSink {
    /// Reports to `report`.
    pub fn new(report: impl Fn(Progress) + Send + Sync + 'static) -> ProgressSink {
        ProgressSink(Some(Arc::new(report)))
    }

    /// Reports to nobody.
    #[must_use]
    pub fn none() -> ProgressSink {
        ProgressSink(None)
    }

    /// Reports one step.
    pub(crate) fn report(&self, layer: Digest, phase: Phase, current: u64, total: u64) {
        if let Some(report) = &self.0 {
            report(Progress {
                layer,
                phase,
                current,
                total,
            });
        }
    }
}

impl fmt::Debug for ProgressSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() {
            "ProgressSink"
        } else {
            "ProgressSink(none)"
        })
    }
}
