//! Device rules on v2: a BPF program of our own, attached to the cgroup's directory.
//!
//! The kernel runs it at every open and mknod of a device node, with the kind of access, the major and the minor; it
//! answers 1 or 0. The program walks the rules from the last to the first, as [`DevicePolicy::allows`] does, keeping
//! the accesses that no rule has decided yet.
//!
//! <https://docs.kernel.org/bpf/prog_cgroup_sysctl.html> describes its sibling, `struct bpf_cgroup_dev_ctx` in
//! include/uapi/linux/bpf.h its input.
#![allow(unsafe_code)]

use std::ffi::c_long;
use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;

use nix::errno::Errno;
use nix::libc;
use nix::sys::resource::{RLIM_INFINITY, Resource, setrlimit};

mod program;

use super::{DevicePolicy, Error, Hint, Result, file};
use program::{Insn, assemble};

/// Makes the kernel enforce `policy` for the processes of the cgroup `dir`, in place of what it enforced before.
/// The old program goes in the moment the new one comes, so that no access falls between the two.
pub(super) fn enforce(dir: &Path, policy: &DevicePolicy) -> Result<()> {
    let cgroup = File::open(dir).map_err(|e| Error::call("open", dir, file::errno(&e)))?;
    let refused = |call: &str| {
        let call = format!("bpf({call}, {dir:?})");
        move |errno| Error::Call {
            call,
            errno,
            hint: Some(Hint::NoDeviceBpf),
        }
    };
    let (old, flags) = attached(&cgroup).map_err(refused("BPF_PROG_QUERY, CGROUP_DEVICE"))?;
    if policy.allows_everything() {
        return detach_all(&cgroup, &old).map_err(refused("BPF_PROG_DETACH, CGROUP_DEVICE"));
    }
    let program = load(&assemble(policy)).map_err(refused("BPF_PROG_LOAD, CGROUP_DEVICE"))?;
    replace(&cgroup, &program, &old, flags).map_err(refused("BPF_PROG_ATTACH, CGROUP_DEVICE"))
}

/// Attaches `program` in place of `old`.
fn replace(
    cgroup: &File,
    program: &OwnedFd,
    old: &[OwnedFd],
    flags: u32,
) -> std::result::Result<(), Errno> {
    match old {
        // Without ALLOW_MULTI there is one program only, and attaching replaces it.
        [_, ..] if flags & ALLOW_MULTI == 0 => attach(cgroup, program, flags, None),
        [one] => match attach(cgroup, program, ALLOW_MULTI | REPLACE, Some(one)) {
            // Before Linux 5.6: both are there for a moment, which can only deny more.
            Err(Errno::EINVAL) => {
                attach(cgroup, program, ALLOW_MULTI, None).and_then(|()| detach_all(cgroup, old))
            }
            result => result,
        },
        _ => attach(cgroup, program, ALLOW_MULTI, None).and_then(|()| detach_all(cgroup, old)),
    }
}

fn detach_all(cgroup: &File, programs: &[OwnedFd]) -> std::result::Result<(), Errno> {
    programs
        .iter()
        .try_for_each(|program| detach(cgroup, program))
}

// === bpf(2) ===

const CGROUP_DEVICE_PROGRAM: u32 = 15;
const CGROUP_DEVICE_ATTACH: u32 = 6;
const ALLOW_MULTI: u32 = 2;
const REPLACE: u32 = 4;
/// More programs on one cgroup than anyone attaches; the kernel's own limit is 64.
const MOST_PROGRAMS: usize = 64;

const PROG_LOAD: c_long = 5;
const PROG_ATTACH: c_long = 8;
const PROG_DETACH: c_long = 9;
const PROG_GET_FD_BY_ID: c_long = 13;
const PROG_QUERY: c_long = 16;

#[repr(C)]
struct LoadAttr {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
}

#[repr(C)]
struct AttachAttr {
    target: u32,
    program: u32,
    kind: u32,
    flags: u32,
    replaced: u32,
}

#[repr(C)]
struct QueryAttr {
    target: u32,
    kind: u32,
    query_flags: u32,
    attach_flags: u32,
    ids: u64,
    count: u32,
    padding: u32,
}

