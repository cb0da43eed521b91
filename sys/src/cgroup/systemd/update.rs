//! New limits for a unit that runs.

use super::error::Error as SystemdError;
use super::{Systemd, Target, as_rounded, for_resources};
use crate::cgroup::convert::set;
use crate::cgroup::{Cgroup, Error, Resources, Result, file, v2};

/// What an update can fail of.
#[derive(Debug)]
pub enum UpdateError {
    /// A value, or a file of the cgroup.
    Cgroup(Error),
    /// systemd.
    Systemd(SystemdError),
}

impl From<Error> for UpdateError {
    fn from(error: Error) -> Self {
        Self::Cgroup(error)
    }
}

impl From<SystemdError> for UpdateError {
    fn from(error: SystemdError) -> Self {
        Self::Systemd(error)
    }
}

/// Tells systemd about new limits of `unit`, then writes them into the files of its cgroup.
///
/// Within [`super::super::all_or_nothing`] the files are set back; what systemd was told stays its word for the next
/// time that it writes them.
///
/// # Errors
/// A limit that cannot be, or that systemd or the kernel refuses.
pub fn update(
    systemd: &mut Systemd,
    unit: &str,
    cgroup: &Cgroup,
    resources: &Resources,
    target: Target,
) -> std::result::Result<(), UpdateError> {
    if resources.memory.check_before_update
        && let Some(node) = cgroup.v2().filter(|_| target.v2)
    {
        // A limit below the usage would have its processes killed by the time that the file is written.
        v2::check_usage(&node.dir, set(resources.memory.limit))?;
    }
    cgroup.note_limits();
    let completed = complete(cgroup, resources, target)?;
    let properties = for_resources(&completed, target)?;
    let thaw = !target.v2 && !properties.is_empty() && stand_still(cgroup)?;
    let told = systemd.set_properties(unit, &properties);
    if thaw {
        cgroup.thaw()?;
    }
    told?;
    cgroup.apply(&as_rounded(&completed))?;
    Ok(())
}

/// On v1 systemd writes a unit's device rules again with whatever else changes: first that nothing is allowed, then
/// the list. Nobody should be running in between. Whether there is something to thaw afterwards.
fn stand_still(cgroup: &Cgroup) -> Result<bool> {
    if cgroup.v1_controller("freezer").is_none() || cgroup.is_frozen()? {
        return Ok(false);
    }
    cgroup.freeze()?;
    Ok(true)
}

/// systemd wants both halves of some limits; the half that stays is read from the cgroup.
fn complete(cgroup: &Cgroup, resources: &Resources, target: Target) -> Result<Resources> {
    let mut all = resources.clone();
    let (quota, period) = (set(all.cpu.quota), set(all.cpu.period));
    if quota.is_some() != period.is_some()
        && let Some((old_quota, old_period)) = bandwidth(cgroup)?
    {
        all.cpu.quota = quota.or(Some(old_quota));
        all.cpu.period = period.or(Some(old_period));
    }
    let swap_alone = all.memory.limit.is_none() && set(all.memory.swap).is_some_and(|s| s > 0);
    if swap_alone
        && target.v2
        && let Some(node) = cgroup.v2()
    {
        let now = file::read_number(&node.dir, "memory.max")?;
        all.memory.limit = i64::try_from(now).ok();
    }
    Ok(all)
}

/// The quota and the period that are there; none without the controller.
fn bandwidth(cgroup: &Cgroup) -> Result<Option<(i64, u64)>> {
    if let Some(node) = cgroup.v1_controller("cpu") {
        let quota = file::read(&node.dir, "cpu.cfs_quota_us")?;
        let period = file::read_number(&node.dir, "cpu.cfs_period_us")?;
        return Ok(quota.parse().ok().map(|quota| (quota, period)));
    }
    let Some(text) = cgroup
        .v2()
        .and_then(|node| file::read(&node.dir, "cpu.max").ok())
    else {
        return Ok(None);
    };
    Ok(parse_cpu_max(&text))
}

fn parse_cpu_max(text: &str) -> Option<(i64, u64)> {
    let (quota, period) = text.split_once(' ')?;
    let quota = match quota {
        "max" => -1,
        number => number.parse().ok()?,
    };
    Some((quota, period.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bandwidth_that_is_there_is_read() {
        assert_eq!(parse_cpu_max("max 100000"), Some((-1, 100_000)));
        assert_eq!(parse_cpu_max("5000 50000"), Some((5_000, 50_000)));
        assert_eq!(parse_cpu_max("5000"), None);
        assert_eq!(parse_cpu_max("x y"), None);
    }
}
