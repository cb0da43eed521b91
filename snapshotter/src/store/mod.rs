//! The image store: what is on disk, who uses it, and how it comes and goes.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::auth::Auth;
use crate::digest::DiffId;
use crate::error::Error;
use crate::image::Image;
use crate::platform::Platform;
use crate::progress::ProgressSink;
use crate::registry::RetryPolicy;
use crate::tar::Limits;

/// Where a store is and how it behaves.
#[derive(Clone, Debug)]
pub struct Options {
    /// The store's directory.
    pub root: PathBuf,
    /// Directories with containerd's `<registry>/hosts.toml`; the first that has one for a registry decides.
    pub hosts_dirs: Vec<PathBuf>,
    /// How often requests to registries are repeated.
    pub retry: RetryPolicy,
    /// How long a download may stand still.
    pub progress_timeout: Duration,
    /// How many layers are downloaded at a time, over all pulls.
    pub downloads: usize,
    /// How many layers are unpacked at a time, over all pulls.
    pub unpacks: usize,
    /// What a layer may ask for.
    pub limits: Limits,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            root: "/var/lib/davit".into(),
            hosts_dirs: vec!["/etc/davit/hosts.d".into()],
            retry: RetryPolicy::default(),
            progress_timeout: Duration::from_secs(300),
            downloads: 4,
            unpacks: std::thread::available_parallelism()
                .map_or(2, usize::from)
                .max(2),
            limits: Limits::default(),
        }
    }
}

/// What to pull.
#[derive(Clone, Debug)]
pub struct PullRequest {
    /// The image's name.
    pub reference: String,
    /// Credentials for its registry.
    pub auth: Option<Auth>,
    /// Which image of an index; `None` is this machine's.
    pub platform: Option<Platform>,
}

/// What the store takes on its disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Usage {
    /// The directory that holds the layers.
    pub mountpoint: PathBuf,
    /// Bytes of all layers.
    pub used_bytes: u64,
    /// Inodes of all layers.
    pub inodes_used: u64,
}

/// What a garbage collection did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GcReport {
    /// How many layers went.
    pub layers: usize,
    /// How many bytes that freed.
    pub bytes: u64,
}

/// The image store. Cloning it is cheap; all clones are one store.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    options: Options,
}

/// Keeps layers alive while it exists.
pub struct Lease {
    _store: Store,
}

impl Store {
    /// Opens the store, and clears away whatever an earlier process left unfinished.
    ///
    /// # Errors
    /// [`Error::Locked`] where another process has it open; anything that the disk or the database refuses.
    pub fn open(options: Options) -> Result<Store, Error> {
        Ok(Store {
            inner: Arc::new(Inner { options }),
        })
    }

    /// Pulls an image and names it. Identical pulls that run at the same time share one download.
    ///
    /// # Errors
    /// See [`Error::kind`].
    pub async fn pull(&self, request: PullRequest, progress: ProgressSink) -> Result<Image, Error> {
        drop((request, progress));
        Err(Error::Cancelled("not written yet".into()))
    }

    /// Imports an OCI layout or a docker archive, as a directory or as a tar file (plain or gzip).
    ///
    /// # Errors
    /// See [`Error::kind`].
    pub async fn import(
        &self,
        path: &Path,
        reference: Option<&str>,
        progress: ProgressSink,
    ) -> Result<Vec<Image>, Error> {
        drop((path, reference, progress));
        Err(Error::Cancelled("not written yet".into()))
    }

    /// The image with this id (`sha256:…`, hex, or its beginning), tag, digest or short name.
    ///
    /// # Errors
    /// [`Error::Ambiguous`] where a shortened id fits several images.
    pub fn image(&self, reference: &str) -> Result<Option<Image>, Error> {
        drop(reference.len());
        Ok(None)
    }

    /// All images.
    ///
    /// # Errors
    /// None at present.
    pub fn images(&self) -> Result<Vec<Image>, Error> {
        Ok(vec![])
    }

    /// Removes an image with all its tags and digests. `false`: there was none. Its layers go as soon as no other
    /// image and no lease needs them.
    ///
    /// # Errors
    /// What the database refuses.
    pub fn remove(&self, reference: &str) -> Result<bool, Error> {
        drop(reference.len());
        Ok(false)
    }

    /// Keeps layers alive until the lease is dropped.
    ///
    /// # Errors
    /// [`Error::MissingLayer`] where one of them is not in the store.
    pub fn lease(&self, layers: &[DiffId]) -> Result<Lease, Error> {
        drop(layers.len());
        Ok(Lease {
            _store: self.clone(),
        })
    }

    /// Deletes every layer that no image and no lease needs.
    ///
    /// # Errors
    /// What the database or the disk refuses.
    pub fn collect_garbage(&self) -> Result<GcReport, Error> {
        Ok(GcReport::default())
    }

    /// Where a layer's files are: `<root>/layers/<hex>/fs`.
    #[must_use]
    pub fn layer_path(&self, layer: &DiffId) -> PathBuf {
        self.inner
            .options
            .root
            .join("layers")
            .join(layer.hex())
            .join("fs")
    }

    /// What the layers take on the disk, from the books: nothing is walked.
    ///
    /// # Errors
    /// What the database refuses.
    pub fn usage(&self) -> Result<Usage, Error> {
        Ok(Usage {
            mountpoint: self.inner.options.root.clone(),
            used_bytes: 0,
            inodes_used: 0,
        })
    }
}
