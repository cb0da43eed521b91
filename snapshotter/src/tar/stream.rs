//! Reads a layer archive entry by entry from a stream that cannot seek.

use std::io::{self, Read};

use tar_core::parse::{Limits as ParseLimits, ParseEvent, Parser};

use super::entry::{Entry, shown};
use super::error::ApplyError;
use super::limits::Limits;

/// How much is read at a time.
const CHUNK: usize = 256 * 1024;
/// A tar block.
const BLOCK: u64 = 512;

/// An archive being read.
pub(super) struct Stream<R> {
    reader: R,
    parser: Parser,
    buffer: Vec<u8>,
    /// The unread part of `buffer`.
    start: usize,
    end: usize,
    /// Content and padding of the current entry that were not read yet.
    content: u64,
    padding: u64,
    /// The last entry that was fine, for messages.
    last: Vec<u8>,
    total: u64,
    most: u64,
}

impl<R: Read> Stream<R> {
    pub(super) fn new(reader: R, limits: &Limits) -> Stream<R> {
        let path = u32::try_from(limits.path).unwrap_or(u32::MAX);
        let mut parser = Parser::new(ParseLimits {
            max_path_len: Some(path),
            ..ParseLimits::default()
        });
        // What Go does as well; times are read from the records again, with sign and fraction.
        parser.set_ignore_pax_errors(true);
        let buffer = vec![0; CHUNK];
        Stream {
            reader,
            parser,
            buffer,
            start: 0,
            end: 0,
            content: 0,
            padding: 0,
            last: vec![],
            total: 0,
            most: limits.bytes,
        }
    }

    /// The next entry, or `None` at the end. Skips what was not read of the one before.
    pub(super) fn next(&mut self) -> Result<Option<Entry>, ApplyError> {
        self.skip_rest()?;
        loop {
            let available = &self.buffer[self.start..self.end];
            let event = self
                .parser
                .parse(available)
                .map_err(|error| malformed(&self.last, &error.to_string()))?;
            match event {
                ParseEvent::NeedData { min_bytes } => {
                    if !self.fill(min_bytes)? {
                        // An archive may end without its two empty blocks, but not within an entry.
                        return if self.start == self.end || self.only_zeros() {
                            Ok(None)
                        } else {
                            Err(self.early_end())
                        };
                    }
                }
                ParseEvent::GlobalExtensions { consumed, .. } => self.start += consumed,
                ParseEvent::End { .. } => return Ok(None),
                ParseEvent::Entry { consumed, entry } => {
                    let size = entry.size;
                    let entry = Entry::from_parsed(&entry, None)?;
                    return Ok(Some(self.begin(consumed, size, entry)));
                }
                ParseEvent::SparseEntry {
                    consumed,
                    entry,
                    sparse_map,
                    real_size,
                } => {
                    let size = entry.size;
                    let entry = Entry::from_parsed(&entry, Some((sparse_map, real_size)))?;
                    return Ok(Some(self.begin(consumed, size, entry)));
                }
            }
        }
    }

    fn begin(&mut self, consumed: usize, size: u64, entry: Entry) -> Entry {
        self.start += consumed;
        self.content = entry.stored.min(size);
        self.padding = self.content.next_multiple_of(BLOCK) - self.content;
        self.last.clone_from(&entry.path);
        entry
    }

    /// Some of the current entry's content, at most `limit` bytes; empty at its end.
    pub(super) fn content(&mut self, limit: u64) -> Result<&[u8], ApplyError> {
        let want = self.content.min(limit);
        if want == 0 {
            return Ok(&[]);
        }
        if self.start == self.end && !self.fill(1)? {
            return Err(self.early_end());
        }
        let available = self.end - self.start;
        let count = usize::try_from(want).map_or(available, |want| want.min(available));
        let begin = self.start;
        self.start += count;
        self.content -= count as u64;
        Ok(&self.buffer[begin..begin + count])
    }

    fn skip_rest(&mut self) -> Result<(), ApplyError> {
        self.content = self
            .content
            .saturating_add(std::mem::take(&mut self.padding));
        while !self.content(u64::MAX)?.is_empty() {}
        Ok(())
    }

    /// Reads until at least `least` bytes are in the buffer; `false` at the end of the stream.
    fn fill(&mut self, least: usize) -> Result<bool, ApplyError> {
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        if self.buffer.len() < least {
            // Bounded by the parser's own limit on extension records.
            self.buffer.resize(least.next_multiple_of(CHUNK), 0);
        }
        while self.end < least {
            match self.reader.read(&mut self.buffer[self.end..]) {
                Ok(0) => return Ok(false),
                Ok(count) => self.count(count)?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(ApplyError::Read { source }),
            }
        }
        Ok(true)
    }

    fn count(&mut self, count: usize) -> Result<(), ApplyError> {
        self.end += count;
        self.total += count as u64;
        if self.total > self.most {
            let reason = format!("the layer is larger than {} bytes", self.most);
            return Err(ApplyError::Refused {
                entry: shown(&self.last),
                reason,
            });
        }
        Ok(())
    }

    /// Reads whatever follows the end of the archive, so that all of it was seen by whoever hashes it.
    pub(super) fn finish(mut self) -> Result<u64, ApplyError> {
        self.start = self.end;
        while self.fill(1)? {
            self.start = self.end;
        }
        Ok(self.total)
    }

    fn only_zeros(&self) -> bool {
        self.buffer[self.start..self.end]
            .iter()
            .all(|byte| *byte == 0)
    }

    fn early_end(&self) -> ApplyError {
        malformed(&self.last, "the archive ends in the middle of an entry")
    }
}

fn malformed(last: &[u8], reason: &str) -> ApplyError {
    ApplyError::Malformed {
        entry: shown(last),
        reason: reason.into(),
    }
}
