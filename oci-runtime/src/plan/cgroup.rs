//! `linux.cgroupsPath` and `linux.resources` in the terms of `sys::cgroup`.
use std::path::Path;

use sys::cgroup::{self, CgroupPath, DeviceAccess, DeviceRule, DeviceType};

use sys::mount::MountAttr;
use sys::namespace::NamespaceKind;

use super::mounts::{MountPlan, MountSource};
use super::{NamespacePlan, Problems, SystemdPlan, limits, systemd};
use crate::spec;

/// Who makes the container's cgroup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Manager {
    /// This runtime, by making directories.
    #[default]
    Cgroupfs,
    /// systemd, as a unit: `--systemd-cgroup`.
    Systemd {
        /// The service manager of the caller, not that of the host.
        user: bool,
    },
    /// Nobody: containers stay in the cgroup of their maker.
    Disabled,
}

/// The cgroup and its limits.
#[derive(Debug, Clone)]
pub struct CgroupPlan {
    /// Where.
    pub path: CgroupPath,
    /// Whether the configuration names the place.
    pub named: bool,
    /// Limits; only what the spec sets.
    pub resources: cgroup::Resources,
    /// The unit that systemd makes; the path is then its place below systemd's own cgroup.
    pub systemd: Option<SystemdPlan>,
    /// The user of the host to whom it is handed over, where v2 is alone.
    pub owner: Option<u32>,
}

impl CgroupPlan {
    /// Whether the container gets a cgroup below its own to manage.
    pub fn delegates(&self) -> bool {
        self.systemd
            .as_ref()
            .is_some_and(|unit| !unit.delegate.is_empty())
    }
}

/// Whose the cgroup becomes: the container's user, if the container can write to its cgroups and sees no others, which
/// takes a new cgroup namespace and a writable mount. None where that is nobody else than the caller, or not known.
pub fn owner(namespaces: &NamespacePlan, mounts: &[MountPlan], uid: u32) -> Option<u32> {
    let writable = |mount: &MountPlan| {
        mount.source == MountSource::Cgroup
            && mount.destination == Path::new("/sys/fs/cgroup")
            && !mount.options.set.contains(MountAttr::MOUNT_ATTR_RDONLY)
    };
    if !namespaces.is_new(NamespaceKind::Cgroup) || !mounts.iter().any(writable) {
        return None;
    }
    let host = if namespaces.has(NamespaceKind::User) {
        namespaces.uid_map.iter().find_map(|range| {
            let offset = uid.checked_sub(range.container_id)?;
            let host = range.host_id.checked_add(offset)?;
            (offset < range.size).then_some(host)
        })
    } else {
        Some(uid)
    };
    host.filter(|uid| *uid != 0)
}

/// Decides on the cgroup of a container. Without a path it is named for the container, below the caller's own.
pub fn plan(
    manager: Manager,
    id: &str,
    spec: &spec::Spec,
    problems: &mut Problems,
) -> Option<CgroupPlan> {
    let (linux, version) = (&spec.linux, &spec.oci_version);
    let mut resources = resources(&linux.resources, version, "linux.resources", problems);
    // Without rules a container still gets no more than the default devices.
    resources.devices.get_or_insert_default();
    let (systemd, text) = match manager {
        Manager::Systemd { user } => {
            let (path, annotations) = (&linux.cgroups_path, &spec.annotations);
            let unit = systemd::plan(user, id, path, annotations, problems)?;
            let text = unit.unit.path();
            (Some(unit), text)
        }
        _ if linux.cgroups_path.is_empty() => (None, id.to_owned()),
        _ => (None, linux.cgroups_path.clone()),
    };
    match CgroupPath::new(text) {
        Ok(path) => Some(CgroupPlan {
            path,
            named: !linux.cgroups_path.is_empty(),
            resources,
            systemd,
            owner: None,
        }),
        Err(error) => {
            problems.push("linux.cgroupsPath", error.to_string());
            None
        }
    }
}

