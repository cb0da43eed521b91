//! Files of cgroup v2 that systemd has a property for.

use super::properties::{DEFAULT_PERIOD, INFINITY, List, Target, bits, quota};
use super::value::Value;
use crate::cgroup::{Error, Result};

/// Adds the properties for those files; the others are written as they are, by whoever calls this.
pub(super) fn add(files: &[(String, String)], target: Target, list: &mut List) -> Result<()> {
    let value_of = |wanted: &str| {
        let found = files.iter().find(|(name, _)| name == wanted);
        found.map(|(_, value)| value.trim())
    };
    let idle = value_of("cpu.idle") == Some("1") && target.version >= 252;
    for (name, value) in files {
        let value = value.trim();
        let number = || {
            if value == "max" {
                return Ok(INFINITY);
            }
            value
                .parse()
                .map_err(|_| invalid(name, value, "it is a number, or max"))
        };
        match name.as_str() {
            "cpu.idle" if idle => list.number("CPUWeight", 0),
            "cpu.max" => cpu_max(value, target, list)?,
            "cpu.weight" if !idle => list.number("CPUWeight", number()?),
            "cpuset.cpus" if target.version >= 244 => list.set("AllowedCPUs", bits(name, value)?),
            "cpuset.mems" if target.version >= 244 => {
                list.set("AllowedMemoryNodes", bits(name, value)?);
            }
            "memory.high" => list.number("MemoryHigh", number()?),
            "memory.low" => list.number("MemoryLow", number()?),
            "memory.min" => list.number("MemoryMin", number()?),
            "memory.max" => list.number("MemoryMax", number()?),
            "memory.swap.max" => list.number("MemorySwapMax", number()?),
            "memory.zswap.max" if target.version >= 253 => {
                list.number("MemoryZSwapMax", number()?);
            }
            "pids.max" => list.number("TasksMax", number()?.max(1)),
            _ => {}
        }
    }
    Ok(())
}

/// `memory.oom.group` is what `OOMPolicy` says of scopes; it can be said only when one is made.
pub(super) fn oom_policy(files: &[(String, String)], version: u32) -> Option<Value> {
    let (_, value) = files.iter().find(|(name, _)| name == "memory.oom.group")?;
    match value.trim() {
        "0" if version >= 253 => Some(Value::str("continue")),
        "1" if version >= 253 => Some(Value::str("kill")),
        _ => None,
    }
}

/// `quota [period]`
fn cpu_max(value: &str, target: Target, list: &mut List) -> Result<()> {
    let wrong = || {
        invalid(
            "cpu.max",
            value,
            "it is a quota or max, and perhaps a period",
        )
    };
    let mut parts = value.split_whitespace();
    let limit = match parts.next().ok_or_else(wrong)? {
        "max" => None,
        text => Some(text.parse().map_err(|_| wrong())?),
    };
    let period = match parts.next() {
        None => DEFAULT_PERIOD,
        Some(text) => text.parse().map_err(|_| wrong())?,
    };
    if parts.next().is_some() {
        return Err(wrong());
    }
    quota(limit, Some(period), target, list);
    Ok(())
}

fn invalid(name: &str, value: &str, why: &str) -> Error {
    Error::InvalidValue {
        setting: format!("unified {name:?} {value:?}"),
        why: why.to_owned(),
    }
}
