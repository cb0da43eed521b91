//! Where the program of bare system calls is.

use std::path::PathBuf;

use anyhow::{Result, ensure};

use crate::options::Options;
use integration::bin;

/// The one that was named, or the one beside our binaries.
pub(crate) fn find(options: &Options) -> Result<PathBuf> {
    let path = options
        .floor
        .clone()
        .unwrap_or_else(|| bin::ours_dir().join("floor"));
    ensure!(
        path.is_file(),
        "there is no program of bare system calls at {}: `cargo xtask bench` builds it, --floor names another",
        path.display()
    );
    Ok(path)
}
