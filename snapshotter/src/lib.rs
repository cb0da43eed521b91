//! Images: names, registries, layers, overlay snapshots, and the store that keeps them.
//!
//! One pass takes a layer from the socket to the disk: socket → sha256 → inflate → sha256 (diff id) → apply. All
//! layers of an image arrive and unpack at the same time into directories of their own, which overlay mounts stack.
//! Nothing is visible before its digest was verified and its bytes were synced:
//!
//! ```text
//! <root>/lock                 held by the one process that uses the store
//! <root>/images.redb          images, names, layers
//! <root>/layers/<hex>/fs      one directory per layer, named by the digest of its archive
//! <root>/ingest/<n>/          layers being unpacked and layers being deleted; emptied at every start
//! ```
#![forbid(unsafe_code)]

mod auth;
mod compose;
mod digest;
mod error;
mod image;
mod import;
mod inflate;
mod layer;
mod manifest;
mod platform;
mod progress;
mod pull;
mod reference;
mod registry;
mod snapshot;
mod store;
mod tar;

pub use auth::Auth;
pub use digest::{DiffId, Digest};
pub use error::{Error, ErrorKind, one_line};
pub use image::{Image, ImageConfig};
pub use platform::Platform;
pub use progress::{Phase, Progress, ProgressSink};
pub use reference::Reference;
pub use registry::{RegistryError, RetryPolicy};
pub use snapshot::{
    IdMapped, IdRange, Snapshot, mount_idmapped_overlay, mount_overlay, mount_read_only,
    unmount_overlay,
};
pub use store::{GcReport, Lease, Options, PullRequest, Store, Usage};
pub use tar::{ApplyError, Limits};
