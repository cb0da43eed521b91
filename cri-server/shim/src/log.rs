//! CRI logs: `2006-01-02T15:04:05.999999999Z stdout F text`, one entry per line, appended to a file.
//!
//! ```text
//! pipe ──read──▶ LineSplitter ──entries──▶ Batch (one timestamp per read) ──write──▶ LogFile
//! ```
//!
//! A slow disk slows the reader, the pipe fills, and the container waits: no line is lost. A *failing* disk (full, gone)
//! must not stop the container: what cannot be written is counted and dropped, and the reading goes on.
mod file;
mod splitter;
mod time;

pub(crate) use file::LogFile;
pub(crate) use splitter::{LineSplitter, Tag};
pub(crate) use time::{Timestamp, now_ns};

/// Entries are collected up to about this size and then written with one system call.
const BATCH: usize = 16 * 1024;

/// Which of the container's outputs an entry came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// Standard output, or a terminal, which has only one.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Source {
    fn name(self) -> &'static [u8] {
        match self {
            Self::Stdout => b"stdout",
            Self::Stderr => b"stderr",
        }
    }
}

/// The output buffer that all containers of a shim share: it is empty between two reads.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    text: Vec<u8>,
}

// === impl Batch ===

impl Batch {
    /// Logs what was read from one output.
    pub(crate) fn log(
        &mut self,
        file: &mut LogFile,
        source: Source,
        splitter: &mut LineSplitter,
        data: &[u8],
    ) {
        let time = Timestamp::now();
        splitter.push(data, |tag, head, tail| {
            self.entry(file, &time, source, tag, head, tail)
        });
        self.flush(file);
    }

    /// Logs the unterminated rest at the end of an output, as a partial entry.
    pub(crate) fn finish(
        &mut self,
        file: &mut LogFile,
        source: Source,
        splitter: &mut LineSplitter,
    ) {
        let time = Timestamp::now();
        splitter.finish(|tag, head, tail| self.entry(file, &time, source, tag, head, tail));
        self.flush(file);
    }

    fn entry(
        &mut self,
        file: &mut LogFile,
        time: &Timestamp,
        source: Source,
        tag: Tag,
        head: &[u8],
        tail: &[u8],
    ) {
        let parts: [&[u8]; 8] = [
            time.as_bytes(),
            b" ",
            source.name(),
            b" ",
            tag.letter(),
            b" ",
            head,
            tail,
        ];
        for part in parts {
            self.text.extend_from_slice(part);
        }
        self.text.push(b'\n');
        if self.text.len() >= BATCH {
            self.flush(file);
        }
    }

    fn flush(&mut self, file: &mut LogFile) {
        if !self.text.is_empty() {
            file.append(&self.text);
            self.text.clear();
        }
    }
}
