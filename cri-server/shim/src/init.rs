//! Process 1 of a PID namespace that the containers of a pod share: it reaps, and does nothing else.
//!
//! Every container of the pod can see it, so it owns nothing worth reaching: an empty read-only root of its own, no
//! capabilities, no privileges to gain, no descriptors but /dev/null. It ignores what the pod's processes may send it (the
//! kernel drops signals to a process 1 that has no handler for them); the shim ends it with SIGKILL.
use std::ffi::CStr;
use std::path::Path;

use sys::error::Context;
use sys::mount::{FsContext, MountAttr, Propagation};
use sys::namespace;
use sys::signalfd::SignalFd;
use sys::{CloneFlags, MntFlags, Signal, creds, process};

/// The name under which the shim's binary becomes the init: what `ps` in the pod shows.
pub const NAME: &CStr = c"davit-init";

/// What it writes to its stdout when it is ready. Anything else is why it is not.
pub(crate) const READY: &[u8] = b"ready";

/// The user and group "nobody" of pause images.
const NOBODY: u32 = 65_535;

/// The init's life. Stdout is the pipe to the shim. Returns only when it could not begin.
///
/// # Errors
/// The step that failed, which was reported to the shim too.
pub fn run() -> Result<(), sys::Error> {
    let signals = match prepare() {
        Ok(signals) => signals,
        Err(error) => {
            report(error.to_string().as_bytes());
            return Err(error);
        }
    };
    report(READY);
    close_report()?;
    loop {
        while process::reap_any()?.is_some() {}
        sys::fd::wait_readable(&[std::os::fd::AsFd::as_fd(&signals)], -1)?;
        while signals.next()?.is_some() {}
    }
}

fn prepare() -> sys::Result<SignalFd> {
    let signals = SignalFd::block(&[Signal::SIGCHLD])?;
    process::setsid()?;
    // execveat of a descriptor names the process after the file, or after the descriptor's number.
    std::fs::write("/proc/self/comm", NAME.to_bytes())
        .call(|| "write(\"/proc/self/comm\")".to_owned())?;
    empty_root()?;
    process::set_no_new_privs()?;
    creds::drop_bounding(creds::CapSet::default())?;
    creds::set_groups(&[])?;
    creds::set_group(NOBODY)?;
    creds::set_user(NOBODY)?;
    // Changing the user cleared this, except where /proc/sys/fs/suid_dumpable says otherwise.
    process::set_dumpable(false)?;
    Ok(signals)
}

/// A mount namespace that holds one empty read-only tmpfs.
fn empty_root() -> sys::Result<()> {
    namespace::unshare(CloneFlags::CLONE_NEWNS)?;
    sys::mount::set_propagation(Path::new("/"), Propagation::Private, true)?;
    let attributes = MountAttr::MOUNT_ATTR_RDONLY
        | MountAttr::MOUNT_ATTR_NOSUID
        | MountAttr::MOUNT_ATTR_NODEV
        | MountAttr::MOUNT_ATTR_NOEXEC;
    let tmpfs = FsContext::open("tmpfs")?;
    tmpfs.set_string("mode", "0555")?;
    // Any directory serves to attach it; this one exists wherever a PID namespace does.
    let place = Path::new("/proc");
    sys::mount::attach(tmpfs.mount(attributes)?, place)?;
    std::env::set_current_dir(place).call(|| format!("chdir({place:?})"))?;
    sys::mount::pivot_root(Path::new("."), Path::new("."))?;
    sys::mount::unmount(Path::new("."), MntFlags::MNT_DETACH)?;
    std::env::set_current_dir("/").call(|| "chdir(\"/\")".to_owned())
}

fn report(text: &[u8]) {
    // Without a reader the shim is gone, and the caller's next step fails or does not matter.
    drop(sys::fd::write_all(std::io::stdout(), text));
}

/// Replaces the pipe by /dev/null, which stdin is: the shim reads its end.
fn close_report() -> sys::Result<()> {
    sys::fd::duplicate_onto(std::io::stdin(), 1)
}

/// Whether this process was started as the init.
pub fn is_requested(argv0: Option<&std::ffi::OsStr>) -> bool {
    argv0.is_some_and(|name| name.as_encoded_bytes() == NAME.to_bytes()) && std::process::id() == 1
}
