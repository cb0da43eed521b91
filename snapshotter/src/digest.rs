//! Content digests: `sha256:<64 hex digits>`, the one algorithm that images use.
//!
//! <https://github.com/opencontainers/image-spec/blob/main/descriptor.md#digests>

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::error::Error;

/// The SHA-256 digest of some bytes.
///
/// Ordered and hashed as its 32 bytes; printed as `sha256:<hex>`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Digest([u8; 32]);

/// The name of one layer in an overlay stack: the digest of its uncompressed archive (its diff id).
///
/// A layer that only has a meaning over certain parents (see [`crate::Store`], "layers") gets a small layer of
/// its own above it, whose id is derived from the chain of parents.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct DiffId(pub Digest);

impl Digest {
    /// The digest of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Digest {
        Digest(Sha256::digest(bytes).into())
    }

    /// The digest that a finished hasher holds.
    pub(crate) fn from_hasher(hasher: Sha256) -> Digest {
        Digest(hasher.finalize().into())
    }

    /// The 64 hex digits, without the name of the algorithm.
    #[must_use]
    pub fn hex(&self) -> String {
        use fmt::Write as _;
        self.0
            .iter()
            .fold(String::with_capacity(64), |mut hex, byte| {
                // Writing to a String cannot fail.
                write!(hex, "{byte:02x}").ok();
                hex
            })
    }

    /// The digest with these 64 hex digits.
    ///
    /// # Errors
    /// [`Error::Digest`] where `hex` is anything but 64 lowercase hex digits.
    pub fn from_hex(hex: &str) -> Result<Digest, Error> {
        let refused = |reason| Error::Digest {
            text: hex.to_owned(),
            reason,
        };
        let digits = hex.as_bytes();
        if digits.len() != 64 {
            return Err(refused("a sha256 digest has 64 hex digits"));
        }
        let mut out = [0; 32];
        for (byte, pair) in out.iter_mut().zip(digits.chunks_exact(2)) {
            match (nibble(pair[0]), nibble(pair[1])) {
                (Some(high), Some(low)) => *byte = high << 4 | low,
                _ => return Err(refused("a digest consists of the digits 0-9 and a-f")),
            }
        }
        Ok(Digest(out))
    }
}

impl DiffId {
    /// The name of the layer's directory.
    #[must_use]
    pub fn hex(&self) -> String {
        self.0.hex()
    }
}

/// The value of one lowercase hex digit.
fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

impl FromStr for Digest {
    type Err = Error;

    fn from_str(text: &str) -> Result<Digest, Error> {
        let refused = |reason| Error::Digest {
            text: text.to_owned(),
            reason,
        };
        match text.split_once(':') {
            Some(("sha256", hex)) => Digest::from_hex(hex)
                .map_err(|_| refused("after sha256: come 64 digits of 0-9 and a-f")),
            Some(_) => Err(refused("only sha256 digests are supported")),
            None => Err(refused("a digest reads sha256:<64 hex digits>")),
        }
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for DiffId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> String {
        digest.to_string()
    }
}

impl TryFrom<String> for Digest {
    type Error = Error;

    fn try_from(text: String) -> Result<Digest, Error> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_of_nothing_is_the_published_one_and_reads_back() {
        let text = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(Digest::of(b"").to_string(), text);
        assert_eq!(text.parse::<Digest>().unwrap(), Digest::of(b""));
    }

    #[test]
    fn broken_digests_are_refused_with_the_reason() {
        let upper = format!("sha256:{}", "A".repeat(64));
        for (text, reason) in [
            ("", "a digest reads sha256:"),
            ("e3b0", "a digest reads sha256:"),
            ("sha256:", "after sha256: come 64 digits"),
            ("sha256:e3b0", "after sha256: come 64 digits"),
            (upper.as_str(), "after sha256: come 64 digits"),
            ("sha512:00", "only sha256 digests are supported"),
        ] {
            let error = text.parse::<Digest>().unwrap_err().to_string();
            assert!(error.contains(reason), "{text:?}: {error}");
        }
    }
}
