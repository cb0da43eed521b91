//! What pods and containers use: read when somebody asks, at most once a second for each of them, so that a node that
//! nobody watches spends nothing and one that several watch no more than for one.
//!
//! A rate of CPU time needs two readings. The second is today's, the first the one before, or the start of the
//! container, when it had used none: there is a rate from the first answer on. Everything here blocks.

mod layer;
mod metrics;
mod network;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::ids;
use crate::model::{ContainerStats, InterfaceUsage, NamespaceMode, PodStats, Usage};
use crate::node::Node;
use crate::pod::{Entry, Pod, View};
use crate::record::{ContainerRecord, Phase, PodRecord};

pub(crate) use layer::Layers;
pub(crate) use metrics::pod as pod_metrics;

/// How long a reading answers for the present.
const FRESH: Duration = Duration::from_secs(1);

/// The last readings of a pod and its containers.
#[derive(Debug, Default)]
pub(crate) struct Samples {
    last: Mutex<Last>,
    pub(crate) layers: Layers,
}

#[derive(Debug, Default)]
struct Last {
    pod: Option<Sample>,
    containers: BTreeMap<String, Sample>,
    network: Option<Interfaces>,
}

#[derive(Debug, Clone)]
struct Interfaces {
    read: Instant,
    at: i64,
    all: Vec<InterfaceUsage>,
}

#[derive(Debug, Clone, Copy)]
struct Sample {
    read: Instant,
    usage: Usage,
}

/// A pod with the containers of it that run.
pub(crate) fn pod(node: &Arc<Node>, pod: &Arc<Pod>, view: &View, record: &PodRecord) -> PodStats {
    let ready = view.not_ready.is_none();
    let usage = ready.then(|| {
        let mut last = pod.samples.lock();
        let usage = reading(last.pod.as_ref(), record.created_at, || {
            node_usage(node, pod_cgroup(record))
        });
        last.pod = Some(usage);
        usage.usage
    });
    let network = interfaces(node, pod, record).filter(|_| ready);
    PodStats {
        id: pod.id.clone(),
        metadata: record.config.metadata.clone(),
        labels: record.config.labels.clone(),
        annotations: record.config.annotations.clone(),
        usage,
        network_at: network.as_ref().map_or(0, |network| network.at),
        network: network.map(|network| network.all),
        containers: running(view)
            .map(|record| container(node, pod, record))
            .collect(),
    }
}

/// A container, running or not.
pub(crate) fn container(
    node: &Arc<Node>,
    pod: &Arc<Pod>,
    record: &ContainerRecord,
) -> ContainerStats {
    let started_at = match record.phase {
        Phase::Running { started_at } => started_at,
        _ => 0,
    };
    let alive = matches!(record.phase, Phase::Created | Phase::Running { .. });
    ContainerStats {
        id: record.id.clone(),
        pod_id: record.pod_id.clone(),
        metadata: record.config.metadata.clone(),
        image: record.config.image.image.clone(),
        labels: record.config.labels.clone(),
        annotations: record.config.annotations.clone(),
        started_at,
        usage: alive.then(|| pod.samples.of_container(node, record, started_at)),
        layer: layer::usage(node, pod, &record.id),
    }
}

/// The containers of a pod that run.
pub(crate) fn running(view: &View) -> impl Iterator<Item = &Arc<ContainerRecord>> {
    view.containers.values().filter_map(|entry| match entry {
        Entry::Known(record) if matches!(record.phase, Phase::Running { .. }) => Some(record),
        _ => None,
    })
}

/// The cgroup that holds all of a pod: the caller's, where it made one.
fn pod_cgroup(record: &PodRecord) -> &str {
    &record.cgroup_parent
}

impl Samples {
    fn lock(&self) -> std::sync::MutexGuard<'_, Last> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn of_container(&self, node: &Node, record: &ContainerRecord, started_at: i64) -> Usage {
        let mut last = self.lock();
        let since = started_at.max(record.created_at);
        let sample = reading(last.containers.get(&record.id), since, || {
            node_usage(node, &record.cgroup)
        });
        last.containers.insert(record.id.clone(), sample);
        sample.usage
    }

    /// Forgets a container that was removed.
    pub(crate) fn forget(&self, id: &str) {
        self.lock().containers.remove(id);
        self.layers.forget(id);
    }
}

