//! The terminal of a process: made in the container's own devpts, its master sent to whoever asked for it.
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use nix::sys::statfs::FsType;
use sys::mount;
use sys::path::Root;
use sys::tty::{self, Pty};

use super::devices::file_nofollow;
use crate::error::{Error, Result, Within};
use crate::plan::ProcessPlan;

/// The filesystem type of a devpts, which nix does not name.
const DEVPTS_SUPER_MAGIC: FsType = FsType(0x1cd1);

/// Connects to the socket that waits for the terminal. Before any namespace is entered: its path is the host's.
///
/// # Errors
/// Nobody listens there.
pub fn connect(path: &Path) -> Result<OwnedFd> {
    sys::socket::connect(path, sys::socket::Kind::Stream)
        .map_err(|error| Error::from(error).hint("the caller must listen there before it calls"))
        .within(|| "--console-socket".to_owned())
}

/// Opens a terminal of the container, makes it stdin, stdout and stderr, and sends its master over `console`.
///
/// # Errors
/// `/dev/pts` of the container is no devpts.
pub fn open(root: &Root, process: &ProcessPlan, console: &OwnedFd) -> Result<Pty> {
    let devpts = root
        .open_at(
            Path::new("/dev/pts"),
            OFlag::O_RDONLY | OFlag::O_DIRECTORY,
            Mode::empty(),
        )
        .within(|| "process.terminal: /dev/pts of the container".to_owned())?;
    let stat = nix::sys::statfs::fstatfs(&devpts)
        .map_err(|errno| sys::Error::new(errno, "fstatfs(\"/dev/pts\")"))?;
    if stat.filesystem_type() != DEVPTS_SUPER_MAGIC {
        return Err(Error::new(
            "process.terminal: /dev/pts of the container is not a devpts",
        ));
    }
    let pty = tty::open_pty(&devpts)?;
    if let Some(size) = process.console_size {
        tty::set_window_size(&pty.master, size).within(|| "process.consoleSize".to_owned())?;
    }
    // The group stays that of devpts' gid= option (tty), so that mesg(1) and write(1) work.
    match nix::unistd::fchown(&pty.slave, Some(process.uid.into()), None) {
        Ok(()) | Err(Errno::EPERM | Errno::EROFS | Errno::EINVAL) => {}
        Err(errno) => return Err(sys::Error::new(errno, "fchown(terminal)").into()),
    }
    let name = format!("/dev/pts/{}", pty.number);
    sys::socket::send(console, name.as_bytes(), &[pty.master.as_fd()])
        .within(|| "sending the terminal".to_owned())?;
    for number in 0..3 {
        sys::fd::duplicate_onto(&pty.slave, number)?;
    }
    Ok(pty)
}

/// Makes the terminal on stdin the controlling terminal of the caller, who leads a session.
///
/// # Errors
/// `EPERM` where another session has it.
pub fn take_control() -> Result<()> {
    tty::set_controlling(std::io::stdin()).within(|| "process.terminal".to_owned())
}

/// Makes `/dev/console` the terminal. `dev` is the verified directory, and the place in it no link
/// (CVE-2025-52565).
///
/// # Errors
/// A link in its place.
pub fn bind_dev_console(dev: &Root, pty: &Pty) -> Result<()> {
    let within = || "process.terminal: /dev/console".to_owned();
    let target = file_nofollow(dev, "console".as_ref()).within(within)?;
    let copy = mount::clone_tree(&pty.slave, false).within(within)?;
    mount::attach_at(&copy, &target).within(within)
}
