//! Create, Start, Stop, Remove, Status, List, UpdateContainerResources and ReopenContainerLog.

use std::collections::BTreeMap;
use std::time::Duration;

use proto::runtime::v1::*;
use tonic::Status as Answer;

use crate::convert::{Within, container, filled, info, pod, required, resources};
use crate::node::Node;
use crate::status;

pub(super) async fn create(
    node: &Node,
    request: CreateContainerRequest,
) -> Result<CreateContainerResponse, Answer> {
    let pod_id = filled("pod_sandbox_id", request.pod_sandbox_id)?;
    let config = container::config(required("config", request.config)?).within("config")?;
    let sandbox = pod::config(required("sandbox_config", request.sandbox_config)?)
        .within("sandbox_config")?;
    let id = node
        .engine()?
        .create_container(&pod_id, config, sandbox)
        .await;
    id.map(|container_id| CreateContainerResponse { container_id })
        .map_err(status::from)
}

pub(super) async fn start(
    node: &Node,
    request: StartContainerRequest,
) -> Result<StartContainerResponse, Answer> {
    let id = filled("container_id", request.container_id)?;
    node.engine()?
        .start_container(&id)
        .await
        .map_err(status::from)?;
    Ok(StartContainerResponse {})
}

/// Unknown or exited: OK. A negative timeout is no reason to let a container live: it counts as 0, kill at once.
pub(super) async fn stop(
    node: &Node,
    request: StopContainerRequest,
) -> Result<StopContainerResponse, Answer> {
    let id = filled("container_id", request.container_id)?;
    let grace = Duration::from_secs(u64::try_from(request.timeout).unwrap_or(0));
    node.engine()?
        .stop_container(&id, grace)
        .await
        .map_err(status::from)?;
    Ok(StopContainerResponse {})
}

/// Unknown id: OK.
pub(super) async fn remove(
    node: &Node,
    request: RemoveContainerRequest,
) -> Result<RemoveContainerResponse, Answer> {
    let id = filled("container_id", request.container_id)?;
    node.engine()?
        .remove_container(&id)
        .await
        .map_err(status::from)?;
    Ok(RemoveContainerResponse {})
}

pub(super) async fn list(
    node: &Node,
    request: ListContainersRequest,
) -> Result<ListContainersResponse, Answer> {
    let filter = container::filter(request.filter).within("filter")?;
    let containers = node
        .engine()?
        .list_containers(&filter)
        .into_iter()
        .map(container::row)
        .collect();
    Ok(ListContainersResponse { containers })
}

pub(super) async fn status(
    node: &Node,
    request: ContainerStatusRequest,
) -> Result<ContainerStatusResponse, Answer> {
    let id = filled("container_id", request.container_id)?;
    let found = node.engine()?.container_status(&id).map_err(status::from)?;
    let info = if request.verbose {
        info("info", &found.info)
    } else {
        BTreeMap::new()
    };
    Ok(ContainerStatusResponse {
        status: Some(container::status(found)),
        info,
    })
}

pub(super) async fn update(
    node: &Node,
    request: UpdateContainerResourcesRequest,
) -> Result<UpdateContainerResourcesResponse, Answer> {
    let id = filled("container_id", request.container_id)?;
    let linux = resources::from(required("linux", request.linux)?);
    node.engine()?
        .update_container(&id, linux)
        .await
        .map_err(status::from)?;
    Ok(UpdateContainerResourcesResponse {})
}

pub(super) async fn reopen_log(
    node: &Node,
    request: ReopenContainerLogRequest,
) -> Result<ReopenContainerLogResponse, Answer> {
    let id = filled("container_id", request.container_id)?;
    node.engine()?.reopen_log(&id).await.map_err(status::from)?;
    Ok(ReopenContainerLogResponse {})
}
