//! Which of the images of an index fits a machine.
//!
//! <https://github.com/opencontainers/image-spec/blob/main/image-index.md#image-index-property-descriptions>

use std::fmt;

/// An operating system and a processor, as an image index names them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Platform {
    /// The operating system: `linux`.
    pub os: String,
    /// The processor in Go's spelling: `amd64`, `arm64`, …
    pub architecture: String,
    /// The processor's variant: `v7` of `arm`, `v3` of `amd64`.
    pub variant: Option<String>,
}

impl Platform {
    /// The platform of this machine.
    #[must_use]
    pub fn host() -> Platform {
        let (architecture, variant) = match std::env::consts::ARCH {
            "x86_64" => ("amd64", None),
            "x86" => ("386", None),
            "aarch64" => ("arm64", Some("v8")),
            "arm" => ("arm", Some("v7")),
            "powerpc64" => ("ppc64le", None),
            "loongarch64" => ("loong64", None),
            other => (other, None),
        };
        Platform {
            os: "linux".into(),
            architecture: architecture.into(),
            variant: variant.map(Into::into),
        }
    }

    /// How well an image for `offered` fits here: 0 is best, `None` means that it does not run here.
    #[must_use]
    pub fn fit(&self, offered: &Platform) -> Option<usize> {
        if self.os != offered.os {
            return None;
        }
        let offered = normal(&offered.architecture, offered.variant.as_deref());
        self.runs()
            .into_iter()
            .position(|can_run| can_run == offered)
    }

    /// What this machine can run, best first: its own variant, then each older one, then 32 bits.
    fn runs(&self) -> Vec<(String, String)> {
        let (architecture, variant) = normal(&self.architecture, self.variant.as_deref());
        let older = |from: &str, oldest: u8| -> Vec<(String, String)> {
            let newest = from.trim_start_matches('v').parse().unwrap_or(oldest);
            (oldest..=newest)
                .rev()
                .map(|n| (architecture.clone(), format!("v{n}")))
                .collect()
        };
        match architecture.as_str() {
            "amd64" => older(&variant, 1)
                .into_iter()
                .chain([("386".to_owned(), String::new())])
                .collect(),
            "arm64" => {
                let arm = ["v8", "v7", "v6", "v5"].map(|v| ("arm".to_owned(), v.to_owned()));
                older(&variant, 8).into_iter().chain(arm).collect()
            }
            "arm" => older(&variant, 5),
            _ => vec![(architecture, variant)],
        }
    }
}

/// One spelling per platform: aliases resolved, and the variant that everyone leaves out written down.
fn normal(architecture: &str, variant: Option<&str>) -> (String, String) {
    let variant = variant.unwrap_or_default();
    let (architecture, variant) = match (architecture, variant) {
        ("x86_64" | "x86-64" | "amd64", "") => ("amd64", "v1"),
        ("x86_64" | "x86-64", variant) => ("amd64", variant),
        ("aarch64" | "arm64", "" | "8" | "v8.0") => ("arm64", "v8"),
        ("aarch64", variant) => ("arm64", variant),
        ("armhf", _) | ("arm", "") => ("arm", "v7"),
        ("armel", _) => ("arm", "v6"),
        ("i386", _) => ("386", ""),
        other => other,
    };
    let variant = match variant.as_bytes().first() {
        Some(digit) if digit.is_ascii_digit() => format!("v{variant}"),
        _ => variant.to_owned(),
    };
    (architecture.to_owned(), variant)
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant
            .as_ref()
            .map_or(Ok(()), |variant| write!(f, "/{variant}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn platform(text: &str) -> Platform {
        let mut parts = text.split('/').map(str::to_owned);
        Platform {
            os: parts.next().unwrap(),
            architecture: parts.next().unwrap(),
            variant: parts.next(),
        }
    }

    #[test]
    fn the_nearest_variant_wins_and_newer_ones_never_run() {
        for (host, offered, fit) in [
            ("linux/amd64", "linux/amd64", Some(0)),
            ("linux/amd64", "linux/amd64/v1", Some(0)),
            ("linux/amd64", "linux/x86_64", Some(0)),
            ("linux/amd64", "linux/amd64/v2", None),
            ("linux/amd64/v3", "linux/amd64/v2", Some(1)),
            ("linux/amd64/v3", "linux/amd64", Some(2)),
            ("linux/amd64", "linux/386", Some(1)),
            ("linux/386", "linux/amd64", None),
            ("linux/arm64/v8", "linux/arm64", Some(0)),
            ("linux/arm64/v8", "linux/arm64/v9", None),
            ("linux/arm64/v8", "linux/arm/v7", Some(2)),
            ("linux/arm/v7", "linux/arm/v6", Some(1)),
            ("linux/arm/v6", "linux/arm/v7", None),
            ("linux/arm/v7", "linux/arm", Some(0)),
            ("linux/s390x", "linux/s390x", Some(0)),
            ("linux/amd64", "windows/amd64", None),
            ("linux/amd64", "unknown/unknown", None),
        ] {
            assert_eq!(
                platform(host).fit(&platform(offered)),
                fit,
                "{host} running {offered}"
            );
        }
    }
}
