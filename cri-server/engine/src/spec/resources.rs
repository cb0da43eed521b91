//! Limits: from the request's numbers to `linux.resources`.

use std::collections::HashMap;

use oci_spec::runtime::{
    LinuxCpu, LinuxDeviceCgroup, LinuxHugepageLimit, LinuxMemory, LinuxResources,
};

use super::{Host, Input};
use crate::error::{Error, Result};
use crate::model::Resources;

/// The limits of a new container.
pub(crate) fn resources(input: &Input<'_>) -> Result<LinuxResources> {
    let mut limits = match &input.container.resources {
        Some(asked) => limits(asked, "linux.resources", input.host)?,
        None => empty(),
    };
    let mut everything = LinuxDeviceCgroup::default();
    everything.set_allow(input.container.security.privileged);
    everything.set_access(Some("rwm".into()));
    let mut rules = vec![everything];
    rules.extend(input.devices.iter().map(|(_, rule)| rule.clone()));
    limits.set_devices(Some(rules));
    Ok(limits)
}

/// The limits alone, as `update --resources` takes them. What is not set stays as it is.
pub(crate) fn limits(asked: &Resources, field: &str, host: &Host) -> Result<LinuxResources> {
    let mut out = empty();
    out.set_cpu(cpu(asked, field)?);
    out.set_memory(memory(asked, field)?);
    out.set_hugepage_limits(hugepages(asked, field, host)?);
    if !asked.unified.is_empty() {
        let unified: HashMap<String, String> = asked
            .unified
            .iter()
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        out.set_unified(Some(unified));
    }
    Ok(out)
}

/// No limit at all.
fn empty() -> LinuxResources {
    let mut none = LinuxResources::default();
    none.set_devices(None);
    none
}

fn cpu(asked: &Resources, field: &str) -> Result<Option<LinuxCpu>> {
    let mut cpu = LinuxCpu::default();
    let empty = cpu.clone();
    cpu.set_period(positive(asked.cpu_period, field, "cpu_period")?);
    // A negative quota is how a limit is taken away.
    cpu.set_quota((asked.cpu_quota != 0).then_some(asked.cpu_quota));
    cpu.set_shares(positive(asked.cpu_shares, field, "cpu_shares")?);
    cpu.set_cpus((!asked.cpuset_cpus.is_empty()).then(|| asked.cpuset_cpus.clone()));
    cpu.set_mems((!asked.cpuset_mems.is_empty()).then(|| asked.cpuset_mems.clone()));
    Ok((cpu != empty).then_some(cpu))
}

fn memory(asked: &Resources, field: &str) -> Result<Option<LinuxMemory>> {
    let (limit, swap) = (
        asked.memory_limit_in_bytes,
        asked.memory_swap_limit_in_bytes,
    );
    if limit > 0 && swap > 0 && swap < limit {
        return Err(Error::invalid(
            format!("{field}.memory_swap_limit_in_bytes"),
            format!(
                "{swap} counts memory plus swap, so it cannot be below memory_limit_in_bytes, {limit}"
            ),
        ));
    }
    let mut memory = LinuxMemory::default();
    let empty = memory;
    memory.set_limit((limit != 0).then_some(limit));
    memory.set_swap((swap != 0).then_some(swap));
    Ok((memory != empty).then_some(memory))
}

/// A kubelet sends 0 for every size that the pod may not use. Where nobody can limit them that is left out, as
/// containerd does.
fn hugepages(
    asked: &Resources,
    field: &str,
    host: &Host,
) -> Result<Option<Vec<LinuxHugepageLimit>>> {
    let mut out = Vec::new();
    for one in &asked.hugepage_limits {
        if !host.hugetlb && one.limit != 0 {
            return Err(Error::unsupported(
                format!("{field}.hugepage_limits"),
                format!(
                    "{} bytes of {} pages: this host has no hugetlb controller",
                    one.limit, one.page_size
                ),
            ));
        }
        let mut limit = LinuxHugepageLimit::default();
        limit.set_page_size(one.page_size.clone());
        limit.set_limit(i64::try_from(one.limit).unwrap_or(i64::MAX));
        out.push(limit);
    }
    Ok((host.hugetlb && !out.is_empty()).then_some(out))
}

/// A number that is unset at 0 and must not be negative.
fn positive(value: i64, field: &str, name: &str) -> Result<Option<u64>> {
    match u64::try_from(value) {
        Ok(0) => Ok(None),
        Ok(value) => Ok(Some(value)),
        Err(_) => Err(Error::invalid(
            format!("{field}.{name}"),
            format!("{value} is negative"),
        )),
    }
}

/// What is in force after `change` was applied to `current`: fields that are not set stay.
pub(crate) fn merge(current: &Resources, change: &Resources) -> Resources {
    fn number(change: i64, current: i64) -> i64 {
        if change == 0 { current } else { change }
    }
    fn text(change: &str, current: &str) -> String {
        if change.is_empty() { current } else { change }.to_owned()
    }
    let mut unified = current.unified.clone();
    unified.extend(change.unified.clone());
    Resources {
        cpu_period: number(change.cpu_period, current.cpu_period),
        cpu_quota: number(change.cpu_quota, current.cpu_quota),
        cpu_shares: number(change.cpu_shares, current.cpu_shares),
        memory_limit_in_bytes: number(change.memory_limit_in_bytes, current.memory_limit_in_bytes),
        // An update cannot change this one: the process has it.
        oom_score_adj: current.oom_score_adj,
        cpuset_cpus: text(&change.cpuset_cpus, &current.cpuset_cpus),
        cpuset_mems: text(&change.cpuset_mems, &current.cpuset_mems),
        hugepage_limits: match change.hugepage_limits.is_empty() {
            true => current.hugepage_limits.clone(),
            false => change.hugepage_limits.clone(),
        },
        unified,
        memory_swap_limit_in_bytes: number(
            change.memory_swap_limit_in_bytes,
            current.memory_swap_limit_in_bytes,
        ),
    }
}
