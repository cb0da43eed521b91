//! Pulling an image: name → manifest → config → layers, all of those at once → commit.
//!
//! A pull runs in a task of its own. Who asks for the same thing with the same credentials waits for that task, and it
//! ends its work though nobody waits any more.

use std::collections::HashSet;
use std::sync::{Arc, PoisonError, Weak};

use sys::failpoint;
use tokio::sync::watch;

use crate::auth::Auth;
use crate::compose;
use crate::digest::{DiffId, Digest};
use crate::error::Error;
use crate::image::{ConfigDocument, Image};
use crate::manifest::{Blob, Manifest, choose};
use crate::platform::Platform;
use crate::progress::{Phase, ProgressSink};
use crate::reference::Reference;
use crate::registry::{Document, Source};
use crate::store::{Inner, NewImage, Prepared, PullRequest, stored_name};

pub(crate) mod layer;

/// How many indexes may lead to an image.
const MAX_NESTING: usize = 4;

/// What makes two pulls the same.
pub(crate) type PullKey = (String, Option<Platform>, u64);
/// A pull under way: its result, once there is one.
pub(crate) type PullFlight = watch::Receiver<Option<Outcome>>;
/// A layer under way: whoever holds the lock works on it, and leaves the result for the next one.
pub(crate) type LayerFlight = Arc<tokio::sync::Mutex<Weak<Prepared>>>;
/// The result of a pull, for everybody who waited for it.
pub(crate) type Outcome = Result<Image, Arc<Error>>;

/// Pulls, or waits for the same pull of somebody else.
pub(crate) async fn pull(
    store: &Arc<Inner>,
    request: PullRequest,
    progress: ProgressSink,
) -> Result<Image, Error> {
    let reference: Reference = request.reference.parse()?;
    let key = (
        reference.to_string(),
        request.platform.clone(),
        Auth::fingerprint(request.auth.as_ref()),
    );
    let mut flight = {
        let mut pulls = store.pulls.lock().unwrap_or_else(PoisonError::into_inner);
        match pulls.get(&key) {
            Some(flight) => flight.clone(),
            None => {
                let (sender, flight) = watch::channel(None);
                pulls.insert(key.clone(), flight.clone());
                tokio::spawn(run(
                    store.clone(),
                    key,
                    reference,
                    request,
                    progress,
                    sender,
                ));
                flight
            }
        }
    };
    let outcome = flight
        .wait_for(Option::is_some)
        .await
        .map(|outcome| outcome.clone());
    match outcome {
        Ok(Some(Ok(image))) => Ok(image),
        Ok(Some(Err(error))) => Err(Error::Shared(error)),
        Ok(None) | Err(_) => Err(Error::Cancelled("the pull ended without a result".into())),
    }
}

/// Forgets the flight when its task ends, however it ends.
struct Landing {
    store: Arc<Inner>,
    key: PullKey,
}

impl Drop for Landing {
    fn drop(&mut self) {
        self.store
            .pulls
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&self.key);
    }
}

async fn run(
    store: Arc<Inner>,
    key: PullKey,
    reference: Reference,
    request: PullRequest,
    progress: ProgressSink,
    sender: watch::Sender<Option<Outcome>>,
) {
    let landing = Landing {
        store: store.clone(),
        key,
    };
    let name = reference.to_string();
    let result = Pull {
        store,
        reference,
        platform: request.platform,
        auth: request.auth,
        progress,
    }
    .run()
    .await;
    let outcome = result.map_err(|source| {
        Arc::new(Error::Pull {
            reference: name,
            source: Box::new(source),
        })
    });
    // First the flight goes, then its result is told: who asks again after an answer gets a new pull.
    drop(landing);
    sender.send_replace(Some(outcome));
}

/// One pull.
struct Pull {
    store: Arc<Inner>,
    reference: Reference,
    platform: Option<Platform>,
    auth: Option<Auth>,
    progress: ProgressSink,
}

