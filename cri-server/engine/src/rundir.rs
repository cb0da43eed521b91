//! The run directory: on tmpfs, because what it says is wrong after a reboot.

use std::path::Path;

use nix::sys::statfs::{TMPFS_MAGIC, statfs};
use sys::mount::{FsContext, MountAttr};

use crate::error::{Error, Result};
use crate::node::make_dir;

/// Makes `run_dir` (mode 0700) and mounts a tmpfs on it when it is on a file system that would survive a
/// reboot. Answers whether it mounted one.
///
/// # Errors
/// The directory cannot be made, or the tmpfs not mounted.
pub fn prepare_run_dir(run_dir: &Path) -> Result<bool> {
    make_dir(run_dir)?;
    let kind = statfs(run_dir).map_err(|errno| Error::Sys {
        action: "look at the run directory".into(),
        source: sys::Error::new(errno, format!("statfs({run_dir:?})")),
    })?;
    if kind.filesystem_type() == TMPFS_MAGIC {
        return Ok(false);
    }
    let mount = || -> sys::Result<()> {
        let context = FsContext::open("tmpfs")?;
        context.set_string("source", "davit")?;
        context.set_string("mode", "0700")?;
        sys::mount::attach(
            context.mount(MountAttr::MOUNT_ATTR_NOSUID | MountAttr::MOUNT_ATTR_NODEV)?,
            run_dir,
        )
    };
    mount().map_err(|source| Error::Sys {
        action: format!("mount a tmpfs on {}", run_dir.display()),
        source,
    })?;
    Ok(true)
}
