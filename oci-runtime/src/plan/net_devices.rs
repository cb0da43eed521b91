//! `linux.netDevices`: interfaces of the host that move into the container's network namespace.
use std::collections::BTreeMap;

use sys::namespace::NamespaceKind;

use super::{NamespacePlan, Problems};
use crate::spec::NetDevice;

/// One interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetDevicePlan {
    /// Its name on the host.
    pub name: String,
    /// Its name in the container; with `%d` in it, the first number that is free there takes that place.
    pub name_inside: String,
}

/// The longest name of an interface, `IFNAMSIZ` without the final NUL.
const MAX_NAME: usize = 15;

/// Decides.
pub fn plan(
    devices: &BTreeMap<String, Option<NetDevice>>,
    namespaces: &NamespacePlan,
    problems: &mut Problems,
) -> Vec<NetDevicePlan> {
    problems.require(
        devices.is_empty() || namespaces.has(NamespaceKind::Net),
        "linux.netDevices",
        "unable to move network devices without a NET namespace",
    );
    let mut plan: Vec<NetDevicePlan> = Vec::with_capacity(devices.len());
    for (name, device) in devices {
        let field = format!("linux.netDevices[{name:?}]");
        problems.require(
            is_name(name) && !name.contains('%'),
            &field,
            &format!("invalid network device name {name:?}"),
        );
        let inside = device.as_ref().map(|device| device.name.as_str());
        let inside = inside.filter(|name| !name.is_empty()).unwrap_or(name);
        // The kernel knows no other template, and only one number.
        let template = inside.replacen("%d", "", 1);
        problems.require(
            is_name(inside) && !template.contains('%'),
            &format!("{field}.name"),
            &format!("invalid network device name {inside:?}"),
        );
        let taken = !inside.contains('%') && plan.iter().any(|other| other.name_inside == inside);
        problems.require(
            !taken,
            &format!("{field}.name"),
            &format!("{inside:?} is the name of another one in the container"),
        );
        plan.push(NetDevicePlan {
            name: name.clone(),
            name_inside: inside.to_owned(),
        });
    }
    plan
}

/// What the kernel takes as the name of an interface.
fn is_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= MAX_NAME
        && !matches!(name, "." | "..")
        && !name.contains(|char: char| {
            matches!(char, '/' | ':' | '\0') || char.is_ascii_whitespace() || char == '\u{b}'
        })
}
