//! Containers: what a caller asks for, and what is reported about them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::ContainerSecurity;

/// The identity a caller gives a container; unique in its pod.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerMetadata {
    /// The container's name.
    pub name: String,
    /// How often the caller tried before.
    pub attempt: u32,
}

/// Which image to use.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageSpec {
    /// The image: an id, a tag, a digest or a short name.
    pub image: String,
    /// What the user wrote, when the caller knows; reported unaltered.
    pub user_specified_image: String,
    /// Annotations, reported unaltered.
    pub annotations: BTreeMap<String, String>,
}

/// A request for a container.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ContainerConfig {
    /// Who the container is.
    pub metadata: ContainerMetadata,
    /// Its image.
    pub image: ImageSpec,
    /// Replaces the image's ENTRYPOINT.
    pub command: Vec<String>,
    /// Replaces the image's CMD.
    pub args: Vec<String>,
    /// Working directory; empty means the image's.
    pub working_dir: String,
    /// Environment, after the image's; the last of duplicates wins.
    pub envs: Vec<EnvVar>,
    /// Bind mounts.
    pub mounts: Vec<Mount>,
    /// Device nodes.
    pub devices: Vec<Device>,
    /// CDI device names.
    pub cdi_devices: Vec<String>,
    /// Labels, reported unaltered.
    pub labels: BTreeMap<String, String>,
    /// Annotations, reported unaltered.
    pub annotations: BTreeMap<String, String>,
    /// Log file relative to the pod's log directory; empty means no log.
    pub log_path: String,
    /// Whether stdin stays open.
    pub stdin: bool,
    /// Whether stdin closes after the first attach session.
    pub stdin_once: bool,
    /// Whether there is a terminal.
    pub tty: bool,
    /// Limits.
    pub resources: Option<Resources>,
    /// Identity and confinement.
    pub security: ContainerSecurity,
    /// The signal that asks it to stop, such as `SIGTERM`; `None` means the image's.
    pub stop_signal: Option<String>,
}

/// An environment variable. The value is bytes: nothing says that it is UTF-8.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnvVar {
    /// The name.
    pub key: String,
    /// The value.
    pub value: Vec<u8>,
}

/// How mounts travel between the host and the container.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MountPropagation {
    /// Not at all.
    #[default]
    Private,
    /// From the host into the container.
    HostToContainer,
    /// Both ways.
    Bidirectional,
}

/// A bind mount of a host path, or of an image.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Where it appears.
    pub container_path: String,
    /// What it shows; made as a directory when missing.
    pub host_path: String,
    /// Whether it is read-only.
    pub readonly: bool,
    /// Whether mounts below it are read-only too.
    pub recursive_read_only: bool,
    /// Whether it is to be relabelled for SELinux.
    pub selinux_relabel: bool,
    /// How mounts travel.
    pub propagation: MountPropagation,
    /// User id mappings of an idmapped mount; not empty is not supported yet.
    pub uid_mappings: Vec<super::IdMapping>,
    /// Group id mappings of an idmapped mount; not empty is not supported yet.
    pub gid_mappings: Vec<super::IdMapping>,
    /// The image it shows instead of a host path, read-only.
    pub image: String,
    /// What of the image; empty means all of it.
    pub image_sub_path: String,
}

/// A device node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Where it appears.
    pub container_path: String,
    /// The node on the host.
    pub host_path: String,
    /// Of `r`, `w` and `m`.
    pub permissions: String,
}

/// A limit of huge pages.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HugepageLimit {
    /// Such as `2MB`.
    pub page_size: String,
    /// Bytes.
    pub limit: u64,
}

/// Limits; 0 and empty mean not set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    /// CPU period in microseconds.
    pub cpu_period: i64,
    /// CPU time per period in microseconds.
    pub cpu_quota: i64,
    /// Relative CPU weight as cgroup v1 counts it.
    pub cpu_shares: i64,
    /// Memory in bytes.
    pub memory_limit_in_bytes: i64,
    /// How readily the kernel kills it.
    pub oom_score_adj: i64,
    /// CPUs it may use.
    pub cpuset_cpus: String,
    /// Memory nodes it may use.
    pub cpuset_mems: String,
    /// Huge pages.
    pub hugepage_limits: Vec<HugepageLimit>,
    /// Files of cgroup v2 and their values.
    pub unified: BTreeMap<String, String>,
    /// Memory and swap together in bytes.
    pub memory_swap_limit_in_bytes: i64,
}

/// How far a container is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ContainerState {
    /// Made, and its program waits.
    Created,
    /// Its program runs.
    Running,
    /// Its program ended.
    Exited,
    /// Its record could not be read; it can be removed.
    Unknown,
}

/// The ids a container's first process got.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerUser {
    /// User id.
    pub uid: i64,
    /// Group id.
    pub gid: i64,
    /// Further groups.
    pub supplemental_groups: Vec<i64>,
}

/// What the engine knows of a container.
#[derive(Debug, Clone, PartialEq)]
pub struct ContainerStatus {
    /// Its id: 64 hexadecimal digits.
    pub id: String,
    /// The pod it belongs to.
    pub pod_id: String,
    /// Who it is.
    pub metadata: ContainerMetadata,
    /// How far it is.
    pub state: ContainerState,
    /// When it was made, in nanoseconds since 1970; never 0.
    pub created_at: i64,
    /// When its program started; 0 before.
    pub started_at: i64,
    /// When its program ended; 0 before.
    pub finished_at: i64,
    /// Its exit code; 128 + signal when killed.
    pub exit_code: i32,
    /// The image as the caller named it.
    pub image: ImageSpec,
    /// The image as a reference with a digest, or its id when it has none.
    pub image_ref: String,
    /// The image's id.
    pub image_id: String,
    /// `Completed`, `Error`, `OOMKilled`, `StartError`, `Unknown`; empty before it ended.
    pub reason: String,
    /// What went wrong, for people.
    pub message: String,
    /// Labels as asked for.
    pub labels: BTreeMap<String, String>,
    /// Annotations as asked for.
    pub annotations: BTreeMap<String, String>,
    /// Mounts as asked for.
    pub mounts: Vec<Mount>,
    /// The full path of its log; empty when it has none.
    pub log_path: String,
    /// Limits that are in force.
    pub resources: Option<Resources>,
    /// The ids of its first process.
    pub user: Option<ContainerUser>,
    /// The signal that asks it to stop, such as `SIGTERM`.
    pub stop_signal: String,
    /// The pid of its first process on the host, while it lives.
    pub pid: Option<u32>,
    /// More for people: pid, sandboxID, runtimeSpec and paths.
    pub info: serde_json::Value,
}

/// Which containers to list; every set field must match.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ContainerFilter {
    /// An id or the unique beginning of one.
    pub id: Option<String>,
    /// The state.
    pub state: Option<ContainerState>,
    /// The pod's id or the unique beginning of one.
    pub pod_id: Option<String>,
    /// Labels that all must be present with these values.
    pub labels: BTreeMap<String, String>,
}

/// What a command in a container wrote, and how it ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExecOutput {
    /// The first 16 MiB of its standard output.
    pub stdout: Vec<u8>,
    /// The first 16 MiB of its standard error.
    pub stderr: Vec<u8>,
    /// Its exit code; 128 + signal when killed.
    pub exit_code: i32,
}
