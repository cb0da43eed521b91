//! `process`: what runs in the container. Also the document that `exec --process` reads.
use super::null_is_default;

/// `process`
#[derive(Debug, Clone, Default, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Process {
    /// Whether it has a terminal.
    #[serde(default, deserialize_with = "null_is_default")]
    pub terminal: bool,
    /// The first size of the terminal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub console_size: Option<ConsoleSize>,
    /// Ids.
    #[serde(default, deserialize_with = "null_is_default")]
    pub user: User,
    /// The program and its arguments.
    #[serde(default, deserialize_with = "null_is_default")]
    pub args: Vec<String>,
    /// Environment, `NAME=value`.
    #[serde(default, deserialize_with = "null_is_default")]
    pub env: Vec<String>,
    /// Working directory, absolute.
    #[serde(default)]
    pub cwd: String,
    /// Capability sets; without them none is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<Capabilities>,
    /// Resource limits.
    #[serde(default, deserialize_with = "null_is_default")]
    pub rlimits: Vec<Rlimit>,
    /// Whether programs may not gain rights.
    #[serde(default, deserialize_with = "null_is_default")]
    pub no_new_privileges: bool,
    /// AppArmor profile.
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "String::is_empty"
    )]
    pub apparmor_profile: String,
    /// SELinux label.
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "String::is_empty"
    )]
    pub selinux_label: String,
    /// `/proc/self/oom_score_adj`; untouched where unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oom_score_adj: Option<i32>,
    /// CPU scheduler.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduler: Option<Scheduler>,
    /// I/O priority.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub io_priority: Option<IoPriority>,
    /// CPU affinity of exec.
    #[serde(
        default,
        rename = "execCPUAffinity",
        skip_serializing_if = "Option::is_none"
    )]
    pub exec_cpu_affinity: Option<CpuAffinity>,
}

/// `process.execCPUAffinity`
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
pub struct CpuAffinity {
    /// Processors before the process is in the container's cgroup, such as `0-3,7`.
    #[serde(default, deserialize_with = "null_is_default")]
    pub initial: String,
    /// Processors once it is there.
    #[serde(rename = "final", default, deserialize_with = "null_is_default")]
    pub last: String,
}

/// `process.consoleSize`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
pub struct ConsoleSize {
    /// Rows.
    pub height: u16,
    /// Columns.
    pub width: u16,
}

/// `process.user`
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct User {
    /// User id in the container.
    #[serde(default)]
    pub uid: u32,
    /// Group id in the container.
    #[serde(default)]
    pub gid: u32,
    /// File mode creation mask.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub umask: Option<u32>,
    /// Supplementary groups.
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub additional_gids: Vec<u32>,
}

/// `process.capabilities`
#[derive(Debug, Clone, Default, serde::Deserialize, serde::Serialize)]
pub struct Capabilities {
    /// What any program may ever get.
    #[serde(default, deserialize_with = "null_is_default")]
    pub bounding: Vec<String>,
    /// What counts now.
    #[serde(default, deserialize_with = "null_is_default")]
    pub effective: Vec<String>,
    /// What passes to programs that have it as file capability.
    #[serde(default, deserialize_with = "null_is_default")]
    pub inheritable: Vec<String>,
    /// What may become effective.
    #[serde(default, deserialize_with = "null_is_default")]
    pub permitted: Vec<String>,
    /// What every program gets.
    #[serde(default, deserialize_with = "null_is_default")]
    pub ambient: Vec<String>,
}

/// One of `process.rlimits`.
#[derive(Debug, Clone, serde::Deserialize, serde::Serialize)]
pub struct Rlimit {
    /// `RLIMIT_…`
    #[serde(rename = "type", default)]
    pub kind: String,
    /// The hard limit.
    #[serde(default)]
    pub hard: u64,
    /// The soft limit.
    #[serde(default)]
    pub soft: u64,
}

/// `process.scheduler`
#[derive(Debug, Clone, Default, serde::Deserialize, serde::Serialize)]
pub struct Scheduler {
    /// `SCHED_…`
    #[serde(default)]
    pub policy: String,
    /// For the ordinary policies.
    #[serde(default)]
    pub nice: i32,
    /// For the real-time policies.
    #[serde(default)]
    pub priority: i32,
    /// `SCHED_FLAG_…`
    #[serde(default, deserialize_with = "null_is_default")]
    pub flags: Vec<String>,
    /// Nanoseconds, for `SCHED_DEADLINE`.
    #[serde(default)]
    pub runtime: u64,
    /// Nanoseconds, for `SCHED_DEADLINE`.
    #[serde(default)]
    pub deadline: u64,
    /// Nanoseconds, for `SCHED_DEADLINE`.
    #[serde(default)]
    pub period: u64,
}

/// `process.ioPriority`
#[derive(Debug, Clone, Default, serde::Deserialize, serde::Serialize)]
pub struct IoPriority {
    /// `IOPRIO_CLASS_…`
    #[serde(default)]
    pub class: String,
    /// 0 (first) to 7.
    #[serde(default)]
    pub priority: i32,
}
