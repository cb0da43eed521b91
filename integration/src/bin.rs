//! Where the programs under test and the genuine tools are.

use std::path::{Path, PathBuf};

/// The path of one of our own binaries, for example `davit-cri`.
///
/// # Panics
/// When it has not been built: the message says how to build it.
#[must_use]
pub fn ours(name: &str) -> PathBuf {
    let dir = ours_dir();
    let path = dir.join(name);
    assert!(
        path.is_file(),
        "{} does not exist: run `cargo xtask test`, or set DAVIT_BIN_DIR to the directory that holds it",
        path.display()
    );
    path
}

/// The directory of our binaries: `DAVIT_BIN_DIR`, else where cargo put this test's siblings.
#[must_use]
pub fn ours_dir() -> PathBuf {
    if let Some(dir) = std::env::var_os("DAVIT_BIN_DIR") {
        return PathBuf::from(dir);
    }
    let exe = std::env::current_exe().unwrap_or_default();
    // target/debug/deps/test-hash -> target/debug
    exe.ancestors()
        .nth(2)
        .unwrap_or(Path::new("."))
        .to_path_buf()
}

/// The path of a genuine tool, searched in our tool cache, `PATH` and the sbin directories.
#[must_use]
pub fn genuine(name: &str) -> Option<PathBuf> {
    let cache =
        std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache/davit/tools/bin"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    cache
        .into_iter()
        .chain(std::env::split_paths(&path))
        .chain(["/usr/sbin", "/sbin", "/usr/bin"].map(PathBuf::from))
        .map(|dir| dir.join(name))
        .find(|candidate| candidate.is_file())
}

/// The directory of the reference CNI plugins that `cargo xtask tools` builds.
#[must_use]
pub fn reference_plugins() -> PathBuf {
    let home = std::env::var_os("HOME").unwrap_or_default();
    PathBuf::from(home).join(".cache/davit/tools/cni")
}

/// True, with the reason printed, when a test has to be skipped for want of `tools`.
///
/// # Panics
/// With `MUST_WORK=1`, because there an avoidable skip is a failure.
#[must_use]
pub fn skipped_for_want_of(tools: &[&str]) -> bool {
    let missing: Vec<_> = tools
        .iter()
        .filter(|tool| genuine(tool).is_none())
        .collect();
    if missing.is_empty() && nix::unistd::geteuid().is_root() {
        return false;
    }
    let reason = if missing.is_empty() {
        "this test needs root".to_owned()
    } else {
        format!("not installed: {missing:?}; `cargo xtask tools` installs them")
    };
    assert!(
        std::env::var_os("MUST_WORK").is_none(),
        "MUST_WORK is set, but {reason}"
    );
    eprintln!("skipped: {reason}");
    true
}
