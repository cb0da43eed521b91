//! One directory of one hierarchy: making it, with what a new cgroup needs before it can hold a process, and removing it.

use std::fs;
use std::path::{Path, PathBuf};

use nix::errno::Errno;

use super::{Error, Hierarchy, Result, Version, file};

/// A cgroup's directory in one hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) version: Version,
    /// Where the hierarchy is mounted.
    pub(super) mount: PathBuf,
    /// The cgroup's directory, below the mount.
    pub(super) dir: PathBuf,
    /// The hierarchy's controllers, and its name.
    pub(super) controllers: Vec<String>,
}

/// The directories that [`super::Cgroup::create`] made, in order.
#[derive(Debug, Default)]
#[must_use = "its undo() is what removes a cgroup that was made for nothing"]
pub struct Created {
    dirs: Vec<PathBuf>,
}

impl Created {
    /// The directories that did not exist before, parents first.
    #[must_use]
    pub fn dirs(&self) -> &[PathBuf] {
        &self.dirs
    }

    /// Takes over what another one made, after its own.
    pub(super) fn append(&mut self, other: Self) {
        self.dirs.extend(other.dirs);
    }

    /// Removes what was made and is still empty, children first. A parent that another cgroup moved into stays.
    ///
    /// # Errors
    /// The first refusal other than "busy" and "gone", after trying every directory.
    pub fn undo(self) -> Result<()> {
        let mut first = Ok(());
        for dir in self.dirs.iter().rev() {
            match rmdir(dir) {
                Ok(()) | Err(Errno::ENOENT | Errno::EBUSY | Errno::ENOTEMPTY) => {}
                Err(errno) => first = first.and(Err(Error::call("rmdir", dir, errno))),
            }
        }
        first
    }
}

/// How often a parent may vanish while its child is made (another container's clean-up) before that is an error.
const MKDIR_ATTEMPTS: usize = 10;

impl Node {
    pub(super) fn new(hierarchy: &Hierarchy, dir: PathBuf) -> Self {
        let (version, mount, controllers) = (
            hierarchy.version,
            hierarchy.mount.clone(),
            hierarchy.controllers.clone(),
        );
        Self {
            version,
            mount,
            dir,
            controllers,
        }
    }

    pub(super) fn has(&self, controller: &str) -> bool {
        self.controllers.iter().any(|name| name == controller)
    }

    /// `mkdir -p`, noting in `created` what is new.
    pub(super) fn make(&self, created: &mut Created) -> Result<()> {
        let mut attempt = 1;
        loop {
            match self.make_once(created) {
                Err(error) if error.is(Errno::ENOENT) && attempt < MKDIR_ATTEMPTS => attempt += 1,
                result => return result,
            }
        }
    }

    fn make_once(&self, created: &mut Created) -> Result<()> {
        let below = self.dir.strip_prefix(&self.mount).unwrap_or(Path::new(""));
        let mut dir = self.mount.clone();
        for part in below {
            if self.version == Version::V2 && !self.controllers.is_empty() {
                enable_controllers(&dir);
            }
            let parent = dir.clone();
            dir.push(part);
            if mkdir(&dir)? {
                created.dirs.push(dir.clone());
            }
            if self.version == Version::V1 && self.has("cpuset") {
                inherit_cpuset(&parent, &dir)?;
            }
        }
        if self.version == Version::V2 {
            self.leave_invalid_domain()
        } else {
            Ok(())
        }
    }

    /// A cgroup below a threaded one starts as "domain invalid" and can only become threaded.
    fn leave_invalid_domain(&self) -> Result<()> {
        match file::read(&self.dir, "cgroup.type") {
            Ok(kind) if kind == "domain invalid" => {
                file::write(&self.dir, "cgroup.type", "threaded")
            }
            _ => Ok(()),
        }
    }

    /// This directory and every cgroup below it, children first.
    pub(super) fn tree(&self) -> Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        walk(&self.dir, &mut found)?;
        Ok(found)
    }

    /// The processes of this cgroup and of every one below it.
    pub(super) fn processes(&self) -> Result<Vec<i32>> {
        let mut all = Vec::new();
        for dir in self.tree()? {
            match file::read(&dir, "cgroup.procs") {
                // A process of another pid namespace shows as 0.
                Ok(text) => all.extend(
                    text.lines()
                        .filter_map(|l| l.parse::<i32>().ok())
                        .filter(|pid| *pid != 0),
                ),
                // The cgroup is gone since the walk, or holds threads of its parent's processes, which that one lists.
                Err(error)
                    if error.is(Errno::ENOENT)
                        || error.is(Errno::ENODEV)
                        || error.is(Errno::EOPNOTSUPP) => {}
                Err(error) => return Err(error),
            }
        }
        all.sort_unstable();
        all.dedup();
        Ok(all)
    }
}

/// Removes one empty cgroup.
pub(super) fn rmdir(dir: &Path) -> std::result::Result<(), Errno> {
    fs::remove_dir(dir).map_err(|e| file::errno(&e))
}

/// Makes one directory; whether it is new.
fn mkdir(dir: &Path) -> Result<bool> {
    match fs::create_dir(dir) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => Ok(false),
        Err(e) => Err(Error::call("mkdir", dir, file::errno(&e))),
    }
}

fn walk(dir: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(Error::call("opendir", dir, file::errno(&e))),
    };
    for entry in entries {
        // A child that vanishes while we read is as good as not there.
        let Ok(entry) = entry else { continue };
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            walk(&entry.path(), found)?;
        }
    }
    found.push(dir.to_owned());
    Ok(())
}

/// Hands every controller of `dir` to its children, all at once where the kernel agrees and one by one where not.
///
/// What it refuses is not an error here: EBUSY where `dir` has processes, EINVAL for cpu with real-time processes,
/// ENOENT where a controller just left. A limit that then lacks its controller says so itself.
fn enable_controllers(dir: &Path) {
    let (Ok(offered), Ok(enabled)) = (
        file::read(dir, "cgroup.controllers"),
        file::read(dir, "cgroup.subtree_control"),
    ) else {
        return;
    };
    let missing = missing_controllers(&offered, &enabled);
    if missing.is_empty() || file::write(dir, "cgroup.subtree_control", &missing.join(" ")).is_ok()
    {
        return;
    }
    for one in &missing {
        // Tolerated, see above.
        file::write(dir, "cgroup.subtree_control", one).ok();
    }
}

/// `+name` for each controller that is offered and not enabled.
fn missing_controllers(offered: &str, enabled: &str) -> Vec<String> {
    let enabled: Vec<&str> = enabled.split_whitespace().collect();
    offered
        .split_whitespace()
        .filter(|name| !enabled.contains(name))
        .map(|name| format!("+{name}"))
        .collect()
}

/// A new v1 cpuset is empty and takes no process: it starts with what its parent has.
fn inherit_cpuset(parent: &Path, dir: &Path) -> Result<()> {
    for name in ["cpuset.cpus", "cpuset.mems"] {
        if file::read(dir, name)?.is_empty() {
            file::write(dir, name, &file::read(parent, name)?)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_controllers_that_are_offered_and_not_enabled_are_asked_for() {
        assert_eq!(
            missing_controllers("cpu memory pids", "memory"),
            ["+cpu", "+pids"]
        );
        assert!(missing_controllers("cpu", "cpu").is_empty());
    }
}
