//! The streaming lists: each item exactly once, at least one in each message, and the end is the end of the list.

use std::pin::Pin;

use proto::runtime::v1::*;
use tokio_stream::Stream;
use tonic::Status as Answer;

use super::{containers, pods, stats};
use crate::node::Node;

/// The answers of one streaming RPC.
pub(crate) type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Answer>> + Send>>;

/// How many items go into a message: even big ones (a megabyte of annotations in all) stay far below the 16 MiB that
/// clients take.
const ITEMS: usize = 64;

/// A list, in messages. An empty one has none.
pub(crate) fn in_messages<T, M>(all: Vec<T>, message: impl Fn(Vec<T>) -> M) -> Answers<M>
where
    M: Send + 'static,
{
    let mut messages = Vec::with_capacity(all.len().div_ceil(ITEMS));
    let mut items = all.into_iter();
    loop {
        let some: Vec<T> = items.by_ref().take(ITEMS).collect();
        if some.is_empty() {
            return Box::pin(tokio_stream::iter(messages));
        }
        messages.push(Ok(message(some)));
    }
}

pub(super) async fn pods(
    node: &Node,
    request: StreamPodSandboxesRequest,
) -> Result<Answers<StreamPodSandboxesResponse>, Answer> {
    let filter = request.filter;
    let all = pods::list(node, ListPodSandboxRequest { filter }).await?;
    Ok(in_messages(all.items, |pod_sandboxes| {
        StreamPodSandboxesResponse { pod_sandboxes }
    }))
}

pub(super) async fn containers(
    node: &Node,
    request: StreamContainersRequest,
) -> Result<Answers<StreamContainersResponse>, Answer> {
    let filter = request.filter;
    let all = containers::list(node, ListContainersRequest { filter }).await?;
    Ok(in_messages(all.containers, |containers| {
        StreamContainersResponse { containers }
    }))
}

pub(super) async fn container_stats(
    node: &Node,
    request: StreamContainerStatsRequest,
) -> Result<Answers<StreamContainerStatsResponse>, Answer> {
    let filter = request.filter;
    let all = stats::list_containers(node, ListContainerStatsRequest { filter }).await?;
    Ok(in_messages(all.stats, |container_stats| {
        StreamContainerStatsResponse { container_stats }
    }))
}

pub(super) async fn pod_stats(
    node: &Node,
    request: StreamPodSandboxStatsRequest,
) -> Result<Answers<StreamPodSandboxStatsResponse>, Answer> {
    let filter = request.filter;
    let all = stats::list_pods(node, ListPodSandboxStatsRequest { filter }).await?;
    Ok(in_messages(all.stats, |pod_sandbox_stats| {
        StreamPodSandboxStatsResponse { pod_sandbox_stats }
    }))
}

pub(super) async fn pod_metrics(
    node: &Node,
    _: StreamPodSandboxMetricsRequest,
) -> Result<Answers<StreamPodSandboxMetricsResponse>, Answer> {
    let all = stats::metrics(node, ListPodSandboxMetricsRequest {}).await?;
    Ok(in_messages(all.pod_metrics, |pod_sandbox_metrics| {
        StreamPodSandboxMetricsResponse {
            pod_sandbox_metrics,
        }
    }))
}

#[cfg(test)]
mod tests {
    use tokio_stream::StreamExt;

    use super::*;

    #[tokio::test]
    async fn each_item_comes_once_and_no_message_is_empty() {
        for count in [0, 1, ITEMS, ITEMS + 1, 3 * ITEMS] {
            let all: Vec<usize> = (0..count).collect();
            let messages: Vec<Vec<usize>> = in_messages(all.clone(), |some| some)
                .map(|message| message.expect("no error"))
                .collect()
                .await;
            assert!(messages.iter().all(|one| !one.is_empty()));
            assert_eq!(messages.concat(), all);
        }
    }
}
