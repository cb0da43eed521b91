//! Capabilities: the default set, what is added to it and what is dropped
//! (<https://man7.org/linux/man-pages/man7/capabilities.7.html>).

use std::collections::BTreeSet;
use std::str::FromStr;

use oci_spec::runtime::{Capability, LinuxCapabilities};

use super::Host;
use crate::error::{Error, Result};
use crate::model::ContainerSecurity;

const FIELD: &str = "linux.security_context.capabilities";

/// What a container has when nothing is asked for: the set of docker, containerd and CRI-O.
const DEFAULT: [Capability; 14] = [
    Capability::Chown,
    Capability::DacOverride,
    Capability::Fsetid,
    Capability::Fowner,
    Capability::Mknod,
    Capability::NetRaw,
    Capability::Setgid,
    Capability::Setuid,
    Capability::Setfcap,
    Capability::Setpcap,
    Capability::NetBindService,
    Capability::SysChroot,
    Capability::Kill,
    Capability::AuditWrite,
];

/// By number, as in `linux/capability.h`.
const BY_NUMBER: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// The capabilities in the `CapEff` line of a `/proc/<pid>/status`.
pub(crate) fn effective(status: &str) -> Vec<Capability> {
    let mask = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .unwrap_or(0);
    BY_NUMBER
        .iter()
        .enumerate()
        .filter(|(number, _)| mask >> number & 1 == 1)
        .filter_map(|(_, name)| Capability::from_str(name).ok())
        .collect()
}

/// The sets of a container's first process.
pub(crate) fn sets(security: &ContainerSecurity, host: &Host) -> Result<LinuxCapabilities> {
    let chosen = if security.privileged {
        host.capabilities.clone()
    } else {
        choose(security, host)?
    };
    let ambient = match &security.capabilities {
        Some(asked) if !security.privileged => {
            let names = named(&asked.add_ambient, "add_ambient_capabilities", host)?;
            for one in &names {
                if !chosen.contains(one) {
                    // The kernel refuses an ambient capability that is not permitted and inheritable.
                    return Err(Error::invalid(
                        format!("{FIELD}.add_ambient_capabilities"),
                        format!("CAP_{one} is not among the container's capabilities"),
                    ));
                }
            }
            names
        }
        _ => Vec::new(),
    };
    let mut sets = LinuxCapabilities::default();
    sets.set_bounding(Some(chosen.iter().copied().collect()));
    sets.set_effective(Some(chosen.iter().copied().collect()));
    sets.set_permitted(Some(chosen.iter().copied().collect()));
    // Inheritable stays empty but for what is ambient (CVE-2022-24769).
    sets.set_inheritable(Some(ambient.iter().copied().collect()));
    sets.set_ambient(Some(ambient.iter().copied().collect()));
    Ok(sets)
}

/// The default set with the request applied: `ALL` first, then single names; a drop beats an add only
/// where the add was `ALL` (as containerd and CRI-O do it).
fn choose(security: &ContainerSecurity, host: &Host) -> Result<Vec<Capability>> {
    let has_all = |names: &[String]| names.iter().any(|name| name.eq_ignore_ascii_case("ALL"));
    let mut chosen: BTreeSet<String> = DEFAULT
        .iter()
        .filter(|one| host.has(**one))
        .map(Capability::to_string)
        .collect();
    if let Some(asked) = &security.capabilities {
        if has_all(&asked.add) {
            chosen = host
                .capabilities
                .iter()
                .map(Capability::to_string)
                .collect();
        }
        if has_all(&asked.drop) {
            chosen.clear();
        }
        for one in named(&asked.add, "add_capabilities", host)? {
            chosen.insert(one.to_string());
        }
        for one in parse(&asked.drop, "drop_capabilities")? {
            chosen.remove(&one.to_string());
        }
        // An ambient capability is one that the container has.
        for one in named(&asked.add_ambient, "add_ambient_capabilities", host)? {
            chosen.insert(one.to_string());
        }
    }
    Ok(chosen
        .iter()
        .filter_map(|name| Capability::from_str(name).ok())
        .collect())
}

/// The capabilities of a list without `ALL`; each must be one that the engine has.
fn named(names: &[String], list: &str, host: &Host) -> Result<Vec<Capability>> {
    let parsed = parse(names, list)?;
    match parsed.iter().find(|one| !host.has(**one)) {
        None => Ok(parsed),
        Some(missing) => Err(Error::invalid(
            format!("{FIELD}.{list}"),
            format!("CAP_{missing}: davit-cri itself does not have it, so it cannot give it"),
        )),
    }
}

/// The capabilities of a list without `ALL`.
fn parse(names: &[String], list: &str) -> Result<Vec<Capability>> {
    names
        .iter()
        .filter(|name| !name.eq_ignore_ascii_case("ALL"))
        .map(|name| {
            let upper = name.to_ascii_uppercase();
            let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
            Capability::from_str(bare).map_err(|_| {
                Error::invalid(
                    format!("{FIELD}.{list}"),
                    format!("{name:?} is no capability"),
                )
            })
        })
        .collect()
}
