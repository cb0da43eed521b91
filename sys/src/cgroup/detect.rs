//! Which cgroup hierarchies this host has, and where: from mountinfo and statfs, never by guess.
//!
//! - v2 ("unified"): `/sys/fs/cgroup` is a cgroup2 mount.
//! - v1: one mount per controller, or per comma-joined set of them (`cpu,cpuacct`), and perhaps `name=systemd`.
//! - hybrid: v1 with a cgroup2 mount beside it, mostly without controllers.
//!
//! <https://docs.kernel.org/admin-guide/cgroup-v2.html>, <https://man7.org/linux/man-pages/man7/cgroups.7.html>

use std::path::{Component, Path, PathBuf};

use nix::sys::statfs::{CGROUP_SUPER_MAGIC, CGROUP2_SUPER_MAGIC, statfs};

use super::{Error, Result, file};
use crate::mountinfo::{self, Mount};

/// Where every distribution mounts its cgroups.
const USUAL_MOUNT: &str = "/sys/fs/cgroup";

/// What kind of host this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Only v1 hierarchies.
    V1,
    /// One v2 hierarchy.
    V2,
    /// v1 hierarchies and a v2 one beside them.
    Hybrid,
}

/// The interface of one hierarchy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// `cgroup`
    V1,
    /// `cgroup2`
    V2,
}

/// One mounted hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hierarchy {
    pub(super) version: Version,
    /// Where it is mounted.
    pub(super) mount: PathBuf,
    /// The cgroup that the mount shows as its root; not `/` in a container without a cgroup namespace.
    pub(super) root: PathBuf,
    /// Its controllers; on v1 also a named hierarchy's `name=systemd`.
    pub(super) controllers: Vec<String>,
    /// The caller's own cgroup, below the hierarchy's root.
    pub(super) own: PathBuf,
}

impl Hierarchy {
    /// v1 or v2.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// Where it is mounted.
    #[must_use]
    pub fn mount(&self) -> &Path {
        &self.mount
    }

    /// Whether the mount shows all of the hierarchy, as far as the caller's cgroup namespace does.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.root == Path::new("/")
    }

    /// Its controllers; on v1 also the name of a named hierarchy, as `name=systemd`.
    #[must_use]
    pub fn controllers(&self) -> &[String] {
        &self.controllers
    }

    /// The directory of a cgroup given as `/proc/<pid>/cgroup` gives it. One that lies outside of the caller's cgroup
    /// namespace (`/../x`) has no directory here; the mount stands for it.
    pub(super) fn dir_of(&self, cgroup: &Path) -> PathBuf {
        if cgroup.components().any(|part| part == Component::ParentDir) {
            return self.mount.clone();
        }
        let below = cgroup.strip_prefix(&self.root).unwrap_or(cgroup);
        self.mount.join(below.strip_prefix("/").unwrap_or(below))
    }
}

/// Every hierarchy of this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hierarchies {
    mode: Mode,
    list: Vec<Hierarchy>,
}

impl Hierarchies {
    /// Looks at the caller's mount namespace.
    ///
    /// # Errors
    /// [`Error::NotMounted`] without any cgroup filesystem, and what /proc refuses to show.
    pub fn detect() -> Result<Self> {
        // A thread may have a mount namespace of its own, which /proc/self does not show.
        let own = file::read(Path::new("/proc/thread-self"), "cgroup")?;
        if let Some(unified) = whole_unified(&own) {
            return Ok(unified);
        }
        let usual = at_usual_places(&own);
        if !usual.is_empty() && !others_beside(&own, usual.len()) {
            match Self::from_mounts(mounted(&usual)?, &own, &probe) {
                Ok(found) if found.list.len() >= usual.len() => return Ok(found),
                // Something covers one of them: another mount may show the same.
                _ => {}
            }
        }
        Self::from_mounts(mounted(&[])?, &own, &probe)
    }

    /// A host without any, for containers that get no cgroup.
    #[must_use]
    pub fn none() -> Self {
        Self {
            mode: Mode::V1,
            list: Vec::new(),
        }
    }

    /// v1, v2 or both.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// The hierarchies themselves, v1 first.
    #[must_use]
    pub fn list(&self) -> &[Hierarchy] {
        &self.list
    }

