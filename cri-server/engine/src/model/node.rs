//! What the engine says about the node.

/// One condition of the node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Condition {
    /// `RuntimeReady` or `NetworkReady`.
    pub kind: String,
    /// Whether it holds.
    pub status: bool,
    /// One word for programs; empty when it holds.
    pub reason: String,
    /// A sentence for people; empty when it holds.
    pub message: String,
}

/// A runtime handler.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HandlerInfo {
    /// Its name; empty for the default.
    pub name: String,
    /// What its containers can have.
    pub features: HandlerFeatures,
}

/// What containers of a handler can have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HandlerFeatures {
    /// Mounts that are read-only with everything below them.
    pub recursive_read_only_mounts: bool,
    /// User namespaces.
    pub user_namespaces: bool,
}
