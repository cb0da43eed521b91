//! The container's cgroup where systemd makes it: as a scope around the first process, so only once that is born.
//!
//! ```text
//! create                     systemd                                first process
//!   connect, version ───────▶
//!   clone3 ──────────────────────────────────────────────────────▶ waits
//!   StartTransientUnit ─────▶ makes the cgroups, moves the process
//!   id maps, oom_score_adj
//!   ◀────────── JobRemoved ──
//!   what systemd does not do: other hierarchies, limits, device rules, the cgroup below
//!   ── Go ───────────────────────────────────────────────────────▶ cgroup namespace, and everything else
//! ```
use std::cell::Cell;
use std::path::Path;
use std::rc::Rc;

use nix::unistd::Pid;
use sys::cgroup::systemd::{self, Bus, Starting, Systemd, Target, UpdateError};
use sys::cgroup::{Cgroup, Hierarchies, Mode, Resources};

use crate::cgroup::named;
use crate::error::{Error, Result, Within};
use crate::plan::{NamespacePlan, Plan, SystemdPlan};
use crate::spec::IdMapping;
use crate::undo::Undo;

/// What later commands have to know of a container's unit.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UnitState {
    /// Its name.
    pub unit: String,
    /// Whether the user's own systemd has it.
    pub user: bool,
    /// The cgroup below the unit's in which the container's processes are; empty for none.
    #[serde(default)]
    pub subgroup: String,
}

impl UnitState {
    /// Of the container that is made from `plan`.
    pub fn of(plan: &SystemdPlan) -> Self {
        Self {
            unit: plan.unit.name().to_owned(),
            user: plan.bus == Bus::User,
            subgroup: if plan.delegate.is_empty() {
                plan.subgroup.clone()
            } else {
                format!("{}/{}", plan.subgroup, plan.delegate)
            },
        }
    }

    fn bus(&self) -> Bus {
        if self.user { Bus::User } else { Bus::System }
    }

    fn connect(&self) -> Result<Systemd> {
        let mut systemd = Systemd::connect(self.bus())?;
        systemd.greet()?;
        Ok(systemd)
    }
}

/// A container's unit on its way.
#[derive(Debug)]
pub struct Making<'a> {
    plan: &'a SystemdPlan,
    systemd: Systemd,
    target: Target,
    hierarchies: Hierarchies,
    /// The unit's cgroup.
    scope: Cgroup,
    starting: Option<Starting>,
    /// Whether there is, or may be, a unit that was made for this container.
    ours: Rc<Cell<bool>>,
}

impl<'a> Making<'a> {
    /// Connects to systemd, where the plan says so.
    ///
    /// # Errors
    /// There is no systemd, or the cgroup is in use.
    pub fn new(plan: &'a Plan) -> Result<Option<Self>> {
        let Some(plan) = &plan.cgroup.systemd else {
            return Ok(None);
        };
        let mut systemd = Systemd::connect(plan.bus)?;
        let hierarchies = Hierarchies::detect()?;
        if plan.bus == Bus::User && hierarchies.mode() != Mode::V2 {
            return Err(Error::new(
                "cannot use rootless systemd cgroups manager on cgroup v1",
            ));
        }
        systemd.greet()?;
        let target = Target::new(&hierarchies, &systemd);
        let scope = systemd::place(&hierarchies, systemd.control_group(), &plan.unit);
        Ok(Some(Self {
            plan,
            systemd,
            target,
            hierarchies,
            scope,
            starting: None,
            ours: Rc::new(Cell::new(false)),
        }))
    }

    /// The cgroup filesystems, and the unit's cgroup in them.
    pub fn place(&self) -> (Hierarchies, Cgroup) {
        (self.hierarchies.clone(), self.scope.clone())
    }

    /// The cgroup in which the container's processes will be.
    pub fn inner(&self) -> Cgroup {
        self.scope.below(&self.plan.subgroup)
    }

