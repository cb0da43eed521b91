//! `update`: other limits for a container that is there.
use std::io::Read;

use sys::cgroup::{Failed, all_or_nothing};

use crate::cli::Global;
use crate::cli::flags::Parsed;
use crate::error::{Error, Result, Within};
use crate::id::ContainerId;
use crate::plan::{Problems, cgroup};
use crate::spec::Resources;
use crate::state::Status;

/// The longest document that is read from stdin.
const MAX_DOCUMENT: u64 = 4 << 20;

/// `update ID`
///
/// # Errors
/// A limit that the kernel refuses; those that were set before it are set back.
pub fn run(global: &Global, id: &ContainerId, parsed: &Parsed) -> Result<u8> {
    let state = global.store.load(id)?;
    if matches!(
        global.store.status(id, &state)?,
        Status::Stopped | Status::Creating
    ) {
        return Err(Error::new("container not running"));
    }
    let resources = match parsed.get("resources") {
        Some(path) => read(path)?,
        None => from_flags(parsed)?,
    };
    if let Some(warning) = cgroup::warning(&resources) {
        global.warn(warning);
    }
    let mut problems = Problems::default();
    let version = &state.oci_version;
    let mut resources = cgroup::resources(&resources, version, "resources", &mut problems);
    // Rules for devices are set once: a caller that updates a memory limit sends the old ones along.
    resources.devices = None;
    problems
        .into_result(())
        .map_err(|problems| Error::new(problems.to_string()))?;
    let cgroup = state.cgroup()?;
    if cgroup.is_none() {
        return Err(super::pause::no_cgroup("there is nothing to limit"));
    }
    let change = || {
        match &state.systemd {
            Some(unit) => crate::systemd::update(unit, &cgroup, &resources)?,
            None => cgroup
                .apply(&resources)
                .map_err(|error| crate::cgroup::named("resources", error))?,
        }
        let schema = |flag: &str| parsed.get(flag).unwrap_or_default().to_owned();
        crate::rdt::update(&state, &schema("l3-cache-schema"), &schema("mem-bw-schema"))
    };
    all_or_nothing(change).map(|()| 0).map_err(explain)
}

/// The limit that was refused, and what could not be set back because of it.
fn explain(failed: Failed<Error>) -> Error {
    let mut error = failed.error;
    for left in failed.left {
        error.message = format!("{}; not set back: {left}", error.message);
    }
    error
}

fn read(path: &str) -> Result<Resources> {
    let within = || format!("--resources {path}");
    let text = if path == "-" {
        let mut text = Vec::new();
        std::io::stdin()
            .take(MAX_DOCUMENT)
            .read_to_end(&mut text)
            .map_err(|error| sys::Error::from_io(&error, "read(stdin)"))
            .within(within)?;
        text
    } else {
        std::fs::read(path)
            .map_err(|error| sys::Error::from_io(&error, format!("read({path:?})")))
            .within(within)?
    };
    serde_json::from_slice(&text)
        .map_err(|error| Error::new(error.to_string()))
        .within(within)
}

fn from_flags(parsed: &Parsed) -> Result<Resources> {
    let mut resources = Resources::default();
    let (cpu, memory) = (&mut resources.cpu, &mut resources.memory);
    cpu.period = number(parsed, "cpu-period")?;
    cpu.quota = number(parsed, "cpu-quota")?;
    cpu.burst = number(parsed, "cpu-burst")?;
    cpu.shares = number(parsed, "cpu-share")?;
    cpu.realtime_period = number(parsed, "cpu-rt-period")?;
    cpu.realtime_runtime = number(parsed, "cpu-rt-runtime")?;
    cpu.idle = number(parsed, "cpu-idle")?;
    parsed
        .get("cpuset-cpus")
        .unwrap_or_default()
        .clone_into(&mut cpu.cpus);
    parsed
        .get("cpuset-mems")
        .unwrap_or_default()
        .clone_into(&mut cpu.mems);
    memory.limit = size(parsed, "memory")?;
    memory.reservation = size(parsed, "memory-reservation")?;
    memory.swap = size(parsed, "memory-swap")?;
    memory.kernel = size(parsed, "kernel-memory")?;
    memory.kernel_tcp = size(parsed, "kernel-memory-tcp")?;
    resources.block_io.weight = number(parsed, "blkio-weight")?;
    resources.pids.limit = number(parsed, "pids-limit")?;
    Ok(resources)
}

fn number<T: std::str::FromStr>(parsed: &Parsed, flag: &str) -> Result<Option<T>> {
    parsed.number(flag).map_err(Error::new)
}

fn size(parsed: &Parsed, flag: &str) -> Result<Option<i64>> {
    let parse = |text: &str| {
        parse_size(text).ok_or_else(|| Error::new(format!("--{flag}: {text:?} is no size")))
    };
    parsed.get(flag).map(parse).transpose()
}

/// A size as docker's units package reads it: `512m`, `1.5GiB`, `100 kB`, `-1`; units count by 1024.
fn parse_size(text: &str) -> Option<i64> {
    if text == "-1" {
        return Some(-1);
    }
    let end = text.rfind(|c: char| c.is_ascii_digit() || c == '.')? + 1;
    let (number, unit) = text.split_at(end);
    let unit = unit.trim_start().to_ascii_lowercase();
    let unit = unit
        .strip_suffix("ib")
        .or_else(|| unit.strip_suffix('b'))
        .unwrap_or(&unit);
    let shift = match unit {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        "p" => 50,
        _ => return None,
    };
    if let Ok(whole) = number.parse::<i64>() {
        return whole.checked_mul(1 << shift).filter(|size| *size >= 0);
    }
    let fraction: f64 = number
        .parse()
        .ok()
        .filter(|size: &f64| size.is_finite() && *size >= 0.0)?;
    format!(
        "{:.0}",
        (fraction * f64::from(1_u32 << 10).powi(shift / 10)).floor()
    )
    .parse()
    .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units_of_1024() {
        let table = [
            ("0", 0),
            ("100", 100),
            ("1k", 1024),
            ("1K", 1024),
            ("512m", 512 << 20),
            ("1.5g", 3 << 29),
            ("1GiB", 1 << 30),
            ("100 kB", 102_400),
            ("2tb", 2 << 40),
            ("-1", -1),
            ("7b", 7),
        ];
        for (text, bytes) in table {
            assert_eq!(parse_size(text), Some(bytes), "{text}");
        }
        for text in [
            "",
            "k",
            "-2",
            "1x",
            "1.2.3",
            "9999999999999999999",
            "9223372036854775807k",
            "m1",
        ] {
            assert_eq!(parse_size(text), None, "{text}");
        }
    }
}
