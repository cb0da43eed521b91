//! Keeps a container from writing to this program's own file (CVE-2019-5736).
//!
//! Until its `execve`, a container's process runs this program, so `/proc/self/exe` as the container's program, as the
//! interpreter of a script or as an ELF loader would hand it our file, writable for root. Commands that make such a
//! process therefore run from a read-only, detached copy of the mount that the file lies on: no copy of the file, no
//! place in any mount namespace, and nobody can make it writable again. That costs a second start of this program.
//!
//! A new container's first process can do without: in a new pid namespace nobody can look at it before it waits for
//! `start`, and by then it is the doorkeeper ([`Doorkeeper`]), a page of instructions with nothing of this program.
use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, ResolveFlag};
use nix::sys::stat::Mode;
use nix::sys::statvfs::{FsFlags, fstatvfs};
use sys::mount::{self, MountAttr, MountAttrs, OpenTree};
use sys::namespace::NamespaceKind;
use sys::process::Doorkeeper;

use crate::error::{Error, Result, Within};
use crate::init;
use crate::plan::{Plan, ProcessPlan};
use crate::seccomp::SeccompPlan;

const OWN: &str = "/proc/self/exe";
const WITHIN: &str = "protecting the runtime's own file";

/// Says in the environment of the second run that it is the second.
const MARKER: &str = "DAVIT_OCI_PROTECTED";

/// The file of the doorkeeper that this container's first process can become. `None` where this program runs from a
/// file that cannot be written, so that none is needed; where none will do, starts this program again from such a file.
///
/// # Errors
/// As [`protect`].
pub fn doorkeeper(plan: &Plan) -> Result<Option<OwnedFd>> {
    match without_a_restart(plan)? {
        Some(way) => Ok(way),
        None => protect().map(|()| None),
    }
}

/// As [`doorkeeper`] for a program that links this crate, and that cannot be started again from here.
///
/// # Errors
/// The plan needs that.
pub fn doorkeeper_for_library(plan: &Plan) -> Result<Option<OwnedFd>> {
    without_a_restart(plan)?.ok_or_else(|| {
        Error::new("this container's first process would have this program's file as its own, open to be overwritten")
            .hint("use davit-oci, which starts itself again from a read-only mount; or a new pid namespace without startContainer hooks")
            .within(WITHIN.to_owned())
    })
}

/// How to keep this program's file from the container without starting it again, if there is a way.
#[expect(
    clippy::option_option,
    reason = "the outer one says whether there is a way, the inner one by what"
)]
fn without_a_restart(plan: &Plan) -> Result<Option<Option<OwnedFd>>> {
    let protected = open_own()
        .and_then(|own| is_readonly(&own))
        .within(|| WITHIN.to_owned())?;
    if protected {
        return Ok(Some(None));
    }
    // Hooks in the container are this program's to start; somebody may look into a pid namespace that is not new.
    let will_do = plan.hooks.start_container.is_empty()
        && plan.namespaces.is_new(NamespaceKind::Pid)
        && init::allows_doorkeeper(plan.seccomp.as_ref(), &plan.process);
    if !will_do {
        return Ok(None);
    }
    // A host may forbid to execute files in memory: then there is no doorkeeper.
    Ok(Doorkeeper::file().ok().map(Some))
}

/// The same for a process that `exec` adds; `enters` says whether into a pid namespace, so that somebody could look.
///
/// # Errors
/// As [`protect`].
pub fn doorkeeper_for_exec(
    process: &ProcessPlan,
    seccomp: Option<&SeccompPlan>,
    enters: bool,
) -> Result<Option<OwnedFd>> {
    let will_do = enters && init::allows_doorkeeper_in_exec(seccomp, process);
    if will_do && let Ok(file) = Doorkeeper::file() {
        return Ok(Some(file));
    }
    protect().map(|()| None)
}

/// Starts this program again from a file that cannot be written, unless that is what it runs from.
///
/// # Errors
/// No such file can be made.
pub fn protect() -> Result<()> {
    let within = || WITHIN.to_owned();
    let own = open_own().within(within)?;
    if is_readonly(&own).within(within)? {
        return Ok(());
    }
    if std::env::var_os(MARKER).is_some() {
        return Err(
            Error::new("still writable after starting from a read-only copy").within(within()),
        );
    }
    let safe = match readonly_mount() {
        // No CAP_SYS_ADMIN, an old kernel, or a file that is in no mount of ours.
        Err(sys::Error {
            errno: Errno::EPERM | Errno::ENOSYS | Errno::EINVAL,
            ..
        }) => sealed_copy().within(within)?,
        other => other.within(within)?,
    };
    let args: Vec<CString> = std::env::args_os()
        .filter_map(|arg| CString::new(arg.into_vec()).ok())
        .collect();
    let variable = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
        CString::new([name.into_vec(), value.into_vec()].join(&b'=')).ok()
    };
    let mut env: Vec<CString> = std::env::vars_os().filter_map(variable).collect();
    env.extend(CString::new(format!("{MARKER}=1")));
    Err(Error::from(sys::process::execveat(&safe, &args, &env)).within(within()))
}

fn open_own() -> sys::Result<OwnedFd> {
    sys::path::openat2(
        AT_FDCWD,
        Path::new(OWN),
        OFlag::O_RDONLY,
        Mode::empty(),
        ResolveFlag::empty(),
    )
}

fn is_readonly(own: &OwnedFd) -> sys::Result<bool> {
    use nix::fcntl::{FcntlArg, SealFlag, fcntl};
    let stat =
        fstatvfs(own).map_err(|errno| sys::Error::new(errno, format!("fstatvfs({OWN:?})")))?;
    if stat.flags().contains(FsFlags::ST_RDONLY) {
        return Ok(true);
    }
    let seals = fcntl(own, FcntlArg::F_GET_SEALS).unwrap_or(0);
    Ok(
        SealFlag::from_bits_truncate(seals)
            .contains(SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_SEAL),
    )
}

fn readonly_mount() -> sys::Result<OwnedFd> {
    let tree = mount::open_tree(AT_FDCWD, Path::new(OWN), OpenTree::OPEN_TREE_CLONE)?;
    let set = MountAttr::MOUNT_ATTR_RDONLY;
    mount::mount_setattr(
        &tree,
        MountAttrs {
            set,
            ..MountAttrs::default()
        },
    )?;
    Ok(tree)
}

fn sealed_copy() -> Result<OwnedFd> {
    let content = std::fs::read(OWN)
        .map_err(|error| sys::Error::from_io(&error, format!("read({OWN:?})")))?;
    Ok(sys::fd::sealed_memfd(c"davit-oci", &content)?)
}
