//! A directory and a cgroup for one program and all that it starts; nothing of it stays.

use std::path::PathBuf;

use integration::bundle::make_rootfs;
use integration::leak::Scope;

/// Where a program keeps everything.
pub(crate) struct Place {
    dir: tempfile::TempDir,
}

// === impl Place ===

impl Place {
    pub(crate) fn new(name: &str) -> Place {
        use std::os::unix::fs::PermissionsExt;
        let prefix = format!("davit-{name}-");
        let dir = tempfile::Builder::new().prefix(&prefix).tempdir().unwrap();
        // Mapped users must reach the root filesystem.
        std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
        make_rootfs(&dir.path().join("rootfs"));
        Place { dir }
    }

    /// A path in the directory.
    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The cgroup below which all containers are.
    pub(crate) fn cgroup(&self) -> String {
        format!(
            "/{}",
            self.dir.path().file_name().unwrap().to_string_lossy()
        )
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // None of these makes links or rules: they get names that nothing has.
        let none = self.cgroup().trim_start_matches('/').to_owned();
        let scope = Scope {
            dir: self.dir.path().to_owned(),
            state_dir: self.dir.path().to_owned(),
            bridge: none.clone(),
            network: none,
            cgroup: self.cgroup(),
            daemon: nix::unistd::Pid::from_raw(0),
        };
        scope.sweep();
    }
}
