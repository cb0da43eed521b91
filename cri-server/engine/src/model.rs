//! What a front-end hands to the engine and gets back, in plain Rust.
//!
//! The types mirror what CRI carries, without its encoding: a second front-end fills the same structs.
//! Configurations are stored in the pod's and the container's record, so they round-trip byte for byte
//! over a restart of the daemon.

mod container;
mod image;
mod node;
mod pod;
mod security;
mod stats;

pub use container::{
    ContainerConfig, ContainerFilter, ContainerMetadata, ContainerState, ContainerStatus,
    ContainerUser, Device, EnvVar, ExecOutput, HugepageLimit, ImageSpec, Mount, MountPropagation,
    Resources,
};
pub use image::{FsUsage, Image, ImageProgress, ProgressSink, RegistryAuth};
pub use node::{Condition, HandlerFeatures, HandlerInfo};
pub use pod::{
    DnsConfig, PodConfig, PodFilter, PodMetadata, PodState, PodStatus, PortMapping, Protocol,
};
pub use security::{
    Capabilities, ContainerSecurity, IdMapping, NamespaceMode, NamespaceOptions, PodSecurity,
    ProfileKind, SecurityProfile, SelinuxOptions, SupplementalGroupsPolicy, UserNamespace,
};
pub use stats::{
    ContainerMetrics, ContainerStats, Detail, DeviceIo, InterfaceUsage, LayerUsage, PodMetrics,
    PodStats, Pressure, PressureLine, StatsFilter, Traffic, Usage,
};
