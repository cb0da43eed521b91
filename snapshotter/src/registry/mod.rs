//! The registry client: the pull side of the OCI distribution protocol.
//!
//! <https://github.com/opencontainers/distribution-spec/blob/main/spec.md#pull>

mod blob;
mod challenge;
mod error;
mod hosts;
mod proxy;
mod request;
mod retry;
mod retry_after;
mod source;
mod token;
mod transport;

pub(crate) use blob::Downloaded;
pub use error::RegistryError;
pub use retry::RetryPolicy;
pub(crate) use source::{Client, Document, MAX_DOCUMENT, Source};

/// What this client calls itself.
const AGENT: &str = concat!("davit/", env!("CARGO_PKG_VERSION"));
