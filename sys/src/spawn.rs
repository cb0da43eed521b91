//! Starting a program from a process that blocks signals for signalfd: `clone(CLONE_VM|CLONE_VFORK)` and `execve`.
//!
//! std's `Command` hands the blocked signal mask and no parent-death signal to the child. Here the child gets an
//! empty mask, default dispositions, and dies with its parent when asked. The caller is suspended until `execve`
//! succeeded or failed, so an error of the exec is an error of [`spawn`], and no page table is copied.
#![allow(unsafe_code)]
use std::ffi::{CStr, CString};
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::ptr;

use nix::errno::Errno;

use crate::error::{Error, Result};

/// The stack of the child until its `execve`; it makes a dozen system calls there.
const STACK_SIZE: usize = 64 * 1024;

/// What to start.
#[derive(Debug)]
pub struct Spawn<'a> {
    /// The program; not searched in `PATH`.
    pub program: &'a CStr,
    /// All arguments, the first being the name that the program sees itself under.
    pub argv: &'a [CString],
    /// The whole environment.
    pub env: &'a [CString],
    /// What becomes descriptors 0, 1 and 2. Every other descriptor must be close-on-exec.
    pub stdio: [BorrowedFd<'a>; 3],
    /// Whether the child leads a new process group.
    pub new_group: bool,
    /// Whether the kernel kills the child when the calling thread ends.
    pub die_with_parent: bool,
}

/// Everything that the child touches, laid out before the clone: it may not allocate.
struct Plan {
    program: *const libc::c_char,
    argv: *const *const libc::c_char,
    envp: *const *const libc::c_char,
    stdio: [RawFd; 3],
    new_group: bool,
    die_with_parent: bool,
    parent: libc::pid_t,
    /// Written by the child when a step failed.
    errno: libc::c_int,
}

/// Starts the program and returns its process id. The caller must reap it.
///
/// # Errors
/// Why `clone(2)` or `execve(2)` refused; in the latter case no child is left.
pub fn spawn(request: &Spawn<'_>) -> Result<i32> {
    let argv = pointers(request.argv);
    let envp = pointers(request.env);
    let stdio = request.stdio.map(|fd| fd.as_raw_fd());
    if let Some(low) = stdio
        .iter()
        .enumerate()
        .find(|(target, fd)| **fd <= 2 && usize::try_from(**fd) != Ok(*target))
    {
        return Err(Error::new(
            Errno::EBADF,
            format!(
                "spawn({:?}): descriptor {} as {}",
                request.program, low.1, low.0
            ),
        ));
    }
    // SAFETY: getpid has no failure and touches no memory.
    let parent = unsafe { libc::getpid() };
    let mut plan = Plan {
        program: request.program.as_ptr(),
        argv: argv.as_ptr(),
        envp: envp.as_ptr(),
        stdio,
        new_group: request.new_group,
        die_with_parent: request.die_with_parent,
        parent,
        errno: 0,
    };
    let pid = clone_vfork(&mut plan)
        .map_err(|errno| Error::new(errno, "clone(CLONE_VM|CLONE_VFORK|SIGCHLD)"))?;
    // SAFETY: `plan` outlives the child's use of it (CLONE_VFORK); volatile because the child wrote behind the compiler's back.
    let errno = unsafe { ptr::read_volatile(&raw const plan.errno) };
    if errno == 0 {
        return Ok(pid);
    }
    reap(pid);
    let words: Vec<_> = request
        .argv
        .iter()
        .map(|word| word.to_string_lossy())
        .collect();
    Err(Error::new(
        Errno::from_raw(errno),
        format!("execve({:?}, {words:?})", request.program),
    ))
}

/// Ends this process at once: no destructors, no flushed buffers. For the child side of a fork, which shares both with
/// its parent.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: never returns, and touches no memory of this process.
    unsafe { libc::_exit(code) }
}

