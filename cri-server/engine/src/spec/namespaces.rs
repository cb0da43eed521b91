//! Which namespaces a container joins, gets for itself, or shares with the host.

use std::path::PathBuf;

use oci_spec::runtime::{LinuxNamespace, LinuxNamespaceType};

use super::Input;
use crate::error::{Error, Result};
use crate::model::NamespaceMode;

const FIELD: &str = "linux.security_context.namespace_options";

/// The namespaces of `config.json`; one that is not listed is the host's.
pub(crate) fn namespaces(input: &Input<'_>) -> Result<Vec<LinuxNamespace>> {
    let pod = &input.pod.security.namespaces;
    let own = &input.container.security.namespaces;
    let mut list = vec![fresh(LinuxNamespaceType::Mount)];
    if super::userns::ranges(pod).is_some() {
        let path = input.pod_dir.join("ns/user");
        list.push(joined(LinuxNamespaceType::User, path));
    }
    // What the pod shares with the host its containers share, too: there is no namespace to join.
    if pod.network != NamespaceMode::Node {
        if own.network != NamespaceMode::Node {
            list.push(joined(
                LinuxNamespaceType::Network,
                input.pod_dir.join("ns/net"),
            ));
        }
        list.push(joined(
            LinuxNamespaceType::Uts,
            input.pod_dir.join("ns/uts"),
        ));
    }
    if pod.ipc != NamespaceMode::Node && own.ipc != NamespaceMode::Node {
        list.push(joined(
            LinuxNamespaceType::Ipc,
            input.pod_dir.join("ns/ipc"),
        ));
    }
    match own.pid {
        NamespaceMode::Node => {}
        NamespaceMode::Container => list.push(fresh(LinuxNamespaceType::Pid)),
        NamespaceMode::Target => {
            let pid = input.target_pid.ok_or_else(|| {
                Error::invalid(
                    format!("{FIELD}.target_id"),
                    "the container does not run".to_owned(),
                )
            })?;
            list.push(joined(
                LinuxNamespaceType::Pid,
                format!("/proc/{pid}/ns/pid").into(),
            ));
        }
        NamespaceMode::Pod => match pod.pid {
            NamespaceMode::Pod => list.push(joined(
                LinuxNamespaceType::Pid,
                input.pod_dir.join("ns/pid"),
            )),
            NamespaceMode::Node => {}
            // POD is also what a request that names no mode carries (proto3 has no "unset"), so the pod decides.
            NamespaceMode::Container | NamespaceMode::Target => {
                list.push(fresh(LinuxNamespaceType::Pid));
            }
        },
    }
    // On v1 a cgroup namespace would hide from tools the paths that they expect.
    if input.host.unified && !input.container.security.privileged {
        list.push(fresh(LinuxNamespaceType::Cgroup));
    }
    Ok(list)
}

fn fresh(kind: LinuxNamespaceType) -> LinuxNamespace {
    let mut one = LinuxNamespace::default();
    one.set_typ(kind);
    one
}

fn joined(kind: LinuxNamespaceType, path: PathBuf) -> LinuxNamespace {
    let mut one = fresh(kind);
    one.set_path(Some(path));
    one
}
