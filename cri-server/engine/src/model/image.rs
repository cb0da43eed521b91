//! Images as a front-end sees them.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// An image in the store.
#[derive(Debug, Clone, PartialEq)]
pub struct Image {
    /// The digest of its config: `sha256:…`. The same everywhere an image id is reported.
    pub id: String,
    /// Names with tags.
    pub repo_tags: Vec<String>,
    /// Names with digests.
    pub repo_digests: Vec<String>,
    /// Bytes on disk; never 0.
    pub size: u64,
    /// The user of the config when it is a number.
    pub uid: Option<i64>,
    /// The user of the config when it is a name.
    pub username: String,
    /// Labels of the config.
    pub labels: BTreeMap<String, String>,
    /// Whether garbage collectors must leave it.
    pub pinned: bool,
    /// The config as JSON text.
    pub config_json: String,
}

/// What lets one into a registry. Printing it shows no secret.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct RegistryAuth {
    /// User name.
    pub username: String,
    /// Password.
    pub password: String,
    /// `user:password` in base64, as docker's config has it.
    pub auth: String,
    /// The registry it is for; empty means whichever is asked.
    pub server_address: String,
    /// An OAuth2 refresh token.
    pub identity_token: String,
    /// A bearer token, sent as it is.
    pub registry_token: String,
}

impl fmt::Debug for RegistryAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegistryAuth")
            .field("username", &self.username)
            .field("server_address", &self.server_address)
            .finish_non_exhaustive()
    }
}

/// How far one layer is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageProgress {
    /// The layer's digest; empty for the image as a whole.
    pub layer: String,
    /// `waiting`, `downloading`, `unpacking`, `done` or `exists`.
    pub phase: String,
    /// Bytes done.
    pub current: u64,
    /// Bytes in all; 0 when unknown.
    pub total: u64,
}

/// Where progress goes. Called often, and must not block.
pub type ProgressSink = Arc<dyn Fn(ImageProgress) + Send + Sync>;

/// How full the image store's file system is with images.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FsUsage {
    /// When it was measured, in nanoseconds since 1970.
    pub timestamp: i64,
    /// The directory that names the file system.
    pub mountpoint: String,
    /// Bytes used.
    pub used_bytes: u64,
    /// Inodes used.
    pub inodes_used: u64,
}
