//! `linux`: namespaces, devices, limits. Also the document that `update --resources` reads.
use std::collections::BTreeMap;

use super::{
    HugepageLimit, IntelRdt, RdmaLimit, ResourcesBlockIo, ResourcesNetwork, Seccomp,
    null_is_default,
};

/// `linux`
#[derive(Debug, Clone, Default, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Linux {
    /// Users of a new user namespace.
    #[serde(default, deserialize_with = "null_is_default")]
    pub uid_mappings: Vec<IdMapping>,
    /// Groups of a new user namespace.
    #[serde(default, deserialize_with = "null_is_default")]
    pub gid_mappings: Vec<IdMapping>,
    /// Kernel parameters.
    #[serde(default, deserialize_with = "null_is_default")]
    pub sysctl: BTreeMap<String, String>,
    /// Limits.
    #[serde(default, deserialize_with = "null_is_default")]
    pub resources: Resources,
    /// The cgroup.
    #[serde(default, deserialize_with = "null_is_default")]
    pub cgroups_path: String,
    /// Namespaces, new or by path.
    #[serde(default, deserialize_with = "null_is_default")]
    pub namespaces: Vec<Namespace>,
    /// Device nodes.
    #[serde(default, deserialize_with = "null_is_default")]
    pub devices: Vec<Device>,
    /// Network interfaces to move in.
    #[serde(default, deserialize_with = "null_is_default")]
    pub net_devices: BTreeMap<String, Option<NetDevice>>,
    /// System call filter.
    pub seccomp: Option<Seccomp>,
    /// `shared`, `slave`, `private`, `unbindable`, each also with `r` before it.
    #[serde(default, deserialize_with = "null_is_default")]
    pub rootfs_propagation: String,
    /// Paths that read as empty.
    #[serde(default, deserialize_with = "null_is_default")]
    pub masked_paths: Vec<String>,
    /// Paths that cannot be written.
    #[serde(default, deserialize_with = "null_is_default")]
    pub readonly_paths: Vec<String>,
    /// SELinux label of mounts.
    #[serde(default, deserialize_with = "null_is_default")]
    pub mount_label: String,
    /// Cache and memory bandwidth allocation.
    pub intel_rdt: Option<IntelRdt>,
    /// NUMA policy.
    pub memory_policy: Option<MemoryPolicy>,
    /// Execution domain.
    pub personality: Option<Personality>,
    /// Clock offsets of a new time namespace.
    #[serde(default, deserialize_with = "null_is_default")]
    pub time_offsets: BTreeMap<String, TimeOffset>,
}

/// One range of ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct IdMapping {
    /// First id in the container.
    #[serde(rename = "containerID", default)]
    pub container_id: u32,
    /// First id on the host.
    #[serde(rename = "hostID", default)]
    pub host_id: u32,
    /// How many.
    #[serde(default)]
    pub size: u32,
}

/// One of `linux.namespaces`.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Deserialize)]
pub struct Namespace {
    /// `pid`, `network`, `mount`, `ipc`, `uts`, `user`, `cgroup`, `time`
    #[serde(rename = "type", default)]
    pub kind: String,
    /// An existing namespace to join; a new one where empty.
    #[serde(default, deserialize_with = "null_is_default")]
    pub path: String,
}

/// One of `linux.devices`.
#[derive(Debug, Clone, Default, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Device {
    /// `c`, `b`, `u` or `p`
    #[serde(rename = "type", default)]
    pub kind: String,
    /// Where, in the container.
    #[serde(default)]
    pub path: String,
    /// Major number.
    #[serde(default)]
    pub major: i64,
    /// Minor number.
    #[serde(default)]
    pub minor: i64,
    /// Permissions.
    pub file_mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
}

/// `linux.personality`
#[derive(Debug, Clone, Default, serde::Deserialize)]
pub struct Personality {
    /// `LINUX` or `LINUX32`
    #[serde(default)]
    pub domain: String,
    /// The spec defines none yet; those of personality(2) are taken.
    #[serde(default, deserialize_with = "null_is_default")]
    pub flags: Vec<String>,
}

/// One of `linux.netDevices`.
#[derive(Debug, Clone, Default, serde::Deserialize)]
pub struct NetDevice {
    /// Its name in the container; the same where empty.
    #[serde(default, deserialize_with = "null_is_default")]
    pub name: String,
}

/// `linux.memoryPolicy`
#[derive(Debug, Clone, Default, serde::Deserialize)]
pub struct MemoryPolicy {
    /// `MPOL_…`
    #[serde(default, deserialize_with = "null_is_default")]
    pub mode: String,
    /// Memory nodes, such as `0-3,7`.
    #[serde(default, deserialize_with = "null_is_default")]
    pub nodes: String,
    /// `MPOL_F_…`
    #[serde(default, deserialize_with = "null_is_default")]
    pub flags: Vec<String>,
}

