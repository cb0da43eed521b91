//! What a registry answers instead of what was asked for.

use std::io;

use crate::error::ErrorKind;

/// A request that a registry did not fulfil. `target` is what was asked for, `host` is who was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// No connection: name resolution, connect, TLS.
    #[error("registry {host}: cannot connect: {cause}")]
    Unreachable {
        /// `host:port`.
        host: String,
        /// What failed, down to the errno.
        cause: String,
    },
    /// The connection broke, or what came over it was not HTTP.
    #[error("registry {host}: {target}: connection lost: {cause}")]
    Connection {
        /// `host:port`.
        host: String,
        /// What was asked for.
        target: String,
        /// What happened to the connection.
        cause: String,
    },
    /// Nothing arrived for too long.
    #[error("registry {host}: {target}: no byte arrived for {seconds} s")]
    Stalled {
        /// `host:port`.
        host: String,
        /// What was asked for.
        target: String,
        /// The progress timeout.
        seconds: u64,
    },
    /// 401 or 403.
    #[error("registry {host}: {target}: {reason}")]
    Unauthorized {
        /// `host:port`.
        host: String,
        /// What was asked for.
        target: String,
        /// What the registry or its token service says, and whether credentials were sent.
        reason: String,
    },
    /// 404.
    #[error("registry {host}: {target}: not found{detail}")]
    NotFound {
        /// `host:port`.
        host: String,
        /// What was asked for.
        target: String,
        /// The registry's own words, if it has any.
        detail: String,
    },
    /// Any other status.
    #[error("registry {host}: {target}: HTTP status {status}{detail}")]
    Status {
        /// `host:port`.
        host: String,
        /// What was asked for.
        target: String,
        /// The status code.
        status: u16,
        /// The registry's own words, if it has any.
        detail: String,
    },
    /// An answer that breaks the protocol: too long, a bad redirect, a malformed token.
    #[error("registry {host}: {target}: {reason}")]
    Protocol {
        /// `host:port`.
        host: String,
        /// What was asked for.
        target: String,
        /// What is wrong with the answer.
        reason: String,
    },
    /// A `hosts.toml`, or a certificate that it names, that cannot be used.
    #[error("registry configuration {path}: {reason}")]
    Config {
        /// The file.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
}

impl RegistryError {
    /// What kind of failure it is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            RegistryError::Unreachable { .. }
            | RegistryError::Connection { .. }
            | RegistryError::Stalled { .. } => ErrorKind::Unavailable,
            RegistryError::Unauthorized { .. } => ErrorKind::Unauthorized,
            RegistryError::NotFound { .. } => ErrorKind::NotFound,
            RegistryError::Status {
                status: 408 | 429 | 500..=599,
                ..
            } => ErrorKind::Unavailable,
            RegistryError::Status { .. } | RegistryError::Protocol { .. } => ErrorKind::Corrupt,
            RegistryError::Config { .. } => ErrorKind::InvalidArgument,
        }
    }
}

/// An error with all its causes: the errno is usually the innermost of four.
pub(crate) fn causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    match innermost.downcast_ref::<io::Error>() {
        Some(io) if io.raw_os_error().is_some() => sys::Error::from_io(io, "connect").to_string(),
        _ => innermost.to_string(),
    }
}
