//! The short-lived process that makes what the shim pins. Its errors cross a pipe, so they are sentences.
use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use sys::CloneFlags;
use sys::cgroup::Cgroup;
use sys::namespace::{self, NamespaceKind};
use sys::process::{self, Child, CloneArgs, Forked};

use super::Error;
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