    /// What later commands have to know.
    pub fn state(&self) -> UnitState {
        UnitState::of(self.plan)
    }

    /// Refuses a cgroup that others use, and says how the unit is taken back.
    ///
    /// # Errors
    /// The cgroup is frozen or not empty.
    pub fn prepare(&self, undo: &mut Undo<'a>) -> Result<()> {
        if self.scope.exists() && !self.plan.unit.is_slice() {
            if self.scope.is_frozen().unwrap_or(false) {
                return Err(Error::new("container's cgroup unexpectedly frozen"));
            }
            let strangers = self.scope.processes()?.len();
            if strangers > 0 {
                return Err(Error::new(format!(
                    "container's cgroup is not empty: {strangers} process(es) found"
                )));
            }
        }
        let (scope, ours, unit) = (
            self.scope.clone(),
            Rc::clone(&self.ours),
            UnitState::of(self.plan),
        );
        undo.push("the systemd unit", move || {
            if !ours.get() {
                return Ok(());
            }
            remove(&unit, &scope).map_err(|error| error.message)
        });
        Ok(())
    }

    /// Asks for the unit, with this process in it.
    ///
    /// # Errors
    /// A limit that cannot be, or a broken connection.
    pub fn ask(&mut self, pid: Pid, resources: &Resources) -> Result<()> {
        let SystemdPlan {
            unit, properties, ..
        } = self.plan;
        let number = pid.as_raw().unsigned_abs();
        let mut list = systemd::unit_properties(unit, number, resources, self.target, properties);
        let limits = systemd::for_resources(resources, self.target);
        list.extend(limits.map_err(|error| named("linux.resources", error))?);
        self.starting = Some(self.systemd.start(unit.name(), list)?);
        Ok(())
    }

    /// Waits until the unit is there, and does what systemd does not.
    ///
    /// # Errors
    /// systemd or the kernel refuses something.
    pub fn finish(&mut self, pid: Pid, resources: &Resources) -> Result<()> {
        let Some(starting) = self.starting.take() else {
            return Ok(());
        };
        let made = self.systemd.finish(&starting);
        self.ours.set(match &made {
            Ok(()) | Err(systemd::Error::Job { .. }) => true,
            // Nobody answered: where the process is tells whether the unit is there.
            Err(systemd::Error::Timeout { .. } | systemd::Error::Closed { .. }) => {
                Cgroup::of_process(&self.hierarchies, pid.as_raw())
                    .is_ok_and(|now| now == self.scope)
            }
            Err(_) => false,
        });
        made?;
        let within = || "linux.cgroupsPath".to_owned();
        // What could be taken back goes with the unit.
        drop(self.scope.create().within(within)?);
        self.scope
            .apply_limits(&systemd::as_rounded(resources))
            .map_err(|error| named("linux.resources", error))?;
        let inner = self.inner();
        if inner != self.scope {
            // Controllers are handed down only by a cgroup without processes, so it is made twice.
            drop(inner.create().within(within)?);
            inner.add_process(pid.as_raw()).within(within)?;
            drop(inner.create().within(within)?);
        } else if !self.target.v2 || self.plan.unit.is_slice() {
            // Hierarchies that systemd does not know.
            inner.add_process(pid.as_raw()).within(within)?;
        }
        Ok(())
    }

    /// Moves the first process into what is the container's own to manage, once its cgroup namespace is made.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn delegate(&self, pid: Pid, namespaces: &NamespacePlan) -> Result<()> {
        let root = |map: &[IdMapping]| {
            let first = map.iter().find(|range| range.container_id == 0);
            first.map_or(0, |range| range.host_id)
        };
        let owner = (root(&namespaces.uid_map), root(&namespaces.gid_map));
        let within = || "annotations[\"run.oci.delegate-cgroup\"]".to_owned();
        let inner = self.inner();
        let own = inner.below(&self.plan.delegate);
        drop(own.create().within(within)?);
        own.give_to(owner.0, owner.1).within(within)?;
        own.add_process(pid.as_raw()).within(within)?;
        drop(own.create().within(within)?);
        Ok(())
    }
}

