//! Where the program of bare system calls is.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::options::Options;
use integration::bin;

/// The target that the small binaries are built for.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// The one that was named, the one beside our binaries, or one built now, static as the small binaries are.
pub(crate) fn find(options: &Options) -> Result<PathBuf> {
    if let Some(path) = &options.floor {
        ensure!(path.is_file(), "--floor {path:?} does not exist");
        return Ok(path.clone());
    }
    let beside = bin::ours_dir().join("floor");
    if beside.is_file() {
        Ok(beside)
    } else {
        build()
    }
}

fn build() -> Result<PathBuf> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| workspace.join("target"), PathBuf::from);
    let output = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .current_dir(&workspace)
        .args([
            "build",
            "--quiet",
            "--profile",
            "small",
            "--target",
            TARGET,
            "-p",
            "sys",
            "--example",
            "floor",
        ])
        .env(
            "RUSTFLAGS",
            "-C target-feature=+crt-static -C relocation-model=static",
        )
        .env("CARGO_TARGET_DIR", &target)
        .output()
        .context("cargo build --example floor")?;
    let text = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "cargo build --example floor: {text}; or name a program with --floor"
    );
    Ok(target.join(TARGET).join("small/examples/floor"))
}
