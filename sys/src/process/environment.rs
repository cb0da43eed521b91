//! The environment that this process was started with.
#![allow(unsafe_code)]

unsafe extern "C" {
    /// The C library's list of variables; a null pointer ends it.
    static mut environ: *mut *mut libc::c_char;
}

/// Overwrites the environment of this process with zeroes, so that nobody can read it through `/proc/<pid>/environ` or
/// in a copy of this process's memory. From here on the process has no variables.
///
/// For the child of a fork, which is a single thread: nobody else reads the environment meanwhile.
pub fn forget_environment() {
    // SAFETY: `environ` is a list of NUL-terminated strings on the initial stack or on the heap, all writable, which
    // only this thread uses (the caller's promise); each string is overwritten within its own length, and then the
    // list is empty, so that nobody finds them again.
    unsafe {
        let mut entry = environ;
        while !entry.is_null() && !(*entry).is_null() {
            let length = libc::strlen(*entry);
            std::ptr::write_bytes(*entry, 0, length);
            // Without this the compiler may see that nobody reads what was written.
            std::hint::black_box(*entry);
            entry = entry.add(1);
        }
        if !environ.is_null() {
            *environ = std::ptr::null_mut();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::{Forked, exit_now, fork, wait};

    #[test]
    fn the_environment_is_gone_from_procfs_as_well() {
        assert!(std::env::var_os("PATH").is_some());
        match fork().unwrap() {
            Forked::Child => {
                forget_environment();
                // System calls on a buffer of this stack only: this process has other threads' locks.
                let mut text = [1_u8; 4096];
                // SAFETY: path and buffer live through the calls.
                let count = unsafe {
                    let fd = libc::open(c"/proc/self/environ".as_ptr(), libc::O_RDONLY);
                    libc::read(fd, text.as_mut_ptr().cast(), text.len())
                };
                let read = usize::try_from(count).unwrap_or(0);
                let clean = read > 0 && text[..read].iter().all(|byte| *byte == 0);
                exit_now(if clean { 0 } else { 1 })
            }
            Forked::Parent(child) => assert_eq!(wait(&child.pidfd).unwrap().code(), 0),
        }
    }
}
