//! Unpacks one layer in one pass: hash, inflate, hash again, apply.
//!
//! ```text
//! source ─ sha256 ─ inflate ──(chunks)──▶ sha256 ─ tar ─ directory
//!   └──────── thread 1 ────────┘              └── thread 2 ──┘
//! ```

use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use sha2::{Digest as _, Sha256};

use crate::digest::{DiffId, Digest};
use crate::error::Error;
use crate::inflate::{Format, Inflated};
use crate::tar::{Applied, Limits, apply};

/// How much travels between the two threads at a time, and how many such pieces may be under way.
const CHUNK: usize = 256 * 1024;
const CHUNKS: usize = 8;
/// How far a broken layer is read on, to say whether its bytes or its author are to blame.
const READ_ON: u64 = 64 << 20;
/// From this many bytes on, the ratio of [`Limits`] holds.
const RATIO_FROM: u64 = 1 << 30;

/// What a layer's bytes must turn out to be.
#[derive(Clone, Debug)]
pub(crate) struct Expected {
    /// The digest of the bytes as they come, and how many there are, where someone promised them.
    pub(crate) blob: Option<(Digest, u64)>,
    /// The digest of the archive in them.
    pub(crate) diff_id: DiffId,
    /// Where the bytes come from, for messages.
    pub(crate) source: String,
}

/// Unpacks `source` into the empty directory `root` and verifies both of its digests. `seen` is told how many bytes
/// were read so far.
///
/// # Errors
/// [`Error::Mismatch`] where the bytes are not the expected ones, or why they could not be unpacked. What was written
/// so far stays; the caller removes it.
pub(crate) fn unpack(
    source: impl Read + Send,
    expected: &Expected,
    root: OwnedFd,
    limits: &Limits,
    seen: &(dyn Fn(u64) + Sync),
) -> Result<Applied, Error> {
    let (full, chunks) = sync_channel::<Chunk>(CHUNKS);
    let (empty, recycled) = sync_channel::<Vec<u8>>(CHUNKS + 2);
    let applied = std::thread::scope(|scope| {
        let applier = std::thread::Builder::new()
            .name("layer-apply".into())
            .spawn_scoped(scope, move || {
                let mut reader = ChunkReader {
                    chunks,
                    empty,
                    current: vec![],
                    position: 0,
                    hasher: Sha256::new(),
                };
                let applied = apply(&mut reader, root, limits);
                // The receiver goes with the rest of the reader: the other thread must not wait for it.
                (applied, reader.hasher)
            });
        let applier = applier.map_err(|source| Error::Io {
            operation: "start thread for",
            path: "layer-apply".into(),
            source,
        })?;
        let mut hashed = HashedSource {
            source,
            hasher: Sha256::new(),
            count: 0,
            most: expected.blob.map(|(_, size)| size),
            seen,
        };
        let inflated = inflate(&mut hashed, &full, &recycled, limits);
        drop(full);
        let (applied, hasher) = applier
            .join()
            .map_err(|_| Error::Cancelled("the thread that unpacks a layer panicked".into()))?;
        judge(hashed, inflated, applied, hasher, expected)
    })?;
    Ok(applied)
}

/// Which of the failures is the cause, where there are several: wrong bytes explain everything after them.
fn judge<R: Read>(
    mut hashed: HashedSource<'_, R>,
    inflated: Result<(), Error>,
    applied: Result<Applied, crate::tar::ApplyError>,
    hasher: Sha256,
    expected: &Expected,
) -> Result<Applied, Error> {
    let failure = match (inflated, applied) {
        (Ok(()), Ok(applied)) => {
            hashed.verify(expected)?;
            let actual = Digest::from_hasher(hasher);
            if actual == expected.diff_id.0 {
                return Ok(applied);
            }
            return Err(Error::Mismatch {
                what: "uncompressed layer".into(),
                expected: expected.diff_id.to_string(),
                actual: actual.to_string(),
                source_name: expected.source.clone(),
            });
        }
        (Err(error), _) => error,
        (Ok(()), Err(error)) => error.into(),
    };
    if hashed.most.is_some_and(|most| hashed.count > most) {
        hashed.verify(expected)?;
    }
    // A full disk or a lost connection says nothing about the bytes.
    if failure.kind() == crate::ErrorKind::Corrupt && hashed.read_on() {
        hashed.verify(expected)?;
    }
    Err(failure)
}

/// What travels between the threads.
type Chunk = io::Result<Vec<u8>>;

/// Inflates the source into chunks. Ends early, and without an error, where nobody takes them any more.
fn inflate<R: Read>(
    hashed: &mut HashedSource<'_, R>,
    full: &SyncSender<Chunk>,
    recycled: &Receiver<Vec<u8>>,
    limits: &Limits,
) -> Result<(), Error> {
    let result = inflate_chunks(hashed, full, recycled, limits);
    if result.is_err() {
        // The other side must not take the end of the chunks for the end of the archive; it may have ended already.
        full.send(Err(io::Error::other("the layer's data ended early")))
            .ok();
    }
    result
}

