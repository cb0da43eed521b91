//! The numbers for monitoring that [`super`] leaves out.

use std::path::Path;
use std::sync::Arc;

use crate::model::{ContainerMetrics, Detail, PodMetrics};
use crate::node::Node;
use crate::pod::{Pod, View};
use crate::record::{ContainerRecord, PodRecord};

/// Of how many processes the open files are counted.
const PROCESSES: usize = 256;

/// A pod with everything.
pub(crate) fn pod(node: &Arc<Node>, pod: &Arc<Pod>, view: &View, record: &PodRecord) -> PodMetrics {
    let containers = super::running(view)
        .map(|record| container(node, pod, record))
        .collect();
    let mut detail = detail(node, super::pod_cgroup(record));
    // Their sum is in the containers'.
    detail.files = None;
    PodMetrics {
        stats: super::pod(node, pod, view, record),
        detail,
        containers,
    }
}

fn container(node: &Arc<Node>, pod: &Arc<Pod>, record: &ContainerRecord) -> ContainerMetrics {
    let layer = std::fs::File::open(node.writable(&pod.id, &record.id));
    let space = layer.ok().and_then(|layer| sys::fs::space(layer).ok());
    ContainerMetrics {
        stats: super::container(node, pod, record),
        detail: detail(node, &record.cgroup),
        resources: record.resources.clone(),
        files_limit: record.pid.and_then(files_limit),
        disk: space.map(|space| (space.bytes, space.inodes, space.inodes_free)),
    }
}

fn detail(node: &Node, path: &str) -> Detail {
    let Ok(cgroup) = node.cgroup(path) else {
        return Detail::default();
    };
    let processes = cgroup.processes().ok();
    Detail {
        path: path.to_owned(),
        cgroup: cgroup.usage_detail(),
        oom_kills: cgroup.oom_kills().ok(),
        processes: processes
            .as_ref()
            .and_then(|all| u64::try_from(all.len()).ok()),
        files: processes.map(|all| {
            all.iter()
                .take(PROCESSES)
                .map(|pid| files(&format!("/proc/{pid}/fd")))
                .fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
        }),
    }
}

/// Open files of a process, and sockets among them.
fn files(dir: &str) -> (u64, u64) {
    let mut count = (0, 0);
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        count.0 += 1;
        let target = std::fs::read_link(entry.path()).unwrap_or_default();
        count.1 += u64::from(target.to_string_lossy().starts_with("socket:"));
    }
    count
}

fn files_limit(pid: u32) -> Option<u64> {
    let text = std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("limits"));
    soft_files_limit(&text.ok()?)
}

/// The line `Max open files            1024                 524288               files`.
fn soft_files_limit(limits: &str) -> Option<u64> {
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_of_open_files_is_the_first_number() {
        let text = "Limit  Soft Limit  Hard Limit  Units\nMax open files            1024                 524288               files     \n";
        assert_eq!(soft_files_limit(text), Some(1024));
        assert_eq!(
            soft_files_limit("Max open files unlimited unlimited files"),
            None
        );
    }

    #[test]
    fn open_files_of_this_process_are_counted() {
        let _socket = std::os::unix::net::UnixDatagram::unbound().expect("a socket");
        let (all, sockets) = files("/proc/self/fd");
        assert!(all >= 4 && sockets >= 1, "{all} files, {sockets} sockets");
    }
}
