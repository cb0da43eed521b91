//! The database: images, names, layers and documents in one redb file.
//!
//! | table | key | value |
//! |---|---|---|
//! | images | image id | [`ImageRecord`] as JSON |
//! | names | tag or digest reference in full | image id |
//! | layers | layer's hex digits | [`LayerRecord`] as JSON |
//! | documents | digest | manifest, index or config, as published |
//!
//! Values never change their meaning: a new field gets a serde default, anything else a new table.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use redb::{
    Database, ReadableDatabase, ReadableTable, StorageBackend, TableDefinition, WriteTransaction,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::digest::{DiffId, Digest};
use crate::error::{Error, IoContext};

const IMAGES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("images");
const NAMES: TableDefinition<'_, &str, &str> = TableDefinition::new("names");
const LAYERS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("layers");
const DOCUMENTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("documents");

/// What is stored about an image.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub(crate) struct ImageRecord {
    /// What an overlay of it stacks, bottom first.
    pub(crate) layers: Vec<DiffId>,
    /// Bytes on disk.
    pub(crate) size: u64,
    /// The manifests and indexes that led here.
    pub(crate) documents: Vec<Digest>,
    /// Whether garbage collection must leave it alone.
    #[serde(default)]
    pub(crate) pinned: bool,
}

/// What is stored about a layer.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
pub(crate) struct LayerRecord {
    /// Bytes on disk.
    pub(crate) bytes: u64,
    /// Files and directories.
    pub(crate) inodes: u64,
    /// Whether it hides everything below it.
    #[serde(default)]
    pub(crate) opaque: bool,
    /// Whether its archive describes the root directory itself.
    #[serde(default)]
    pub(crate) root: bool,
    /// Directories in it that its archive does not describe.
    #[serde(default)]
    pub(crate) implicit: Vec<PathBuf>,
    /// Hard links of it that lead to layers below: `(link, target)`.
    #[serde(default)]
    pub(crate) links: Vec<(PathBuf, PathBuf)>,
}

/// Everything that is in the database, read at the start.
#[derive(Default)]
pub(crate) struct Contents {
    pub(crate) images: Vec<(Digest, ImageRecord)>,
    pub(crate) names: Vec<(String, Digest)>,
    pub(crate) layers: Vec<(DiffId, LayerRecord)>,
}

