//! The engine as the handlers see it: there from the end of recovery to the end of the daemon.

use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use engine::Engine;
use tokio::sync::watch;
use tonic::Status;

use crate::streaming::Streaming;

/// A handle to the node's engine, which may still be on its way, or gone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Node(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    state: RwLock<State>,
    stopping: watch::Sender<bool>,
    streaming: OnceLock<Streaming>,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Recovering,
    Open(Engine),
    Closed,
}

impl Node {
    /// The engine, or UNAVAILABLE while it finds again what runs; clients retry that.
    pub(crate) fn engine(&self) -> Result<Engine, Status> {
        match &*self.0.state.read().unwrap_or_else(PoisonError::into_inner) {
            State::Open(engine) => Ok(engine.clone()),
            State::Recovering => Err(Status::unavailable(
                "davit-cri has just started and is still recovering the node's pods; try again",
            )),
            State::Closed => Err(Status::unavailable(
                "davit-cri is stopping; try again when it is back",
            )),
        }
    }

    /// The streaming server.
    pub(crate) fn streaming(&self) -> Result<&Streaming, Status> {
        let streaming = self.0.streaming.get();
        streaming.ok_or_else(|| Status::unavailable("davit-cri does not stream yet; try again"))
    }

    /// The streaming server listens.
    pub(crate) fn stream_by(&self, streaming: Streaming) {
        // It is said once.
        self.0.streaming.set(streaming).ok();
    }

    /// Waits for the end of the daemon, which is the end of every stream.
    pub(crate) async fn closing(&self) {
        let mut stopping = self.stopping();
        stopping.wait_for(|stopping| *stopping).await.map(drop).ok();
    }

    /// Lets requests in.
    pub(crate) fn open(&self, engine: Engine) {
        self.replace(State::Open(engine));
    }

    /// Lets no more requests in, and waits for what those before have started. Pods go on.
    pub(crate) async fn close(&self) {
        if let State::Open(engine) = self.replace(State::Closed) {
            engine.close().await;
        }
    }

    /// Ends the streams that have no end of their own.
    pub(crate) fn stop_streams(&self) {
        self.0.stopping.send_replace(true);
    }

    /// Turns true when the daemon begins to stop.
    pub(crate) fn stopping(&self) -> watch::Receiver<bool> {
        self.0.stopping.subscribe()
    }

    fn replace(&self, state: State) -> State {
        std::mem::replace(
            &mut *self.0.state.write().unwrap_or_else(PoisonError::into_inner),
            state,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn requests_before_recovery_and_after_the_end_are_told_to_try_again() {
        let node = Node::default();
        let early = node.engine().expect_err("not open yet");
        assert_eq!(early.code(), tonic::Code::Unavailable);
        assert!(early.message().contains("recovering"), "{early}");
        node.close().await;
        let late = node.engine().expect_err("closed");
        assert_eq!(late.code(), tonic::Code::Unavailable);
        assert!(late.message().contains("stopping"), "{late}");
    }
}
