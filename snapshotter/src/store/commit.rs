//! Bringing images into the store and out of it. One change at a time; lists and lookups never wait for one.

use std::ffi::OsString;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use super::Inner;
use super::db::{Change, ImageRecord, LayerRecord};
use super::ingest::IngestDir;
use super::state::State;
use super::trash::Job;
use super::{GcReport, Lease};
use crate::digest::{DiffId, Digest};
use crate::error::Error;
use crate::image::Image;

/// A layer that was unpacked and verified. Several pulls may share one.
pub(crate) struct Prepared {
    pub(crate) id: DiffId,
    pub(crate) record: LayerRecord,
    /// Its directory, until one of the pulls has moved it into the store.
    dir: Mutex<Option<IngestDir>>,
}

impl Prepared {
    pub(crate) fn new(id: DiffId, record: LayerRecord, dir: IngestDir) -> Prepared {
        Prepared {
            id,
            record,
            dir: Mutex::new(Some(dir)),
        }
    }

    /// Its files, wherever they are at the moment.
    pub(crate) fn path(&self, store: &Inner) -> std::path::PathBuf {
        let dir = self.dir.lock().unwrap_or_else(PoisonError::into_inner);
        dir.as_ref()
            .map_or_else(|| store.layer_path(&self.id), |dir| dir.path().join("fs"))
    }
}

/// An image that is complete but for its record.
pub(crate) struct NewImage {
    pub(crate) id: Digest,
    /// The configuration as published.
    pub(crate) config: Vec<u8>,
    /// What an overlay of it stacks, bottom first.
    pub(crate) layers: Vec<DiffId>,
    /// Those of them that may not be in the store yet.
    pub(crate) prepared: Vec<Arc<Prepared>>,
    /// The manifests and indexes that led here.
    pub(crate) documents: Vec<(Digest, Vec<u8>)>,
    /// Tags and digest references that point here from now on.
    pub(crate) names: Vec<String>,
}

/// Layers moved into the store, to be moved back if the record cannot be written.
struct Moved<'a> {
    store: &'a Inner,
    layers: Vec<(Arc<Prepared>, IngestDir)>,
}

impl Moved<'_> {
    fn name(id: &DiffId) -> OsString {
        id.hex().into()
    }

    /// The record is written: the directories stay.
    fn keep(mut self) -> Vec<Arc<Prepared>> {
        std::mem::take(&mut self.layers)
            .into_iter()
            .map(|(prepared, _dir)| prepared)
            .collect()
    }
}

impl Drop for Moved<'_> {
    fn drop(&mut self) {
        for (prepared, mut dir) in self.layers.drain(..) {
            match dir.move_back(&self.store.layers, &Moved::name(&prepared.id)) {
                Ok(()) => *prepared.dir.lock().unwrap_or_else(PoisonError::into_inner) = Some(dir),
                // It has no record, so the next start removes it.
                Err(error) => {
                    tracing::warn!(layer = %prepared.id, error = crate::one_line(&error), "a layer without a record stays behind")
                }
            }
        }
    }
}

impl Inner {
    /// Makes a complete image visible: sync once, rename, record.
    pub(crate) fn commit(&self, new: NewImage) -> Result<Image, Error> {
        let _one_at_a_time = self.changing();
        let missing: Vec<Arc<Prepared>> = {
            let state = self.state();
            new.prepared
                .iter()
                .filter(|prepared| !state.layers.contains_key(&prepared.id))
                .cloned()
                .collect()
        };
        if !missing.is_empty() {
            self.ingest.sync()?;
        }
        sys::failpoint::hit("pull.synced")?;
        let moved = self.move_in(missing)?;
        sys::failpoint::hit("pull.renamed")?;
        let record = self.record_of(&new, &moved)?;
        let change = Change {
            put_images: vec![(new.id, &record)],
            put_names: new
                .names
                .iter()
                .map(|name| (name.as_str(), new.id))
                .collect(),
            put_layers: moved
                .layers
                .iter()
                .map(|(prepared, _)| (prepared.id, &prepared.record))
                .collect(),
            put_documents: std::iter::once((new.id, new.config.as_slice()))
                .chain(
                    new.documents
                        .iter()
                        .map(|(digest, bytes)| (*digest, bytes.as_slice())),
                )
                .collect(),
            ..Change::default()
        };
        self.db.apply(&change)?;
        let layers = moved.keep();
        let mut state = self.state_mut();
        for prepared in layers {
            state.put_layer(prepared.id, prepared.record.clone());
        }
        state.put_image(new.id, record, new.config)?;
        for name in new.names {
            // A tag that pointed elsewhere moves.
            state.names.insert(name, new.id);
        }
        state.rename_all();
        let image = state
            .images
            .get(&new.id)
            .map(|entry| Image::clone(&entry.image));
        drop(state);
        sys::failpoint::hit("pull.recorded")?;
        image.ok_or_else(|| Error::Cancelled("the image was removed at once".into()))
    }

