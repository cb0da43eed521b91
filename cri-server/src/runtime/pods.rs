//! Run, Stop, Remove, Status and List of pod sandboxes.

use std::collections::BTreeMap;

use proto::runtime::v1::*;
use tonic::Status as Answer;

use crate::convert::{Within, filled, info, pod, required, resources};
use crate::node::Node;
use crate::status;

pub(super) async fn run(
    node: &Node,
    request: RunPodSandboxRequest,
) -> Result<RunPodSandboxResponse, Answer> {
    let config = pod::config(required("config", request.config)?).within("config")?;
    let id = node
        .engine()?
        .run_pod(config, &request.runtime_handler)
        .await;
    id.map(|pod_sandbox_id| RunPodSandboxResponse { pod_sandbox_id })
        .map_err(status::from)
}

/// Unknown id: OK, the kubelet stops pods it has forgotten about.
pub(super) async fn stop(
    node: &Node,
    request: StopPodSandboxRequest,
) -> Result<StopPodSandboxResponse, Answer> {
    let id = filled("pod_sandbox_id", request.pod_sandbox_id)?;
    node.engine()?.stop_pod(&id).await.map_err(status::from)?;
    Ok(StopPodSandboxResponse {})
}

/// Unknown id: OK.
pub(super) async fn remove(
    node: &Node,
    request: RemovePodSandboxRequest,
) -> Result<RemovePodSandboxResponse, Answer> {
    let id = filled("pod_sandbox_id", request.pod_sandbox_id)?;
    node.engine()?.remove_pod(&id).await.map_err(status::from)?;
    Ok(RemovePodSandboxResponse {})
}

pub(super) async fn status(
    node: &Node,
    request: PodSandboxStatusRequest,
) -> Result<PodSandboxStatusResponse, Answer> {
    let id = filled("pod_sandbox_id", request.pod_sandbox_id)?;
    let found = node.engine()?.pod_status(&id).map_err(status::from)?;
    let info = if request.verbose {
        info("info", &found.info)
    } else {
        BTreeMap::new()
    };
    // containers_statuses and timestamp belong together and to the evented PLEG: both unset.
    Ok(PodSandboxStatusResponse {
        status: Some(pod::status(found)),
        info,
        ..Default::default()
    })
}

pub(super) async fn list(
    node: &Node,
    request: ListPodSandboxRequest,
) -> Result<ListPodSandboxResponse, Answer> {
    let filter = pod::filter(request.filter).within("filter")?;
    let items = node
        .engine()?
        .list_pods(&filter)
        .into_iter()
        .map(pod::row)
        .collect();
    Ok(ListPodSandboxResponse { items })
}

/// Records the resources, and limits the pod's cgroup where it is this server's own; a kubelet's it sets itself.
pub(super) async fn update(
    node: &Node,
    request: UpdatePodSandboxResourcesRequest,
) -> Result<UpdatePodSandboxResourcesResponse, Answer> {
    let id = filled("pod_sandbox_id", request.pod_sandbox_id)?;
    let overhead = request.overhead.map(resources::from);
    let updated = node
        .engine()?
        .update_pod(&id, overhead, request.resources.map(resources::from))
        .await;
    updated.map_err(status::from)?;
    Ok(UpdatePodSandboxResourcesResponse {})
}
