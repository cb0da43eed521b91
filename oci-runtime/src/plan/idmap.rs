//! Which users and groups own the files of an id-mapped mount.
//!
//! - `uidMappings` and `gidMappings` of the mount: the maps are these.
//! - the option `idmap` (`ridmap`: also for the mounts below) alone: those of the container's user namespace.
//! - `idmap=uids=0-1-10#10-11-10;gids=0-100-10`: triplets of the first id in the filesystem, the first id on the host,
//!   and how many. With `@` before a triplet its second number is an id of the container.
use std::path::PathBuf;

use sys::namespace::NamespaceKind;

use super::{NamespacePlan, Problems, namespaces};
use crate::spec::{self, IdMapping};

/// The maps of a mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IdMapPlan {
    /// Those of a user namespace that is made for it.
    Maps {
        /// Users.
        uids: Vec<IdMapping>,
        /// Groups.
        gids: Vec<IdMapping>,
    },
    /// Those of the user namespace that the container joins.
    Namespace(PathBuf),
}

/// What the option says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdMapOption {
    /// Also for the mounts below.
    pub recursive: bool,
    /// What stands behind `=`, or nothing.
    pub maps: String,
}

impl IdMapOption {
    /// Recognises `idmap`, `ridmap` and both with `=`.
    pub fn parse(option: &str) -> Option<Self> {
        let (name, maps) = option.split_once('=').unwrap_or((option, ""));
        let recursive = match name {
            "idmap" => false,
            "ridmap" => true,
            _ => return None,
        };
        let maps = maps.to_owned();
        Some(Self { recursive, maps })
    }
}

/// Decides on the maps of a mount; `None` where its owners are not mapped.
pub fn plan(
    mount: &spec::Mount,
    option: Option<&IdMapOption>,
    users: &NamespacePlan,
    field: &str,
    problems: &mut Problems,
) -> Option<IdMapPlan> {
    let (uids, gids) = (&mount.uid_mappings, &mount.gid_mappings);
    let written = option.map_or("", |option| &option.maps);
    if !uids.is_empty() || !gids.is_empty() {
        let both = !uids.is_empty() && !gids.is_empty();
        let field_of = |name: &str| format!("{field}.{name}");
        problems.require(
            both,
            &field_of("uidMappings"),
            "both uidMappings and gidMappings must be given",
        );
        problems.require(
            written.is_empty(),
            &field_of("options"),
            "maps both in the option idmap and in uidMappings",
        );
        namespaces::check_id_map(&field_of("uidMappings"), uids, problems);
        namespaces::check_id_map(&field_of("gidMappings"), gids, problems);
        return Some(IdMapPlan::Maps {
            uids: uids.clone(),
            gids: gids.clone(),
        });
    }
    option?;
    let field = format!("{field}.options");
    if written.is_empty() {
        return of_container(users, &field, problems);
    }
    match parse(written, users) {
        Ok((uids, gids)) => {
            namespaces::check_id_map(&field, &uids, problems);
            namespaces::check_id_map(&field, &gids, problems);
            Some(IdMapPlan::Maps { uids, gids })
        }
        Err(reason) => {
            problems.push(field, reason);
            None
        }
    }
}

fn of_container(users: &NamespacePlan, field: &str, problems: &mut Problems) -> Option<IdMapPlan> {
    if let Some(path) = users.path(NamespaceKind::User) {
        return Some(IdMapPlan::Namespace(path.clone()));
    }
    if users.is_new(NamespaceKind::User) {
        return Some(IdMapPlan::Maps {
            uids: users.uid_map.clone(),
            gids: users.gid_map.clone(),
        });
    }
    problems.push(
        field,
        "idmap needs uidMappings and gidMappings of the mount, or a user namespace of the container",
    );
    None
}

type Maps = (Vec<IdMapping>, Vec<IdMapping>);

/// `uids=…;gids=…`; what is left out is as in the container's user namespace.
fn parse(text: &str, users: &NamespacePlan) -> Result<Maps, String> {
    let mut maps = (users.uid_map.clone(), users.gid_map.clone());
    for part in text.split(';') {
        match part.split_once('=') {
            Some(("uids", ranges)) => maps.0 = parse_ranges(ranges, &users.uid_map)?,
            Some(("gids", ranges)) => maps.1 = parse_ranges(ranges, &users.gid_map)?,
            _ => return Err(format!("idmap: {part:?} is neither uids=... nor gids=...")),
        }
    }
    if maps.0.is_empty() || maps.1.is_empty() {
        return Err("idmap: both uids and gids must be given without a user namespace".to_owned());
    }
    Ok(maps)
}

fn parse_ranges(text: &str, container: &[IdMapping]) -> Result<Vec<IdMapping>, String> {
    text.split('#')
        .map(|range| parse_range(range, container))
        .collect()
}

