//! Why a layer archive was refused, or could not be written.

use std::io;

use crate::error::{ErrorKind, io_kind};

/// A layer archive that cannot be applied.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ApplyError {
    /// The archive is damaged: a bad checksum, a broken header, an early end.
    #[error("tar archive: after entry {entry:?}: {reason}")]
    Malformed {
        /// The last entry that was fine.
        entry: String,
        /// What is wrong with the next one.
        reason: String,
    },
    /// An entry that no honest archive has, or that goes beyond a limit.
    #[error("tar entry {entry:?}: {reason}")]
    Refused {
        /// The entry's path.
        entry: String,
        /// Why it is refused.
        reason: String,
    },
    /// An entry that is well-formed and of a kind that is not supported.
    #[error("tar entry {entry:?}: {reason}")]
    Unsupported {
        /// The entry's path.
        entry: String,
        /// What is not supported.
        reason: String,
    },
    /// The file system refused an entry.
    #[error("tar entry {entry:?}")]
    Write {
        /// The entry's path.
        entry: String,
        /// The system call that failed.
        source: sys::Error,
    },
    /// The archive could not be read any further.
    #[error("read tar archive")]
    Read {
        /// Why.
        source: io::Error,
    },
}

impl ApplyError {
    /// What kind of failure it is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            ApplyError::Malformed { .. } | ApplyError::Refused { .. } => ErrorKind::Corrupt,
            ApplyError::Unsupported { .. } => ErrorKind::Unsupported,
            ApplyError::Write { source, .. } => {
                io_kind(&io::Error::from_raw_os_error(source.errno() as i32))
            }
            ApplyError::Read { source } => io_kind(source),
        }
    }
}
