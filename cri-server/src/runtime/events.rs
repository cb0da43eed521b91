//! GetContainerEvents. A subscriber that does not keep up never holds up anybody: what it has not read waits in a queue
//! of fixed length, and when that overflows its stream ends with RESOURCE_EXHAUSTED, which tells it to list anew.

use engine::events::{Event, EventKind};
use futures_util::{StreamExt, stream};
use proto::runtime::v1::*;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::watch;
use tonic::Status as Answer;

use super::streams::Answers;
use crate::convert::{container, pod};
use crate::node::Node;

pub(super) async fn get(
    node: &Node,
    _: GetEventsRequest,
) -> Result<Answers<ContainerEventResponse>, Answer> {
    Ok(answers(node.engine()?.subscribe(), node.stopping()))
}

fn answers(
    events: Receiver<Event>,
    stopping: watch::Receiver<bool>,
) -> Answers<ContainerEventResponse> {
    let next = |from: Option<(Receiver<Event>, watch::Receiver<bool>)>| async move {
        let (mut events, mut stopping) = from?;
        let received = tokio::select! {
            received = events.recv() => received,
            _ = stopping.wait_for(|stopping| *stopping) => Err(RecvError::Closed),
        };
        match received {
            Ok(event) => Some((Ok(answer(&event)), Some((events, stopping)))),
            Err(error) => Some((Err(end(&error)), None)),
        }
    };
    stream::unfold(Some((events, stopping)), next).boxed()
}

fn answer(event: &Event) -> ContainerEventResponse {
    let kind = match event.kind {
        EventKind::Created => ContainerEventType::ContainerCreatedEvent,
        EventKind::Started => ContainerEventType::ContainerStartedEvent,
        EventKind::Stopped => ContainerEventType::ContainerStoppedEvent,
        EventKind::Deleted => ContainerEventType::ContainerDeletedEvent,
    };
    ContainerEventResponse {
        container_id: event.id.clone(),
        container_event_type: kind.into(),
        created_at: event.at,
        pod_sandbox_status: Some(pod::status(event.state.pod.clone())),
        containers_statuses: event
            .state
            .containers
            .iter()
            .cloned()
            .map(container::status)
            .collect(),
    }
}

fn end(error: &RecvError) -> Answer {
    match error {
        RecvError::Lagged(count) => Answer::resource_exhausted(format!(
            "{count} events were lost because they were not read in time; list the containers and subscribe again"
        )),
        RecvError::Closed => {
            Answer::unavailable("davit-cri is stopping; subscribe again when it is back")
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use engine::events::State;
    use engine::model::{NamespaceOptions, PodMetadata, PodState, PodStatus};
    use tokio::sync::broadcast;
    use tonic::Code;

    use super::*;

    fn event(id: &str) -> Event {
        let pod = PodStatus {
            id: "p".into(),
            metadata: PodMetadata::default(),
            state: PodState::Ready,
            created_at: 1,
            ip: String::new(),
            additional_ips: Vec::new(),
            namespaces: NamespaceOptions::default(),
            labels: Default::default(),
            annotations: Default::default(),
            handler: String::new(),
            shim_pid: None,
            netns: None,
            known: true,
            info: serde_json::Value::Null,
        };
        let containers = Vec::new();
        Event {
            id: id.into(),
            pod_id: "p".into(),
            kind: EventKind::Started,
            at: 7,
            state: Arc::new(State { pod, containers }),
        }
    }

    #[tokio::test]
    async fn a_subscriber_that_does_not_read_is_told_what_it_lost_and_holds_up_nobody() {
        let (sender, slow) = broadcast::channel(4);
        let (stopping, watched) = watch::channel(false);
        let mut quick = answers(sender.subscribe(), stopping.subscribe());
        let mut slow = answers(slow, watched);
        for n in 0..6 {
            sender.send(event(&n.to_string())).expect("listened to");
            let got = quick.next().await.expect("an event").expect("no error");
            assert_eq!((got.container_id, got.created_at), (n.to_string(), 7));
        }
        let lost = slow
            .next()
            .await
            .expect("an end")
            .expect_err("it lost some");
        assert_eq!(lost.code(), Code::ResourceExhausted);
        assert!(lost.message().starts_with("2 events were lost"), "{lost}");
        assert!(slow.next().await.is_none());
    }

    #[tokio::test]
    async fn the_stream_ends_when_the_daemon_stops() {
        let (_sender, events) = broadcast::channel(4);
        let (stopping, watched) = watch::channel(false);
        let mut stream = answers(events, watched);
        stopping.send_replace(true);
        let end = stream.next().await.expect("an end").expect_err("an error");
        assert_eq!(end.code(), Code::Unavailable);
    }
}
