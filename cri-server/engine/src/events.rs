//! What happens to pods and containers, for whoever listens.

use std::sync::Arc;

use crate::model::{ContainerStatus, PodStatus};

/// One thing that happened.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// The container, or the pod itself.
    pub id: String,
    /// The pod.
    pub pod_id: String,
    /// What happened.
    pub kind: EventKind,
    /// When, in nanoseconds since 1970.
    pub at: i64,
    /// How things stood right after it.
    pub state: Arc<State>,
}

/// A pod with its containers at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct State {
    /// The pod; after its removal as it was last.
    pub pod: PodStatus,
    /// Its containers; one that was removed just now is among them, as it was last.
    pub containers: Vec<ContainerStatus>,
}

/// Kinds of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    /// It was made.
    Created,
    /// It runs.
    Started,
    /// It ended.
    Stopped,
    /// It was removed.
    Deleted,
}
