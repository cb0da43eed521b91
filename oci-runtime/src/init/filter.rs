//! The container's seccomp filter, on its way into a process.
//!
//! What stands between the filter and the program is filtered as well, and a profile knows the program's calls, not
//! ours. So it is loaded as late as can be:
//! - with `noNewPrivileges`, right before `execve`, or before startContainer hooks, which are the container's programs;
//! - without it the kernel wants CAP_SYS_ADMIN, which is kept for that long and dropped right after. A process that
//!   waits for `start` must not have it, so there that is before the wait; for `exec` see [`Filter::load_before_birth`];
//! - with a listener, while there is a parent that can take the descriptor.
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use sys::creds::CapSet;
use sys::seccomp::{Instruction, load_filter};

use super::protocol::{self, FromChild};
use super::{Preserved, identity, program};
use crate::error::{Error, Result, Within};
use crate::plan::ProcessPlan;
use crate::seccomp::arch::Arch;
use crate::seccomp::simulate::{self, Call};
use crate::seccomp::{SeccompPlan, Syscall, action};

/// CAP_SYS_ADMIN.
const ADMIN: u32 = 21;

/// A filter, and whether it is there yet.
#[derive(Debug)]
pub(super) struct Filter<'a> {
    plan: Option<&'a SeccompPlan>,
    process: &'a ProcessPlan,
    /// What this process could have, which [`identity::assume`] says.
    have: CapSet,
    loaded: bool,
}

impl<'a> Filter<'a> {
    pub(super) fn new(plan: Option<&'a SeccompPlan>, process: &'a ProcessPlan) -> Self {
        Self {
            plan,
            process,
            have: CapSet::EMPTY,
            loaded: false,
        }
    }

    /// Becomes who the program is, but for the right that loading the filter needs.
    ///
    /// # Errors
    /// The field and what the kernel says.
    pub(super) fn assume(&mut self) -> Result<()> {
        self.have = identity::assume(self.process, self.kept())?;
        Ok(())
    }

    /// What is kept until the filter is there.
    fn kept(&self) -> CapSet {
        let needed = self.plan.is_some() && !self.process.no_new_privileges;
        if needed && !self.process.capabilities.effective.has(ADMIN) {
            CapSet::EMPTY.with(ADMIN)
        } else {
            CapSet::EMPTY
        }
    }

    /// Whether it has to be there before this process waits for `start`.
    pub(super) fn is_early(&self) -> bool {
        self.plan
            .is_some_and(|plan| !self.process.no_new_privileges || plan.listener.is_some())
    }

    pub(super) fn is_loaded(&self) -> bool {
        self.loaded
    }

    /// Loads it while more than the program is still to come.
    ///
    /// # Errors
    /// What the kernel says.
    pub(super) fn load_early(
        &mut self,
        preserved: Preserved,
        socket: Option<&OwnedFd>,
    ) -> Result<()> {
        if self.plan.is_none() || self.loaded {
            return Ok(());
        }
        // Later the filter might forbid it.
        program::seal(preserved)?;
        self.load(socket)
    }

    /// Loads it in the process that is about to give birth to one in the container's pid namespace, so that none with
    /// CAP_SYS_ADMIN is ever seen there. Only where the filter allows what is still to be done; otherwise it is loaded
    /// right before the program, and CAP_SYS_ADMIN kept for that long: such a profile has no other way.
    ///
    /// # Errors
    /// What the kernel says.
    pub(super) fn load_before_birth(&mut self, preserved: Preserved) -> Result<()> {
        let possible = self.plan.is_some_and(|plan| {
            !self.process.no_new_privileges
                && plan.listener.is_none()
                && allows_birth(&plan.program)
        });
        if possible {
            self.load_early(preserved, None)?;
        }
        Ok(())
    }