fn parse_range(text: &str, container: &[IdMapping]) -> Result<IdMapping, String> {
    let wrong = || format!("idmap: {text:?} is not FIRST-HOST-SIZE");
    let plain = text.strip_prefix('@').unwrap_or(text);
    let mut numbers = plain.split('-').map(str::parse::<u32>);
    let (Some(Ok(container_id)), Some(Ok(host_id)), Some(Ok(size)), None) = (
        numbers.next(),
        numbers.next(),
        numbers.next(),
        numbers.next(),
    ) else {
        return Err(wrong());
    };
    let mut range = IdMapping {
        container_id,
        host_id,
        size,
    };
    if plain.len() < text.len() {
        let holds = |one: &&IdMapping| {
            host_id
                .checked_sub(one.container_id)
                .is_some_and(|offset| offset < one.size)
        };
        let found = container.iter().find(holds).ok_or_else(|| {
            format!(
                "idmap: could not find a user namespace mapping for the relative mapping {text:?}"
            )
        })?;
        range.host_id = found
            .host_id
            .checked_add(host_id - found.container_id)
            .ok_or_else(wrong)?;
    }
    Ok(range)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sched::CloneFlags;

    fn range(container_id: u32, host_id: u32, size: u32) -> IdMapping {
        IdMapping {
            container_id,
            host_id,
            size,
        }
    }

    fn users(map: &[IdMapping]) -> NamespacePlan {
        NamespacePlan {
            new: if map.is_empty() {
                CloneFlags::empty()
            } else {
                CloneFlags::CLONE_NEWUSER
            },
            join: Vec::new(),
            uid_map: map.to_vec(),
            gid_map: map.to_vec(),
        }
    }

    #[test]
    fn triplets_are_read_as_written() {
        let maps = parse("uids=0-1-10#10-11-10;gids=0-100-10", &users(&[]));
        let expected = (
            vec![range(0, 1, 10), range(10, 11, 10)],
            vec![range(0, 100, 10)],
        );
        assert_eq!(maps, Ok(expected));
    }

    #[test]
    fn a_relative_triplet_counts_from_the_containers_ids() {
        let container = users(&[range(0, 0, 1), range(1, 2, 1000)]);
        let (uids, gids) = parse("uids=@1-3-10", &container).unwrap();
        assert_eq!(uids, [range(1, 4, 10)]);
        assert_eq!(
            gids, container.gid_map,
            "what is left out is the container's"
        );
        let missing = parse("uids=@0-5000-1", &container).unwrap_err();
        assert!(
            missing.contains("could not find a user namespace mapping"),
            "{missing}"
        );
    }

    #[test]
    fn nonsense_is_refused_by_name() {
        for text in [
            "",
            "uids=",
            "uids=1-2",
            "uids=1-2-3-4",
            "uids=1-2-x;gids=0-0-1",
            "users=0-0-1",
            "uids=0-0-1",
            "uids=0-0-99999999999;gids=0-0-1",
            "uids=@0-0-1;gids=0-0-1",
        ] {
            assert!(
                parse(text, &users(&[])).unwrap_err().starts_with("idmap: "),
                "{text}"
            );
        }
    }

    #[test]
    fn the_option_alone_means_the_containers_users() {
        let option = IdMapOption::parse("ridmap").unwrap();
        assert!(option.recursive && option.maps.is_empty());
        let mount = spec::Mount::default();
        let mut problems = Problems::default();
        let map = [range(0, 100_000, 65_536)];
        let planned = plan(
            &mount,
            Some(&option),
            &users(&map),
            "mounts[0]",
            &mut problems,
        );
        let (uids, gids) = (map.to_vec(), map.to_vec());
        assert_eq!(planned, Some(IdMapPlan::Maps { uids, gids }));
        assert_eq!(problems.list(), []);
        assert_eq!(
            plan(
                &mount,
                Some(&option),
                &users(&[]),
                "mounts[0]",
                &mut problems
            ),
            None
        );
        assert_eq!(problems.list()[0].field, "mounts[0].options");
        assert_eq!(IdMapOption::parse("idmapped"), None);
    }

    proptest::proptest! {
        #[test]
        fn parsing_never_panics_and_never_leaves_the_range_of_ids(
            text in "(uids|gids|x)?=?@?[0-9#;@=-]{0,40}(gids)?",
            first in 0_u32..u32::MAX, host in 0_u32..u32::MAX,
        ) {
            let container = users(&[range(first, host, u32::MAX - first.max(host))]);
            if let Ok((uids, gids)) = parse(&text, &container) {
                proptest::prop_assert!(!uids.is_empty() && !gids.is_empty());
            }
        }
    }
}
