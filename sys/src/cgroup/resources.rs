//! The limits of a cgroup, in the units of the OCI runtime specification
//! (<https://github.com/opencontainers/runtime-spec/blob/main/config-linux.md#control-groups>).

use super::devices::DeviceRule;

/// The limits to set; what is `None` stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resources {
    /// Memory limits.
    pub memory: Memory,
    /// CPU limits.
    pub cpu: Cpu,
    /// The most processes and threads; negative is no limit, and 0 means that nothing can be forked (runtime-spec 1.3,
    /// runc 1.4; podman before 5.4 writes 0 where its user said no limit).
    pub pids_limit: Option<i64>,
    /// The device rules in order, without the defaults of [`super::default_device_rules`]; `None` leaves the rules alone.
    pub devices: Option<Vec<DeviceRule>>,
    /// Limits on block devices.
    pub block_io: BlockIo,
    /// Limits on huge pages, each size by itself.
    pub hugepages: Vec<HugepageLimit>,
    /// What happens to the packets of the processes.
    pub network: Network,
    /// Limits on RDMA devices, each by itself.
    pub rdma: Vec<RdmaLimit>,
    /// Files of cgroup v2 by name, written as they are, one write per line.
    pub unified: Vec<(String, String)>,
}

/// Limits on block devices. Weights are 10 to 1000; 0 counts as unset.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BlockIo {
    /// The weight against other cgroups.
    pub weight: Option<u16>,
    /// The weight of the cgroup's own processes against its children; v1 only.
    pub leaf_weight: Option<u16>,
    /// Weights for single devices.
    pub weight_devices: Vec<WeightDevice>,
    /// Rates for single devices.
    pub throttles: Vec<Throttle>,
}

/// The weights for one block device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WeightDevice {
    /// The major number.
    pub major: u32,
    /// The minor number.
    pub minor: u32,
    /// As [`BlockIo::weight`].
    pub weight: Option<u16>,
    /// As [`BlockIo::leaf_weight`].
    pub leaf_weight: Option<u16>,
}

/// One rate for one block device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Throttle {
    /// What is counted.
    pub kind: ThrottleKind,
    /// The major number.
    pub major: u32,
    /// The minor number.
    pub minor: u32,
    /// The most per second; 0 takes the limit away.
    pub rate: u64,
}

/// What a [`Throttle`] counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ThrottleKind {
    /// Bytes read.
    ReadBps,
    /// Bytes written.
    WriteBps,
    /// Read operations.
    ReadIops,
    /// Write operations.
    WriteIops,
}

/// A limit on huge pages of one size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HugepageLimit {
    /// The size as the kernel's files spell it, for example `2MB`.
    pub size: String,
    /// Bytes.
    pub limit: u64,
}

/// What happens to packets; v1 only.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Network {
    /// The traffic class; 0 counts as unset.
    pub class_id: Option<u32>,
    /// The priority by interface.
    pub priorities: Vec<(String, u32)>,
}

/// A limit on one RDMA device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RdmaLimit {
    /// The device.
    pub device: String,
    /// The most handles.
    pub handles: Option<u32>,
    /// The most objects.
    pub objects: Option<u32>,
}

/// Memory limits in bytes; negative is no limit, and 0 counts as unset, as in runc.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Memory {
    /// The hard limit.
    pub limit: Option<i64>,
    /// The limit of memory plus swap.
    pub swap: Option<i64>,
    /// The soft limit.
    pub reservation: Option<i64>,
    /// How eagerly to swap, 0 to 100; v1 only.
    pub swappiness: Option<u64>,
    /// Whether a process over the limit waits instead of being killed; v1 only.
    pub disable_oom_killer: Option<bool>,
    /// Whether children count towards the limits; only v1 on kernels before 5.11 can do otherwise.
    pub use_hierarchy: Option<bool>,
    /// The limit of the kernel's buffers of TCP; v1 only, and not of every kernel.
    pub kernel_tcp: Option<i64>,
    /// Refuse a limit below the present usage on v2, too, where the kernel would kill.
    pub check_before_update: bool,
}

impl Memory {
    /// Whether it asks for no limit of any kind.
    pub(super) fn lifts_only(&self) -> bool {
        let limits = [self.limit, self.swap, self.reservation];
        limits.iter().flatten().all(|limit| *limit <= 0)
            && self.swappiness.is_none()
            && self.disable_oom_killer != Some(true)
    }
}

/// CPU limits; times in microseconds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cpu {
    /// The relative share, 2 to 262144; 0 counts as unset.
    pub shares: Option<u64>,
    /// CPU time per period; negative is no limit, and 0 counts as unset.
    pub quota: Option<i64>,
    /// The period of the quota; 0 counts as unset.
    pub period: Option<u64>,
    /// CPU time that may be saved up and used beyond the quota.
    pub burst: Option<u64>,
    /// 1: only run when nothing else does.
    pub idle: Option<i64>,
    /// Real-time CPU time per real-time period; v1 only.
    pub realtime_runtime: Option<i64>,
    /// The period of the real-time CPU time; v1 only.
    pub realtime_period: Option<u64>,
    /// The CPUs to run on, for example `0-1,4`.
    pub cpus: Option<String>,
    /// The memory nodes to use.
    pub mems: Option<String>,
}
