//! OCI runtime commands: children with a deadline, never waited for.
use std::ffi::{CString, OsString};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use sys::process::Exit as Ended;
use sys::spawn::{Spawn, spawn};

use super::connections::ReplyTo;
use super::create::Console;
use super::words::{keep_tail, last_line, logged_error};
use super::{Supervisor, Token, after, wire};
use crate::launch;
use crate::protocol::{ErrorKind, Runtime, WireError};
use crate::tree::{self, Tree};

/// How long a killed command may take to be gone before its client is answered anyway.
const KILLED: Duration = Duration::from_secs(5);

/// A runtime command that runs.
pub(super) struct Command {
    pub(super) serial: u64,
    pub(super) pid: i32,
    /// `create`, `start`, …
    verb: &'static str,
    /// The serial of its container.
    pub(super) container: u64,
    pub(super) container_id: String,
    pub(super) purpose: Purpose,
    pub(super) reply: Option<ReplyTo>,
    log: Log,
    stderr: Option<OwnedFd>,
    text: Vec<u8>,
    deadline: Instant,
    killed: bool,
}

/// What is to happen when it ends.
#[derive(Debug)]
pub(super) enum Purpose {
    /// Learn the init's process id.
    Create {
        pid_file: PathBuf,
        console: Option<Console>,
    },
    /// The creation did not end in time; this removes what it left, and then the client hears of it.
    UndoCreate(WireError),
    /// The program runs.
    Start,
    /// The container is gone.
    Delete { force: bool },
    /// The answer is all.
    Update,
    /// Learn the exec's process id.
    Exec {
        exec_id: String,
        pid_file: PathBuf,
        console: Option<Console>,
    },
    /// A signal that the runtime has to deliver.
    Kill,
}

/// The file that the runtime logs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Log {
    /// It stays for people to look at.
    Keep(PathBuf),
    /// It is removed when the command ended.
    Temporary(PathBuf),
    /// The bundle is gone, and with it the place for a log.
    None,
}

/// How to run a command.
pub(super) struct Invocation<'a> {
    pub(super) runtime: &'a Runtime,
    pub(super) verb: &'static str,
    pub(super) log: Log,
    /// After the verb.
    pub(super) arguments: Vec<OsString>,
    /// stdin, stdout, stderr; without, stdin and stdout are empty and stderr is kept for the error text.
    pub(super) stdio: Option<[BorrowedFd<'a>; 3]>,
}

/// A child that was just started.
pub(super) struct Started {
    pid: i32,
    verb: &'static str,
    log: Log,
    stderr: Option<OwnedFd>,
}

impl Command {
    pub(super) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Whether it leaves a process whose id is not known before it ended.
    pub(super) fn makes_process(&self) -> bool {
        matches!(self.purpose, Purpose::Create { .. } | Purpose::Exec { .. })
    }
}

/// Starts the runtime. The child leads a process group of its own and is killed by the kernel when the shim dies: what it
/// leaves half made is then found by the daemon's `delete --force`, not made whole behind its back.
pub(super) fn start(invocation: Invocation<'_>) -> Result<Started, WireError> {
    let Invocation {
        runtime,
        verb,
        log,
        arguments,
        stdio,
    } = invocation;
    let mut words: Vec<OsString> = vec![runtime.path.clone().into()];
    if let Some(root) = &runtime.root {
        words.extend(["--root".into(), root.into()]);
    }
    if let Log::Keep(path) | Log::Temporary(path) = &log {
        words.extend([
            "--log".into(),
            path.into(),
            "--log-format".into(),
            "json".into(),
        ]);
    }
    words.extend(runtime.args.iter().map(OsString::from));
    words.push(verb.into());
    words.extend(arguments);
    let argv: Option<Vec<CString>> = words
        .iter()
        .map(|word| CString::new(word.as_bytes()).ok())
        .collect();
    let argv = argv.ok_or_else(|| wire(ErrorKind::Invalid, "an argument contains a NUL byte"))?;
    let internal =
        |error: sys::Error| wire(ErrorKind::Internal, format!("runtime {verb}: {error}"));
    let null = sys::error::Context::call(
        File::options().read(true).write(true).open("/dev/null"),
        || "open(\"/dev/null\")".into(),
    );
    let null = null.map_err(internal)?;
    let (stderr, stderr_write) = match stdio {
        Some(_) => (None, None),
        None => sys::fd::pipe()
            .map(|(read, write)| (Some(read), Some(write)))
            .map_err(internal)?,
    };
    let own = stderr_write.as_ref().map_or(null.as_fd(), AsFd::as_fd);
    let request = Spawn {
        program: &argv[0],
        argv: &argv,
        env: &environment(),
        stdio: stdio.unwrap_or([null.as_fd(), null.as_fd(), own]),
        new_group: true,
        die_with_parent: true,
    };
    let pid = spawn(&request).map_err(|error| wire(ErrorKind::Runtime, error.to_string()))?;
    Ok(Started {
        pid,
        verb,
        log,
        stderr,
    })
}

/// Our environment without what a service manager meant for us alone.
fn environment() -> Vec<CString> {
    std::env::vars_os()
        .filter(|(name, _)| {
            !matches!(
                name.to_str(),
                Some("NOTIFY_SOCKET" | "LISTEN_FDS" | "LISTEN_PID" | "LISTEN_FDNAMES")
            )
        })
        .filter_map(|(name, value)| {
            CString::new([name.as_bytes(), b"=", value.as_bytes()].concat()).ok()
        })
        .collect()
}

