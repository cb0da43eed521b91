//! User namespaces: one for a whole pod, with one range of user ids and one of group ids.
//!
//! <https://kubernetes.io/docs/concepts/workloads/pods/user-namespaces/>

use oci_spec::runtime::{LinuxIdMapping, LinuxIdMappingBuilder};

use super::ResolvedUser;
use crate::error::{Error, Result};
use crate::model::{IdMapping, NamespaceMode, NamespaceOptions, UserNamespace};

const FIELD: &str = "linux.security_context.namespace_options.userns_options";

/// The pod's init is "nobody", and so are many users of images.
const LEAST_IDS: u32 = 65_536;

/// The ranges of a pod's own user namespace; `None` where it has the host's.
pub(crate) fn ranges(pod: &NamespaceOptions) -> Option<(&IdMapping, &IdMapping)> {
    let userns = pod.userns.as_ref()?;
    match (userns.mode, &userns.uids[..], &userns.gids[..]) {
        (NamespaceMode::Pod, [uids], [gids]) => Some((uids, gids)),
        _ => None,
    }
}

/// The ids that root of the pod has on the host.
pub(crate) fn root(pod: &NamespaceOptions) -> (u32, u32) {
    ranges(pod).map_or((0, 0), |(uids, gids)| (uids.host_id, gids.host_id))
}

/// Checks a pod's request.
pub(crate) fn check_pod(options: &NamespaceOptions) -> Result<()> {
    let Some(userns) = &options.userns else {
        return Ok(());
    };
    let wrong = |problem: String| Err(Error::invalid(FIELD, problem));
    match userns.mode {
        NamespaceMode::Node if userns.uids.is_empty() && userns.gids.is_empty() => return Ok(()),
        NamespaceMode::Node => {
            return wrong("mode NODE has the host's ids, and no mappings".into());
        }
        NamespaceMode::Pod => {}
        other => {
            let mode = format!("{other:?}").to_uppercase();
            return wrong(format!("mode {mode}: only POD and NODE are possible"));
        }
    }
    for (name, list) in [("uids", &userns.uids), ("gids", &userns.gids)] {
        let [one] = &list[..] else {
            return wrong(format!("{name}: {} mappings instead of one", list.len()));
        };
        if one.container_id != 0 {
            return wrong(format!(
                "{name}: the mapping begins with id {} of the container, and without id 0 there is no root",
                one.container_id
            ));
        }
        if one.length < LEAST_IDS {
            return wrong(format!(
                "{name}: {} ids, and a pod needs {LEAST_IDS}",
                one.length
            ));
        }
        if one.host_id.checked_add(one.length).is_none() {
            return wrong(format!("{name}: the mapping ends above the largest id"));
        }
    }
    for (name, mode) in [("pid", options.pid), ("ipc", options.ipc)] {
        if mode == NamespaceMode::Node {
            return wrong(format!(
                "the {name} namespace is the host's (NODE), over which a user namespace has no rights"
            ));
        }
    }
    Ok(())
}

/// A container's user namespace is its pod's: it may repeat it, or say nothing.
pub(crate) fn check_container(own: &NamespaceOptions, pod: &NamespaceOptions) -> Result<()> {
    let of_host = |one: &Option<UserNamespace>| {
        one.as_ref()
            .is_none_or(|one| one.mode == NamespaceMode::Node)
    };
    if own.userns.is_none() || own.userns == pod.userns {
        return Ok(());
    }
    if of_host(&own.userns) && of_host(&pod.userns) {
        return Ok(());
    }
    let text = |one: &Option<UserNamespace>| match one {
        Some(one) if one.mode != NamespaceMode::Node => {
            format!(
                "{:?} with uids {:?} and gids {:?}",
                one.mode, one.uids, one.gids
            )
        }
        _ => "the host's".to_owned(),
    };
    Err(Error::invalid(
        FIELD,
        format!(
            "the container asks for {}, and its pod has {}",
            text(&own.userns),
            text(&pod.userns)
        ),
    ))
}

/// Every id of the process must be one that the namespace has.
pub(crate) fn check_user(user: &ResolvedUser, pod: &NamespaceOptions) -> Result<()> {
    let Some((uids, gids)) = ranges(pod) else {
        return Ok(());
    };
    let gid = user.groups.iter().chain([&user.gid]).max();
    for (what, id, length) in [
        ("user", Some(&user.uid), uids.length),
        ("group", gid, gids.length),
    ] {
        if let Some(id) = id.filter(|id| **id >= length) {
            return Err(Error::invalid(
                "user",
                format!("{what} {id} is not among the {length} ids of the pod's user namespace"),
            ));
        }
    }
    Ok(())
}