/// Everything known about an image before its layers arrive.
struct Resolved {
    /// The digest that the name stands for.
    top: Digest,
    id: Digest,
    config: Vec<u8>,
    layers: Vec<(Blob, DiffId)>,
    documents: Vec<(Digest, Vec<u8>)>,
}

impl Pull {
    async fn run(self) -> Result<Image, Error> {
        let source = Arc::new(self.store.client.source(
            &self.reference,
            self.auth.as_ref(),
            &self.store.options,
        )?);
        let document = source.resolve().await?;
        failpoint::hit("pull.resolved")?;
        let resolved = self.resolve(&source, document).await?;
        failpoint::hit("pull.manifest")?;
        let names = self.names(resolved.top);
        // From here on nobody deletes what this pull finds in place.
        let diff_ids: Vec<DiffId> = resolved
            .layers
            .iter()
            .map(|(_, diff_id)| *diff_id)
            .collect();
        let lease = self.store.hold(&diff_ids);
        let prepared = self.layers(&source, &resolved.layers).await?;
        let store = self.store.clone();
        let image = tokio::task::spawn_blocking(move || {
            let Resolved {
                id,
                config,
                documents,
                ..
            } = resolved;
            let compose::Composed {
                layers,
                made,
                leases: _kept,
            } = compose::compose(&store, &diff_ids, &prepared)?;
            let prepared = prepared.into_iter().chain(made).collect();
            store.commit(NewImage {
                id,
                config,
                layers,
                prepared,
                documents,
                names,
            })
        });
        let image = image
            .await
            .map_err(|error| Error::Cancelled(error.to_string()))??;
        drop(lease);
        Ok(image)
    }

    /// Follows indexes to the image for the platform, and reads its config.
    async fn resolve(&self, source: &Source, document: Document) -> Result<Resolved, Error> {
        let host = Platform::host();
        let platform = self.platform.as_ref().unwrap_or(&host);
        let top = verified("manifest", self.reference.digest(), &document)?;
        let mut digest = top;
        let mut content_type = document.content_type;
        let mut documents = vec![(digest, document.bytes)];
        for _ in 0..MAX_NESTING {
            let Some((_, bytes)) = documents.last() else {
                break;
            };
            let entries = match Manifest::parse(digest, content_type.as_deref(), bytes)? {
                Manifest::Image { config, layers } => {
                    let resolved = self.image(source, top, &config, layers, documents).await?;
                    return Ok(resolved);
                }
                Manifest::Index(entries) => entries,
            };
            digest = choose(digest, &entries, platform)?.digest;
            let next = source.manifest(digest).await?;
            verified("manifest", Some(digest), &next)?;
            content_type = next.content_type;
            documents.push((digest, next.bytes));
        }
        let reason = format!("more than {MAX_NESTING} indexes lead to the image");
        Err(Error::Document {
            what: "index",
            digest: top,
            reason,
            unsupported: true,
        })
    }

    async fn image(
        &self,
        source: &Source,
        top: Digest,
        config: &Blob,
        layers: Vec<Blob>,
        documents: Vec<(Digest, Vec<u8>)>,
    ) -> Result<Resolved, Error> {
        let id = config.digest;
        let known = self
            .store
            .state()
            .images
            .get(&id)
            .map(|entry| entry.image.raw_config_json.clone());
        let bytes = match known {
            Some(bytes) => bytes,
            None => {
                let document = source.config(id).await?;
                verified("image config", Some(id), &document)?;
                document.bytes
            }
        };
        let parsed = ConfigDocument::parse(id, &bytes)?;
        check_platform(id, self.platform.as_ref(), &parsed)?;
        let layers = pair(id, layers, parsed.diff_ids)?;
        Ok(Resolved {
            top,
            id,
            config: bytes,
            layers,
            documents,
        })
    }