/// The NULL-terminated array that `execve` wants. It borrows from `words`, which the caller keeps.
fn pointers(words: &[CString]) -> Vec<*const libc::c_char> {
    words
        .iter()
        .map(|word| word.as_ptr())
        .chain([ptr::null()])
        .collect()
}

fn clone_vfork(plan: &mut Plan) -> std::result::Result<libc::pid_t, Errno> {
    let stack = Stack::map()?;
    // A handler of this process must not run in the child on shared memory: block all signals around the clone.
    // SAFETY: plain data that sigfillset and pthread_sigmask initialise.
    let mut all: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: as above.
    let mut old: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: both sets live on this stack for the two calls.
    unsafe {
        libc::sigfillset(&raw mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut old);
    }
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
    // SAFETY: the stack is mapped until the end of this function and the child has left it by then: CLONE_VFORK
    // suspends us until its execve or _exit. `child` neither returns into our frames nor allocates nor unwinds.
    let pid = unsafe { libc::clone(child, stack.top(), flags, ptr::from_mut(plan).cast()) };
    let error = Errno::last();
    // SAFETY: `old` was filled above.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const old, ptr::null_mut()) };
    if pid < 0 { Err(error) } else { Ok(pid) }
}

/// The child until its `execve`: async-signal-safe calls only.
extern "C" fn child(argument: *mut libc::c_void) -> libc::c_int {
    let plan = argument.cast::<Plan>();
    // SAFETY: `plan` is the caller's, alive and unused by anyone else while CLONE_VFORK holds the caller. Every call
    // below is a bare system call or async-signal-safe, on pointers that the caller prepared and keeps.
    unsafe {
        prepare(&*plan);
        libc::execve((*plan).program, (*plan).argv, (*plan).envp);
        (*plan).errno = Errno::last_raw();
        libc::_exit(127)
    }
}

/// Signals, group and stdio of the new program.
///
/// # Safety
/// Only in the vfork child: it changes the calling process for good.
unsafe fn prepare(plan: &Plan) {
    // SAFETY: system calls on integers and on a set on this stack.
    unsafe {
        // An ignored signal stays ignored over execve: SIGPIPE is so in every Rust program, SIGHUP under nohup.
        for signal in 1..=31 {
            libc::signal(signal, libc::SIG_DFL);
        }
        if plan.die_with_parent {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            // A parent that died before the line above raises nothing any more.
            if libc::getppid() != plan.parent {
                libc::_exit(127);
            }
        }
        if plan.new_group {
            libc::setpgid(0, 0);
        }
        for (target, fd) in (0..).zip(plan.stdio) {
            if fd == target {
                libc::fcntl(fd, libc::F_SETFD, 0);
            } else {
                libc::dup2(fd, target);
            }
        }
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, ptr::null_mut());
    }
}

/// Takes the child that failed to exec: it is this call's, nobody else knows of it.
fn reap(pid: libc::pid_t) {
    // SAFETY: waits for one child of ours; a null status is allowed.
    while unsafe { libc::waitpid(pid, ptr::null_mut(), 0) } < 0 && Errno::last() == Errno::EINTR {}
}

/// A mapped stack, given back when the child no longer stands on it.
struct Stack(*mut libc::c_void);

impl Stack {
    fn map() -> std::result::Result<Self, Errno> {
        let (prot, flags) = (
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_STACK,
        );
        // SAFETY: a new anonymous mapping touches nothing that exists.
        let base = unsafe { libc::mmap(ptr::null_mut(), STACK_SIZE, prot, flags, -1, 0) };
        if base == libc::MAP_FAILED {
            Err(Errno::last())
        } else {
            Ok(Self(base))
        }
    }

    /// Stacks grow down: the child starts at the end, which page alignment aligns for the ABI.
    fn top(&self) -> *mut libc::c_void {
        self.0.wrapping_byte_add(STACK_SIZE)
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and its only user (the child) has gone on to its own memory.
        unsafe { libc::munmap(self.0, STACK_SIZE) };
    }
}

#[cfg(test)]
#[path = "spawn/tests.rs"]
mod tests;
