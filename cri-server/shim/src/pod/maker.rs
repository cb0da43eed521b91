//! The short-lived process that makes what the shim pins. Its errors cross a pipe, so they are sentences.
use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use sys::CloneFlags;
use sys::cgroup::{Cgroup, Joiner};
use sys::namespace::{self, NamespaceKind};
use sys::process::{self, Child, CloneArgs, Forked};

use super::Error;
use super::user::Handshake;
use crate::init;
use crate::options::{Options, sysctl_path};

/// The longest report of a maker.
const REPORT_MAX: usize = 4096;

/// The short-lived process whose namespaces are pinned.
pub(super) struct Maker {
    pub(super) child: Child,
    /// It exits when this is closed.
    hold: OwnedFd,
    pub(super) init: Option<i32>,
}

impl Maker {
    /// Forks it and waits until everything is made.
    pub(super) fn start(
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
        let (ready, user) = options.new_user.map(Handshake::pair).transpose()?.unzip();
        let forked = process::fork().map_err(|source| Error::Call {
            what: "namespaces of the pod",
            source,
        })?;
        let child = match forked {
            Forked::Parent(child) => child,
            Forked::Child => {
                drop((report, hold, ready));
                maker_main(options, kinds, cgroup, user, report_write, &hold_read);
            }
        };
        drop((report_write, hold_read, user));
        let mut maker = Self {
            child,
            hold,
            init: None,
        };
        if let Some(ready) = ready
            && let Err(error) = ready.map_ids(maker.child.pid)
        {
            // It ends when it reads the end of the pipe instead of the permission to go on.
            drop(maker.finish());
            return Err(error);
        }
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

    pub(super) fn finish(self) -> Result<(), Error> {
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
    user: Option<Handshake>,
    report: OwnedFd,
    hold: &OwnedFd,
) -> ! {
    let text = match make(options, kinds, cgroup, user) {
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
    user: Option<Handshake>,
) -> Result<Option<i32>, String> {
    // Before the user namespace, which has no rights over cgroups and mounts of the host.
    let cradle = options
        .new_pid
        .then(|| Cradle::make(cgroup, user.is_none()))
        .transpose()
        .map_err(|error| format!("init of the pod: {error}"))?;
    // First of all, so that it owns the others (user_namespaces(7)).
    if let Some(user) = user {
        user.enter()
            .map_err(|error| format!("user namespace of the pod: {error}"))?;
    }
    let mut flags = CloneFlags::empty();
    for kind in kinds.iter().filter(|kind| **kind != NamespaceKind::User) {
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
    let init = cradle.map(start_init).transpose();
    init.map_err(|error| format!("init of the pod: {error}"))
}

fn write_sysctl(options: &Options, key: &str, value: &str) -> Result<(), String> {
    let path = Path::new("/proc/sys").join(sysctl_path(key, options)?);
    std::fs::write(&path, value).map_err(|error| {
        sys::Error::from_io(&error, format!("write({path:?}, {value:?})")).to_string()
    })
}

/// What the init is made from, taken while the maker has the host's rights.
struct Cradle {
    joiner: Option<Joiner>,
    directory: Option<OwnedFd>,
    program: OwnedFd,
    null: std::fs::File,
}

// === impl Cradle ===

impl Cradle {
    /// `born_there`: whether the init may be cloned right into its cgroup, which asks for rights over it then.
    fn make(cgroup: Option<&Cgroup>, born_there: bool) -> Result<Self, String> {
        let failed = |error: sys::cgroup::Error| error.to_string();
        let directory = cgroup.filter(|_| born_there).map(Cgroup::dir_fd_v2);
        let null = std::fs::File::open("/dev/null");
        let null = sys::error::Context::call(null, || "open(\"/dev/null\")".to_owned());
        Ok(Self {
            joiner: cgroup.map(Cgroup::joiner).transpose().map_err(failed)?,
            directory: directory.transpose().map_err(failed)?.flatten(),
            program: program().map_err(|error| error.to_string())?,
            null: null.map_err(|error| error.to_string())?,
        })
    }
}

/// Forks process 1 of a new PID namespace and waits until it is ready.
fn start_init(cradle: Cradle) -> Result<i32, String> {
    let (status, status_write) = sys::fd::pipe().map_err(|error| error.to_string())?;
    let args = CloneArgs {
        namespaces: CloneFlags::CLONE_NEWPID,
        cgroup: cradle.directory.as_ref().map(AsFd::as_fd),
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
            let joined = cradle.joiner.map_or(Ok(()), |joiner| {
                joiner.join_self().map_err(|error| error.to_string())
            });
            let error = joined
                .and_then(|()| exec_init(&cradle.program, &cradle.null, &status_write))
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

/// The init's binary, through a read-only mount of its own: whoever reaches `/proc/1/exe` from inside the pod cannot
/// write to the host's file (the class of CVE-2019-5736).
fn program() -> sys::Result<OwnedFd> {
    use sys::mount::{MountAttr, MountAttrs, OpenTree};
    let path = std::fs::read_link("/proc/self/exe");
    let path = sys::error::Context::call(path, || "readlink(\"/proc/self/exe\")".to_owned())?;
    let own = sys::error::Context::call(std::fs::File::open("/"), || "open(\"/\")".to_owned())?;
    let tree = sys::mount::open_tree(&own, &path, OpenTree::OPEN_TREE_CLONE)?;
    sys::mount::mount_setattr(
        &tree,
        MountAttrs {
            set: MountAttr::MOUNT_ATTR_RDONLY,
            ..MountAttrs::default()
        },
    )?;
    Ok(tree)
}

/// Becomes the init.
fn exec_init(program: &OwnedFd, null: &std::fs::File, status: &OwnedFd) -> Result<(), String> {
    let steps = || -> sys::Result<()> {
        sys::fd::duplicate_onto(null, 0)?;
        sys::fd::duplicate_onto(status.as_fd(), 1)?;
        sys::fd::duplicate_onto(null, 2)
    };
    steps().map_err(|error| error.to_string())?;
    Err(process::execveat(program, &[CString::from(init::NAME)], &[]).to_string())
}
