//! Resource limits, `prlimit(2)`.
#![allow(unsafe_code)]
use nix::unistd::Pid;

use crate::error::{Result, check};

/// "No limit".
pub const RLIM_INFINITY: u64 = u64::MAX;

/// The type of `RLIMIT_…`, which the C libraries do not agree on.
#[cfg(target_env = "musl")]
type Resource = libc::c_int;
#[cfg(not(target_env = "musl"))]
type Resource = libc::c_uint;

#[allow(
    clippy::cast_sign_loss,
    clippy::unnecessary_cast,
    reason = "the kernel counts the limits from 0, and musl signs them"
)]
const fn number(resource: Resource) -> u32 {
    resource as u32
}

/// The names of the limits with their numbers on this architecture.
pub const RLIMIT_NAMES: [(&str, u32); 16] = [
    ("RLIMIT_CPU", number(libc::RLIMIT_CPU)),
    ("RLIMIT_FSIZE", number(libc::RLIMIT_FSIZE)),
    ("RLIMIT_DATA", number(libc::RLIMIT_DATA)),
    ("RLIMIT_STACK", number(libc::RLIMIT_STACK)),
    ("RLIMIT_CORE", number(libc::RLIMIT_CORE)),
    ("RLIMIT_RSS", number(libc::RLIMIT_RSS)),
    ("RLIMIT_NPROC", number(libc::RLIMIT_NPROC)),
    ("RLIMIT_NOFILE", number(libc::RLIMIT_NOFILE)),
    ("RLIMIT_MEMLOCK", number(libc::RLIMIT_MEMLOCK)),
    ("RLIMIT_AS", number(libc::RLIMIT_AS)),
    ("RLIMIT_LOCKS", number(libc::RLIMIT_LOCKS)),
    ("RLIMIT_SIGPENDING", number(libc::RLIMIT_SIGPENDING)),
    ("RLIMIT_MSGQUEUE", number(libc::RLIMIT_MSGQUEUE)),
    ("RLIMIT_NICE", number(libc::RLIMIT_NICE)),
    ("RLIMIT_RTPRIO", number(libc::RLIMIT_RTPRIO)),
    ("RLIMIT_RTTIME", number(libc::RLIMIT_RTTIME)),
];

/// A soft and a hard limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rlimit {
    /// What counts.
    pub soft: u64,
    /// How far the soft limit may be raised.
    pub hard: u64,
}

/// The number of the limit `RLIMIT_…`.
pub fn parse_rlimit(name: &str) -> Option<u32> {
    RLIMIT_NAMES
        .iter()
        .find(|(known, _)| *known == name)
        .map(|(_, number)| *number)
}

/// The name of a limit.
pub fn rlimit_name(number: u32) -> &'static str {
    RLIMIT_NAMES
        .iter()
        .find(|(_, known)| *known == number)
        .map_or("RLIMIT_?", |(name, _)| name)
}

/// Sets a limit of a process (0: the caller).
///
/// # Errors
/// `EPERM` where the hard limit would rise without `CAP_SYS_RESOURCE`, `EINVAL` for soft above hard.
pub fn set_rlimit(pid: Pid, resource: u32, limit: Rlimit) -> Result<()> {
    let raw = libc::rlimit64 {
        rlim_cur: limit.soft,
        rlim_max: limit.hard,
    };
    // SAFETY: the new limit lives through the call, and no old one is asked for.
    let ret = unsafe {
        libc::syscall(
            libc::SYS_prlimit64,
            pid.as_raw(),
            resource,
            &raw const raw,
            std::ptr::null_mut::<libc::rlimit64>(),
        )
    };
    check(ret, || {
        let name = rlimit_name(resource);
        format!(
            "prlimit({pid}, {name}, {{rlim_cur={}, rlim_max={}}}, NULL)",
            show(limit.soft),
            show(limit.hard)
        )
    })
    .map(drop)
}

/// Reads a limit of a process (0: the caller).
///
/// # Errors
/// `EINVAL` for an unknown number, `ESRCH`.
pub fn get_rlimit(pid: Pid, resource: u32) -> Result<Rlimit> {
    let mut raw = libc::rlimit64 {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the place for the old limit is writable through the call, and no new one is given.
    let ret = unsafe {
        libc::syscall(
            libc::SYS_prlimit64,
            pid.as_raw(),
            resource,
            std::ptr::null::<libc::rlimit64>(),
            &raw mut raw,
        )
    };
    check(ret, || {
        format!("prlimit({pid}, {}, NULL)", rlimit_name(resource))
    })?;
    Ok(Rlimit {
        soft: raw.rlim_cur,
        hard: raw.rlim_max,
    })
}

fn show(value: u64) -> String {
    if value == RLIM_INFINITY {
        "RLIM_INFINITY".to_owned()
    } else {
        value.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_soft_limit_above_the_hard_one_is_refused_with_both() {
        let error = set_rlimit(
            Pid::from_raw(0),
            libc::RLIMIT_CORE,
            Rlimit { soft: 2, hard: 1 },
        )
        .unwrap_err();
        assert_eq!(
            error.to_string(),
            "prlimit(0, RLIMIT_CORE, {rlim_cur=2, rlim_max=1}, NULL): invalid argument (EINVAL)"
        );
    }

    #[test]
    fn a_limit_can_be_written_back() {
        let number = parse_rlimit("RLIMIT_NOFILE").unwrap();
        let limit = get_rlimit(Pid::from_raw(0), number).unwrap();
        set_rlimit(Pid::from_raw(0), number, limit).unwrap();
    }

    #[test]
    fn an_unknown_name_is_no_limit() {
        assert_eq!(parse_rlimit("NOFILE"), None);
        assert_eq!(parse_rlimit("RLIMIT_FOO"), None);
    }
}
