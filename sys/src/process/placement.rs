//! Where a process runs and where its memory lies: processors (`sched_setaffinity(2)`), memory nodes (`set_mempolicy(2)`).
#![allow(unsafe_code)]
use nix::errno::Errno;
use nix::unistd::Pid;

use crate::error::{Error, Result, check};

/// More processors than any kernel is built for (x86-64: 8192).
const MAX_PROCESSORS: usize = 8192;

/// Bits of one word of a mask.
const WORD: usize = 64;

/// `sched_setaffinity(2)`: the processors that `pid` (0: the caller) may run on.
///
/// # Errors
/// `EINVAL` where none of them is allowed.
pub fn set_affinity(pid: Pid, processors: &[usize]) -> Result<()> {
    let text = || format!("sched_setaffinity({pid}, {processors:?})");
    if processors.is_empty() {
        return Err(Error::new(Errno::EINVAL, text()));
    }
    set_affinity_mask(pid, &mask(processors), text)
}

/// Lets the caller run on every processor that its cpuset allows, now and after changes of the cpuset: what it
/// inherited from its parent is forgotten. The kernel cuts the mask to the processors that there are.
///
/// # Errors
/// `EPERM` behind an outer filter of system calls.
pub fn reset_affinity() -> Result<()> {
    let all = [u64::MAX; MAX_PROCESSORS / WORD];
    set_affinity_mask(Pid::from_raw(0), &all, || {
        "sched_setaffinity(0, all)".to_owned()
    })
}

fn set_affinity_mask(pid: Pid, mask: &[u64], text: impl FnOnce() -> String) -> Result<()> {
    // SAFETY: pointer and byte length are of one live slice; the kernel only reads it.
    let ret = unsafe {
        libc::syscall(
            libc::SYS_sched_setaffinity,
            pid.as_raw(),
            size_of_val(mask),
            mask.as_ptr(),
        )
    };
    check(ret, text).map(drop)
}

/// `sched_getaffinity(2)`: the processors that the caller may run on.
///
/// # Errors
/// `EINVAL` on a kernel built for more processors than are known here.
pub fn affinity() -> Result<Vec<usize>> {
    let mut mask = [0_u64; MAX_PROCESSORS / WORD];
    // SAFETY: pointer and byte length are of one live array, which the kernel fills no further.
    let ret = unsafe {
        libc::syscall(
            libc::SYS_sched_getaffinity,
            0,
            size_of_val(&mask),
            mask.as_mut_ptr(),
        )
    };
    check(ret, || "sched_getaffinity(0)".to_owned())?;
    let is_set = |bit: &usize| mask[bit / WORD] & (1 << (bit % WORD)) != 0;
    Ok((0..MAX_PROCESSORS).filter(is_set).collect())
}

/// `set_mempolicy(2)` for the calling process: the mode `MPOL_…` with its flags, and the nodes that it speaks of.
///
/// # Errors
/// `EINVAL` for nodes that do not exist or are not allowed, or that the mode does not take; `ENOSYS` without NUMA.
pub fn set_memory_policy(mode: u32, nodes: &[usize]) -> Result<()> {
    let mask = mask(nodes);
    // The kernel takes the number of bits and one; a list of no nodes is no mask at all.
    let (pointer, bits) = if nodes.is_empty() {
        (std::ptr::null(), 0)
    } else {
        (mask.as_ptr(), mask.len() * WORD + 1)
    };
    // SAFETY: the mask is null or live and of as many bits as the call says, and the kernel only reads it.
    let ret = unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, pointer, bits) };
    check(ret, || format!("set_mempolicy({mode:#x}, {nodes:?})")).map(drop)
}

/// One bit per number, one word per 64: larger than the C library's fixed sets, which end at 1024.
fn mask(numbers: &[usize]) -> Vec<u64> {
    let highest = numbers.iter().copied().max().unwrap_or(0);
    let mut mask = vec![0_u64; highest / WORD + 1];
    for number in numbers {
        mask[number / WORD] |= 1 << (number % WORD);
    }
    mask
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_narrowed_affinity_is_read_back_and_forgotten() {
        // On a thread of its own: the affinity is the thread's.
        std::thread::spawn(|| {
            let all = affinity().unwrap();
            set_affinity(Pid::from_raw(0), &all[..1]).unwrap();
            assert_eq!(affinity().unwrap(), all[..1]);
            reset_affinity().unwrap();
            assert!(affinity().unwrap().len() >= all.len());
        })
        .join()
        .unwrap();
    }

    #[test]
    fn a_mask_holds_exactly_its_numbers() {
        assert_eq!(mask(&[]), [0]);
        assert_eq!(mask(&[0, 63, 64, 130]), [1 | 1 << 63, 1, 4]);
    }

    #[test]
    fn a_memory_policy_of_a_node_that_is_not_there_is_refused_with_its_numbers() {
        let error = set_memory_policy(2, &[900]).unwrap_err();
        assert_eq!(error.call, "set_mempolicy(0x2, [900])");
    }

    #[test]
    fn no_processor_at_all_is_refused() {
        assert_eq!(
            set_affinity(Pid::from_raw(0), &[]).unwrap_err().errno,
            Errno::EINVAL
        );
    }
}
