//! Which property of `linux.resources` a file of a cgroup belongs to: errors name both.

/// The files that one property is written to, v1 and v2.
const FILES: [(&str, &str); 35] = [
    ("memory.limit_in_bytes", "memory.limit"),
    ("memory.max", "memory.limit"),
    ("memory.current", "memory.checkBeforeUpdate"),
    ("memory.memsw.limit_in_bytes", "memory.swap"),
    ("memory.swap.max", "memory.swap"),
    ("memory.soft_limit_in_bytes", "memory.reservation"),
    ("memory.low", "memory.reservation"),
    ("memory.swappiness", "memory.swappiness"),
    ("memory.oom_control", "memory.disableOOMKiller"),
    ("memory.use_hierarchy", "memory.useHierarchy"),
    ("cpu.shares", "cpu.shares"),
    ("cpu.weight", "cpu.shares"),
    ("cpu.cfs_quota_us", "cpu.quota"),
    ("cpu.max", "cpu.quota"),
    ("cpu.cfs_period_us", "cpu.period"),
    ("cpu.cfs_burst_us", "cpu.burst"),
    ("cpu.max.burst", "cpu.burst"),
    ("cpu.idle", "cpu.idle"),
    ("cpu.rt_period_us", "cpu.realtimePeriod"),
    ("cpu.rt_runtime_us", "cpu.realtimeRuntime"),
    ("cpuset.cpus", "cpu.cpus"),
    ("cpuset.mems", "cpu.mems"),
    ("pids.max", "pids.limit"),
    ("blkio.weight", "blockIO.weight"),
    ("io.weight", "blockIO.weight"),
    ("io.bfq.weight", "blockIO.weight"),
    ("blkio.leaf_weight", "blockIO.leafWeight"),
    (
        "blkio.throttle.read_bps_device",
        "blockIO.throttleReadBpsDevice",
    ),
    (
        "blkio.throttle.write_bps_device",
        "blockIO.throttleWriteBpsDevice",
    ),
    (
        "blkio.throttle.read_iops_device",
        "blockIO.throttleReadIOPSDevice",
    ),
    (
        "blkio.throttle.write_iops_device",
        "blockIO.throttleWriteIOPSDevice",
    ),
    ("io.max", "blockIO throttle"),
    ("net_cls.classid", "network.classID"),
    ("net_prio.ifpriomap", "network.priorities"),
    ("rdma.max", "rdma"),
];

/// The property of a file by its whole name, else by its controller.
pub(super) fn of_file(name: &str) -> Option<&'static str> {
    let exact = FILES.iter().find(|(file, _)| *file == name);
    let (controller, _) = name.split_once('.')?;
    exact
        .map(|(_, field)| *field)
        .or_else(|| of_controller(controller))
}

/// The property that a controller is there for.
pub(super) fn of_controller(name: &str) -> Option<&'static str> {
    Some(match name {
        "memory" => "memory",
        "cpu" => "cpu",
        "cpuset" => "cpu.cpus",
        "pids" => "pids",
        "blkio" | "io" => "blockIO",
        "hugetlb" => "hugepageLimits",
        "net_cls" | "net_prio" => "network",
        "rdma" => "rdma",
        "devices" => "devices",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_names_its_property_and_one_unknown_its_controller() {
        assert_eq!(of_file("memory.memsw.limit_in_bytes"), Some("memory.swap"));
        assert_eq!(of_file("hugetlb.2MB.max"), Some("hugepageLimits"));
        assert_eq!(of_file("blkio.bfq.weight_device"), Some("blockIO"));
        assert_eq!(of_file("cgroup.procs"), None);
        assert_eq!(of_file("tasks"), None);
    }
}
