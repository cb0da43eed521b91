//! What is asked for and not there yet is an error that names its field, never ignored.

use super::{Host, resources, userns};
use crate::error::{Error, Result};
use crate::model::{
    ContainerConfig, NamespaceMode, PodConfig, ProfileKind, SecurityProfile, SelinuxOptions,
};

const POD: &str = "linux.security_context";

/// The longest hostname: `HOST_NAME_MAX`.
const HOSTNAME_MAX: usize = 64;

/// Checks a pod's request before anything is done for it.
///
/// Its seccomp and AppArmor profiles are for the pod's own process; that one is our binary and runs
/// nothing of the user's, so they change nothing.
pub(crate) fn pod(config: &PodConfig, host: &Host) -> Result<()> {
    let meta = &config.metadata;
    for (field, value) in [
        ("metadata.name", &meta.name),
        ("metadata.uid", &meta.uid),
        ("metadata.namespace", &meta.namespace),
    ] {
        if value.is_empty() {
            return Err(Error::invalid(field, "empty"));
        }
    }
    if config.hostname.len() > HOSTNAME_MAX || config.hostname.contains(['\0', '\n', '/']) {
        return Err(Error::invalid(
            "hostname",
            format!(
                "{:?} is no hostname of at most {HOSTNAME_MAX} bytes",
                config.hostname
            ),
        ));
    }
    port_mappings(config)?;
    let security = &config.security;
    userns::check_pod(&security.namespaces)?;
    let modes = &security.namespaces;
    shared_only("network", modes.network)?;
    shared_only("ipc", modes.ipc)?;
    if modes.pid == NamespaceMode::Target {
        return Err(Error::invalid(
            format!("{POD}.namespace_options.pid"),
            "TARGET is for containers",
        ));
    }
    selinux(security.selinux.as_ref(), host)?;
    cgroup_parent(&config.cgroup_parent)?;
    sysctls(config)
}

/// A host port of 0 asks for nothing, and then the rest of the mapping is only information.
fn port_mappings(config: &PodConfig) -> Result<()> {
    for (index, mapping) in config.port_mappings.iter().enumerate() {
        let field = |name: &str| format!("port_mappings[{index}].{name}");
        let host_ip = mapping.host_ip.parse::<std::net::IpAddr>();
        if mapping.host_port == 0 {
            continue;
        }
        for (name, port) in [
            ("host_port", mapping.host_port),
            ("container_port", mapping.container_port),
        ] {
            if !(1..=65535).contains(&port) {
                return Err(Error::invalid(
                    field(name),
                    format!("{port} is not between 1 and 65535"),
                ));
            }
        }
        if !mapping.host_ip.is_empty() && host_ip.is_err() {
            return Err(Error::invalid(
                field("host_ip"),
                format!("{:?} is not an address", mapping.host_ip),
            ));
        }
    }
    Ok(())
}

/// Network and IPC belong to the whole pod.
fn shared_only(name: &str, mode: NamespaceMode) -> Result<()> {
    match mode {
        NamespaceMode::Pod | NamespaceMode::Node => Ok(()),
        other => Err(Error::invalid(
            format!("{POD}.namespace_options.{name}"),
            format!("{other:?}: only POD and NODE are possible").to_uppercase(),
        )),
    }
}

/// Without SELinux on the host a label is nothing to apply, as in containerd and CRI-O.
fn selinux(options: Option<&SelinuxOptions>, host: &Host) -> Result<()> {
    match options {
        Some(one) if host.selinux && !one.is_empty() => Err(Error::unsupported(
            format!("{POD}.selinux_options"),
            format!("{}:{}:{}:{}", one.user, one.role, one.kind, one.level),
        )),
        _ => Ok(()),
    }
}

fn cgroup_parent(path: &str) -> Result<()> {
    let wrong = path.split('/').any(|part| part == ".." || part == ".") || path.contains('\0');
    if wrong {
        return Err(Error::invalid(
            "linux.cgroup_parent",
            format!("{path:?} is no path of a cgroup"),
        ));
    }
    Ok(())
}