/// Converts the limits; also what `update` gets. `version` is the `ociVersion` of the container's configuration,
/// `prefix` is for messages.
pub fn resources(
    spec: &spec::Resources,
    version: &str,
    prefix: &str,
    problems: &mut Problems,
) -> cgroup::Resources {
    for key in spec.unified.keys() {
        let plain = !key.is_empty() && !key.contains('/') && !key.contains('\0');
        problems.require(
            plain,
            &format!("{prefix}.unified"),
            &format!("{key:?} is not the name of a file"),
        );
    }
    let sizes = [
        ("limit", spec.memory.limit),
        ("swap", spec.memory.swap),
        ("reservation", spec.memory.reservation),
        ("kernelTCP", spec.memory.kernel_tcp),
    ];
    for (name, size) in sizes {
        let known = size.is_none_or(|size| size >= -1);
        problems.require(
            known,
            &format!("{prefix}.memory.{name}"),
            "negative; only -1 means unlimited",
        );
    }
    let text = |value: &String| (!value.is_empty()).then(|| value.clone());
    let (memory, cpu) = (&spec.memory, &spec.cpu);
    cgroup::Resources {
        memory: cgroup::Memory {
            // 0 is "not set": podman and docker write it.
            limit: memory.limit.filter(|limit| *limit != 0),
            swap: memory.swap.filter(|limit| *limit != 0),
            reservation: memory.reservation.filter(|limit| *limit != 0),
            // runc's spelling of "not set", -1, as the unsigned number that it is in JSON.
            swappiness: memory.swappiness.filter(|value| *value != u64::MAX),
            disable_oom_killer: memory.disable_oom_killer,
            use_hierarchy: memory.use_hierarchy,
            kernel_tcp: memory.kernel_tcp.filter(|limit| *limit != 0),
            check_before_update: memory.check_before_update.unwrap_or(false),
        },
        cpu: cgroup::Cpu {
            shares: cpu.shares.filter(|shares| *shares != 0),
            quota: cpu.quota.filter(|quota| *quota != 0),
            period: cpu.period.filter(|period| *period != 0),
            burst: cpu.burst,
            idle: cpu.idle,
            realtime_runtime: cpu.realtime_runtime.filter(|runtime| *runtime != 0),
            realtime_period: cpu.realtime_period.filter(|period| *period != 0),
            cpus: text(&cpu.cpus),
            mems: text(&cpu.mems),
        },
        pids_limit: spec.pids.limit.map(|limit| pids_limit(limit, version)),
        devices: devices(&spec.devices, prefix, problems),
        block_io: limits::block_io(&spec.block_io, &format!("{prefix}.blockIO"), problems),
        hugepages: limits::hugepages(
            &spec.hugepage_limits,
            &format!("{prefix}.hugepageLimits"),
            problems,
        ),
        network: limits::network(&spec.network, &format!("{prefix}.network"), problems),
        rdma: limits::rdma(&spec.rdma, &format!("{prefix}.rdma"), problems),
        unified: spec
            .unified
            .iter()
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect(),
    }
}

/// What to warn of: limits that no kernel knows any more.
pub fn warning(spec: &spec::Resources) -> Option<&'static str> {
    let memory = &spec.memory;
    memory
        .kernel
        .is_some()
        .then_some("Kernel memory settings are ignored and will be removed")
}

/// Before version 1.3 of the spec 0 was "no limit": podman and docker write it, and runc and crun take it so. Since
/// then it is a limit; the first process is there in any case, and the kernel counts 0 and 1 alike once it is, but
/// only into a cgroup with room for it can a process be born.
fn pids_limit(limit: i64, version: &str) -> i64 {
    let mut numbers = version
        .split(['.', '-', '+'])
        .map(|number| number.parse::<u32>().unwrap_or(0));
    let version = (numbers.next(), numbers.next());
    match limit {
        0 if version < (Some(1), Some(3)) => -1,
        0 => 1,
        other => other,
    }
}

