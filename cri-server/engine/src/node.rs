//! What all pods of an engine share: configuration, paths, stores, and who is there.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File, TryLockError};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use snapshotter::{Lease, Store};
use sys::cgroup::{Cgroup, CgroupPath, Hierarchies};
use tokio::sync::{broadcast, watch};

use crate::config::Config;
use crate::error::{Error, Result};
use crate::events::Event;
use crate::handler::Handlers;
use crate::ids;
use crate::model::{ContainerConfig, PodConfig};
use crate::names::Names;
use crate::network::Network;
use crate::placement;
use crate::pod::Pod;
use crate::spec::Host;

/// How many events a slow subscriber may be behind before it loses the oldest.
const EVENTS: usize = 1024;

/// How long a lock of a daemon that just ended is waited for, and between two looks.
const PATIENCE: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(10);

/// The engine's inside.
pub(crate) struct Node {
    pub(crate) config: Config,
    pub(crate) handlers: Handlers,
    pub(crate) store: Store,
    pub(crate) network: Network,
    pub(crate) hierarchies: Hierarchies,
    pub(crate) host: Host,
    /// Pod names; requests are compared with their handler.
    pub(crate) pod_names: Names<(PodConfig, String)>,
    /// Container names; requests are compared with their pod's id.
    pub(crate) container_names: Names<(ContainerConfig, String)>,
    pub(crate) events: broadcast::Sender<Event>,
    /// Shims that ended with their pods still there.
    pub(crate) shims_lost: AtomicU64,
    pods: RwLock<BTreeMap<String, Arc<Pod>>>,
    /// Container id to pod id.
    containers: RwLock<HashMap<String, String>>,
    /// Layers of containers whose records do not load, by container id.
    held: Mutex<HashMap<String, Lease>>,
    /// Told to end: every pod's task.
    pub(crate) closing: watch::Sender<bool>,
    /// Held as long as the engine lives.
    _lock: File,
}

impl Node {
    /// Locks the run directory and opens what the engine needs.
    pub(crate) fn open(config: Config) -> Result<Self> {
        let handlers = Handlers::new(&config)?;
        make_dir(&config.run_dir)?;
        let lock = lock(&config.run_dir.join("lock"))?;
        make_dir(&config.run_dir.join("pods"))?;
        make_dir(&config.state_dir.join("pods"))?;
        for root in handlers.roots() {
            make_dir(&root)?;
        }
        let hierarchies = Hierarchies::detect().map_err(|error| Error::Cgroup {
            action: "look at the host's control groups".into(),
            source: error,
        })?;
        let host = Host::detect(&hierarchies)?;
        let store = open_store(&config)?;
        Ok(Self {
            network: Network::new(&config.network)?,
            handlers,
            store,
            hierarchies,
            host,
            pod_names: Names::new(),
            container_names: Names::new(),
            events: broadcast::channel(EVENTS).0,
            shims_lost: AtomicU64::new(0),
            pods: RwLock::default(),
            containers: RwLock::default(),
            held: Mutex::default(),
            config,
            closing: watch::channel(false).0,
            _lock: lock,
        })
    }

    // --- paths

    pub(crate) fn pods_dir(&self) -> PathBuf {
        self.config.run_dir.join("pods")
    }

    pub(crate) fn pod_dir(&self, pod: &str) -> PathBuf {
        self.pods_dir().join(pod)
    }

    pub(crate) fn bundle(&self, pod: &str, container: &str) -> PathBuf {
        self.pod_dir(pod).join(container)
    }

    /// Where a pod's writable layers are.
    pub(crate) fn writable_pod(&self, pod: &str) -> PathBuf {
        self.config.state_dir.join("pods").join(pod)
    }

    pub(crate) fn writable(&self, pod: &str, container: &str) -> PathBuf {
        self.writable_pod(pod).join(container)
    }

    /// The cgroup at the absolute `path`.
    pub(crate) fn cgroup(&self, path: &str) -> Result<Cgroup> {
        let path = CgroupPath::new(path).map_err(|error| Error::Cgroup {
            action: format!("use cgroup {path:?}"),
            source: error,
        })?;
        Ok(Cgroup::new(&self.hierarchies, &path))
    }

    // --- who is there

    pub(crate) fn add_pod(&self, pod: Arc<Pod>) {
        self.pods
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(pod.id.clone(), pod);
    }

    pub(crate) fn drop_pod(&self, id: &str) {
        self.pods
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(id);
    }

