//! What can go wrong with a control group, with every operand, and what a person can do about it.

use std::fmt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;

use super::field;

/// The result of an operation on a control group.
pub type Result<T> = std::result::Result<T, Error>;

/// An operation on a control group that did not happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// The kernel refused a system call.
    Call {
        /// The call as strace would print it, for example `write("/sys/fs/cgroup/pids/x/pids.max", "5")`.
        call: String,
        /// Why.
        errno: Errno,
        /// What a person can do about it, where that is known.
        hint: Option<Hint>,
    },
    /// No cgroup filesystem is mounted.
    NotMounted,
    /// The path of a cgroup cannot be used.
    InvalidPath {
        /// The path as it was given.
        path: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A limit or rule cannot be right, whatever the kernel says.
    InvalidValue {
        /// The setting and its value, for example `memory.swap 5`.
        setting: String,
        /// What is wrong with it.
        why: String,
    },
    /// A limit is asked for whose controller this host does not offer.
    NoController {
        /// The controller, for example `memory`.
        controller: &'static str,
        /// The cgroup directory or file that was tried, where there is one.
        path: Option<PathBuf>,
    },
    /// A file of the cgroup filesystem holds something else than documented.
    Malformed {
        /// The file.
        path: PathBuf,
        /// What it holds.
        text: String,
        /// What was looked for.
        expected: &'static str,
    },
    /// A file of `unified` cannot be written.
    Unified {
        /// The file.
        file: String,
        /// Why not.
        source: Box<Error>,
    },
    /// The cgroup did not become empty, frozen or thawed in time.
    Timeout {
        /// What was waited for.
        wanted: &'static str,
        /// The cgroup.
        dir: PathBuf,
        /// The processes that are still there.
        processes: Vec<i32>,
    },
}

/// What a person can do about an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hint {
    /// The new memory limit is below what the cgroup uses.
    LimitBelowUsage {
        /// What the cgroup uses now, in bytes.
        usage: u64,
    },
    /// The kernel does not account swap.
    NoSwapAccounting,
    /// The swap limit (memory plus swap) is below the memory limit.
    SwapBelowMemory,
    /// The cgroup filesystem is mounted read-only or not delegated.
    NotDelegated,
    /// The parent cgroup allows less.
    ParentLimit,
    /// The cgroup's cpuset has no CPUs or memory nodes.
    EmptyCpuset,
    /// What was given as CPUs or memory nodes is no list of such that the cgroup can have.
    NotInCpuset {
        /// What they are, in a few words.
        what: &'static str,
        /// Those of the host, as the kernel lists them.
        online: String,
        /// Those of the parent cgroup.
        parent: String,
    },
    /// The kernel lacks BPF programs for devices, or the caller may not load them.
    NoDeviceBpf,
    /// A real-time process meets a cpu cgroup without real-time CPU time.
    NoRealtimeRuntime,
    /// The cgroup has children or processes of its own, which v2 does not allow together.
    InternalProcesses,
}

impl fmt::Display for Hint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LimitBelowUsage { usage } => {
                write!(f, "the cgroup uses {usage} bytes now; a limit below its usage cannot be set")
            }
            Self::NoSwapAccounting => f.write_str("this kernel does not account swap; leave the swap limit unset, or boot with swapaccount=1"),
            Self::SwapBelowMemory => f.write_str("the swap limit counts memory plus swap, so it cannot be below the memory limit"),
            Self::NotDelegated => f.write_str("the cgroup filesystem is read-only here, or this cgroup is not delegated to this user"),
            Self::ParentLimit => f.write_str("a parent cgroup allows less"),
            Self::EmptyCpuset => f.write_str("the cgroup's cpuset has no CPUs or memory nodes"),
            Self::NotInCpuset {
                what,
                online,
                parent,
            } => write!(
                f,
                "this is a list of {what}, such as 0-3,6; online are {online}, and the parent cgroup's cpuset has {parent}"
            ),
            Self::NoDeviceBpf => {
                f.write_str("device rules on cgroup v2 need CONFIG_CGROUP_BPF and CAP_BPF with CAP_NET_ADMIN, or CAP_SYS_ADMIN")
            }
            Self::NoRealtimeRuntime => f.write_str("a real-time process needs a cpu cgroup with real-time CPU time (cpu.rt_runtime_us)"),
            Self::InternalProcesses => {
                f.write_str("a cgroup v2 that hands controllers to its children can hold no processes itself")
            }
        }
    }
}

