//! Namespaces, identity and confinement.

use engine::model::{
    Capabilities, ContainerSecurity, IdMapping, NamespaceMode, NamespaceOptions, PodSecurity,
    ProfileKind, SecurityProfile, SelinuxOptions, SupplementalGroupsPolicy, UserNamespace,
};
use proto::runtime::v1;
use proto::runtime::v1::security_profile::ProfileType;

use super::{Converted, Invalid, Within, known};

pub(crate) fn pod(from: v1::LinuxSandboxSecurityContext) -> Converted<PodSecurity> {
    #[allow(deprecated, reason = "old clients send only this one")]
    let old_seccomp = from.seccomp_profile_path;
    Ok(PodSecurity {
        namespaces: optional("namespace_options", from.namespace_options, namespaces)?
            .unwrap_or_default(),
        selinux: from.selinux_options.map(selinux),
        run_as_user: from.run_as_user.map(|v| v.value),
        run_as_group: from.run_as_group.map(|v| v.value),
        readonly_rootfs: from.readonly_rootfs,
        supplemental_groups: from.supplemental_groups,
        supplemental_groups_policy: groups_policy(from.supplemental_groups_policy)?,
        privileged: from.privileged,
        seccomp: seccomp(from.seccomp, &old_seccomp)?,
        apparmor: optional("apparmor", from.apparmor, profile)?,
    })
}

pub(crate) fn container(from: v1::LinuxContainerSecurityContext) -> Converted<ContainerSecurity> {
    #[allow(deprecated, reason = "old clients send only these")]
    let (old_seccomp, old_apparmor) = (from.seccomp_profile_path, from.apparmor_profile);
    Ok(ContainerSecurity {
        capabilities: from.capabilities.map(capabilities),
        privileged: from.privileged,
        namespaces: optional("namespace_options", from.namespace_options, namespaces)?
            .unwrap_or_default(),
        selinux: from.selinux_options.map(selinux),
        run_as_user: from.run_as_user.map(|v| v.value),
        run_as_group: from.run_as_group.map(|v| v.value),
        run_as_username: from.run_as_username,
        readonly_rootfs: from.readonly_rootfs,
        supplemental_groups: from.supplemental_groups,
        supplemental_groups_policy: groups_policy(from.supplemental_groups_policy)?,
        no_new_privs: from.no_new_privs,
        masked_paths: from.masked_paths,
        readonly_paths: from.readonly_paths,
        seccomp: seccomp(from.seccomp, &old_seccomp)?,
        apparmor: match from.apparmor {
            Some(new) => Some(profile(new).within("apparmor")?),
            None => old_profile("apparmor_profile", &old_apparmor)?,
        },
    })
}

pub(crate) fn namespaces(from: v1::NamespaceOption) -> Converted<NamespaceOptions> {
    let userns = |u: v1::UserNamespace| -> Converted<UserNamespace> {
        let (uids, gids) = (
            u.uids.into_iter().map(id_mapping).collect(),
            u.gids.into_iter().map(id_mapping).collect(),
        );
        Ok(UserNamespace {
            mode: mode("mode", u.mode)?,
            uids,
            gids,
        })
    };
    Ok(NamespaceOptions {
        network: mode("network", from.network)?,
        pid: mode("pid", from.pid)?,
        ipc: mode("ipc", from.ipc)?,
        target_id: from.target_id,
        userns: optional("userns_options", from.userns_options, userns)?,
    })
}

/// What a pod's status says of its namespaces.
pub(crate) fn namespaces_into(from: NamespaceOptions) -> v1::NamespaceOption {
    let back = |list: Vec<IdMapping>| list.into_iter().map(id_mapping_into).collect();
    v1::NamespaceOption {
        network: mode_into(from.network),
        pid: mode_into(from.pid),
        ipc: mode_into(from.ipc),
        target_id: from.target_id,
        userns_options: from.userns.map(|u| v1::UserNamespace {
            mode: mode_into(u.mode),
            uids: back(u.uids),
            gids: back(u.gids),
        }),
    }
}