    /// Removes the cgroup of all pods when there are none. Fails where another engine's are in it: fine.
    pub(crate) fn tidy_cgroup(&self) {
        let none = self
            .pods
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .is_empty();
        let root = self
            .cgroup(placement::shared(
                self.config.cgroup_driver,
                &self.config.cgroup_root,
            ))
            .map(|cgroup| cgroup.paths())
            .unwrap_or_default();
        for dir in root.values().filter(|_| none) {
            fs::remove_dir(dir).ok();
        }
    }

    pub(crate) fn add_container(&self, id: &str, pod: &str) {
        self.containers
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(id.to_owned(), pod.to_owned());
    }

    /// Keeps layers until the container `id` is dropped.
    pub(crate) fn hold_for(&self, id: &str, lease: Lease) {
        self.held
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(id.to_owned(), lease);
    }

    pub(crate) fn drop_container(&self, id: &str) {
        let held = self
            .held
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(id);
        // Not under the lock: the last lease of a removed image deletes.
        drop(held);
        self.containers
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(id);
    }

    /// All pods.
    pub(crate) fn pods(&self) -> Vec<Arc<Pod>> {
        self.pods
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .values()
            .cloned()
            .collect()
    }

    /// The pod that `id` is, or is the beginning of.
    pub(crate) fn find_pod(&self, id: &str) -> Result<Option<Arc<Pod>>> {
        let pods = self.pods.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(pod) = pods.get(id) {
            return Ok(Some(Arc::clone(pod)));
        }
        Ok(ids::find(pods.keys(), id)?.and_then(|id| pods.get(&id).cloned()))
    }

    /// The container that `id` is, or is the beginning of, with its pod.
    pub(crate) fn find_container(&self, id: &str) -> Result<Option<(String, Arc<Pod>)>> {
        let containers = self
            .containers
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        let found = match containers.get_key_value(id) {
            Some((id, pod)) => Some((id.clone(), pod.clone())),
            None => ids::find(containers.keys(), id)?
                .and_then(|id| containers.get(&id).map(|pod| (id.clone(), pod.clone()))),
        };
        drop(containers);
        let Some((id, pod)) = found else {
            return Ok(None);
        };
        let pods = self.pods.read().unwrap_or_else(PoisonError::into_inner);
        Ok(pods.get(&pod).map(|pod| (id, Arc::clone(pod))))
    }
}

/// Makes a directory that only root may look into, with its parents.
pub(crate) fn make_dir(path: &Path) -> Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|source| Error::Io {
            action: "make directory",
            path: path.to_owned(),
            source,
        })
}

/// Removes a directory of ours with all that is in it; what is gone already is fine. Mounts that were left
/// in it are detached first: what they show is not ours to delete.
pub(crate) fn remove_dir(path: &Path) -> Result<()> {
    detach_below(path)?;
    match fs::remove_dir_all(path) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => Err(Error::Io {
            action: "remove directory",
            path: path.to_owned(),
            source,
        }),
        _ => Ok(()),
    }
}

/// Detaches every mount below `path`.
pub(crate) fn detach_below(path: &Path) -> Result<()> {
    let failed = |source| Error::Sys {
        action: format!("detach the mounts below {}", path.display()),
        source,
    };
    let table = sys::mountinfo::own().map_err(failed)?;
    for mount in table
        .iter()
        .rev()
        .filter(|mount| mount.mount_point.starts_with(path))
    {
        sys::mount::unmount_detach(&mount.mount_point).map_err(failed)?;
    }
    Ok(())
}

/// Locks a file. A daemon that just ended may have children that hold its lock until they have become
/// another program: that is waited for.
fn lock(path: &Path) -> Result<File> {
    let failed = |source| Error::Io {
        action: "lock",
        path: path.to_owned(),
        source,
    };
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .map_err(failed)?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => std::thread::sleep(PAUSE),
            Err(TryLockError::WouldBlock) => {
                return Err(Error::Locked {
                    path: path.to_owned(),
                });
            }
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
    }
}

/// Opens the image store, with the same patience.
fn open_store(config: &Config) -> Result<Store> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let options = snapshotter::Options {
            root: config.state_dir.clone(),
            hosts_dirs: config.hosts_dirs.clone(),
            progress_timeout: config.images.progress_timeout,
            pinned: config.images.pinned.clone(),
            ..snapshotter::Options::default()
        };
        match Store::open(options) {
            Ok(store) => return Ok(store),
            Err(snapshotter::Error::Locked { .. }) if Instant::now() < deadline => {
                std::thread::sleep(PAUSE)
            }
            Err(error) => {
                let action = format!("open the image store in {}", config.state_dir.display());
                return Err(crate::images::failed(action, error));
            }
        }
    }
}