    /// The names of all controllers that can be used, sorted; without named hierarchies.
    #[must_use]
    pub fn controllers(&self) -> Vec<&str> {
        let all = self
            .list
            .iter()
            .flat_map(|h| &h.controllers)
            .map(String::as_str);
        let mut names: Vec<&str> = all.filter(|name| !name.starts_with("name=")).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// The same from the mounts and the text of /proc, with `probe` in place of the filesystem.
    fn from_mounts(mounts: Vec<Mount>, own: &str, probe: &dyn Fn(&Path) -> Probed) -> Result<Self> {
        if let Probed::V2(controllers) = probe(Path::new(USUAL_MOUNT)) {
            // Whatever v1 mounts exist are elsewhere or hidden: this is what every tool calls a unified host.
            let top = mounts
                .into_iter()
                .rfind(|m| m.fs_type == "cgroup2" && m.mount_point == Path::new(USUAL_MOUNT));
            let list = vec![v2_hierarchy(
                top.ok_or(Error::NotMounted)?,
                controllers,
                own,
            )];
            return Ok(Self {
                mode: Mode::V2,
                list,
            });
        }
        let mut v1: Vec<Hierarchy> = Vec::new();
        let mut v2: Vec<Hierarchy> = Vec::new();
        for mount in mounts {
            if !matches!(mount.fs_type.as_str(), "cgroup" | "cgroup2") {
                continue;
            }
            match (mount.fs_type.as_str(), probe(&mount.mount_point)) {
                ("cgroup", Probed::V1) => v1.extend(v1_hierarchy(mount, own)),
                ("cgroup2", Probed::V2(controllers)) => {
                    v2.push(v2_hierarchy(mount, controllers, own))
                }
                // Another filesystem covers this mount.
                _ => {}
            }
        }
        let v1 = one_per_controller_set(v1);
        let v2 = v2.into_iter().min_by_key(|h| h.preference());
        let mode = match (v1.is_empty(), v2.is_some()) {
            (true, true) => Mode::V2,
            (false, true) => Mode::Hybrid,
            (false, false) => Mode::V1,
            (true, false) => return Err(Error::NotMounted),
        };
        Ok(Self {
            mode,
            list: v1.into_iter().chain(v2).collect(),
        })
    }
}

/// A unified host whose whole hierarchy is at the usual place, as nearly every host has it: no mount has to be looked
/// for. The root of a hierarchy has the inode 1; a part of it, as a container sees, has not.
fn whole_unified(own: &str) -> Option<Hierarchies> {
    use std::os::unix::fs::MetadataExt;
    let mount = Path::new(USUAL_MOUNT);
    let Probed::V2(controllers) = probe(mount) else {
        return None;
    };
    if std::fs::metadata(mount).ok()?.ino() != 1 {
        return None;
    }
    let hierarchy = Hierarchy {
        version: Version::V2,
        mount: mount.to_owned(),
        root: PathBuf::from("/"),
        controllers,
        own: own_path(own, |id, _| id == "0"),
    };
    Some(Hierarchies {
        mode: Mode::V2,
        list: vec![hierarchy],
    })
}

/// The names of the hierarchies that are where every distribution mounts them. Where there is one of them, those that
/// are neither there nor beside them are taken as not mounted: nobody mounts some of them elsewhere.
fn at_usual_places(own: &str) -> Vec<&str> {
    names(own)
        .filter(|names| is_cgroup(&Path::new(USUAL_MOUNT).join(usual_name(names))))
        .collect()
}

/// The names of all hierarchies that are in use, mounted or not.
fn names(own: &str) -> impl Iterator<Item = &str> {
    own.lines().filter_map(|line| line.split(':').nth(1))
}

fn usual_name(names: &str) -> &str {
    match names {
        "" => "unified",
        names => names.strip_prefix("name=").unwrap_or(names),
    }
}

fn is_cgroup(path: &Path) -> bool {
    statfs(path).is_ok_and(|found| {
        [CGROUP_SUPER_MAGIC, CGROUP2_SUPER_MAGIC].contains(&found.filesystem_type())
    })
}

/// Whether a hierarchy that is not at its usual place may be under another name beside the `usual` ones.
fn others_beside(own: &str, usual: usize) -> bool {
    if names(own).count() == usual {
        return false;
    }
    let is_usual = |name: &std::ffi::OsStr| names(own).any(|names| usual_name(names) == name);
    let entries = std::fs::read_dir(USUAL_MOUNT)
        .into_iter()
        .flatten()
        .flatten();
    entries
        .filter(|entry| !is_usual(&entry.file_name()))
        // `cpu` may be a link to `cpu,cpuacct`.
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .any(|entry| is_cgroup(&entry.path()))
}

/// The cgroup mounts of this thread, read until there is a whole one at its usual place for each of `wanted`: they are
/// mounted at boot, before the thousands of a busy host. All of them where none is wanted.
fn mounted(wanted: &[&str]) -> Result<Vec<Mount>> {
    let fail = |error: crate::Error| {
        let path = Path::new("/proc/thread-self/mountinfo");
        Error::call("read", path, error.errno)
    };
    let mut lines = mountinfo::Lines::open().map_err(fail)?;
    let mut missing = wanted.to_vec();
    let mut found = Vec::new();
    while let Some(mount) = lines.next_of("cgroup").map_err(fail)? {
        if mount.root == Path::new("/") && mount.mount_point.starts_with(USUAL_MOUNT) {
            missing.retain(|names| !is_hierarchy(&mount, names));
        }
        found.push(mount);
        if missing.is_empty() && !wanted.is_empty() {
            break;
        }
    }
    Ok(found)
}

/// Whether a mount shows the hierarchy with these names in `/proc/self/cgroup`; the one without names is v2's.
fn is_hierarchy(mount: &Mount, names: &str) -> bool {
    match (mount.fs_type.as_str(), names.split(',').next()) {
        ("cgroup2", Some("")) => true,
        ("cgroup", Some(first)) => mount.super_options.iter().any(|option| option == first),
        _ => false,
    }
}

impl Hierarchy {
    /// Of several mounts of one hierarchy: the one that shows the whole of it, at the usual place.
    fn preference(&self) -> (bool, bool) {
        (
            self.root != Path::new("/"),
            !self.mount.starts_with(USUAL_MOUNT),
        )
    }
}

/// Keeps the best mount of each v1 hierarchy; a hierarchy may be mounted several times.
fn one_per_controller_set(mounts: Vec<Hierarchy>) -> Vec<Hierarchy> {
    let mut kept: Vec<Hierarchy> = Vec::new();
    for mount in mounts {
        match kept.iter_mut().find(|k| k.controllers == mount.controllers) {
            Some(known) if mount.preference() < known.preference() => *known = mount,
            Some(_) => {}
            None => kept.push(mount),
        }
    }
    kept
}

/// What a directory is, by statfs.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Probed {
    V1,
    /// With the controllers that it offers.
    V2(Vec<String>),
    Other,
}

