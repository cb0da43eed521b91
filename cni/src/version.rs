//! CNI specification versions: order, and which of them are spoken here.
use std::fmt;

/// Every version of the specification that the executor and the plugins speak, oldest first.
pub const SUPPORTED_VERSIONS: [&str; 5] = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];

/// A version of the CNI specification, `major.minor.micro`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// First number.
    pub major: u32,
    /// Second number.
    pub minor: u32,
    /// Third number.
    pub micro: u32,
}

impl Version {
    /// Cached results are handed to DEL from this version on.
    pub const V0_4_0: Version = Version::new(0, 4, 0);
    /// `ips[].version` is gone from this version on.
    pub const V1_0_0: Version = Version::new(1, 0, 0);
    /// GC and STATUS exist from this version on.
    pub const V1_1_0: Version = Version::new(1, 1, 0);
    /// The newest version spoken here.
    pub const NEWEST: Version = Version::V1_1_0;

    /// A version from its three numbers.
    #[must_use]
    pub const fn new(major: u32, minor: u32, micro: u32) -> Version {
        Version {
            major,
            minor,
            micro,
        }
    }

    /// Reads `1.1.0`. As in libcni the micro part may be missing (`1.0` is `1.0.0`); nothing may follow it.
    #[must_use]
    pub fn parse(text: &str) -> Option<Version> {
        let mut parts = text.split('.');
        let major = number(parts.next()?)?;
        let minor = number(parts.next()?)?;
        let micro = parts.next().map_or(Some(0), number)?;
        parts.next().is_none().then_some(Version {
            major,
            minor,
            micro,
        })
    }

    /// Whether the executor and the plugins of this project speak it.
    #[must_use]
    pub fn is_supported(self) -> bool {
        SUPPORTED_VERSIONS
            .iter()
            .any(|known| Version::parse(known) == Some(self))
    }
}

/// Digits only: `str::parse` alone would also take `+1`.
fn number(text: &str) -> Option<u32> {
    text.bytes()
        .all(|b| b.is_ascii_digit())
        .then(|| text.parse().ok())
        .flatten()
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.micro)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_order_by_number_and_not_by_text() {
        assert!(Version::parse("0.10.0") > Version::parse("0.4.0"));
        assert_eq!(Version::parse("1.0"), Some(Version::V1_0_0));
        assert_eq!(
            Version::parse("1.1.0").map(|v| v.to_string()).as_deref(),
            Some("1.1.0")
        );
    }

    #[test]
    fn text_that_is_not_a_version_is_refused() {
        for bad in [
            "",
            "1",
            "1.",
            "1.0.0.0",
            "1.0.0-rc1",
            "v1.0.0",
            "+1.0.0",
            "1..0",
            "99999999999.0.0",
        ] {
            assert_eq!(Version::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn only_versions_with_an_interfaces_list_are_supported() {
        assert!(Version::parse("0.3.1").unwrap().is_supported());
        assert!(!Version::parse("0.2.0").unwrap().is_supported());
        assert!(!Version::parse("1.2.0").unwrap().is_supported());
    }
}