impl Error {
    /// The errno, where a system call was refused.
    #[must_use]
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Call { errno, .. } => Some(*errno),
            Self::Unified { source, .. } => source.errno(),
            _ => None,
        }
    }

    /// The property of `linux.resources` that the refused limit is for, such as `memory.swap`, where that is known.
    #[must_use]
    pub fn field(&self) -> Option<&'static str> {
        let of_path = |path: &Path| field::of_file(path.file_name()?.to_str()?);
        match self {
            Self::Call { call, .. } => of_path(Path::new(call.split('"').nth(1)?)),
            Self::NoController { controller, path } => path
                .as_deref()
                .and_then(of_path)
                .or_else(|| field::of_controller(controller)),
            Self::Malformed { path, .. } => of_path(path),
            Self::Unified { .. } => Some("unified"),
            _ => None,
        }
    }

    /// Whether the caller lacks the rights for it, or the place for it: nothing that another value would mend.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        matches!(
            self.errno(),
            Some(Errno::EACCES | Errno::EPERM | Errno::EROFS)
        )
    }

    /// What a person can do about it, where that is known.
    #[must_use]
    pub fn hint(&self) -> Option<&Hint> {
        match self {
            Self::Call { hint, .. } => hint.as_ref(),
            Self::Unified { source, .. } => source.hint(),
            _ => None,
        }
    }

    /// A refused call on a path.
    pub(super) fn call(call: &str, path: &Path, errno: Errno) -> Self {
        let hint = common_hint(errno);
        Self::Call {
            call: format!("{call}({path:?})"),
            errno,
            hint,
        }
    }

    /// A refused write.
    pub(super) fn write(path: &Path, value: &str, errno: Errno) -> Self {
        let hint = common_hint(errno);
        Self::Call {
            call: format!("write({path:?}, {value:?})"),
            errno,
            hint,
        }
    }

    /// The same error with a better hint.
    pub(super) fn with_hint(self, better: Hint) -> Self {
        match self {
            Self::Call { call, errno, .. } => Self::Call {
                call,
                errno,
                hint: Some(better),
            },
            other => other,
        }
    }

    /// Whether the kernel answered with this errno.
    pub(super) fn is(&self, wanted: Errno) -> bool {
        self.errno() == Some(wanted)
    }
}

/// What an errno means wherever it comes from in a cgroup filesystem.
fn common_hint(errno: Errno) -> Option<Hint> {
    matches!(errno, Errno::EROFS | Errno::EACCES).then_some(Hint::NotDelegated)
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Call { call, errno, hint } => {
                write!(f, "{call}: {} ({errno:?})", errno.desc().to_lowercase())?;
                hint.as_ref()
                    .map_or(Ok(()), |hint| write!(f, "; hint: {hint}"))
            }
            Self::NotMounted => f.write_str(
                "no cgroup filesystem is mounted at /sys/fs/cgroup; hint: mount cgroup2 there",
            ),
            Self::InvalidPath { path, why } => write!(f, "cgroup path {path:?} {why}"),
            Self::InvalidValue { setting, why } => write!(f, "{setting}: {why}"),
            Self::NoController {
                controller,
                path: Some(path),
            } => {
                write!(
                    f,
                    "the {controller} controller is not available to {path:?}; hint: enable it in cgroup.subtree_control of its parents, or remove the limit"
                )
            }
            Self::NoController {
                controller,
                path: None,
            } => {
                write!(
                    f,
                    "the {controller} controller is not mounted on this host; hint: mount its hierarchy, or remove the limit"
                )
            }
            Self::Malformed {
                path,
                text,
                expected,
            } => write!(f, "{path:?} holds {text:?}, not {expected}"),
            Self::Unified { file, source } => write!(f, "{file:?}: {source}"),
            Self::Timeout {
                wanted,
                dir,
                processes,
            } => write!(
                f,
                "cgroup {dir:?} is not {wanted}; its processes are {processes:?}"
            ),
        }
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_write_names_the_file_the_value_the_errno_and_what_to_do() {
        let error = Error::write(
            Path::new("/sys/fs/cgroup/memory/x/memory.limit_in_bytes"),
            "4096",
            Errno::EBUSY,
        )
        .with_hint(Hint::LimitBelowUsage { usage: 8192 });
        assert_eq!(
            error.to_string(),
            "write(\"/sys/fs/cgroup/memory/x/memory.limit_in_bytes\", \"4096\"): device or resource busy (EBUSY); \
             hint: the cgroup uses 8192 bytes now; a limit below its usage cannot be set"
        );
    }
}
