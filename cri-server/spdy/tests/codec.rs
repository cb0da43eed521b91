//! What the codec promises: a round trip for every frame in any pieces, and an error, never a panic, for the rest.

use bytes::Bytes;
use proptest::prelude::*;
use spdy::{Decoder, Encoder, Error, Frame, Headers, MAX_HEADER_BLOCK, Setting};

/// All frames of `bytes`, given to the decoder in pieces of `piece` bytes.
fn decode(bytes: &[u8], piece: usize) -> Result<Vec<Frame>, Error> {
    let mut decoder = Decoder::new();
    let mut frames = Vec::new();
    for part in bytes.chunks(piece.max(1)) {
        decoder.buffer().extend_from_slice(part);
        while let Some(frame) = decoder.next()? {
            frames.push(frame);
        }
    }
    Ok(frames)
}

fn encode(frames: &[Frame]) -> Vec<u8> {
    let (mut encoder, mut bytes) = (Encoder::new(), Vec::new());
    for frame in frames {
        encoder
            .encode(frame, &mut bytes)
            .expect("a frame that fits");
    }
    bytes
}

/// Puts the pieces of data frames together again.
fn joined(frames: Vec<Frame>) -> Vec<Frame> {
    let mut all: Vec<Frame> = Vec::new();
    for frame in frames {
        match (all.last_mut(), frame) {
            (
                Some(Frame::Data { stream, fin, data }),
                Frame::Data {
                    stream: same,
                    fin: end,
                    data: more,
                },
            ) if *stream == same && !*fin => {
                *data = [&data[..], &more[..]].concat().into();
                *fin = end;
            }
            (_, frame) => all.push(frame),
        }
    }
    all
}

fn headers() -> impl Strategy<Value = Headers> {
    prop::collection::btree_map("[a-z-]{1,20}", "[ -~\0]{0,40}", 0..8)
        .prop_map(|map| Headers(map.into_iter().collect()))
}

fn stream() -> impl Strategy<Value = u32> {
    1..=0x7fff_ffff_u32
}

fn frame() -> impl Strategy<Value = Frame> {
    prop_oneof![
        (stream(), 0..8_u8, any::<bool>(), any::<bool>(), headers()).prop_map(
            |(stream, priority, fin, unidirectional, headers)| Frame::SynStream {
                stream,
                associated: 0,
                priority,
                fin,
                unidirectional,
                headers
            }
        ),
        (stream(), any::<bool>(), headers()).prop_map(|(stream, fin, headers)| Frame::SynReply {
            stream,
            fin,
            headers
        }),
        (stream(), any::<bool>(), headers()).prop_map(|(stream, fin, headers)| Frame::Headers {
            stream,
            fin,
            headers
        }),
        (stream(), any::<u32>()).prop_map(|(stream, status)| Frame::RstStream { stream, status }),
        any::<u32>().prop_map(Frame::Ping),
        (stream(), any::<u32>())
            .prop_map(|(last_good, status)| Frame::GoAway { last_good, status }),
        (stream(), stream()).prop_map(|(stream, delta)| Frame::WindowUpdate { stream, delta }),
        prop::collection::vec((any::<u8>(), 0..1_u32 << 24, any::<u32>()), 0..4).prop_map(|all| {
            Frame::Settings(
                all.into_iter()
                    .map(|(flags, id, value)| Setting { flags, id, value })
                    .collect(),
            )
        }),
        (stream(), prop::collection::vec(any::<u8>(), 0..300)).prop_map(|(stream, data)| {
            Frame::Data {
                stream,
                fin: true,
                data: data.into(),
            }
        }),
    ]
}

proptest! {
    #[test]
    fn what_is_encoded_is_decoded_in_any_pieces(
        frames in prop::collection::vec(frame(), 0..12), piece in 1..64_usize
    ) {
        prop_assert_eq!(joined(decode(&encode(&frames), piece).expect("our own frames")), frames);
    }

    #[test]
    fn any_bytes_are_frames_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        decode(&bytes, 7).ok();
    }

    #[test]
    fn a_flipped_bit_is_frames_or_an_error(
        frames in prop::collection::vec(frame(), 1..6), at in any::<prop::sample::Index>(), bit in 0..8_u8
    ) {
        let mut bytes = encode(&frames);
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        decode(&bytes, 50).ok();
    }
}

