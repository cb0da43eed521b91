//! The plan of each mount.
use std::path::{Component, Path, PathBuf};

use sys::mount::MountAttr;

use super::options::MountOptions;
use super::{Problems, namespaces};
use crate::spec;

/// One mount, every decision made.
#[derive(Debug, Clone)]
pub struct MountPlan {
    /// Its place in `mounts`, for messages.
    pub index: usize,
    /// Where, absolute and without `..`.
    pub destination: PathBuf,
    /// What.
    pub source: MountSource,
    /// Attributes, propagation and the like.
    pub options: MountOptions,
    /// Owner maps of an id-mapped mount, users and groups.
    pub idmap: Option<(Vec<spec::IdMapping>, Vec<spec::IdMapping>)>,
}

/// What is mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MountSource {
    /// Something of the host.
    Bind {
        /// Absolute.
        path: PathBuf,
        /// With what is mounted below.
        recursive: bool,
    },
    /// The container's own view of its cgroups.
    Cgroup,
    /// A new filesystem.
    New {
        /// Its type.
        fs_type: String,
        /// What it is made from.
        source: String,
    },
    /// The mount that is there already, with other attributes.
    Remount,
}

impl MountPlan {
    /// Decides on mount `index`.
    pub fn new(
        index: usize,
        mount: &spec::Mount,
        bundle: &Path,
        problems: &mut Problems,
    ) -> Option<Self> {
        let field = format!("mounts[{index}]");
        let destination = destination(&mount.destination, &field, problems)?;
        let options = match MountOptions::parse(&mount.options) {
            Ok(options) => options,
            Err(reason) => {
                problems.push(format!("{field}.options"), reason);
                return None;
            }
        };
        let nul = [&mount.source, &mount.fs_type]
            .iter()
            .any(|text| text.contains('\0'));
        problems.require(!nul, &field, "holds a NUL byte");
        let source = source(mount, &options, bundle, &field, problems)?;
        check_proc(&destination, &source, &field, problems);
        if let MountSource::Bind { .. } = source {
            let data = options.data.join(",");
            problems.require(
                data.is_empty(),
                &format!("{field}.options"),
                &format!("{data:?} on a bind mount"),
            );
        }
        if options.tmpcopyup
            && !matches!(&source, MountSource::New { fs_type, .. } if fs_type == "tmpfs")
        {
            problems.push(format!("{field}.options"), "tmpcopyup is only for tmpfs");
        }
        let idmap = idmap(mount, &options, &source, &field, problems);
        Some(Self {
            index,
            destination,
            source,
            options,
            idmap,
        })
    }

    /// Whether the attribute "read-only" must wait until everything is in place: other mounts may still need
    /// their places made inside.
    pub fn readonly_is_late(&self) -> bool {
        self.options.set.contains(MountAttr::MOUNT_ATTR_RDONLY)
            && matches!(&self.source, MountSource::New { fs_type, .. } if fs_type == "tmpfs")
    }
}

/// An absolute, normal form; `..` never leaves the root.
fn destination(text: &str, field: &str, problems: &mut Problems) -> Option<PathBuf> {
    let field = format!("{field}.destination");
    if text.is_empty() || text.contains('\0') {
        problems.push(field, "mount destination is empty or holds a NUL byte");
        return None;
    }
    let clean = clean_absolute(Path::new(text));
    if clean == Path::new("/") {
        problems.push(
            field,
            "mounting over the root of the container is not supported",
        );
        return None;
    }
    Some(clean)
}

/// A path taken from the root (a relative one too, as runc does), `.` and `..` resolved by their letters.
pub fn clean_absolute(path: &Path) -> PathBuf {
    let mut clean = PathBuf::from("/");
    for part in path.components() {
        match part {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => {
                clean.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    clean
}

fn source(
    mount: &spec::Mount,
    options: &MountOptions,
    bundle: &Path,
    field: &str,
    problems: &mut Problems,
) -> Option<MountSource> {
    // Bind mounts are known by their options; the type "bind" alone means the same.
    let bind = options
        .bind
        .or_else(|| (mount.fs_type == "bind").then_some(false));
    if options.remount && bind.is_none() {
        problems.require(
            options.data.is_empty(),
            &format!("{field}.options"),
            "remount with filesystem options is not supported",
        );
        return Some(MountSource::Remount);
    }
    if let Some(recursive) = bind {
        if mount.source.is_empty() {
            problems.push(format!("{field}.source"), "a bind mount needs a source");
            return None;
        }
        return Some(MountSource::Bind {
            path: bundle.join(&mount.source),
            recursive,
        });
    }
    match mount.fs_type.as_str() {
        "" => {
            problems.push(
                format!("{field}.type"),
                "neither a type nor the option bind",
            );
            None
        }
        "cgroup" | "cgroup2" => Some(MountSource::Cgroup),
        fs_type => Some(MountSource::New {
            fs_type: fs_type.to_owned(),
            source: mount.source.clone(),
        }),
    }
}

/// What LXCFS and the like may put over files of procfs; everything else there stays the kernel's.
const OVER_PROC: [&str; 10] = [
    "cpuinfo",
    "diskstats",
    "meminfo",
    "stat",
    "swaps",
    "uptime",
    "loadavg",
    "slabinfo",
    "sys/kernel/ns_last_pid",
    "sys/crypto/fips_enabled",
];

/// Whether something may be mounted at this place below `/proc`.
pub fn allowed_over_proc(below_proc: &Path) -> bool {
    OVER_PROC
        .iter()
        .any(|allowed| below_proc == Path::new(allowed))
}

fn check_proc(destination: &Path, source: &MountSource, field: &str, problems: &mut Problems) {
    let Ok(below) = destination.strip_prefix("/proc") else {
        return;
    };
    let reason = format!("{destination:?} cannot be mounted because it is inside /proc");
    let allowed = if below.as_os_str().is_empty() {
        matches!(source, MountSource::Bind { .. } | MountSource::Remount)
            || matches!(source, MountSource::New { fs_type, .. } if fs_type == "proc")
    } else {
        allowed_over_proc(below)
    };
    problems.require(allowed, &format!("{field}.destination"), &reason);
}

fn idmap(
    mount: &spec::Mount,
    options: &MountOptions,
    source: &MountSource,
    field: &str,
    problems: &mut Problems,
) -> Option<(Vec<spec::IdMapping>, Vec<spec::IdMapping>)> {
    let maps = (mount.uid_mappings.clone(), mount.gid_mappings.clone());
    if maps.0.is_empty() && maps.1.is_empty() {
        problems.require(
            options.idmap.is_none(),
            &format!("{field}.options"),
            "idmap needs uidMappings and gidMappings of the mount",
        );
        return None;
    }
    let both = !maps.0.is_empty() && !maps.1.is_empty();
    problems.require(
        both,
        &format!("{field}.uidMappings"),
        "both uidMappings and gidMappings must be given",
    );
    let bind = matches!(source, MountSource::Bind { .. });
    problems.require(
        bind,
        &format!("{field}.uidMappings"),
        "id-mapped mounts are only supported for bind mounts",
    );
    namespaces::check_id_map(&format!("{field}.uidMappings"), &maps.0, problems);
    namespaces::check_id_map(&format!("{field}.gidMappings"), &maps.1, problems);
    Some(maps)
}
