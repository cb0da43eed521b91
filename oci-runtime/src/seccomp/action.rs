//! The answers of a filter: `SECCOMP_RET_…` of `linux/seccomp.h`.

/// The thread ends.
pub const KILL_THREAD: u32 = 0;
/// The process ends.
pub const KILL_PROCESS: u32 = 0x8000_0000;
/// SIGSYS.
pub const TRAP: u32 = 0x0003_0000;
/// An error, whose number is in the lower half.
pub const ERRNO: u32 = 0x0005_0000;
/// Another process answers.
pub const NOTIFY: u32 = 0x7fc0_0000;
/// A tracer answers; ENOSYS without one. It reads the lower half.
pub const TRACE: u32 = 0x7ff0_0000;
/// Allowed and logged.
pub const LOG: u32 = 0x7ffc_0000;
/// Allowed.
pub const ALLOW: u32 = 0x7fff_0000;

/// The error of a call that does not exist.
pub const ENOSYS: u32 = 38;
/// The error where the profile names none.
const EPERM: u32 = 1;

/// The names in the spec, sorted.
pub const NAMES: [(&str, u32); 9] = [
    ("SCMP_ACT_ALLOW", ALLOW),
    ("SCMP_ACT_ERRNO", ERRNO),
    ("SCMP_ACT_KILL", KILL_THREAD),
    ("SCMP_ACT_KILL_PROCESS", KILL_PROCESS),
    ("SCMP_ACT_KILL_THREAD", KILL_THREAD),
    ("SCMP_ACT_LOG", LOG),
    ("SCMP_ACT_NOTIFY", NOTIFY),
    ("SCMP_ACT_TRACE", TRACE),
    ("SCMP_ACT_TRAP", TRAP),
];

/// The action with this name, and with this error where it takes one.
///
/// # Errors
/// An unknown name, or an error number that does not fit.
pub fn parse(name: &str, errno: Option<u32>) -> Result<u32, String> {
    let Some((_, action)) = NAMES.iter().find(|(known, _)| *known == name) else {
        return Err(format!("string {name} is not a valid action for seccomp"));
    };
    if !matches!(*action, ERRNO | TRACE) {
        return Ok(*action);
    }
    match errno.unwrap_or(EPERM) {
        value @ 0..=0xffff => Ok(action | value),
        value => Err(format!("errno {value} is above 65535")),
    }
}

/// Whether a call gets through, to the kernel or to a tracer that knows better.
pub fn is_permissive(action: u32) -> bool {
    matches!(action & 0xffff_0000, ALLOW | LOG | TRACE)
}
