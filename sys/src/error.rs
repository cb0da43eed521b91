//! The error of a system call: which call, with which operands, and the errno by name.
use nix::errno::Errno;

/// A system call that the kernel refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// The call as strace would print it, for example `openat2(3</run/bundle>, "rootfs", O_PATH)`.
    pub call: String,
    /// Why the kernel refused it.
    pub errno: Errno,
}

/// The result of a system call.
pub type Result<T> = std::result::Result<T, Error>;

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {} ({:?})", self.call, self.errno.desc().to_lowercase(), self.errno)
    }
}

impl std::error::Error for Error {}
