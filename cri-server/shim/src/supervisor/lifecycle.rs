//! `start`, `signal`, `delete`, `update`, `reopen_log`.
use std::path::{Path, PathBuf};

use sys::{Errno, Pid, process};

use super::commands::{self, Command, Invocation, Log, Purpose};
use super::connections::ReplyTo;
use super::containers::{Container, Phase};
use super::{Supervisor, wire};
use crate::log::now_ns;
use crate::protocol::{ErrorKind, Signalled, WireError};

/// The highest signal number of Linux.
const SIGNAL_MAX: i32 = 64;
const SIGKILL: i32 = 9;

impl Supervisor {
    pub(super) fn start(&mut self, reply: ReplyTo, id: &str) -> Result<(), WireError> {
        let container = self.existing(id)?;
        if container.phase == Phase::Creating || container.starting {
            return Err(wire(
                ErrorKind::Invalid,
                format!("start \"{id}\": another operation is on its way"),
            ));
        }
        // Anything else that is wrong the runtime says best.
        let serial = container.serial;
        self.run_verb(serial, "start", Vec::new(), Purpose::Start, Some(reply))?;
        if let Some(container) = self.by_serial(serial) {
            container.starting = true;
        }
        Ok(())
    }

    pub(super) fn start_ended(&mut self, command: &Command, result: Result<(), WireError>) {
        let now = now_ns();
        if let Some(container) = self.by_serial(command.container) {
            container.starting = false;
            if result.is_ok() {
                // A program that ended already started before that.
                container.started_at_ns = match container.phase {
                    Phase::Draining { exit, .. } => exit.finished_at_ns,
                    _ => now,
                };
                if container.phase == Phase::Created {
                    container.phase = Phase::Running;
                }
            }
        }
        self.reply_if(command.reply, result.map(|()| serde_json::json!({})));
        self.settle(command.container, std::time::Instant::now());
    }

    pub(super) fn signal(
        &mut self,
        reply: ReplyTo,
        id: &str,
        signal: i32,
        all: bool,
    ) -> Result<(), WireError> {
        if !(1..=SIGNAL_MAX).contains(&signal) {
            return Err(wire(
                ErrorKind::Invalid,
                format!("signal \"{id}\": {signal} is no signal"),
            ));
        }
        let container = self.existing(id)?;
        if container.phase == Phase::Creating {
            return Err(wire(
                ErrorKind::Invalid,
                format!("signal \"{id}\": it is being created"),
            ));
        }
        if all && container.cgroup.is_none() {
            // No cgroup that is surely its own: the runtime may know better.
            let serial = container.serial;
            let arguments = vec!["--all".into(), id.into(), signal.to_string().into()];
            return self.run_verb(serial, "kill", arguments, Purpose::Kill, Some(reply));
        }
        let delivered = if all {
            signal_all(container, signal)?
        } else {
            signal_init(container, signal)?
        };
        self.answer(reply, &Signalled { delivered });
        Ok(())
    }

    pub(super) fn delete(
        &mut self,
        reply: ReplyTo,
        id: &str,
        force: bool,
    ) -> Result<(), WireError> {
        let Some(container) = self.container(id) else {
            self.reply(reply, Ok(serde_json::json!({})));
            return Ok(());
        };
        if container.phase == Phase::Creating {
            return Err(wire(
                ErrorKind::Invalid,
                format!("delete \"{id}\": it is being created"),
            ));
        }
        let serial = container.serial;
        self.run_delete(serial, force, Some(reply))
    }

    pub(super) fn run_delete(
        &mut self,
        serial: u64,
        force: bool,
        reply: Option<ReplyTo>,
    ) -> Result<(), WireError> {
        let arguments = if force {
            vec!["--force".into()]
        } else {
            Vec::new()
        };
        self.run_verb(
            serial,
            "delete",
            arguments,
            Purpose::Delete { force },
            reply,
        )
    }

    pub(super) fn delete_ended(&mut self, command: &Command, result: Result<(), WireError>) {
        let Purpose::Delete { force } = command.purpose else {
            return;
        };
        // Another deletion was faster, or somebody used the runtime behind our back.
        let gone = |error: &WireError| {
            error.kind == ErrorKind::Runtime && error.message.contains("does not exist")
        };
        match result {
            Err(error) if !gone(&error) => {
                self.reply_if(command.reply, Err(error));
                self.abandon_shutdown(&command.container_id);
            }
            _ => {
                let Some(container) = self.by_serial(command.container) else {
                    self.reply_if(command.reply, Ok(serde_json::json!({})));
                    return;
                };
                container.deletions.push(command.reply);
                if force {
                    // The runtime has seen to it, unless it had lost the container.
                    container.kill_rest();
                    drop(signal_init(container, SIGKILL));
                }
                let serial = container.serial;
                self.finish_deletions(serial);
            }
        }
    }