#[repr(C)]
struct ByIdAttr {
    id: u32,
    next: u32,
    flags: u32,
}

/// Raw `bpf(2)`. `attr` is one of the structs above, each a prefix of the kernel's union for its command.
fn bpf<T>(command: c_long, attr: &mut T) -> std::result::Result<c_long, Errno> {
    // SAFETY: `attr` is alive and writable for the whole call and its true size is passed; the pointers inside of it
    // come from buffers that each caller below keeps alive across the call.
    let ret = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_mut(attr),
            size_of::<T>(),
        )
    };
    Errno::result(ret)
}

/// As [`bpf`] for the commands that return a descriptor; the kernel makes every BPF descriptor close-on-exec.
fn bpf_fd<T>(command: c_long, attr: &mut T) -> std::result::Result<OwnedFd, Errno> {
    let fd = bpf(command, attr)?;
    let fd = RawFd::try_from(fd).map_err(|_| Errno::EBADF)?;
    // SAFETY: the kernel returned a new descriptor; nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn load(program: &[Insn]) -> std::result::Result<OwnedFd, Errno> {
    match load_once(program) {
        // Before Linux 5.11 programs count as locked memory.
        Err(Errno::EPERM)
            if setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY).is_ok() =>
        {
            load_once(program)
        }
        result => result,
    }
}

fn load_once(program: &[Insn]) -> std::result::Result<OwnedFd, Errno> {
    let license = c"Apache-2.0";
    let mut attr = LoadAttr {
        kind: CGROUP_DEVICE_PROGRAM,
        count: u32::try_from(program.len()).map_err(|_| Errno::E2BIG)?,
        instructions: program.as_ptr() as u64,
        license: license.as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log: 0,
        kernel_version: 0,
        flags: 0,
        name: *b"davit_devices\0\0\0",
    };
    bpf_fd(PROG_LOAD, &mut attr)
}

/// The programs of the cgroup itself, not those of its parents, and the flags that they were attached with.
fn attached(cgroup: &File) -> std::result::Result<(Vec<OwnedFd>, u32), Errno> {
    let mut ids = [0u32; MOST_PROGRAMS];
    let mut attr = QueryAttr {
        target: raw(cgroup),
        kind: CGROUP_DEVICE_ATTACH,
        query_flags: 0,
        attach_flags: 0,
        ids: ids.as_mut_ptr() as u64,
        count: u32::try_from(ids.len()).unwrap_or(0),
        padding: 0,
    };
    bpf(PROG_QUERY, &mut attr)?;
    let count = usize::try_from(attr.count).unwrap_or(0).min(ids.len());
    let open = |id: &u32| {
        bpf_fd(
            PROG_GET_FD_BY_ID,
            &mut ByIdAttr {
                id: *id,
                next: 0,
                flags: 0,
            },
        )
    };
    Ok((
        ids[..count]
            .iter()
            .map(open)
            .collect::<std::result::Result<_, _>>()?,
        attr.attach_flags,
    ))
}

fn attach(
    cgroup: &File,
    program: &OwnedFd,
    flags: u32,
    replaced: Option<&OwnedFd>,
) -> std::result::Result<(), Errno> {
    let replaced = replaced.map_or(0, raw);
    let mut attr = AttachAttr {
        target: raw(cgroup),
        program: raw(program),
        kind: CGROUP_DEVICE_ATTACH,
        flags,
        replaced,
    };
    bpf(PROG_ATTACH, &mut attr).map(drop)
}

fn detach(cgroup: &File, program: &OwnedFd) -> std::result::Result<(), Errno> {
    let mut attr = AttachAttr {
        target: raw(cgroup),
        program: raw(program),
        kind: CGROUP_DEVICE_ATTACH,
        flags: 0,
        replaced: 0,
    };
    match bpf(PROG_DETACH, &mut attr) {
        // Somebody else detached it in between.
        Ok(_) | Err(Errno::ENOENT) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// A descriptor as BPF attributes hold it; an open one is never negative.
fn raw(fd: &impl AsRawFd) -> u32 {
    fd.as_raw_fd().unsigned_abs()
}
