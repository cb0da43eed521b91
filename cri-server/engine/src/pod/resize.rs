//! UpdatePodSandboxResources: the record, and the pod's cgroup where it is the engine's own. A cgroup that the caller
//! made for the pod is the caller's to limit. Blocks.

use std::sync::Arc;

use sys::cgroup::{Cpu, Memory, Resources as Limits};

use crate::error::{Error, Result};
use crate::model::Resources;
use crate::node::Node;
use crate::record::{self, PodRecord};

/// Applies what is given and answers with the record of what is in force.
pub(crate) fn resize(
    node: &Node,
    pod: &PodRecord,
    overhead: Option<Resources>,
    resources: Option<Resources>,
) -> Result<Arc<PodRecord>> {
    let mut changed = pod.clone();
    changed.config.overhead = overhead.or(changed.config.overhead);
    changed.config.resources = resources.or(changed.config.resources);
    if pod.pod_cgroup == pod.cgroup_parent {
        apply(node, pod, &changed)?;
    }
    record::write(&PodRecord::path(&node.pod_dir(&pod.id)), &changed)?;
    Ok(Arc::new(changed))
}

/// All of the new limits, or the old ones.
fn apply(node: &Node, old: &PodRecord, new: &PodRecord) -> Result<()> {
    let cgroup = node.cgroup(&old.pod_cgroup)?;
    let wanted = limits(&total(new))?;
    let failed = |source| Error::Cgroup {
        action: format!("limit the pod's cgroup {}", old.pod_cgroup),
        source,
    };
    let Err(error) = cgroup.apply_limits(&wanted) else {
        return Ok(());
    };
    // Which limits were there before the first one was set is the kernel's default.
    let before = limits(&total(old))
        .map(|old| unlimited(&wanted, old))
        .unwrap_or_default();
    match cgroup.apply_limits(&before) {
        Ok(()) => Err(failed(error)),
        Err(again) => Err(Error::Cleanup {
            cause: Box::new(failed(error)),
            cleanup: format!("restore the old limits: {again}"),
        }),
    }
}

/// What the pod may use: its containers' sum, and the overhead on top where there is a limit at all.
fn total(pod: &PodRecord) -> Resources {
    let mut total = pod.config.resources.clone().unwrap_or_default();
    let overhead = pod.config.overhead.clone().unwrap_or_default();
    let add = |limit: &mut i64, more: i64| {
        if *limit > 0 && more > 0 {
            *limit = limit.saturating_add(more);
        }
    };
    add(
        &mut total.memory_limit_in_bytes,
        overhead.memory_limit_in_bytes,
    );
    add(
        &mut total.memory_swap_limit_in_bytes,
        overhead.memory_limit_in_bytes,
    );
    if overhead.cpu_period == total.cpu_period || overhead.cpu_period == 0 {
        add(&mut total.cpu_quota, overhead.cpu_quota);
    }
    add(&mut total.cpu_shares, overhead.cpu_shares);
    total
}

fn limits(from: &Resources) -> Result<Limits> {
    let positive = |field: &str, value: i64| match u64::try_from(value) {
        Ok(value) => Ok(Some(value).filter(|value| *value > 0)),
        Err(_) => Err(Error::invalid(
            format!("resources.{field}"),
            format!("{value} is negative"),
        )),
    };
    let set = |value: i64| Some(value).filter(|value| *value != 0);
    let text = |value: &str| Some(value.to_owned()).filter(|value| !value.is_empty());
    Ok(Limits {
        memory: Memory {
            limit: set(from.memory_limit_in_bytes),
            swap: set(from.memory_swap_limit_in_bytes),
            ..Memory::default()
        },
        cpu: Cpu {
            shares: positive("cpu_shares", from.cpu_shares)?,
            quota: set(from.cpu_quota),
            period: positive("cpu_period", from.cpu_period)?,
            cpus: text(&from.cpuset_cpus),
            mems: text(&from.cpuset_mems),
            ..Cpu::default()
        },
        ..Limits::default()
    })
}

/// The old limits, and none for what only the new ones set.
fn unlimited(new: &Limits, old: Limits) -> Limits {
    let none = |new: Option<i64>, old: Option<i64>| old.or(new.map(|_| -1));
    Limits {
        memory: Memory {
            limit: none(new.memory.limit, old.memory.limit),
            swap: none(new.memory.swap, old.memory.swap),
            ..old.memory
        },
        cpu: Cpu {
            quota: none(new.cpu.quota, old.cpu.quota),
            ..old.cpu
        },
        ..old
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_that_only_the_refused_change_set_are_taken_away() {
        let new = limits(&Resources {
            memory_limit_in_bytes: 4096,
            cpu_quota: 5000,
            ..Resources::default()
        });
        let old = limits(&Resources {
            cpu_quota: 7000,
            ..Resources::default()
        });
        let before = unlimited(&new.expect("good"), old.expect("good"));
        assert_eq!(before.memory.limit, Some(-1));
        assert_eq!(before.cpu.quota, Some(7000));
    }

    #[test]
    fn a_negative_weight_is_refused_by_field() {
        let bad = Resources {
            cpu_shares: -1,
            ..Resources::default()
        };
        let error = limits(&bad).expect_err("refused").report();
        assert!(error.contains("resources.cpu_shares"), "{error}");
    }
}
