//! Loading of seccomp filters: `seccomp(2)`.
#![allow(unsafe_code)]
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;

use crate::error::{Error, Result, check, flag_names};

/// One instruction of classic BPF: `struct sock_filter` of `linux/filter.h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Instruction {
    /// The operation.
    pub code: u16,
    /// How many instructions to skip where the condition holds.
    pub jt: u8,
    /// How many where it does not.
    pub jf: u8,
    /// The operand.
    pub k: u32,
}

bitflags::bitflags! {
    /// `SECCOMP_FILTER_FLAG_…`
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
    pub struct FilterFlags: u32 {
        /// Give the filter to all threads of the caller.
        const TSYNC = 1;
        /// Log whatever is not allowed.
        const LOG = 1 << 1;
        /// Leave the mitigation of speculative store bypass off.
        const SPEC_ALLOW = 1 << 2;
        /// Return a descriptor on which another process answers for some calls.
        const NEW_LISTENER = 1 << 3;
        /// While the listener has a call, only a deadly signal interrupts it.
        const WAIT_KILLABLE_RECV = 1 << 5;
    }
}

/// The most instructions that the kernel takes.
pub const MAX_INSTRUCTIONS: usize = 4096;

#[repr(C)]
struct Program {
    length: u16,
    instructions: *const Instruction,
}

const SET_MODE_FILTER: libc::c_uint = 1;

/// `seccomp(SECCOMP_SET_MODE_FILTER)`: from now on every system call of the caller goes through this filter as well.
/// Returns the listener that [`FilterFlags::NEW_LISTENER`] asks for. Cannot be undone.
///
/// # Errors
/// `EACCES` without CAP_SYS_ADMIN or `no_new_privs`, `EINVAL` for a broken filter or an unknown flag, `EBUSY` where an
/// earlier filter has a listener already.
pub fn load_filter(instructions: &[Instruction], flags: FilterFlags) -> Result<Option<OwnedFd>> {
    let text = || {
        let names = flag_names(&flags, "SECCOMP_FILTER_FLAG_");
        let count = instructions.len();
        format!("seccomp(SECCOMP_SET_MODE_FILTER, {names}, {count} instructions)")
    };
    let length = u16::try_from(instructions.len()).map_err(|_| Error::new(Errno::E2BIG, text()))?;
    let program = Program {
        length,
        instructions: instructions.as_ptr(),
    };
    // SAFETY: the program says the length of the slice behind its pointer, and both live through the call; the kernel
    // copies them.
    let ret = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            SET_MODE_FILTER,
            flags.bits(),
            &raw const program,
        )
    };
    let fd = check(ret, text)?;
    if !flags.contains(FilterFlags::NEW_LISTENER) {
        return Ok(None);
    }
    let fd = RawFd::try_from(fd).map_err(|_| Error::new(Errno::EBADF, text()))?;
    // SAFETY: the kernel returned a new descriptor, close-on-exec; nothing else owns it.
    Ok(Some(unsafe { OwnedFd::from_raw_fd(fd) }))
}

/// Whether this kernel has the flags: it looks at them before it looks at the filter, which is not there.
pub fn knows_flags(flags: FilterFlags) -> bool {
    // SAFETY: a null filter is what the kernel refuses with EFAULT, changing nothing.
    let ret = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            SET_MODE_FILTER,
            flags.bits(),
            std::ptr::null::<Program>(),
        )
    };
    ret < 0 && Errno::last() == Errno::EFAULT
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_filter_is_refused_with_its_operands() {
        // A jump past the end.
        let jump = Instruction {
            code: 0x05,
            jt: 0,
            jf: 0,
            k: 7,
        };
        let error = load_filter(&[jump], FilterFlags::LOG).unwrap_err();
        assert!(
            error.to_string().starts_with(
                "seccomp(SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_LOG, 1 instructions): "
            ),
            "{error}"
        );
    }

    #[test]
    fn the_kernel_says_which_flags_it_has() {
        assert!(knows_flags(FilterFlags::LOG | FilterFlags::SPEC_ALLOW));
        assert!(!knows_flags(FilterFlags::from_bits_retain(1 << 31)));
    }
}
