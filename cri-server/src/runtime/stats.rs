//! Statistics and metrics.

use proto::runtime::v1::*;
use tonic::Status as Answer;

use crate::convert::{filled, metrics, stats};
use crate::node::Node;
use crate::status;

pub(super) async fn container(
    node: &Node,
    request: ContainerStatsRequest,
) -> Result<ContainerStatsResponse, Answer> {
    let id = filled("container_id", request.container_id)?;
    let found = node.engine()?.container_stats(&id).await;
    let stats = Some(stats::container(found.map_err(status::from)?));
    Ok(ContainerStatsResponse { stats })
}

pub(super) async fn list_containers(
    node: &Node,
    request: ListContainerStatsRequest,
) -> Result<ListContainerStatsResponse, Answer> {
    let filter = stats::container_filter(request.filter);
    let found = node.engine()?.list_container_stats(filter).await;
    let stats = found.map_err(status::from)?.into_iter();
    Ok(ListContainerStatsResponse {
        stats: stats.map(stats::container).collect(),
    })
}

pub(super) async fn pod(
    node: &Node,
    request: PodSandboxStatsRequest,
) -> Result<PodSandboxStatsResponse, Answer> {
    let id = filled("pod_sandbox_id", request.pod_sandbox_id)?;
    let found = node.engine()?.pod_stats(&id).await;
    let stats = Some(stats::pod(found.map_err(status::from)?));
    Ok(PodSandboxStatsResponse { stats })
}

pub(super) async fn list_pods(
    node: &Node,
    request: ListPodSandboxStatsRequest,
) -> Result<ListPodSandboxStatsResponse, Answer> {
    let filter = stats::pod_filter(request.filter);
    let found = node.engine()?.list_pod_stats(filter).await;
    let stats = found.map_err(status::from)?.into_iter();
    Ok(ListPodSandboxStatsResponse {
        stats: stats.map(stats::pod).collect(),
    })
}

pub(super) async fn descriptors(
    _: &Node,
    _: ListMetricDescriptorsRequest,
) -> Result<ListMetricDescriptorsResponse, Answer> {
    Ok(ListMetricDescriptorsResponse {
        descriptors: metrics::descriptors(),
    })
}

pub(super) async fn metrics(
    node: &Node,
    _: ListPodSandboxMetricsRequest,
) -> Result<ListPodSandboxMetricsResponse, Answer> {
    let found = node.engine()?.list_pod_metrics().await;
    let pods = found.map_err(status::from)?.into_iter();
    Ok(ListPodSandboxMetricsResponse {
        pod_metrics: pods.map(metrics::pod).collect(),
    })
}