    /// Renames new layers to their final names.
    fn move_in(&self, missing: Vec<Arc<Prepared>>) -> Result<Moved<'_>, Error> {
        let mut moved = Moved {
            store: self,
            layers: vec![],
        };
        for prepared in missing {
            let dir = prepared
                .dir
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take();
            // The same layer twice in one image.
            let Some(mut dir) = dir else { continue };
            let name = Moved::name(&prepared.id);
            // Without a record it is no layer: what a failed move back left behind.
            drop(self.ingest.take(&self.layers, &name)?);
            match dir.move_to(&self.layers, &name) {
                Ok(()) => moved.layers.push((prepared, dir)),
                Err(error) => {
                    *prepared.dir.lock().unwrap_or_else(PoisonError::into_inner) = Some(dir);
                    return Err(error);
                }
            }
        }
        if !moved.layers.is_empty() {
            sys::fs::fsync(&self.layers)?;
        }
        Ok(moved)
    }

    /// The record of a new image; every layer of it must be there by now.
    fn record_of(&self, new: &NewImage, moved: &Moved<'_>) -> Result<ImageRecord, Error> {
        let state = self.state();
        let mut size = new.config.len() as u64;
        for layer in &new.layers {
            let fresh = moved
                .layers
                .iter()
                .find(|(prepared, _)| prepared.id == *layer)
                .map(|(prepared, _)| &prepared.record);
            let record = fresh
                .or_else(|| state.layers.get(layer))
                .ok_or(Error::MissingLayer(*layer))?;
            size += record.bytes;
        }
        let mut documents: Vec<Digest> = new.documents.iter().map(|(digest, _)| *digest).collect();
        let before = state.images.get(&new.id);
        documents.extend(
            before
                .into_iter()
                .flat_map(|entry| entry.record.documents.iter().copied()),
        );
        documents.sort();
        documents.dedup();
        let pinned = before.is_some_and(|entry| entry.record.pinned);
        Ok(ImageRecord {
            layers: new.layers.clone(),
            size,
            documents,
            pinned,
        })
    }

    /// Removes an image with all its names, and layers that nothing needs any more.
    pub(crate) fn remove(&self, reference: &str) -> Result<bool, Error> {
        let _one_at_a_time = self.changing();
        let (removal, layers) = {
            let mut state = self.state_mut();
            let Some(removal) = state.for_removal(reference)? else {
                return Ok(false);
            };
            let layers = state.detach(&removal.layers);
            (removal, layers)
        };
        let change = Change {
            drop_images: vec![removal.id],
            drop_names: removal.names.clone(),
            drop_layers: removal.layers,
            drop_documents: removal.documents,
            ..Change::default()
        };
        self.forget(&change, layers)?;
        {
            let mut state = self.state_mut();
            state.images.remove(&removal.id);
            for name in &removal.names {
                state.names.remove(name);
            }
        }
        self.throw_away(&change.drop_layers)?;
        Ok(true)
    }

    /// Deletes every layer that neither an image nor a lease needs.
    pub(crate) fn collect(&self) -> Result<GcReport, Error> {
        let _one_at_a_time = self.changing();
        let (unused, layers) = {
            let mut state = self.state_mut();
            let unused = state.unused();
            let layers = state.detach(&unused);
            (unused, layers)
        };
        if unused.is_empty() {
            return Ok(GcReport::default());
        }
        let report = GcReport {
            layers: layers.len(),
            bytes: layers.iter().map(|(_, record)| record.bytes).sum(),
        };
        let change = Change {
            drop_layers: unused,
            ..Change::default()
        };
        self.forget(&change, layers)?;
        self.throw_away(&change.drop_layers)?;
        Ok(report)
    }

    /// Records that layers are gone; if that fails they are back.
    ///
    /// They leave the memory first: a pull that begins meanwhile must not count on them.
    fn forget(&self, change: &Change<'_>, layers: Vec<(DiffId, LayerRecord)>) -> Result<(), Error> {
        let result = self.db.apply(change);
        if result.is_err() {
            let mut state = self.state_mut();
            for (layer, record) in layers {
                state.put_layer(layer, record);
            }
        }
        result
    }

    /// Takes layers without a record out of sight and has them deleted.
    fn throw_away(&self, layers: &[DiffId]) -> Result<(), Error> {
        let mut directories = Vec::with_capacity(layers.len());
        for layer in layers {
            directories.extend(self.ingest.take(&self.layers, &Moved::name(layer))?);
        }
        if !directories.is_empty() {
            self.trash()?.add(Job::Delete(directories));
        }
        Ok(())
    }

    /// Counts a use of layers, whether they are there yet or not.
    pub(crate) fn hold(self: &Arc<Inner>, layers: &[DiffId]) -> Lease {
        let mut state = self.state_mut();
        for layer in layers {
            *state.leases.entry(*layer).or_default() += 1;
        }
        Lease {
            store: self.clone(),
            layers: layers.to_vec(),
        }
    }

    /// Ends a use. Layers that nothing needs any more are deleted in the background.
    pub(crate) fn release(&self, layers: &[DiffId]) {
        if self.leases_stay.load(Ordering::SeqCst) {
            return;
        }
        let unused = {
            let mut state = self.state_mut();
            for layer in layers {
                if let Some(count) = state.leases.get_mut(layer) {
                    *count -= 1;
                    if *count == 0 {
                        state.leases.remove(layer);
                    }
                }
            }
            let unused = state.unused();
            layers.iter().any(|layer| unused.contains(layer))
        };
        if unused && let Ok(trash) = self.trash() {
            trash.add(Job::Collect);
        }
    }
}

