//! Pods.

use engine::model::{
    DnsConfig, PodConfig, PodFilter, PodMetadata, PodState, PodStatus, PortMapping, Protocol,
};
use proto::runtime::v1;

use super::{Converted, Within, each, known, not_empty, required, resources, security};

pub(crate) fn config(from: v1::PodSandboxConfig) -> Converted<PodConfig> {
    let linux = from.linux.unwrap_or_default();
    let security = linux.security_context.map(security::pod).transpose();
    Ok(PodConfig {
        metadata: required("metadata", from.metadata).map(metadata)?,
        hostname: from.hostname,
        log_directory: from.log_directory,
        dns: from.dns_config.map(dns),
        port_mappings: each("port_mappings", from.port_mappings, port_mapping)?,
        labels: from.labels,
        annotations: from.annotations,
        cgroup_parent: linux.cgroup_parent,
        sysctls: linux.sysctls,
        security: security
            .within("linux.security_context")?
            .unwrap_or_default(),
        overhead: linux.overhead.map(resources::from),
        resources: linux.resources.map(resources::from),
    })
}

pub(crate) fn filter(from: Option<v1::PodSandboxFilter>) -> Converted<PodFilter> {
    let Some(from) = from else {
        return Ok(PodFilter::default());
    };
    let state = from
        .state
        .map(|s| known("state.state", s.state).map(state))
        .transpose()?;
    Ok(PodFilter {
        id: not_empty(from.id),
        state,
        labels: from.label_selector,
    })
}

/// A row of ListPodSandbox.
pub(crate) fn row(from: PodStatus) -> v1::PodSandbox {
    v1::PodSandbox {
        id: from.id,
        metadata: Some(metadata_into(from.metadata)),
        state: state_into(from.state),
        created_at: from.created_at,
        labels: from.labels,
        annotations: from.annotations,
        runtime_handler: from.handler,
    }
}

pub(crate) fn status(from: PodStatus) -> v1::PodSandboxStatus {
    let additional_ips = from
        .additional_ips
        .into_iter()
        .map(|ip| v1::PodIp { ip })
        .collect();
    let options = Some(security::namespaces_into(from.namespaces));
    v1::PodSandboxStatus {
        id: from.id,
        metadata: Some(metadata_into(from.metadata)),
        state: state_into(from.state),
        created_at: from.created_at,
        network: Some(v1::PodSandboxNetworkStatus {
            ip: from.ip,
            additional_ips,
        }),
        linux: Some(v1::LinuxPodSandboxStatus {
            namespaces: Some(v1::Namespace { options }),
        }),
        labels: from.labels,
        annotations: from.annotations,
        runtime_handler: from.handler,
    }
}

fn metadata(from: v1::PodSandboxMetadata) -> PodMetadata {
    PodMetadata {
        name: from.name,
        uid: from.uid,
        namespace: from.namespace,
        attempt: from.attempt,
    }
}

pub(super) fn metadata_into(from: PodMetadata) -> v1::PodSandboxMetadata {
    v1::PodSandboxMetadata {
        name: from.name,
        uid: from.uid,
        namespace: from.namespace,
        attempt: from.attempt,
    }
}

fn dns(from: v1::DnsConfig) -> DnsConfig {
    DnsConfig {
        servers: from.servers,
        searches: from.searches,
        options: from.options,
    }
}

fn port_mapping(from: v1::PortMapping) -> Converted<PortMapping> {
    let protocol = match known("protocol", from.protocol)? {
        v1::Protocol::Tcp => Protocol::Tcp,
        v1::Protocol::Udp => Protocol::Udp,
        v1::Protocol::Sctp => Protocol::Sctp,
    };
    let (container_port, host_port) = (from.container_port, from.host_port);
    Ok(PortMapping {
        protocol,
        container_port,
        host_port,
        host_ip: from.host_ip,
    })
}

fn state(from: v1::PodSandboxState) -> PodState {
    match from {
        v1::PodSandboxState::SandboxReady => PodState::Ready,
        v1::PodSandboxState::SandboxNotready => PodState::NotReady,
    }
}

fn state_into(from: PodState) -> i32 {
    let state = match from {
        PodState::Ready => v1::PodSandboxState::SandboxReady,
        PodState::NotReady => v1::PodSandboxState::SandboxNotready,
    };
    state.into()
}
