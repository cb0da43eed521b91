//! Network namespaces: open one by path, and run code inside it.
//!
//! A namespace file is a bind mount of `/proc/<pid>/ns/net` (or that file itself). Once its pin is unmounted an
//! ordinary empty file is left, so [`NetNs::open`] checks the file's type before anyone enters it.
//! See `network_namespaces(7)` and `ioctl_nsfs(2)`.
#![allow(unsafe_code)]

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sched::CloneFlags;

use crate::{Error, Result};

/// `NS_GET_NSTYPE` of `linux/nsfs.h`: which kind of namespace a descriptor is.
const NS_GET_NSTYPE: libc::c_ulong = 0xb703;

/// An open network namespace; it lives at least as long as this handle.
#[derive(Debug)]
pub struct NetNs {
    fd: OwnedFd,
    path: PathBuf,
}

impl NetNs {
    /// Opens the network namespace pinned at `path`.
    ///
    /// # Errors
    /// `ENOENT` if nothing is there; `EINVAL` if it is not a network namespace, as a pin is after its unmount.
    pub fn open(path: &Path) -> Result<NetNs> {
        let call = || format!("open({path:?}, O_RDONLY|O_NONBLOCK)");
        // O_NONBLOCK: a FIFO in the namespace's place must not block us for ever.
        let file = File::options()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(path)
            .map_err(|e| io_error(call(), &e))?;
        let ns = NetNs {
            fd: file.into(),
            path: path.to_owned(),
        };
        ns.check_type()?;
        Ok(ns)
    }

    /// The network namespace of the calling thread.
    ///
    /// # Errors
    /// Whatever opening `/proc/thread-self/ns/net` gives, for example without a /proc.
    pub fn current() -> Result<NetNs> {
        NetNs::open(Path::new("/proc/thread-self/ns/net"))
    }

    /// The path that it was opened by.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether both handles are the same namespace.
    ///
    /// # Errors
    /// `fstat(2)` failed.
    pub fn is_same(&self, other: &NetNs) -> Result<bool> {
        Ok(self.identity()? == other.identity()?)
    }

    /// Runs `f` inside the namespace, on a thread of its own: the calling thread's namespace never changes, so
    /// neither a panic nor a forgotten way back can leave it in the wrong one. Sockets that `f` opens keep
    /// working in the namespace after they are handed out.
    ///
    /// # Errors
    /// The thread could not be started or could not enter the namespace.
    ///
    /// # Panics
    /// With the panic of `f`.
    pub fn run<T: Send>(&self, f: impl FnOnce() -> T + Send) -> Result<T> {
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new()
                .name("netns".to_owned())
                .stack_size(256 * 1024);
            let handle = thread
                .spawn_scoped(scope, || self.enter().map(|()| f()))
                .map_err(|e| io_error("clone(thread of a network namespace)".to_owned(), &e))?;
            match handle.join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    /// Runs `f` inside the namespace on the calling thread, and comes back: for short-lived single-threaded
    /// processes, which this spares a thread. Everyone else uses [`NetNs::run`].
    ///
    /// A thread that could not come back would go on to configure the wrong machine, so the process aborts then;
    /// the way back is a namespace that is already open, which the kernel does not refuse to whoever left it.
    ///
    /// # Errors
    /// The namespace could not be entered; the thread is where it was.
    pub fn visit<T>(&self, f: impl FnOnce() -> T) -> Result<T> {
        struct Home(NetNs);
        impl Drop for Home {
            fn drop(&mut self) {
                if self.0.enter().is_err() {
                    std::process::abort();
                }
            }
        }
        let home = NetNs::current()?;
        self.enter()?;
        let _home = Home(home);
        Ok(f())
    }

    /// Moves the calling thread into the namespace for good. [`NetNs::run`] and [`NetNs::visit`] come back by themselves.
    ///
    /// # Errors
    /// `EPERM` without CAP_SYS_ADMIN over the namespace.
    pub fn enter(&self) -> Result<()> {
        nix::sched::setns(&self.fd, CloneFlags::CLONE_NEWNET).map_err(|errno| Error {
            call: format!(
                "setns({}<{}>, CLONE_NEWNET)",
                self.fd.as_raw_fd(),
                self.path.display()
            ),
            errno,
        })
    }

    fn check_type(&self) -> Result<()> {
        // SAFETY: NS_GET_NSTYPE takes no argument and touches no memory of ours; on any other kind of file
        // the kernel answers ENOTTY.
        let kind = unsafe { libc::ioctl(self.fd.as_raw_fd(), NS_GET_NSTYPE as libc::Ioctl) };
        if kind == libc::CLONE_NEWNET {
            return Ok(());
        }
        let what = if kind < 0 {
            "is not a namespace"
        } else {
            "is a namespace of another kind"
        };
        Err(Error {
            call: format!(
                "ioctl({}<{}>, NS_GET_NSTYPE): {what}",
                self.fd.as_raw_fd(),
                self.path.display()
            ),
            errno: Errno::EINVAL,
        })
    }

    fn identity(&self) -> Result<(u64, u64)> {
        let call = || format!("fstat({}<{}>)", self.fd.as_raw_fd(), self.path.display());
        let file = File::from(self.fd.try_clone().map_err(|e| io_error(call(), &e))?);
        let meta = file.metadata().map_err(|e| io_error(call(), &e))?;
        Ok((meta.dev(), meta.ino()))
    }
}

impl AsFd for NetNs {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn io_error(call: String, error: &std::io::Error) -> Error {
    Error {
        call,
        errno: Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_current_namespace_is_itself_and_code_runs_in_it() {
        let here = NetNs::current().unwrap();
        assert!(
            here.is_same(&NetNs::open(Path::new("/proc/self/ns/net")).unwrap())
                .unwrap()
        );
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let inside = here.run(|| NetNs::current().unwrap()).unwrap();
        assert!(here.is_same(&inside).unwrap());
    }

    #[test]
    fn the_pin_left_after_an_unmount_is_refused() {
        let path = std::env::temp_dir().join(format!("netns-test-{}", std::process::id()));
        std::fs::write(&path, "").unwrap();
        let error = NetNs::open(&path).unwrap_err();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(error.errno, Errno::EINVAL);
        assert!(error.to_string().contains("is not a namespace"), "{error}");
    }

    #[test]
    fn a_namespace_of_another_kind_is_refused() {
        let error = NetNs::open(Path::new("/proc/self/ns/mnt")).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("of another kind: invalid argument (EINVAL)"),
            "{error}"
        );
        assert_eq!(
            NetNs::open(Path::new("/nonexistent")).unwrap_err().errno,
            Errno::ENOENT
        );
    }

    #[test]
    fn a_visit_comes_back_even_from_a_panic() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let here = NetNs::current().unwrap();
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            here.visit(|| panic!("inside"))
        }));
        assert!(caught.is_err());
        assert!(
            here.visit(|| NetNs::current().unwrap().is_same(&here).unwrap())
                .unwrap()
        );
        assert!(NetNs::current().unwrap().is_same(&here).unwrap());
    }

    #[test]
    fn a_panic_inside_reaches_the_caller() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let here = NetNs::current().unwrap();
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            here.run(|| panic!("inside"))
        }));
        assert!(caught.is_err());
    }
}
