//! Which namespaces are made, which are joined, and what needs which.
use std::path::PathBuf;

use nix::sched::CloneFlags;
use sys::namespace::NamespaceKind;

use super::Problems;
use crate::spec::{IdMapping, Linux, Namespace};

/// The namespaces of a container.
#[derive(Debug, Clone)]
pub struct NamespacePlan {
    /// Made together with the process.
    pub new: CloneFlags,
    /// Existing ones.
    pub join: Vec<(NamespaceKind, PathBuf)>,
    /// Users of a new user namespace.
    pub uid_map: Vec<IdMapping>,
    /// Groups of a new user namespace.
    pub gid_map: Vec<IdMapping>,
}

impl NamespacePlan {
    /// Whether the container has a namespace of this kind of its own, new or joined.
    pub fn has(&self, kind: NamespaceKind) -> bool {
        self.is_new(kind) || self.path(kind).is_some()
    }

    /// Whether a namespace of this kind is made.
    pub fn is_new(&self, kind: NamespaceKind) -> bool {
        self.new.contains(kind.flag())
    }

    /// The namespace of this kind that is joined.
    pub fn path(&self, kind: NamespaceKind) -> Option<&PathBuf> {
        self.join
            .iter()
            .find(|(known, _)| *known == kind)
            .map(|(_, path)| path)
    }

    /// Decides.
    pub fn new(linux: &Linux, problems: &mut Problems) -> Self {
        let mut plan = Self {
            new: CloneFlags::empty(),
            join: Vec::new(),
            uid_map: Vec::new(),
            gid_map: Vec::new(),
        };
        for (index, namespace) in linux.namespaces.iter().enumerate() {
            plan.add(namespace, &format!("linux.namespaces[{index}]"), problems);
        }
        // Its root could mount nothing in a namespace of somebody else.
        problems.require(
            plan.is_new(NamespaceKind::Mnt) || !plan.has(NamespaceKind::User),
            "linux.namespaces",
            "a user namespace needs a new mount namespace",
        );
        plan.add_id_maps(linux, problems);
        plan
    }

    fn add(&mut self, namespace: &Namespace, field: &str, problems: &mut Problems) {
        let kind = match namespace.kind.as_str() {
            "pid" => NamespaceKind::Pid,
            "network" => NamespaceKind::Net,
            "mount" => NamespaceKind::Mnt,
            "ipc" => NamespaceKind::Ipc,
            "uts" => NamespaceKind::Uts,
            "user" => NamespaceKind::User,
            "cgroup" => NamespaceKind::Cgroup,
            "time" => NamespaceKind::Time,
            other => {
                problems.push(
                    format!("{field}.type"),
                    format!("namespace {other:?} does not exist"),
                );
                return;
            }
        };
        if self.has(kind) {
            problems.push(
                field,
                format!("malformed spec file: duplicated ns {:?}", namespace.kind),
            );
        } else if namespace.path.is_empty() {
            self.new |= kind.flag();
        } else if !namespace.path.starts_with('/') || namespace.path.contains('\0') {
            problems.push(
                format!("{field}.path"),
                format!("{:?} is not an absolute path", namespace.path),
            );
        } else {
            self.join.push((kind, PathBuf::from(&namespace.path)));
        }
    }

    fn add_id_maps(&mut self, linux: &Linux, problems: &mut Problems) {
        let maps = [
            ("linux.uidMappings", &linux.uid_mappings),
            ("linux.gidMappings", &linux.gid_mappings),
        ];
        for (field, map) in maps {
            if self.is_new(NamespaceKind::User) {
                problems.require(
                    !map.is_empty(),
                    field,
                    "a new user namespace needs mappings",
                );
                check_id_map(field, map, problems);
                problems.require(
                    map.is_empty() || is_mapped(map, 0),
                    field,
                    "id 0 of the container is not mapped, and its root makes the mounts",
                );
            } else if self.path(NamespaceKind::User).is_none() && !map.is_empty() {
                problems.push(
                    field,
                    "user namespace mappings are given, but no user namespace",
                );
            }
        }
        self.uid_map.clone_from(&linux.uid_mappings);
        self.gid_map.clone_from(&linux.gid_mappings);
    }
}

