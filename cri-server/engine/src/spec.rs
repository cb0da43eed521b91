//! From a request to `config.json`
//! (<https://github.com/opencontainers/runtime-spec/blob/main/config.md>).
//!
//! [`build`] is pure: whatever must be looked up on the host or in the image's file system is looked up
//! before and handed in, so that the rules can be tested as tables.

pub(crate) mod capabilities;
pub(crate) mod check;
pub(crate) mod devices;
pub(crate) mod host;
pub(crate) mod mounts;
pub(crate) mod namespaces;
pub(crate) mod process;
pub(crate) mod resources;
pub(crate) mod seccomp;
#[cfg(test)]
mod tests;
pub(crate) mod user;
pub(crate) mod userns;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{Linux, LinuxDevice, LinuxDeviceCgroup, Root, Spec};

use crate::error::Result;
use crate::model::{ContainerConfig, PodConfig};

pub(crate) use host::Host;
pub(crate) use mounts::ResolvedMount;
pub(crate) use user::ResolvedUser;

/// The version that the runc and crun of Debian 12 accept, too.
const OCI_VERSION: &str = "1.0.2";

/// What the image says about its process.
#[derive(Debug, Clone, Default)]
pub(crate) struct ImageProcess {
    /// `NAME=value` lines.
    pub(crate) env: Vec<String>,
    /// ENTRYPOINT.
    pub(crate) entrypoint: Vec<String>,
    /// CMD.
    pub(crate) cmd: Vec<String>,
    /// WORKDIR.
    pub(crate) working_dir: String,
}

/// Everything `config.json` is made of.
pub(crate) struct Input<'a> {
    /// The container's id.
    pub(crate) id: &'a str,
    /// The pod's id.
    pub(crate) pod_id: &'a str,
    /// The pod's request.
    pub(crate) pod: &'a PodConfig,
    /// The pod's directory, with its namespaces and files.
    pub(crate) pod_dir: &'a Path,
    /// The pod's hostname.
    pub(crate) hostname: &'a str,
    /// The container's request.
    pub(crate) container: &'a ContainerConfig,
    /// The image's part.
    pub(crate) image: &'a ImageProcess,
    /// The ids of the process.
    pub(crate) user: &'a ResolvedUser,
    /// The request's mounts, with their sources resolved.
    pub(crate) mounts: Vec<ResolvedMount>,
    /// The request's devices, looked up on the host.
    pub(crate) devices: Vec<(LinuxDevice, LinuxDeviceCgroup)>,
    /// The mounted root file system.
    pub(crate) rootfs: &'a Path,
    /// The cgroup.
    pub(crate) cgroup: PathBuf,
    /// With the process namespace of another container: its first process.
    pub(crate) target_pid: Option<u32>,
    /// The host.
    pub(crate) host: &'a Host,
}

/// Makes the configuration.
pub(crate) fn build(input: Input<'_>) -> Result<Spec> {
    let security = &input.container.security;
    let mut root = Root::default();
    root.set_path(input.rootfs.to_owned());
    root.set_readonly(Some(security.readonly_rootfs));

    let mut spec = Spec::default();
    spec.set_version(OCI_VERSION.to_owned());
    spec.set_root(Some(root));
    // The shim set the hostname in the namespace that the container joins.
    spec.set_hostname(None);
    spec.set_process(Some(process::process(&input)?));
    spec.set_mounts(Some(mounts::mounts(&input)?));
    spec.set_annotations(Some(annotations(&input)));
    let mut linux = linux(&input)?;
    if !security.privileged {
        let process = spec.process().as_ref();
        let capabilities = process.and_then(|process| process.capabilities().as_ref());
        let bounding = capabilities.and_then(|sets| sets.bounding().as_ref());
        linux.set_seccomp(seccomp::filter(security.seccomp.as_ref(), bounding)?);
    }
    spec.set_linux(Some(linux));
    Ok(spec)
}

/// The Linux part.
fn linux(input: &Input<'_>) -> Result<Linux> {
    let security = &input.container.security;
    let mut linux = Linux::default();
    linux.set_namespaces(Some(namespaces::namespaces(input)?));
    linux.set_cgroups_path(Some(input.cgroup.clone()));
    linux.set_resources(Some(resources::resources(input)?));
    linux.set_devices(Some(devices::nodes(input)));
    linux.set_rootfs_propagation(mounts::rootfs_propagation(&input.mounts).map(str::to_owned));
    let (masked, readonly) = match security.privileged {
        true => (Vec::new(), Vec::new()),
        // The lists are taken as they come: an empty one is how a caller asks for an unmasked /proc.
        false => (
            security.masked_paths.clone(),
            security.readonly_paths.clone(),
        ),
    };
    if let Some((uids, gids)) = userns::ranges(&input.pod.security.namespaces) {
        // Runtimes want them beside the path of the namespace.
        linux.set_uid_mappings(Some(userns::oci(std::slice::from_ref(uids))?));
        linux.set_gid_mappings(Some(userns::oci(std::slice::from_ref(gids))?));
    }
    linux.set_masked_paths(Some(masked));
    linux.set_readonly_paths(Some(readonly));
    Ok(linux)
}

/// The request's annotations, and the ones that tell tools which pod this is.
fn annotations(input: &Input<'_>) -> HashMap<String, String> {
    let mut all: HashMap<String, String> = input
        .container
        .annotations
        .iter()
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    let pod = &input.pod.metadata;
    for (key, value) in [
        ("io.kubernetes.cri.container-type", "container"),
        (
            "io.kubernetes.cri.container-name",
            input.container.metadata.name.as_str(),
        ),
        (
            "io.kubernetes.cri.image-name",
            input.container.image.image.as_str(),
        ),
        ("io.kubernetes.cri.sandbox-id", input.pod_id),
        ("io.kubernetes.cri.sandbox-name", pod.name.as_str()),
        (
            "io.kubernetes.cri.sandbox-namespace",
            pod.namespace.as_str(),
        ),
        ("io.kubernetes.cri.sandbox-uid", pod.uid.as_str()),
    ] {
        all.insert(key.to_owned(), value.to_owned());
    }
    // An empty key is not allowed in config.json.
    all.remove("");
    all
}
