//! The shim's own end: containers deleted, namespaces unpinned, files removed, and only then the answer.
use super::connections::ReplyTo;
use super::containers::Phase;
use super::lifecycle::signal_init;
use super::{Closing, Supervisor, wire};
use crate::files;
use crate::launch;
use crate::protocol::ErrorKind;

const SIGKILL: i32 = 9;

impl Supervisor {
    /// Begins to end. Without `force`, containers that run refuse it; exited ones are deleted.
    pub(super) fn shut_down(&mut self, reply: Option<ReplyTo>, force: bool) {
        let running: Vec<&str> = self
            .containers
            .iter()
            .filter(|container| !matches!(container.phase, Phase::Exited(_)))
            .map(|c| c.id.as_str())
            .collect();
        let creating = self
            .containers
            .iter()
            .any(|container| container.phase == Phase::Creating);
        if creating || (!running.is_empty() && !force) {
            let message = format!("shutdown: containers run: {}", running.join(", "));
            return self.reply_if(reply, Err(wire(ErrorKind::Invalid, message)));
        }
        self.closing = Some(Closing { reply });
        for container in &self.containers {
            container.kill_rest();
            // An init that ended by itself in the meantime is what we want.
            drop(signal_init(container, SIGKILL));
        }
        let serials: Vec<u64> = self
            .containers
            .iter()
            .map(|container| container.serial)
            .collect();
        for serial in serials {
            if let Err(error) = self.run_delete(serial, true, None) {
                return self.fail_shutdown(error.message);
            }
        }
        self.continue_shutdown();
    }

    /// Ends when nothing is left to wait for.
    pub(super) fn continue_shutdown(&mut self) {
        if self.closing.is_none() || !self.containers.is_empty() || !self.commands.is_empty() {
            return;
        }
        let reply = self.closing.take().and_then(|closing| closing.reply);
        let answer = self.remove_everything().map(|()| serde_json::json!({}));
        self.done = true;
        self.reply_if(
            reply,
            answer.map_err(|error| wire(ErrorKind::Internal, format!("shutdown: {error}"))),
        );
    }

    /// A container could not be deleted: the shim stays, so that someone can try again.
    pub(super) fn abandon_shutdown(&mut self, container_id: &str) {
        if self.closing.is_some() {
            self.fail_shutdown(format!("container \"{container_id}\" could not be deleted"));
        }
    }

    fn fail_shutdown(&mut self, why: String) {
        if let Some(Closing { reply }) = self.closing.take() {
            self.reply_if(
                reply,
                Err(wire(ErrorKind::Runtime, format!("shutdown: {why}"))),
            );
        }
    }

    /// Every step is tried; the first error is told.
    fn remove_everything(&mut self) -> sys::Result<()> {
        let released = self.pod.release();
        let socket = launch::remove(&files::socket(&self.options.pod_dir));
        let pid_file = launch::remove(&files::pid_file(&self.options.pod_dir));
        released.and(socket).and(pid_file)
    }
}
