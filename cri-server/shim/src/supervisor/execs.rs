//! `exec` and `kill_exec`.
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use sys::{Pid, process};

use super::commands::{self, Command, Invocation, Log, Purpose};
use super::connections::ReplyTo;
use super::create::Console;
use super::{Supervisor, wire, words};
use crate::launch;
use crate::protocol::{ErrorKind, Event, Exec as Request, ExecStarted, WireError};
use crate::tree::{self, Tree};

/// How many ended execs are remembered, so that what they left running can still be killed.
const ENDED_MAX: usize = 64;

/// A program that was run in a container.
pub(super) struct Exec {
    pub(super) container: u64,
    container_id: String,
    id: String,
    pub(super) pid: i32,
    /// Its session; that of its process id with most runtimes, that of an intermediate process with crun.
    session: Option<i32>,
    pub(super) exit: Option<i32>,
}

impl Exec {
    pub(super) fn exit_event(&self, exit_code: i32) -> Event {
        Event::ExecExit {
            container_id: self.container_id.clone(),
            exec_id: self.id.clone(),
            exit_code,
        }
    }
}

impl Supervisor {
    /// The runtime gets the client's descriptors as its stdio and hands them on; it goes to the background and names the
    /// new process in a file.
    pub(super) fn exec(
        &mut self,
        reply: ReplyTo,
        request: Request,
        fds: Vec<OwnedFd>,
    ) -> Result<(), WireError> {
        let Request {
            container_id,
            exec_id,
            process_json_path,
            terminal,
        } = request;
        let what = format!("exec \"{exec_id}\" in \"{container_id}\"");
        let invalid = |why: &str| wire(ErrorKind::Invalid, format!("{what}: {why}"));
        let container = self.existing(&container_id)?;
        if !container.lives() {
            return Err(invalid("the container does not run"));
        }
        if !process_json_path.is_absolute() {
            return Err(invalid(&format!(
                "{process_json_path:?} is not an absolute path"
            )));
        }
        let serial = container.serial;
        if self.knows_exec(serial, &exec_id) {
            return Err(wire(
                ErrorKind::AlreadyExists,
                format!("{what}: the exec exists already"),
            ));
        }
        let stdio = match terminal {
            true => None,
            false => Some(stdio(fds).map_err(|error| invalid(&error))?),
        };
        let (Some(pid_file), Some(log)) =
            (self.temporary(serial, "pid"), self.temporary(serial, "log"))
        else {
            return Err(invalid("the bundle is gone"));
        };
        let container = self.existing(&container_id)?;
        let (runtime, bundle) = (container.runtime.clone(), container.bundle.clone());
        let mut arguments: Vec<std::ffi::OsString> = vec![
            "--process".into(),
            process_json_path.into(),
            "--detach".into(),
            "--pid-file".into(),
            pid_file.clone().into(),
        ];
        let mut console = None;
        if terminal {
            let name = pid_file.with_extension("sock");
            let name = name.file_name().and_then(|name| name.to_str());
            let listening = Console::listen(&bundle, name.unwrap_or("exec.sock"))
                .map_err(|error| wire(ErrorKind::Internal, format!("{what}: {error}")))?;
            arguments.extend(["--console-socket".into(), listening.address().into()]);
            console = Some(listening);
        }
        arguments.push(container_id.clone().into());
        let started = commands::start(Invocation {
            runtime: &runtime,
            verb: "exec",
            log: Log::Temporary(log),
            arguments,
            stdio: stdio
                .as_ref()
                .map(|fds| [fds[0].as_fd(), fds[1].as_fd(), fds[2].as_fd()]),
        })?;
        self.watch(
            started,
            (serial, &container_id),
            Purpose::Exec {
                exec_id,
                pid_file,
                console,
            },
            Some(reply),
        );
        Ok(())
    }

    fn knows_exec(&self, container: u64, exec_id: &str) -> bool {
        let running = |command: &Command| {
            command.container == container
                && matches!(&command.purpose, Purpose::Exec { exec_id: id, .. } if id == exec_id)
        };
        self.execs
            .iter()
            .any(|exec| exec.container == container && exec.id == exec_id)
            || self.commands.iter().any(running)
    }

