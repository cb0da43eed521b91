//! The image store: what is on disk, who uses it, and how it comes and goes.

mod commit;
mod db;
mod ingest;
mod lock;
mod open;
mod state;
mod trash;

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{
    Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
};
use std::time::Duration;

use tokio::sync::Semaphore;

use crate::auth::Auth;
use crate::digest::{DiffId, Digest};
use crate::error::Error;
use crate::image::Image;
use crate::platform::Platform;
use crate::progress::ProgressSink;
use crate::pull::{LayerFlight, PullFlight, PullKey};
use crate::registry::{Client, RetryPolicy};
use crate::tar::Limits;

pub(crate) use commit::{NewImage, Prepared};
pub(crate) use db::LayerRecord;
pub(crate) use ingest::Ingest;
pub(crate) use state::stored_name;

use db::Db;
use lock::StoreLock;
use state::State;
use trash::Trash;

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
    /// Names of images that are reported as pinned. What is no name is left out.
    pub pinned: Vec<String>,
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
            pinned: vec![],
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
///
/// **Layers.** A layer is unpacked without looking at the ones below it, so that all of them unpack at the same time.
/// Where an archive leaves to its parents what a directory is like, or hard-links to a file of theirs, a small layer
/// is made above it that says so; see the module `compose`.
#[derive(Clone)]
pub struct Store {
    pub(crate) inner: Arc<Inner>,
}

/// What all clones of a [`Store`] share.
pub(crate) struct Inner {
    pub(crate) options: Options,
    pub(crate) client: Client,
    pub(crate) ingest: Arc<Ingest>,
    pub(crate) downloads: Arc<Semaphore>,
    pub(crate) unpacks: Arc<Semaphore>,
    /// Pulls under way, by what they pull and for whom.
    pub(crate) pulls: Mutex<HashMap<PullKey, PullFlight>>,
    /// Layers under way, by what they are and for whom.
    pub(crate) flights: Mutex<HashMap<(DiffId, u64), LayerFlight>>,
    db: Db,
    /// `<root>/layers`.
    layers: OwnedFd,
    state: RwLock<State>,
    /// Held by whoever changes the database, over all of its steps.
    change: Mutex<()>,
    trash: OnceLock<Trash>,
    /// Leases that end from now on end nothing.
    leases_stay: AtomicBool,
    /// Released last.
    _lock: StoreLock,
}

/// Keeps layers alive while it exists.
pub struct Lease {
    store: Arc<Inner>,
    layers: Vec<DiffId>,
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.store.release(&self.layers);
    }
}

impl std::fmt::Debug for Lease {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lease")
            .field("layers", &self.layers)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store")
            .field("root", &self.inner.options.root)
            .finish_non_exhaustive()
    }
}

// === impl Store ===

impl Store {
    /// Opens the store, and clears away whatever an earlier process left unfinished.
    ///
    /// # Errors
    /// [`Error::Locked`] where another process has it open; anything that the disk or the database refuses.
    pub fn open(options: Options) -> Result<Store, Error> {
        open::open(options)
    }

    /// Pulls an image and names it. Identical pulls that run at the same time share one download.
    ///
    /// The pull goes on where the caller goes away: an identical later call adopts it.
    ///
    /// # Errors
    /// See [`Error::kind`].
    pub async fn pull(&self, request: PullRequest, progress: ProgressSink) -> Result<Image, Error> {
        crate::pull::pull(&self.inner, request, progress).await
    }

    /// Imports an OCI layout or a docker archive, as a directory or as a tar file (plain, gzip or zstd).
    ///
    /// Its images get the names that are in it, or `reference` where it holds one image only.
    ///
    /// # Errors
    /// See [`Error::kind`].
    pub async fn import(
        &self,
        path: &Path,
        reference: Option<&str>,
        progress: ProgressSink,
    ) -> Result<Vec<Image>, Error> {
        crate::import::import(&self.inner, path, reference, progress).await
    }

