//! Limits on v1 hierarchies (<https://docs.kernel.org/admin-guide/cgroup-v1/index.html>).
//!
//! The kernel checks each write against the values that are there, so the order of two dependent writes depends on
//! whether the values grow or shrink.

use std::path::Path;

use nix::errno::Errno;

use super::convert::set;
use super::resources::{Cpu, Memory};
use super::{Error, Hint, Result, file};

// === memory ===

/// Applies the memory limits to a directory of the memory hierarchy.
pub(super) fn apply_memory(dir: &Path, memory: &Memory) -> Result<()> {
    apply_memory_and_swap(dir, set(memory.limit), set(memory.swap))?;
    if let Some(reservation) = set(memory.reservation) {
        file::write(dir, "memory.soft_limit_in_bytes", &unlimited(reservation))?;
    }
    apply_kernel_tcp(dir, set(memory.kernel_tcp))?;
    if memory.use_hierarchy == Some(true) && file::read_number(dir, "memory.use_hierarchy")? == 0 {
        file::write(dir, "memory.use_hierarchy", "1")?;
    }
    if memory.disable_oom_killer == Some(true) {
        file::write(dir, "memory.oom_control", "1")?;
    }
    match memory.swappiness {
        Some(value @ 0..=100) => file::write(dir, "memory.swappiness", &value.to_string()),
        Some(value) => Err(Error::InvalidValue {
            setting: format!("memory.swappiness {value}"),
            why: "it is 0 to 100".into(),
        }),
        None => Ok(()),
    }
}

/// A kernel without this file counts no such buffers.
fn apply_kernel_tcp(dir: &Path, limit: Option<i64>) -> Result<()> {
    let Some(limit) = limit else {
        return Ok(());
    };
    match file::write(dir, "memory.kmem.tcp.limit_in_bytes", &unlimited(limit)) {
        Err(error) if error.is(Errno::ENOENT) => Ok(()),
        result => result,
    }
}

/// The limit may never exceed memory plus swap: the one that grows goes first.
fn apply_memory_and_swap(dir: &Path, limit: Option<i64>, swap: Option<i64>) -> Result<()> {
    // Unlimited memory with an old limit on the sum would not be unlimited.
    let swap = if limit.is_some_and(|l| l < 0) {
        swap.or(Some(-1))
    } else {
        swap
    };
    match (limit, swap) {
        (None, None) => Ok(()),
        (Some(limit), None) => set_memory(dir, limit),
        (None, Some(swap)) => set_swap(dir, swap, false),
        (Some(limit), Some(swap)) => {
            let now = file::read_number(dir, "memory.limit_in_bytes")?;
            let implied = limit < 0;
            if u64::try_from(swap).is_err() || u64::try_from(swap).is_ok_and(|swap| now < swap) {
                set_swap(dir, swap, implied)?;
                set_memory(dir, limit)
            } else {
                set_memory(dir, limit)?;
                set_swap(dir, swap, implied)
            }
        }
    }
}

fn set_memory(dir: &Path, limit: i64) -> Result<()> {
    file::write(dir, "memory.limit_in_bytes", &unlimited(limit)).map_err(|error| {
        match error.errno() {
            Some(Errno::EBUSY) => match file::read_number(dir, "memory.usage_in_bytes") {
                Ok(usage) => error.with_hint(Hint::LimitBelowUsage { usage }),
                Err(_) => error,
            },
            Some(Errno::EINVAL) => error.with_hint(Hint::SwapBelowMemory),
            _ => error,
        }
    })
}

/// `tolerate_missing`: where nobody asked for a swap limit, a kernel without swap accounting has none to lift.
fn set_swap(dir: &Path, swap: i64, tolerate_missing: bool) -> Result<()> {
    match file::write(dir, "memory.memsw.limit_in_bytes", &unlimited(swap)) {
        Err(error) if error.is(Errno::ENOENT) && (tolerate_missing || swap < 0) => Ok(()),
        Err(error) if error.is(Errno::ENOENT) => Err(error.with_hint(Hint::NoSwapAccounting)),
        Err(error) if error.is(Errno::EINVAL) => Err(error.with_hint(Hint::SwapBelowMemory)),
        result => result,
    }
}

/// v1 writes no limit as -1.
fn unlimited(value: i64) -> String {
    value.max(-1).to_string()
}

// === cpu ===

/// Applies CPU time and weight to a directory of the cpu hierarchy.
pub(super) fn apply_cpu(dir: &Path, cpu: &Cpu) -> Result<()> {
    if cpu.idle != Some(1) {
        apply_idle(dir, cpu)?;
    }
    // An idle cgroup has no share to set.
    if let Some(shares) = set(cpu.shares).filter(|_| cpu.idle != Some(1)) {
        apply_shares(dir, shares)?;
    }
    apply_realtime(dir, cpu)?;
    apply_quota(dir, cpu)?;
    if cpu.idle == Some(1) {
        apply_idle(dir, cpu)
    } else {
        Ok(())
    }
}

