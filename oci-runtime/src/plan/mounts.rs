//! The plan of each mount.
use std::path::{Component, Path, PathBuf};

use sys::mount::{MountAttr, Propagation};

use super::idmap::{self, IdMapPlan};
use super::options::MountOptions;
use super::{NamespacePlan, Problems};
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
    /// Owner maps of an id-mapped mount.
    pub idmap: Option<IdMapPlan>,
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
        users: &NamespacePlan,
        problems: &mut Problems,
        warnings: &mut Vec<String>,
    ) -> Option<Self> {
        let field = format!("mounts[{index}]");
        let destination = destination(&mount.destination, &field, problems)?;
        if !mount.destination.starts_with('/') {
            warnings.push(format!(
                "{field}.destination: {:?} is not absolute: taken from the root of the container",
                mount.destination
            ));
        }
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
        if let MountSource::Bind { .. } = source
            && !options.data.is_empty()
        {
            // The kernel has no use for them. runc refuses them since 1.2; before, and in crun, they are ignored, and
            // the validation suite of the specification has such a mount.
            warnings.push(format!(
                "{field}.options: {:?}: options of a filesystem are ignored for a bind mount",
                options.data.join(",")
            ));
        }
        if options.tmpcopyup
            && !matches!(&source, MountSource::New { fs_type, .. } if fs_type == "tmpfs")
        {
            problems.push(format!("{field}.options"), "tmpcopyup is only for tmpfs");
        }
        check_links(&options, &source, &field, problems);
        let idmap = idmap::plan(mount, options.idmap.as_ref(), users, &field, problems);
        problems.require(
            idmap.is_none() || matches!(source, MountSource::Bind { .. }),
            &format!("{field}.uidMappings"),
            "id-mapped mounts are only supported for bind mounts",
        );
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
    Some(clean_absolute(Path::new(text)))
}

/// The options that say what becomes of a symbolic link.
fn check_links(options: &MountOptions, source: &MountSource, field: &str, problems: &mut Problems) {
    let field = format!("{field}.options");
    let any = options.copy_symlink || options.src_nofollow || options.dest_nofollow;
    problems.require(
        !any || matches!(source, MountSource::Bind { .. }),
        &field,
        "copy-symlink, src-nofollow and dest-nofollow are only for bind mounts",
    );
    problems.require(
        !(options.copy_symlink && (options.src_nofollow || options.dest_nofollow)),
        &field,
        "copy-symlink is mutually exclusive with src-nofollow and dest-nofollow",
    );
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
    // As mount(8) has it, "remount" is about what is there already, also together with "bind".
    if options.remount {
        problems.require(
            bind.is_none() || options.data.is_empty(),
            &format!("{field}.options"),
            "remount,bind changes the mount, not the filesystem: it takes no filesystem options",
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

/// What is different in a mount namespace that is not the container's own: the root is a copy that nobody mounts into.
pub fn share(
    mounts: &[MountPlan],
    rootfs: &mut Option<(Propagation, bool)>,
    problems: &mut Problems,
    warnings: &mut Vec<String>,
) {
    if rootfs.take().is_some() {
        let text =
            "linux.rootfsPropagation is ignored without a mount namespace of the container's own";
        warnings.push(text.to_owned());
    }
    for one in mounts {
        let last = one.options.propagation.last();
        problems.require(
            last.is_none_or(|(kind, _)| *kind != Propagation::Unbindable),
            &format!("mounts[{}].options", one.index),
            "an unbindable mount needs a mount namespace of the container's own",
        );
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
