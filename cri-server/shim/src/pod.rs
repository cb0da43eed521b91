//! What the shim holds for the whole pod: its pinned namespaces and, where the PID namespace is shared, its init.
//!
//! ```text
//! shim ──fork──▶ maker: cgroup of the init, unshare, host name, sysctls, lo up
//!                  └─fork─▶ init (only with --new-pid): exec of this binary through a read-only mount
//!   ◀── the init's process id, or why not
//! pins /proc/<maker>/ns/{net,ipc,uts} and /proc/<init>/ns/pid by bind mounts
//! maker exits; the init stays, as a child of the shim, which is a subreaper
//! ```
//!
//! The shim itself never leaves the host's namespaces: the runtime, the logs and the mounts belong there.
use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use sys::cgroup::{Cgroup, CgroupPath, Created, Hierarchies};
use sys::namespace::{self, NamespaceKind};
use sys::process::{self, Child, CloneArgs, Forked};
use sys::{CloneFlags, Pid};

use crate::files;
use crate::init;
use crate::options::{Options, sysctl_path};

/// The longest report of a maker.
const REPORT_MAX: usize = 4096;

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

// === the maker ===

/// The short-lived process whose namespaces are pinned.
struct Maker {
    child: Child,
    /// It exits when this is closed.
    hold: OwnedFd,
    init: Option<i32>,
}

impl Maker {
    /// Forks it and waits until everything is made.
    fn start(
        options: &Options,
        kinds: &[NamespaceKind],
        cgroup: Option<&Cgroup>,
    ) -> Result<Self, Error> {
        let pipes = || {
            sys::fd::pipe().map_err(|source| Error::Call {
                what: "namespaces of the pod",
                source,
            })
        };
        let (report, report_write) = pipes()?;
        let (hold_read, hold) = pipes()?;
        let forked = process::fork().map_err(|source| Error::Call {
            what: "namespaces of the pod",
            source,
        })?;
        let child = match forked {
            Forked::Parent(child) => child,
            Forked::Child => {
                drop((report, hold));
                maker_main(options, kinds, cgroup, report_write, &hold_read);
            }
        };
        drop((report_write, hold_read));
        let mut maker = Self {
            child,
            hold,
            init: None,
        };
        let text = sys::fd::read_to_end(&report, REPORT_MAX).unwrap_or_default();
        let text = String::from_utf8_lossy(&text).into_owned();
        match text.split_once(' ') {
            Some(("ok", pid)) => {
                maker.init = pid.parse().ok().filter(|pid| *pid != 0);
                Ok(maker)
            }
            _ => {
                drop(maker.finish());
                Err(Error::Maker(if text.is_empty() {
                    "namespaces of the pod: their maker died".into()
                } else {
                    text
                }))
            }
        }
    }

    fn finish(self) -> Result<(), Error> {
        drop(self.hold);
        process::wait(&self.child.pidfd)
            .map(drop)
            .map_err(|source| Error::Call {
                what: "namespaces of the pod",
                source,
            })
    }
}

/// The child's side: it ends here.
fn maker_main(
    options: &Options,
    kinds: &[NamespaceKind],
    cgroup: Option<&Cgroup>,
    report: OwnedFd,
    hold: &OwnedFd,
) -> ! {
    let text = match make(options, kinds, cgroup) {
        Ok(init) => format!("ok {}", init.unwrap_or(0)),
        Err(error) => error,
    };
    // Without a reader there is no shim any more, and nothing to do but to leave.
    drop(sys::fd::write_all(&report, text.as_bytes()));
    drop(report);
    drop(sys::fd::read(hold, &mut [0]));
    sys::spawn::exit_now(0)
}

