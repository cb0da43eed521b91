//! A busybox that finds programs as other shells do, beside Debian's static one, whose shell runs its own applets.
//!
//! Both packages own `/bin/busybox`, so this one is unpacked into the cache and not installed.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::{bin_dir, is_installed, mark_installed, tools_dir};
use crate::run;

/// Under this name it is in the cache.
const NAME: &str = "busybox-dynamic";
/// The generation of this recipe.
const RECIPE: &str = "1";

/// Fetches and unpacks it.
pub(super) fn unpack() -> Result<()> {
    if is_installed(NAME, RECIPE)? {
        return Ok(());
    }
    let dir = tools_dir()?.join("busybox.tmp");
    if dir.exists() {
        fs::remove_dir_all(&dir).with_context(|| format!("remove {}", dir.display()))?;
    }
    fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
    run::run(
        Command::new("apt-get")
            .args(["download", "busybox"])
            .current_dir(&dir),
    )?;
    let mut files = fs::read_dir(&dir)?;
    let Some(package) = files.next().transpose()? else {
        bail!("apt-get download busybox left nothing in {}", dir.display());
    };
    run::run(
        Command::new("dpkg-deb")
            .arg("--extract")
            .arg(package.path())
            .arg(&dir),
    )?;
    let program = ["bin/busybox", "usr/bin/busybox"]
        .map(|path| dir.join(path))
        .into_iter()
        .find(|path| path.is_file())
        .context("the package busybox has no program")?;
    fs::copy(&program, bin_dir()?.join(NAME))
        .with_context(|| format!("copy {}", program.display()))?;
    fs::remove_dir_all(&dir).with_context(|| format!("remove {}", dir.display()))?;
    mark_installed(NAME, RECIPE)
}
