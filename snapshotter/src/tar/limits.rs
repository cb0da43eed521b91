//! How much one layer may ask for.

/// Bounds on what a layer may contain. A layer beyond one of them is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Entries in the archive.
    pub entries: u64,
    /// Bytes of the uncompressed archive.
    pub bytes: u64,
    /// Bytes of an entry's path.
    pub path: usize,
    /// Directories above an entry.
    pub depth: usize,
    /// Uncompressed bytes per compressed byte, once a layer is larger than 1 GiB. gzip cannot pass 1032.
    pub ratio: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            entries: 4 << 20,
            bytes: 256 << 30,
            path: 4095,
            depth: 256,
            ratio: 1100,
        }
    }
}
