//! A filter's answer without the kernel.
use sys::seccomp::Instruction;

use super::arch::Arch;

/// A system call as a filter sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call {
    /// Its number.
    pub number: u32,
    /// `AUDIT_ARCH_…`
    pub arch: u32,
    /// Its arguments.
    pub args: [u64; 6],
}

/// What the program answers; `None` where it does something that no filter of ours, or of libseccomp, does.
pub fn run(program: &[Instruction], call: &Call) -> Option<u32> {
    let mut accumulator = 0;
    let mut at = 0_usize;
    // Jumps only go forward, so this ends.
    loop {
        let Instruction { code, jt, jf, k } = *program.get(at)?;
        at += 1;
        let mut jump = |holds: bool| at += usize::from(if holds { jt } else { jf });
        match code {
            0x20 => accumulator = word(k, call)?,
            0x54 => accumulator &= k,
            0x05 => at = at.checked_add(usize::try_from(k).ok()?)?,
            0x15 => jump(accumulator == k),
            0x25 => jump(accumulator > k),
            0x35 => jump(accumulator >= k),
            0x45 => jump(accumulator & k != 0),
            0x06 => return Some(k),
            _ => return None,
        }
    }
}

/// The word at this offset of `struct seccomp_data`.
fn word(offset: u32, call: &Call) -> Option<u32> {
    match offset {
        0 => Some(call.number),
        4 => Some(call.arch),
        16..64 if offset.is_multiple_of(4) => {
            let arg = call.args[usize::try_from((offset - 16) / 8).ok()?];
            let second = offset % 8 == 4;
            let upper = second != Arch::native().big_endian;
            u32::try_from(if upper { arg >> 32 } else { arg & 0xffff_ffff }).ok()
        }
        _ => None,
    }
}
