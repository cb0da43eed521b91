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
/// The directory cannot be made, the tmpfs not mounted, or the directory holds something that the tmpfs would hide:
/// `--run-dir /run` must not take a machine's `/run` away.
pub fn prepare_run_dir(run_dir: &Path) -> Result<bool> {
    make_dir(run_dir)?;
    let kind = statfs(run_dir).map_err(|errno| Error::Sys {
        action: "look at the run directory".into(),
        source: sys::Error::new(errno, format!("statfs({run_dir:?})")),
    })?;
    if kind.filesystem_type() == TMPFS_MAGIC {
        return Ok(false);
    }
    if std::fs::read_dir(run_dir).is_ok_and(|mut entries| entries.next().is_some()) {
        return Err(Error::invalid(
            "run_dir",
            format!(
                "{} is neither empty nor on a tmpfs, and the tmpfs that a run directory needs would hide what it holds; name an empty directory",
                run_dir.display()
            ),
        ));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_holds_something_is_not_hidden_under_a_tmpfs() {
        let Ok(dir) = tempfile::tempdir_in("/var/tmp") else {
            return;
        };
        if statfs(dir.path()).is_ok_and(|kind| kind.filesystem_type() == TMPFS_MAGIC) {
            println!("skipped: /var/tmp is a tmpfs here");
            return;
        }
        std::fs::write(dir.path().join("precious"), "kept").unwrap();
        let error = prepare_run_dir(dir.path()).unwrap_err();
        assert!(
            error.to_string().contains("neither empty nor on a tmpfs"),
            "{error}"
        );
        assert_eq!(
            std::fs::read_to_string(dir.path().join("precious")).unwrap(),
            "kept"
        );
    }
}
