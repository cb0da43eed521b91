//! Images: a thin layer over the store, with the same id everywhere.

use std::path::Path;
use std::str::FromStr;

use snapshotter::{Auth, DiffId, Digest, ErrorKind, PullRequest, Store};

use crate::error::{Error, Kind, Result};
use crate::ids;
use crate::model::{FsUsage, Image, ImageProgress, ProgressSink, RegistryAuth};

/// An error of the store, with its kind in the engine's words.
pub(crate) fn failed(action: String, error: snapshotter::Error) -> Error {
    let kind = match error.kind() {
        ErrorKind::NotFound => Kind::NotFound,
        ErrorKind::Unauthorized => Kind::Unauthenticated,
        ErrorKind::Unavailable => Kind::Unavailable,
        ErrorKind::InvalidReference => Kind::InvalidArgument,
        ErrorKind::Unsupported => Kind::Unsupported,
        ErrorKind::NoSpace => Kind::ResourceExhausted,
        _ => Kind::Internal,
    };
    Error::Images {
        action,
        kind,
        source: Box::new(error),
    }
}

/// Runs `work` where it may block.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(Error::Internal(format!(
            "a blocking step ended early: {error}"
        ))),
    }
}

pub(crate) async fn pull(
    store: &Store,
    reference: &str,
    auth: Option<RegistryAuth>,
    progress: Option<ProgressSink>,
) -> Result<Image> {
    let request = PullRequest {
        reference: reference.to_owned(),
        auth: auth.map(convert_auth),
        platform: None,
    };
    let action = format!("pull {reference:?}");
    let image = store
        .pull(request, sink(progress))
        .await
        .map_err(|error| failed(action, error))?;
    Ok(convert(&image))
}

pub(crate) async fn import(
    store: &Store,
    path: &Path,
    reference: Option<&str>,
    progress: Option<ProgressSink>,
) -> Result<Vec<Image>> {
    let action = format!("import {}", path.display());
    let images = store
        .import(path, reference, sink(progress))
        .await
        .map_err(|error| failed(action, error))?;
    Ok(images.iter().map(convert).collect())
}

pub(crate) async fn status(store: &Store, reference: &str) -> Result<Option<Image>> {
    let (store, reference) = (store.clone(), reference.to_owned());
    blocking(move || {
        let image = store
            .image(&reference)
            .map_err(|error| failed(format!("look up image {reference:?}"), error))?;
        Ok(image.as_ref().map(convert))
    })
    .await
}

pub(crate) async fn list(store: &Store, filter: Option<&str>) -> Result<Vec<Image>> {
    if let Some(reference) = filter.filter(|reference| !reference.is_empty()) {
        return Ok(status(store, reference).await?.into_iter().collect());
    }
    let store = store.clone();
    blocking(move || {
        let images = store
            .images()
            .map_err(|error| failed("list the images".into(), error))?;
        Ok(images.iter().map(convert).collect())
    })
    .await
}

pub(crate) async fn remove(store: &Store, reference: &str) -> Result<()> {
    let (store, reference) = (store.clone(), reference.to_owned());
    blocking(move || {
        let removed = store
            .remove(&reference)
            .map_err(|error| failed(format!("remove image {reference:?}"), error))?;
        tracing::info!(image = reference, removed, "remove image");
        Ok(())
    })
    .await
}

pub(crate) async fn usage(store: &Store) -> Result<FsUsage> {
    let store = store.clone();
    blocking(move || {
        let usage = store
            .usage()
            .map_err(|error| failed("measure the image store".into(), error))?;
        Ok(FsUsage {
            timestamp: ids::now(),
            mountpoint: usage.mountpoint.to_string_lossy().into_owned(),
            used_bytes: usage.used_bytes,
            inodes_used: usage.inodes_used,
        })
    })
    .await
}

/// The layers of a container's record.
pub(crate) fn diff_ids<'a>(layers: impl Iterator<Item = &'a String>) -> Result<Vec<DiffId>> {
    layers
        .map(|layer| {
            Digest::from_str(layer)
                .map(DiffId)
                .map_err(|error| failed("read the record's layers".into(), error))
        })
        .collect()
}

fn convert(image: &snapshotter::Image) -> Image {
    let user = image.config.user.split(':').next().unwrap_or_default();
    let uid = user.parse::<i64>().ok();
    Image {
        id: image.id.to_string(),
        repo_tags: image.repo_tags.clone(),
        repo_digests: image.repo_digests.clone(),
        size: image.size.max(1),
        uid,
        username: if uid.is_some() {
            String::new()
        } else {
            user.to_owned()
        },
        labels: image.config.labels.clone(),
        pinned: image.pinned,
        config_json: String::from_utf8_lossy(&image.raw_config_json).into_owned(),
    }
}

fn convert_auth(auth: RegistryAuth) -> Auth {
    Auth {
        username: auth.username,
        password: auth.password,
        auth: auth.auth,
        server_address: auth.server_address,
        identity_token: auth.identity_token,
        registry_token: auth.registry_token,
    }
}

fn sink(progress: Option<ProgressSink>) -> snapshotter::ProgressSink {
    let Some(report) = progress else {
        return snapshotter::ProgressSink::none();
    };
    snapshotter::ProgressSink::new(move |one| {
        report(ImageProgress {
            layer: one.layer.to_string(),
            phase: format!("{:?}", one.phase).to_lowercase(),
            current: one.current,
            total: one.total,
        });
    })
}