fn inflate_chunks<R: Read>(
    hashed: &mut HashedSource<'_, R>,
    full: &SyncSender<Chunk>,
    recycled: &Receiver<Vec<u8>>,
    limits: &Limits,
) -> Result<(), Error> {
    let mut inflated = Inflated::new(&mut *hashed)?;
    let format = inflated.format();
    let mut total = 0_u64;
    loop {
        let mut chunk = recycled.try_recv().unwrap_or_default();
        chunk.resize(CHUNK, 0);
        let filled =
            fill(&mut inflated, &mut chunk).map_err(|error| decode_error(format, error))?;
        if filled == 0 {
            break;
        }
        total += filled as u64;
        chunk.truncate(filled);
        if full.send(Ok(chunk)).is_err() {
            return Ok(());
        }
        let read = inflated.source().count;
        if total > RATIO_FROM && total / read.max(1) > limits.ratio {
            let reason = format!(
                "{read} bytes inflate to more than {total}: no honest layer has this ratio"
            );
            return Err(crate::tar::ApplyError::Refused {
                entry: String::new(),
                reason,
            }
            .into());
        }
    }
    // Bytes after the compressed data belong to the blob and its digest.
    let mut rest = inflated.into_inner();
    io::copy(&mut rest, &mut io::sink()).map_err(|error| decode_error(format, error))?;
    Ok(())
}

/// Reads until the chunk is full or the stream ends.
fn fill(reader: &mut impl Read, chunk: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < chunk.len() {
        match reader.read(&mut chunk[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// Data that does not inflate, or a source that broke off below the decoder.
fn decode_error(format: Format, error: io::Error) -> Error {
    match format {
        Format::Plain => crate::tar::ApplyError::Read { source: error }.into(),
        _ if error
            .get_ref()
            .is_some_and(|inner| inner.is::<SourceFailed>()) =>
        {
            crate::tar::ApplyError::Read { source: error }.into()
        }
        _ => Error::Inflate {
            format: format.name(),
            source: error,
        },
    }
}

/// Marks an error that came from the source and not from the decoder.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct SourceFailed(io::Error);

// === the source's side ===

/// Hashes and counts what is read, and refuses more than was promised.
pub(crate) struct HashedSource<'a, R> {
    source: R,
    hasher: Sha256,
    count: u64,
    most: Option<u64>,
    seen: &'a (dyn Fn(u64) + Sync),
}

impl<R: Read> HashedSource<'_, R> {
    /// Reads to the end of the source, if it is near.
    fn read_on(&mut self) -> bool {
        let mut buffer = vec![0; CHUNK];
        let until = self.count.saturating_add(READ_ON);
        while self.count < until {
            match self.read(&mut buffer) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(_) => return false,
            }
        }
        false
    }

    /// Compares what was read with what was promised.
    fn verify(&self, expected: &Expected) -> Result<(), Error> {
        let Some((digest, size)) = expected.blob else {
            return Ok(());
        };
        let mismatch = |expected_text: String, actual: String| Error::Mismatch {
            what: "layer".into(),
            expected: expected_text,
            actual,
            source_name: expected.source.clone(),
        };
        if self.count != size {
            return Err(mismatch(
                format!("{digest} of {size} bytes"),
                format!("{} bytes", self.count),
            ));
        }
        let actual = Digest::from_hasher(self.hasher.clone());
        if actual == digest {
            Ok(())
        } else {
            Err(mismatch(digest.to_string(), actual.to_string()))
        }
    }
}

impl<R: Read> Read for HashedSource<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self
            .source
            .read(buffer)
            .map_err(|error| match error.kind() {
                io::ErrorKind::Interrupted => error,
                _ => io::Error::other(SourceFailed(error)),
            })?;
        self.hasher.update(&buffer[..count]);
        self.count += count as u64;
        if self.most.is_some_and(|most| self.count > most) {
            return Err(io::Error::other(SourceFailed(io::Error::other(
                "more bytes arrived than the manifest names",
            ))));
        }
        (self.seen)(self.count);
        Ok(count)
    }
}

// === the archive's side ===

/// The chunks as one stream, hashed.
struct ChunkReader {
    chunks: Receiver<Chunk>,
    empty: SyncSender<Vec<u8>>,
    current: Vec<u8>,
    position: usize,
    hasher: Sha256,
}

impl Read for ChunkReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.position == self.current.len() {
            // Full only where the other side has enough of them.
            self.empty.try_send(std::mem::take(&mut self.current)).ok();
            self.position = 0;
            match self.chunks.recv() {
                Ok(Ok(chunk)) => {
                    self.hasher.update(&chunk);
                    self.current = chunk;
                }
                Ok(Err(error)) => return Err(error),
                Err(_) => return Ok(0),
            }
        }
        let count = buffer.len().min(self.current.len() - self.position);
        buffer[..count].copy_from_slice(&self.current[self.position..self.position + count]);
        self.position += count;
        Ok(count)
    }
}
