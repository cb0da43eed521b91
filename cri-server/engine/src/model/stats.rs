//! What pods and containers use. A number that nobody counts here is `None`, never 0.

use std::collections::BTreeMap;

pub use sys::cgroup::{DeviceIo, Pressure, PressureLine};

use super::{ContainerMetadata, PodMetadata};

/// CPU time, memory and pressure of one cgroup at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Usage {
    /// When it was read, in nanoseconds since 1970.
    pub at: i64,
    /// Nanoseconds of CPU time in all.
    pub cpu_ns: Option<u64>,
    /// Nanoseconds of CPU time per second, over the time since the reading before; since the start at the first one.
    pub cpu_rate: Option<u64>,
    /// Bytes of memory, page cache included.
    pub memory: Option<u64>,
    /// Memory without the page cache that could be dropped at once.
    pub working_set: Option<u64>,
    /// What is left of the limit; `None` without one.
    pub memory_available: Option<u64>,
    /// Bytes of anonymous memory.
    pub rss: Option<u64>,
    /// Page faults.
    pub page_faults: Option<u64>,
    /// Page faults that had to read.
    pub major_page_faults: Option<u64>,
    /// Bytes in swap.
    pub swap: Option<u64>,
    /// What is left of the limit of swap; `None` without one.
    pub swap_available: Option<u64>,
    /// Processes and threads.
    pub tasks: Option<u64>,
    /// Waiting for CPU; cgroup v2 only, as the next two.
    pub cpu_pressure: Option<Pressure>,
    /// Waiting for memory.
    pub memory_pressure: Option<Pressure>,
    /// Waiting for disks.
    pub io_pressure: Option<Pressure>,
}

/// What a writable layer takes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LayerUsage {
    /// When it was counted, in nanoseconds since 1970.
    pub at: i64,
    /// Where the layer is.
    pub path: String,
    /// Bytes.
    pub bytes: u64,
    /// Files and directories.
    pub inodes: u64,
}

/// What went through a network interface.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InterfaceUsage {
    /// Its name in the pod.
    pub name: String,
    /// Received: bytes, packets, errors, dropped packets.
    pub received: Traffic,
    /// Sent.
    pub sent: Traffic,
}

/// One direction of an interface.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Bytes.
    pub bytes: u64,
    /// Packets.
    pub packets: u64,
    /// Packets with errors.
    pub errors: u64,
    /// Packets that were dropped.
    pub dropped: u64,
}

/// A container and what it uses.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ContainerStats {
    /// Its id.
    pub id: String,
    /// Its pod.
    pub pod_id: String,
    /// Who it is.
    pub metadata: ContainerMetadata,
    /// The image as the caller named it.
    pub image: String,
    /// Labels as asked for.
    pub labels: BTreeMap<String, String>,
    /// Annotations as asked for.
    pub annotations: BTreeMap<String, String>,
    /// When its program started, in nanoseconds since 1970; 0 before.
    pub started_at: i64,
    /// `None` when it does not run.
    pub usage: Option<Usage>,
    /// `None` until it was counted.
    pub layer: Option<LayerUsage>,
}

/// A pod and what it uses.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PodStats {
    /// Its id.
    pub id: String,
    /// Who it is.
    pub metadata: PodMetadata,
    /// Labels as asked for.
    pub labels: BTreeMap<String, String>,
    /// Annotations as asked for.
    pub annotations: BTreeMap<String, String>,
    /// All of the pod together; `None` when it is not ready.
    pub usage: Option<Usage>,
    /// When the interfaces were read, in nanoseconds since 1970.
    pub network_at: i64,
    /// Its interfaces but the loopback one, the default one first; `None` with the host's network.
    pub network: Option<Vec<InterfaceUsage>>,
    /// Its containers that run.
    pub containers: Vec<ContainerStats>,
}

/// Whose statistics to list; every set field must match.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StatsFilter {
    /// The id of a container or pod, or the unique beginning of one.
    pub id: Option<String>,
    /// With containers: the pod's id or the unique beginning of one.
    pub pod_id: Option<String>,
    /// Labels that all must be present with these values.
    pub labels: BTreeMap<String, String>,
}

/// What monitoring wants beyond [`Usage`], of a pod or a container.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Detail {
    /// The path of its cgroup.
    pub path: String,
    /// Of its cgroup.
    pub cgroup: sys::cgroup::UsageDetail,
    /// How often the kernel killed for want of memory.
    pub oom_kills: Option<u64>,
    /// Processes.
    pub processes: Option<u64>,
    /// Open files of all processes, and sockets among them.
    pub files: Option<(u64, u64)>,
}

/// A container's numbers for monitoring.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ContainerMetrics {
    /// What is asked often.
    pub stats: ContainerStats,
    /// The rest.
    pub detail: Detail,
    /// Limits in force.
    pub resources: Option<super::Resources>,
    /// The limit of open files of its first process, soft.
    pub files_limit: Option<u64>,
    /// The file system that its writable layer is on: bytes, inodes, free inodes.
    pub disk: Option<(u64, u64, u64)>,
}

/// A pod's numbers for monitoring.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PodMetrics {
    /// What is asked often.
    pub stats: PodStats,
    /// The rest.
    pub detail: Detail,
    /// Its containers that run.
    pub containers: Vec<ContainerMetrics>,
}
