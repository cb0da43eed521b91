//! `linux.sysctl`: only what belongs to a namespace of the container.
use std::collections::BTreeMap;
use std::path::PathBuf;

use sys::namespace::NamespaceKind;

use super::{NamespacePlan, Problems};

/// One kernel parameter: its file below `/proc`, its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SysctlPlan {
    /// The name as the spec gives it.
    pub name: String,
    /// Relative to a procfs.
    pub path: PathBuf,
    /// What to write.
    pub value: String,
}

/// Parameters of the IPC namespace.
const IPC: [&str; 11] = [
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
    "kernel.msg_next_id",
    "kernel.sem_next_id",
    "kernel.shm_next_id",
];

/// Decides. Names may be written with dots or with slashes, as sysctl(8) takes both.
pub fn plan(
    sysctl: &BTreeMap<String, String>,
    namespaces: &NamespacePlan,
    hostname_set: bool,
    problems: &mut Problems,
) -> Vec<SysctlPlan> {
    let mut plan = Vec::with_capacity(sysctl.len());
    for (name, value) in sysctl {
        match check(name, value, namespaces, hostname_set) {
            Ok(path) => plan.push(SysctlPlan {
                name: name.clone(),
                path,
                value: value.clone(),
            }),
            Err(reason) => problems.push(format!("linux.sysctl[{name:?}]"), reason),
        }
    }
    plan
}

fn check(
    name: &str,
    value: &str,
    namespaces: &NamespacePlan,
    hostname_set: bool,
) -> Result<PathBuf, String> {
    if value.contains('\0') {
        return Err("the value holds a NUL byte".to_owned());
    }
    let parts = parts(name);
    if parts.iter().any(|part| {
        part.is_empty() || matches!(part.as_str(), "." | "..") || part.contains(['/', '\0'])
    }) {
        return Err("not the name of a kernel parameter".to_owned());
    }
    let dotted = parts.join(".");
    let needs = |kind: NamespaceKind| {
        if namespaces.has(kind) {
            Ok(())
        } else {
            Err(format!("not allowed without a {kind} namespace of its own"))
        }
    };
    match dotted.as_str() {
        name if IPC.contains(&name) || name.starts_with("fs.mqueue.") => needs(NamespaceKind::Ipc)?,
        name if name.starts_with("net.") => needs(NamespaceKind::Net)?,
        name if name.starts_with("user.") => needs(NamespaceKind::User)?,
        "kernel.domainname" => needs(NamespaceKind::Uts)?,
        "kernel.hostname" if hostname_set => return Err("conflicts with hostname".to_owned()),
        "kernel.hostname" => needs(NamespaceKind::Uts)?,
        _ => return Err("not in a separate kernel namespace".to_owned()),
    }
    let mut path = PathBuf::from("sys");
    path.extend(&parts);
    Ok(path)
}

/// The components: with slashes first (`net/ipv4/conf/eth0.1/forwarding`) or with dots, where a slash within
/// stands for a dot (`net.ipv4.conf.eth0/1.forwarding`), whichever comes first in the name.
fn parts(name: &str) -> Vec<String> {
    let slash_first = name
        .find(['.', '/'])
        .is_some_and(|at| name.as_bytes().get(at) == Some(&b'/'));
    if slash_first {
        name.split('/').map(str::to_owned).collect()
    } else {
        name.split('.').map(|part| part.replace('/', ".")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{Linux, Namespace};

    fn namespaces(kinds: &[&str]) -> NamespacePlan {
        let namespace = |kind: &&str| Namespace {
            kind: (*kind).to_owned(),
            path: String::new(),
        };
        let linux = Linux {
            namespaces: kinds.iter().map(namespace).collect(),
            ..Linux::default()
        };
        NamespacePlan::new(&linux, &mut Problems::default())
    }

    #[test]
    fn a_parameter_needs_its_namespace() {
        let own = namespaces(&["mount", "ipc", "network", "uts"]);
        let host = namespaces(&["mount"]);
        for name in [
            "kernel.shmmax",
            "fs.mqueue.msg_max",
            "net.ipv4.ip_forward",
            "kernel.domainname",
        ] {
            check(name, "1", &own, false).unwrap();
            assert!(check(name, "1", &host, false).is_err(), "{name}");
        }
    }

    #[test]
    fn parameters_of_the_host_are_refused() {
        let own = namespaces(&["mount", "ipc", "network", "uts"]);
        for name in [
            "kernel.core_pattern",
            "vm.swappiness",
            "fs.file-max",
            "net.../x",
            "",
            "net",
            "net..x",
            "kernel.shmmax/../x",
        ] {
            assert!(check(name, "1", &own, false).is_err(), "{name}");
        }
        assert!(
            check("kernel.hostname", "x", &own, true)
                .unwrap_err()
                .contains("conflicts")
        );
    }

    #[test]
    fn dots_and_slashes_name_the_same_file() {
        let own = namespaces(&["mount", "network"]);
        let expect = PathBuf::from("sys/net/ipv4/conf/eth0.1/forwarding");
        for name in [
            "net/ipv4/conf/eth0.1/forwarding",
            "net.ipv4.conf.eth0/1.forwarding",
        ] {
            assert_eq!(check(name, "1", &own, false).unwrap(), expect, "{name}");
        }
    }
}
