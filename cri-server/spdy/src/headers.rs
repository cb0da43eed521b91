//! Header blocks: a count, then names and values with their lengths, all through zlib.

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use crate::dictionary::DICTIONARY;
use crate::frame::{Error, Headers};
use crate::{MAX_HEADER_BLOCK, MAX_HEADERS};

/// How much zlib makes in one step.
const STEP: usize = 4096;

/// The reading direction of a connection.
pub(crate) struct Inflater(Decompress);

/// The writing direction of a connection.
pub(crate) struct Deflater {
    zlib: Compress,
    primed: bool,
}

impl Inflater {
    pub(crate) fn new() -> Self {
        Self(Decompress::new(true))
    }

    pub(crate) fn block(&mut self, compressed: &[u8]) -> Result<Headers, Error> {
        parse(&self.inflate(compressed)?)
    }

    /// The sender flushes after each block, so all of it comes out.
    fn inflate(&mut self, mut input: &[u8]) -> Result<Vec<u8>, Error> {
        let mut block = Vec::new();
        let mut chunk = [0; STEP];
        loop {
            let (read, made) = (self.0.total_in(), self.0.total_out());
            let result = self.0.decompress(input, &mut chunk, FlushDecompress::Sync);
            let count = |now: u64, before: u64| usize::try_from(now - before).unwrap_or(STEP);
            let (read, made) = (
                count(self.0.total_in(), read),
                count(self.0.total_out(), made),
            );
            input = &input[read.min(input.len())..];
            block.extend_from_slice(&chunk[..made]);
            if block.len() > MAX_HEADER_BLOCK {
                return Err(Error::TooLong {
                    what: "header block",
                    length: block.len(),
                    limit: MAX_HEADER_BLOCK,
                });
            }
            match result {
                Ok(Status::StreamEnd) => {
                    return Err(Error::Zlib("the stream ends inside the connection".into()));
                }
                Ok(_) if made == STEP => {}
                Ok(_) if input.is_empty() => return Ok(block),
                Ok(_) if read > 0 || made > 0 => {}
                Ok(_) => return Err(Error::Zlib("it does not advance".into())),
                Err(error) if error.needs_dictionary().is_some() => {
                    self.0
                        .set_dictionary(DICTIONARY)
                        .map_err(|error| Error::Zlib(error.to_string()))?;
                }
                Err(error) => return Err(Error::Zlib(error.to_string())),
            }
        }
    }
}

impl Deflater {
    pub(crate) fn new() -> Self {
        Self {
            zlib: Compress::new(Compression::fast(), true),
            primed: false,
        }
    }

    pub(crate) fn block(&mut self, headers: &Headers, out: &mut Vec<u8>) -> Result<(), Error> {
        let zlib = |error: flate2::CompressError| Error::Zlib(error.to_string());
        if !self.primed {
            self.zlib.set_dictionary(DICTIONARY).map_err(zlib)?;
            self.primed = true;
        }
        let plain = plain(headers)?;
        let mut input = &plain[..];
        let mut chunk = [0; STEP];
        loop {
            let (read, made) = (self.zlib.total_in(), self.zlib.total_out());
            self.zlib
                .compress(input, &mut chunk, FlushCompress::Sync)
                .map_err(zlib)?;
            let count = |now: u64, before: u64| usize::try_from(now - before).unwrap_or(STEP);
            let read = count(self.zlib.total_in(), read);
            let made = count(self.zlib.total_out(), made);
            input = &input[read.min(input.len())..];
            out.extend_from_slice(&chunk[..made]);
            if input.is_empty() && made < STEP {
                return Ok(());
            }
        }
    }
}

fn plain(headers: &Headers) -> Result<Vec<u8>, Error> {
    let length = |text: usize| u32::try_from(text).map_err(|_| Error::Headers("it is too long"));
    let mut block = Vec::new();
    block.extend_from_slice(&length(headers.0.len())?.to_be_bytes());
    for (name, value) in &headers.0 {
        for text in [name, value] {
            block.extend_from_slice(&length(text.len())?.to_be_bytes());
            block.extend_from_slice(text.as_bytes());
        }
    }
    if block.len() > MAX_HEADER_BLOCK || headers.0.len() > MAX_HEADERS {
        return Err(Error::Headers("it is too long"));
    }
    Ok(block)
}

fn parse(mut block: &[u8]) -> Result<Headers, Error> {
    let count = usize::try_from(number(&mut block)?).unwrap_or(usize::MAX);
    if count > MAX_HEADERS {
        return Err(Error::TooLong {
            what: "list of headers",
            length: count,
            limit: MAX_HEADERS,
        });
    }
    let mut headers: Vec<(String, String)> = Vec::new();
    for _ in 0..count {
        let name = text(&mut block)?.to_ascii_lowercase();
        if name.is_empty() {
            return Err(Error::Headers("a name is empty"));
        }
        let value = text(&mut block)?;
        if headers.iter().any(|(one, _)| *one == name) {
            return Err(Error::Headers("a name occurs twice"));
        }
        headers.push((name, value));
    }
    if !block.is_empty() {
        return Err(Error::Headers("bytes follow the last header"));
    }
    Ok(Headers(headers))
}

fn number(block: &mut &[u8]) -> Result<u32, Error> {
    let (number, rest) = block
        .split_first_chunk()
        .ok_or(Error::Headers("it is cut off"))?;
    *block = rest;
    Ok(u32::from_be_bytes(*number))
}

fn text(block: &mut &[u8]) -> Result<String, Error> {
    let length = usize::try_from(number(block)?).unwrap_or(usize::MAX);
    let (text, rest) = block
        .split_at_checked(length)
        .ok_or(Error::Headers("it is cut off"))?;
    *block = rest;
    let text = std::str::from_utf8(text).map_err(|_| Error::Headers("a text is not UTF-8"))?;
    Ok(text.to_owned())
}
