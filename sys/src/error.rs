//! The error of a system call: which call, with which operands, and the errno by name.
//!
//! Wrappers build the text only when the call failed, so a successful call costs no allocation.
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

// === impl Error ===

impl Error {
    /// The error `errno` of the call written in `call`.
    pub fn new(errno: Errno, call: impl Into<String>) -> Self {
        Self {
            call: call.into(),
            errno,
        }
    }

    /// The error of a call made through std. An error of std itself that carries no errno becomes `EIO`
    /// or the errno nearest to its kind, and its text is kept in the call.
    pub fn from_io(error: &std::io::Error, call: impl Into<String>) -> Self {
        let call = call.into();
        if let Some(raw) = error.raw_os_error() {
            return Self::new(Errno::from_raw(raw), call);
        }
        let errno = match error.kind() {
            std::io::ErrorKind::NotFound => Errno::ENOENT,
            std::io::ErrorKind::PermissionDenied => Errno::EACCES,
            std::io::ErrorKind::InvalidInput | std::io::ErrorKind::InvalidData => Errno::EINVAL,
            std::io::ErrorKind::WriteZero => Errno::ENOSPC,
            std::io::ErrorKind::UnexpectedEof => Errno::ENODATA,
            _ => Errno::EIO,
        };
        Self::new(errno, format!("{call} [{error}]"))
    }

    /// The errno of the failed call.
    pub fn errno(&self) -> Errno {
        self.errno
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{}: {} ({})",
            self.call,
            self.errno.desc().to_lowercase(),
            errno_name(self.errno)
        )
    }
}

impl std::error::Error for Error {}

impl From<Error> for std::io::Error {
    fn from(error: Error) -> Self {
        Self::new(
            std::io::Error::from_raw_os_error(error.errno as i32).kind(),
            error,
        )
    }
}

/// Adds the text of the call to a bare errno, as nix returns it.
pub trait Context<T> {
    /// Turns a bare errno into an [`Error`] of the call that `call` writes down.
    ///
    /// # Errors
    /// The same failure, with its operands.
    fn call(self, call: impl FnOnce() -> String) -> Result<T>;
}

impl<T> Context<T> for nix::Result<T> {
    fn call(self, call: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|errno| Error::new(errno, call()))
    }
}

impl<T> Context<T> for std::io::Result<T> {
    fn call(self, call: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| Error::from_io(&error, call()))
    }
}

/// Judges the return value of a raw system call: negative means that errno says why.
pub(crate) fn check(ret: libc::c_long, call: impl FnOnce() -> String) -> Result<libc::c_long> {
    if ret < 0 {
        Err(Error::new(Errno::last(), call()))
    } else {
        Ok(ret)
    }
}

/// Writes the flags in `bits` as strace does: `MS_BIND|MS_REC`, the unknown rest in hex, `0` for none.
pub(crate) fn flag_names<F: bitflags::Flags>(flags: &F, prefix: &str) -> String
where
    F::Bits: std::fmt::LowerHex + PartialEq,
{
    let mut names: Vec<String> = flags
        .iter_names()
        .map(|(name, _)| format!("{prefix}{name}"))
        .collect();
    let mut known = F::empty();
    for (_, flag) in flags.iter_names() {
        known.insert(flag);
    }
    let rest = flags.bits() & !known.bits();
    if rest != F::empty().bits() {
        names.push(format!("{rest:#x}"));
    }
    if names.is_empty() {
        "0".to_owned()
    } else {
        names.join("|")
    }
}

macro_rules! names {
    ($($name:ident)*) => {
        /// The name of an errno as C has it: `ENOENT`.
        pub fn errno_name(errno: Errno) -> &'static str {
            match errno {
                $(Errno::$name => stringify!($name),)*
                _ => "unknown errno",
            }
        }
    };
}

names! {
    EPERM ENOENT ESRCH EINTR EIO ENXIO E2BIG ENOEXEC EBADF ECHILD EAGAIN ENOMEM EACCES EFAULT ENOTBLK EBUSY
    EEXIST EXDEV ENODEV ENOTDIR EISDIR EINVAL ENFILE EMFILE ENOTTY ETXTBSY EFBIG ENOSPC ESPIPE EROFS EMLINK
    EPIPE EDOM ERANGE EDEADLK ENAMETOOLONG ENOLCK ENOSYS ENOTEMPTY ELOOP ENOMSG EIDRM ECHRNG EL2NSYNC EL3HLT
    EL3RST ELNRNG EUNATCH ENOCSI EL2HLT EBADE EBADR EXFULL ENOANO EBADRQC EBADSLT EBFONT ENOSTR ENODATA ETIME
    ENOSR ENONET ENOPKG EREMOTE ENOLINK EADV ESRMNT ECOMM EPROTO EMULTIHOP EDOTDOT EBADMSG EOVERFLOW ENOTUNIQ
    EBADFD EREMCHG ELIBACC ELIBBAD ELIBSCN ELIBMAX ELIBEXEC EILSEQ ERESTART ESTRPIPE EUSERS ENOTSOCK
    EDESTADDRREQ EMSGSIZE EPROTOTYPE ENOPROTOOPT EPROTONOSUPPORT ESOCKTNOSUPPORT EOPNOTSUPP EPFNOSUPPORT
    EAFNOSUPPORT EADDRINUSE EADDRNOTAVAIL ENETDOWN ENETUNREACH ENETRESET ECONNABORTED ECONNRESET ENOBUFS
    EISCONN ENOTCONN ESHUTDOWN ETOOMANYREFS ETIMEDOUT ECONNREFUSED EHOSTDOWN EHOSTUNREACH EALREADY EINPROGRESS
    ESTALE EUCLEAN ENOTNAM ENAVAIL EISNAM EREMOTEIO EDQUOT ENOMEDIUM EMEDIUMTYPE ECANCELED ENOKEY EKEYEXPIRED
    EKEYREVOKED EKEYREJECTED EOWNERDEAD ENOTRECOVERABLE ERFKILL EHWPOISON
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_reads_like_a_line_of_strace() {
        let error = Error::new(
            Errno::ENOENT,
            r#"openat2(3</run/bundle>, "rootfs", O_PATH)"#,
        );
        assert_eq!(
            error.to_string(),
            r#"openat2(3</run/bundle>, "rootfs", O_PATH): no such file or directory (ENOENT)"#
        );
    }

    #[test]
    fn every_errno_of_this_machine_has_its_name() {
        for raw in 1..=133 {
            let errno = Errno::from_raw(raw);
            if errno != Errno::UnknownErrno {
                assert_eq!(errno_name(errno), format!("{errno:?}"), "errno {raw}");
            }
        }
    }

    #[test]
    fn an_io_error_without_errno_keeps_its_text() {
        let error = Error::from_io(&std::io::Error::other("short count"), "read(3)");
        assert_eq!(error.to_string(), "read(3) [short count]: i/o error (EIO)");
    }

    #[test]
    fn flags_are_named_and_the_unknown_rest_is_hex() {
        let flags = nix::mount::MsFlags::from_bits_retain(
            (nix::mount::MsFlags::MS_BIND | nix::mount::MsFlags::MS_REC).bits() | 1 << 27,
        );
        assert_eq!(flag_names(&flags, ""), "MS_BIND|MS_REC|0x8000000");
        assert_eq!(flag_names(&nix::mount::MsFlags::empty(), ""), "0");
    }
}
