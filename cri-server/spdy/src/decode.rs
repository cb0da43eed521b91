//! Bytes to frames.

use bytes::{Buf, Bytes, BytesMut};

use crate::MAX_CONTROL;
use crate::frame::{Error, Frame, Setting};
use crate::headers::Inflater;

/// Length of the header that every frame begins with.
const HEADER: usize = 8;
const FLAG_FIN: u8 = 1;
const FLAG_UNIDIRECTIONAL: u8 = 2;
const STREAM_MASK: u32 = 0x7fff_ffff;

/// Turns what comes over a connection into frames. After an error the connection is of no use.
pub struct Decoder {
    buffer: BytesMut,
    inflater: Inflater,
    /// The rest of a data frame whose header was read.
    data: Option<Data>,
}

#[derive(Clone, Copy)]
struct Data {
    stream: u32,
    fin: bool,
    left: usize,
}

impl std::fmt::Debug for Decoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Decoder").finish_non_exhaustive()
    }
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new()
    }
}

// === impl Decoder ===

impl Decoder {
    /// At the beginning of a connection.
    #[must_use]
    pub fn new() -> Self {
        Self {
            buffer: BytesMut::new(),
            inflater: Inflater::new(),
            data: None,
        }
    }

    /// Where to put what was received.
    pub fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// The next frame; `None` when more bytes are needed. Never holds back more than one control frame: content is
    /// given out as it comes.
    ///
    /// # Errors
    /// The bytes are not SPDY/3.1, or exceed a limit.
    #[expect(clippy::should_implement_trait, reason = "it goes on after None")]
    pub fn next(&mut self) -> Result<Option<Frame>, Error> {
        loop {
            if let Some(data) = self.data {
                return Ok(self.content(data));
            }
            let Some(header) = self.buffer.first_chunk::<HEADER>().copied() else {
                return Ok(None);
            };
            let [a, b, c, d, flags, x, y, z] = header;
            let left = u32::from_be_bytes([0, x, y, z]) as usize;
            if a & 0x80 == 0 {
                let stream = u32::from_be_bytes([a, b, c, d]);
                if stream == 0 {
                    return Err(Error::Stream {
                        frame: "DATA",
                        stream,
                    });
                }
                self.buffer.advance(HEADER);
                let fin = flags & FLAG_FIN != 0;
                self.data = Some(Data { stream, fin, left });
                continue;
            }
            let version = u16::from_be_bytes([a & 0x7f, b]);
            if version != 3 {
                return Err(Error::Version(version));
            }
            if left > MAX_CONTROL {
                return Err(Error::TooLong {
                    what: "control frame",
                    length: left,
                    limit: MAX_CONTROL,
                });
            }
            if self.buffer.len() < HEADER + left {
                return Ok(None);
            }
            self.buffer.advance(HEADER);
            let payload = self.buffer.split_to(left).freeze();
            // A type that is not known is to be ignored.
            if let Some(frame) = self.control(u16::from_be_bytes([c, d]), flags, payload)? {
                return Ok(Some(frame));
            }
        }
    }

    /// What is there of a data frame.
    fn content(&mut self, data: Data) -> Option<Frame> {
        let Data { stream, fin, left } = data;
        let here = left.min(self.buffer.len());
        if here == 0 && left > 0 {
            return None;
        }
        let bytes = self.buffer.split_to(here).freeze();
        let left = left - here;
        self.data = (left > 0).then_some(Data { stream, fin, left });
        Some(Frame::Data {
            stream,
            fin: fin && left == 0,
            data: bytes,
        })
    }

    fn control(&mut self, kind: u16, flags: u8, payload: Bytes) -> Result<Option<Frame>, Error> {
        let fin = flags & FLAG_FIN != 0;
        let mut payload = Payload {
            frame: name(kind),
            length: payload.len(),
            bytes: payload,
        };
        let frame = match kind {
            1 => {
                let stream = payload.stream()?;
                let associated = payload.number()? & STREAM_MASK;
                let priority = payload.byte()? >> 5;
                // The slot of a credential, which nobody uses.
                payload.byte()?;
                Frame::SynStream {
                    stream,
                    associated,
                    priority,
                    fin,
                    unidirectional: flags & FLAG_UNIDIRECTIONAL != 0,
                    headers: self.inflater.block(&payload.bytes)?,
                }
            }
            2 => Frame::SynReply {
                stream: payload.stream()?,
                fin,
                headers: self.inflater.block(&payload.bytes)?,
            },
            3 => {
                let (stream, status) = (payload.stream()?, payload.number()?);
                payload.end(Frame::RstStream { stream, status })?
            }
            4 => payload.settings()?,
            6 => {
                let id = payload.number()?;
                payload.end(Frame::Ping(id))?
            }
            7 => {
                let (last_good, status) = (payload.number()? & STREAM_MASK, payload.number()?);
                payload.end(Frame::GoAway { last_good, status })?
            }
            8 => Frame::Headers {
                stream: payload.stream()?,
                fin,
                headers: self.inflater.block(&payload.bytes)?,
            },
            9 => {
                let (stream, delta) = (payload.number()? & STREAM_MASK, payload.number()?);
                let delta = delta & STREAM_MASK;
                payload.end(Frame::WindowUpdate { stream, delta })?
            }
            _ => return Ok(None),
        };
        Ok(Some(frame))
    }
}

/// The content of a control frame.
struct Payload {
    frame: &'static str,
    length: usize,
    bytes: Bytes,
}

impl Payload {
    fn wrong_length(&self) -> Error {
        Error::Length {
            frame: self.frame,
            length: self.length,
        }
    }

    fn byte(&mut self) -> Result<u8, Error> {
        self.bytes.try_get_u8().map_err(|_| self.wrong_length())
    }

    fn number(&mut self) -> Result<u32, Error> {
        self.bytes.try_get_u32().map_err(|_| self.wrong_length())
    }

    fn stream(&mut self) -> Result<u32, Error> {
        match self.number()? & STREAM_MASK {
            0 => Err(Error::Stream {
                frame: self.frame,
                stream: 0,
            }),
            stream => Ok(stream),
        }
    }

    /// `frame`, if nothing follows.
    fn end(&self, frame: Frame) -> Result<Frame, Error> {
        if self.bytes.is_empty() {
            Ok(frame)
        } else {
            Err(self.wrong_length())
        }
    }

    fn settings(&mut self) -> Result<Frame, Error> {
        let count = self.number()? as usize;
        if count.checked_mul(8) != Some(self.bytes.len()) {
            return Err(self.wrong_length());
        }
        let mut settings = Vec::with_capacity(count);
        for _ in 0..count {
            let [flags, x, y, z] = self.number()?.to_be_bytes();
            settings.push(Setting {
                flags,
                id: u32::from_be_bytes([0, x, y, z]),
                value: self.number()?,
            });
        }
        Ok(Frame::Settings(settings))
    }
}

fn name(kind: u16) -> &'static str {
    match kind {
        1 => "SYN_STREAM",
        2 => "SYN_REPLY",
        3 => "RST_STREAM",
        4 => "SETTINGS",
        6 => "PING",
        7 => "GOAWAY",
        8 => "HEADERS",
        9 => "WINDOW_UPDATE",
        _ => "control",
    }
}
