//! Security labels: checked by the parent before anything is made, applied by the child.
use std::os::fd::AsFd;

use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use sys::path::Proc;

use crate::error::{Error, Result, Within};
use crate::plan::{MountLabel, Plan, ProcessPlan};

/// Refuses labels that this kernel knows nothing of: a program that should be confined must not run free instead.
///
/// # Errors
/// In runc's words, since callers know them.
pub fn check(process: &ProcessPlan) -> Result<()> {
    let profile = &process.apparmor_profile;
    // Without AppArmor everything is unconfined.
    if !profile.is_empty() && profile != "unconfined" && !sys::lsm::apparmor_is_on() {
        return Err(Error::new(
            "unable to apply apparmor profile: apparmor: config provided but apparmor not supported",
        )
        .within("process.apparmorProfile")
        .hint("the kernel has no AppArmor or does not use it: /sys/module/apparmor/parameters/enabled"));
    }
    if !process.selinux_label.is_empty() && !sys::lsm::selinux_is_on() {
        return Err(Error::new(
            "selinux label is specified in config, but selinux is disabled or not supported",
        )
        .within("process.selinuxLabel")
        .hint("the kernel has no SELinux or no policy is loaded: /sys/fs/selinux"));
    }
    Ok(())
}

/// Gives new mounts their label. Without SELinux no file has one and nothing would look at it: it is left out, as crun
/// does. Returns what is to be said about it.
pub fn label_mounts(plan: &mut Plan) -> Option<&'static str> {
    let label = plan.mount_label.take()?;
    if !sys::lsm::selinux_is_on() {
        return Some("linux.mountLabel: ignored, since selinux is disabled or not supported");
    }
    label.add_to(&mut plan.mounts);
    plan.mount_label = Some(label);
    None
}

/// Whether [`apply`] has something to do.
pub(super) fn has_labels(process: &ProcessPlan) -> bool {
    !process.selinux_label.is_empty() || has_profile(process)
}

fn has_profile(process: &ProcessPlan) -> bool {
    match process.apparmor_profile.as_str() {
        "" => false,
        "unconfined" => sys::lsm::apparmor_is_on(),
        _ => true,
    }
}

/// The next program has the labels of the process. Not before the hooks, which would be confined by them, and not after
/// the ids have changed: only their owner can open the files of these attributes.
///
/// # Errors
/// The profile is not loaded, or the present label forbids the change.
pub(super) fn apply(process: &ProcessPlan, proc: &Proc) -> Result<()> {
    if has_profile(process) {
        sys::lsm::set_apparmor_profile(proc, &process.apparmor_profile).map_err(|error| {
            let unknown = error.errno == sys::Errno::ENOENT;
            let error = Error::from(error)
                .within("unable to apply apparmor profile: apparmor failed to apply profile")
                .within("process.apparmorProfile");
            if unknown {
                error.hint("the profile is not loaded: apparmor_parser loads one")
            } else {
                error
            }
        })?;
    }
    if !process.selinux_label.is_empty() {
        sys::lsm::set_exec_label(proc, &process.selinux_label)
            .within(|| "can't set process label".to_owned())
            .within(|| "process.selinuxLabel".to_owned())?;
    }
    Ok(())
}

/// Joins the container's session keyring, which has the label of the process.
///
/// # Errors
/// The label is refused, or the keyring is not ours.
pub(super) fn join_keyring(
    name: &std::ffi::CStr,
    process: &ProcessPlan,
    permission: Option<u32>,
) -> Result<()> {
    let within = || "session keyring".to_owned();
    let label = &process.selinux_label;
    let proc = if label.is_empty() {
        None
    } else {
        // The host's own: nothing of the container has been entered.
        Some(Proc::host()?)
    };
    if let Some(proc) = &proc {
        sys::lsm::set_key_label(proc, label).within(|| "process.selinuxLabel".to_owned())?;
    }
    let keyring = sys::process::join_session_keyring(name).within(within)?;
    if let (Some(keyring), Some(permission)) = (keyring, permission) {
        keyring.allow(permission).within(within)?;
    }
    if let Some(proc) = &proc {
        sys::lsm::set_key_label(proc, "").within(|| "process.selinuxLabel".to_owned())?;
    }
    Ok(())
}

/// Labels a mount whose filesystem takes no label as an option.
///
/// # Errors
/// The policy refuses it.
pub(super) fn label_file(mounted: impl AsFd, label: &MountLabel) -> Result<()> {
    let within = || "linux.mountLabel".to_owned();
    // A new mount's own descriptor only names it.
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let dir = nix::fcntl::openat(mounted, ".", flags, Mode::empty())
        .map_err(|errno| sys::Error::new(errno, "openat(mount, \".\")"))
        .within(within)?;
    sys::fs::set_xattr(dir, c"security.selinux", label.label.as_bytes()).within(within)
}
