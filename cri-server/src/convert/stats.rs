//! Statistics. What is not known is left out, so that nobody takes it for 0.

use engine::model::{
    ContainerStats, InterfaceUsage, LayerUsage, PodStats, Pressure, PressureLine, StatsFilter,
    Usage,
};
use proto::runtime::v1;

use super::{container, not_empty, pod};

pub(crate) fn container_filter(from: Option<v1::ContainerStatsFilter>) -> StatsFilter {
    let from = from.unwrap_or_default();
    StatsFilter {
        id: not_empty(from.id),
        pod_id: not_empty(from.pod_sandbox_id),
        labels: from.label_selector,
    }
}

pub(crate) fn pod_filter(from: Option<v1::PodSandboxStatsFilter>) -> StatsFilter {
    let from = from.unwrap_or_default();
    StatsFilter {
        id: not_empty(from.id),
        pod_id: None,
        labels: from.label_selector,
    }
}

pub(crate) fn container(from: ContainerStats) -> v1::ContainerStats {
    v1::ContainerStats {
        attributes: Some(v1::ContainerAttributes {
            id: from.id,
            metadata: Some(container::metadata_into(from.metadata)),
            labels: from.labels,
            annotations: from.annotations,
        }),
        cpu: from.usage.as_ref().map(cpu),
        memory: from.usage.as_ref().map(memory),
        writable_layer: from.layer.map(layer),
        swap: from.usage.as_ref().and_then(swap),
        io: from.usage.as_ref().and_then(io),
    }
}

pub(crate) fn pod(from: PodStats) -> v1::PodSandboxStats {
    let network = from.network.map(|all| network(from.network_at, all));
    let usage = from.usage.as_ref();
    v1::PodSandboxStats {
        attributes: Some(v1::PodSandboxAttributes {
            id: from.id,
            metadata: Some(pod::metadata_into(from.metadata)),
            labels: from.labels,
            annotations: from.annotations,
        }),
        linux: Some(v1::LinuxPodSandboxStats {
            cpu: usage.map(cpu),
            memory: usage.map(memory),
            network,
            process: usage.and_then(processes),
            containers: from.containers.into_iter().map(container).collect(),
            io: usage.and_then(io),
        }),
        windows: None,
    }
}

fn value(from: Option<u64>) -> Option<v1::UInt64Value> {
    from.map(|value| v1::UInt64Value { value })
}

fn cpu(from: &Usage) -> v1::CpuUsage {
    v1::CpuUsage {
        timestamp: from.at,
        usage_core_nano_seconds: value(from.cpu_ns),
        usage_nano_cores: value(from.cpu_rate),
        psi: from.cpu_pressure.map(pressure),
    }
}

fn memory(from: &Usage) -> v1::MemoryUsage {
    v1::MemoryUsage {
        timestamp: from.at,
        working_set_bytes: value(from.working_set),
        available_bytes: value(from.memory_available),
        usage_bytes: value(from.memory),
        rss_bytes: value(from.rss),
        page_faults: value(from.page_faults),
        major_page_faults: value(from.major_page_faults),
        psi: from.memory_pressure.map(pressure),
    }
}

fn swap(from: &Usage) -> Option<v1::SwapUsage> {
    from.swap.map(|used| v1::SwapUsage {
        timestamp: from.at,
        swap_available_bytes: value(from.swap_available),
        swap_usage_bytes: value(Some(used)),
    })
}

fn io(from: &Usage) -> Option<v1::IoUsage> {
    from.io_pressure.map(|waiting| v1::IoUsage {
        timestamp: from.at,
        psi: Some(pressure(waiting)),
    })
}

fn processes(from: &Usage) -> Option<v1::ProcessUsage> {
    from.tasks.map(|count| v1::ProcessUsage {
        timestamp: from.at,
        process_count: value(Some(count)),
    })
}

fn layer(from: LayerUsage) -> v1::FilesystemUsage {
    v1::FilesystemUsage {
        timestamp: from.at,
        fs_id: Some(v1::FilesystemIdentifier {
            mountpoint: from.path,
        }),
        used_bytes: value(Some(from.bytes)),
        inodes_used: value(Some(from.inodes)),
    }
}

fn network(timestamp: i64, all: Vec<InterfaceUsage>) -> v1::NetworkUsage {
    let mut interfaces = all.into_iter().map(|one| v1::NetworkInterfaceUsage {
        name: one.name,
        rx_bytes: value(Some(one.received.bytes)),
        rx_errors: value(Some(one.received.errors)),
        tx_bytes: value(Some(one.sent.bytes)),
        tx_errors: value(Some(one.sent.errors)),
    });
    v1::NetworkUsage {
        timestamp,
        default_interface: interfaces.next(),
        interfaces: interfaces.collect(),
    }
}

/// CRI counts in nanoseconds.
fn pressure(from: Pressure) -> v1::PsiStats {
    let line = |line: PressureLine| v1::PsiData {
        total: line.total_us.saturating_mul(1000),
        avg10: line.avg10,
        avg60: line.avg60,
        avg300: line.avg300,
    };
    v1::PsiStats {
        full: Some(line(from.full)),
        some: Some(line(from.some)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_is_left_out() {
        let stats = container(ContainerStats {
            usage: Some(Usage {
                at: 7,
                cpu_ns: Some(0),
                ..Usage::default()
            }),
            ..ContainerStats::default()
        });
        let cpu = stats.cpu.expect("CPU");
        assert_eq!(
            (cpu.timestamp, cpu.usage_core_nano_seconds),
            (7, value(Some(0)))
        );
        assert_eq!((cpu.usage_nano_cores, cpu.psi), (None, None));
        assert_eq!(
            (stats.swap, stats.io, stats.writable_layer),
            (None, None, None)
        );
        assert_eq!(stats.memory.expect("memory").available_bytes, None);
    }

    #[test]
    fn the_default_interface_is_not_listed_twice() {
        let named = |name: &str| InterfaceUsage {
            name: name.into(),
            ..InterfaceUsage::default()
        };
        let usage = network(1, vec![named("eth0"), named("net1")]);
        assert_eq!(usage.default_interface.expect("one").name, "eth0");
        assert_eq!(usage.interfaces.len(), 1);
        assert_eq!(network(1, Vec::new()).default_interface, None);
    }
}
