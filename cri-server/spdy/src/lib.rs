//! SPDY/3.1 as the clients of CRI's streaming speak it: bytes to frames and back, without any input or output.
//!
//! ```text
//! control  |1| version 3 (15) | type (16) | flags (8) | length (24) | …
//! data     |0| stream id (31)             | flags (8) | length (24) | …
//! ```
//!
//! What one must know of the peers (moby/spdystream, Go): header blocks go through one zlib context per direction and
//! connection, primed with a dictionary; nobody counts flow-control windows, so [`Frame::WindowUpdate`] is read and
//! means nothing, and back-pressure is TCP's.
#![forbid(unsafe_code)]

mod decode;
mod dictionary;
mod encode;
mod frame;
mod headers;

pub use decode::Decoder;
pub use encode::Encoder;
pub use frame::{Error, Frame, Headers, RstStatus, Setting};

/// The longest control frame that is read; a longer one ends the connection.
pub const MAX_CONTROL: usize = 1 << 20;

/// The longest header block after inflating.
pub const MAX_HEADER_BLOCK: usize = 1 << 20;

/// The most headers in a block.
pub const MAX_HEADERS: usize = 1000;

/// The longest payload of a data frame: 24 bits.
pub const MAX_DATA: usize = (1 << 24) - 1;
