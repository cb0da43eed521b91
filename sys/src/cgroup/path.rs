//! The name of a cgroup below a hierarchy's mount.

use std::ffi::OsStr;
use std::path::{Component, Path, PathBuf};

use super::{Error, Result};

/// Where a cgroup lives below each hierarchy, as OCI's `linux.cgroupsPath` says it: an absolute path counts
/// from the mount, a relative one from the caller's own cgroup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CgroupPath {
    absolute: bool,
    relative: PathBuf,
}

impl CgroupPath {
    /// Checks and normalises a path. `..` is refused: nothing of a bundle may reach a cgroup above the caller's choice.
    ///
    /// # Errors
    /// [`Error::InvalidPath`] where it is empty, names the root itself, or holds `..`, a NUL or a line break.
    pub fn new(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let invalid = |why| Error::InvalidPath {
            path: path.display().to_string(),
            why,
        };
        if has_control_bytes(path.as_os_str()) {
            return Err(invalid("holds a NUL or a line break"));
        }
        if path.components().any(|part| part == Component::ParentDir) {
            return Err(invalid("must not hold \"..\""));
        }
        let relative: PathBuf = path
            .components()
            .filter(|part| matches!(part, Component::Normal(_)))
            .collect();
        if relative.as_os_str().is_empty() {
            return Err(invalid("names no cgroup of its own"));
        }
        Ok(Self {
            absolute: path.is_absolute(),
            relative,
        })
    }

    /// Whether it counts from the mount of the hierarchy.
    #[must_use]
    pub fn is_absolute(&self) -> bool {
        self.absolute
    }

    /// The path without its leading slash.
    #[must_use]
    pub fn relative(&self) -> &Path {
        &self.relative
    }

    /// The cgroup `name` below this one.
    ///
    /// # Errors
    /// As [`CgroupPath::new`].
    pub fn join(&self, name: &str) -> Result<Self> {
        let checked = Self::new(name)?;
        Ok(Self {
            absolute: self.absolute,
            relative: self.relative.join(checked.relative),
        })
    }
}

/// Bytes that no cgroup name can have.
fn has_control_bytes(text: &OsStr) -> bool {
    text.as_encoded_bytes()
        .iter()
        .any(|byte| matches!(byte, 0 | b'\n'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_normalised_and_keeps_whether_it_is_absolute() {
        let path = CgroupPath::new("//davit/./pod1//ctr/").unwrap();
        assert!(path.is_absolute());
        assert_eq!(path.relative(), Path::new("davit/pod1/ctr"));
        assert!(!CgroupPath::new("davit").unwrap().is_absolute());
    }

    #[test]
    fn a_path_that_could_leave_its_place_is_refused() {
        for bad in ["", "/", ".", "/..", "/a/../b", "a/..", "a\nb", "a\0b"] {
            assert!(
                matches!(CgroupPath::new(bad), Err(Error::InvalidPath { .. })),
                "{bad:?}"
            );
        }
    }
}
