//! Frames to bytes.

use crate::frame::{Error, Frame, Headers};
use crate::headers::Deflater;
use crate::{MAX_CONTROL, MAX_DATA};

const STREAM_MASK: u32 = 0x7fff_ffff;

/// Writes the frames of one direction of a connection; their order counts, because headers are compressed together.
pub struct Encoder {
    deflater: Deflater,
}

impl std::fmt::Debug for Encoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Encoder").finish_non_exhaustive()
    }
}

impl Default for Encoder {
    fn default() -> Self {
        Self::new()
    }
}

impl Encoder {
    /// At the beginning of a connection.
    #[must_use]
    pub fn new() -> Self {
        Self {
            deflater: Deflater::new(),
        }
    }

    /// Appends the bytes of `frame` to `out`.
    ///
    /// # Errors
    /// The frame is longer than SPDY can say; the connection cannot go on when it has headers.
    pub fn encode(&mut self, frame: &Frame, out: &mut Vec<u8>) -> Result<(), Error> {
        match frame {
            Frame::Data { stream, fin, data } => {
                let length = length("data frame", data.len(), MAX_DATA)?;
                out.extend_from_slice(&(stream & STREAM_MASK).to_be_bytes());
                out.extend_from_slice(&flags_and_length(u8::from(*fin), length));
                out.extend_from_slice(data);
                Ok(())
            }
            Frame::SynStream {
                stream,
                associated,
                priority,
                fin,
                unidirectional,
                headers,
            } => {
                let flags = u8::from(*fin) | u8::from(*unidirectional) << 1;
                let mut start = numbers(&[stream & STREAM_MASK, associated & STREAM_MASK]);
                start.extend_from_slice(&[(priority & 7) << 5, 0]);
                self.with_headers((1, flags), start, headers, out)
            }
            Frame::SynReply {
                stream,
                fin,
                headers,
            } => self.with_headers(
                (2, u8::from(*fin)),
                numbers(&[stream & STREAM_MASK]),
                headers,
                out,
            ),
            Frame::Headers {
                stream,
                fin,
                headers,
            } => self.with_headers(
                (8, u8::from(*fin)),
                numbers(&[stream & STREAM_MASK]),
                headers,
                out,
            ),
            Frame::RstStream { stream, status } => {
                control((3, 0), &numbers(&[stream & STREAM_MASK, *status]), out)
            }
            Frame::Settings(settings) => {
                let count = u32::try_from(settings.len()).unwrap_or(u32::MAX);
                let mut payload = numbers(&[count]);
                for one in settings {
                    let [_, x, y, z] = one.id.to_be_bytes();
                    payload.extend_from_slice(&[one.flags, x, y, z]);
                    payload.extend_from_slice(&one.value.to_be_bytes());
                }
                control((4, 0), &payload, out)
            }
            Frame::Ping(id) => control((6, 0), &numbers(&[*id]), out),
            Frame::GoAway { last_good, status } => {
                control((7, 0), &numbers(&[last_good & STREAM_MASK, *status]), out)
            }
            Frame::WindowUpdate { stream, delta } => control(
                (9, 0),
                &numbers(&[stream & STREAM_MASK, delta & STREAM_MASK]),
                out,
            ),
        }
    }

    fn with_headers(
        &mut self,
        kind: (u16, u8),
        mut payload: Vec<u8>,
        headers: &Headers,
        out: &mut Vec<u8>,
    ) -> Result<(), Error> {
        self.deflater.block(headers, &mut payload)?;
        control(kind, &payload, out)
    }
}

fn control((kind, flags): (u16, u8), payload: &[u8], out: &mut Vec<u8>) -> Result<(), Error> {
    let length = length("control frame", payload.len(), MAX_CONTROL)?;
    out.extend_from_slice(&[0x80, 3]);
    out.extend_from_slice(&kind.to_be_bytes());
    out.extend_from_slice(&flags_and_length(flags, length));
    out.extend_from_slice(payload);
    Ok(())
}

fn numbers(numbers: &[u32]) -> Vec<u8> {
    numbers.iter().flat_map(|one| one.to_be_bytes()).collect()
}

fn length(what: &'static str, length: usize, limit: usize) -> Result<u32, Error> {
    let fits = u32::try_from(length).ok().filter(|_| length <= limit);
    fits.ok_or(Error::TooLong {
        what,
        length,
        limit,
    })
}

fn flags_and_length(flags: u8, length: u32) -> [u8; 4] {
    let [_, x, y, z] = length.to_be_bytes();
    [flags, x, y, z]
}
