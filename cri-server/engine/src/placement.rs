//! Where the cgroups of pods and containers are, as each driver has it. Records hold paths in the file systems, so that
//! killing, statistics and memory's end work the same with both.
//!
//! | | cgroupfs | systemd |
//! |---|---|---|
//! | parent, as a kubelet names it | `/kubepods/burstable/podUID` | `kubepods-burstable-podUID.slice` |
//! | pod without a parent | `<cgroup_root>/<pod>` | `davit-<pod>.slice` in `davit.slice` |
//! | container | `<parent>/<container>` | `<parent's path>/cri-davit-<container>.scope`, made by the runtime through systemd |
//! | `linux.cgroupsPath` | the path | `<slice>:cri-davit:<container>` |

use sys::cgroup::systemd::expand_slice;

use crate::config::CgroupDriver;
use crate::error::{Error, Result};

/// What the names of our scopes begin with.
const PREFIX: &str = "cri-davit";

/// The cgroups of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    /// Holds the containers' cgroups.
    pub(crate) parent: String,
    /// The pod's own. The same where the caller named no parent.
    pub(crate) pod: String,
}

/// The cgroups of the pod `id` below `asked`, the caller's `cgroup_parent`.
pub(crate) fn of_pod(driver: CgroupDriver, root: &str, asked: &str, id: &str) -> Result<Place> {
    let asked = asked.trim_matches('/');
    if asked.is_empty() {
        let own = own(driver, root, id);
        return Ok(Place {
            parent: own.clone(),
            pod: own,
        });
    }
    let parent = match driver {
        CgroupDriver::Cgroupfs => format!("/{asked}"),
        CgroupDriver::Systemd => slice(asked)?,
    };
    let pod = match driver {
        CgroupDriver::Cgroupfs => format!("{parent}/{id}"),
        CgroupDriver::Systemd => format!("{parent}/davit-{id}"),
    };
    Ok(Place { parent, pod })
}

/// The cgroup of a pod without a parent.
pub(crate) fn own(driver: CgroupDriver, root: &str, id: &str) -> String {
    match driver {
        CgroupDriver::Cgroupfs => format!("{}/{id}", root.trim_end_matches('/')),
        CgroupDriver::Systemd => format!("{}/davit-{id}.slice", shared(driver, root)),
    }
}

/// The cgroup that all pods without a parent are in.
pub(crate) fn shared(driver: CgroupDriver, root: &str) -> &str {
    match driver {
        CgroupDriver::Cgroupfs => root,
        CgroupDriver::Systemd => "/davit.slice",
    }
}

/// The cgroup of a container.
pub(crate) fn of_container(driver: CgroupDriver, parent: &str, id: &str) -> String {
    match driver {
        CgroupDriver::Cgroupfs => format!("{parent}/{id}"),
        CgroupDriver::Systemd => format!("{parent}/{PREFIX}-{id}.scope"),
    }
}

/// Whether a container's cgroup is one that systemd makes. The record decides and not the configuration, which may have
/// changed since.
pub(crate) fn is_scope(cgroup: &str) -> bool {
    scope(cgroup).is_some()
}

/// `linux.cgroupsPath` of a container's cgroup.
pub(crate) fn oci_path(cgroup: &str) -> String {
    scope(cgroup).map_or_else(
        || cgroup.to_owned(),
        |(slice, id)| format!("{slice}:{PREFIX}:{id}"),
    )
}

/// Slice and id of a scope of ours.
fn scope(cgroup: &str) -> Option<(&str, &str)> {
    let (parent, unit) = cgroup.rsplit_once('/')?;
    let id = unit
        .strip_prefix(PREFIX)?
        .strip_prefix('-')?
        .strip_suffix(".scope")?;
    let slice = parent
        .rsplit('/')
        .next()
        .filter(|slice| slice.ends_with(".slice"))?;
    Some((slice, id))
}

/// The path of a slice, of which the caller gives the name, or the whole path.
fn slice(asked: &str) -> Result<String> {
    let name = asked.rsplit('/').next().unwrap_or(asked);
    let path = expand_slice(name).map_err(|problem| {
        Error::invalid(
            "linux.cgroup_parent",
            format!("{problem}; the cgroup driver is systemd, which wants a slice such as \"kubepods-podUID.slice\""),
        )
    })?;
    let whole = asked.contains('/');
    if whole && path.trim_start_matches('/') != asked {
        return Err(Error::invalid(
            "linux.cgroup_parent",
            format!("{asked:?} is not where systemd has {name}: that is {path}"),
        ));
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::CgroupDriver::{Cgroupfs, Systemd};
    use super::*;

    fn place(driver: CgroupDriver, asked: &str) -> (String, String) {
        let place = of_pod(driver, "/davit/", asked, "p1").expect("a place");
        (place.parent, place.pod)
    }

    fn both(parent: &str, pod: &str) -> (String, String) {
        (parent.to_owned(), pod.to_owned())
    }

    #[test]
    fn cgroupfs_puts_containers_below_the_parent_and_the_pod_beside_them() {
        assert_eq!(place(Cgroupfs, ""), both("/davit/p1", "/davit/p1"));
        assert_eq!(
            place(Cgroupfs, "/kubepods/burstable/podX/"),
            both("/kubepods/burstable/podX", "/kubepods/burstable/podX/p1")
        );
        assert_eq!(place(Cgroupfs, "a.slice"), both("/a.slice", "/a.slice/p1"));
        let container = of_container(Cgroupfs, "/a.slice", "c1");
        assert_eq!(container, "/a.slice/c1");
        assert_eq!(oci_path(&container), "/a.slice/c1");
        assert!(!is_scope(&container));
    }

    #[test]
    fn systemd_expands_a_slice_and_makes_containers_scopes_in_it() {
        let own = "/davit.slice/davit-p1.slice";
        assert_eq!(place(Systemd, ""), both(own, own));
        let burstable = "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podX.slice";
        let pod = format!("{burstable}/davit-p1");
        assert_eq!(
            place(Systemd, "kubepods-burstable-podX.slice"),
            both(burstable, &pod)
        );
        assert_eq!(
            place(Systemd, burstable),
            both(burstable, &pod),
            "the whole path"
        );
        assert_eq!(
            place(Systemd, "/test.slice").0,
            "/test.slice",
            "as critest names it"
        );
        let container = of_container(Systemd, burstable, "c1");
        assert_eq!(container, format!("{burstable}/cri-davit-c1.scope"));
        assert!(is_scope(&container));
        assert_eq!(
            oci_path(&container),
            "kubepods-burstable-podX.slice:cri-davit:c1"
        );
    }

    #[test]
    fn systemd_refuses_a_parent_that_is_no_slice_or_is_elsewhere() {
        for (asked, expected) in [
            (
                "/kubepods/podX",
                "linux.cgroup_parent: invalid slice name: podX",
            ),
            (
                "a--b.slice",
                "linux.cgroup_parent: invalid slice name: a--b.slice",
            ),
            (
                "/x.slice/a-b.slice",
                "linux.cgroup_parent: \"x.slice/a-b.slice\" is not where systemd has a-b.slice: that is /a.slice/a-b.slice",
            ),
        ] {
            let error = of_pod(Systemd, "/davit", asked, "p1")
                .expect_err(asked)
                .report();
            assert!(error.starts_with(expected), "{error}");
        }
    }
}