impl Supervisor {
    /// Takes a started child under supervision.
    pub(super) fn watch(
        &mut self,
        started: Started,
        container: (u64, &str),
        purpose: Purpose,
        reply: Option<ReplyTo>,
    ) {
        let serial = self.serial();
        let Started {
            pid,
            verb,
            log,
            stderr,
        } = started;
        if let Some(stderr) = &stderr {
            // Unwatched it is read when the command ends; only one that writes a pipeful would meet its deadline.
            drop(self.epoll.add(stderr, Token::Command(serial).encode()));
        }
        self.commands.push(Command {
            serial,
            pid,
            verb,
            container: container.0,
            container_id: container.1.to_owned(),
            purpose,
            reply,
            log,
            stderr,
            text: Vec::new(),
            deadline: after(self.options.runtime_deadline),
            killed: false,
        });
    }

    /// Something came on a command's stderr.
    pub(super) fn read_command(&mut self, serial: u64) {
        let Some(command) = self
            .commands
            .iter_mut()
            .find(|command| command.serial == serial)
        else {
            return;
        };
        let Some(stderr) = &command.stderr else {
            return;
        };
        match sys::fd::read(stderr, &mut self.buffer) {
            Ok(count) if count > 0 => keep_tail(&mut command.text, &self.buffer[..count]),
            _ => {
                // It was added by `watch`; where that failed there is nothing to remove.
                drop(self.epoll.remove(stderr));
                command.stderr = None;
            }
        }
    }

    pub(super) fn expire_commands(&mut self, now: Instant) {
        let late: Vec<u64> = self
            .commands
            .iter()
            .filter(|command| command.deadline <= now)
            .map(|command| command.serial)
            .collect();
        for serial in late {
            let Some(command) = self
                .commands
                .iter_mut()
                .find(|command| command.serial == serial)
            else {
                continue;
            };
            if command.killed {
                // Not even SIGKILL ends it: it hangs in the kernel. Its client must not.
                self.command_ended(serial, Ended::Signal(9));
                continue;
            }
            command.killed = true;
            command.deadline = now + KILLED;
            tree::kill(
                Tree {
                    root: command.pid,
                    root_alive: true,
                    session: None,
                },
                tree::all_processes,
            );
        }
    }

    /// A command ended, or is given up.
    pub(super) fn command_ended(&mut self, serial: u64, ended: Ended) {
        let Some(at) = self
            .commands
            .iter()
            .position(|command| command.serial == serial)
        else {
            return;
        };
        self.read_rest(at);
        if let Purpose::Create { .. } = self.commands[at].purpose {
            // Its stderr is the container's: the last words of a runtime that failed are there.
            self.drain(self.commands[at].container);
        }
        let mut command = self.commands.remove(at);
        if let Some(stderr) = command.stderr.take() {
            drop(self.epoll.remove(&stderr));
        }
        let result = self.result(&command, ended);
        if let Log::Temporary(path) = &command.log {
            // A log that stays costs a file in the bundle, which goes with the container.
            drop(launch::remove(path));
        }
        match &command.purpose {
            Purpose::Create { .. } => self.create_ended(command, result),
            Purpose::UndoCreate(_) => self.undo_create_ended(command),
            Purpose::Start => self.start_ended(&command, result),
            Purpose::Delete { .. } => self.delete_ended(&command, result),
            Purpose::Exec { .. } => self.exec_ended(command, result),
            Purpose::Update | Purpose::Kill => {
                let answer = result.map(|()| serde_json::json!({}));
                self.reply_if(command.reply, answer);
            }
        }
        self.forget_strays();
        if self.commands.is_empty() {
            // Idle again, perhaps for days.
            sys::memory::release_free();
        }
        self.continue_shutdown();
    }

    pub(super) fn reply_if(&mut self, to: Option<ReplyTo>, answer: super::Answer) {
        if let Some(to) = to {
            self.reply(to, answer);
        }
    }

    /// What its stderr still holds. A grandchild may keep the other end: only what is there is read.
    fn read_rest(&mut self, at: usize) {
        let command = &mut self.commands[at];
        for _ in 0..16 {
            let Some(stderr) = &command.stderr else {
                return;
            };
            if !sys::fd::wait_readable(&[stderr.as_fd()], 0).is_ok_and(|ready| ready == [true]) {
                return;
            }
            match sys::fd::read(stderr, &mut self.buffer) {
                Ok(count) if count > 0 => keep_tail(&mut command.text, &self.buffer[..count]),
                _ => return,
            }
        }
    }

    /// Success, or the error in the runtime's own words.
    fn result(&self, command: &Command, ended: Ended) -> Result<(), WireError> {
        let what = format!("{} \"{}\"", command.verb, command.container_id);
        if command.killed {
            let limit = self.options.runtime_deadline;
            return Err(wire(
                ErrorKind::Timeout,
                format!("{what}: the OCI runtime did not end within {limit:?} and was killed"),
            ));
        }
        if ended == Ended::Code(0) {
            return Ok(());
        }
        let early = self
            .containers
            .iter()
            .find(|container| container.serial == command.container)
            .map(|container| &container.early[..]);
        let log = match &command.log {
            Log::Keep(path) | Log::Temporary(path) => Some(path),
            Log::None => None,
        };
        let text = log
            .and_then(|path| logged_error(path))
            .or_else(|| last_line(&command.text))
            .or_else(|| {
                early
                    .filter(|_| matches!(command.purpose, Purpose::Create { .. }))
                    .and_then(last_line)
            });
        let message = match (text, ended) {
            (Some(text), _) => format!("{what}: {text}"),
            (None, Ended::Code(code)) => {
                format!("{what}: the OCI runtime exited with code {code} and said nothing")
            }
            (None, Ended::Signal(signal)) => {
                format!("{what}: the OCI runtime was killed by signal {signal}")
            }
        };
        Err(wire(ErrorKind::Runtime, message))
    }
}