/// The bytes of a SYN_STREAM that Go's spdystream sent for `streamtype: error` (zlib with the SPDY/3 dictionary).
#[test]
fn the_dictionary_is_spdys() {
    let headers = Headers(vec![("streamtype".into(), "error".into())]);
    let bytes = encode(&[Frame::SynReply {
        stream: 1,
        fin: false,
        headers,
    }]);
    // zlib's header: 0x78, level bits with FDICT, then Adler-32 of the dictionary, the same in every implementation.
    assert_eq!(bytes[12], 0x78);
    assert_eq!(bytes[13] & 0x20, 0x20, "a dictionary is asked for");
    assert_eq!(&bytes[14..18], &[0xe3, 0xc6, 0xa7, 0xc2]);
}

#[test]
fn content_is_given_out_as_it_comes() {
    let mut decoder = Decoder::new();
    // 16 MiB - 1 announced, three bytes there.
    decoder
        .buffer()
        .extend_from_slice(&[0, 0, 0, 1, 1, 0xff, 0xff, 0xff, b'a', b'b', b'c']);
    let frame = decoder.next().expect("SPDY").expect("a piece");
    let data = Bytes::from_static(b"abc");
    assert_eq!(
        frame,
        Frame::Data {
            stream: 1,
            fin: false,
            data
        }
    );
    assert_eq!(decoder.next(), Ok(None));
}

#[test]
fn a_control_frame_of_an_unknown_type_is_skipped() {
    let mut bytes = vec![0x80, 3, 0, 99, 0, 0, 0, 2, 1, 2];
    bytes.extend_from_slice(&encode(&[Frame::Ping(7)]));
    assert_eq!(decode(&bytes, 3), Ok(vec![Frame::Ping(7)]));
}

#[test]
fn each_broken_frame_has_its_error() {
    let table: [(&[u8], Error); 5] = [
        (&[0x80, 2, 0, 6, 0, 0, 0, 4, 0, 0, 0, 1], Error::Version(2)),
        (
            &[0x80, 3, 0, 6, 0, 0, 0, 5, 0, 0, 0, 1, 0],
            Error::Length {
                frame: "PING",
                length: 5,
            },
        ),
        (
            &[0, 0, 0, 0, 0, 0, 0, 0],
            Error::Stream {
                frame: "DATA",
                stream: 0,
            },
        ),
        (
            &[0x80, 3, 0, 3, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 1],
            Error::Stream {
                frame: "RST_STREAM",
                stream: 0,
            },
        ),
        (
            &[0x80, 3, 0, 4, 0, 0, 0, 4, 0xff, 0xff, 0xff, 0xff],
            Error::Length {
                frame: "SETTINGS",
                length: 4,
            },
        ),
    ];
    for (bytes, error) in table {
        assert_eq!(decode(bytes, 64), Err(error), "{bytes:?}");
    }
}

/// A megabyte of zeros deflates to a kilobyte.
#[test]
fn a_header_block_that_explodes_is_refused() {
    let headers = Headers(vec![("a".into(), "x".repeat(MAX_HEADER_BLOCK - 64))]);
    let frame = |headers| Frame::SynReply {
        stream: 1,
        fin: false,
        headers,
    };
    let most = encode(&[frame(headers.clone())]);
    assert!(most.len() < MAX_HEADER_BLOCK / 10, "{}", most.len());
    assert_eq!(decode(&most, 100_000).map(|frames| frames.len()), Ok(1));
    let bomb = deflated(&vec![b'x'; 2 * MAX_HEADER_BLOCK]);
    let mut bytes = vec![0x80, 3, 0, 2, 0];
    let length = u32::try_from(bomb.len() + 4).expect("short").to_be_bytes();
    bytes.extend_from_slice(&length[1..]);
    bytes.extend_from_slice(&[0, 0, 0, 1]);
    bytes.extend_from_slice(&bomb);
    assert!(matches!(
        decode(&bytes, 100_000),
        Err(Error::TooLong {
            what: "header block",
            ..
        })
    ));
}

/// Without a dictionary, which zlib does not insist on.
fn deflated(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    flate2::Compress::new(flate2::Compression::best(), true)
        .compress_vec(bytes, &mut out, flate2::FlushCompress::Sync)
        .expect("deflated");
    out
}