fn apply_idle(dir: &Path, cpu: &Cpu) -> Result<()> {
    cpu.idle.map_or(Ok(()), |idle| {
        file::write(dir, "cpu.idle", &idle.to_string())
    })
}

/// The kernel clamps shares silently; a person who asked for more must hear of it.
fn apply_shares(dir: &Path, shares: u64) -> Result<()> {
    file::write(dir, "cpu.shares", &shares.to_string())?;
    let taken = file::read_number(dir, "cpu.shares")?;
    if taken == shares {
        return Ok(());
    }
    let bound = if taken < shares { "most" } else { "least" };
    Err(Error::InvalidValue {
        setting: format!("cpu.shares {shares}"),
        why: format!("the {bound} that the kernel allows is {taken}"),
    })
}

fn apply_realtime(dir: &Path, cpu: &Cpu) -> Result<()> {
    let period = set(cpu.realtime_period).map(|p| p.to_string());
    let runtime = set(cpu.realtime_runtime).map(|r| r.to_string());
    write_in_either_order(
        dir,
        ("cpu.rt_period_us", period),
        ("cpu.rt_runtime_us", runtime),
        None,
    )
}

fn apply_quota(dir: &Path, cpu: &Cpu) -> Result<()> {
    let period = set(cpu.period).map(|p| p.to_string());
    let quota = set(cpu.quota).map(unlimited);
    let burst = cpu.burst.map(|b| b.to_string());
    write_in_either_order(
        dir,
        ("cpu.cfs_period_us", period),
        ("cpu.cfs_quota_us", quota),
        Some(("cpu.cfs_burst_us", burst)),
    )
}

type Setting = (&'static str, Option<String>);

/// Writes `first` before `then`; where the kernel refuses that as invalid together with the old `then`, after it.
fn write_in_either_order(
    dir: &Path,
    first: Setting,
    then: Setting,
    third: Option<Setting>,
) -> Result<()> {
    let mut later = Vec::new();
    for (name, value) in std::iter::once(first).chain(third) {
        let Some(value) = value else { continue };
        match file::write(dir, name, &value) {
            Err(error) if error.is(Errno::EINVAL) && then.1.is_some() => later.push((name, value)),
            result => result?,
        }
    }
    if let (name, Some(value)) = then {
        file::write(dir, name, &value).map_err(parent_limit)?;
    }
    later
        .iter()
        .try_for_each(|(name, value)| file::write(dir, name, value).map_err(parent_limit))
}

/// A quota that is valid by itself is refused where the parent's is smaller.
fn parent_limit(error: Error) -> Error {
    if error.is(Errno::EINVAL) {
        error.with_hint(Hint::ParentLimit)
    } else {
        error
    }
}

// === cpuset ===

/// Applies CPUs and memory nodes to a directory of a cpuset controller; v1 and v2 name the files alike.
pub(super) fn apply_cpuset(dir: &Path, cpu: &Cpu) -> Result<()> {
    for (name, value) in [("cpuset.cpus", &cpu.cpus), ("cpuset.mems", &cpu.mems)] {
        if let Some(value) = value.as_deref().filter(|v| !v.is_empty()) {
            file::write(dir, name, value).map_err(|error| outside_cpuset(dir, name, error))?;
        }
    }
    Ok(())
}

/// Out of range is `ERANGE`, no list or none that is online `EINVAL`, not the parent's on v1 `EACCES`.
fn outside_cpuset(dir: &Path, name: &str, error: Error) -> Error {
    let refused = [Errno::ERANGE, Errno::EINVAL, Errno::EACCES];
    // To open it may be forbidden for other reasons.
    let of_value = matches!(&error, Error::Call { call, errno, .. } if call.starts_with("write") && refused.contains(errno));
    if !of_value {
        return error;
    }
    let (what, place) = match name {
        "cpuset.cpus" => ("processors", "/sys/devices/system/cpu"),
        _ => ("memory nodes", "/sys/devices/system/node"),
    };
    let known = |dir: &Path, names: &[&str]| {
        let mut lists = names.iter().filter_map(|name| file::read(dir, name).ok());
        lists
            .find(|list| !list.is_empty())
            .unwrap_or_else(|| "none".to_owned())
    };
    let parent = dir.parent().map_or_else(String::new, |parent| {
        known(
            parent,
            &[
                &format!("{name}.effective"),
                &name.replace('.', ".effective_"),
                name,
            ],
        )
    });
    error.with_hint(Hint::NotInCpuset {
        what,
        online: known(Path::new(place), &["online"]),
        parent,
    })
}
