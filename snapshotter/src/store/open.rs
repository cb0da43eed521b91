//! Opening a store: lock, read, and repair what a crash left half done.

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, OnceLock, RwLock};

use tokio::sync::Semaphore;

use super::db::{Change, Contents, Db};
use super::ingest::Ingest;
use super::lock::StoreLock;
use super::state::State;
use super::trash::Trash;
use super::{Inner, Options, Store};
use crate::digest::{DiffId, Digest};
use crate::error::{Error, IoContext};
use crate::registry::Client;

/// Opens a store.
pub(super) fn open(options: Options) -> Result<Store, Error> {
    let root = &options.root;
    let layers_path = root.join("layers");
    std::fs::create_dir_all(&layers_path).on("create", &layers_path)?;
    restrict(root)?;
    let lock = StoreLock::take(root)?;
    let layers: OwnedFd = File::open(&layers_path).on("open", &layers_path)?.into();
    let ingest = Arc::new(Ingest::open(root)?);
    let db = Db::open(&root.join("images.redb"))?;
    let contents = repair(&db, db.read()?, &layers_path)?;
    sweep(&ingest, &layers, &layers_path, &contents)?;
    let state = State::load(contents, &options.pinned, |id| {
        db.document(id).map(Option::unwrap_or_default)
    })?;
    let client = Client::new(&options)?;
    let inner = Arc::new(Inner {
        client,
        ingest,
        downloads: Arc::new(Semaphore::new(options.downloads.max(1))),
        unpacks: Arc::new(Semaphore::new(options.unpacks.max(1))),
        pulls: Mutex::new(HashMap::new()),
        flights: Mutex::new(HashMap::new()),
        db,
        layers,
        state: RwLock::new(state),
        change: Mutex::new(()),
        trash: OnceLock::new(),
        leases_stay: AtomicBool::new(false),
        _lock: lock,
        options,
    });
    let trash = Trash::start(Arc::downgrade(&inner))?;
    // The cell is new, so that it cannot be full.
    inner.trash.set(trash).ok();
    Ok(Store { inner })
}

/// Images hold files of other users, setuid programs among them: nobody but root may walk in.
fn restrict(root: &Path) -> Result<(), Error> {
    use std::os::unix::fs::PermissionsExt;
    for name in ["layers", "ingest"] {
        let path = root.join(name);
        std::fs::create_dir_all(&path).on("create", &path)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700))
            .on("restrict", &path)?;
    }
    Ok(())
}

/// Drops records whose files are gone: layers without a directory, images without a layer or a readable config, names
/// without an image.
fn repair(db: &Db, mut contents: Contents, layers_path: &Path) -> Result<Contents, Error> {
    let mut change = Change::default();
    let lost = |layer: &DiffId| !layers_path.join(layer.hex()).join("fs").is_dir();
    change.drop_layers = contents
        .layers
        .iter()
        .map(|(layer, _)| *layer)
        .filter(lost)
        .collect();
    contents
        .layers
        .retain(|(layer, _)| !change.drop_layers.contains(layer));
    let present: HashSet<DiffId> = contents.layers.iter().map(|(layer, _)| *layer).collect();
    for (id, record) in &contents.images {
        let config = db
            .document(*id)?
            .is_some_and(|bytes| Digest::of(&bytes) == *id);
        if !config || !record.layers.iter().all(|layer| present.contains(layer)) {
            tracing::warn!(image = %id, "an image is dropped, as parts of it are missing; pull it again");
            change.drop_images.push(*id);
            change.drop_documents.push(*id);
        }
    }
    contents
        .images
        .retain(|(id, _)| !change.drop_images.contains(id));
    let known: HashSet<Digest> = contents.images.iter().map(|(id, _)| *id).collect();
    change.drop_names = contents
        .names
        .iter()
        .filter(|(_, id)| !known.contains(id))
        .map(|(name, _)| name.clone())
        .collect();
    contents.names.retain(|(_, id)| known.contains(id));
    if !(change.drop_layers.is_empty()
        && change.drop_images.is_empty()
        && change.drop_names.is_empty())
    {
        db.apply(&change)?;
    }
    Ok(contents)
}

/// Deletes directories of layers that have no record: a crash came between the rename and the record.
fn sweep(
    ingest: &Arc<Ingest>,
    layers: &OwnedFd,
    layers_path: &Path,
    contents: &Contents,
) -> Result<(), Error> {
    let known: HashSet<OsString> = contents
        .layers
        .iter()
        .map(|(layer, _)| layer.hex().into())
        .collect();
    for entry in std::fs::read_dir(layers_path).on("list", layers_path)? {
        let name = entry.on("list", layers_path)?.file_name();
        if !known.contains(&name) {
            // Dropping deletes.
            drop(ingest.take(layers, &name)?);
        }
    }
    Ok(())
}
