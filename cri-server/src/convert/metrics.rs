//! The numbers for monitoring under cAdvisor's names: one row per metric, from which come both the descriptor and the
//! values, so that labels and their values cannot drift apart. What is not known is left out.

use engine::model::{ContainerMetrics, Detail, DeviceIo, InterfaceUsage, PodMetrics, Usage};
use proto::runtime::v1;
use proto::runtime::v1::MetricType::{self, Counter, Gauge};

/// The labels that each metric begins with.
const LABELS: [&str; 6] = ["id", "name", "image", "namespace", "pod", "container"];

/// The name of the pod itself among its containers.
const POD: &str = "POD";

/// What a row takes its values from.
struct Source<'a> {
    usage: Option<&'a Usage>,
    detail: &'a Detail,
    /// `None`: the pod itself.
    container: Option<&'a ContainerMetrics>,
    interfaces: &'a [InterfaceUsage],
    started_at: i64,
}

/// Values with those of their further labels.
type Values = Vec<(Vec<String>, u64)>;

struct Row {
    name: &'static str,
    help: &'static str,
    labels: &'static [&'static str],
    kind: MetricType,
    values: fn(&Source<'_>) -> Values,
}

/// Every descriptor; always the same.
pub(crate) fn descriptors() -> Vec<v1::MetricDescriptor> {
    TABLE
        .iter()
        .map(|row| v1::MetricDescriptor {
            name: row.name.into(),
            help: row.help.into(),
            label_keys: LABELS
                .iter()
                .chain(row.labels)
                .map(|key| (*key).to_owned())
                .collect(),
        })
        .collect()
}

pub(crate) fn pod(from: PodMetrics) -> v1::PodSandboxMetrics {
    let meta = &from.stats.metadata;
    let labels = |path: &str, name: &str, image: &str, container: &str| {
        [path, name, image, &meta.namespace, &meta.name, container].map(str::to_owned)
    };
    let own = Source {
        usage: from.stats.usage.as_ref(),
        detail: &from.detail,
        container: None,
        interfaces: from.stats.network.as_deref().unwrap_or_default(),
        started_at: 0,
    };
    let own_labels = labels(&from.detail.path, &from.stats.id, "", POD);
    let containers = from.containers.iter().map(|one| {
        let source = Source {
            usage: one.stats.usage.as_ref(),
            detail: &one.detail,
            container: Some(one),
            interfaces: &[],
            started_at: one.stats.started_at,
        };
        let stats = &one.stats;
        let labels = labels(
            &one.detail.path,
            &stats.id,
            &stats.image,
            &stats.metadata.name,
        );
        v1::ContainerMetrics {
            container_id: stats.id.clone(),
            metrics: metrics(&source, &labels),
        }
    });
    v1::PodSandboxMetrics {
        container_metrics: containers.collect(),
        metrics: metrics(&own, &own_labels),
        pod_sandbox_id: from.stats.id.clone(),
    }
}

fn metrics(source: &Source<'_>, labels: &[String]) -> Vec<v1::Metric> {
    let timestamp = source.usage.map_or(0, |usage| usage.at);
    let mut all = Vec::with_capacity(TABLE.len());
    for row in TABLE {
        all.extend(
            (row.values)(source)
                .into_iter()
                .map(|(further, value)| v1::Metric {
                    name: row.name.into(),
                    timestamp,
                    metric_type: row.kind.into(),
                    label_values: labels.iter().cloned().chain(further).collect(),
                    value: Some(v1::UInt64Value { value }),
                }),
        );
    }
    all
}

/// CRI's values are whole numbers.
fn seconds(nanoseconds: Option<u64>) -> Option<u64> {
    nanoseconds.map(|ns| ns / 1_000_000_000)
}

fn one(value: Option<u64>) -> Values {
    value.map(|value| (Vec::new(), value)).into_iter().collect()
}

fn positive(value: Option<i64>) -> Values {
    one(value
        .and_then(|value| u64::try_from(value).ok())
        .filter(|value| *value > 0))
}

fn limit(source: &Source<'_>, of: fn(&engine::model::Resources) -> i64) -> Values {
    positive(
        source
            .container
            .and_then(|one| one.resources.as_ref())
            .map(of),
    )
}

fn waiting(source: &Source<'_>, of: fn(&Usage) -> Option<engine::model::Pressure>) -> Values {
    one(source
        .usage
        .and_then(of)
        .map(|all| all.some.total_us / 1_000_000))
}

