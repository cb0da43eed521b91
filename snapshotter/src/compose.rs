//! The stack of directories that makes an image out of its layers.
//!
//! Each layer is unpacked on its own, so that all unpack at once and one directory serves every image that has the
//! layer. An archive may lean on the layers below it, though:
//!
//! - it has `tmp/file` and no entry for `tmp`: the directory is to stay what it is below (mode 1777, say), and overlayfs
//!   would show the one made here for the file's sake;
//! - it has `lib/file` and no entry for `lib`, and below `lib` is a symbolic link to `usr/lib`: the file belongs there;
//! - it has a hard link to a file of a layer below.
//!
//! In these cases a small layer is put above it that sets things right. Its directories carry the metadata from below,
//! its files are hard links to the files of the layers, so it costs no space to speak of. It is named by the digest of
//! the stack that it stands on, and shared by all images with that stack.

mod fixup;
mod merged;

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use sys::fs::{Mode, OFlag};

use crate::digest::{DiffId, Digest};
use crate::error::{Error, IoContext};
use crate::store::{Inner, LayerRecord, Lease, Prepared};

use fixup::Fixup;
use merged::Merged;

/// A complete stack.
pub(crate) struct Composed {
    /// What an overlay stacks, bottom first.
    pub(crate) layers: Vec<DiffId>,
    /// Layers that were made for it and are not in the store yet.
    pub(crate) made: Vec<Arc<Prepared>>,
    /// Keeps those that were there already.
    pub(crate) leases: Vec<Lease>,
}

/// The stack of an image with these layers, bottom first, of which `prepared` may not be in the store yet.
pub(crate) fn compose(
    store: &Arc<Inner>,
    layers: &[DiffId],
    prepared: &[Arc<Prepared>],
) -> Result<Composed, Error> {
    let prepared: HashMap<DiffId, &Arc<Prepared>> =
        prepared.iter().map(|one| (one.id, one)).collect();
    let mut composed = Composed {
        layers: vec![],
        made: vec![],
        leases: vec![],
    };
    for layer in layers {
        let record = match prepared.get(layer) {
            Some(prepared) => prepared.record.clone(),
            None => store
                .state()
                .layers
                .get(layer)
                .cloned()
                .ok_or(Error::MissingLayer(*layer))?,
        };
        if record.opaque {
            composed.layers.clear();
        }
        let leans = !(record.implicit.is_empty() && record.links.is_empty());
        let fixup = if leans {
            lean(store, &mut composed, &prepared, *layer, &record)?
        } else {
            None
        };
        composed.layers.push(*layer);
        composed.layers.extend(fixup);
    }
    Ok(composed)
}

/// Makes what `layer` needs above it on this stack, if it needs anything, and returns its name.
fn lean(
    store: &Arc<Inner>,
    composed: &mut Composed,
    prepared: &HashMap<DiffId, &Arc<Prepared>>,
    layer: DiffId,
    record: &LayerRecord,
) -> Result<Option<DiffId>, Error> {
    let id = name(layer, &composed.layers);
    let lease = store.hold(&[id]);
    if store.has_layer(&id) {
        composed.leases.push(lease);
        return Ok(Some(id));
    }
    let open = |layer: &DiffId| {
        let made = composed.made.iter().find(|made| made.id == *layer);
        open_layer(store, prepared.get(layer).copied().or(made), layer)
    };
    let below = composed
        .layers
        .iter()
        .rev()
        .map(open)
        .collect::<Result<Vec<_>, _>>()?;
    let own = open(&layer)?;
    let dir = store.ingest.make()?;
    let made = Fixup::new(own, Merged::new(below), dir.make_fs()?)?.make(record)?;
    let Some(record) = made else { return Ok(None) };
    composed.made.push(Arc::new(Prepared::new(id, record, dir)));
    composed.leases.push(lease);
    Ok(Some(id))
}

/// The name of what stands above `layer` on the stack `below`.
fn name(layer: DiffId, below: &[DiffId]) -> DiffId {
    let mut text = format!("davit layer fixup 1\n{layer}\n");
    for layer in below {
        text.push_str(&format!("{layer}\n"));
    }
    DiffId(Digest::of(text.as_bytes()))
}

/// Opens a layer's files. Another pull may move them into the store at this very moment.
fn open_layer(
    store: &Inner,
    prepared: Option<&Arc<Prepared>>,
    layer: &DiffId,
) -> Result<OwnedFd, Error> {
    let path = prepared.map_or_else(|| store.layer_path(layer), |prepared| prepared.path(store));
    match open_dir(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            open_dir(&store.layer_path(layer)).on("open", store.layer_path(layer))
        }
        other => other.on("open", path),
    }
}

fn open_dir(path: &Path) -> std::io::Result<OwnedFd> {
    let root = sys::path::Root::open(path)?;
    Ok(root.open_at(
        Path::new("/"),
        OFlag::O_RDONLY | OFlag::O_DIRECTORY,
        Mode::empty(),
    )?)
}
