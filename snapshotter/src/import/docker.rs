//! What `docker save` writes: `manifest.json`, and configs and plain tar layers under names of its choice.

use serde::Deserialize;

use super::archive::Files;
use super::{Found, FoundLayer};
use crate::digest::Digest;
use crate::error::Error;
use crate::image::ConfigDocument;
use crate::pull::pair;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Item {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
}

/// All images of an archive.
pub(super) fn find(files: &Files) -> Result<Vec<Found>, Error> {
    let refused = |reason: String| Error::Layout {
        item: "manifest.json".into(),
        reason,
    };
    let items: Vec<Item> = serde_json::from_slice(&files.read("manifest.json")?)
        .map_err(|error| refused(error.to_string()))?;
    if items.is_empty() {
        return Err(refused("it names no image".into()));
    }
    items.into_iter().map(|item| one(files, item)).collect()
}

fn one(files: &Files, item: Item) -> Result<Found, Error> {
    let config = files.read(&item.config)?;
    let id = Digest::of(&config);
    let name = item
        .config
        .rsplit('/')
        .next()
        .unwrap_or_default()
        .trim_end_matches(".json");
    if let Ok(promised) = Digest::from_hex(name)
        && promised != id
    {
        let (expected, actual) = (promised.to_string(), id.to_string());
        return Err(Error::Mismatch {
            what: "image config".into(),
            expected,
            actual,
            source_name: item.config,
        });
    }
    let parsed = ConfigDocument::parse(id, &config)?;
    let layers = pair(id, item.layers.unwrap_or_default(), parsed.diff_ids)?;
    let layers = layers
        .into_iter()
        .map(|(file, diff_id)| FoundLayer {
            file,
            blob: None,
            diff_id,
        })
        .collect();
    Ok(Found {
        id,
        config,
        layers,
        documents: vec![],
        top: None,
        names: item.repo_tags.unwrap_or_default(),
    })
}
