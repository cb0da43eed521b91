//! Import of images from files: OCI image layouts and what `docker save` writes, as directories or archives.
//!
//! <https://github.com/opencontainers/image-spec/blob/main/image-layout.md>

mod archive;
mod docker;
mod layout;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use archive::Files;

use crate::compose;
use crate::digest::{DiffId, Digest};
use crate::error::Error;
use crate::image::Image;
use crate::layer::Expected;
use crate::progress::{Phase, ProgressSink};
use crate::pull::layer::prepare;
use crate::reference::Reference;
use crate::store::{Inner, NewImage, Prepared, stored_name};

/// An image found in an archive or a directory.
struct Found {
    id: Digest,
    config: Vec<u8>,
    /// Bottom first.
    layers: Vec<FoundLayer>,
    documents: Vec<(Digest, Vec<u8>)>,
    /// The digest that names with a digest get, where there is a manifest.
    top: Option<Digest>,
    /// The names that the archive gives it.
    names: Vec<String>,
}

/// A layer of it.
struct FoundLayer {
    /// Its file in the archive.
    file: String,
    /// The digest and size of that file, where something promises them.
    blob: Option<(Digest, u64)>,
    diff_id: DiffId,
}

/// Imports everything in `path`.
pub(crate) async fn import(
    store: &Arc<Inner>,
    path: &Path,
    reference: Option<&str>,
    progress: ProgressSink,
) -> Result<Vec<Image>, Error> {
    let reference = reference.map(str::parse::<Reference>).transpose()?;
    let import = Import {
        store: store.clone(),
        path: path.to_owned(),
        reference,
        progress,
    };
    let path = path.to_owned();
    let result = tokio::task::spawn_blocking(move || import.run()).await;
    result
        .map_err(|error| Error::Cancelled(error.to_string()))?
        .map_err(|source| Error::Import {
            path,
            source: Box::new(source),
        })
}

struct Import {
    store: Arc<Inner>,
    path: PathBuf,
    reference: Option<Reference>,
    progress: ProgressSink,
}

impl Import {
    fn run(self) -> Result<Vec<Image>, Error> {
        let files = Files::open(&self.store, &self.path)?;
        let mut found = if files.exists("index.json") {
            layout::find(&files)?
        } else if files.exists("manifest.json") {
            docker::find(&files)?
        } else {
            let reason =
                "it has neither index.json (OCI layout) nor manifest.json (docker archive)"
                    .to_owned();
            return Err(Error::Layout {
                item: self.path.display().to_string(),
                reason,
            });
        };
        if let Some(reference) = &self.reference {
            let [only] = found.as_mut_slice() else {
                let reason = format!(
                    "it holds {} images, and one name was given for them",
                    found.len()
                );
                return Err(Error::Layout {
                    item: self.path.display().to_string(),
                    reason,
                });
            };
            only.names = vec![reference.to_string()];
        }
        found
            .into_iter()
            .map(|found| self.image(&files, found))
            .collect()
    }

    /// Unpacks one image and makes it visible.
    fn image(&self, files: &Files, found: Found) -> Result<Image, Error> {
        let diff_ids: Vec<DiffId> = found.layers.iter().map(|layer| layer.diff_id).collect();
        let lease = self.store.hold(&diff_ids);
        let prepared = self.layers(files, &found.layers)?;
        let compose::Composed {
            layers,
            made,
            leases,
        } = compose::compose(&self.store, &diff_ids, &prepared)?;
        let names = full_names(&found)?;
        let Found {
            id,
            config,
            documents,
            ..
        } = found;
        let prepared = prepared.into_iter().chain(made).collect();
        let image = self.store.commit(NewImage {
            id,
            config,
            layers,
            prepared,
            documents,
            names,
        });
        drop((lease, leases));
        image
    }

    /// Unpacks the layers that are not there yet, as many at a time as the store allows.
    fn layers(&self, files: &Files, layers: &[FoundLayer]) -> Result<Vec<Arc<Prepared>>, Error> {
        let mut seen = HashSet::new();
        let missing: Vec<&FoundLayer> = layers
            .iter()
            .filter(|layer| seen.insert(layer.diff_id) && !self.store.has_layer(&layer.diff_id))
            .collect();
        let next = std::sync::atomic::AtomicUsize::new(0);
        let work = || {
            let mut done = vec![];
            while let Some(layer) =
                missing.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed))
            {
                done.push(self.layer(files, layer)?);
            }
            Ok(done)
        };
        let threads = self.store.options.unpacks.clamp(1, missing.len().max(1));
        let results: Vec<Result<Vec<Arc<Prepared>>, Error>> = std::thread::scope(|scope| {
            let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
            let mine = work();
            let joined = others.into_iter().map(|thread| {
                thread
                    .join()
                    .unwrap_or_else(|_| Err(Error::Cancelled("a thread panicked".into())))
            });
            std::iter::once(mine)
                .chain(joined.collect::<Vec<_>>())
                .collect()
        });
        Ok(results
            .into_iter()
            .collect::<Result<Vec<_>, _>>()?
            .into_iter()
            .flatten()
            .collect())
    }

    fn layer(&self, files: &Files, layer: &FoundLayer) -> Result<Arc<Prepared>, Error> {
        let (reader, size) = files.reader(&layer.file)?;
        let digest = layer.blob.map_or(layer.diff_id.0, |(digest, _)| digest);
        let expected = Expected {
            blob: layer.blob,
            diff_id: layer.diff_id,
            source: layer.file.clone(),
        };
        let progress = &self.progress;
        let seen = |count: u64| progress.report(digest, Phase::Unpacking, count, size);
        let prepared =
            prepare(&self.store, reader, &expected, &seen).map_err(|source| Error::Layer {
                digest,
                source: Box::new(source),
            })?;
        progress.report(digest, Phase::Done, size, size);
        Ok(prepared)
    }
}

/// The names under which an imported image is stored: its tags, and each repository with the manifest's digest.
fn full_names(found: &Found) -> Result<Vec<String>, Error> {
    let mut names = vec![];
    for name in &found.names {
        let reference: Reference = name.parse()?;
        names.extend(stored_name(&reference));
        names.extend(found.top.map(|top| format!("{}@{top}", reference.name())));
    }
    names.sort();
    names.dedup();
    Ok(names)
}
