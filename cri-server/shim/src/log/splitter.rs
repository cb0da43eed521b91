//! Cutting a byte stream into log entries: at newlines, and at 16 KiB where none comes.

/// The most bytes of one entry, as containerd and the kubelet's reader have it.
pub(crate) const MAX_ENTRY: usize = 16 * 1024;

/// A buffer larger than this is given back when its line is done: few containers write long lines, and few at once.
const KEEP: usize = 1024;

/// Whether an entry ends its line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tag {
    /// The end of a line.
    Full,
    /// More of the same line follows (or would have, at the end of the stream).
    Partial,
}

impl Tag {
    pub(crate) fn letter(self) -> &'static [u8] {
        match self {
            Self::Full => b"F",
            Self::Partial => b"P",
        }
    }
}

/// Holds the beginning of the line that is not complete yet, at most [`MAX_ENTRY`] bytes.
#[derive(Debug, Default)]
pub(crate) struct LineSplitter {
    pending: Vec<u8>,
}

// === impl LineSplitter ===

impl LineSplitter {
    /// Cuts `data`. An entry is handed out in two pieces, what waited and what is new, to spare a copy.
    pub(crate) fn push(&mut self, mut data: &[u8], mut emit: impl FnMut(Tag, &[u8], &[u8])) {
        while !data.is_empty() {
            let room = MAX_ENTRY - self.pending.len();
            // One byte more than fits: a line of exactly MAX_ENTRY bytes is still a full one.
            let window = &data[..data.len().min(room + 1)];
            if let Some(newline) = window.iter().position(|byte| *byte == b'\n') {
                emit(Tag::Full, &self.pending, &data[..newline]);
                self.forget();
                data = &data[newline + 1..];
            } else if data.len() > room {
                emit(Tag::Partial, &self.pending, &data[..room]);
                self.forget();
                data = &data[room..];
            } else {
                self.pending.extend_from_slice(data);
                return;
            }
        }
    }

    /// The stream ended: what is left had no newline.
    pub(crate) fn finish(&mut self, mut emit: impl FnMut(Tag, &[u8], &[u8])) {
        if !self.pending.is_empty() {
            emit(Tag::Partial, &self.pending, &[]);
            self.pending = Vec::new();
        }
    }

    fn forget(&mut self) {
        self.pending.clear();
        if self.pending.capacity() > KEEP {
            self.pending = Vec::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Feeds the pieces and returns the entries.
    fn split<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<(Tag, Vec<u8>)> {
        let mut splitter = LineSplitter::default();
        let mut entries = Vec::new();
        let mut emit = |tag, head: &[u8], tail: &[u8]| entries.push((tag, [head, tail].concat()));
        for piece in pieces {
            splitter.push(piece, &mut emit);
        }
        splitter.finish(&mut emit);
        entries
    }

    #[test]
    fn lines_are_full_and_an_unterminated_tail_is_partial() {
        let entries = split([&b"one\n\ntw"[..], b"o\nrest"]);
        let expected: [(Tag, &[u8]); 4] = [
            (Tag::Full, b"one"),
            (Tag::Full, b""),
            (Tag::Full, b"two"),
            (Tag::Partial, b"rest"),
        ];
        assert_eq!(entries, expected.map(|(tag, text)| (tag, text.to_vec())));
    }

    #[test]
    fn a_line_of_exactly_the_limit_is_full_and_one_byte_more_is_split() {
        let exact = [vec![b'x'; MAX_ENTRY], vec![b'\n']].concat();
        assert_eq!(split([&exact[..]]), [(Tag::Full, vec![b'x'; MAX_ENTRY])]);
        let more = [vec![b'x'; MAX_ENTRY + 1], vec![b'\n']].concat();
        assert_eq!(
            split([&more[..]]),
            [
                (Tag::Partial, vec![b'x'; MAX_ENTRY]),
                (Tag::Full, vec![b'x'])
            ]
        );
    }

    #[test]
    fn a_long_line_gives_its_buffer_back() {
        let mut splitter = LineSplitter::default();
        splitter.push(&vec![b'x'; MAX_ENTRY], |_, _, _| {});
        splitter.push(b"\n", |_, _, _| {});
        assert_eq!(splitter.pending.capacity(), 0);
    }

    proptest! {
        /// However the stream is cut into reads, the entries are the same; joined again they are the stream.
        #[test]
        fn the_entries_depend_on_the_bytes_alone(
            lines in proptest::collection::vec((0_usize..40_000, any::<u8>()), 0..6),
            terminated in any::<bool>(),
            cuts in proptest::collection::vec(1_usize..20_000, 0..12),
        ) {
            let mut stream = Vec::new();
            for (length, byte) in &lines {
                let byte = if *byte == b'\n' { b'.' } else { *byte };
                stream.extend(std::iter::repeat_n(byte, *length));
                stream.push(b'\n');
            }
            if !terminated {
                stream.pop();
            }
            let whole = split([&stream[..]]);
            let mut rest = &stream[..];
            let mut pieces = Vec::new();
            for cut in cuts {
                let (piece, after) = rest.split_at(cut.min(rest.len()));
                pieces.push(piece);
                rest = after;
            }
            pieces.push(rest);
            prop_assert_eq!(&split(pieces), &whole);
            let mut joined = Vec::new();
            for (tag, text) in &whole {
                prop_assert!(text.len() <= MAX_ENTRY);
                prop_assert!(!text.contains(&b'\n'));
                joined.extend_from_slice(text);
                if *tag == Tag::Full {
                    joined.push(b'\n');
                }
            }
            prop_assert_eq!(joined, stream);
        }
    }
}
