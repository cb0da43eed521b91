//! The newest genuine runtimes for the benchmarks: Debian forky's, which need forky's libraries.
//!
//! A minimal forky goes to `~/.cache/davit/forky`. Copies of the programs are then made to load their libraries from
//! there, so that they run like any other program of this machine: no chroot, which would be measured as well.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use super::debian;
use crate::run;

const SUITE: &str = "forky";
const MIRROR: &str = "http://deb.debian.org/debian";
/// An older debootstrap knows no such suite; every suite since sid's beginning is made alike.
const SCRIPT: &str = "/usr/share/debootstrap/scripts/sid";
const RUNTIMES: &[(&str, &str)] = &[("crun", "usr/bin/crun"), ("runc", "usr/sbin/runc")];

/// Installs what is missing and returns the directory with the programs.
pub(crate) fn install() -> Result<PathBuf> {
    let cache = super::tools_dir()?.join("..");
    let (root, out) = (cache.join(SUITE), cache.join("peers"));
    if RUNTIMES.iter().all(|(name, _)| out.join(name).is_file()) {
        return Ok(out);
    }
    debian::install(&["debootstrap", "patchelf"])?;
    if !root.join("usr/bin/crun").is_file() {
        let mut command = Command::new("debootstrap");
        command.args(["--variant=minbase", "--include=crun,runc", SUITE]);
        run::run(command.arg(&root).args([MIRROR, SCRIPT]))?;
    }
    fs::create_dir_all(&out).with_context(|| format!("create {}", out.display()))?;
    let root = fs::canonicalize(&root).with_context(|| format!("find {}", root.display()))?;
    for (name, path) in RUNTIMES {
        let temporary = out.join(format!(".{name}"));
        fs::copy(root.join(path), &temporary).with_context(|| format!("copy {name}"))?;
        let mut command = Command::new("patchelf");
        command
            .arg("--set-interpreter")
            .arg(root.join("lib64/ld-linux-x86-64.so.2"))
            .arg("--force-rpath")
            .arg("--set-rpath")
            .arg(root.join("usr/lib/x86_64-linux-gnu"));
        run::run(command.arg(&temporary))?;
        fs::rename(&temporary, out.join(name)).with_context(|| format!("place {name}"))?;
    }
    Ok(out)
}