/// One of `linux.timeOffsets`.
#[derive(Debug, Clone, Copy, Default, serde::Deserialize)]
pub struct TimeOffset {
    /// Seconds.
    #[serde(default, deserialize_with = "null_is_default")]
    pub secs: i64,
    /// Nanoseconds, added to them.
    #[serde(default, deserialize_with = "null_is_default")]
    pub nanosecs: u32,
}

/// `linux.resources`
#[derive(Debug, Clone, Default, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Resources {
    /// Which devices may be used, in order; the last rule that fits counts.
    #[serde(default, deserialize_with = "null_is_default")]
    pub devices: Vec<DeviceCgroup>,
    /// Memory.
    #[serde(default, deserialize_with = "null_is_default")]
    pub memory: ResourcesMemory,
    /// Processor time.
    #[serde(default, deserialize_with = "null_is_default")]
    pub cpu: ResourcesCpu,
    /// Number of processes.
    #[serde(default, deserialize_with = "null_is_default")]
    pub pids: ResourcesPids,
    /// Disk bandwidth.
    #[serde(default, rename = "blockIO", deserialize_with = "null_is_default")]
    pub block_io: ResourcesBlockIo,
    /// Huge pages.
    #[serde(default, deserialize_with = "null_is_default")]
    pub hugepage_limits: Vec<HugepageLimit>,
    /// Network classes.
    #[serde(default, deserialize_with = "null_is_default")]
    pub network: ResourcesNetwork,
    /// RDMA devices by name.
    #[serde(default, deserialize_with = "null_is_default")]
    pub rdma: BTreeMap<String, RdmaLimit>,
    /// cgroup v2 files by name.
    #[serde(default, deserialize_with = "null_is_default")]
    pub unified: BTreeMap<String, String>,
}

/// One of `linux.resources.devices`.
#[derive(Debug, Clone, Default, serde::Deserialize, serde::Serialize)]
pub struct DeviceCgroup {
    /// Allow or deny.
    #[serde(default)]
    pub allow: bool,
    /// `a`, `c`, `b`; all where empty.
    #[serde(rename = "type", default, deserialize_with = "null_is_default")]
    pub kind: String,
    /// Major number, any where missing or negative.
    pub major: Option<i64>,
    /// Minor number, any where missing or negative.
    pub minor: Option<i64>,
    /// Some of `rwm`; all where empty.
    #[serde(default, deserialize_with = "null_is_default")]
    pub access: String,
}

/// `linux.resources.memory`, in bytes; -1 is unlimited.
#[derive(Debug, Clone, Default, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ResourcesMemory {
    /// The limit.
    pub limit: Option<i64>,
    /// The soft limit.
    pub reservation: Option<i64>,
    /// Memory and swap together.
    pub swap: Option<i64>,
    /// Memory of the kernel; ignored, no kernel limits it any more.
    pub kernel: Option<i64>,
    /// The same for TCP buffers.
    #[serde(rename = "kernelTCP")]
    pub kernel_tcp: Option<i64>,
    /// 0 to 100, cgroup v1.
    pub swappiness: Option<u64>,
    /// cgroup v1.
    #[serde(rename = "disableOOMKiller")]
    pub disable_oom_killer: Option<bool>,
    /// Whether children count, too; cgroup v1.
    pub use_hierarchy: Option<bool>,
    /// Refuse a limit below the usage.
    pub check_before_update: Option<bool>,
}

/// `linux.resources.cpu`
#[derive(Debug, Clone, Default, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ResourcesCpu {
    /// Relative weight.
    pub shares: Option<u64>,
    /// Microseconds per period; -1 is unlimited.
    pub quota: Option<i64>,
    /// Microseconds that may be saved up.
    pub burst: Option<u64>,
    /// Microseconds.
    pub period: Option<u64>,
    /// Microseconds, cgroup v1.
    pub realtime_runtime: Option<i64>,
    /// Microseconds, cgroup v1.
    pub realtime_period: Option<u64>,
    /// Processors, such as `0-3,7`.
    #[serde(default, deserialize_with = "null_is_default")]
    pub cpus: String,
    /// Memory nodes.
    #[serde(default, deserialize_with = "null_is_default")]
    pub mems: String,
    /// 1: only when nobody else wants it.
    pub idle: Option<i64>,
}

/// `linux.resources.pids`
#[derive(Debug, Clone, Default, serde::Deserialize)]
pub struct ResourcesPids {
    /// The limit; -1 is unlimited.
    pub limit: Option<i64>,
}
