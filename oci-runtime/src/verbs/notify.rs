//! `NOTIFY_SOCKET`: a container's program tells the service manager that it is ready, as sd_notify(3) does.
//!
//! The manager's own socket is the host's and takes words only from processes that it knows. So the container gets a
//! socket of ours, in a directory of its state that is mounted at `/run/notify`, and of what is said there `READY=` is
//! passed on, with `MAINPID=` as the host counts.
//!
//! ```text
//! create   makes <root>/<id>/notify, mounts it, sets the container's NOTIFY_SOCKET
//! start    binds the socket, opens the gate, passes on what is said until READY= or the end
//! run      both; in the foreground beside everything else
//! ```
use std::ffi::OsString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use sys::process::Child;

use crate::error::{Error, Result};
use crate::spec::{Mount, Spec};

/// Where the container sees the directory.
const INSIDE: &str = "/run/notify";

/// The name of the socket in it.
const NAME: &str = "notify.sock";

/// How long the service manager may take to say that it has read everything, in milliseconds.
const BARRIER_MS: i32 = 30_000;

/// The socket of the service manager, if there is one.
pub(super) fn manager() -> Option<OsString> {
    std::env::var_os("NOTIFY_SOCKET").filter(|path| !path.is_empty())
}

/// The directory of a container whose state is in `dir`.
fn directory(dir: &Path) -> PathBuf {
    dir.join("notify")
}

/// Lets the container know of its socket.
pub(super) fn configure(spec: &mut Spec, dir: &Path) {
    if manager().is_none() {
        return;
    }
    let options = ["bind", "nosuid", "noexec", "nodev", "ro"];
    spec.mounts.push(Mount {
        destination: INSIDE.to_owned(),
        source: directory(dir).to_string_lossy().into_owned(),
        options: options.map(str::to_owned).to_vec(),
        ..Mount::default()
    });
    if let Some(process) = &mut spec.process {
        process.env.push(format!("NOTIFY_SOCKET={INSIDE}/{NAME}"));
    }
}

/// Makes the directory, empty.
///
/// # Errors
/// It cannot be made.
pub(super) fn make_directory(dir: &Path) -> Result<()> {
    if manager().is_none() {
        return Ok(());
    }
    let path = directory(dir);
    std::fs::DirBuilder::new()
        .mode(0o755)
        .create(&path)
        .map_err(|error| sys::Error::from_io(&error, format!("mkdir({path:?})")).into())
}

/// The container's socket, and the way to the manager's.
pub(super) struct Proxy {
    socket: OwnedFd,
    manager: OsString,
    /// What the manager shall watch.
    main_pid: i32,
}

impl Proxy {
    /// Binds the container's socket, before its program can look for it. None without a service manager, or where
    /// the container was made without one.
    ///
    /// # Errors
    /// The socket is there already.
    pub(super) fn bind(dir: &Path, main_pid: i32) -> Result<Option<Self>> {
        let Some(manager) = manager() else {
            return Ok(None);
        };
        let dir = directory(dir);
        if !dir.is_dir() {
            return Ok(None);
        }
        let socket = sys::socket::bind_datagram(&dir.join(NAME), 0o777)?;
        Ok(Some(Self {
            socket,
            manager,
            main_pid,
        }))
    }

    /// Takes one message and passes on what matters.
    pub(super) fn pass_on(&self) {
        if let Some(ready) = self.hear() {
            // A manager that does not listen is no reason to end a program that runs.
            drop(self.tell(&ready));
        }
    }

    /// Waits until the program is ready or has ended, then tells the manager and waits until it has read that: it looks
    /// at who said it, and this process is about to end.
    ///
    /// # Errors
    /// The waiting itself failed, or the manager cannot be told.
    pub(super) fn wait(self, child: &OwnedFd) -> Result<()> {
        loop {
            let ready = sys::fd::wait_readable(&[self.socket.as_fd(), child.as_fd()], -1)?;
            if ready.first() == Some(&true) {
                if let Some(line) = self.hear() {
                    return barrier(&self.tell(&line)?);
                }
            } else {
                return Ok(());
            }
        }
    }

    /// One message; its line that says `READY=`, if there is one.
    fn hear(&self) -> Option<Vec<u8>> {
        let mut message = [0_u8; 4096];
        // Whoever sends descriptors along (FDSTORE=) has them closed here.
        let received = sys::socket::receive(&self.socket, &mut message).ok()?;
        ready_line(&message[..received.len.min(message.len())]).map(<[u8]>::to_vec)
    }

    fn tell(&self, ready: &[u8]) -> Result<OwnedFd> {
        let manager = sys::socket::connect_datagram(Path::new(&self.manager))?;
        sys::socket::send(&manager, &[ready, b"\n"].concat(), &[])?;
        let pid = format!("MAINPID={}\n", self.main_pid);
        sys::socket::send(&manager, pid.as_bytes(), &[])?;
        Ok(manager)
    }
}

impl AsFd for Proxy {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Binds before the start and waits after it: what `start` and a detached `run` do.
///
/// # Errors
/// What `open` says, or the proxy.
pub(super) fn around<T>(
    dir: &Path,
    main_pid: i32,
    pidfd: impl FnOnce() -> Result<OwnedFd>,
    open: impl FnOnce() -> Result<T>,
) -> Result<T> {
    let Some(proxy) = Proxy::bind(dir, main_pid)? else {
        return open();
    };
    // Opened while the process waits at the gate: it means no later one.
    let pidfd = pidfd()?;
    let opened = open()?;
    proxy.wait(&pidfd)?;
    Ok(opened)
}

/// The same descriptor for a child of ours.
///
/// # Errors
/// Too many open files.
pub(super) fn watch(child: &Child) -> Result<OwnedFd> {
    child
        .pidfd
        .try_clone()
        .map_err(|error| Error::new(error.to_string()))
}

fn ready_line(message: &[u8]) -> Option<&[u8]> {
    message
        .split(|byte| *byte == b'\n')
        .find(|line| line.starts_with(b"READY="))
}

/// Sends the manager a pipe, which it closes once it has read everything before.
fn barrier(manager: &OwnedFd) -> Result<()> {
    let (ours, theirs) = sys::fd::pipe()?;
    sys::socket::send(manager, b"BARRIER=1", &[theirs.as_fd()])?;
    drop(theirs);
    // A manager that does not know barriers lets the time pass.
    sys::fd::wait_readable(&[ours.as_fd()], BARRIER_MS)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_line_that_says_ready_counts() {
        let table: [(&[u8], Option<&[u8]>); 5] = [
            (b"READY=1", Some(b"READY=1")),
            (b"STATUS=up\nREADY=1\nMAINPID=1\n", Some(b"READY=1")),
            (b"STATUS=not READY=1", None),
            (b"MAINPID=1", None),
            (b"", None),
        ];
        for (message, expected) in table {
            assert_eq!(ready_line(message), expected);
        }
    }

    proptest::proptest! {
        #[test]
        fn nothing_but_one_line_is_passed_on(message: Vec<u8>) {
            if let Some(line) = ready_line(&message) {
                proptest::prop_assert!(line.starts_with(b"READY=") && !line.contains(&b'\n'));
            }
        }
    }
}
