//! Cgroups that systemd makes: the container's processes are a unit, a scope, that is asked for over D-Bus.
//!
//! Of D-Bus there is as much as this takes: calls and their answers, one signal, over a unix socket, one request at a
//! time. systemd's own socket is used where possible, so that no message bus need run.
//!
//! Order of use: [`Systemd::connect`], [`Systemd::greet`]; then [`Systemd::start`] with the new process's id among
//! [`unit_properties`], [`Systemd::finish`]; then the cgroup at [`place`] is there with the process in it, and
//! [`super::Cgroup::create`] and [`super::Cgroup::apply`] add what systemd does not do.

mod address;
mod below;
mod connection;
mod devices;
mod error;
mod manager;
mod message;
mod properties;
mod reader;
mod unified;
mod unit;
mod update;
mod value;
pub mod variant;

#[cfg(test)]
mod tests;

use std::path::Path;

pub use address::Bus;
pub use error::{Error, Result};
pub use manager::{Property, Starting, Systemd};
pub use properties::{Target, as_rounded, for_resources};
pub use unit::{Unit, expand_slice};
pub use update::{UpdateError, update};
pub use value::Value;

use super::node::Node;
use super::{Cgroup, Hierarchies, Mode, Resources};

impl Target {
    /// How this systemd on this host wants its properties.
    #[must_use]
    pub fn new(hierarchies: &Hierarchies, systemd: &Systemd) -> Self {
        Self {
            v2: hierarchies.mode() == Mode::V2,
            version: systemd.version(),
        }
    }
}

/// What a unit for the process `pid` is, without its limits. `extra` comes last, so that it overrides.
#[must_use]
pub fn unit_properties(
    unit: &Unit,
    pid: u32,
    resources: &Resources,
    target: Target,
    extra: &[Property],
) -> Vec<Property> {
    let mut list: Vec<Property> = Vec::with_capacity(16);
    let mut set = |name: &str, value| list.push((name.to_owned(), value));
    let description = format!("libcontainer container {}", unit.label());
    set("Description", Value::Str(description));
    if unit.is_slice() {
        let slice = Value::str(unit.slice());
        set("Wants", Value::Array("s".into(), vec![slice]));
    } else {
        set("Slice", Value::str(unit.slice()));
        // What is below the scope's cgroup is ours and the container's.
        set("Delegate", Value::Bool(true));
        set("PIDs", Value::Array("u".into(), vec![Value::U32(pid)]));
    }
    let io = if target.v2 {
        "IOAccounting"
    } else {
        "BlockIOAccounting"
    };
    for accounting in ["MemoryAccounting", "CPUAccounting", io, "TasksAccounting"] {
        set(accounting, Value::Bool(true));
    }
    // It neither waits for the boot nor ends with what such units end with.
    set("DefaultDependencies", Value::Bool(false));
    if target.version >= 236 {
        // One that failed does not keep its name.
        set("CollectMode", Value::str("inactive-or-failed"));
    }
    if let Some(policy) = unified::oom_policy(&resources.unified, target.version)
        && target.v2
    {
        set("OOMPolicy", policy);
    }
    list.extend_from_slice(extra);
    list
}

/// The cgroup of a unit, which need not exist. `root` is [`Systemd::control_group`].
#[must_use]
pub fn place(hierarchies: &Hierarchies, root: &str, unit: &Unit) -> Cgroup {
    at(hierarchies, &format!("{root}{}", unit.path()))
}

/// The same path in every hierarchy, in the words of /proc.
fn at(hierarchies: &Hierarchies, path: &str) -> Cgroup {
    let node = |hierarchy| Node::new(hierarchy, hierarchy.dir_of(Path::new(path)));
    Cgroup {
        nodes: hierarchies.list().iter().map(node).collect(),
    }
}
