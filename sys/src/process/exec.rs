//! The last steps of a process image: signals back to their defaults, then the next program.
#![allow(unsafe_code)]
use std::ffi::{CStr, CString};
use std::os::fd::AsFd;

use nix::fcntl::AtFlags;
use nix::sys::signal::{SigSet, SigmaskHow, Signal};

use crate::error::{Context, Error, Result, check};
use crate::fd::FdName;

/// `execve(2)`. Returns only to say why not.
pub fn execve(path: &CStr, argv: &[CString], env: &[CString]) -> Error {
    match nix::unistd::execve(path, argv, env) {
        Ok(never) => match never {},
        Err(errno) => Error::new(
            errno,
            format!("execve({path:?}, {argv:?}, {} variables)", env.len()),
        ),
    }
}

/// `execveat(2)` of the file behind `fd` itself. Returns only to say why not.
pub fn execveat(fd: impl AsFd, argv: &[CString], env: &[CString]) -> Error {
    let fd = fd.as_fd();
    match nix::unistd::execveat(fd, c"", argv, env, AtFlags::AT_EMPTY_PATH) {
        Ok(never) => match never {},
        Err(errno) => Error::new(
            errno,
            format!(
                "execveat({}, \"\", {argv:?}, AT_EMPTY_PATH)",
                FdName::of(fd)
            ),
        ),
    }
}

/// Gives every signal its default action and unblocks all: what a new program expects to find.
/// (An ignored signal stays ignored over execve; Rust programs ignore SIGPIPE.)
///
/// # Errors
/// Never on a sane kernel.
pub fn reset_signals() -> Result<()> {
    // The kernel's own struct (handler, flags, restorer, mask) as four words: SIG_DFL, no flags, an empty mask. Not
    // through glibc, which refuses to touch the two signals that it keeps for itself, and a caller may ignore those.
    let default = [0_u64; 4];
    let mask_size = size_of::<u64>();
    for signal in 1..=libc::SIGRTMAX() {
        if signal == libc::SIGKILL || signal == libc::SIGSTOP {
            continue;
        }
        // SAFETY: `default` is what the kernel reads for an action and lives through the call; no old one is asked for.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                default.as_ptr(),
                std::ptr::null_mut::<u64>(),
                mask_size,
            )
        };
    }
    set_signal_mask(&SigSet::empty())
}

/// Blocks every signal, so that a signalfd can read them. Returns the mask from before.
///
/// # Errors
/// Never on a sane kernel.
pub fn block_all_signals() -> Result<SigSet> {
    let mut old = SigSet::empty();
    nix::sys::signal::sigprocmask(
        SigmaskHow::SIG_SETMASK,
        Some(&SigSet::all()),
        Some(&mut old),
    )
    .call(|| "sigprocmask(SIG_SETMASK, ~[])".to_owned())?;
    Ok(old)
}

/// Sets the mask of blocked signals.
///
/// # Errors
/// Never on a sane kernel.
pub fn set_signal_mask(mask: &SigSet) -> Result<()> {
    nix::sys::signal::sigprocmask(SigmaskHow::SIG_SETMASK, Some(mask), None).call(|| {
        format!(
            "sigprocmask(SIG_SETMASK, {:?})",
            mask.iter().collect::<Vec<_>>()
        )
    })
}

/// Ignores a signal.
///
/// # Errors
/// `EINVAL` for SIGKILL and SIGSTOP.
pub fn ignore_signal(signal: Signal) -> Result<()> {
    // SAFETY: all-zero is a valid `sigaction`; the action is set right below.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = libc::SIG_IGN;
    // SAFETY: `action` is valid and lives through the call; ignoring runs no handler.
    let ret = unsafe {
        libc::sigaction(
            signal as libc::c_int,
            &raw const action,
            std::ptr::null_mut(),
        )
    };
    check(libc::c_long::from(ret), || {
        format!("sigaction({signal}, SIG_IGN)")
    })
    .map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_program_is_named_with_its_arguments() {
        let error = execve(c"/no/such/program", &[c"program".to_owned()], &[]);
        assert_eq!(
            error.to_string(),
            r#"execve("/no/such/program", ["program"], 0 variables): no such file or directory (ENOENT)"#
        );
    }
}
