//! What happens to pods and containers, for whoever listens.

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The container, or the pod itself.
    pub id: String,
    /// The pod.
    pub pod_id: String,
    /// What happened.
    pub kind: EventKind,
    /// When, in nanoseconds since 1970.
    pub at: i64,
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
