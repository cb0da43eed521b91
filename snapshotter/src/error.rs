//! What can go wrong with images, by operation; [`Error::kind`] is for programs, `Display` for people.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use crate::digest::{DiffId, Digest};
use crate::registry::RegistryError;
use crate::tar::ApplyError;

/// An operation on images that did not succeed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A text that is no digest.
    #[error("digest {text:?}: {reason}")]
    Digest {
        /// The text.
        text: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A text that names no image.
    #[error("image reference {reference:?}: {reason}")]
    Reference {
        /// The text.
        reference: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The `auth` field of credentials does not decode. The text is a secret and not shown.
    #[error("registry credentials: the auth field is not base64 of username:password")]
    AuthEncoding,
    /// More than one image begins with these hex digits.
    #[error("image {id:?}: {count} images have ids that begin like this")]
    Ambiguous {
        /// The shortened id.
        id: String,
        /// How many images it fits.
        count: usize,
    },
    /// A pull that did not succeed.
    #[error("pull {reference}")]
    Pull {
        /// The image's full name.
        reference: String,
        /// Why.
        source: Box<Error>,
    },
    /// An import that did not succeed.
    #[error("import {}", path.display())]
    Import {
        /// The archive or directory.
        path: PathBuf,
        /// Why.
        source: Box<Error>,
    },
    /// Something that an archive or layout should contain and does not, or that is malformed in it.
    #[error("{item}: {reason}")]
    Layout {
        /// The file in the archive.
        item: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A registry did not give what was asked for.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// A manifest, index or image configuration that cannot be used.
    #[error("{what} {digest}: {reason}")]
    Document {
        /// `manifest`, `index` or `image config`.
        what: &'static str,
        /// Its digest.
        digest: Digest,
        /// What is wrong with it.
        reason: String,
        /// Whether it is well-formed and merely not supported here.
        unsupported: bool,
    },
    /// No image of an index runs on the platform.
    #[error("index {digest}: no image for {platform}; it has {offered}")]
    NoPlatform {
        /// The index.
        digest: Digest,
        /// What was asked for.
        platform: String,
        /// What there is.
        offered: String,
    },
    /// Bytes that are not the ones their name promises.
    #[error("{what} {expected}: {source_name} has {actual} instead")]
    Mismatch {
        /// What was read: `layer`, `diff id of layer <digest>`, …
        what: String,
        /// The promised digest or size.
        expected: String,
        /// The one that was found.
        actual: String,
        /// Where it came from.
        source_name: String,
    },
    /// A layer could not be unpacked.
    #[error("layer {digest}")]
    Layer {
        /// The layer, by the digest in its manifest.
        digest: Digest,
        /// Why.
        source: Box<Error>,
    },
    /// The archive in a layer was refused.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// Compressed data that does not decompress.
    #[error("{format} data: {source}")]
    Inflate {
        /// `gzip` or `zstd`.
        format: &'static str,
        /// What the decoder says.
        source: io::Error,
    },
    /// A compression that is not supported here.
    #[error("layer compressed with {0}: only gzip, zstd and plain tar are supported")]
    Compression(&'static str),
    /// Another process has the store open.
    #[error("image store {}: in use by {holder}", root.display())]
    Locked {
        /// The store.
        root: PathBuf,
        /// `process 1234 (davit-cri)`, as far as known.
        holder: String,
    },
    /// The database refused an operation.
    #[error("image database: {operation}")]
    Database {
        /// What was tried.
        operation: &'static str,
        /// Why it failed.
        source: Box<redb::Error>,
    },
    /// A record in the database that does not parse.
    #[error("image database: record {key:?} of table {table:?}: {source}")]
    Record {
        /// The table.
        table: &'static str,
        /// The record's key.
        key: String,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// A stack of layers that cannot be mounted.
    #[error("overlay of {count} layers at {}: {reason}", target.display())]
    Overlay {
        /// How many layers it has.
        count: usize,
        /// Where it should appear.
        target: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A layer that an image or a caller names and that is not in the store.
    #[error("layer {0}: not in the store")]
    MissingLayer(DiffId),
    /// An operation on a file.
    #[error("{operation} {}: {source}", path.display())]
    Io {
        /// What was tried: `create`, `rename`, …
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// A system call failed.
    #[error(transparent)]
    Sys(#[from] sys::Error),
    /// An armed fail point of a test.
    #[error(transparent)]
    Injected(#[from] sys::failpoint::Injected),
    /// The error of an identical operation that ran at the same time and whose result was shared.
    #[error(transparent)]
    Shared(#[from] Arc<Error>),
    /// The operation's task ended before it had a result: the runtime is shutting down, or a bug made it panic.
    #[error("the operation was cancelled: {0}")]
    Cancelled(String),
}

/// What kind of failure it is, for programs that must react.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The image, tag or blob does not exist.
    NotFound,
    /// The registry wants other credentials.
    Unauthorized,
    /// The registry cannot be reached or does not answer properly; a later try may succeed.
    Unavailable,
    /// The name of the image is malformed.
    InvalidReference,
    /// Bytes are not what they should be: a digest differs, an archive or document is broken or hostile.
    Corrupt,
    /// The image is well-formed and uses something that is not supported here.
    Unsupported,
    /// The disk is full.
    NoSpace,
    /// The operation was given up.
    Cancelled,
    /// Another process has the store open.
    Busy,
    /// An argument other than the reference is malformed.
    InvalidArgument,
    /// Anything else between the store and its disk.
    Io,
}

impl Error {
    /// What kind of failure it is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Error::Digest { .. } | Error::Reference { .. } | Error::Ambiguous { .. } => {
                ErrorKind::InvalidReference
            }
            Error::AuthEncoding => ErrorKind::InvalidArgument,
            Error::Pull { source, .. }
            | Error::Import { source, .. }
            | Error::Layer { source, .. } => source.kind(),
            Error::Layout { .. }
            | Error::Mismatch { .. }
            | Error::Inflate { .. }
            | Error::Record { .. } => ErrorKind::Corrupt,
            Error::Registry(error) => error.kind(),
            Error::Document {
                unsupported: false, ..
            } => ErrorKind::Corrupt,
            Error::Document { .. }
            | Error::NoPlatform { .. }
            | Error::Compression(_)
            | Error::Overlay { .. } => ErrorKind::Unsupported,
            Error::Apply(error) => error.kind(),
            Error::Locked { .. } => ErrorKind::Busy,
            Error::Database { source, .. } => match source.as_ref() {
                redb::Error::Io(error) => io_kind(error),
                redb::Error::Corrupted(_) => ErrorKind::Corrupt,
                _ => ErrorKind::Io,
            },
            Error::MissingLayer(_) => ErrorKind::NotFound,
            Error::Io { source, .. } => io_kind(source),
            Error::Sys(error) => io_kind(&io::Error::from_raw_os_error(error.errno() as i32)),
            Error::Injected(_) => ErrorKind::Io,
            Error::Shared(error) => error.kind(),
            Error::Cancelled(_) => ErrorKind::Cancelled,
        }
    }
}

/// The kind of an input or output error: a full disk is told apart, as a person can do something about it.
pub(crate) fn io_kind(error: &io::Error) -> ErrorKind {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorKind::NoSpace,
        _ => ErrorKind::Io,
    }
}

/// Adds the operation and the file to an [`io::Error`].
pub(crate) trait IoContext<T> {
    /// Says what was tried on which file.
    fn on(self, operation: &'static str, path: impl Into<PathBuf>) -> Result<T, Error>;
}

impl<T> IoContext<T> for io::Result<T> {
    fn on(self, operation: &'static str, path: impl Into<PathBuf>) -> Result<T, Error> {
        self.map_err(|source| Error::Io {
            operation,
            path: path.into(),
            source,
        })
    }
}

/// The error and all its causes on one line, as a log or a status message shows it.
#[must_use]
pub fn one_line(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        // `transparent` errors repeat what their source says.
        if !line.ends_with(&text) {
            line.push_str(": ");
            line.push_str(&text);
        }
        cause = error.source();
    }
    line
}