    /// Loads it, if that is still to be done, and lets go of the right to. `socket` leads to the parent, which takes
    /// the listener.
    ///
    /// # Errors
    /// What the kernel says, or the parent has ended.
    pub(super) fn load(&mut self, socket: Option<&OwnedFd>) -> Result<()> {
        let Some(plan) = self.plan.filter(|_| !self.loaded) else {
            return Ok(());
        };
        let listener = load_filter(&plan.program, plan.flags).map_err(|error| {
            let hint = match error.errno {
                Errno::EACCES => Some("without process.noNewPrivileges it needs CAP_SYS_ADMIN"),
                Errno::EBUSY => Some("a filter with a listener is there already"),
                _ => None,
            };
            let error = Error::from(error).within("linux.seccomp");
            match hint {
                Some(hint) => error.hint(hint),
                None => error,
            }
        })?;
        self.loaded = true;
        if let (Some(listener), Some(socket)) = (listener, socket) {
            protocol::write_parent(socket, &FromChild::Listening(listener.as_raw_fd()))?;
            protocol::hear_continue(socket)?;
        }
        if self.kept() != CapSet::EMPTY {
            identity::set_capabilities(self.process, self.have, CapSet::EMPTY)
                .within(|| "after loading the filter".to_owned())?;
        }
        Ok(())
    }
}

/// What a process of `exec` does between its birth and its program.
const AFTER_BIRTH: [&str; 19] = [
    "brk",
    "capset",
    "clone",
    "close",
    "close_range",
    "exit_group",
    "fcntl",
    "getpid",
    "ioctl",
    "madvise",
    "mmap",
    "munmap",
    "prlimit64",
    "read",
    "rt_sigaction",
    "rt_sigprocmask",
    "sendto",
    "setsid",
    "write",
];

/// Whether a filter allows all that, and `clone3` or says that it does not exist.
fn allows_birth(program: &[Instruction]) -> bool {
    let allowed = |name: &&str| matches!(answer(program, name), None | Some(action::ALLOW));
    let clone3 = answer(program, "clone3");
    let unknown = Some(action::ERRNO | action::ENOSYS);
    AFTER_BIRTH.iter().all(allowed) && (clone3 == Some(action::ALLOW) || clone3 == unknown)
}

/// Whether a process can become the doorkeeper: not where a filter is there before that and forbids it, where a small
/// limit on the size of files might not let the doorkeeper's be written, nor with a label, which is for the next program
/// that is executed.
pub fn allows_doorkeeper(plan: Option<&SeccompPlan>, process: &ProcessPlan) -> bool {
    let filter = Filter::new(plan, process);
    let early = plan.filter(|_| filter.is_early());
    let labels = [&process.apparmor_profile, &process.selinux_label];
    early.is_none_or(|plan| answer(&plan.program, "execveat") == Some(action::ALLOW))
        && !process.limits("RLIMIT_FSIZE")
        && labels.iter().all(|label| label.is_empty())
}

/// The same for a process of `exec`, which comes into the container's pid namespace as the doorkeeper and can do nothing
/// there before the program but what every process needs: no limit that keeps it from being born, no scheduler that
/// children do not inherit, and no filter that must be there before.
pub fn allows_doorkeeper_in_exec(plan: Option<&SeccompPlan>, process: &ProcessPlan) -> bool {
    allows_doorkeeper(plan, process)
        && !Filter::new(plan, process).is_early()
        && !process.limits("RLIMIT_NPROC")
        && process.scheduler.is_none_or(|one| one.is_inherited())
}

/// What a filter answers to a call of ours.
fn answer(program: &[Instruction], name: &str) -> Option<u32> {
    // The flags of clone(2); no other call is filtered by a first argument like that.
    let flags = nix::libc::CLONE_PARENT | nix::libc::CLONE_PIDFD | nix::libc::SIGCHLD;
    let call = Call {
        number: Syscall::find(name)?.number(Arch::native())?,
        arch: Arch::native().audit,
        args: [u64::from(flags.cast_unsigned()), 0, 0, 0, 0, 0],
    };
    simulate::run(program, &call)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Problems;

    fn program(profile: &str) -> Vec<Instruction> {
        let section = serde_json::from_str(profile).unwrap();
        let mut problems = Problems::default();
        let plan = crate::seccomp::plan(Some(&section), &Default::default(), &mut problems);
        plan.unwrap().program
    }

    #[test]
    fn usual_profiles_allow_a_birth_and_strict_ones_do_not() {
        for usual in [
            include_str!("../../tests/seccomp/profiles/moby.json"),
            include_str!("../../tests/seccomp/profiles/containerd.json"),
            include_str!("../../tests/seccomp/profiles/podman.json"),
            r#"{"defaultAction": "SCMP_ACT_ALLOW"}"#,
        ] {
            assert!(allows_birth(&program(usual)));
        }
        let strict = r#"{"defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{"names": ["setsid"], "action": "SCMP_ACT_ERRNO"}]}"#;
        assert!(!allows_birth(&program(strict)));
    }
}
