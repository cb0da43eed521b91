//! Limits as properties of a unit. What systemd knows it must be told: it writes its own values whenever it applies
//! the unit's settings again. What it does not know is written into the files of the cgroup alone.
//!
//! <https://www.freedesktop.org/software/systemd/man/latest/systemd.resource-control.html>

use super::manager::Property;
use super::value::Value;
use super::{devices, unified};
use crate::cgroup::convert::{blkio_weight_to_io_weight, set, shares_to_weight, swap_for_v2};
use crate::cgroup::{Cpu, Error, Memory, Resources, Result};

/// "No limit", for systemd.
pub(super) const INFINITY: u64 = u64::MAX;
/// The kernel's default.
pub(super) const DEFAULT_PERIOD: u64 = 100_000;

/// What decides about the form of properties.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    /// Whether the host has the unified hierarchy alone.
    pub v2: bool,
    /// The version of systemd.
    pub version: u32,
}

/// The properties for these limits. Only what is set; `update` may call it as well as `create`.
///
/// # Errors
/// A value that cannot be converted.
pub fn for_resources(resources: &Resources, target: Target) -> Result<Vec<Property>> {
    let mut list = List::default();
    if let Some(rules) = &resources.devices {
        list.0 = devices::properties(rules, target.v2, target.version);
    }
    memory(&resources.memory, target, &mut list)?;
    cpu(&resources.cpu, target, &mut list);
    if let Some(weight) = resources.block_io.weight.filter(|weight| *weight != 0) {
        if target.v2 {
            list.number("IOWeight", blkio_weight_to_io_weight(weight));
        } else {
            list.number("BlockIOWeight", u64::from(weight));
        }
    }
    if let Some(limit) = resources.pids_limit {
        list.number("TasksMax", tasks_max(limit));
    }
    cpuset(&resources.cpu, target, &mut list)?;
    if target.v2 {
        unified::add(&resources.unified, target, &mut list)?;
    }
    Ok(list.0)
}

/// Properties in order.
#[derive(Debug, Default)]
pub(super) struct List(pub(super) Vec<Property>);

impl List {
    pub(super) fn number(&mut self, name: &str, value: u64) {
        self.0.push((name.to_owned(), Value::U64(value)));
    }

    pub(super) fn set(&mut self, name: &str, value: Value) {
        self.0.push((name.to_owned(), value));
    }
}

/// Negative is no limit.
fn limit(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(INFINITY)
}

/// systemd takes no 0; the kernel counts 0 and 1 alike once a process is there.
fn tasks_max(limit: i64) -> u64 {
    u64::try_from(limit).map_or(INFINITY, |limit| limit.max(1))
}

fn memory(memory: &Memory, target: Target, list: &mut List) -> Result<()> {
    let max = if target.v2 {
        "MemoryMax"
    } else {
        "MemoryLimit"
    };
    if let Some(value) = set(memory.limit) {
        list.number(max, limit(value));
    }
    if !target.v2 {
        return Ok(());
    }
    if let Some(value) = set(memory.reservation) {
        list.number("MemoryLow", limit(value));
    }
    // Without the memory limit beside it the sum says nothing; the file is then written alone.
    let known = memory.limit.is_some() || memory.swap.is_none_or(|swap| swap <= 0);
    if let Some(swap) = known
        .then(|| swap_for_v2(memory.swap, set(memory.limit)))
        .transpose()?
        .flatten()
    {
        list.number("MemorySwapMax", limit(swap));
    }
    Ok(())
}

fn cpu(cpu: &Cpu, target: Target, list: &mut List) {
    match (set(cpu.shares), target.v2) {
        // An idle cgroup has no weight.
        _ if target.v2 && cpu.idle == Some(1) && target.version >= 252 => {
            list.number("CPUWeight", 0);
        }
        (Some(shares), true) => list.number("CPUWeight", shares_to_weight(shares)),
        (Some(shares), false) => list.number("CPUShares", shares),
        (None, _) => {}
    }
    quota(set(cpu.quota), set(cpu.period), target, list);
}

pub(super) fn quota(quota: Option<i64>, period: Option<u64>, target: Target, list: &mut List) {
    if let Some(period) = period.filter(|_| target.version >= 242) {
        list.number("CPUQuotaPeriodUSec", period);
    }
    if quota.is_some() || period.is_some() {
        let per_second = quota
            .filter(|quota| *quota > 0)
            .map_or(INFINITY, |quota| per_second(quota, period));
        list.number("CPUQuotaPerSecUSec", per_second);
    }
}

/// Microseconds per second, in whole percents, since that is what systemd keeps; rounded up, so that what is below
/// the container can have what it was promised.
fn per_second(quota: i64, period: Option<u64>) -> u64 {
    let quota = u128::from(quota.unsigned_abs());
    let exact = quota * 1_000_000 / u128::from(period.unwrap_or(DEFAULT_PERIOD).max(1));
    u64::try_from(exact.next_multiple_of(10_000)).unwrap_or(INFINITY)
}

/// The limits as systemd will have written them, for whoever writes the files after it.
#[must_use]
pub fn as_rounded(resources: &Resources) -> Resources {
    let mut rounded = resources.clone();
    if let Some(quota) = set(resources.cpu.quota).filter(|quota| *quota > 0) {
        let period = set(resources.cpu.period);
        let exact = u128::from(per_second(quota, period))
            * u128::from(period.unwrap_or(DEFAULT_PERIOD))
            / 1_000_000;
        rounded.cpu.quota = i64::try_from(exact).ok().or(Some(quota));
    }
    rounded
}

fn cpuset(cpu: &Cpu, target: Target, list: &mut List) -> Result<()> {
    if target.version < 244 {
        return Ok(());
    }
    if let Some(cpus) = &cpu.cpus {
        list.set("AllowedCPUs", bits("cpu.cpus", cpus)?);
    }
    if let Some(mems) = &cpu.mems {
        list.set("AllowedMemoryNodes", bits("cpu.mems", mems)?);
    }
    Ok(())
}

/// More CPUs than any machine has: a bound on what a list may take of memory.
const MOST_BITS: usize = 1 << 16;

/// `0-2,7` as bytes with these bits set, the lowest first.
pub(super) fn bits(setting: &str, text: &str) -> Result<Value> {
    let invalid = |why: &str| Error::InvalidValue {
        setting: format!("{setting} {text:?}"),
        why: why.to_owned(),
    };
    let number = |text: &str| {
        let number: Option<usize> = text.trim().parse().ok();
        number
            .filter(|number| *number < MOST_BITS)
            .ok_or_else(|| invalid("it is a list of numbers and ranges, such as 0-2,7"))
    };
    let mut bytes: Vec<u8> = Vec::new();
    for part in text
        .split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty())
    {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (number(first)?, number(last)?);
        if first > last {
            return Err(invalid("a range ends before it begins"));
        }
        bytes.resize(bytes.len().max(last / 8 + 1), 0);
        (first..=last).for_each(|bit| bytes[bit / 8] |= 1 << (bit % 8));
    }
    if bytes.is_empty() {
        return Err(invalid("it is empty"));
    }
    Ok(Value::bytes(&bytes))
}

#[cfg(test)]
mod tests;
