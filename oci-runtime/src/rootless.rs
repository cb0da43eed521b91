//! A caller without privileges whose configuration has no user namespace: it gets one, as crun does it. The caller is
//! its root, and the ids that `/etc/subuid` and `/etc/subgid` give to the caller follow from 1 on.
use std::path::Path;

use crate::spec::{IdMapping, Namespace, Spec};

/// Adds the user namespace, where the caller needs one. Whether it was added.
pub fn add_user_namespace(spec: &mut Spec) -> bool {
    let linux = &mut spec.linux;
    let has = linux.namespaces.iter().any(|one| one.kind == "user");
    let uid = nix::unistd::geteuid();
    if uid.is_root() || has || linux.namespaces.is_empty() {
        return false;
    }
    linux.namespaces.push(Namespace {
        kind: "user".to_owned(),
        path: String::new(),
    });
    let uid = uid.as_raw();
    let passwd = read("/etc/passwd");
    let name = name_of(&passwd, uid);
    if linux.uid_mappings.is_empty() {
        linux.uid_mappings = mapping(uid, &read("/etc/subuid"), name, uid);
    }
    if linux.gid_mappings.is_empty() {
        let gid = nix::unistd::getegid().as_raw();
        linux.gid_mappings = mapping(gid, &read("/etc/subgid"), name, uid);
    }
    true
}

/// A missing file gives nothing to anybody.
fn read(path: &str) -> String {
    std::fs::read(Path::new(path))
        .map(|text| String::from_utf8_lossy(&text).into_owned())
        .unwrap_or_default()
}

/// The name of a user in the text of `/etc/passwd`.
fn name_of(passwd: &str, uid: u32) -> Option<&str> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then_some(name)
    })
}

/// The caller as 0, and its ranges (`name or uid:first:count` per line) from 1 on.
fn mapping(own: u32, ranges: &str, name: Option<&str>, uid: u32) -> Vec<IdMapping> {
    let mut map = vec![IdMapping {
        container_id: 0,
        host_id: own,
        size: 1,
    }];
    let mut next = 1_u32;
    for line in ranges.lines() {
        let mut fields = line.split(':');
        let (Some(owner), Some(first), Some(count), None) =
            (fields.next(), fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        let (Ok(host_id), Ok(size)) = (first.parse::<u32>(), count.trim().parse::<u32>()) else {
            continue;
        };
        let is_own = Some(owner) == name || owner.parse() == Ok(uid);
        let ends = host_id.checked_add(size).and(next.checked_add(size));
        if !is_own || size == 0 || ends.is_none() {
            continue;
        }
        map.push(IdMapping {
            container_id: next,
            host_id,
            size,
        });
        next += size;
    }
    map
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(map: &[IdMapping]) -> Vec<(u32, u32, u32)> {
        let row = |one: &IdMapping| (one.container_id, one.host_id, one.size);
        map.iter().map(row).collect()
    }

    #[test]
    fn the_caller_is_root_and_its_ranges_follow() {
        let ranges = "other:1:5\nsailor:200000:65536\n# x\n1000:300000:10\nsailor:4294967295:9\nsailor:1:0\nsailor:x:1\n";
        let map = mapping(1000, ranges, Some("sailor"), 1000);
        assert_eq!(
            rows(&map),
            [(0, 1000, 1), (1, 200_000, 65_536), (65_537, 300_000, 10)]
        );
        assert_eq!(rows(&mapping(7, "", None, 7)), [(0, 7, 1)]);
    }

    #[test]
    fn a_name_is_that_of_the_user_id() {
        let passwd = "root:x:0:0::/:\nbroken\nsailor:x:1000:1000::/:/bin/sh\n";
        assert_eq!(name_of(passwd, 1000), Some("sailor"));
        assert_eq!(name_of(passwd, 5), None);
    }

    proptest::proptest! {
        #[test]
        fn any_file_gives_ranges_that_do_not_overlap_in_the_container(text in "((a|7|b):[0-9]{0,11}:[0-9]{0,11}\n|[a:0-9\n]{0,9}){0,8}") {
            let map = mapping(7, &text, Some("a"), 7);
            for pair in map.windows(2) {
                proptest::prop_assert_eq!(pair[0].container_id + pair[0].size, pair[1].container_id);
            }
        }
    }
}