    pub(super) fn exec_ended(&mut self, command: Command, result: Result<(), WireError>) {
        let Command {
            container,
            container_id,
            purpose,
            reply,
            ..
        } = command;
        let Purpose::Exec {
            exec_id,
            pid_file,
            console,
        } = purpose
        else {
            return;
        };
        let pid = result.and_then(|()| words::read_pid(&pid_file));
        drop(launch::remove(&pid_file));
        let pid = match pid {
            Ok(pid) => pid,
            Err(error) => return self.reply_if(reply, Err(error)),
        };
        let stray = self.ended_already(pid);
        let session = stray
            .as_ref()
            .map_or_else(|| own_session(pid), |stray| stray.session);
        let exec = Exec {
            container,
            container_id,
            id: exec_id,
            pid,
            session,
            exit: stray.map(|stray| stray.ended.code()),
        };
        let event = exec.exit.map(|code| exec.exit_event(code));
        let what = format!("exec \"{}\" in \"{}\"", exec.id, exec.container_id);
        self.execs.push(exec);
        let terminal = console.map(Console::receive).transpose();
        let answer = match &terminal {
            Ok(_) => serde_json::to_value(ExecStarted { pid })
                .map_err(|error| wire(ErrorKind::Internal, error.to_string())),
            Err(error) => Err(wire(ErrorKind::Runtime, format!("{what}: {error}"))),
        };
        let fds: Vec<_> = terminal.iter().flatten().map(AsFd::as_fd).collect();
        if let Some(reply) = reply {
            // A process whose terminal never came, or whose client is gone, loses its terminal here: SIGHUP.
            self.reply_with(reply, answer, &fds);
        }
        if let Some(event) = event {
            self.announce(&event);
            self.forget_old_execs();
        }
    }

    pub(super) fn kill_exec(&mut self, container_id: &str, exec_id: &str) -> Result<(), WireError> {
        let container = self.existing(container_id)?;
        let (serial, cgroup) = (container.serial, container.cgroup.clone());
        let list = || match &cgroup {
            Some(cgroup) => cgroup.processes().unwrap_or_default(),
            None => tree::all_processes(),
        };
        if let Some(exec) = self
            .execs
            .iter()
            .find(|exec| exec.container == serial && exec.id == exec_id)
        {
            tree::kill(
                Tree {
                    root: exec.pid,
                    root_alive: exec.exit.is_none(),
                    session: exec.session,
                },
                list,
            );
            return Ok(());
        }
        let on_its_way = self
            .commands
            .iter()
            .find_map(|command| match &command.purpose {
                Purpose::Exec {
                    exec_id: id,
                    pid_file,
                    ..
                } if command.container == serial && id == exec_id => Some((command.pid, pid_file)),
                _ => None,
            });
        let Some((pid, pid_file)) = on_its_way else {
            return Err(wire(
                ErrorKind::NotFound,
                format!("exec \"{exec_id}\" in \"{container_id}\" does not exist"),
            ));
        };
        kill_unfinished(pid, pid_file, list);
        Ok(())
    }

    /// Running execs of a container, for the status.
    pub(super) fn running_execs(&self, container: u64) -> Vec<String> {
        self.execs
            .iter()
            .filter(|exec| exec.container == container && exec.exit.is_none())
            .map(|exec| exec.id.clone())
            .collect()
    }

    /// Ended execs of a container with their codes, for the status: the last ones, so that it fits in a packet.
    pub(super) fn ended_execs(&self, container: u64) -> Vec<(String, i32)> {
        self.execs
            .iter()
            .filter(|exec| exec.container == container)
            .filter_map(|exec| Some((exec.id.clone(), exec.exit?)))
            .collect()
    }

    /// Probes run for weeks: only the last ended ones are kept.
    pub(super) fn forget_old_execs(&mut self) {
        let ended = self.execs.iter().filter(|exec| exec.exit.is_some()).count();
        let mut surplus = ended.saturating_sub(ENDED_MAX);
        self.execs.retain(|exec| {
            let forget = surplus > 0 && exec.exit.is_some();
            surplus -= usize::from(forget);
            !forget
        });
    }
}

/// The session of a process, unless it is our own: a runtime that makes none for its execs leaves them in ours.
pub(super) fn own_session(pid: i32) -> Option<i32> {
    let session = |pid| process::stat(pid).ok().map(|stat| stat.session);
    session(Pid::from_raw(pid)).filter(|found| Some(*found) != session(Pid::this()))
}

/// Kills a runtime that is still starting an exec, and the process that it may have made already.
fn kill_unfinished(runtime: i32, pid_file: &Path, list: impl Fn() -> Vec<i32>) {
    tree::kill(
        Tree {
            root: runtime,
            root_alive: true,
            session: None,
        },
        tree::all_processes,
    );
    if let Ok(pid) = words::read_pid(pid_file) {
        tree::kill(
            Tree {
                root: pid,
                root_alive: true,
                session: own_session(pid),
            },
            list,
        );
    }
}

/// stdin, stdout, stderr; the first is /dev/null when only two were sent.
fn stdio(fds: Vec<OwnedFd>) -> Result<[OwnedFd; 3], String> {
    let count = fds.len();
    let mut fds = fds;
    if count == 2 {
        let null = std::fs::File::open("/dev/null")
            .map_err(|error| format!("open(\"/dev/null\"): {error}"))?;
        fds.insert(0, null.into());
    }
    fds.try_into().map_err(|_| {
        format!("{count} descriptors came with the request, not [stdin,] stdout, stderr")
    })
}