fn stalled(source: &Source<'_>, of: fn(&Usage) -> Option<engine::model::Pressure>) -> Values {
    one(source
        .usage
        .and_then(of)
        .map(|all| all.full.total_us / 1_000_000))
}

fn each_interface(source: &Source<'_>, of: fn(&InterfaceUsage) -> u64) -> Values {
    source
        .interfaces
        .iter()
        .map(|one| (vec![one.name.clone()], of(one)))
        .collect()
}

fn each_device(source: &Source<'_>, of: fn(&DeviceIo) -> u64) -> Values {
    source
        .detail
        .cgroup
        .io
        .iter()
        .map(|one| (vec![device(one)], of(one)))
        .collect()
}

fn device(one: &DeviceIo) -> String {
    format!("{}:{}", one.major, one.minor)
}

fn each_operation(source: &Source<'_>) -> Values {
    let values = |one: &DeviceIo| {
        [("Read", one.read_bytes), ("Write", one.write_bytes)].map(|(operation, value)| {
            let (major, minor) = (one.major.to_string(), one.minor.to_string());
            (vec![device(one), major, minor, operation.to_owned()], value)
        })
    };
    source.detail.cgroup.io.iter().flat_map(values).collect()
}

/// cAdvisor counts a cgroup's own faults and those below it; here both are the same.
fn faults(source: &Source<'_>) -> Values {
    let mut all = Values::new();
    for (kind, value) in [
        ("pgfault", source.usage.and_then(|usage| usage.page_faults)),
        (
            "pgmajfault",
            source.usage.and_then(|usage| usage.major_page_faults),
        ),
    ] {
        for scope in ["container", "hierarchy"] {
            all.extend(value.map(|value| (vec![kind.to_owned(), scope.to_owned()], value)));
        }
    }
    all
}

fn huge_pages(source: &Source<'_>, of: fn(u64, Option<u64>) -> Option<u64>) -> Values {
    let all = source.detail.cgroup.hugepages.iter();
    all.filter_map(|(size, used, most)| of(*used, *most).map(|value| (vec![size.clone()], value)))
        .collect()
}

macro_rules! table {
    ($( $kind:ident $name:literal $labels:expr, $help:literal, $values:expr; )*) => {
        &[ $( Row { name: $name, help: $help, labels: &$labels, kind: $kind, values: $values } ),* ]
    };
}

const NONE: [&str; 0] = [];