impl NamespacePlan {
    /// Whether the user and the groups of the process exist in a new user namespace.
    pub fn check_user(&self, process: &super::ProcessPlan, problems: &mut Problems) {
        if !self.is_new(NamespaceKind::User) {
            return;
        }
        let mut check = |map: &[IdMapping], id: u32, field: &str, map_field: &str| {
            let known = map.is_empty() || is_mapped(map, id);
            problems.require(known, field, &format!("{id} is not mapped by {map_field}"));
        };
        let (uids, gids) = ("linux.uidMappings", "linux.gidMappings");
        check(&self.uid_map, process.uid, "process.user.uid", uids);
        check(&self.gid_map, process.gid, "process.user.gid", gids);
        for group in &process.groups {
            check(&self.gid_map, *group, "process.user.additionalGids", gids);
        }
    }
}

/// Whether the map gives this id of the container to somebody.
fn is_mapped(map: &[IdMapping], id: u32) -> bool {
    map.iter().any(|range| {
        id.checked_sub(range.container_id)
            .is_some_and(|offset| offset < range.size)
    })
}

/// A map as `/proc/<pid>/uid_map` takes it.
pub fn map_text(map: &[IdMapping]) -> String {
    map.iter()
        .map(|range| format!("{} {} {}\n", range.container_id, range.host_id, range.size))
        .collect()
}

/// The kernel's limits on an id map, `user_namespaces(7)`.
pub fn check_id_map(field: &str, map: &[IdMapping], problems: &mut Problems) {
    problems.require(map.len() <= 340, field, "more than 340 ranges");
    // It is written at once, and the kernel takes less than a page.
    problems.require(
        map.len() < 100 || map_text(map).len() < 4096,
        field,
        "longer than the 4095 bytes that the kernel takes",
    );
    for (index, range) in map.iter().enumerate() {
        let field = format!("{field}[{index}]");
        let ends = [range.container_id, range.host_id].map(|first| first.checked_add(range.size));
        problems.require(range.size > 0, &format!("{field}.size"), "0 ids");
        problems.require(
            ends.iter().all(Option::is_some),
            &field,
            "the range passes 4294967295",
        );
        let overlaps = |a: u32, b: u32, size: u32| {
            u64::from(a) < u64::from(b) + u64::from(size)
                && u64::from(b) < u64::from(a) + u64::from(range.size)
        };
        let clash = map[..index].iter().any(|other| {
            overlaps(range.container_id, other.container_id, other.size)
                || overlaps(range.host_id, other.host_id, other.size)
        });
        problems.require(!clash, &field, "overlaps an earlier range");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_longer_than_a_page_is_refused_before_the_kernel_does() {
        let map = |first: u32| {
            let range = |number: u32| IdMapping {
                container_id: number * 2,
                host_id: first + number * 2,
                size: 1,
            };
            (0..340).map(range).collect::<Vec<_>>()
        };
        let mut problems = Problems::default();
        check_id_map("short", &map(0), &mut problems);
        assert_eq!(problems.list(), []);
        check_id_map("long", &map(4_000_000_000), &mut problems);
        assert_eq!(problems.list().len(), 1);
        assert!(problems.list()[0].reason.contains("4095 bytes"));
    }

    #[test]
    fn an_id_is_mapped_by_the_range_that_holds_it() {
        let map = [IdMapping {
            container_id: 5,
            host_id: 0,
            size: 2,
        }];
        assert!(is_mapped(&map, 5) && is_mapped(&map, 6));
        assert!(!is_mapped(&map, 4) && !is_mapped(&map, 7));
    }
}