/// Every step in the order in which it works; the error is a sentence, for it crosses a pipe.
fn make(
    options: &Options,
    kinds: &[NamespaceKind],
    cgroup: Option<&Cgroup>,
) -> Result<Option<i32>, String> {
    let mut flags = CloneFlags::empty();
    for kind in kinds {
        flags |= kind.flag();
    }
    namespace::unshare(flags).map_err(|error| format!("namespaces of the pod: {error}"))?;
    if let Some(hostname) = &options.hostname {
        process::set_hostname(hostname)
            .map_err(|error| format!("host name of the pod: {error}"))?;
    }
    if options.new_net {
        sys::link::set_up("lo")
            .map_err(|error| format!("network namespace of the pod: {error}"))?;
    }
    for (key, value) in &options.sysctls {
        write_sysctl(options, key, value)
            .map_err(|error| format!("sysctl {key}={value}: {error}"))?;
    }
    if options.new_pid {
        start_init(cgroup)
            .map(Some)
            .map_err(|error| format!("init of the pod: {error}"))
    } else {
        Ok(None)
    }
}

fn write_sysctl(options: &Options, key: &str, value: &str) -> Result<(), String> {
    let path = Path::new("/proc/sys").join(sysctl_path(key, options)?);
    std::fs::write(&path, value).map_err(|error| {
        sys::Error::from_io(&error, format!("write({path:?}, {value:?})")).to_string()
    })
}

/// Forks process 1 of a new PID namespace and waits until it is ready.
fn start_init(cgroup: Option<&Cgroup>) -> Result<i32, String> {
    let joiner = cgroup
        .map(Cgroup::joiner)
        .transpose()
        .map_err(|error| error.to_string())?;
    let directory = cgroup
        .map(Cgroup::dir_fd_v2)
        .transpose()
        .map_err(|error| error.to_string())?
        .flatten();
    let (status, status_write) = sys::fd::pipe().map_err(|error| error.to_string())?;
    let args = CloneArgs {
        namespaces: CloneFlags::CLONE_NEWPID,
        cgroup: directory.as_ref().map(AsFd::as_fd),
        ..CloneArgs::default()
    };
    match process::clone3(&args).map_err(|error| error.to_string())? {
        Forked::Parent(child) => {
            drop(status_write);
            let text =
                sys::fd::read_to_end(&status, REPORT_MAX).map_err(|error| error.to_string())?;
            if text == init::READY {
                Ok(child.pid.as_raw())
            } else {
                Err(died(&text))
            }
        }
        Forked::Child => {
            drop(status);
            let joined = joiner.map_or(Ok(()), |joiner| {
                joiner.join_self().map_err(|error| error.to_string())
            });
            let error = joined
                .and_then(|()| exec_init(&status_write))
                .err()
                .unwrap_or_default();
            drop(sys::fd::write_all(&status_write, error.as_bytes()));
            sys::spawn::exit_now(1)
        }
    }
}

fn died(text: &[u8]) -> String {
    if text.is_empty() {
        "it died before it was ready".into()
    } else {
        String::from_utf8_lossy(text).into_owned()
    }
}

/// Becomes the init. The binary is executed through a read-only mount of its own: whoever reaches `/proc/1/exe` from
/// inside the pod cannot write to the host's file (the class of CVE-2019-5736).
fn exec_init(status: &OwnedFd) -> Result<(), String> {
    use sys::mount::{MountAttr, MountAttrs, OpenTree};
    let steps = || -> sys::Result<OwnedFd> {
        let null = sys::error::Context::call(std::fs::File::open("/dev/null"), || {
            "open(\"/dev/null\")".to_owned()
        })?;
        let program = std::fs::read_link("/proc/self/exe");
        let program =
            sys::error::Context::call(program, || "readlink(\"/proc/self/exe\")".to_owned())?;
        let own = sys::error::Context::call(std::fs::File::open("/"), || "open(\"/\")".to_owned())?;
        let tree = sys::mount::open_tree(&own, &program, OpenTree::OPEN_TREE_CLONE)?;
        sys::mount::mount_setattr(
            &tree,
            MountAttrs {
                set: MountAttr::MOUNT_ATTR_RDONLY,
                ..MountAttrs::default()
            },
        )?;
        sys::fd::duplicate_onto(&null, 0)?;
        sys::fd::duplicate_onto(status.as_fd(), 1)?;
        sys::fd::duplicate_onto(&null, 2)?;
        Ok(tree)
    };
    let tree = steps().map_err(|error| error.to_string())?;
    Err(process::execveat(&tree, &[CString::from(init::NAME)], &[]).to_string())
}