/// Mappings as `config.json` has them.
pub(crate) fn oci(mappings: &[IdMapping]) -> Result<Vec<LinuxIdMapping>> {
    let one = |from: &IdMapping| {
        LinuxIdMappingBuilder::default()
            .container_id(from.container_id)
            .host_id(from.host_id)
            .size(from.length)
            .build()
            .map_err(|error| Error::Internal(format!("an id mapping: {error}")))
    };
    mappings.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapping(container_id: u32, host_id: u32, length: u32) -> IdMapping {
        IdMapping {
            host_id,
            container_id,
            length,
        }
    }

    fn options(mode: NamespaceMode, maps: &[IdMapping]) -> NamespaceOptions {
        NamespaceOptions {
            userns: Some(UserNamespace {
                mode,
                uids: maps.to_vec(),
                gids: maps.to_vec(),
            }),
            ..NamespaceOptions::default()
        }
    }

    #[test]
    fn a_pod_has_one_range_that_begins_with_root() {
        let good = mapping(0, 1000, 100_000);
        let one = options(NamespaceMode::Pod, std::slice::from_ref(&good));
        check_pod(&one).expect("good");
        assert_eq!(root(&one), (1000, 1000));
        check_pod(&NamespaceOptions::default()).expect("none");
        check_pod(&options(NamespaceMode::Node, &[])).expect("the host's");
        let table = [
            (NamespaceMode::Pod, vec![], "0 mappings instead of one"),
            (
                NamespaceMode::Pod,
                vec![good.clone(), mapping(0, 2000, 100_000)],
                "2 mappings instead of one",
            ),
            (
                NamespaceMode::Pod,
                vec![mapping(1, 1000, 100_000)],
                "without id 0 there is no root",
            ),
            (NamespaceMode::Pod, vec![mapping(0, 1000, 10)], "10 ids"),
            (
                NamespaceMode::Pod,
                vec![mapping(0, u32::MAX - 5, 65_536)],
                "above the largest id",
            ),
            (NamespaceMode::Container, vec![], "mode CONTAINER"),
            (NamespaceMode::Target, vec![], "mode TARGET"),
            (NamespaceMode::Node, vec![good.clone()], "no mappings"),
        ];
        for (mode, maps, problem) in table {
            let error = check_pod(&options(mode, &maps))
                .expect_err(problem)
                .report();
            assert!(error.contains(problem), "{error}");
        }
        let mut with_host = one;
        with_host.pid = NamespaceMode::Node;
        let error = check_pod(&with_host).expect_err("the host's pids").report();
        assert!(error.contains("the pid namespace is the host's"), "{error}");
    }

    #[test]
    fn a_container_has_its_pods_namespace() {
        let pod = options(NamespaceMode::Pod, &[mapping(0, 1000, 100_000)]);
        let other = options(NamespaceMode::Pod, &[mapping(0, 2000, 100_000)]);
        let host = options(NamespaceMode::Node, &[]);
        let none = NamespaceOptions::default();
        for (own, of_pod) in [(&pod, &pod), (&none, &pod), (&none, &none), (&host, &none)] {
            check_container(own, of_pod).expect("the same");
        }
        for (own, of_pod) in [(&other, &pod), (&host, &pod), (&pod, &none), (&pod, &host)] {
            let error = check_container(own, of_pod).expect_err("another");
            assert!(error.report().contains("its pod has"), "{error}");
        }
    }

    #[test]
    fn ids_outside_the_namespace_are_refused_by_number() {
        let pod = options(NamespaceMode::Pod, &[mapping(0, 1000, 65_536)]);
        let mut user = ResolvedUser {
            uid: 65_535,
            groups: vec![7],
            ..ResolvedUser::default()
        };
        check_user(&user, &pod).expect("the last one");
        user.groups.push(65_536);
        let error = check_user(&user, &pod).expect_err("too large").report();
        assert!(error.contains("group 65536"), "{error}");
        check_user(&user, &NamespaceOptions::default()).expect("the host has them all");
    }
}
