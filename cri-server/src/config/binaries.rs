//! Where our other binaries are: beside this one, in /usr/local/bin, in PATH. The first wins.

use std::fmt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf, absolute};

/// The directories to look in, in order.
pub(super) struct Finder(Vec<PathBuf>);

impl Finder {
    /// Beside the running binary first, so that a build directory or an unpacked archive works as it lies there.
    pub(super) fn of_this_process() -> Self {
        let beside = std::env::current_exe()
            .ok()
            .and_then(|exe| exe.parent().map(Path::to_owned));
        let path = std::env::var_os("PATH").unwrap_or_default();
        let mut directories: Vec<PathBuf> = beside.into_iter().collect();
        directories.push("/usr/local/bin".into());
        directories.extend(std::env::split_paths(&path).filter(|d| d.is_absolute()));
        let mut seen = std::collections::HashSet::new();
        directories.retain(|d| seen.insert(d.clone()));
        Self(directories)
    }

    pub(super) fn find(&self, name: &str) -> Option<PathBuf> {
        self.0
            .iter()
            .map(|directory| directory.join(name))
            .find(|path| check(path).is_ok())
    }
}

impl fmt::Display for Finder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list: Vec<String> = self.0.iter().map(|d| d.display().to_string()).collect();
        f.write_str(&list.join(", "))
    }
}

/// The absolute path of an executable file.
pub(super) fn check(path: &Path) -> Result<PathBuf, String> {
    let whole = absolute(path).map_err(|e| format!("{path:?}: {e}"))?;
    let metadata = whole.metadata().map_err(|e| format!("{whole:?}: {e}"))?;
    if !metadata.is_file() {
        return Err(format!("{whole:?} is not a file"));
    }
    if metadata.permissions().mode() & 0o111 == 0 {
        return Err(format!("{whole:?} is not executable"));
    }
    Ok(whole)
}
