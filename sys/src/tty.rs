//! Pseudo-terminals. See `pty(7)`, `ioctl_tty(2)`.
#![allow(unsafe_code)]
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};

use crate::error::{Context, Result, check};
use crate::fd::FdName;

/// A pseudo-terminal.
#[derive(Debug)]
pub struct Pty {
    /// The end of the terminal emulator.
    pub master: OwnedFd,
    /// The end of the program.
    pub slave: OwnedFd,
    /// The number of the slave in its devpts: `/dev/pts/<number>`.
    pub number: u32,
}

/// Rows and columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WindowSize {
    /// Height in characters.
    pub rows: u16,
    /// Width in characters.
    pub columns: u16,
}

/// Opens a new pseudo-terminal of the devpts instance whose root directory is `devpts`.
///
/// The slave is opened through its master (`TIOCGPTPEER`), so no path in the container can stand in for it.
///
/// # Errors
/// `ENOSPC` at the limit of terminals, `EACCES` for a `ptmx` with mode 000.
pub fn open_pty(devpts: impl AsFd) -> Result<Pty> {
    let devpts = devpts.as_fd();
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
    let master = nix::fcntl::openat(devpts, "ptmx", flags, Mode::empty()).call(|| {
        format!(
            "openat({}, \"ptmx\", O_RDWR|O_NOCTTY|O_CLOEXEC|O_NOFOLLOW)",
            FdName::of(devpts)
        )
    })?;
    let unlocked: libc::c_int = 0;
    // SAFETY: TIOCSPTLCK reads one int, which lives through the call.
    let ret = unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCSPTLCK, &raw const unlocked) };
    check(libc::c_long::from(ret), || {
        format!("ioctl({}, TIOCSPTLCK, [0])", FdName::of(&master))
    })?;
    let mut number: libc::c_uint = 0;
    // SAFETY: TIOCGPTN writes one unsigned int, which is writable through the call.
    let ret = unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTN, &raw mut number) };
    check(libc::c_long::from(ret), || {
        format!("ioctl({}, TIOCGPTN)", FdName::of(&master))
    })?;
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: TIOCGPTPEER takes open flags as an integer and returns a descriptor.
    let ret = unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER, flags) };
    check(libc::c_long::from(ret), || {
        format!(
            "ioctl({}, TIOCGPTPEER, O_RDWR|O_NOCTTY|O_CLOEXEC)",
            FdName::of(&master)
        )
    })?;
    // SAFETY: the kernel returned this new descriptor; nothing else owns it.
    let slave = unsafe { OwnedFd::from_raw_fd(ret) };
    Ok(Pty {
        master,
        slave,
        number,
    })
}

/// Makes `terminal` the controlling terminal of the caller, who must lead a session without one.
///
/// # Errors
/// `EPERM` where the caller leads no session or the terminal has one.
pub fn set_controlling(terminal: impl AsFd) -> Result<()> {
    let terminal = terminal.as_fd();
    // SAFETY: TIOCSCTTY takes an integer.
    let ret = unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSCTTY, 0) };
    check(libc::c_long::from(ret), || {
        format!("ioctl({}, TIOCSCTTY, 0)", FdName::of(terminal))
    })
    .map(drop)
}

/// Sets the size of a terminal; its foreground processes get SIGWINCH.
///
/// # Errors
/// `ENOTTY`.
pub fn set_window_size(terminal: impl AsFd, size: WindowSize) -> Result<()> {
    let terminal = terminal.as_fd();
    let raw = libc::winsize {
        ws_row: size.rows,
        ws_col: size.columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: TIOCSWINSZ reads one winsize, which lives through the call.
    let ret = unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ, &raw const raw) };
    check(libc::c_long::from(ret), || {
        format!("ioctl({}, TIOCSWINSZ, {size:?})", FdName::of(terminal))
    })
    .map(drop)
}

/// The size of a terminal.
///
/// # Errors
/// `ENOTTY`.
pub fn window_size(terminal: impl AsFd) -> Result<WindowSize> {
    let terminal = terminal.as_fd();
    let mut raw = libc::winsize {
        ws_row: 0,
        ws_col: 0,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: TIOCGWINSZ writes one winsize, which is writable through the call.
    let ret = unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCGWINSZ, &raw mut raw) };
    check(libc::c_long::from(ret), || {
        format!("ioctl({}, TIOCGWINSZ)", FdName::of(terminal))
    })?;
    Ok(WindowSize {
        rows: raw.ws_row,
        columns: raw.ws_col,
    })
}

/// Whether `fd` is a terminal.
pub fn is_terminal(fd: impl AsFd) -> bool {
    nix::unistd::isatty(fd.as_fd()).unwrap_or(false)
}

/// A terminal in raw mode; dropping it gives the terminal its old mode back.
pub struct RawMode {
    terminal: OwnedFd,
    old: Termios,
}

impl RawMode {
    /// Puts `terminal` into raw mode.
    ///
    /// # Errors
    /// `ENOTTY`.
    pub fn enter(terminal: OwnedFd) -> Result<Self> {
        let old = tcgetattr(&terminal).call(|| format!("tcgetattr({})", FdName::of(&terminal)))?;
        let mut raw = old.clone();
        cfmakeraw(&mut raw);
        tcsetattr(&terminal, SetArg::TCSANOW, &raw)
            .call(|| format!("tcsetattr({}, raw)", FdName::of(&terminal)))?;
        Ok(Self { terminal, old })
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        // The terminal may be gone: then there is no mode to restore.
        let _ignored = tcsetattr(&self.terminal, SetArg::TCSANOW, &self.old);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pseudo_terminal_carries_text_and_its_size() {
        let Ok(devpts) = std::fs::File::open("/dev/pts") else {
            return;
        };
        let Ok(pty) = open_pty(&devpts) else {
            // A devpts whose own ptmx has mode 000 and no root to override it.
            return;
        };
        let size = WindowSize {
            rows: 33,
            columns: 120,
        };
        set_window_size(&pty.master, size).unwrap();
        assert_eq!(window_size(&pty.slave).unwrap(), size);
        crate::fd::write_all(&pty.slave, b"hello\n").unwrap();
        let mut text = [0_u8; 7];
        crate::fd::read_exact(&pty.master, &mut text).unwrap();
        assert_eq!(&text, b"hello\r\n");
        assert!(is_terminal(&pty.slave));
    }

    #[test]
    fn a_file_is_no_terminal() {
        let file = std::fs::File::open("/proc/self/status").unwrap();
        assert!(!is_terminal(&file));
        assert!(
            set_window_size(
                &file,
                WindowSize {
                    rows: 1,
                    columns: 1
                }
            )
            .is_err()
        );
    }
}
