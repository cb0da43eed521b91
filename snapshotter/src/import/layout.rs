//! OCI image layouts: `oci-layout`, `index.json`, `blobs/sha256/…`.

use super::archive::Files;
use super::{Found, FoundLayer};
use crate::digest::Digest;
use crate::error::Error;
use crate::image::ConfigDocument;
use crate::manifest::{IndexEntry, Manifest, choose};
use crate::platform::Platform;
use crate::pull::pair;
use crate::reference::Reference;

/// How many indexes may lie within each other.
const MAX_NESTING: usize = 4;
/// A full name, as containerd and docker write it.
const IMAGE_NAME: &str = "io.containerd.image.name";
/// A tag, or a full name, as the specification has it.
const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// All images of a layout, each for this machine's platform.
pub(super) fn find(files: &Files) -> Result<Vec<Found>, Error> {
    if files.exists("oci-layout") {
        check_version(&files.read("oci-layout")?)?;
    }
    let bytes = files.read("index.json")?;
    let Manifest::Index(entries) = Manifest::parse(Digest::of(&bytes), None, &bytes)? else {
        return Err(Error::Layout {
            item: "index.json".into(),
            reason: "it is not an index".into(),
        });
    };
    let mut all: Vec<Found> = vec![];
    for entry in runnable(&entries) {
        let found = one(files, entry)?;
        // The same image under several names stands there several times.
        match all
            .iter_mut()
            .find(|other| other.id == found.id && other.top == found.top)
        {
            Some(same) => same.names.extend(found.names),
            None => all.push(found),
        }
    }
    if all.is_empty() {
        return Err(Error::Layout {
            item: "index.json".into(),
            reason: "it names no image".into(),
        });
    }
    Ok(all)
}

fn check_version(bytes: &[u8]) -> Result<(), Error> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Layout {
        image_layout_version: String,
    }
    let refused = |reason: String| Error::Layout {
        item: "oci-layout".into(),
        reason,
    };
    let layout: Layout =
        serde_json::from_slice(bytes).map_err(|error| refused(error.to_string()))?;
    if layout.image_layout_version.starts_with("1.") {
        return Ok(());
    }
    Err(refused(format!(
        "version {:?} is not known; 1.0.0 is",
        layout.image_layout_version
    )))
}

/// The entries that are images: of several without names, one per platform, this machine's.
fn runnable(entries: &[IndexEntry]) -> Vec<&IndexEntry> {
    let host = Platform::host();
    let unnamed = |entry: &&IndexEntry| name(entry).is_none();
    let platforms = entries
        .iter()
        .filter(unnamed)
        .filter(|entry| entry.platform.is_some())
        .count();
    let fits = |entry: &&IndexEntry| {
        entry
            .platform
            .as_ref()
            .is_none_or(|platform| host.fit(platform).is_some())
    };
    let wanted = |entry: &&IndexEntry| name(entry).is_some() || platforms < 2 || fits(entry);
    let attestation = |entry: &&IndexEntry| {
        entry
            .platform
            .as_ref()
            .is_some_and(|platform| platform.os == "unknown")
    };
    entries
        .iter()
        .filter(|entry| !attestation(entry))
        .filter(wanted)
        .collect()
}

fn name(entry: &IndexEntry) -> Option<&str> {
    let annotation = |key: &str| {
        entry
            .annotations
            .iter()
            .find(|(name, _)| name == key)
            .map(|(_, value)| value.as_str())
    };
    // A bare tag says nothing about the repository; it is no name.
    let full = |name: &&str| name.contains(['/', ':', '@']) && name.parse::<Reference>().is_ok();
    annotation(IMAGE_NAME)
        .or_else(|| annotation(REF_NAME))
        .filter(full)
}

/// One image, through as many indexes as it takes.
fn one(files: &Files, entry: &IndexEntry) -> Result<Found, Error> {
    let top = entry.digest;
    let mut digest = top;
    let mut documents = vec![];
    for _ in 0..MAX_NESTING {
        let bytes = document(files, "manifest", digest)?;
        let parsed = Manifest::parse(digest, None, &bytes)?;
        documents.push((digest, bytes));
        match parsed {
            Manifest::Index(entries) => {
                digest = choose(digest, &entries, &Platform::host())?.digest
            }
            Manifest::Image { config, layers } => {
                let bytes = document(files, "image config", config.digest)?;
                let parsed = ConfigDocument::parse(config.digest, &bytes)?;
                let layers = pair(config.digest, layers, parsed.diff_ids)?;
                let layers = layers.into_iter().map(|(blob, diff_id)| FoundLayer {
                    file: blob_path(blob.digest),
                    blob: Some((blob.digest, blob.size)),
                    diff_id,
                });
                let (layers, names) = (
                    layers.collect(),
                    name(entry).map(str::to_owned).into_iter().collect(),
                );
                return Ok(Found {
                    id: config.digest,
                    config: bytes,
                    layers,
                    documents,
                    top: Some(top),
                    names,
                });
            }
        }
    }
    let reason = format!("more than {MAX_NESTING} indexes lead to the image");
    Err(Error::Document {
        what: "index",
        digest: top,
        reason,
        unsupported: true,
    })
}

fn blob_path(digest: Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

/// A document, verified.
fn document(files: &Files, what: &str, digest: Digest) -> Result<Vec<u8>, Error> {
    let path = blob_path(digest);
    let bytes = files.read(&path)?;
    let actual = Digest::of(&bytes);
    if actual == digest {
        return Ok(bytes);
    }
    Err(Error::Mismatch {
        what: what.into(),
        expected: digest.to_string(),
        actual: actual.to_string(),
        source_name: path,
    })
}
