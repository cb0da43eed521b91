//! UpdateContainerResources: all of the new limits, or the old ones.

use std::fs;

use sys::failpoint;

use crate::error::{Error, Kind, Result};
use crate::model::Resources;
use crate::node::Node;
use crate::pod::supervisor::Supervisor;
use crate::record::{self, ContainerRecord};
use crate::spec::resources::{limits, merge};

/// Applies `change` and answers with the record of what is in force. Blocks.
pub(crate) fn update(
    node: &Node,
    container: &ContainerRecord,
    change: &Resources,
) -> Result<ContainerRecord> {
    refuse_below_usage(node, container, change)?;
    let current = container.resources.clone().unwrap_or_default();
    let applied = apply(node, container, change);
    if let Err(error) = applied {
        // The runtime may have written some of them. Which values were there before a limit was first set is
        // the kernel's default.
        let before = merge(&unlimited(change), &current);
        if let Err(again) = apply(node, container, &before) {
            return Err(Error::Cleanup {
                cause: Box::new(error),
                cleanup: format!("restore the old limits: {}", again.report()),
            });
        }
        return Err(error);
    }
    failpoint::hit("update_container.applied")?;
    let mut updated = container.clone();
    updated.resources = Some(merge(&current, change));
    record::write(
        &ContainerRecord::path(&node.bundle(&container.pod_id, &container.id)),
        &updated,
    )?;
    Ok(updated)
}

fn apply(node: &Node, container: &ContainerRecord, change: &Resources) -> Result<()> {
    let wanted = limits(change, "linux", &node.host)?;
    let path = node
        .bundle(&container.pod_id, &container.id)
        .join("resources.json");
    let json = serde_json::to_vec(&wanted).map_err(|error| Error::Record {
        path: path.clone(),
        source: Box::new(error),
    })?;
    fs::write(&path, json).map_err(|source| Error::Io {
        action: "write",
        path: path.clone(),
        source,
    })?;
    let supervisor = Supervisor::new(node.pod_dir(&container.pod_id));
    let action = format!("update container {:?}", container.config.metadata.name);
    supervisor.ask(&action, |client| client.update(&container.id, &path))
}

/// cgroup v2 would kill processes to get below a new limit; v1 says "busy". Neither helps the caller.
fn refuse_below_usage(node: &Node, container: &ContainerRecord, change: &Resources) -> Result<()> {
    let Ok(limit) = u64::try_from(change.memory_limit_in_bytes) else {
        return Ok(());
    };
    let stats = node.cgroup(&container.cgroup)?.stats();
    // Page cache that nobody uses goes away under pressure.
    let needed = stats
        .memory_usage
        .unwrap_or(0)
        .saturating_sub(stats.memory_inactive_file.unwrap_or(0));
    if limit == 0 || limit >= needed {
        return Ok(());
    }
    Err(Error::Shim {
        action: format!("update container {:?}", container.config.metadata.name),
        kind: Kind::FailedPrecondition,
        source: format!(
            "linux.memory_limit_in_bytes: {limit} is below the {needed} bytes that it uses now"
        )
        .into(),
    })
}

/// No limit in each field that `change` sets.
fn unlimited(change: &Resources) -> Resources {
    let when = |set: bool, value: i64| if set { value } else { 0 };
    Resources {
        cpu_period: when(change.cpu_period != 0, 100_000),
        cpu_quota: when(change.cpu_quota != 0, -1),
        cpu_shares: when(change.cpu_shares != 0, 1024),
        memory_limit_in_bytes: when(change.memory_limit_in_bytes != 0, -1),
        memory_swap_limit_in_bytes: when(change.memory_swap_limit_in_bytes != 0, -1),
        ..Resources::default()
    }
}