/// One change, all or nothing.
#[derive(Default)]
pub(crate) struct Change<'a> {
    pub(crate) put_images: Vec<(Digest, &'a ImageRecord)>,
    pub(crate) put_names: Vec<(&'a str, Digest)>,
    pub(crate) put_layers: Vec<(DiffId, &'a LayerRecord)>,
    pub(crate) put_documents: Vec<(Digest, &'a [u8])>,
    pub(crate) drop_images: Vec<Digest>,
    pub(crate) drop_names: Vec<String>,
    pub(crate) drop_layers: Vec<DiffId>,
    pub(crate) drop_documents: Vec<Digest>,
}

/// The open database.
pub(crate) struct Db {
    path: PathBuf,
    /// `None` only between a failed write and a failed attempt to open it again.
    database: Mutex<Option<Database>>,
}

fn failed<E: Into<redb::Error>>(operation: &'static str) -> impl FnOnce(E) -> Error {
    move |error| Error::Database {
        operation,
        source: Box::new(error.into()),
    }
}

impl Db {
    /// Opens the database, or makes an empty one.
    pub(crate) fn open(path: &Path) -> Result<Db, Error> {
        Ok(Db {
            path: path.to_owned(),
            database: Mutex::new(Some(open(path)?)),
        })
    }

    fn lock(&self) -> Result<MutexGuard<'_, Option<Database>>, Error> {
        // A panic elsewhere leaves a usable database: its transactions are undone when dropped.
        let mut database = self.database.lock().unwrap_or_else(PoisonError::into_inner);
        if database.is_none() {
            *database = Some(open(&self.path)?);
        }
        Ok(database)
    }

    /// Everything but the documents.
    pub(crate) fn read(&self) -> Result<Contents, Error> {
        let guard = self.lock()?;
        let Some(database) = guard.as_ref() else {
            return Ok(Contents::default());
        };
        let transaction = database.begin_read().map_err(failed("begin to read"))?;
        let mut contents = Contents::default();
        let images = transaction
            .open_table(IMAGES)
            .map_err(failed("read images"))?;
        for row in images.iter().map_err(failed("read images"))? {
            let (key, value) = row.map_err(failed("read images"))?;
            contents.images.push((
                key.value().parse()?,
                parse("images", key.value(), value.value())?,
            ));
        }
        let names = transaction
            .open_table(NAMES)
            .map_err(failed("read names"))?;
        for row in names.iter().map_err(failed("read names"))? {
            let (key, value) = row.map_err(failed("read names"))?;
            contents
                .names
                .push((key.value().to_owned(), value.value().parse()?));
        }
        let layers = transaction
            .open_table(LAYERS)
            .map_err(failed("read layers"))?;
        for row in layers.iter().map_err(failed("read layers"))? {
            let (key, value) = row.map_err(failed("read layers"))?;
            let layer = DiffId(Digest::from_hex(key.value())?);
            contents
                .layers
                .push((layer, parse("layers", key.value(), value.value())?));
        }
        Ok(contents)
    }

    /// A document as published.
    pub(crate) fn document(&self, digest: Digest) -> Result<Option<Vec<u8>>, Error> {
        let guard = self.lock()?;
        let Some(database) = guard.as_ref() else {
            return Ok(None);
        };
        let transaction = database.begin_read().map_err(failed("begin to read"))?;
        let documents = transaction
            .open_table(DOCUMENTS)
            .map_err(failed("read documents"))?;
        let found = documents
            .get(digest.to_string().as_str())
            .map_err(failed("read documents"))?;
        Ok(found.map(|value| value.value().to_vec()))
    }

    /// Makes one change durable. After a failure, as on a full disk, the database holds what it held before.
    pub(crate) fn apply(&self, change: &Change<'_>) -> Result<(), Error> {
        let mut guard = self.lock()?;
        let Some(database) = guard.as_ref() else {
            return Ok(());
        };
        let result = database
            .begin_write()
            .map_err(failed("begin to write"))
            .and_then(|transaction| write(transaction, change));
        if result.is_err() {
            // After an input or output error redb refuses everything until it is opened again.
            *guard = None;
            *guard = open(&self.path).ok();
        }
        result
    }
}

fn open(path: &Path) -> Result<Database, Error> {
    let options = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path);
    let file = options.on("open", path)?;
    let backend = Reserved { file };
    let mut builder = Database::builder();
    builder.set_cache_size(4 << 20);
    let database = builder
        .create_with_backend(backend)
        .map_err(failed("open"))?;
    let transaction = database.begin_write().map_err(failed("begin to write"))?;
    // Reading a table that was never written is an error otherwise.
    transaction
        .open_table(IMAGES)
        .map_err(failed("make tables"))?;
    transaction
        .open_table(NAMES)
        .map_err(failed("make tables"))?;
    transaction
        .open_table(LAYERS)
        .map_err(failed("make tables"))?;
    transaction
        .open_table(DOCUMENTS)
        .map_err(failed("make tables"))?;
    transaction.commit().map_err(failed("make tables"))?;
    Ok(database)
}

fn write(transaction: WriteTransaction, change: &Change<'_>) -> Result<(), Error> {
    {
        let mut images = transaction
            .open_table(IMAGES)
            .map_err(failed("write images"))?;
        for id in &change.drop_images {
            images
                .remove(id.to_string().as_str())
                .map_err(failed("remove image"))?;
        }
        for (id, record) in &change.put_images {
            images
                .insert(id.to_string().as_str(), json(record)?.as_slice())
                .map_err(failed("write image"))?;
        }
        let mut names = transaction
            .open_table(NAMES)
            .map_err(failed("write names"))?;
        for name in &change.drop_names {
            names.remove(name.as_str()).map_err(failed("remove name"))?;
        }
        for (name, id) in &change.put_names {
            names
                .insert(*name, id.to_string().as_str())
                .map_err(failed("write name"))?;
        }
        let mut layers = transaction
            .open_table(LAYERS)
            .map_err(failed("write layers"))?;
        for layer in &change.drop_layers {
            layers
                .remove(layer.hex().as_str())
                .map_err(failed("remove layer"))?;
        }
        for (layer, record) in &change.put_layers {
            layers
                .insert(layer.hex().as_str(), json(record)?.as_slice())
                .map_err(failed("write layer"))?;
        }
        let mut documents = transaction
            .open_table(DOCUMENTS)
            .map_err(failed("write documents"))?;
        for digest in &change.drop_documents {
            documents
                .remove(digest.to_string().as_str())
                .map_err(failed("remove document"))?;
        }
        for (digest, bytes) in &change.put_documents {
            documents
                .insert(digest.to_string().as_str(), *bytes)
                .map_err(failed("write document"))?;
        }
    }
    transaction.commit().map_err(failed("commit"))
}

fn json<T: Serialize>(record: &T) -> Result<Vec<u8>, Error> {
    serde_json::to_vec(record).map_err(|source| Error::Record {
        table: "new",
        key: String::new(),
        source,
    })
}

fn parse<T: DeserializeOwned>(table: &'static str, key: &str, value: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(value).map_err(|source| Error::Record {
        table,
        key: key.to_owned(),
        source,
    })
}

/// A file whose blocks are reserved before they are used: removing an image must work on a full disk, and a write
/// into a hole of a sparse file could not.
///
/// It has no locks of its own: the store holds one for the whole directory.
#[derive(Debug)]
struct Reserved {
    file: File,
}

impl StorageBackend for Reserved {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(out, offset)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        if length > self.len()? {
            match sys::fs::reserve(&self.file, length) {
                Err(error) if error.errno() == sys::Errno::EOPNOTSUPP => {}
                other => return other.map_err(Into::into),
            }
        }
        self.file.set_len(length)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file.write_all_at(data, offset)
    }
}
