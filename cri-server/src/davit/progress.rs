//! Progress between the engine, which must not wait, and a client, which may be slow: per layer only the latest state is
//! kept, so memory is bounded by the number of layers, and a slow client misses steps but never a layer's last state.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};

use engine::model::{ImageProgress, ProgressSink};
use proto::davit::v1::{Phase, Progress};
use tokio::sync::{Notify, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tracing::Instrument;

type Item = Result<Progress, Status>;

/// What changed since the client was last told, in the order of the first change.
#[derive(Debug, Default)]
struct Board {
    pending: Mutex<BTreeMap<u64, Progress>>,
    places: Mutex<BTreeMap<String, u64>>,
    changed: Notify,
}

/// Runs `work` in a task of its own, which goes on when the client leaves, and streams what it reports: layers as they
/// go, then the images, or the error.
pub(super) fn stream<F>(work: impl FnOnce(ProgressSink) -> F) -> ReceiverStream<Item>
where
    F: Future<Output = Result<Vec<Progress>, Status>> + Send + 'static,
{
    let board = Arc::new(Board::default());
    let writer = Arc::clone(&board);
    let work = work(Arc::new(move |step| writer.put(step)));
    let (sender, receiver) = mpsc::channel(16);
    tokio::spawn(pump(board, work, sender).in_current_span());
    ReceiverStream::new(receiver)
}

/// The last message for an image.
pub(super) fn image(id: String, reference: String) -> Progress {
    Progress {
        phase: Phase::Image.into(),
        image_id: id,
        reference,
        ..Default::default()
    }
}

async fn pump<F>(board: Arc<Board>, work: F, client: mpsc::Sender<Item>)
where
    F: Future<Output = Result<Vec<Progress>, Status>>,
{
    tokio::pin!(work);
    let mut listening = true;
    let outcome = loop {
        tokio::select! {
            outcome = &mut work => break outcome,
            () = board.changed.notified() => {}
            // Never a plain send: this task drives the work, which must not wait for the client.
            room = client.reserve(), if listening && board.has_news() => match room {
                Ok(room) => {
                    if let Some(message) = board.first() {
                        room.send(Ok(message));
                    }
                }
                Err(_) => listening = false,
            },
        }
    };
    let last = board.take().into_iter().map(Ok);
    let images: Vec<Item> = match outcome {
        Ok(images) => images.into_iter().map(Ok).collect(),
        Err(status) => vec![Err(status)],
    };
    for item in last.chain(images) {
        if client.send(item).await.is_err() {
            tracing::debug!("the client left before the last message");
            return;
        }
    }
}

// === impl Board ===

impl Board {
    fn put(&self, step: ImageProgress) {
        if step.layer.is_empty() {
            return; // the image as a whole; the stream's last message says it better
        }
        let place = {
            let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
            let next = places.len() as u64;
            *places.entry(step.layer.clone()).or_insert(next)
        };
        let message = Progress {
            phase: phase(&step.phase).into(),
            layer: step.layer,
            current: step.current,
            total: step.total,
            ..Default::default()
        };
        self.pending
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(place, message);
        self.changed.notify_one();
    }

    fn has_news(&self) -> bool {
        !self
            .pending
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_empty()
    }

    fn first(&self) -> Option<Progress> {
        self.pending
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop_first()
            .map(|(_, message)| message)
    }

    fn take(&self) -> Vec<Progress> {
        std::mem::take(&mut *self.pending.lock().unwrap_or_else(PoisonError::into_inner))
            .into_values()
            .collect()
    }
}

fn phase(name: &str) -> Phase {
    match name {
        "waiting" => Phase::Waiting,
        "downloading" => Phase::Downloading,
        "unpacking" => Phase::Unpacking,
        "done" => Phase::Done,
        "exists" => Phase::Exists,
        _ => Phase::Unspecified,
    }
}

#[cfg(test)]
mod tests {
    use tokio_stream::StreamExt;

    use super::*;

    fn step(layer: &str, phase: &str, current: u64) -> ImageProgress {
        ImageProgress {
            layer: layer.into(),
            phase: phase.into(),
            current,
            total: 100,
        }
    }

    /// The client reads nothing until the work is done: it still gets each layer's last state, then the image.
    #[tokio::test]
    async fn a_slow_client_misses_steps_but_no_last_state() {
        let items = stream(|sink| async move {
            for n in 0..1000 {
                sink(step("sha256:a", "downloading", n));
                sink(step("sha256:b", "downloading", n));
                tokio::task::yield_now().await;
            }
            sink(step("sha256:b", "done", 100));
            sink(step("sha256:a", "done", 100));
            Ok(vec![image("sha256:id".into(), "busybox".into())])
        });
        let all: Vec<Progress> = items.map(|item| item.expect("no error")).collect().await;
        assert!(all.len() < 100, "{} messages", all.len());
        let last_of = |layer: &str| all.iter().rfind(|p| p.layer == layer).map(|p| p.phase());
        assert_eq!(
            (last_of("sha256:a"), last_of("sha256:b")),
            (Some(Phase::Done), Some(Phase::Done))
        );
        assert_eq!(
            all.last().map(|p| (p.phase(), p.image_id.as_str())),
            Some((Phase::Image, "sha256:id"))
        );
    }

    #[tokio::test]
    async fn an_error_ends_the_stream_after_the_layers() {
        let items = stream(|sink| async move {
            sink(step("sha256:a", "downloading", 1));
            Err(Status::not_found("no such image"))
        });
        let all: Vec<Item> = items.collect().await;
        assert_eq!(all.len(), 2);
        assert_eq!(
            all[1].as_ref().map_err(Status::code),
            Err(tonic::Code::NotFound)
        );
    }

    #[tokio::test]
    async fn the_work_goes_on_when_the_client_leaves() {
        let (done, finished) = tokio::sync::oneshot::channel();
        let items = stream(|sink| async move {
            for n in 0..100 {
                sink(step(&n.to_string(), "downloading", 1));
                tokio::task::yield_now().await;
            }
            done.send(())
                .map_err(|()| Status::internal("nobody waits"))?;
            Ok(Vec::new())
        });
        drop(items);
        finished.await.expect("the work came to its end");
    }
}
