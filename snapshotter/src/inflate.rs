//! Decompression of layers, by what their first bytes say: media types lie more often than magic numbers.

use std::io::{self, BufRead, BufReader, Chain, Cursor, Read};

use flate2::bufread::MultiGzDecoder;

use crate::error::Error;

/// How a layer is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// gzip, possibly of several members (pigz, bgzip, estargz).
    Gzip,
    /// zstd, possibly of several frames (zstd:chunked).
    Zstd,
    /// Not at all.
    Plain,
}

impl Format {
    /// The name in messages.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Format::Gzip => "gzip",
            Format::Zstd => "zstd",
            Format::Plain => "plain",
        }
    }
}

/// Bytes of a stream that were looked at, and the rest of it.
type Rewound<R> = BufReader<Chain<Cursor<Vec<u8>>, R>>;

/// A stream with its compression taken off.
pub(crate) enum Inflated<R: Read> {
    /// From gzip.
    Gzip(Box<MultiGzDecoder<Rewound<R>>>),
    /// From zstd.
    Zstd(Box<zstd::stream::read::Decoder<'static, Rewound<R>>>),
    /// As it came.
    Plain(Rewound<R>),
}

impl<R: Read> Inflated<R> {
    /// Looks at the first bytes of `reader` and undoes its compression.
    ///
    /// # Errors
    /// [`Error::Compression`] for known formats that images do not have; what reading the first bytes says.
    pub(crate) fn new(mut reader: R) -> Result<Inflated<R>, Error> {
        let mut head = vec![0; 6];
        let mut filled = 0;
        while filled < head.len() {
            match reader.read(&mut head[filled..]) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(crate::tar::ApplyError::Read { source }.into()),
            }
        }
        head.truncate(filled);
        let format = sniff(&head)?;
        let rewound = BufReader::with_capacity(64 * 1024, Cursor::new(head).chain(reader));
        Ok(match format {
            Format::Gzip => Inflated::Gzip(Box::new(MultiGzDecoder::new(rewound))),
            Format::Zstd => {
                let decoder = zstd::stream::read::Decoder::with_buffer(rewound);
                Inflated::Zstd(Box::new(decoder.map_err(|source| Error::Inflate {
                    format: "zstd",
                    source,
                })?))
            }
            Format::Plain => Inflated::Plain(rewound),
        })
    }

    /// The compression that was found.
    pub(crate) fn format(&self) -> Format {
        match self {
            Inflated::Gzip(_) => Format::Gzip,
            Inflated::Zstd(_) => Format::Zstd,
            Inflated::Plain(_) => Format::Plain,
        }
    }

    /// The stream below, as far as it was read.
    pub(crate) fn source(&self) -> &R {
        let buffered = match self {
            Inflated::Gzip(decoder) => decoder.get_ref(),
            Inflated::Zstd(decoder) => decoder.get_ref(),
            Inflated::Plain(reader) => reader,
        };
        buffered.get_ref().get_ref().1
    }

    /// The compressed stream, with whatever follows the compressed data.
    pub(crate) fn into_inner(self) -> impl BufRead {
        match self {
            Inflated::Gzip(decoder) => decoder.into_inner(),
            Inflated::Zstd(decoder) => decoder.finish(),
            Inflated::Plain(reader) => reader,
        }
    }
}

impl<R: Read> Read for Inflated<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Inflated::Gzip(decoder) => decoder.read(buffer),
            Inflated::Zstd(decoder) => decoder.read(buffer),
            Inflated::Plain(reader) => reader.read(buffer),
        }
    }
}

/// What the first bytes of a layer say.
fn sniff(head: &[u8]) -> Result<Format, Error> {
    Ok(match head {
        [0x1f, 0x8b, ..] => Format::Gzip,
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Format::Zstd,
        [0xfd, b'7', b'z', b'X', b'Z', 0] => return Err(Error::Compression("xz")),
        [b'B', b'Z', b'h', b'1'..=b'9', ..] => return Err(Error::Compression("bzip2")),
        [0x04, 0x22, 0x4d, 0x18, ..] => return Err(Error::Compression("lz4")),
        _ => Format::Plain,
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn gzip(data: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(vec![], flate2::Compression::fast());
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    }

    /// A stream that gives one byte at a time.
    struct Trickle<'a>(&'a [u8]);

    impl Read for Trickle<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let count = buffer.len().min(1);
            self.0.read(&mut buffer[..count])
        }
    }

    fn inflate(data: &[u8]) -> (Format, Vec<u8>) {
        let mut inflated = Inflated::new(Trickle(data)).unwrap();
        let mut out = vec![];
        inflated.read_to_end(&mut out).unwrap();
        (inflated.format(), out)
    }

    #[test]
    fn each_format_is_recognised_by_its_first_bytes_however_they_arrive() {
        let data: Vec<u8> = (0..100_000_u32).flat_map(u32::to_le_bytes).collect();
        let zstd = zstd::encode_all(&data[..], 1).unwrap();
        assert_eq!(inflate(&gzip(&data)), (Format::Gzip, data.clone()));
        assert_eq!(inflate(&zstd), (Format::Zstd, data.clone()));
        assert_eq!(inflate(&data), (Format::Plain, data));
        assert_eq!(inflate(b""), (Format::Plain, vec![]));
        assert_eq!(inflate(b"ab"), (Format::Plain, b"ab".to_vec()));
    }

    #[test]
    fn several_members_or_frames_are_one_stream() {
        assert_eq!(
            inflate(&[gzip(b"one "), gzip(b""), gzip(b"two")].concat()).1,
            b"one two"
        );
        // A skippable frame, as zstd:chunked puts it, is no content.
        let skippable = [&[0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0][..], b"xyz"].concat();
        let frames = [
            skippable.clone(),
            zstd::encode_all(&b"one "[..], 1).unwrap(),
            zstd::encode_all(&b"two"[..], 1).unwrap(),
            skippable,
        ];
        assert_eq!(
            inflate(&frames.concat()),
            (Format::Zstd, b"one two".to_vec())
        );
    }

    #[test]
    fn other_compressions_are_refused_by_name() {
        for (head, name) in [
            (&b"\xfd7zXZ\0"[..], "xz"),
            (b"BZh91A", "bzip2"),
            (b"\x04\x22\x4d\x18ab", "lz4"),
        ] {
            let error = Inflated::new(head).err().unwrap().to_string();
            assert!(error.contains(name), "{error}");
        }
    }
}
