//! Capability sets through raw `capset(2)` version 3: 64 bits per set, no library.
#![allow(unsafe_code)]
use nix::errno::Errno;

use crate::error::{Result, check};

/// The names of the capabilities, in the order of their numbers, as of Linux 5.9.
pub const CAPABILITY_NAMES: [&str; 41] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

/// A set of capabilities, one bit per number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CapSet(pub u64);

impl CapSet {
    /// The empty set.
    pub const EMPTY: Self = Self(0);

    /// Whether the capability with this number is in the set.
    pub fn has(self, number: u32) -> bool {
        number < u64::BITS && self.0 & (1 << number) != 0
    }

    /// The set with the capability of this number.
    #[must_use]
    pub fn with(self, number: u32) -> Self {
        if number < u64::BITS {
            Self(self.0 | 1 << number)
        } else {
            self
        }
    }

    /// What is in both sets.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// The numbers in the set, ascending.
    pub fn numbers(self) -> impl Iterator<Item = u32> {
        (0..u64::BITS).filter(move |number| self.has(*number))
    }
}

/// The number of a capability; the name may lack `CAP_` and may be in lower case.
pub fn parse_capability(name: &str) -> Option<u32> {
    let upper = name.to_ascii_uppercase();
    let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
    let index = CAPABILITY_NAMES
        .iter()
        .position(|known| &known[4..] == bare)?;
    u32::try_from(index).ok()
}

/// The name of a capability, if this program knows it.
pub fn capability_name(number: u32) -> Option<&'static str> {
    CAPABILITY_NAMES.get(usize::try_from(number).ok()?).copied()
}

/// `struct __user_cap_header_struct`.
#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

/// `struct __user_cap_data_struct`, one per 32 capabilities.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Data {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// `_LINUX_CAPABILITY_VERSION_3`.
const VERSION_3: u32 = 0x2008_0522;

fn low(set: u64) -> u32 {
    u32::try_from(set & u64::from(u32::MAX)).unwrap_or(u32::MAX)
}

/// `capset(2)` for the calling thread.
///
/// # Errors
/// `EPERM` for a capability that the thread does not have.
pub fn set_capabilities(effective: CapSet, permitted: CapSet, inheritable: CapSet) -> Result<()> {
    let mut header = Header {
        version: VERSION_3,
        pid: 0,
    };
    let data = [0, 32].map(|shift| Data {
        effective: low(effective.0 >> shift),
        permitted: low(permitted.0 >> shift),
        inheritable: low(inheritable.0 >> shift),
    });
    // SAFETY: version 3 means a header and exactly two data structs, which live through the call.
    let ret = unsafe { libc::syscall(libc::SYS_capset, &raw mut header, data.as_ptr()) };
    check(ret, || {
        let (effective, permitted, inheritable) = (effective.0, permitted.0, inheritable.0);
        format!("capset({{effective={effective:#x}, permitted={permitted:#x}, inheritable={inheritable:#x}}})")
    })
    .map(drop)
}

/// `capget(2)` for the calling thread: effective, permitted, inheritable.
///
/// # Errors
/// Never on a sane kernel.
pub fn read_capabilities() -> Result<(CapSet, CapSet, CapSet)> {
    let mut header = Header {
        version: VERSION_3,
        pid: 0,
    };
    let mut data = [Data::default(); 2];
    // SAFETY: version 3 means a header and exactly two data structs, writable through the call.
    let ret = unsafe { libc::syscall(libc::SYS_capget, &raw mut header, data.as_mut_ptr()) };
    check(ret, || "capget(0)".to_owned())?;
    let join = |part: fn(&Data) -> u32| {
        CapSet(u64::from(part(&data[0])) | u64::from(part(&data[1])) << 32)
    };
    Ok((
        join(|data| data.effective),
        join(|data| data.permitted),
        join(|data| data.inheritable),
    ))
}

/// Takes every capability out of the bounding set that is not in `keep`, up to the last one that the kernel knows.
///
/// # Errors
/// `EPERM` without `CAP_SETPCAP`.
pub fn drop_bounding(keep: CapSet) -> Result<()> {
    for number in (0..u64::BITS).filter(|number| !keep.has(*number)) {
        // SAFETY: two integers.
        let ret = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, libc::c_ulong::from(number)) };
        let name = || capability_name(number).map_or_else(|| number.to_string(), str::to_owned);
        match check(libc::c_long::from(ret), || {
            format!("prctl(PR_CAPBSET_DROP, {})", name())
        }) {
            Ok(_) => {}
            // Past the last capability of this kernel.
            Err(error) if error.errno == Errno::EINVAL => return Ok(()),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn ambient(operation: libc::c_int, name: &str, number: u32) -> Result<()> {
    // SAFETY: integers only.
    let ret = unsafe {
        libc::prctl(
            libc::PR_CAP_AMBIENT,
            operation,
            libc::c_ulong::from(number),
            0,
            0,
        )
    };
    check(libc::c_long::from(ret), || {
        format!("prctl(PR_CAP_AMBIENT, {name}, {number})")
    })
    .map(drop)
}

/// Empties the ambient set.
///
/// # Errors
/// `EINVAL` before Linux 4.3.
pub fn clear_ambient() -> Result<()> {
    ambient(
        libc::PR_CAP_AMBIENT_CLEAR_ALL,
        "PR_CAP_AMBIENT_CLEAR_ALL",
        0,
    )
}

/// Adds a capability to the ambient set.
///
/// # Errors
/// `EPERM` where it is not both permitted and inheritable.
pub fn raise_ambient(number: u32) -> Result<()> {
    ambient(libc::PR_CAP_AMBIENT_RAISE, "PR_CAP_AMBIENT_RAISE", number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_agree() {
        assert_eq!(parse_capability("CAP_CHOWN"), Some(0));
        assert_eq!(parse_capability("cap_sys_admin"), Some(21));
        assert_eq!(parse_capability("NET_BIND_SERVICE"), Some(10));
        assert_eq!(parse_capability("CAP_CHECKPOINT_RESTORE"), Some(40));
        for wrong in ["", "CAP_", "CAP_X", "CAP_CAP_CHOWN"] {
            assert_eq!(parse_capability(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn the_own_sets_can_be_written_back() {
        let (effective, permitted, inheritable) = read_capabilities().unwrap();
        set_capabilities(effective, permitted, inheritable).unwrap();
        assert_eq!(
            read_capabilities().unwrap(),
            (effective, permitted, inheritable)
        );
    }

    #[test]
    fn asking_for_more_than_permitted_is_refused_with_the_sets() {
        // This thread alone gives one up: who has all of them may ask for any.
        let (effective, permitted, inheritable) = read_capabilities().unwrap();
        let fewer = CapSet(permitted.0 & !1);
        set_capabilities(CapSet(effective.0 & !1), fewer, inheritable).unwrap();
        let error = set_capabilities(fewer, CapSet(u64::MAX), inheritable).unwrap_err();
        assert_eq!(error.errno, Errno::EPERM);
        assert!(
            error.call.contains("permitted=0xffffffffffffffff"),
            "{error}"
        );
    }

    #[test]
    fn a_set_lists_its_numbers() {
        let set = CapSet::EMPTY.with(0).with(40).with(99);
        assert_eq!(set.numbers().collect::<Vec<_>>(), [0, 40]);
    }
}
