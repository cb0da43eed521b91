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
    /// Files of cgroup v2 by name, written as they are, one write per line.
    pub unified: Vec<(String, String)>,
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