    /// The names that point to the image from now on: the tag, and the digest that it stands for today.
    fn names(&self, top: Digest) -> Vec<String> {
        let digest = format!("{}@{top}", self.reference.name());
        match self.reference.digest() {
            Some(_) => vec![digest],
            None => stored_name(&self.reference)
                .into_iter()
                .chain([digest])
                .collect(),
        }
    }

    /// Gets all layers that are not there yet, at the same time.
    async fn layers(
        &self,
        source: &Arc<Source>,
        layers: &[(Blob, DiffId)],
    ) -> Result<Vec<Arc<Prepared>>, Error> {
        let mut tasks = tokio::task::JoinSet::new();
        let mut seen: HashSet<DiffId> = HashSet::new();
        let (alive, mut ended) = tokio::sync::mpsc::channel(1);
        for (blob, diff_id) in layers {
            // An image may have a layer twice.
            if !seen.insert(*diff_id) {
                continue;
            }
            if self.store.has_layer(diff_id) {
                self.progress
                    .report(blob.digest, Phase::Exists, blob.size, blob.size);
                continue;
            }
            self.progress
                .report(blob.digest, Phase::Waiting, 0, blob.size);
            let job = layer::Job {
                store: self.store.clone(),
                source: source.clone(),
                blob: blob.clone(),
                diff_id: *diff_id,
                fingerprint: Auth::fingerprint(self.auth.as_ref()),
                progress: self.progress.clone(),
                alive: alive.clone(),
            };
            tasks.spawn(job.run());
        }
        drop(alive);
        let mut prepared = vec![];
        while let Some(result) = tasks.join_next().await {
            let result = result.map_err(|error| Error::Cancelled(error.to_string()));
            match result.and_then(|layer| layer) {
                Ok(layer) => prepared.extend(layer),
                Err(error) => {
                    // The first failure ends the others, and the pull ends when nothing of them is left on the disk.
                    drop(prepared);
                    tasks.shutdown().await;
                    while ended.recv().await.is_some() {}
                    return Err(error);
                }
            }
        }
        Ok(prepared)
    }
}

/// The digest of a document, which must be the one that was asked for.
fn verified(what: &str, asked: Option<Digest>, document: &Document) -> Result<Digest, Error> {
    let actual = Digest::of(&document.bytes);
    match asked {
        Some(expected) if expected != actual => Err(Error::Mismatch {
            what: what.into(),
            expected: expected.to_string(),
            actual: actual.to_string(),
            source_name: format!("registry {}", document.host),
        }),
        _ => Ok(actual),
    }
}

/// An image for another platform is refused where somebody asked for one; by default it is their business.
pub(crate) fn check_platform(
    id: Digest,
    asked: Option<&Platform>,
    parsed: &ConfigDocument,
) -> Result<(), Error> {
    let config = &parsed.config;
    let variant = Some(config.variant.clone()).filter(|variant| !variant.is_empty());
    let offered = Platform {
        os: config.os.clone(),
        architecture: config.arch.clone(),
        variant,
    };
    match asked {
        Some(asked) if asked.fit(&offered).is_none() => Err(Error::NoPlatform {
            digest: id,
            platform: asked.to_string(),
            offered: offered.to_string(),
        }),
        None if Platform::host().fit(&offered).is_none() => {
            tracing::warn!(image = %id, platform = %offered, "the image is for another platform");
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Each layer with the digest of its uncompressed archive.
pub(crate) fn pair<T>(
    id: Digest,
    layers: Vec<T>,
    diff_ids: Vec<DiffId>,
) -> Result<Vec<(T, DiffId)>, Error> {
    if layers.len() != diff_ids.len() {
        let reason = format!(
            "it names {} diff ids, and the manifest {} layers",
            diff_ids.len(),
            layers.len()
        );
        return Err(Error::Document {
            what: "image config",
            digest: id,
            reason,
            unsupported: false,
        });
    }
    Ok(layers.into_iter().zip(diff_ids).collect())
}
