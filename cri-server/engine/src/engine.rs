//! The engine's handle: opening, closing, and what its operations share.

mod containers;
mod images;
mod node;
mod pods;
mod stats;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::broadcast;

use crate::config::Config;
use crate::error::{Error, Result};
use crate::events::Event;
use crate::images::blocking;
use crate::node::Node;
use crate::pod::Pod;
use crate::recovery;

/// How long closing waits for operations in progress.
const CLOSING: Duration = Duration::from_secs(10);

/// How much there is, for monitoring.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Pods that can take containers.
    pub pods_ready: u64,
    /// Pods that cannot.
    pub pods_not_ready: u64,
    /// Containers that wait for their start.
    pub containers_created: u64,
    /// Containers that run.
    pub containers_running: u64,
    /// Containers that ended.
    pub containers_exited: u64,
    /// Containers whose records do not load.
    pub containers_unknown: u64,
    /// Shims that ended with their pods still there, since this engine opened.
    pub shims_lost: u64,
}

/// The engine of one node. Clones are handles to the same engine.
#[derive(Clone)]
pub struct Engine {
    node: Arc<Node>,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine")
            .field("run_dir", &self.node.config.run_dir)
            .finish_non_exhaustive()
    }
}

impl Engine {
    /// Opens the engine: locks the run directory, finds again what runs, undoes what was half made.
    /// Needs a tokio runtime. Answer RPCs with "unavailable" until this returns.
    ///
    /// # Errors
    /// Another daemon has the lock, or a directory or the image store cannot be opened.
    pub async fn open(config: Config) -> Result<Self> {
        blocking(move || {
            let node = Arc::new(Node::open(config)?);
            recovery::recover(&node);
            // The first who asks what the handlers can do need not wait for them.
            let asked = Arc::clone(&node);
            tokio::task::spawn_blocking(move || drop(asked.handlers.info()));
            Ok(Self { node })
        })
        .await
    }

    /// Ends every task of this engine and lets go of its locks, unless a clone of it is still around. Pods go
    /// on; the next engine finds them.
    pub async fn close(self) {
        let node = self.node;
        // Containers outlive this engine, and with them what they are mounted from, even if its image is gone: said first,
        // since their tasks end, and their leases, as soon as they hear of the closing.
        node.store.keep_leases();
        node.closing.send_replace(true);
        let deadline = tokio::time::Instant::now() + CLOSING;
        for pod in node.pods() {
            // A task that waits for a shim that does not answer is left behind; the next daemon asks again.
            if tokio::time::timeout_at(deadline, pod.ended())
                .await
                .is_err()
            {
                tracing::warn!(
                    pod.id = pod.id,
                    "closing without waiting for the pod's operation"
                );
            }
        }
        let ended = Arc::downgrade(&node);
        node.tidy_cgroup();
        drop(node);
        // Operations of callers that left come to their end first.
        while ended.strong_count() > 0 && tokio::time::Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// What happens to pods and containers from now on. A slow listener loses the oldest events.
    #[must_use]
    pub fn subscribe(&self) -> broadcast::Receiver<Event> {
        self.node.events.subscribe()
    }

    fn pod(&self, id: &str) -> Result<Arc<Pod>> {
        self.node
            .find_pod(id)?
            .ok_or_else(|| Error::PodNotFound { id: id.to_owned() })
    }

    fn container(&self, id: &str) -> Result<(String, Arc<Pod>)> {
        self.node
            .find_container(id)?
            .ok_or_else(|| Error::ContainerNotFound { id: id.to_owned() })
    }
}

/// Stopping or removing what somebody else just removed is success. A pod whose task ended because the daemon shuts
/// down is still there, and so is what should have stopped: the caller has to ask the next daemon.
fn gone_is_fine(node: &Node, result: Result<()>) -> Result<()> {
    match result {
        Err(Error::PodGone { id }) if node.find_pod(&id)?.is_none() => Ok(()),
        Err(Error::PodGone { id }) => Err(Error::Closing { id }),
        other => other,
    }
}

/// The full id of a filter; `Err` when it names nothing.
fn resolve(
    asked: Option<&str>,
    find: impl Fn(&str) -> Result<Option<String>>,
) -> Result<Option<String>, ()> {
    match asked.filter(|id| !id.is_empty()) {
        None => Ok(None),
        Some(id) => match find(id) {
            Ok(Some(found)) => Ok(Some(found)),
            Ok(None) | Err(_) => Err(()),
        },
    }
}
