//! The store's contents in memory: what lists and lookups read, without the disk and without waiting for a pull.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use super::db::{Contents, ImageRecord, LayerRecord};
use crate::digest::{DiffId, Digest};
use crate::error::Error;
use crate::image::{ConfigDocument, Image};
use crate::reference::Reference;

/// The shortest beginning of an id that is looked up.
const SHORTEST_ID: usize = 3;

/// Images, names, layers and leases.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) images: BTreeMap<Digest, Entry>,
    pub(crate) names: BTreeMap<String, Digest>,
    pub(crate) layers: HashMap<DiffId, LayerRecord>,
    pub(crate) leases: HashMap<DiffId, usize>,
    pub(crate) bytes: u64,
    pub(crate) inodes: u64,
    /// Names whose images are pinned.
    pinned: HashSet<String>,
}

/// An image and what is stored about it.
#[derive(Clone)]
pub(crate) struct Entry {
    pub(crate) record: ImageRecord,
    pub(crate) image: Arc<Image>,
}

impl State {
    /// The state that the database describes, given the configs of its images.
    pub(crate) fn load(
        contents: Contents,
        pinned: &[String],
        mut config: impl FnMut(Digest) -> Result<Vec<u8>, Error>,
    ) -> Result<State, Error> {
        let mut state = State::default();
        let full = |name: &String| stored_name(&name.parse::<Reference>().ok()?);
        state.pinned = pinned.iter().filter_map(full).collect();
        for (layer, record) in contents.layers {
            state.put_layer(layer, record);
        }
        for (id, record) in contents.images {
            state.put_image(id, record, config(id)?)?;
        }
        for (name, id) in contents.names {
            state.names.insert(name, id);
        }
        state.rename_all();
        Ok(state)
    }

    /// Adds an image, or replaces it.
    pub(crate) fn put_image(
        &mut self,
        id: Digest,
        record: ImageRecord,
        raw_config_json: Vec<u8>,
    ) -> Result<(), Error> {
        let document = ConfigDocument::parse(id, &raw_config_json)?;
        let image = Image {
            id,
            repo_tags: vec![],
            repo_digests: vec![],
            size: record.size,
            layers: record.layers.clone(),
            config: document.config,
            created: document.created,
            pinned: record.pinned,
            raw_config_json,
        };
        self.images.insert(
            id,
            Entry {
                record,
                image: Arc::new(image),
            },
        );
        Ok(())
    }

    /// Adds a layer.
    pub(crate) fn put_layer(&mut self, layer: DiffId, record: LayerRecord) {
        self.bytes += record.bytes;
        self.inodes += record.inodes;
        if let Some(old) = self.layers.insert(layer, record) {
            self.bytes -= old.bytes;
            self.inodes -= old.inodes;
        }
    }

    /// Forgets a layer.
    pub(crate) fn drop_layer(&mut self, layer: &DiffId) -> Option<LayerRecord> {
        let old = self.layers.remove(layer)?;
        self.bytes -= old.bytes;
        self.inodes -= old.inodes;
        Some(old)
    }

    /// Writes the names into every image again.
    pub(crate) fn rename_all(&mut self) {
        let mut named: HashMap<Digest, (Vec<String>, Vec<String>)> = HashMap::new();
        for (name, id) in &self.names {
            let (tags, digests) = named.entry(*id).or_default();
            if name.contains('@') {
                digests.push(name.clone())
            } else {
                tags.push(name.clone())
            }
        }
        for (id, entry) in &mut self.images {
            let (repo_tags, repo_digests) = named.remove(id).unwrap_or_default();
            let mut names = repo_tags.iter().chain(&repo_digests);
            let pinned = entry.record.pinned || names.any(|name| self.pinned.contains(name));
            let image = &entry.image;
            if image.repo_tags != repo_tags
                || image.repo_digests != repo_digests
                || image.pinned != pinned
            {
                entry.image = Arc::new(Image {
                    repo_tags,
                    repo_digests,
                    pinned,
                    ..Image::clone(&entry.image)
                });
            }
        }
    }

    /// The image that a person or a kubelet means by `text`.
    pub(crate) fn find(&self, text: &str) -> Result<Option<&Entry>, Error> {
        let hex = text.strip_prefix("sha256:").unwrap_or(text);
        if let Ok(id) = Digest::from_hex(hex) {
            return Ok(self.images.get(&id));
        }
        if !text.starts_with("sha256:")
            && let Ok(reference) = text.parse::<Reference>()
            && let Some(id) = stored_name(&reference).and_then(|name| self.names.get(&name))
        {
            return Ok(self.images.get(id));
        }
        self.find_short(hex)
    }

    /// The image whose id begins with these digits.
    fn find_short(&self, hex: &str) -> Result<Option<&Entry>, Error> {
        let digits = hex
            .bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        if hex.len() < SHORTEST_ID || !digits {
            return Ok(None);
        }
        let mut fitting = self
            .images
            .iter()
            .filter(|(id, _)| id.hex().starts_with(hex));
        let first = fitting.next();
        match fitting.count() {
            0 => Ok(first.map(|(_, entry)| entry)),
            more => Err(Error::Ambiguous {
                id: hex.to_owned(),
                count: more + 1,
            }),
        }
    }

    /// Layers that neither an image nor a lease needs.
    pub(crate) fn unused(&self) -> Vec<DiffId> {
        let used: HashSet<&DiffId> = self
            .images
            .values()
            .flat_map(|entry| &entry.record.layers)
            .collect();
        let mut unused: Vec<DiffId> = self
            .layers
            .keys()
            .filter(|layer| !used.contains(layer) && !self.leases.contains_key(layer))
            .copied()
            .collect();
        unused.sort();
        unused
    }
}

/// The name that a reference is stored by: its digest where it has one, else its tag.
pub(crate) fn stored_name(reference: &Reference) -> Option<String> {
    match reference.digest() {
        Some(digest) => Some(format!("{}@{digest}", reference.name())),
        None => reference.tagged(),
    }
}