    /// The image with this id (`sha256:…`, hex, or its beginning), tag, digest or short name.
    ///
    /// # Errors
    /// [`Error::Ambiguous`] where a shortened id fits several images.
    pub fn image(&self, reference: &str) -> Result<Option<Image>, Error> {
        Ok(self
            .inner
            .state()
            .find(reference)?
            .map(|entry| Image::clone(&entry.image)))
    }

    /// All images.
    ///
    /// # Errors
    /// None at present.
    pub fn images(&self) -> Result<Vec<Image>, Error> {
        Ok(self
            .inner
            .state()
            .images
            .values()
            .map(|entry| Image::clone(&entry.image))
            .collect())
    }

    /// Removes an image with all its tags and digests. `false`: there was none. Its layers go as soon as no other
    /// image and no lease needs them.
    ///
    /// # Errors
    /// What the database refuses.
    pub fn remove(&self, reference: &str) -> Result<bool, Error> {
        self.inner.remove(reference)
    }

    /// Keeps layers alive until the lease is dropped.
    ///
    /// # Errors
    /// [`Error::MissingLayer`] where one of them is not in the store.
    pub fn lease(&self, layers: &[DiffId]) -> Result<Lease, Error> {
        let lease = self.inner.hold(layers);
        let missing = layers.iter().find(|layer| !self.inner.has_layer(layer));
        missing.map_or(Ok(lease), |layer| Err(Error::MissingLayer(*layer)))
    }

    /// Leases that end after this end nothing: what they were for outlives this process, and the next one takes them anew.
    pub fn keep_leases(&self) {
        self.inner.leases_stay.store(true, Ordering::SeqCst);
    }

    /// Deletes every layer that no image and no lease needs, and waits until it is gone from the disk.
    ///
    /// # Errors
    /// What the database or the disk refuses.
    pub fn collect_garbage(&self) -> Result<GcReport, Error> {
        let report = self.inner.collect()?;
        self.inner.trash()?.wait();
        Ok(report)
    }

    /// Where a layer's files are: `<root>/layers/<hex>/fs`.
    #[must_use]
    pub fn layer_path(&self, layer: &DiffId) -> PathBuf {
        self.inner.layer_path(layer)
    }

    /// What the layers take on the disk, from the books: nothing is walked.
    ///
    /// # Errors
    /// None at present.
    pub fn usage(&self) -> Result<Usage, Error> {
        let state = self.inner.state();
        let mountpoint = self.inner.options.root.join("layers");
        Ok(Usage {
            mountpoint,
            used_bytes: state.bytes,
            inodes_used: state.inodes,
        })
    }

    /// A manifest or index that an image came from, as published.
    ///
    /// # Errors
    /// What the database refuses.
    pub fn document(&self, digest: Digest) -> Result<Option<Vec<u8>>, Error> {
        self.inner.db.document(digest)
    }
}

// === impl Inner ===

impl Inner {
    // A panic in another thread leaves the state as that thread had it before: each change is one step.
    pub(crate) fn state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn state_mut(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn changing(&self) -> MutexGuard<'_, ()> {
        self.change.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn has_layer(&self, layer: &DiffId) -> bool {
        self.state().layers.contains_key(layer)
    }

    /// Whether a layer's archive describes the root directory.
    pub(crate) fn describes_root(&self, layer: &DiffId) -> bool {
        self.state()
            .layers
            .get(layer)
            .is_some_and(|record| record.root)
    }

    pub(crate) fn layer_path(&self, layer: &DiffId) -> PathBuf {
        self.options
            .root
            .join("layers")
            .join(layer.hex())
            .join("fs")
    }

    fn trash(self: &Inner) -> Result<&Trash, Error> {
        self.trash
            .get()
            .ok_or_else(|| Error::Cancelled("the store is closing".into()))
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Some(trash) = self.trash.get() {
            trash.stop();
        }
    }
}
