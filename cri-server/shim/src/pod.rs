//! What the shim holds for the whole pod: its pinned namespaces and, where the PID namespace is shared, its init.
//!
//! ```text
//! shim ──fork──▶ maker: a user namespace, if asked for, whose id maps the shim writes; it owns what follows
//!                  cgroup of the init, unshare, host name, sysctls, lo up
//!                  └─fork─▶ init (only with --new-pid): exec of this binary through a read-only mount
//!   ◀── the init's process id, or why not
//! pins /proc/<maker>/ns/{user,net,ipc,uts} and /proc/<init>/ns/pid by bind mounts
//! maker exits; the init stays, as a child of the shim, which is a subreaper
//! ```
//!
//! The shim itself never leaves the host's namespaces: the runtime, the logs and the mounts belong there.
mod maker;
mod user;

use std::path::{Path, PathBuf};

use sys::cgroup::{Cgroup, CgroupPath, Created, Hierarchies};
use sys::namespace::{self, NamespaceKind};
use sys::{Pid, process};

use crate::files;
use crate::options::Options;
use maker::Maker;

/// Why the pod's environment could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum Error {
    #[error("namespace {kind}: pinning at {}", target.display())]
    Pin {
        kind: NamespaceKind,
        target: PathBuf,
        source: sys::Error,
    },
    #[error("{what}")]
    Call {
        what: &'static str,
        source: sys::Error,
    },
    #[error("{0}")]
    Maker(String),
    #[error("cgroup of the pod's init")]
    Cgroup(#[source] sys::cgroup::Error),
}

/// The pod's environment. [`Pod::release`] gives everything back.
#[derive(Debug, Default)]
pub(crate) struct Pod {
    pinned: Vec<PathBuf>,
    directory: Option<PathBuf>,
    /// The init of the shared PID namespace, while it lives.
    pub(crate) init: Option<i32>,
    /// Whether there ever was one.
    pub(crate) has_init: bool,
    cgroup: Option<Cgroup>,
    cgroup_made: Option<Created>,
}

// === impl Pod ===

impl Pod {
    /// Makes and pins what `options` ask for. On an error nothing is left.
    pub(crate) fn make(options: &Options) -> Result<Self, Error> {
        let mut pod = Self::default();
        match pod.fill(options) {
            Ok(()) => Ok(pod),
            Err(error) => {
                // The error that matters is the first one; what cannot be undone will show in the pod's directory.
                drop(pod.release());
                Err(error)
            }
        }
    }

    fn fill(&mut self, options: &Options) -> Result<(), Error> {
        let kinds = pinned_by_maker(options);
        if kinds.is_empty() && !options.new_pid {
            return Ok(());
        }
        self.make_cgroup(options)?;
        let directory = files::namespaces(&options.pod_dir);
        std::fs::create_dir_all(&directory).map_err(|error| {
            call(
                "the directory of namespaces",
                &error,
                format!("mkdir({directory:?})"),
            )
        })?;
        self.directory = Some(directory.clone());
        let maker = Maker::start(options, &kinds, self.cgroup.as_ref())?;
        self.init = maker.init;
        self.has_init = maker.init.is_some();
        for kind in kinds {
            self.pin(maker.child.pid, kind, &directory)?;
        }
        if let Some(init) = maker.init {
            self.pin(Pid::from_raw(init), NamespaceKind::Pid, &directory)?;
        }
        maker.finish()
    }

    fn make_cgroup(&mut self, options: &Options) -> Result<(), Error> {
        let Some(parent) = options.cgroup_parent.as_ref().filter(|_| options.new_pid) else {
            return Ok(());
        };
        let hierarchies = Hierarchies::detect().map_err(Error::Cgroup)?;
        let path = CgroupPath::new(parent.join("init")).map_err(Error::Cgroup)?;
        let cgroup = Cgroup::new(&hierarchies, &path);
        self.cgroup_made = Some(cgroup.create().map_err(Error::Cgroup)?);
        self.cgroup = Some(cgroup);
        Ok(())
    }

    fn pin(&mut self, pid: Pid, kind: NamespaceKind, directory: &Path) -> Result<(), Error> {
        let target = directory.join(kind.file_name());
        // Before the attempt: a failed pin may have made the file.
        self.pinned.push(target.clone());
        namespace::pin(pid, kind, &target).map_err(|source| Error::Pin {
            kind,
            target,
            source,
        })
    }

    /// Kills the init, unpins the namespaces, removes their directory. Every step is tried; the first error is told.
    pub(crate) fn release(&mut self) -> sys::Result<()> {
        let mut first = Ok(());
        let mut step = |result: sys::Result<()>| {
            if first.is_ok() {
                first = result;
            }
        };
        if let Some(pid) = self.init.take() {
            let pid = Pid::from_raw(pid);
            step(
                process::kill(pid, sys::Signal::SIGKILL)
                    .and_then(|()| process::wait_pid(pid).map(drop)),
            );
        }
        for target in self.pinned.drain(..) {
            step(namespace::unpin(&target));
        }
        if let Some(directory) = self.directory.take() {
            step(remove_directory(&directory));
        }
        if let Some(cgroup) = self.cgroup.take() {
            step(cgroup.remove().map_err(|error| {
                sys::Error::new(
                    error.errno().unwrap_or(sys::Errno::EBUSY),
                    error.to_string(),
                )
            }));
        }
        if let Some(made) = self.cgroup_made.take() {
            // Its parents, where the daemon had not made them: they stay where someone else is in them.
            drop(made.undo());
        }
        first
    }
}

/// Unpins whatever a dead shim left in `pod_dir`. Nothing there is success.
pub(crate) fn release_stale(pod_dir: &Path) -> sys::Result<()> {
    let directory = files::namespaces(pod_dir);
    for kind in [
        NamespaceKind::User,
        NamespaceKind::Net,
        NamespaceKind::Ipc,
        NamespaceKind::Uts,
        NamespaceKind::Pid,
    ] {
        let target = directory.join(kind.file_name());
        if target.exists() {
            namespace::unpin(&target)?;
        }
    }
    remove_directory(&directory)
}

fn remove_directory(directory: &Path) -> sys::Result<()> {
    match std::fs::remove_dir(directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(sys::Error::from_io(&error, format!("rmdir({directory:?})")))
        }
        _ => Ok(()),
    }
}

fn pinned_by_maker(options: &Options) -> Vec<NamespaceKind> {
    let wanted = [
        (options.new_user.is_some(), NamespaceKind::User),
        (options.new_net, NamespaceKind::Net),
        (options.new_ipc, NamespaceKind::Ipc),
        (options.new_uts, NamespaceKind::Uts),
    ];
    wanted
        .into_iter()
        .filter(|(yes, _)| *yes)
        .map(|(_, kind)| kind)
        .collect()
}

fn call(what: &'static str, error: &std::io::Error, call: String) -> Error {
    Error::Call {
        what,
        source: sys::Error::from_io(error, call),
    }
}