fn node_usage(node: &Node, cgroup: &str) -> sys::cgroup::Usage {
    node.cgroup(cgroup)
        .map(|cgroup| cgroup.usage())
        .unwrap_or_default()
}

/// The reading before, or a new one.
fn reading(
    before: Option<&Sample>,
    since: i64,
    read: impl FnOnce() -> sys::cgroup::Usage,
) -> Sample {
    match before {
        Some(before) if before.read.elapsed() < FRESH => *before,
        before => {
            let (now, at) = (Instant::now(), ids::now());
            let raw = read();
            let elapsed = match before {
                Some(before) => now.saturating_duration_since(before.read),
                // The clock may have been set; then there is no rate yet.
                None => Duration::from_nanos(u64::try_from(at - since).unwrap_or(0)),
            };
            let used_before = before.and_then(|before| before.usage.cpu_ns).unwrap_or(0);
            Sample {
                read: now,
                usage: usage(&raw, at, used_before, elapsed),
            }
        }
    }
}

fn usage(raw: &sys::cgroup::Usage, at: i64, used_before: u64, elapsed: Duration) -> Usage {
    let left = |limit: Option<u64>, used: Option<u64>| {
        limit
            .zip(used)
            .map(|(limit, used)| limit.saturating_sub(used))
    };
    Usage {
        at,
        cpu_ns: raw.cpu_ns,
        cpu_rate: raw.cpu_ns.and_then(|now| rate(used_before, now, elapsed)),
        memory: raw.memory,
        working_set: raw.working_set,
        memory_available: left(raw.memory_limit, raw.working_set),
        rss: raw.rss,
        page_faults: raw.page_faults,
        major_page_faults: raw.major_page_faults,
        swap: raw.swap,
        swap_available: left(raw.swap_limit, raw.swap),
        tasks: raw.tasks,
        cpu_pressure: raw.cpu_pressure,
        memory_pressure: raw.memory_pressure,
        io_pressure: raw.io_pressure,
    }
}

/// Nanoseconds per second; `None` where no time has passed, or the counter began anew.
fn rate(before: u64, now: u64, elapsed: Duration) -> Option<u64> {
    let used = u128::from(now.checked_sub(before)?);
    let per_second = used
        .checked_mul(1_000_000_000)?
        .checked_div(elapsed.as_nanos())?;
    u64::try_from(per_second).ok()
}

/// The interfaces in the pod's own network namespace; `None` where it has none.
fn interfaces(node: &Node, pod: &Pod, record: &PodRecord) -> Option<Interfaces> {
    if record.config.security.namespaces.network == NamespaceMode::Node {
        return None;
    }
    let mut last = pod.samples.lock();
    if let Some(known) = last
        .network
        .as_ref()
        .filter(|one| one.read.elapsed() < FRESH)
    {
        return Some(known.clone());
    }
    let read = Interfaces {
        read: Instant::now(),
        at: ids::now(),
        all: network::read(&node.pod_dir(&pod.id).join("ns/net"))?,
    };
    last.network = Some(read.clone());
    Some(read)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(cpu_ns: u64) -> sys::cgroup::Usage {
        sys::cgroup::Usage {
            cpu_ns: Some(cpu_ns),
            memory_limit: Some(100),
            working_set: Some(120),
            ..Default::default()
        }
    }

    #[test]
    fn the_first_rate_is_the_average_since_the_start_and_later_ones_since_the_reading_before() {
        let half = usage(&raw(1_000_000_000), 1, 0, Duration::from_secs(2));
        assert_eq!(half.cpu_rate, Some(500_000_000));
        let idle = usage(&raw(1_000_000_000), 1, 1_000_000_000, FRESH);
        assert_eq!(idle.cpu_rate, Some(0));
    }

    #[test]
    fn a_counter_that_began_anew_and_a_clock_that_was_set_back_give_no_rate() {
        assert_eq!(rate(10, 5, FRESH), None);
        assert_eq!(rate(5, 10, Duration::ZERO), None);
    }

    #[test]
    fn a_limit_that_is_exceeded_leaves_nothing() {
        assert_eq!(usage(&raw(0), 1, 0, FRESH).memory_available, Some(0));
    }

    #[test]
    fn a_reading_of_the_last_second_is_not_repeated() {
        let first = reading(None, ids::now(), || raw(7));
        let again = reading(Some(&first), 0, || panic!("it was read again"));
        assert_eq!(again.usage, first.usage);
    }
}