    pub(super) fn update(
        &mut self,
        reply: ReplyTo,
        id: &str,
        resources: &Path,
    ) -> Result<(), WireError> {
        let container = self.existing(id)?;
        if !container.lives() {
            return Err(wire(
                ErrorKind::Invalid,
                format!("update \"{id}\": it does not run"),
            ));
        }
        if !resources.is_absolute() {
            return Err(wire(
                ErrorKind::Invalid,
                format!("update \"{id}\": {resources:?} is not an absolute path"),
            ));
        }
        let serial = container.serial;
        self.run_verb(
            serial,
            "update",
            vec!["--resources".into(), resources.into()],
            Purpose::Update,
            Some(reply),
        )
    }

    pub(super) fn reopen_log(&mut self, reply: ReplyTo, id: &str) -> Result<(), WireError> {
        self.existing(id)?;
        let Some(container) = self
            .containers
            .iter_mut()
            .find(|container| container.id == id)
        else {
            return Ok(());
        };
        if let Phase::Exited(_) = container.phase {
            return Err(wire(
                ErrorKind::Invalid,
                format!("reopen_log \"{id}\": the container has exited"),
            ));
        }
        container
            .log
            .reopen()
            .map_err(|error| wire(ErrorKind::Internal, format!("reopen_log \"{id}\": {error}")))?;
        self.reply(reply, Ok(serde_json::json!({})));
        Ok(())
    }

    pub(super) fn existing(&self, id: &str) -> Result<&Container, WireError> {
        self.container(id).ok_or_else(|| {
            wire(
                ErrorKind::NotFound,
                format!("container \"{id}\" does not exist"),
            )
        })
    }

    /// Runs a runtime command about a container; its id comes last.
    fn run_verb(
        &mut self,
        serial: u64,
        verb: &'static str,
        mut arguments: Vec<std::ffi::OsString>,
        purpose: Purpose,
        reply: Option<ReplyTo>,
    ) -> Result<(), WireError> {
        let log = self.temporary_log(serial);
        let Some(container) = self.by_serial(serial) else {
            return Ok(());
        };
        let id = container.id.clone();
        if !matches!(purpose, Purpose::Kill) {
            arguments.push(id.clone().into());
        }
        let started = commands::start(Invocation {
            runtime: &container.runtime,
            verb,
            log,
            arguments,
            stdio: None,
        })?;
        self.watch(started, (serial, &id), purpose, reply);
        Ok(())
    }

    /// Commands of one container may run side by side, so each has a log of its own.
    fn temporary_log(&mut self, serial: u64) -> Log {
        match self.temporary(serial, "log") {
            Some(path) => Log::Temporary(path),
            None => Log::None,
        }
    }

    /// A name in the bundle that is used once; `None` when the bundle is gone.
    pub(super) fn temporary(&mut self, serial: u64, extension: &str) -> Option<PathBuf> {
        let number = self.serial();
        let container = self.by_serial(serial)?;
        container.bundle.is_dir().then(|| {
            container
                .bundle
                .join(format!("runtime-{number}.{extension}"))
        })
    }
}

/// Signals the init. We are its parent and have not reaped it, so its id is still its own; else there is a pidfd.
pub(super) fn signal_init(container: &Container, signal: i32) -> Result<bool, WireError> {
    if !container.lives() {
        return Ok(false);
    }
    let sent = match &container.foreign {
        Some(pidfd) => process::pidfd_send_signal(pidfd, signal),
        None => process::send_signal(Pid::from_raw(container.pid), signal),
    };
    delivered(sent).map_err(|error| {
        wire(
            ErrorKind::Internal,
            format!("signal \"{}\": {error}", container.id),
        )
    })
}

fn signal_all(container: &Container, signal: i32) -> Result<bool, WireError> {
    let internal = |text: String| {
        wire(
            ErrorKind::Internal,
            format!("signal \"{}\": {text}", container.id),
        )
    };
    let Some(cgroup) = &container.cgroup else {
        return Ok(false);
    };
    let processes = cgroup
        .processes()
        .map_err(|error| internal(error.to_string()))?;
    if processes.is_empty() {
        return Ok(false);
    }
    if signal == SIGKILL {
        cgroup
            .kill_all()
            .map_err(|error| internal(error.to_string()))?;
        return Ok(true);
    }
    let mut delivered = false;
    for pid in processes {
        delivered |= self::delivered(process::send_signal(Pid::from_raw(pid), signal))
            .map_err(|error| internal(error.to_string()))?;
    }
    Ok(delivered)
}

fn delivered(sent: sys::Result<()>) -> sys::Result<bool> {
    match sent {
        Ok(()) => Ok(true),
        Err(error) if error.errno == Errno::ESRCH => Ok(false),
        Err(error) => Err(error),
    }
}
