//! Limits on a v2 cgroup (<https://docs.kernel.org/admin-guide/cgroup-v2.html>).

use std::path::Path;

use nix::errno::Errno;

use super::convert::{or_max, set, shares_to_weight, swap_for_v2};
use super::resources::{Cpu, Memory};
use super::{Error, Hint, Result, file};

// === memory ===

/// Applies the memory limits.
pub(super) fn apply_memory(dir: &Path, memory: &Memory) -> Result<()> {
    let limit = set(memory.limit);
    if memory.check_before_update {
        check_usage(dir, limit)?;
    }
    if let Some(swap) = swap_for_v2(
        memory.swap,
        limit.map_or_else(|| limit_now(dir, memory), |l| Ok(Some(l)))?,
    )? {
        set_swap(dir, swap)?;
    }
    if let Some(limit) = limit {
        file::write(dir, "memory.max", &or_max(limit)).map_err(|e| no_controller(e, "memory"))?;
    }
    match set(memory.reservation) {
        Some(low) => {
            file::write(dir, "memory.low", &or_max(low)).map_err(|e| no_controller(e, "memory"))
        }
        None => Ok(()),
    }
}

/// An update of swap alone is counted against the memory limit that is there.
fn limit_now(dir: &Path, memory: &Memory) -> Result<Option<i64>> {
    if set(memory.swap).is_none_or(|swap| swap < 0) {
        return Ok(None);
    }
    let now = file::read_number(dir, "memory.max").map_err(|e| no_controller(e, "memory"))?;
    Ok(i64::try_from(now).ok())
}

fn set_swap(dir: &Path, swap: i64) -> Result<()> {
    match file::write(dir, "memory.swap.max", &or_max(swap)) {
        // Without swap accounting there is no swap to forbid, and no limit to lift.
        Err(error) if error.is(Errno::ENOENT) && swap <= 0 => Ok(()),
        Err(error) if error.is(Errno::ENOENT) => Err(error.with_hint(Hint::NoSwapAccounting)),
        result => result,
    }
}

/// v2 takes a limit below the usage and kills; with `checkBeforeUpdate` that is an error instead.
pub(super) fn check_usage(dir: &Path, limit: Option<i64>) -> Result<()> {
    let Some(limit) = limit.and_then(|l| u64::try_from(l).ok()) else {
        return Ok(());
    };
    let usage = file::read_number(dir, "memory.current").map_err(|e| no_controller(e, "memory"))?;
    if usage <= limit {
        return Ok(());
    }
    let error = Error::write(&dir.join("memory.max"), &limit.to_string(), Errno::EBUSY);
    Err(error.with_hint(Hint::LimitBelowUsage { usage }))
}

// === cpu ===

/// Applies CPU weight and bandwidth.
pub(super) fn apply_cpu(dir: &Path, cpu: &Cpu) -> Result<()> {
    apply_cpu_files(dir, cpu).map_err(|e| no_controller(e, "cpu"))
}

fn apply_cpu_files(dir: &Path, cpu: &Cpu) -> Result<()> {
    if let Some(period) =
        set(cpu.realtime_period).or(set(cpu.realtime_runtime.map(i64::unsigned_abs)))
    {
        let setting = format!("cpu.realtimePeriod or realtimeRuntime {period}");
        return Err(Error::InvalidValue {
            setting,
            why: "cgroup v2 has no real-time bandwidth".into(),
        });
    }
    if let Some(idle) = cpu.idle {
        file::write(dir, "cpu.idle", &idle.to_string())?;
    }
    // An idle cgroup has no weight to set.
    if let Some(shares) = set(cpu.shares).filter(|_| cpu.idle != Some(1)) {
        file::write(dir, "cpu.weight", &shares_to_weight(shares).to_string())?;
    }
    // A burst may not exceed the quota: a new quota that is larger must be there first, one that is smaller after.
    let burst = cpu.burst.map(|b| b.to_string());
    let refused = match &burst {
        Some(burst) => {
            matches!(file::write(dir, "cpu.max.burst", burst), Err(e) if e.is(Errno::EINVAL))
        }
        None => false,
    };
    if let Some(max) = cpu_max(set(cpu.quota), set(cpu.period), || {
        file::read(dir, "cpu.max")
    })? {
        file::write(dir, "cpu.max", &max)?;
    }
    match burst {
        Some(burst) if refused => file::write(dir, "cpu.max.burst", &burst),
        _ => Ok(()),
    }
}

