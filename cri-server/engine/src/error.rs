//! The engine's one error type: each variant names an operation with its operands.
//!
//! `Display` says what the variant knows and never repeats its source; [`Error::report`] joins the chain
//! into the one line a person reads. [`Error::kind`] is what a front-end maps to its own codes.

use std::error::Error as StdError;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// The result of an engine operation.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error for programs: what kind of thing went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The named pod, container or image does not exist.
    NotFound,
    /// The request itself is wrong.
    InvalidArgument,
    /// The name is taken.
    AlreadyExists,
    /// The pod or container is not in the state that the operation needs.
    FailedPrecondition,
    /// Something that may come back is away: a registry, a shim, the daemon while it closes.
    Unavailable,
    /// It took longer than the caller allowed.
    DeadlineExceeded,
    /// A registry wants other credentials.
    Unauthenticated,
    /// A disk, a pool of addresses or a limit is full.
    ResourceExhausted,
    /// The request uses what the engine cannot do yet; the message names the field.
    Unsupported,
    /// Something failed on the node.
    Internal,
    /// A failure that a kubelet knows by the name at the beginning of its message.
    Named,
}

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No pod has this id.
    #[error("pod {id:?} does not exist")]
    PodNotFound {
        /// The id as asked.
        id: String,
    },
    /// No container has this id.
    #[error("container {id:?} does not exist")]
    ContainerNotFound {
        /// The id as asked.
        id: String,
    },
    /// No image answers to this reference.
    #[error("image {reference:?} is not on this node: pull or import it first")]
    ImageNotFound {
        /// The reference as asked.
        reference: String,
    },
    /// Several ids begin like this.
    #[error("id {prefix:?} is ambiguous: {count} ids begin with it")]
    AmbiguousId {
        /// The beginning.
        prefix: String,
        /// How many match.
        count: usize,
    },
    /// The name belongs to another pod or container.
    #[error("name {name:?} is reserved for {owner:?}")]
    NameReserved {
        /// The name.
        name: String,
        /// The id that has it.
        owner: String,
    },
    /// A field of the request is wrong.
    #[error("{field}: {problem}")]
    Invalid {
        /// The field, as CRI spells it.
        field: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A field of the request asks for what is not there yet.
    #[error("{field}: {detail}: not supported yet")]
    Unsupported {
        /// The field, as CRI spells it.
        field: String,
        /// What was asked for.
        detail: String,
    },
    /// The handler is not in the configuration.
    #[error("runtime handler {name:?} is not configured; known are {known}")]
    UnknownHandler {
        /// The name.
        name: String,
        /// The names that are configured.
        known: String,
    },
    /// The pod is not READY.
    #[error("pod {id} is not READY: {why}")]
    PodNotReady {
        /// The pod.
        id: String,
        /// Why.
        why: String,
    },
    /// The container is not in the state that the operation needs.
    #[error("container {id} is {state}: it must be {wanted}")]
    ContainerState {
        /// The container.
        id: String,
        /// Its state.
        state: &'static str,
        /// The state that is needed.
        wanted: &'static str,
    },
    /// A command in a container ran too long and was killed with everything it started.
    #[error("command {command:?} in container {id} ran longer than {timeout:?} and was killed")]
    ExecTimeout {
        /// The container.
        id: String,
        /// The command's first word.
        command: String,
        /// The limit.
        timeout: Duration,
    },
    /// Nothing listens on a port of a pod.
    #[error("connect to localhost:{port} in pod {pod}: {text}")]
    Connect {
        /// The pod.
        pod: String,
        /// The port.
        port: u16,
        /// What the kernel says, for each address.
        text: String,
    },
    /// The container lives on after SIGKILL.
    #[error(
        "container {id} is still alive {waited:?} after SIGKILL; a process in uninterruptible sleep (state D in ps) does that"
    )]
    StillAlive {
        /// The container.
        id: String,
        /// How long it was waited for.
        waited: Duration,
    },
    /// The pod's task ended while the operation was on its way.
    #[error("pod {id} was removed meanwhile")]
    PodGone {
        /// The pod.
        id: String,
    },
    /// The daemon shuts down and leaves the pod as it is.
    #[error("davit-cri is shutting down and leaves pod {id} as it is; ask again when it is back")]
    Closing {
        /// The pod.
        id: String,
    },
    /// Another daemon uses the directory.
    #[error("{path} is locked: another davit-cri uses this run directory", path = .path.display())]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// A file operation.
    #[error("{action} {path}", path = .path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// With which file.
        path: PathBuf,
        /// Why it did not work.
        #[source]
        source: io::Error,
    },
    /// A record on disk does not load.
    #[error("record {path}", path = .path.display())]
    Record {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<dyn StdError + Send + Sync>,
    },
    /// A system call.
    #[error("{action}")]
    Sys {
        /// What it was for.
        action: String,
        /// The call.
        #[source]
        source: sys::Error,
    },
    /// A control group.
    #[error("{action}")]
    Cgroup {
        /// What it was for.
        action: String,
        /// What the kernel refused.
        #[source]
        source: sys::cgroup::Error,
    },
    /// The pod's shim said no, or nothing.
    #[error("{action}")]
    Shim {
        /// What was asked.
        action: String,
        /// Which kind of refusal.
        kind: Kind,
        /// The shim's words.
        #[source]
        source: Box<dyn StdError + Send + Sync>,
    },
    /// A network plugin.
    #[error("{action}")]
    Network {
        /// What was asked.
        action: String,
        /// The plugin's words.
        #[source]
        source: Box<dyn StdError + Send + Sync>,
    },
    /// The image store.
    #[error("{action}")]
    Images {
        /// What was asked.
        action: String,
        /// Which kind of refusal.
        kind: Kind,
        /// The store's words.
        #[source]
        source: Box<dyn StdError + Send + Sync>,
    },
    /// An operation failed, and so did some of the steps that undo it.
    #[error("{}; then the clean-up failed: {cleanup}", cause.report())]
    Cleanup {
        /// What failed first.
        cause: Box<Error>,
        /// What failed while cleaning up.
        cleanup: String,
    },
    /// A failure that a kubelet knows by its name (cri-api, `pkg/errors`).
    #[error("{name}: {detail}")]
    Named {
        /// `ImageVolumeMountFailed`, `RROUnsupported`.
        name: &'static str,
        /// What happened.
        detail: String,
    },
    /// A fail point that a test armed.
    #[error(transparent)]
    Injected(#[from] sys::failpoint::Injected),
    /// The result of an operation that several callers wait for.
    #[error(transparent)]
    Shared(#[from] Arc<Error>),
    /// A bug or a broken promise of the host.
    #[error("{0}")]
    Internal(String),
}

impl Error {
    /// What kind of thing went wrong.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::PodNotFound { .. }
            | Self::ContainerNotFound { .. }
            | Self::ImageNotFound { .. } => Kind::NotFound,
            Self::AmbiguousId { .. } | Self::Invalid { .. } | Self::UnknownHandler { .. } => {
                Kind::InvalidArgument
            }
            Self::NameReserved { .. } => Kind::AlreadyExists,
            Self::PodNotReady { .. } | Self::ContainerState { .. } | Self::Locked { .. } => {
                Kind::FailedPrecondition
            }
            Self::PodGone { .. } => Kind::NotFound,
            Self::Connect { .. } => Kind::Unavailable,
            Self::Closing { .. } => Kind::Unavailable,
            Self::Unsupported { .. } => Kind::Unsupported,
            Self::ExecTimeout { .. } | Self::StillAlive { .. } => Kind::DeadlineExceeded,
            Self::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                Kind::ResourceExhausted
            }
            Self::Named { .. } => Kind::Named,
            Self::Shim { kind, .. } | Self::Images { kind, .. } => *kind,
            Self::Cleanup { cause, .. } => cause.kind(),
            Self::Shared(inner) => inner.kind(),
            Self::Io { .. }
            | Self::Record { .. }
            | Self::Sys { .. }
            | Self::Cgroup { .. }
            | Self::Network { .. }
            | Self::Injected(_)
            | Self::Internal(_) => Kind::Internal,
        }
    }

    /// The whole chain of causes in one line.
    #[must_use]
    pub fn report(&self) -> String {
        let mut line = self.to_string();
        let mut next = StdError::source(self);
        while let Some(cause) = next {
            let words = cause.to_string();
            if !line.ends_with(&words) {
                line.push_str(": ");
                line.push_str(&words);
            }
            next = cause.source();
        }
        line
    }

    /// A wrong field.
    pub(crate) fn invalid(field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Invalid {
            field: field.into(),
            problem: problem.into(),
        }
    }

    /// A field that is not supported yet.
    pub(crate) fn unsupported(field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::Unsupported {
            field: field.into(),
            detail: detail.into(),
        }
    }
}