fn probe(path: &Path) -> Probed {
    let Ok(found) = statfs(path) else {
        return Probed::Other;
    };
    match found.filesystem_type() {
        CGROUP_SUPER_MAGIC => Probed::V1,
        CGROUP2_SUPER_MAGIC => {
            let text = file::read(path, "cgroup.controllers").unwrap_or_default();
            Probed::V2(text.split_whitespace().map(str::to_owned).collect())
        }
        _ => Probed::Other,
    }
}

/// A v1 hierarchy, unless the mount names neither a controller nor itself.
fn v1_hierarchy(mount: Mount, own: &str) -> Option<Hierarchy> {
    let controllers: Vec<String> = mount
        .super_options
        .into_iter()
        .filter(|o| names_controller(o))
        .collect();
    let first = controllers.first()?.clone();
    let own = own_path(own, |_, names| names.split(',').any(|name| name == first));
    Some(Hierarchy {
        version: Version::V1,
        mount: mount.mount_point,
        root: mount.root,
        controllers,
        own,
    })
}

fn v2_hierarchy(mount: Mount, controllers: Vec<String>, own: &str) -> Hierarchy {
    let own = own_path(own, |id, _| id == "0");
    Hierarchy {
        version: Version::V2,
        mount: mount.mount_point,
        root: mount.root,
        controllers,
        own,
    }
}

/// Whether a super option of a v1 mount is a controller or the hierarchy's name, and not a flag.
fn names_controller(option: &str) -> bool {
    const FLAGS: [&str; 10] = [
        "rw",
        "ro",
        "none",
        "all",
        "noprefix",
        "clone_children",
        "cpuset_v2_mode",
        "xattr",
        "favordynmods",
        "nofavordynmods",
    ];
    match option.split_once('=') {
        Some((key, _)) => key == "name",
        None => !option.is_empty() && !FLAGS.contains(&option),
    }
}

/// The path of the line in /proc/<pid>/cgroup (`id:controllers:path`) that `wanted` picks; `/` without one.
pub(super) fn own_path(text: &str, wanted: impl Fn(&str, &str) -> bool) -> PathBuf {
    // Not `lines()`: a name may end in a carriage return.
    let line = text.split('\n').find_map(|line| {
        let mut parts = line.splitn(3, ':');
        let (id, names, path) = (parts.next()?, parts.next()?, parts.next()?);
        wanted(id, names).then(|| PathBuf::from(path))
    });
    line.unwrap_or_else(|| PathBuf::from("/"))
}

#[cfg(test)]
mod tests;