/// Everything that goes when an image goes.
pub(crate) struct Removal {
    id: Digest,
    names: Vec<String>,
    layers: Vec<DiffId>,
    documents: Vec<Digest>,
}

impl State {
    /// Takes layers out of the state.
    fn detach(&mut self, layers: &[DiffId]) -> Vec<(DiffId, LayerRecord)> {
        layers
            .iter()
            .filter_map(|layer| Some((*layer, self.drop_layer(layer)?)))
            .collect()
    }

    /// What removing the image called `reference` takes away.
    fn for_removal(&self, reference: &str) -> Result<Option<Removal>, Error> {
        let Some(entry) = self.find(reference)? else {
            return Ok(None);
        };
        let id = entry.image.id;
        let names = self
            .names
            .iter()
            .filter(|(_, named)| **named == id)
            .map(|(name, _)| name.clone())
            .collect();
        let others = || {
            self.images
                .iter()
                .filter(|(other, _)| **other != id)
                .map(|(_, entry)| &entry.record)
        };
        let mut layers: Vec<DiffId> = entry.record.layers.clone();
        layers.sort();
        layers.dedup();
        layers.retain(|layer| {
            !self.leases.contains_key(layer)
                && !others().any(|record| record.layers.contains(layer))
        });
        let documents = entry
            .record
            .documents
            .iter()
            .filter(|digest| !others().any(|record| record.documents.contains(digest)));
        let documents = documents.copied().chain([id]).collect();
        Ok(Some(Removal {
            id,
            names,
            layers,
            documents,
        }))
    }
}