static TABLE: &[Row] = table! {
    Counter "container_cpu_usage_seconds_total" ["cpu"], "CPU time in seconds.",
        |s| seconds(s.usage.and_then(|u| u.cpu_ns)).map(|value| (vec!["total".to_owned()], value)).into_iter().collect();
    Counter "container_cpu_user_seconds_total" NONE, "CPU time in user space in seconds.",
        |s| one(seconds(s.detail.cgroup.cpu_user_ns));
    Counter "container_cpu_system_seconds_total" NONE, "CPU time in the kernel in seconds.",
        |s| one(seconds(s.detail.cgroup.cpu_system_ns));
    Counter "container_cpu_cfs_periods_total" NONE, "Periods of the CPU quota.",
        |s| one(s.detail.cgroup.cpu_periods);
    Counter "container_cpu_cfs_throttled_periods_total" NONE, "Periods in which the CPU quota was used up.",
        |s| one(s.detail.cgroup.cpu_throttled_periods);
    Counter "container_cpu_cfs_throttled_seconds_total" NONE, "Time spent waiting for the next period in seconds.",
        |s| one(seconds(s.detail.cgroup.cpu_throttled_ns));
    Gauge "container_memory_usage_bytes" NONE, "Memory in use, page cache included.",
        |s| one(s.usage.and_then(|u| u.memory));
    Gauge "container_memory_working_set_bytes" NONE, "Memory in use without page cache that could be dropped.",
        |s| one(s.usage.and_then(|u| u.working_set));
    Gauge "container_memory_rss" NONE, "Anonymous memory in bytes.", |s| one(s.usage.and_then(|u| u.rss));
    Gauge "container_memory_cache" NONE, "Page cache in bytes.", |s| one(s.detail.cgroup.cache);
    Gauge "container_memory_swap" NONE, "Swap in use in bytes.", |s| one(s.usage.and_then(|u| u.swap));
    Counter "container_memory_failcnt" NONE, "How often the memory limit was met.",
        |s| one(s.detail.cgroup.memory_fails);
    Counter "container_memory_failures_total" ["failure_type", "scope"], "Page faults.", faults;
    Gauge "container_memory_kernel_usage" NONE, "Memory of the kernel in bytes.",
        |s| one(s.detail.cgroup.kernel_memory);
    Gauge "container_memory_mapped_file" NONE, "Files mapped into memory in bytes.",
        |s| one(s.detail.cgroup.mapped_file);
    Gauge "container_memory_max_usage_bytes" NONE, "The most memory that was in use.",
        |s| one(s.detail.cgroup.max_memory);
    Gauge "container_memory_total_active_file_bytes" NONE, "Page cache in active use.",
        |s| one(s.detail.cgroup.active_file);
    Gauge "container_memory_total_inactive_file_bytes" NONE, "Page cache that could be dropped.",
        |s| one(s.detail.cgroup.inactive_file);
    Gauge "container_fs_usage_bytes" NONE, "What the writable layer takes.",
        |s| one(s.container.and_then(|c| c.stats.layer.as_ref()).map(|layer| layer.bytes));
    Gauge "container_fs_limit_bytes" NONE, "The size of the file system that the writable layer is on.",
        |s| one(s.container.and_then(|c| c.disk).map(|disk| disk.0));
    Gauge "container_fs_inodes_total" NONE, "Inodes of the file system that the writable layer is on.",
        |s| one(s.container.and_then(|c| c.disk).map(|disk| disk.1));
    Gauge "container_fs_inodes_free" NONE, "Free inodes of the file system that the writable layer is on.",
        |s| one(s.container.and_then(|c| c.disk).map(|disk| disk.2));
    Counter "container_fs_reads_total" ["device"], "Reads from a device.", |s| each_device(s, |one| one.reads);
    Counter "container_fs_writes_total" ["device"], "Writes to a device.", |s| each_device(s, |one| one.writes);
    Counter "container_fs_reads_bytes_total" ["device"], "Bytes read from a device.",
        |s| each_device(s, |one| one.read_bytes);
    Counter "container_fs_writes_bytes_total" ["device"], "Bytes written to a device.",
        |s| each_device(s, |one| one.write_bytes);
    Counter "container_blkio_device_usage_total" ["device", "major", "minor", "operation"],
        "Bytes to and from a device.", each_operation;
    Counter "container_network_receive_bytes_total" ["interface"], "Bytes received.",
        |s| each_interface(s, |one| one.received.bytes);
    Counter "container_network_receive_packets_total" ["interface"], "Packets received.",
        |s| each_interface(s, |one| one.received.packets);
    Counter "container_network_receive_errors_total" ["interface"], "Errors while receiving.",
        |s| each_interface(s, |one| one.received.errors);
    Counter "container_network_receive_packets_dropped_total" ["interface"], "Packets dropped while receiving.",
        |s| each_interface(s, |one| one.received.dropped);
    Counter "container_network_transmit_bytes_total" ["interface"], "Bytes sent.",
        |s| each_interface(s, |one| one.sent.bytes);
    Counter "container_network_transmit_packets_total" ["interface"], "Packets sent.",
        |s| each_interface(s, |one| one.sent.packets);
    Counter "container_network_transmit_errors_total" ["interface"], "Errors while sending.",
        |s| each_interface(s, |one| one.sent.errors);
    Counter "container_network_transmit_packets_dropped_total" ["interface"], "Packets dropped while sending.",
        |s| each_interface(s, |one| one.sent.dropped);
    Gauge "container_processes" NONE, "Processes.", |s| one(s.detail.processes);
    Gauge "container_threads" NONE, "Processes and threads.", |s| one(s.usage.and_then(|u| u.tasks));
    Gauge "container_threads_max" NONE, "The limit of processes and threads.", |s| one(s.detail.cgroup.tasks_limit);
    Gauge "container_sockets" NONE, "Open sockets.", |s| one(s.detail.files.map(|files| files.1));
    Gauge "container_file_descriptors" NONE, "Open files.", |s| one(s.detail.files.map(|files| files.0));
    Gauge "container_ulimits_soft" ["ulimit"], "Soft limits of the first process.",
        |s| s.container.and_then(|c| c.files_limit).map(|value| (vec!["max_open_files".to_owned()], value))
            .into_iter().collect();
    Gauge "container_last_seen" NONE, "When these numbers were read, in seconds since 1970.",
        |s| positive(s.usage.map(|u| u.at / 1_000_000_000));
    Gauge "container_start_time_seconds" NONE, "When it started, in seconds since 1970.",
        |s| positive(Some(s.started_at / 1_000_000_000));
    Counter "container_oom_events_total" NONE, "How often the kernel killed for want of memory.",
        |s| one(s.detail.oom_kills);
    Counter "container_pressure_cpu_waiting_seconds_total" NONE, "Time in which some waited for CPU.",
        |s| waiting(s, |u| u.cpu_pressure);
    Counter "container_pressure_cpu_stalled_seconds_total" NONE, "Time in which all waited for CPU.",
        |s| stalled(s, |u| u.cpu_pressure);
    Counter "container_pressure_memory_waiting_seconds_total" NONE, "Time in which some waited for memory.",
        |s| waiting(s, |u| u.memory_pressure);
    Counter "container_pressure_memory_stalled_seconds_total" NONE, "Time in which all waited for memory.",
        |s| stalled(s, |u| u.memory_pressure);
    Counter "container_pressure_io_waiting_seconds_total" NONE, "Time in which some waited for disks.",
        |s| waiting(s, |u| u.io_pressure);
    Counter "container_pressure_io_stalled_seconds_total" NONE, "Time in which all waited for disks.",
        |s| stalled(s, |u| u.io_pressure);
    Gauge "container_hugetlb_usage_bytes" ["pagesize"], "Huge pages in use.",
        |s| huge_pages(s, |used, _| Some(used));
    Gauge "container_hugetlb_max_usage_bytes" ["pagesize"], "The most huge pages that were in use.",
        |s| huge_pages(s, |_, most| most);
    Gauge "container_spec_cpu_period" NONE, "The period of the CPU quota in microseconds.",
        |s| limit(s, |r| r.cpu_period);
    Gauge "container_spec_cpu_quota" NONE, "The CPU quota in microseconds.", |s| limit(s, |r| r.cpu_quota);
    Gauge "container_spec_cpu_shares" NONE, "The CPU shares.", |s| limit(s, |r| r.cpu_shares);
    Gauge "container_spec_memory_limit_bytes" NONE, "The memory limit.", |s| limit(s, |r| r.memory_limit_in_bytes);
    Gauge "container_spec_memory_swap_limit_bytes" NONE, "The limit of memory and swap together.",
        |s| limit(s, |r| r.memory_swap_limit_in_bytes);
    Gauge "container_spec_memory_reservation_limit_bytes" NONE, "The memory reservation.", |_| Values::new();
};

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    fn full() -> PodMetrics {
        let mut detail = Detail::default();
        detail.cgroup.io.push(DeviceIo::default());
        detail.cgroup.hugepages.push(("2MB".into(), 1, Some(2)));
        let usage = Usage {
            page_faults: Some(1),
            cpu_ns: Some(2_500_000_000),
            ..Usage::default()
        };
        let mut pod = PodMetrics {
            detail: detail.clone(),
            ..PodMetrics::default()
        };
        pod.stats.network = Some(vec![InterfaceUsage::default()]);
        let mut container = ContainerMetrics {
            detail,
            files_limit: Some(1024),
            ..ContainerMetrics::default()
        };
        container.stats.usage = Some(usage);
        pod.containers.push(container);
        pod
    }

    /// critest 1.37: as many values as the descriptor has keys, in its order.
    #[test]
    fn every_metric_has_a_descriptor_with_as_many_labels() {
        let keys: BTreeMap<String, usize> = descriptors()
            .into_iter()
            .map(|one| (one.name, one.label_keys.len()))
            .collect();
        let pod = pod(full());
        let all: Vec<_> = pod
            .metrics
            .iter()
            .chain(&pod.container_metrics[0].metrics)
            .collect();
        assert!(all.len() > 20, "{all:?}");
        for metric in all {
            assert_eq!(
                keys.get(&metric.name),
                Some(&metric.label_values.len()),
                "{metric:?}"
            );
        }
    }

    #[test]
    fn names_are_unique_and_what_is_not_known_is_left_out() {
        let names: BTreeSet<&str> = TABLE.iter().map(|row| row.name).collect();
        assert_eq!(names.len(), TABLE.len());
        assert!(pod(PodMetrics::default()).metrics.is_empty());
        let metrics = &pod(full()).container_metrics[0].metrics;
        let cpu = metrics
            .iter()
            .find(|one| one.name == "container_cpu_usage_seconds_total");
        assert_eq!(
            cpu.and_then(|one| one.value),
            Some(v1::UInt64Value { value: 2 })
        );
        assert!(metrics.iter().all(|one| one.name != "container_memory_rss"));
    }
}
