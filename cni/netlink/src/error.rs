//! One error for everything the kernel refuses: the object, the request with its operands, the errno by name.
use std::fmt;

use nix::errno::Errno;

/// The result of a request to the kernel.
pub type Result<T> = std::result::Result<T, Error>;

/// A request that failed: `link "davit0": RTM_NEWLINK(kind=bridge): operation not permitted (EPERM)`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// What the request was about, `link "davit0"`.
    pub object: String,
    /// The request with its operands, `RTM_NEWLINK(kind=bridge)`.
    pub call: String,
    /// Why it failed.
    pub errno: Errno,
    /// What the kernel added in words (`NLMSGERR_ATTR_MSG`), if anything.
    pub message: Option<String>,
}

impl Error {
    /// An error from its parts.
    pub(crate) fn new(object: impl Into<String>, call: impl Into<String>, errno: Errno) -> Error {
        Error {
            object: object.into(),
            call: call.into(),
            errno,
            message: None,
        }
    }

    /// An error of ours in the same form: the kernel did nothing wrong, its answer is not usable.
    pub(crate) fn unusable(object: &str, call: &str, reason: impl Into<String>) -> Error {
        Error {
            message: Some(reason.into()),
            ..Error::new(object, call, Errno::EBADMSG)
        }
    }

    pub(crate) fn from_io(object: &str, call: &str, error: &std::io::Error) -> Error {
        Error::new(
            object,
            call,
            Errno::from_raw(error.raw_os_error().unwrap_or(nix::libc::EIO)),
        )
    }

    pub(crate) fn from_sys(object: &str, error: &sys::Error) -> Error {
        Error::new(object, error.call.clone(), error.errno)
    }

    /// Whether the object was not there.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(
            self.errno,
            Errno::ENODEV | Errno::ENOENT | Errno::ESRCH | Errno::EADDRNOTAVAIL | Errno::ENXIO
        )
    }

    /// Whether the object was there already.
    #[must_use]
    pub fn already_exists(&self) -> bool {
        self.errno == Errno::EEXIST
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {}: {} ({:?})",
            self.object,
            self.call,
            self.errno.desc().to_lowercase(),
            self.errno
        )?;
        match &self.message {
            Some(message) => write!(f, ": {message}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_the_object_the_request_and_the_errno() {
        let error = Error::new("link \"davit0\"", "RTM_NEWLINK(kind=bridge)", Errno::EPERM);
        assert_eq!(
            error.to_string(),
            "link \"davit0\": RTM_NEWLINK(kind=bridge): operation not permitted (EPERM)"
        );
    }
}
