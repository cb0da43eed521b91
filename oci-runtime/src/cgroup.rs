//! The container's cgroup as `create` makes it: where it is, its limits, who owns it, and what takes it back.
//!
//! A rootless container whose user may not make cgroups goes without one, as with runc, unless its configuration names
//! the cgroup or asks for limits: those must not be lost in silence.
use sys::cgroup::{Cgroup, Created, Hierarchies, Resources};

use crate::cli::Global;
use crate::error::{Error, Result, Within};
use crate::plan::{Manager, Plan};
use crate::undo::Undo;

/// Who makes cgroups, as the flags say.
///
/// # Errors
/// An unknown name.
pub fn manager(
    systemd_cgroup: bool,
    name: Option<&str>,
    rootless: Option<&str>,
) -> Result<Manager> {
    match name {
        Some("disabled") => Ok(Manager::Disabled),
        Some("cgroupfs") => Ok(Manager::Cgroupfs),
        None if !systemd_cgroup => Ok(Manager::Cgroupfs),
        None | Some("systemd") => Ok(Manager::Systemd {
            user: crate::systemd::is_users(rootless),
        }),
        Some(other) => Err(Error::new(format!(
            "--cgroup-manager: {other:?} is neither cgroupfs, systemd nor disabled"
        ))),
    }
}

/// Where the container's cgroup will be; nothing is made yet.
///
/// # Errors
/// A host without cgroups, where one is needed.
pub fn place(global: &Global, plan: &Plan) -> Result<(Hierarchies, Cgroup)> {
    if global.cgroup_manager == Manager::Disabled {
        // The mounts of the container may still want to show the host's cgroups.
        let hierarchies = Hierarchies::detect().unwrap_or_else(|_| Hierarchies::none());
        return Ok((hierarchies, Cgroup::none()));
    }
    match Hierarchies::detect() {
        Ok(hierarchies) => {
            let cgroup = Cgroup::new(&hierarchies, &plan.cgroup.path);
            Ok((hierarchies, cgroup))
        }
        Err(_) if may_go_without(global, plan) => Ok((Hierarchies::none(), Cgroup::none())),
        Err(error) => Err(error.into()),
    }
}

/// Makes the cgroup and sets its limits while it is empty. Whether less of it was made than `cgroup` was at first:
/// what a rootless user may not make is left out.
///
/// # Errors
/// A directory or a limit that is refused, and a cgroup that others use.
pub fn make<'a>(
    global: &Global,
    plan: &Plan,
    cgroup: &mut Cgroup,
    undo: &mut Undo<'a>,
) -> Result<bool> {
    if cgroup.is_none() {
        if global.cgroup_manager == Manager::Disabled && limits_anything(&plan.cgroup.resources) {
            return Err(Error::new("linux.resources: there is no cgroup to limit")
                .hint("--cgroup-manager is \"disabled\": leave it out, or the limits"));
        }
        return Ok(false);
    }
    let within = || "linux.cgroupsPath".to_owned();
    let (created, less) = create(global, plan, cgroup)?;
    if cgroup.is_none() {
        return Ok(less);
    }
    if cgroup.is_frozen().unwrap_or(false) {
        drop(created.undo());
        return Err(Error::new("container's cgroup unexpectedly frozen"));
    }
    // What undoes or deletes this container kills everything in its cgroup: nobody else may live there.
    let strangers = if cgroup.is_all_in(created.dirs()) {
        0
    } else {
        cgroup.processes().within(within)?.len()
    };
    if strangers > 0 {
        drop(created.undo());
        return Err(Error::new(format!(
            "container's cgroup is not empty: {strangers} process(es) found"
        )));
    }
    let copy = cgroup.clone();
    undo.push("the cgroup", move || {
        copy.kill_all()
            .and_then(|()| copy.remove())
            .and_then(|()| created.undo())
            .map_err(|error| error.to_string())
    });
    hand_over(plan, cgroup)?;
    cgroup
        .apply_limits(&plan.cgroup.resources)
        .map_err(|error| named("linux.resources", error))?;
    Ok(less)
}

fn create(global: &Global, plan: &Plan, cgroup: &mut Cgroup) -> Result<(Created, bool)> {
    let error = match cgroup.create() {
        Ok(created) => return Ok((created, false)),
        Err(error) => error,
    };
    let refused = error.is_refusal() && global.rootless;
    let advice =
        "without privileges a container with limits needs a cgroup that is delegated to its user";
    if !refused || plan.cgroup.named {
        return Err(Error::from(error).within("linux.cgroupsPath"));
    }
    if limits_anything(&plan.cgroup.resources) {
        let message =
            "rootless needs no limits + no cgrouppath when no permission is granted for cgroups";
        return Err(Error::from(error)
            .within(message)
            .within("linux.resources")
            .hint(advice));
    }
    let created = cgroup
        .create_permitted()
        .within(|| "linux.cgroupsPath".to_owned())?;
    Ok((created, true))
}

/// Makes the container's user the owner of the cgroup, where the plan says so.
///
/// # Errors
/// `EPERM` for another user's cgroup.
pub fn hand_over(plan: &Plan, cgroup: &Cgroup) -> Result<()> {
    let owner = plan.cgroup.owner;
    let handed = owner.map_or(Ok(()), |uid| cgroup.delegate(uid));
    handed.within(|| "linux.cgroupsPath".to_owned())
}

/// Sets the device rules. Loading their program on v2 takes the kernel a fifth of what a container takes; they count
/// for the container's program and its hooks, and until then only the runtime's own steps run.
///
/// # Errors
/// A kernel that cannot; a rootless container goes without.
pub fn control_devices(global: &Global, plan: &Plan, cgroup: &Cgroup) -> Result<()> {
    let rules = plan.cgroup.resources.devices.as_ref();
    let Some(rules) = rules.filter(|_| !cgroup.is_none()) else {
        return Ok(());
    };
    match cgroup.apply_devices(rules) {
        // Without privileges no device can be made, so there is none to keep from.
        Err(error) if global.rootless => {
            global.warn(&format!(
                "linux.resources.devices: {error} (ignored: rootless)"
            ));
            Ok(())
        }
        other => other.within(|| "linux.resources.devices".to_owned()),
    }
}

/// A refused limit by the name of its property, below `prefix`.
pub fn named(prefix: &str, error: sys::cgroup::Error) -> Error {
    let field = match error.field() {
        Some(field) => format!("{prefix}.{field}"),
        None => prefix.to_owned(),
    };
    Error::from(error).within(field)
}

/// Whether the container needs no cgroup of its own.
fn may_go_without(global: &Global, plan: &Plan) -> bool {
    !plan.cgroup.named && !limits_anything(&plan.cgroup.resources) && global.rootless
}

/// Whether any limit is asked for. Rules for devices are none: without privileges no device can be made anyway.
fn limits_anything(resources: &Resources) -> bool {
    let limits = Resources {
        devices: None,
        ..resources.clone()
    };
    limits != Resources::default()
}