fn devices(
    rules: &[spec::DeviceCgroup],
    prefix: &str,
    problems: &mut Problems,
) -> Option<Vec<DeviceRule>> {
    if rules.is_empty() {
        return None;
    }
    let convert = |(index, rule): (usize, &spec::DeviceCgroup)| {
        let field = format!("{prefix}.devices[{index}]");
        let kind = match rule.kind.as_str() {
            "" | "a" => DeviceType::All,
            "c" | "u" => DeviceType::Char,
            "b" => DeviceType::Block,
            other => {
                problems.push(
                    format!("{field}.type"),
                    format!("invalid device type {other:?}"),
                );
                return None;
            }
        };
        let access = if rule.access.is_empty() {
            "rwm"
        } else {
            &rule.access
        };
        let access = match DeviceAccess::parse(access) {
            Ok(access) => access,
            Err(error) => {
                problems.push(format!("{field}.access"), error.to_string());
                return None;
            }
        };
        // A negative number is runc's spelling of "any".
        let number = |value: Option<i64>| value.and_then(|value| u32::try_from(value).ok());
        Some(DeviceRule {
            allow: rule.allow,
            kind,
            major: number(rule.major),
            minor: number(rule.minor),
            access,
        })
    };
    Some(rules.iter().enumerate().filter_map(convert).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_processes_is_no_limit_where_the_spec_did_not_say_otherwise_yet() {
        for version in ["1.0.2", "1.0.2-dev", "1.1.0+dev", "1.2.1"] {
            assert_eq!(pids_limit(0, version), -1, "{version}");
        }
        for version in ["1.3.0", "1.3", "1.3.0-rc.1", "1.10.0"] {
            assert_eq!(pids_limit(0, version), 1, "{version}");
        }
        for version in ["1.0.2", "1.3.0"] {
            assert_eq!([-1, 1, 7].map(|n| pids_limit(n, version)), [-1, 1, 7]);
        }
    }

    #[test]
    fn a_cgroup_is_handed_over_where_the_container_sees_it_alone_and_may_write() {
        let owner_of = |namespaces: serde_json::Value, option: &str, uid: u32| {
            let document = serde_json::json!({
                "ociVersion": "1.3.0", "root": {"path": "r"},
                "process": {"args": ["x"], "cwd": "/", "user": {"uid": uid, "gid": 0}},
                "mounts": [{"destination": "/sys/fs/cgroup", "type": "cgroup2", "source": "cgroup", "options": [option]}],
                "linux": {"namespaces": namespaces,
                    "uidMappings": [{"containerID": 10, "hostID": 1000, "size": 5}, {"containerID": 0, "hostID": 2000, "size": 10}],
                    "gidMappings": [{"containerID": 0, "hostID": 2000, "size": 10}]}
            });
            let spec: spec::Spec = serde_json::from_value(document).unwrap();
            super::super::Plan::new("web", Path::new("/b"), &spec)
                .unwrap()
                .cgroup
                .owner
        };
        let private =
            || serde_json::json!([{"type": "mount"}, {"type": "cgroup"}, {"type": "user"}]);
        assert_eq!(owner_of(private(), "rw", 0), Some(2000));
        assert_eq!(owner_of(private(), "rw", 12), Some(1002));
        assert_eq!(owner_of(private(), "ro", 0), None);
        let shared = serde_json::json!([{"type": "mount"}, {"type": "user"}]);
        assert_eq!(owner_of(shared, "rw", 0), None);
    }

    #[test]
    fn without_rules_devices_are_denied_at_first_and_left_alone_later() {
        let mut problems = Problems::default();
        let spec = spec::Spec::default();
        let made = plan(Manager::Cgroupfs, "web", &spec, &mut problems).unwrap();
        assert_eq!(made.resources.devices, Some(Vec::new()));
        let update = resources(&spec.linux.resources, "1.2.0", "resources", &mut problems);
        assert_eq!(update.devices, None);
    }
}
