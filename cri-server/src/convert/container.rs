//! Containers.

use engine::model::{
    ContainerConfig, ContainerFilter, ContainerMetadata, ContainerState, ContainerStatus, Device,
    EnvVar, ImageSpec, Mount, MountPropagation,
};
use proto::runtime::v1;

use super::{
    Converted, Invalid, Within, each, image, known, not_empty, required, resources, security,
    signal,
};

pub(crate) fn config(from: v1::ContainerConfig) -> Converted<ContainerConfig> {
    let linux = from.linux.unwrap_or_default();
    let security = linux.security_context.map(security::container).transpose();
    Ok(ContainerConfig {
        metadata: required("metadata", from.metadata).map(metadata)?,
        image: required("image", from.image).and_then(|spec| image::spec(spec).within("image"))?,
        command: from.command,
        args: from.args,
        working_dir: from.working_dir,
        envs: from
            .envs
            .into_iter()
            .map(|e| EnvVar {
                key: e.key,
                value: e.value,
            })
            .collect(),
        mounts: each("mounts", from.mounts, mount)?,
        devices: from.devices.into_iter().map(device).collect(),
        cdi_devices: from.cdi_devices.into_iter().map(|d| d.name).collect(),
        labels: from.labels,
        annotations: from.annotations,
        log_path: from.log_path,
        stdin: from.stdin,
        stdin_once: from.stdin_once,
        tty: from.tty,
        resources: linux.resources.map(resources::from),
        security: security
            .within("linux.security_context")?
            .unwrap_or_default(),
        stop_signal: signal::name("stop_signal", from.stop_signal)?,
    })
}

pub(crate) fn filter(from: Option<v1::ContainerFilter>) -> Converted<ContainerFilter> {
    let Some(from) = from else {
        return Ok(ContainerFilter::default());
    };
    let state = from
        .state
        .map(|s| known("state.state", s.state).map(state))
        .transpose()?;
    let (id, pod_id) = (not_empty(from.id), not_empty(from.pod_sandbox_id));
    Ok(ContainerFilter {
        id,
        state,
        pod_id,
        labels: from.label_selector,
    })
}

/// A row of ListContainers.
pub(crate) fn row(from: ContainerStatus) -> v1::Container {
    v1::Container {
        id: from.id,
        pod_sandbox_id: from.pod_id,
        metadata: Some(metadata_into(from.metadata)),
        image: Some(image_into(from.image)),
        // As containerd does it: the image's id in a list, a digest of its repository in a status.
        image_ref: from.image_id.clone(),
        state: state_into(from.state),
        created_at: from.created_at,
        labels: from.labels,
        annotations: from.annotations,
        image_id: from.image_id,
    }
}

pub(crate) fn status(from: ContainerStatus) -> v1::ContainerStatus {
    let user = from.user.map(|u| v1::ContainerUser {
        linux: Some(v1::LinuxContainerUser {
            uid: u.uid,
            gid: u.gid,
            supplemental_groups: u.supplemental_groups,
        }),
    });
    let linux = from.resources.map(resources::into);
    v1::ContainerStatus {
        id: from.id,
        metadata: Some(metadata_into(from.metadata)),
        state: state_into(from.state),
        created_at: from.created_at,
        started_at: from.started_at,
        finished_at: from.finished_at,
        exit_code: from.exit_code,
        image: Some(image_into(from.image)),
        image_ref: from.image_ref,
        reason: from.reason,
        message: from.message,
        labels: from.labels,
        annotations: from.annotations,
        mounts: from.mounts.into_iter().map(mount_into).collect(),
        log_path: from.log_path,
        resources: linux.map(|linux| v1::ContainerResources {
            linux: Some(linux),
            windows: None,
        }),
        image_id: from.image_id,
        user,
        stop_signal: signal::number(&from.stop_signal),
    }
}

fn metadata(from: v1::ContainerMetadata) -> ContainerMetadata {
    ContainerMetadata {
        name: from.name,
        attempt: from.attempt,
    }
}

pub(super) fn metadata_into(from: ContainerMetadata) -> v1::ContainerMetadata {
    v1::ContainerMetadata {
        name: from.name,
        attempt: from.attempt,
    }
}

fn image_into(from: ImageSpec) -> v1::ImageSpec {
    v1::ImageSpec {
        image: from.image,
        annotations: from.annotations,
        user_specified_image: from.user_specified_image,
        ..Default::default()
    }
}

fn device(from: v1::Device) -> Device {
    Device {
        container_path: from.container_path,
        host_path: from.host_path,
        permissions: from.permissions,
    }
}

fn mount(from: v1::Mount) -> Converted<Mount> {
    if !from.mount_options.is_empty() {
        // Status says so in features.mount_options; a client that sends it all the same must not lose noexec silently.
        let problem = format!(
            "{:?}: additional mount options are not supported yet",
            from.mount_options
        );
        return Err(Invalid::new("mount_options", problem));
    }
    let propagation = match known("propagation", from.propagation)? {
        v1::MountPropagation::PropagationPrivate => MountPropagation::Private,
        v1::MountPropagation::PropagationHostToContainer => MountPropagation::HostToContainer,
        v1::MountPropagation::PropagationBidirectional => MountPropagation::Bidirectional,
    };
    Ok(Mount {
        container_path: from.container_path,
        host_path: from.host_path,
        readonly: from.readonly,
        recursive_read_only: from.recursive_read_only,
        selinux_relabel: from.selinux_relabel,
        propagation,
        uid_mappings: from
            .uid_mappings
            .into_iter()
            .map(security::id_mapping)
            .collect(),
        gid_mappings: from
            .gid_mappings
            .into_iter()
            .map(security::id_mapping)
            .collect(),
        image: from.image.map(|spec| spec.image).unwrap_or_default(),
        image_sub_path: from.image_sub_path,
    })
}

fn mount_into(from: Mount) -> v1::Mount {
    let propagation = match from.propagation {
        MountPropagation::Private => v1::MountPropagation::PropagationPrivate,
        MountPropagation::HostToContainer => v1::MountPropagation::PropagationHostToContainer,
        MountPropagation::Bidirectional => v1::MountPropagation::PropagationBidirectional,
    };
    v1::Mount {
        container_path: from.container_path,
        host_path: from.host_path,
        readonly: from.readonly,
        selinux_relabel: from.selinux_relabel,
        propagation: propagation.into(),
        uid_mappings: from
            .uid_mappings
            .into_iter()
            .map(security::id_mapping_into)
            .collect(),
        gid_mappings: from
            .gid_mappings
            .into_iter()
            .map(security::id_mapping_into)
            .collect(),
        recursive_read_only: from.recursive_read_only,
        image: not_empty(from.image).map(|image| v1::ImageSpec {
            image,
            ..Default::default()
        }),
        image_sub_path: from.image_sub_path,
        mount_options: Vec::new(),
    }
}

fn state(from: v1::ContainerState) -> ContainerState {
    match from {
        v1::ContainerState::ContainerCreated => ContainerState::Created,
        v1::ContainerState::ContainerRunning => ContainerState::Running,
        v1::ContainerState::ContainerExited => ContainerState::Exited,
        v1::ContainerState::ContainerUnknown => ContainerState::Unknown,
    }
}

fn state_into(from: ContainerState) -> i32 {
    let state = match from {
        ContainerState::Created => v1::ContainerState::ContainerCreated,
        ContainerState::Running => v1::ContainerState::ContainerRunning,
        ContainerState::Exited => v1::ContainerState::ContainerExited,
        ContainerState::Unknown => v1::ContainerState::ContainerUnknown,
    };
    state.into()
}
