//! Frames as values.

use bytes::Bytes;

/// One frame. Stream ids have 31 bits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// Opens a stream; a client's have odd ids.
    SynStream {
        /// The new stream.
        stream: u32,
        /// The stream that it belongs to; 0 for none.
        associated: u32,
        /// 0 (highest) to 7.
        priority: u8,
        /// The sender sends nothing on it.
        fin: bool,
        /// The receiver sends nothing on it.
        unidirectional: bool,
        /// Its headers.
        headers: Headers,
    },
    /// Accepts a stream.
    SynReply {
        /// Which.
        stream: u32,
        /// Nothing follows.
        fin: bool,
        /// The answer's headers.
        headers: Headers,
    },
    /// Ends a stream at once, in both directions.
    RstStream {
        /// Which.
        stream: u32,
        /// Why.
        status: u32,
    },
    /// Settings of the connection.
    Settings(Vec<Setting>),
    /// To be sent back as it is by whoever did not make its id.
    Ping(u32),
    /// No new streams from here on.
    GoAway {
        /// The last stream of the other side that was taken.
        last_good: u32,
        /// 0: all is well.
        status: u32,
    },
    /// More headers of a stream.
    Headers {
        /// Which.
        stream: u32,
        /// Nothing follows.
        fin: bool,
        /// The headers.
        headers: Headers,
    },
    /// Room for more bytes.
    WindowUpdate {
        /// Which stream; 0 is the connection.
        stream: u32,
        /// How many.
        delta: u32,
    },
    /// Content. The decoder may give a long frame in several pieces, the last of which carries `fin`.
    Data {
        /// Of which stream.
        stream: u32,
        /// Nothing follows.
        fin: bool,
        /// At most [`crate::MAX_DATA`] bytes.
        data: Bytes,
    },
}

/// Name and value pairs, in order; names are lower case and occur once. Several values of one name are joined by NUL.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Headers(pub Vec<(String, String)>);

impl Headers {
    /// The value of `name` (lower case).
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(one, _)| one == name);
        found.map(|(_, value)| value.as_str())
    }
}

/// One setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Setting {
    /// Whether to keep it.
    pub flags: u8,
    /// Which, in 24 bits.
    pub id: u32,
    /// Its value.
    pub value: u32,
}

/// Why a stream is reset: the codes that are sent here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum RstStatus {
    /// The stream breaks the protocol.
    ProtocolError = 1,
    /// Frames for a stream that does not exist.
    InvalidStream = 2,
    /// Not taken; it was not processed at all.
    RefusedStream = 3,
    /// The sender lost interest.
    Cancel = 5,
    /// The sender failed.
    InternalError = 6,
}

/// Why bytes are not SPDY, or a frame does not fit into it. The connection cannot go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not SPDY/3.
    #[error("a control frame of SPDY version {0}, not 3")]
    Version(u16),
    /// Longer than anybody needs.
    #[error("a {what} of {length} bytes; {limit} are allowed")]
    TooLong {
        /// What.
        what: &'static str,
        /// How long.
        length: usize,
        /// How long it may be.
        limit: usize,
    },
    /// Shorter or longer than its type says.
    #[error("a {frame} frame of {length} bytes")]
    Length {
        /// The frame's name.
        frame: &'static str,
        /// Its length.
        length: usize,
    },
    /// A stream id of 0, or one with more than 31 bits.
    #[error("a {frame} frame for stream {stream}")]
    Stream {
        /// The frame's name.
        frame: &'static str,
        /// The id.
        stream: u32,
    },
    /// The header block cannot be inflated.
    #[error("a header block that zlib does not understand: {0}")]
    Zlib(String),
    /// The header block is not one.
    #[error("a bad header block: {0}")]
    Headers(&'static str),
}
