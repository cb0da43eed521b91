//! Manifests and indexes, of OCI and of Docker's schema 2, which differ in little but their media types.
//!
//! <https://github.com/opencontainers/image-spec/blob/main/manifest.md>,
//! <https://distribution.github.io/distribution/spec/manifest-v2-2/>

use oci_spec::image::{Descriptor, ImageIndex, ImageManifest};
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::digest::Digest;
use crate::error::Error;
use crate::platform::Platform;

/// What is asked for in place of a manifest.
pub(crate) const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, \
    application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.v2+json";
/// More layers than this one overlay mount does not take.
const MAX_LAYERS: usize = 500;
/// More entries than this no index has.
const MAX_ENTRIES: usize = 10_000;

/// A piece of content that a manifest names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Blob {
    pub(crate) digest: Digest,
    pub(crate) size: u64,
}

/// One image of an index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct IndexEntry {
    pub(crate) digest: Digest,
    pub(crate) platform: Option<Platform>,
    /// The name that an OCI layout gives it.
    pub(crate) annotations: Vec<(String, String)>,
}

/// What a name or a digest in a registry stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Manifest {
    /// One image.
    Image {
        config: Blob,
        /// Bottom first.
        layers: Vec<Blob>,
    },
    /// Images for several platforms, or an OCI layout's list of them.
    Index(Vec<IndexEntry>),
}

/// The fields that tell one document from another.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Probe {
    schema_version: Option<u32>,
    media_type: Option<String>,
    config: Option<IgnoredAny>,
    layers: Option<IgnoredAny>,
    manifests: Option<IgnoredAny>,
    fs_layers: Option<IgnoredAny>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Image,
    Index,
}

/// The form that a media type names, where it names one.
fn form(media_type: &str) -> Option<Form> {
    match media_type {
        "application/vnd.oci.image.manifest.v1+json"
        | "application/vnd.docker.distribution.manifest.v2+json" => Some(Form::Image),
        "application/vnd.oci.image.index.v1+json"
        | "application/vnd.docker.distribution.manifest.list.v2+json" => Some(Form::Index),
        _ => None,
    }
}

impl Manifest {
    /// Parses the document with digest `digest` that came with the media type `content_type`.
    ///
    /// A document that could be read as either form is refused: two readers must not see two images in one digest.
    ///
    /// # Errors
    /// [`Error::Document`].
    pub(crate) fn parse(
        digest: Digest,
        content_type: Option<&str>,
        bytes: &[u8],
    ) -> Result<Manifest, Error> {
        let refused = |reason: String| Error::Document {
            what: "manifest",
            digest,
            reason,
            unsupported: false,
        };
        let unsupported = |reason: String| Error::Document {
            what: "manifest",
            digest,
            reason,
            unsupported: true,
        };
        let probe: Probe =
            serde_json::from_slice(bytes).map_err(|error| refused(error.to_string()))?;
        if probe.schema_version == Some(1) || probe.fs_layers.is_some() {
            return Err(unsupported("it is of Docker's schema 1, which has no image ids; push the image again with a current tool".into()));
        }
        if probe.schema_version != Some(2) {
            return Err(refused(format!(
                "its schemaVersion is {:?} and not 2",
                probe.schema_version
            )));
        }
        let header = content_type.map(|value| {
            value
                .split(';')
                .next()
                .unwrap_or(value)
                .trim()
                .to_ascii_lowercase()
        });
        let header = header.as_deref().and_then(form);
        let named = probe.media_type.as_deref().and_then(form);
        let shape = match (
            probe.layers.is_some() || probe.config.is_some(),
            probe.manifests.is_some(),
        ) {
            (true, false) => Form::Image,
            (false, true) => Form::Index,
            (true, true) => return Err(refused("it has both layers and manifests".into())),
            (false, false) => {
                return Err(unsupported(format!(
                    "it is no image but {:?}",
                    probe.media_type.unwrap_or_default()
                )));
            }
        };
        if [header, named]
            .into_iter()
            .flatten()
            .any(|said| said != shape)
        {
            return Err(refused(
                "its media type says one thing and its fields another".into(),
            ));
        }
        match shape {
            Form::Image => image(
                serde_json::from_slice(bytes).map_err(|error| refused(error.to_string()))?,
                &refused,
            ),
            Form::Index => index(
                serde_json::from_slice(bytes).map_err(|error| refused(error.to_string()))?,
                &refused,
            ),
        }
    }
}

fn image(manifest: ImageManifest, refused: &dyn Fn(String) -> Error) -> Result<Manifest, Error> {
    if manifest.layers().len() > MAX_LAYERS {
        return Err(refused(format!(
            "it has {} layers; {MAX_LAYERS} can be mounted",
            manifest.layers().len()
        )));
    }
    let blob = |descriptor: &Descriptor| {
        Ok::<_, Error>(Blob {
            digest: digest(descriptor, refused)?,
            size: descriptor.size(),
        })
    };
    let layers = manifest
        .layers()
        .iter()
        .map(blob)
        .collect::<Result<Vec<_>, _>>()?;
    Ok(Manifest::Image {
        config: blob(manifest.config())?,
        layers,
    })
}

fn index(index: ImageIndex, refused: &dyn Fn(String) -> Error) -> Result<Manifest, Error> {
    if index.manifests().len() > MAX_ENTRIES {
        return Err(refused(format!(
            "it has {} entries",
            index.manifests().len()
        )));
    }
    let entry = |descriptor: &Descriptor| {
        let platform = descriptor.platform().as_ref().map(|platform| Platform {
            os: platform.os().to_string(),
            architecture: platform.architecture().to_string(),
            variant: platform
                .variant()
                .clone()
                .filter(|variant| !variant.is_empty()),
        });
        let annotations = descriptor
            .annotations()
            .clone()
            .unwrap_or_default()
            .into_iter()
            .collect();
        Ok::<_, Error>(IndexEntry {
            digest: digest(descriptor, refused)?,
            platform,
            annotations,
        })
    };
    Ok(Manifest::Index(
        index
            .manifests()
            .iter()
            .map(entry)
            .collect::<Result<Vec<_>, _>>()?,
    ))
}

fn digest(descriptor: &Descriptor, refused: &dyn Fn(String) -> Error) -> Result<Digest, Error> {
    let text = descriptor.digest().to_string();
    text.parse()
        .map_err(|error: Error| refused(error.to_string()))
}

/// The entry of an index that fits a platform best; of equals the first.
pub(crate) fn choose<'a>(
    digest: Digest,
    entries: &'a [IndexEntry],
    platform: &Platform,
) -> Result<&'a IndexEntry, Error> {
    let fitting = entries
        .iter()
        .filter_map(|entry| Some((platform.fit(entry.platform.as_ref()?)?, entry)));
    if let Some((_, entry)) = fitting.min_by_key(|(fit, _)| *fit) {
        return Ok(entry);
    }
    // An index of one image that does not say what it is for, as tools for single images write it.
    if let [only] = entries
        && only.platform.is_none()
    {
        return Ok(only);
    }
    let offered: Vec<String> = entries
        .iter()
        .filter_map(|entry| entry.platform.as_ref())
        .map(ToString::to_string)
        .collect();
    let offered = if offered.is_empty() {
        "none".to_owned()
    } else {
        offered.join(", ")
    };
    Err(Error::NoPlatform {
        digest,
        platform: platform.to_string(),
        offered,
    })
}

#[cfg(test)]
mod tests;