/// What to write to `cpu.max`: the kernel keeps the period where only a quota is written, but not the reverse.
fn cpu_max(
    quota: Option<i64>,
    period: Option<u64>,
    now: impl Fn() -> Result<String>,
) -> Result<Option<String>> {
    match (quota, period) {
        (None, None) => Ok(None),
        (Some(quota), None) => Ok(Some(or_max(quota))),
        (Some(quota), Some(period)) => Ok(Some(format!("{} {period}", or_max(quota)))),
        (None, Some(period)) => {
            let now = now()?;
            let quota = now.split(' ').next().unwrap_or("max");
            Ok(Some(format!("{quota} {period}")))
        }
    }
}

// === others ===

/// Applies CPUs and memory nodes.
pub(super) fn apply_cpuset(dir: &Path, cpu: &Cpu) -> Result<()> {
    super::v1::apply_cpuset(dir, cpu).map_err(|e| no_controller(e, "cpuset"))
}

/// Writes the files of `unified` as they are, one write per line.
pub(super) fn apply_unified(dir: &Path, files: &[(String, String)]) -> Result<()> {
    for (name, value) in files {
        check_file_name(name)?;
        for line in value.lines() {
            file::write(dir, name, line).map_err(|error| unified_error(dir, name, error))?;
        }
    }
    Ok(())
}

/// A file that is not there mostly lacks its controller.
fn unified_error(dir: &Path, name: &str, error: Error) -> Error {
    let missing = error.is(Errno::ENOENT) || error.is(Errno::EACCES) || error.is(Errno::EPERM);
    let controllers = file::read(dir, "cgroup.controllers").unwrap_or_default();
    let source = match name.split_once('.') {
        None if missing => Error::InvalidValue {
            setting: name.to_owned(),
            why: "it must be in the form CONTROLLER.PARAMETER".into(),
        },
        Some((controller, _))
            if missing
                && controller != "cgroup"
                && !controllers.split_whitespace().any(|one| one == controller) =>
        {
            Error::InvalidValue {
                setting: name.to_owned(),
                why: format!("can't be set: controller {controller:?} not available"),
            }
        }
        _ => error,
    };
    Error::Unified {
        file: name.to_owned(),
        source: Box::new(source),
    }
}

fn check_file_name(name: &str) -> Result<()> {
    if name.is_empty() || name.contains(['/', '\0']) || name == "." || name == ".." {
        return Err(Error::InvalidValue {
            setting: format!("unified {name:?}"),
            why: "it must be a file name without slashes".into(),
        });
    }
    Ok(())
}

/// A file that is not there is a controller that is not there.
pub(super) fn no_controller(error: Error, controller: &'static str) -> Error {
    match error {
        Error::Call {
            call,
            errno: Errno::ENOENT,
            ..
        } => {
            let path = call.split('"').nth(1).map(Into::into);
            Error::NoController { controller, path }
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_update_of_quota_or_period_alone_keeps_the_other() {
        let now = || Ok("50000 100000".to_owned());
        assert_eq!(cpu_max(None, None, now), Ok(None));
        assert_eq!(cpu_max(Some(20000), None, now), Ok(Some("20000".into())));
        assert_eq!(
            cpu_max(Some(-1), Some(5000), now),
            Ok(Some("max 5000".into()))
        );
        assert_eq!(
            cpu_max(None, Some(200_000), now),
            Ok(Some("50000 200000".into()))
        );
    }

    #[test]
    fn a_unified_key_that_is_no_file_name_is_refused() {
        for bad in ["", "a/b", "/", "..", "../memory.max"] {
            assert!(
                check_file_name(bad)
                    .unwrap_err()
                    .to_string()
                    .contains("without slashes"),
                "{bad:?}"
            );
        }
        assert_eq!(check_file_name("memory.high"), Ok(()));
    }

    #[test]
    fn a_limit_without_its_controller_names_the_controller() {
        let error = Error::call("open", Path::new("/c/memory.max"), Errno::ENOENT);
        let text = no_controller(error, "memory").to_string();
        assert!(
            text.starts_with("the memory controller is not available to \"/c/memory.max\""),
            "{text}"
        );
    }
}