pub(crate) fn id_mapping(from: v1::IdMapping) -> IdMapping {
    IdMapping {
        host_id: from.host_id,
        container_id: from.container_id,
        length: from.length,
    }
}

pub(crate) fn id_mapping_into(from: IdMapping) -> v1::IdMapping {
    v1::IdMapping {
        host_id: from.host_id,
        container_id: from.container_id,
        length: from.length,
    }
}

fn optional<A, B>(
    field: &str,
    from: Option<A>,
    convert: impl Fn(A) -> Converted<B>,
) -> Converted<Option<B>> {
    from.map(|value| convert(value).within(field)).transpose()
}

fn mode(field: &str, value: i32) -> Converted<NamespaceMode> {
    Ok(match known(field, value)? {
        v1::NamespaceMode::Pod => NamespaceMode::Pod,
        v1::NamespaceMode::Container => NamespaceMode::Container,
        v1::NamespaceMode::Node => NamespaceMode::Node,
        v1::NamespaceMode::Target => NamespaceMode::Target,
    })
}

fn mode_into(from: NamespaceMode) -> i32 {
    let mode = match from {
        NamespaceMode::Pod => v1::NamespaceMode::Pod,
        NamespaceMode::Container => v1::NamespaceMode::Container,
        NamespaceMode::Node => v1::NamespaceMode::Node,
        NamespaceMode::Target => v1::NamespaceMode::Target,
    };
    mode.into()
}

fn groups_policy(value: i32) -> Converted<SupplementalGroupsPolicy> {
    Ok(match known("supplemental_groups_policy", value)? {
        v1::SupplementalGroupsPolicy::Merge => SupplementalGroupsPolicy::Merge,
        v1::SupplementalGroupsPolicy::Strict => SupplementalGroupsPolicy::Strict,
    })
}

fn capabilities(from: v1::Capability) -> Capabilities {
    Capabilities {
        add: from.add_capabilities,
        drop: from.drop_capabilities,
        add_ambient: from.add_ambient_capabilities,
    }
}

fn selinux(from: v1::SeLinuxOption) -> SelinuxOptions {
    SelinuxOptions {
        user: from.user,
        role: from.role,
        kind: from.r#type,
        level: from.level,
    }
}

fn seccomp(new: Option<v1::SecurityProfile>, old: &str) -> Converted<Option<SecurityProfile>> {
    match new {
        Some(new) => profile(new).within("seccomp").map(Some),
        None => old_profile("seccomp_profile_path", old),
    }
}

fn profile(from: v1::SecurityProfile) -> Converted<SecurityProfile> {
    let kind = match known("profile_type", from.profile_type)? {
        ProfileType::RuntimeDefault => ProfileKind::RuntimeDefault,
        ProfileType::Unconfined => ProfileKind::Unconfined,
        ProfileType::Localhost => ProfileKind::Localhost,
    };
    Ok(SecurityProfile {
        kind,
        localhost_ref: from.localhost_ref,
    })
}

/// The deprecated spelling: `runtime/default`, `unconfined`, `localhost/<name or path>`, or empty for not set.
fn old_profile(field: &str, text: &str) -> Converted<Option<SecurityProfile>> {
    let kind = match text {
        "" => return Ok(None),
        "runtime/default" | "docker/default" => ProfileKind::RuntimeDefault,
        "unconfined" => ProfileKind::Unconfined,
        _ => ProfileKind::Localhost,
    };
    let localhost_ref = match (kind, text.strip_prefix("localhost/")) {
        (ProfileKind::Localhost, None) => {
            let problem =
                format!("{text:?} is none of runtime/default, unconfined and localhost/<profile>");
            return Err(Invalid::new(field, problem));
        }
        (_, reference) => reference.unwrap_or_default().to_owned(),
    };
    Ok(Some(SecurityProfile {
        kind,
        localhost_ref,
    }))
}
