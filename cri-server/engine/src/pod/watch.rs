//! Listening to a pod's shim, for as long as it lives.
//!
//! A connection may break without the shim being gone; then the listener connects again and asks for the
//! whole state, because what happened in between was told to nobody.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use shim::client::{Error as ShimError, EventStream};
use shim::protocol::{Event, Status};
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;

use super::Pod;
use super::supervisor::Supervisor;
use crate::images::blocking;

/// How long to wait before trying again with a shim that is there and does not answer: at first, and at most. One that
/// is just dying refuses connections a moment before its process is gone.
const SHORT_PAUSE: Duration = Duration::from_millis(10);
const PAUSE: Duration = Duration::from_secs(1);

/// What a pod's task hears.
pub(crate) enum Signal {
    /// An event.
    Event(Event),
    /// The state as a whole, after (re)connecting.
    State(Status),
    /// The shim is gone.
    Gone,
}

/// Listens until the shim is gone or the task no longer listens.
pub(crate) async fn watch(
    pod: Arc<Pod>,
    supervisor: Supervisor,
    signals: mpsc::UnboundedSender<Signal>,
) {
    let mut pause = SHORT_PAUSE;
    loop {
        let (supervisor, dead) = (supervisor.clone(), supervisor.clone());
        match blocking(move || Ok(subscribe(&supervisor))).await {
            Ok(Ok((stream, status))) => {
                pod.execs.reconcile(&status);
                if signals.send(Signal::State(status)).is_err() {
                    return;
                }
                pause = SHORT_PAUSE;
                pod.execs.set_listening(true);
                let ended = listen(&pod, stream, &signals).await;
                pod.execs.set_listening(false);
                tracing::debug!(pod.id = pod.id, ?ended, "the connection to the shim ended");
            }
            Ok(Err(ShimError::Connect { .. })) if is_dead(&pod.id, &dead).await => {
                pod.execs.clear();
                // Nobody listens any more: the pod was removed.
                signals.send(Signal::Gone).ok();
                return;
            }
            Ok(Err(error)) => {
                tracing::warn!(
                    pod.id = pod.id,
                    error = &error as &dyn std::error::Error,
                    "the shim does not answer"
                );
                tokio::time::sleep(pause).await;
                pause = PAUSE.min(pause * 2);
                continue;
            }
            // The runtime shuts down.
            Err(_) => return,
        }
        if signals.is_closed() {
            return;
        }
    }
}

/// Whether the shim's process is gone, too.
async fn is_dead(pod: &str, supervisor: &Supervisor) -> bool {
    let supervisor = supervisor.clone();
    let dead = blocking(move || Ok(supervisor.is_dead())).await;
    dead.unwrap_or_else(|error| {
        tracing::debug!(pod.id = pod, "{}", error.report());
        false
    })
}

/// Subscribes first and asks second, so that nothing falls in between.
fn subscribe(supervisor: &Supervisor) -> Result<(EventStream, Status), ShimError> {
    let stream = supervisor.connect()?.subscribe()?;
    let status = supervisor.connect()?.status()?;
    Ok((stream, status))
}

/// Passes events on; the answer is why it ended.
async fn listen(
    pod: &Pod,
    stream: EventStream,
    signals: &mpsc::UnboundedSender<Signal>,
) -> io::Result<()> {
    let mut stream = register(stream)?;
    loop {
        let mut ready = tokio::select! {
            ready = stream.readable_mut() => ready?,
            () = signals.closed() => return Ok(()),
        };
        loop {
            match ready.get_inner_mut().try_next() {
                Ok(None) => break,
                // The caller of an exec waits for this one, not the task.
                Ok(Some(Event::ExecExit {
                    exec_id, exit_code, ..
                })) => pod.execs.ended(&exec_id, exit_code),
                Ok(Some(event)) => {
                    if signals.send(Signal::Event(event)).is_err() {
                        return Ok(());
                    }
                }
                Err(error) => return Err(io::Error::other(error)),
            }
        }
        ready.clear_ready();
    }
}

/// Puts the stream under tokio's eyes.
#[expect(
    deprecated,
    reason = "its successor is unsafe for types whose descriptor can change; an EventStream owns one for life"
)]
fn register(stream: EventStream) -> io::Result<AsyncFd<EventStream>> {
    AsyncFd::with_interest(stream, tokio::io::Interest::READABLE)
}
