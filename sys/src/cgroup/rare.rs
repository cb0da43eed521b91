//! Limits that few containers have: huge pages, network classes, RDMA devices.

use std::path::Path;

use nix::errno::Errno;

use super::resources::{HugepageLimit, Network, RdmaLimit};
use super::{Result, Version, file};

/// Limits huge pages. The reservation is limited, too, where the kernel (5.7) can: a program then fails at `mmap` and
/// not by SIGBUS at its first touch.
pub(super) fn apply_hugepages(
    dir: &Path,
    version: Version,
    limits: &[HugepageLimit],
) -> Result<()> {
    let file_name = match version {
        Version::V1 => "limit_in_bytes",
        Version::V2 => "max",
    };
    for one in limits {
        let (size, limit) = (&one.size, one.limit.to_string());
        file::write(dir, &format!("hugetlb.{size}.{file_name}"), &limit)?;
        match file::write(dir, &format!("hugetlb.{size}.rsvd.{file_name}"), &limit) {
            Err(error) if error.is(Errno::ENOENT) => {}
            result => result?,
        }
    }
    Ok(())
}

/// Marks the packets of the cgroup's sockets (v1).
pub(super) fn apply_class(dir: &Path, network: &Network) -> Result<()> {
    match network.class_id {
        Some(class) if class != 0 => file::write(dir, "net_cls.classid", &class.to_string()),
        _ => Ok(()),
    }
}

/// Sets the priority of the cgroup's packets on each interface (v1).
pub(super) fn apply_priorities(dir: &Path, network: &Network) -> Result<()> {
    network.priorities.iter().try_for_each(|(name, priority)| {
        file::write(dir, "net_prio.ifpriomap", &format!("{name} {priority}"))
    })
}

/// Limits the use of RDMA devices; v1 and v2 have the same file.
pub(super) fn apply_rdma(dir: &Path, limits: &[RdmaLimit]) -> Result<()> {
    limits
        .iter()
        .try_for_each(|one| file::write(dir, "rdma.max", &rdma_line(one)))
}

fn rdma_line(one: &RdmaLimit) -> String {
    let mut line = one.device.clone();
    for (key, value) in [("hca_handle", one.handles), ("hca_object", one.objects)] {
        if let Some(value) = value {
            line.push_str(&format!(" {key}={value}"));
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rdma_limits_name_only_what_is_limited() {
        let one = |handles, objects| {
            rdma_line(&RdmaLimit {
                device: "mlx5_1".into(),
                handles,
                objects,
            })
        };
        assert_eq!(
            one(Some(3), Some(10_000)),
            "mlx5_1 hca_handle=3 hca_object=10000"
        );
        assert_eq!(one(None, Some(0)), "mlx5_1 hca_object=0");
    }

    #[test]
    fn huge_pages_are_limited_at_use_and_where_possible_at_reservation() {
        let dir = tempfile::tempdir().unwrap();
        let make = |name: &str| std::fs::write(dir.path().join(name), "").unwrap();
        let read = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap();
        let limits = [HugepageLimit {
            size: "2MB".into(),
            limit: 4 << 20,
        }];
        make("hugetlb.2MB.limit_in_bytes");
        apply_hugepages(dir.path(), Version::V1, &limits).unwrap();
        assert_eq!(read("hugetlb.2MB.limit_in_bytes"), "4194304");
        make("hugetlb.2MB.max");
        make("hugetlb.2MB.rsvd.max");
        apply_hugepages(dir.path(), Version::V2, &limits).unwrap();
        assert_eq!(read("hugetlb.2MB.rsvd.max"), "4194304");
        let other = [HugepageLimit {
            size: "1GB".into(),
            limit: 0,
        }];
        let error = apply_hugepages(dir.path(), Version::V2, &other).unwrap_err();
        assert_eq!(error.field(), Some("hugepageLimits"));
        assert!(error.to_string().contains("hugetlb.1GB.max"), "{error}");
    }
}
