//! The caller's paths made absolute, also where its working directory lies in another mount namespace.
//!
//! `nsenter --wd` leaves a process with such a directory. musl's `getcwd(3)` then answers ENOENT (the kernel's answer begins
//! with "(unreachable)"), where glibc's walks up the directories; the kernel's link in `/proc` has the name.

use std::io;
use std::path::{Path, PathBuf};

/// `realpath(3)`.
///
/// # Errors
/// As `realpath(3)`.
pub fn canonical(path: impl AsRef<Path>) -> io::Result<PathBuf> {
    let path = path.as_ref();
    std::fs::canonicalize(path).or_else(|error| std::fs::canonicalize(below_cwd_link(path, error)?))
}

/// Absolute, with symbolic links as they are; nothing need be there.
///
/// # Errors
/// The working directory was removed.
pub fn absolute(path: impl AsRef<Path>) -> io::Result<PathBuf> {
    let path = path.as_ref();
    std::path::absolute(path).or_else(|error| std::path::absolute(below_cwd_link(path, error)?))
}

fn below_cwd_link(path: &Path, error: io::Error) -> io::Result<PathBuf> {
    if path.is_absolute() || error.kind() != io::ErrorKind::NotFound {
        return Err(error);
    }
    Ok(std::fs::read_link("/proc/self/cwd")?.join(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_there_stays_an_error() {
        let kind = |path: &str| canonical(path).unwrap_err().kind();
        assert_eq!(kind("no/such/directory"), io::ErrorKind::NotFound);
        assert_eq!(kind("/no/such/directory"), io::ErrorKind::NotFound);
        assert!(canonical(".").unwrap().is_absolute());
        assert!(absolute("no/such").unwrap().ends_with("no/such"));
    }
}
