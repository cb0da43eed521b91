//! Namespaces, identity and confinement of pods and containers.

use serde::{Deserialize, Serialize};

/// Whose namespace is used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NamespaceMode {
    /// One for the whole pod.
    #[default]
    Pod,
    /// One for this container.
    Container,
    /// The host's.
    Node,
    /// The one of the container [`NamespaceOptions::target_id`].
    Target,
}

/// Whose namespaces are used.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamespaceOptions {
    /// The network namespace: `Pod` or `Node`.
    pub network: NamespaceMode,
    /// The process namespace: any mode.
    pub pid: NamespaceMode,
    /// The IPC namespace: `Pod` or `Node`.
    pub ipc: NamespaceMode,
    /// The container whose process namespace is joined with `Target`.
    pub target_id: String,
    /// The user namespace, when asked for.
    pub userns: Option<UserNamespace>,
}

/// A user namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserNamespace {
    /// `Pod` or `Node`.
    pub mode: NamespaceMode,
    /// User id mappings.
    pub uids: Vec<IdMapping>,
    /// Group id mappings.
    pub gids: Vec<IdMapping>,
}

/// A range of ids.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdMapping {
    /// First id on the host.
    pub host_id: u32,
    /// First id inside.
    pub container_id: u32,
    /// How many.
    pub length: u32,
}

/// How `/etc/group` of the image counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SupplementalGroupsPolicy {
    /// Groups asked for, and those `/etc/group` gives the user.
    #[default]
    Merge,
    /// Only groups asked for.
    Strict,
}

/// A seccomp or AppArmor profile.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecurityProfile {
    /// Which kind.
    pub kind: ProfileKind,
    /// The file (seccomp) or the profile's name (AppArmor) with [`ProfileKind::Localhost`].
    pub localhost_ref: String,
}

/// Kinds of security profiles.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProfileKind {
    /// The runtime's own profile.
    #[default]
    RuntimeDefault,
    /// None.
    Unconfined,
    /// One from the node.
    Localhost,
}

/// An SELinux label in pieces.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SelinuxOptions {
    /// User part.
    pub user: String,
    /// Role part.
    pub role: String,
    /// Type part.
    #[serde(rename = "type")]
    pub kind: String,
    /// Level part.
    pub level: String,
}

impl SelinuxOptions {
    /// Whether nothing is asked for.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self == &Self::default()
    }
}

/// Confinement of a pod as a whole.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodSecurity {
    /// Whose namespaces are used.
    pub namespaces: NamespaceOptions,
    /// SELinux label.
    pub selinux: Option<SelinuxOptions>,
    /// User id of the pod's own process.
    pub run_as_user: Option<i64>,
    /// Group id of the pod's own process.
    pub run_as_group: Option<i64>,
    /// Whether the pod's own root file system is read-only.
    pub readonly_rootfs: bool,
    /// Further groups.
    pub supplemental_groups: Vec<i64>,
    /// How the image's groups count.
    pub supplemental_groups_policy: SupplementalGroupsPolicy,
    /// Whether its containers may be privileged.
    pub privileged: bool,
    /// Seccomp profile; `None` is unconfined.
    pub seccomp: Option<SecurityProfile>,
    /// AppArmor profile; `None` is the default of the caller.
    pub apparmor: Option<SecurityProfile>,
}

/// Capabilities to add and to drop, by name with or without `CAP_`; `ALL` stands for each one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities {
    /// To add.
    pub add: Vec<String>,
    /// To drop.
    pub drop: Vec<String>,
    /// To add to the ambient set too.
    pub add_ambient: Vec<String>,
}

/// Confinement of a container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerSecurity {
    /// Capabilities.
    pub capabilities: Option<Capabilities>,
    /// Every capability and device, `/sys` writable, nothing masked. Needs a privileged pod.
    pub privileged: bool,
    /// Whose namespaces are used.
    pub namespaces: NamespaceOptions,
    /// SELinux label.
    pub selinux: Option<SelinuxOptions>,
    /// User id.
    pub run_as_user: Option<i64>,
    /// Group id; needs a user.
    pub run_as_group: Option<i64>,
    /// User name, looked up in the image; empty means not set.
    pub run_as_username: String,
    /// Whether the root file system is read-only.
    pub readonly_rootfs: bool,
    /// Further groups.
    pub supplemental_groups: Vec<i64>,
    /// How the image's groups count.
    pub supplemental_groups_policy: SupplementalGroupsPolicy,
    /// Whether `execve` can give more rights.
    pub no_new_privs: bool,
    /// Paths hidden inside the container; the caller sends the whole list.
    pub masked_paths: Vec<String>,
    /// Paths that are read-only inside the container; the caller sends the whole list.
    pub readonly_paths: Vec<String>,
    /// Seccomp profile; `None` is unconfined.
    pub seccomp: Option<SecurityProfile>,
    /// AppArmor profile; `None` is the default of the caller.
    pub apparmor: Option<SecurityProfile>,
}