/// Removes a unit and whatever is left of its cgroup, with the processes in it.
///
/// # Errors
/// systemd does not answer, or a process does not end.
pub fn remove(unit: &UnitState, cgroup: &Cgroup) -> Result<()> {
    let left = cgroup.processes().is_ok_and(|left| !left.is_empty());
    if left {
        // systemd would ask them to end, and wait.
        cgroup.kill_all()?;
    }
    match unit
        .connect()
        .and_then(|mut systemd| Ok(systemd.stop(&unit.unit)?))
    {
        // Without a cgroup there can be no unit, whoever else could be asked.
        Err(error) if cgroup.exists() => return Err(error),
        _ => {}
    }
    Ok(cgroup.remove()?)
}

/// Changes the limits of a unit.
///
/// # Errors
/// A limit that systemd or the kernel refuses.
pub fn update(unit: &UnitState, cgroup: &Cgroup, resources: &Resources) -> Result<()> {
    let mut systemd = unit.connect()?;
    let target = Target::new(&Hierarchies::detect()?, &systemd);
    systemd::update(&mut systemd, &unit.unit, cgroup, resources, target).map_err(
        |error| match error {
            UpdateError::Cgroup(error) => named("resources", error),
            UpdateError::Systemd(error) => error.into(),
        },
    )
}

/// Moves a process into a unit that the caller may not write to itself, to where the container's processes are or
/// somewhere else below it.
///
/// # Errors
/// systemd refuses.
pub fn attach(unit: &UnitState, below: Option<&Path>, pid: Pid) -> Result<()> {
    let below = below.unwrap_or(Path::new(&unit.subgroup));
    let below = format!("/{}", below.display());
    let mut systemd = unit.connect()?;
    Ok(systemd.attach(&unit.unit, &below, pid.as_raw().unsigned_abs())?)
}

/// Whose systemd is asked, by `--rootless` or by who runs this program: the root of a user namespace belongs to the
/// systemd of whoever made it.
pub fn is_users(rootless: Option<&str>) -> bool {
    match rootless {
        Some("true") => true,
        Some("false") => false,
        _ => !nix::unistd::geteuid().is_root() || owner() != 0,
    }
}

/// The user outside of the user namespace.
fn owner() -> u32 {
    if let Some(uid) = std::env::var("ROOTLESSKIT_PARENT_EUID")
        .ok()
        .and_then(|uid| uid.parse().ok())
    {
        return uid;
    }
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    outside(&map, 0).unwrap_or(0)
}

/// What `uid` is outside, by a uid_map: lines of the first id inside, the first outside, and how many.
fn outside(map: &str, uid: u32) -> Option<u32> {
    map.lines().find_map(|line| {
        let mut numbers = line.split_whitespace().map(str::parse::<u32>);
        let mut next = || numbers.next()?.ok();
        let (inside, outside, count) = (next()?, next()?, next()?);
        let offset = uid.checked_sub(inside).filter(|offset| *offset < count)?;
        outside.checked_add(offset)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_user_outside_is_found_in_the_map() {
        assert_eq!(outside("         0          0 4294967295\n", 0), Some(0));
        assert_eq!(outside("0 1000 1\n1 100000 65536\n", 0), Some(1000));
        assert_eq!(outside("0 1000 1\n1 100000 65536\n", 5), Some(100_004));
        assert_eq!(outside("1 100000 65536\n", 0), None);
        assert_eq!(outside("", 0), None);
        assert_eq!(outside("x y z\n", 0), None);
    }

    #[test]
    fn the_flag_decides_before_the_user_does() {
        assert!(is_users(Some("true")));
        assert!(!is_users(Some("false")));
    }
}
