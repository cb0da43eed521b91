//! The names of images: `[registry[:port]/]repository[:tag][@digest]`.
//!
//! The grammar and its defaults (`docker.io`, `library/`, `latest`) are those of
//! <https://github.com/distribution/reference>.

use std::fmt;
use std::str::FromStr;

use crate::digest::Digest;
use crate::error::Error;

/// The registry that a name without one means.
const DEFAULT_REGISTRY: &str = "docker.io";
/// The longest name, without tag and digest.
const MAX_NAME: usize = 255;
/// The longest tag.
const MAX_TAG: usize = 128;

/// A complete name of an image.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Reference {
    /// The registry with its port: `docker.io`, `localhost:5000`, `[::1]:5000`.
    #[must_use]
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The repository within the registry: `library/busybox`.
    #[must_use]
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag. A name with neither tag nor digest has the tag `latest`.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest of the manifest or index.
    #[must_use]
    pub fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// Registry and repository: `docker.io/library/busybox`.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// The name that a tag of this image is stored by, where it has a tag and no digest decides instead.
    #[must_use]
    pub fn tagged(&self) -> Option<String> {
        self.tag
            .as_ref()
            .map(|tag| format!("{}:{tag}", self.name()))
    }
}

impl FromStr for Reference {
    type Err = Error;

    fn from_str(text: &str) -> Result<Reference, Error> {
        parse(text).map_err(|reason| Error::Reference {
            reference: text.to_owned(),
            reason,
        })
    }
}

/// The name in full; `tag@digest` keeps both.
impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        self.digest.map_or(Ok(()), |digest| write!(f, "@{digest}"))
    }
}

fn parse(text: &str) -> Result<Reference, String> {
    if text.is_empty() {
        return Err("it is empty".into());
    }
    if text.len() == 64 && Digest::from_hex(text).is_ok() {
        return Err("64 hex digits are an image id, not a name".into());
    }
    let (rest, digest) = match text.split_once('@') {
        None => (text, None),
        Some((rest, digest)) => (
            rest,
            Some(
                digest
                    .parse::<Digest>()
                    .map_err(|error| error.to_string())?,
            ),
        ),
    };
    let (name, tag) = split_tag(rest);
    if let Some(tag) = tag {
        check_tag(tag)?;
    }
    let (registry, repository) = split_registry(name);
    check_registry(&registry)?;
    check_repository(&repository)?;
    if registry.len() + 1 + repository.len() > MAX_NAME {
        return Err(format!("the name is longer than {MAX_NAME} characters"));
    }
    let tag = match (tag, digest) {
        (None, None) => Some("latest".to_owned()),
        (tag, _) => tag.map(str::to_owned),
    };
    Ok(Reference {
        registry,
        repository,
        tag,
        digest,
    })
}

/// Splits `name:tag`: a colon before the last slash belongs to a port.
fn split_tag(text: &str) -> (&str, Option<&str>) {
    let after_slash = text.rfind('/').map_or(0, |slash| slash + 1);
    match text[after_slash..].rfind(':') {
        Some(colon) => (
            &text[..after_slash + colon],
            Some(&text[after_slash + colon + 1..]),
        ),
        None => (text, None),
    }
}

/// Splits off the registry: the first part is one where it holds a dot, a colon or a capital, or is `localhost`.
fn split_registry(name: &str) -> (String, String) {
    let docker = |repository: &str| {
        let library = if repository.contains('/') {
            ""
        } else {
            "library/"
        };
        (
            DEFAULT_REGISTRY.to_owned(),
            format!("{library}{repository}"),
        )
    };
    match name.split_once('/') {
        None => docker(name),
        Some(("docker.io" | "index.docker.io" | "registry-1.docker.io", repository)) => {
            docker(repository)
        }
        Some((first, repository)) => {
            let is_registry = first == "localhost"
                || first.contains(['.', ':'])
                || first.contains(|c: char| c.is_ascii_uppercase());
            if is_registry {
                (first.to_owned(), repository.to_owned())
            } else {
                docker(name)
            }
        }
    }
}

fn check_tag(tag: &str) -> Result<(), String> {
    let mut chars = tag.chars();
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if !chars.next().is_some_and(word) {
        return Err(format!(
            "tag {tag:?} must begin with a letter, a digit or _"
        ));
    }
    if let Some(bad) = chars.find(|c| !(word(*c) || matches!(c, '.' | '-'))) {
        return Err(format!("tag {tag:?} contains {bad:?}"));
    }
    if tag.len() > MAX_TAG {
        return Err(format!("the tag is longer than {MAX_TAG} characters"));
    }
    Ok(())
}

fn check_registry(registry: &str) -> Result<(), String> {
    let refused = |why: &str| Err(format!("registry {registry:?} {why}"));
    let (host, port) = match registry.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((address, port)) if address.parse::<std::net::Ipv6Addr>().is_ok() => {
                if !port.is_empty() && !port.starts_with(':') {
                    return refused("has text after its address");
                }
                ("v6", port.strip_prefix(':'))
            }
            _ => return refused("is not an IPv6 address in brackets"),
        },
        None => match registry.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (registry, None),
        },
    };
    if port.is_some_and(|port| {
        !port.bytes().all(|b| b.is_ascii_digit()) || !port.parse::<u16>().is_ok_and(|n| n > 0)
    }) {
        return refused("has no valid port");
    }
    for label in host.split('.') {
        let inner = |c: char| c.is_ascii_alphanumeric() || c == '-';
        if label.is_empty()
            || !label.chars().all(inner)
            || label.starts_with('-')
            || label.ends_with('-')
        {
            return refused("is not a host name");
        }
    }
    Ok(())
}

fn check_repository(repository: &str) -> Result<(), String> {
    for part in repository.split('/') {
        if part.is_empty() {
            return Err("the repository has an empty part".into());
        }
        if let Some(bad) = part.chars().find(|c| {
            !(c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '_' | '-'))
        }) {
            let hint = if bad.is_ascii_uppercase() {
                "; repositories are written in lower case"
            } else {
                ""
            };
            return Err(format!("repository part {part:?} contains {bad:?}{hint}"));
        }
        // Separators stand between letters or digits: one dot, one or two underscores, or any number of dashes.
        for separator in part.split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit()) {
            if !matches!(separator, "" | "." | "_" | "__") && separator.contains(|c| c != '-') {
                return Err(format!("repository part {part:?} contains {separator:?}"));
            }
        }
        let separator = |c: char| matches!(c, '.' | '_' | '-');
        if part.starts_with(separator) || part.ends_with(separator) {
            return Err(format!(
                "repository part {part:?} must begin and end with a letter or a digit"
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
