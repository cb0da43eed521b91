//! The engine as the handlers see it: there from the moment recovery has ended.

use std::sync::{Arc, OnceLock};

use engine::Engine;
use tonic::Status;

/// A handle to the node's engine, which may still be on its way.
#[derive(Debug, Clone, Default)]
pub(crate) struct Node(Arc<OnceLock<Engine>>);

impl Node {
    /// The engine, or UNAVAILABLE while it finds again what runs; clients retry that.
    pub(crate) fn engine(&self) -> Result<&Engine, Status> {
        self.0.get().ok_or_else(|| {
            Status::unavailable(
                "davit-cri has just started and is still recovering the node's pods; try again",
            )
        })
    }

    /// Lets requests in.
    pub(crate) fn open(&self, engine: Engine) {
        if self.0.set(engine).is_err() {
            tracing::error!("a second engine was opened; the first one goes on");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_before_the_end_of_recovery_are_told_to_try_again() {
        let status = Node::default().engine().expect_err("not open yet");
        assert_eq!(status.code(), tonic::Code::Unavailable);
    }
}
