//! What writable layers take. Small ones are counted while the caller waits; a big one in the background, one at a time
//! on the whole node and the less often the longer it takes, while the last count answers.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::ids;
use crate::model::LayerUsage;
use crate::node::Node;
use crate::pod::Pod;

/// How many inodes are counted while the caller waits: less than a millisecond.
const QUICK: u64 = 256;
/// How many are counted at all; what is beyond is not reported rather than reported wrong.
const MOST: u64 = 4_000_000;
/// How long a count answers.
const FRESH: Duration = Duration::from_secs(10);
/// Counting takes at most this part of the time: 1/50.
const SHARE: u32 = 50;

/// The counts of one pod's layers.
#[derive(Debug, Default)]
pub(crate) struct Layers(Mutex<BTreeMap<String, Count>>);

#[derive(Debug, Clone)]
struct Count {
    usage: Option<LayerUsage>,
    next: Instant,
}

impl Layers {
    fn get(&self, id: &str) -> Option<Count> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(id)
            .cloned()
    }

    fn set(&self, id: &str, count: Count) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(id.to_owned(), count);
    }

    pub(super) fn forget(&self, id: &str) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(id);
    }
}

/// What the container's layer takes, as far as it is known.
pub(super) fn usage(node: &Arc<Node>, pod: &Arc<Pod>, id: &str) -> Option<LayerUsage> {
    let known = pod.samples.layers.get(id);
    if let Some(known) = &known
        && known.next > Instant::now()
    {
        return known.usage.clone();
    }
    let upper = node.writable(&pod.id, id).join("upper");
    if let Some(counted) = count(&upper, QUICK) {
        pod.samples.layers.set(id, counted.clone());
        return counted.usage;
    }
    in_background(node, pod, id, upper);
    known.and_then(|known| known.usage)
}

/// Counts; `None` when there is more than `limit`, or nothing.
fn count(upper: &Path, limit: u64) -> Option<Count> {
    let begin = Instant::now();
    let usage = sys::fs::tree_usage(upper, limit).ok()?;
    if usage.inodes >= limit {
        return None;
    }
    Some(Count {
        usage: Some(LayerUsage {
            at: ids::now(),
            path: upper.to_string_lossy().into_owned(),
            bytes: usage.bytes,
            inodes: usage.inodes,
        }),
        next: Instant::now() + FRESH.max(begin.elapsed() * SHARE),
    })
}

fn in_background(node: &Arc<Node>, pod: &Arc<Pod>, id: &str, upper: PathBuf) {
    static COUNTING: AtomicBool = AtomicBool::new(false);
    if !upper.is_dir() || COUNTING.swap(true, Ordering::AcqRel) {
        return; // the next one who asks tries again
    }
    let (pod, id) = (Arc::clone(pod), id.to_owned());
    // The node may close meanwhile: nothing here holds it.
    let closing = node.closing.subscribe();
    tokio::task::spawn_blocking(move || {
        let begin = Instant::now();
        let before = pod.samples.layers.get(&id).and_then(|count| count.usage);
        let counted = count(&upper, MOST).unwrap_or_else(|| Count {
            usage: before,
            next: Instant::now() + FRESH.max(begin.elapsed() * SHARE),
        });
        if !*closing.borrow() {
            pod.samples.layers.set(&id, counted);
        }
        COUNTING.store(false, Ordering::Release);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_that_is_too_big_is_not_reported_with_a_wrong_number() {
        let dir = tempfile::tempdir().expect("temp dir");
        for n in 0..20 {
            std::fs::write(dir.path().join(n.to_string()), "x").expect("written");
        }
        assert!(count(dir.path(), 10).is_none());
        let usage = count(dir.path(), QUICK).and_then(|count| count.usage);
        assert_eq!(usage.expect("counted").inodes, 21);
        assert!(count(&dir.path().join("missing"), QUICK).is_none());
    }
}
