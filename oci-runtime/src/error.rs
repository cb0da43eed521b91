//! Errors as the person reads them: one line of causes, outermost first, and a hint where one is known.

/// Why a command failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// The causes in one line.
    pub message: String,
    /// What the person can do about it.
    pub hint: Option<String>,
}

/// The result of a command's step.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error without a hint.
    pub fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            hint: None,
        }
    }

    /// The same with a hint.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint.get_or_insert_with(|| hint.into());
        self
    }

    /// The same within what was being done.
    #[must_use]
    pub fn within(mut self, what: impl std::fmt::Display) -> Self {
        self.message = format!("{what}: {}", self.message);
        self
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

impl From<sys::Error> for Error {
    fn from(error: sys::Error) -> Self {
        let hidden = error.errno == nix::errno::Errno::ENOSYS;
        let error = Self::new(error.to_string());
        if hidden {
            error.hint(
                "the kernel is older than Linux 5.12, or the seccomp filter of an outer container hides this system call",
            )
        } else {
            error
        }
    }
}

impl From<sys::cgroup::Error> for Error {
    fn from(error: sys::cgroup::Error) -> Self {
        Self {
            message: error.to_string(),
            hint: error.hint().map(ToString::to_string),
        }
    }
}

impl From<sys::cgroup::systemd::Error> for Error {
    fn from(error: sys::cgroup::systemd::Error) -> Self {
        Self {
            message: error.to_string(),
            hint: error.hint().map(ToString::to_string),
        }
    }
}

impl From<crate::id::InvalidId> for Error {
    fn from(error: crate::id::InvalidId) -> Self {
        Self::new(error.to_string())
    }
}

impl From<crate::plan::Problems> for Error {
    fn from(problems: crate::plan::Problems) -> Self {
        Self::new(format!("config.json: {problems}"))
    }
}

/// Adds what was being done to an error.
pub trait Within<T> {
    /// Puts `what: ` before the message.
    ///
    /// # Errors
    /// The same failure.
    fn within(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<Error>> Within<T> for std::result::Result<T, E> {
    fn within(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| error.into().within(what()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::errno::Errno;

    #[test]
    fn a_system_call_that_is_hidden_is_named_with_the_likely_reason() {
        let call = "openat2(3</proc>, \"self\", O_PATH, 0, 0)";
        let error = Error::from(sys::Error::new(Errno::ENOSYS, call));
        assert!(error.message.starts_with("openat2("), "{error}");
        assert!(error.hint.unwrap().contains("seccomp filter"));
        let error = Error::from(sys::Error::new(Errno::EPERM, call));
        assert_eq!(error.hint, None);
    }
}
