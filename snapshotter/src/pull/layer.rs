//! One layer of a pull: bytes from the registry go through memory into a directory.

use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};

use bytes::{Buf, Bytes};
use sys::failpoint;
use tokio::sync::mpsc::{Receiver, Sender, channel};

use crate::digest::DiffId;
use crate::error::Error;
use crate::layer::{Expected, unpack};
use crate::manifest::Blob;
use crate::progress::{Phase, ProgressSink};
use crate::registry::{Downloaded, RegistryError, Source};
use crate::store::{Inner, LayerRecord, Prepared};
use crate::tar::Applied;

/// How many pieces of a download may wait to be unpacked. A piece is what one read of the socket gave: 16 to 400 KiB.
const BUFFERED: usize = 32;
/// How many bytes lie between two reports of progress.
const REPORT_EVERY: u64 = 256 * 1024;

/// A layer to get.
pub(super) struct Job {
    pub(super) store: Arc<Inner>,
    pub(super) source: Arc<Source>,
    pub(super) blob: Blob,
    pub(super) diff_id: DiffId,
    pub(super) fingerprint: u64,
    pub(super) progress: ProgressSink,
    /// Open as long as a thread works on the layer: an aborted pull ends when the last of them has cleaned up.
    pub(super) alive: Sender<()>,
}

impl Job {
    /// Gets the layer, or waits for another pull to get it. `None`: it is in the store already.
    pub(super) async fn run(self) -> Result<Option<Arc<Prepared>>, Error> {
        let key = (self.diff_id, self.fingerprint);
        let flight = {
            let mut flights = self
                .store
                .flights
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            flights.retain(|_, flight| Arc::strong_count(flight) > 1);
            flights.entry(key).or_default().clone()
        };
        // If the one before has failed, this one tries itself, with its own connection.
        let mut result = flight.lock().await;
        if let Some(prepared) = result.upgrade() {
            self.progress.report(
                self.blob.digest,
                Phase::Done,
                self.blob.size,
                self.blob.size,
            );
            return Ok(Some(prepared));
        }
        if self.store.has_layer(&self.diff_id) {
            self.progress.report(
                self.blob.digest,
                Phase::Exists,
                self.blob.size,
                self.blob.size,
            );
            return Ok(None);
        }
        let digest = self.blob.digest;
        let prepared = self.get().await.map_err(|source| Error::Layer {
            digest,
            source: Box::new(source),
        })?;
        *result = Arc::downgrade(&prepared);
        Ok(Some(prepared))
    }

    /// Downloads and unpacks at the same time.
    async fn get(&self) -> Result<Arc<Prepared>, Error> {
        // Both limits are never closed.
        let _download = self
            .store
            .downloads
            .clone()
            .acquire_owned()
            .await
            .map_err(|error| Error::Cancelled(error.to_string()))?;
        let (sink, pieces) = channel::<Bytes>(BUFFERED);
        let arrived = Arc::new(AtomicBool::new(false));
        let unpacking = self.unpack(pieces, arrived.clone());
        let downloading = async {
            let downloaded = self
                .source
                .blob(self.blob.digest, self.blob.size, &sink)
                .await;
            // The end of the pieces: after an error it is not the end of the layer, and the error is what counts.
            drop(sink);
            if matches!(downloaded, Ok(Downloaded::Complete)) {
                failpoint::hit("pull.layer.downloaded")?;
                arrived.store(true, Ordering::Relaxed);
            }
            Ok::<Result<Downloaded, RegistryError>, Error>(downloaded)
        };
        let (downloaded, unpacked) = tokio::join!(downloading, unpacking);
        // A layer that ended early is broken as well; why it ended comes first.
        downloaded??;
        let prepared = unpacked?;
        failpoint::hit("pull.layer.unpacked")?;
        self.progress.report(
            self.blob.digest,
            Phase::Done,
            self.blob.size,
            self.blob.size,
        );
        Ok(prepared)
    }

    async fn unpack(
        &self,
        pieces: Receiver<Bytes>,
        arrived: Arc<AtomicBool>,
    ) -> Result<Arc<Prepared>, Error> {
        let turn = self
            .store
            .unpacks
            .clone()
            .acquire_owned()
            .await
            .map_err(|error| Error::Cancelled(error.to_string()))?;
        let (store, alive) = (self.store.clone(), self.alive.clone());
        let (digest, size, progress) = (self.blob.digest, self.blob.size, self.progress.clone());
        let expected = Expected {
            blob: Some((digest, size)),
            diff_id: self.diff_id,
            source: "the registry".into(),
        };
        let work = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            let reported = AtomicU64::new(0);
            let seen = move |count: u64| {
                if count >= reported.load(Ordering::Relaxed) + REPORT_EVERY {
                    reported.store(count, Ordering::Relaxed);
                    let phase = if arrived.load(Ordering::Relaxed) {
                        Phase::Unpacking
                    } else {
                        Phase::Downloading
                    };
                    progress.report(digest, phase, count, size);
                }
            };
            let prepared = prepare(
                &store,
                PieceReader {
                    pieces,
                    current: Bytes::new(),
                },
                &expected,
                &seen,
            );
            // In this order they are dropped where nobody waits any more.
            (prepared, alive)
        });
        work.await
            .map_err(|error| Error::Cancelled(error.to_string()))?
            .0
    }
}

/// Unpacks a layer into a new directory of `ingest`, which goes again if that fails.
pub(crate) fn prepare(
    store: &Inner,
    reader: impl Read + Send,
    expected: &Expected,
    seen: &(dyn Fn(u64) + Sync),
) -> Result<Arc<Prepared>, Error> {
    let dir = store.ingest.make()?;
    let root = dir.make_fs()?;
    let applied = unpack(reader, expected, root, &store.options.limits, seen)?;
    if applied.xattrs_skipped > 0 {
        tracing::warn!(layer = %expected.diff_id, count = applied.xattrs_skipped, "extended attributes were left out, as the file system does not take them");
    }
    Ok(Arc::new(Prepared::new(
        expected.diff_id,
        record(applied),
        dir,
    )))
}

fn record(applied: Applied) -> LayerRecord {
    let Applied {
        bytes,
        inodes,
        implicit,
        links,
        opaque,
        root,
        ..
    } = applied;
    LayerRecord {
        bytes,
        inodes,
        opaque,
        root,
        implicit: implicit.into_iter().collect(),
        links,
    }
}

/// The pieces of a download as one stream, for a thread that may block.
struct PieceReader {
    pieces: Receiver<Bytes>,
    current: Bytes,
}

impl Read for PieceReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            match self.pieces.blocking_recv() {
                Some(piece) => self.current = piece,
                None => return Ok(0),
            }
        }
        let count = buffer.len().min(self.current.len());
        self.current.copy_to_slice(&mut buffer[..count]);
        Ok(count)
    }
}