/// A sysctl of a namespace that the pod shares with the host would change the host.
fn sysctls(config: &PodConfig) -> Result<()> {
    let modes = &config.security.namespaces;
    for name in config.sysctls.keys() {
        let plain = name.replace('/', ".");
        let problem = if plain.starts_with("net.") {
            (modes.network == NamespaceMode::Node)
                .then_some("belongs to the network namespace, which is the host's here")
        } else if is_ipc(&plain) {
            (modes.ipc == NamespaceMode::Node)
                .then_some("belongs to the IPC namespace, which is the host's here")
        } else {
            Some("is not namespaced: it would change the whole node")
        };
        if let Some(problem) = problem {
            return Err(Error::invalid("linux.sysctls", format!("{name} {problem}")));
        }
        if plain.split('.').any(|part| part.is_empty()) || plain.contains('\0') {
            return Err(Error::invalid(
                "linux.sysctls",
                format!("{name:?} is no name of a sysctl"),
            ));
        }
    }
    Ok(())
}

/// The sysctls of the IPC namespace: the list of runc.
fn is_ipc(name: &str) -> bool {
    const NAMES: [&str; 8] = [
        "kernel.msgmax",
        "kernel.msgmnb",
        "kernel.msgmni",
        "kernel.sem",
        "kernel.shmall",
        "kernel.shmmax",
        "kernel.shmmni",
        "kernel.shm_rmid_forced",
    ];
    name.starts_with("fs.mqueue.") || NAMES.contains(&name)
}

/// Checks a container's request before anything is done for it.
pub(crate) fn container(config: &ContainerConfig, pod: &PodConfig, host: &Host) -> Result<()> {
    if config.metadata.name.is_empty() {
        return Err(Error::invalid("metadata.name", "empty"));
    }
    if config.image.image.is_empty() {
        return Err(Error::invalid("image.image", "empty"));
    }
    let security = &config.security;
    if security.privileged && !pod.security.privileged {
        return Err(Error::invalid(
            format!("{POD}.privileged"),
            "a privileged container needs a privileged pod",
        ));
    }
    userns::check_container(&security.namespaces, &pod.security.namespaces)?;
    selinux(security.selinux.as_ref(), host)?;
    if !security.privileged {
        apparmor(security.apparmor.as_ref(), host)?;
    }
    if let Some(limits) = &config.resources {
        resources::limits(limits, "linux.resources", host)?;
    }
    if let Some(device) = config.cdi_devices.first() {
        return Err(Error::unsupported("CDI_devices[0]", device.clone()));
    }
    for (index, mount) in config.mounts.iter().enumerate() {
        if !mount.image.is_empty() && !mount.host_path.is_empty() {
            return Err(Error::invalid(
                format!("mounts[{index}].image"),
                "a mount shows an image or a host_path, not both",
            ));
        }
        if mount.uid_mappings.is_empty() != mount.gid_mappings.is_empty() {
            return Err(Error::invalid(
                format!("mounts[{index}].uidMappings"),
                "user ids and group ids are mapped together, or none of them",
            ));
        }
    }
    Ok(())
}

/// Without AppArmor on the host the default profile is nothing to apply, as in containerd and CRI-O.
fn apparmor(profile: Option<&SecurityProfile>, host: &Host) -> Result<()> {
    let field = format!("{POD}.apparmor");
    match profile.map(|one| (one.kind, one)) {
        None | Some((ProfileKind::Unconfined, _)) => Ok(()),
        Some((ProfileKind::RuntimeDefault, _)) if !host.apparmor => Ok(()),
        Some((ProfileKind::RuntimeDefault, _)) => {
            Err(Error::unsupported(field, "profile RuntimeDefault"))
        }
        Some((ProfileKind::Localhost, one)) if !host.apparmor => Err(Error::invalid(
            field,
            format!(
                "profile {:?}: AppArmor is not enabled on this node",
                one.localhost_ref
            ),
        )),
        Some((ProfileKind::Localhost, one)) => Err(Error::unsupported(
            field,
            format!("profile {:?}", one.localhost_ref),
        )),
    }
}
