//! `linux.seccomp`: which system calls the container may make.
use serde::de::{Deserialize, Deserializer, Visitor};

use super::null_is_default;
use crate::seccomp::Syscall;

/// `linux.seccomp`
#[derive(Debug, Clone, Default, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Seccomp {
    /// What happens to calls that no rule is about.
    #[serde(default, deserialize_with = "null_is_default")]
    pub default_action: String,
    /// The errno of that.
    pub default_errno_ret: Option<u32>,
    /// Architectures besides the machine's own.
    #[serde(default, deserialize_with = "null_is_default")]
    pub architectures: Vec<String>,
    /// Flags of `seccomp(2)`; those of the runtime where missing.
    pub flags: Option<Vec<String>>,
    /// The socket of who answers for `SCMP_ACT_NOTIFY`.
    #[serde(default, deserialize_with = "null_is_default")]
    pub listener_path: String,
    /// What it is told with the descriptor.
    #[serde(default, deserialize_with = "null_is_default")]
    pub listener_metadata: String,
    /// The rules.
    #[serde(default, deserialize_with = "null_is_default")]
    pub syscalls: Vec<SeccompRule>,
}

/// One of `linux.seccomp.syscalls`.
#[derive(Debug, Clone, Default, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SeccompRule {
    /// The calls.
    #[serde(default, deserialize_with = "null_is_default")]
    pub names: Vec<SyscallName>,
    /// What happens to them.
    #[serde(default, deserialize_with = "null_is_default")]
    pub action: String,
    /// The errno of that.
    pub errno_ret: Option<u32>,
    /// When: all of these must hold.
    #[serde(default, deserialize_with = "null_is_default")]
    pub args: Vec<SeccompArg>,
}

/// A condition on one argument.
#[derive(Debug, Clone, Default, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SeccompArg {
    /// Which, from 0.
    #[serde(default)]
    pub index: u32,
    /// What it is compared with; the mask of `SCMP_CMP_MASKED_EQ`.
    #[serde(default)]
    pub value: u64,
    /// What the masked argument is compared with.
    #[serde(default)]
    pub value_two: u64,
    /// `SCMP_CMP_…`
    #[serde(default)]
    pub op: String,
}

/// The name of a system call, looked up while it is read: the names of a usual profile would be 400 strings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SyscallName {
    /// One that some architecture has.
    Known(Syscall),
    /// Another.
    Unknown(Box<str>),
}

impl<'de> Deserialize<'de> for SyscallName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Name;
        impl Visitor<'_> for Name {
            type Value = SyscallName;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("the name of a system call")
            }
            fn visit_str<E>(self, name: &str) -> Result<SyscallName, E> {
                Ok(Syscall::find(name)
                    .map_or_else(|| SyscallName::Unknown(name.into()), SyscallName::Known))
            }
        }
        deserializer.deserialize_str(Name)
    }
}
