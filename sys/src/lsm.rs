//! Labels of the kernel's security modules for the next program of the caller: AppArmor profiles, SELinux contexts.
//! They are written into `/proc/self/attr`, see `proc_pid_attr(5)`, through a procfs that nobody redirects.
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::statfs::FsType;

use crate::error::{Error, Result};
use crate::fd;
use crate::path::Proc;

/// `SELINUX_MAGIC` of `linux/magic.h`.
const SELINUX_MAGIC: FsType = FsType(0xf97c_ff8c);

/// Whether AppArmor is on in this kernel. Where nobody may know (an outer container hides the file), it is taken to
/// be on, and the write of a profile tells.
pub fn apparmor_is_on() -> bool {
    match std::fs::read("/sys/module/apparmor/parameters/enabled") {
        Ok(text) => text.starts_with(b"Y"),
        Err(error) => error.kind() != std::io::ErrorKind::NotFound,
    }
}

/// Whether SELinux is on and has a policy: its filesystem is mounted.
pub fn selinux_is_on() -> bool {
    let usual = nix::sys::statfs::statfs(Path::new("/sys/fs/selinux"))
        .is_ok_and(|stat| stat.filesystem_type() == SELINUX_MAGIC);
    usual
        || crate::mountinfo::own()
            .is_ok_and(|mounts| mounts.iter().any(|one| one.fs_type == "selinuxfs"))
}

/// The next program of the caller is confined by this AppArmor profile; `unconfined` takes the present one away.
///
/// # Errors
/// `ENOENT` where no such profile is loaded, `EACCES` where the present profile forbids the change, `EINVAL` without
/// AppArmor.
pub fn set_apparmor_profile(proc: &Proc, profile: &str) -> Result<()> {
    let value = format!("exec {profile}");
    match write(proc, "apparmor/exec", &value) {
        // Before Linux 5.8 there is only the file that all modules share.
        Err(Missing::File) => write(proc, "exec", &value).map_err(Error::from),
        other => other.map_err(Error::from),
    }
}

/// The next program of the caller has this SELinux context.
///
/// # Errors
/// `EINVAL` for a context that the policy does not know, `EACCES` where it forbids the change.
pub fn set_exec_label(proc: &Proc, label: &str) -> Result<()> {
    write(proc, "exec", label).map_err(Error::from)
}

/// Keys and keyrings that the caller makes from now on have this SELinux context; the usual one where empty.
///
/// # Errors
/// As [`set_exec_label`].
pub fn set_key_label(proc: &Proc, label: &str) -> Result<()> {
    write(proc, "keycreate", label).map_err(Error::from)
}

/// Why an attribute could not be written.
enum Missing {
    /// There is no such file.
    File,
    /// The kernel's answer to the write.
    Other(Error),
}

impl From<Missing> for Error {
    fn from(missing: Missing) -> Self {
        match missing {
            Missing::File => Self::new(Errno::ENOENT, "open `/proc/self/attr/exec`"),
            Missing::Other(error) => error,
        }
    }
}

fn write(proc: &Proc, file: &str, value: &str) -> std::result::Result<(), Missing> {
    // Callers look for a path below attr in backquotes to know that it was the label.
    let text = |what: &str| format!("{what} `/proc/self/attr/{file}`, {value:?}");
    let opened = proc.open_self(&format!("attr/{file}"), OFlag::O_WRONLY);
    let opened = match opened {
        Err(error) if error.errno == Errno::ENOENT => return Err(Missing::File),
        other => other.map_err(|error| Missing::Other(Error::new(error.errno, text("open"))))?,
    };
    fd::write_all(opened, value.as_bytes())
        .map_err(|error| Missing::Other(Error::new(error.errno, text("write"))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_that_cannot_be_is_refused_with_the_file_and_the_label() {
        let proc = Proc::host().unwrap();
        if apparmor_is_on() {
            let error = set_apparmor_profile(&proc, "davit-not-loaded").unwrap_err();
            assert_eq!(error.errno, Errno::ENOENT, "{error}");
        }
        if !selinux_is_on() {
            let error = set_key_label(&proc, "a:b:c").unwrap_err();
            assert!(
                error
                    .call
                    .contains("`/proc/self/attr/keycreate`, \"a:b:c\""),
                "{error}"
            );
        }
    }
}
