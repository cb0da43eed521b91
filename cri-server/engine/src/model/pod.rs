//! Pods: what a caller asks for, and what is reported about them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{NamespaceOptions, PodSecurity, Resources};

/// The identity a caller gives a pod; name, namespace, uid and attempt together are unique on a node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodMetadata {
    /// The pod's name.
    pub name: String,
    /// The uid the caller knows it by.
    pub uid: String,
    /// Its Kubernetes namespace.
    pub namespace: String,
    /// How often the caller tried before.
    pub attempt: u32,
}

/// A request for a pod.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct PodConfig {
    /// Who the pod is.
    pub metadata: PodMetadata,
    /// The hostname; empty means the node's with the host's network, else the pod's name.
    pub hostname: String,
    /// The directory that container log paths are relative to; empty means no logs.
    pub log_directory: String,
    /// What goes into `/etc/resolv.conf`; `None` copies the host's file.
    pub dns: Option<DnsConfig>,
    /// Ports asked for on the host.
    pub port_mappings: Vec<PortMapping>,
    /// Labels, reported unaltered.
    pub labels: BTreeMap<String, String>,
    /// Annotations, reported unaltered.
    pub annotations: BTreeMap<String, String>,
    /// The cgroup under which the pod's cgroups are made; empty means the engine's own.
    pub cgroup_parent: String,
    /// Namespaced sysctls, by their dotted name.
    pub sysctls: BTreeMap<String, String>,
    /// Namespaces, identity and confinement.
    pub security: PodSecurity,
    /// Overhead of the pod itself; informative.
    pub overhead: Option<Resources>,
    /// The sum of its containers' resources; informative.
    pub resources: Option<Resources>,
}

/// A `resolv.conf` in pieces.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsConfig {
    /// `nameserver` lines.
    pub servers: Vec<String>,
    /// The words of the `search` line.
    pub searches: Vec<String>,
    /// The words of the `options` line.
    pub options: Vec<String>,
}

/// A port of the pod, and the host's port that leads to it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortMapping {
    /// The transport protocol.
    pub protocol: Protocol,
    /// The port inside the pod.
    pub container_port: i32,
    /// The port on the host; 0 exposes nothing.
    pub host_port: i32,
    /// The host's address to listen on; empty means every one.
    pub host_ip: String,
}

/// A transport protocol.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

/// Whether a pod can take containers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PodState {
    /// Its shim, namespaces and network are there.
    Ready,
    /// It was stopped, half made, or lost its shim or its init.
    NotReady,
}

/// What the engine knows of a pod.
#[derive(Debug, Clone, PartialEq)]
pub struct PodStatus {
    /// Its id: 64 hexadecimal digits.
    pub id: String,
    /// The request that made it.
    pub metadata: PodMetadata,
    /// Whether it can take containers.
    pub state: PodState,
    /// When it was made, in nanoseconds since 1970; never 0.
    pub created_at: i64,
    /// Its first address; empty with the host's network.
    pub ip: String,
    /// Its other addresses.
    pub additional_ips: Vec<String>,
    /// The namespaces it was asked to have.
    pub namespaces: NamespaceOptions,
    /// Labels as asked for.
    pub labels: BTreeMap<String, String>,
    /// Annotations as asked for.
    pub annotations: BTreeMap<String, String>,
    /// The runtime handler it uses, as the caller named it.
    pub handler: String,
    /// The pid of its shim; `None` when that is gone.
    pub shim_pid: Option<u32>,
    /// The path of its network namespace; `None` with the host's network.
    pub netns: Option<String>,
    /// Whether its record could be read. `false`: it is listed only so that it can be removed.
    pub known: bool,
    /// More for people: the request, addresses and paths.
    pub info: serde_json::Value,
}

/// Which pods to list; every set field must match.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PodFilter {
    /// An id or the unique beginning of one.
    pub id: Option<String>,
    /// The state.
    pub state: Option<PodState>,
    /// Labels that all must be present with these values.
    pub labels: BTreeMap<String, String>,
}
