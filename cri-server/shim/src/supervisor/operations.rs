//! From requests to operations. What answers at once answers here; the rest answers when its runtime command ends.
use std::os::fd::OwnedFd;

use serde::Serialize;

use super::connections::ReplyTo;
use super::{Supervisor, wire};
use crate::protocol::{ErrorKind, Hello, Op, Status, VERSION};

/// The most runtime commands at once.
const COMMANDS_MAX: usize = 256;

impl Supervisor {
    /// Carries out one request.
    pub(super) fn operate(&mut self, reply: ReplyTo, op: Op, fds: Vec<OwnedFd>) {
        if let Some(error) = self.refusal(&op) {
            return self.reply(reply, Err(error));
        }
        let result = match op {
            Op::Hello { version } => self.hello(reply, version),
            Op::Create(create) => {
                self.create(reply, create);
                Ok(())
            }
            Op::Start { container_id } => self.start(reply, &container_id),
            Op::Signal {
                container_id,
                signal,
                all,
            } => self.signal(reply, &container_id, signal, all),
            Op::Delete {
                container_id,
                force,
            } => self.delete(reply, &container_id, force),
            Op::Exec(exec) => self.exec(reply, exec, fds),
            Op::KillExec {
                container_id,
                exec_id,
            } => self
                .kill_exec(&container_id, &exec_id)
                .map(|()| self.reply(reply, Ok(serde_json::json!({})))),
            Op::Update {
                container_id,
                resources_path,
            } => self.update(reply, &container_id, &resources_path),
            Op::ReopenLog { container_id } => self.reopen_log(reply, &container_id),
            Op::Status {} => {
                let status = self.status();
                self.answer(reply, &status);
                Ok(())
            }
            Op::Subscribe {} => {
                self.subscribe(reply);
                self.reply(reply, Ok(serde_json::json!({})));
                Ok(())
            }
            Op::Attach(attach) => self.attach(reply, &attach, fds),
            Op::Shutdown { force } => {
                self.shut_down(Some(reply), force);
                Ok(())
            }
        };
        if let Err(error) = result {
            self.reply(reply, Err(error));
        }
    }

    fn refusal(&self, op: &Op) -> Option<crate::protocol::WireError> {
        let harmless = matches!(
            op,
            Op::Hello { .. }
                | Op::Status {}
                | Op::Subscribe {}
                | Op::Signal { .. }
                | Op::KillExec { .. }
        );
        if harmless {
            return None;
        }
        if self.closing.is_some() {
            return Some(wire(ErrorKind::Invalid, "the shim is shutting down"));
        }
        (self.commands.len() >= COMMANDS_MAX).then(|| {
            wire(
                ErrorKind::Internal,
                format!("{COMMANDS_MAX} operations are on their way already"),
            )
        })
    }

    fn hello(&mut self, reply: ReplyTo, version: u32) -> Result<(), crate::protocol::WireError> {
        if version == 0 {
            return Err(wire(ErrorKind::Invalid, "version 0 does not exist"));
        }
        // A newer client decides for itself whether it can live with ours.
        let pid = i32::try_from(std::process::id()).unwrap_or(0);
        self.answer(
            reply,
            &Hello {
                version: VERSION,
                pid,
                pod_id: self.options.pod_id.clone(),
            },
        );
        Ok(())
    }

    fn status(&self) -> Status {
        Status {
            containers: self
                .containers
                .iter()
                .map(|container| {
                    let mut status = container.status(self.running_execs(container.serial));
                    status.ended_execs = self.ended_execs(container.serial);
                    status
                })
                .collect(),
            pod_init_alive: self.pod.has_init.then_some(self.pod.init.is_some()),
            pod_init_pid: self.pod.init,
        }
    }

    pub(super) fn answer(&mut self, reply: ReplyTo, answer: &impl Serialize) {
        let value = serde_json::to_value(answer)
            .map_err(|error| wire(ErrorKind::Internal, error.to_string()));
        self.reply(reply, value);
    }
}
