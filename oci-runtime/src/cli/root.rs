//! Where the state of containers is kept when nobody says it, and who counts as unprivileged.
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::error::Result;

/// The place for the privileged.
const SYSTEM: &str = "/run/davit-oci";

/// The initial user namespace, whose number is fixed (`PROC_USER_INIT_INO` of the kernel).
const INITIAL_USER_NAMESPACE: &str = "user:[4026531837]";

/// Whether this process may not do what root of the host may.
pub(super) fn is_unprivileged() -> bool {
    !nix::unistd::geteuid().is_root() || in_user_namespace()
}

/// Whether this process lives in a user namespace other than the first one.
fn in_user_namespace() -> bool {
    std::fs::read_link("/proc/self/ns/user")
        .is_ok_and(|link| link != Path::new(INITIAL_USER_NAMESPACE))
}

/// The default directory: below `$XDG_RUNTIME_DIR` for who is unprivileged. Root of a user namespace is, too, unless it
/// says that it is "root" altogether (`$USER`).
///
/// # Errors
/// The directory cannot be made.
pub(super) fn default() -> Result<PathBuf> {
    let system = PathBuf::from(SYSTEM);
    let Some(dir) = std::env::var_os("XDG_RUNTIME_DIR").filter(|dir| !dir.is_empty()) else {
        return Ok(system);
    };
    let called_root = || std::env::var_os("USER").is_some_and(|user| user == "root");
    let honoured = !nix::unistd::geteuid().is_root() || (in_user_namespace() && !called_root());
    if !honoured {
        return Ok(system);
    }
    let root = PathBuf::from(dir).join("davit-oci");
    keep(&root).map_err(|error| sys::Error::from_io(&error, format!("mkdir({root:?})")))?;
    Ok(root)
}

/// Makes the directory, sticky: what is not may be swept from there by age (XDG base directory specification).
fn keep(root: &Path) -> std::io::Result<()> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(root)?;
    std::fs::set_permissions(root, std::fs::Permissions::from_mode(0o1700))
}
