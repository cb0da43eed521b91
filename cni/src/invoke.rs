//! One run of one plugin: configuration to stdin, answer from stdout, and a deadline.
//!
//! The plugin leads a process group of its own, so that a deadline ends whatever it started as well. It counts as
//! ended when its process ends, even if a daemon that it left behind keeps stdout open.
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde::Deserialize;
use serde_json::Value;

use crate::{Error, PluginError};

/// A result is a few kilobytes; a plugin that prints for ever must not fill our memory.
const MAX_STDOUT: usize = 1 << 20;
/// How much of the end of stderr an error carries.
const MAX_STDERR: usize = 8 << 10;
/// How much of an unusable answer an error quotes.
const MAX_QUOTE: usize = 1 << 10;
/// An executable that is being replaced is "busy" for a moment.
const BUSY_RETRY: Duration = Duration::from_millis(20);

/// A plugin to run.
#[derive(Debug)]
pub(crate) struct Invocation<'a> {
    /// Its type, for errors and as argv[0].
    pub(crate) plugin: &'a str,
    /// Its executable.
    pub(crate) path: PathBuf,
    /// The verb, `CNI_COMMAND`.
    pub(crate) command: &'static str,
    /// The other CNI variables.
    pub(crate) env: Vec<(&'static str, String)>,
    /// What it reads.
    pub(crate) stdin: Vec<u8>,
    /// Whether it leads a process group of its own, which a deadline kills. A plugin that runs another one stays in
    /// one group with it, so that the runtime's deadline reaches both.
    pub(crate) own_group: bool,
    /// How long it may take.
    pub(crate) timeout: Duration,
}

/// What a plugin left behind that ended well.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Invocation<'_> {
    /// Runs the plugin to its end.
    pub(crate) fn run(&self) -> Result<Answer, Error> {
        let deadline = Instant::now() + self.timeout;
        let mut child = self.spawn(deadline)?;
        let mut io = Streams::of(&mut child, &self.stdin, self.own_group)?;
        let status = match io.pump(&mut child, deadline) {
            Ok(Some(status)) => status,
            Ok(None) if io.stdout_overflow => {
                end(&mut child, self.own_group);
                return Err(self.bad_answer(
                    format!("more than {MAX_STDOUT} bytes"),
                    &io.stdout,
                    io.stderr_text(),
                ));
            }
            Ok(None) => {
                end(&mut child, self.own_group);
                return Err(Error::Timeout {
                    plugin: self.plugin.to_owned(),
                    command: self.command,
                    timeout: self.timeout,
                    stderr: io.stderr_text(),
                });
            }
            Err(error) => {
                end(&mut child, self.own_group);
                return Err(error);
            }
        };
        let stderr = io.stderr_text();
        if status.success() {
            return Ok(Answer {
                stdout: io.stdout,
                stderr,
            });
        }
        Err(self.failure(status, &io.stdout, stderr))
    }

    /// An answer that ended well but cannot be used.
    pub(crate) fn bad_answer(
        &self,
        reason: impl Into<String>,
        stdout: &[u8],
        stderr: String,
    ) -> Error {
        Error::BadAnswer {
            plugin: self.plugin.to_owned(),
            command: self.command,
            reason: reason.into(),
            stdout: quote(stdout),
            stderr,
        }
    }

    fn failure(&self, status: ExitStatus, stdout: &[u8], stderr: String) -> Error {
        match error_object(stdout) {
            Some(error) => Error::Plugin {
                plugin: self.plugin.to_owned(),
                command: self.command,
                error,
                stderr,
            },
            None => Error::Died {
                plugin: self.plugin.to_owned(),
                command: self.command,
                status,
                stdout: quote(stdout),
                stderr,
            },
        }
    }

    fn spawn(&self, deadline: Instant) -> Result<Child, Error> {
        let mut command = Command::new(&self.path);
        command
            .arg0(self.plugin)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        if self.own_group {
            command.process_group(0);
        }
        for (name, _) in std::env::vars_os() {
            // Ours only: a variable of whoever started the daemon must not reach the plugin.
            if name.to_string_lossy().starts_with("CNI_") {
                command.env_remove(name);
            }
        }
        command
            .env("CNI_COMMAND", self.command)
            .envs(self.env.iter().map(|(k, v)| (k, v)));
        loop {
            match command.spawn() {
                Ok(child) => return Ok(child),
                Err(e)
                    if e.kind() == ErrorKind::ExecutableFileBusy
                        && Instant::now() + BUSY_RETRY < deadline =>
                {
                    std::thread::sleep(BUSY_RETRY)
                }
                Err(source) => {
                    return Err(Error::Spawn {
                        plugin: self.plugin.to_owned(),
                        command: self.command,
                        path: self.path.clone(),
                        source,
                    });
                }
            }
        }
    }
}

/// `{"code": 7, "msg": "..", "details": ".."}`; some old plugins leave the code out.
fn error_object(stdout: &[u8]) -> Option<PluginError> {
    #[derive(Deserialize)]
    struct Wire {
        #[serde(default)]
        code: u64,
        msg: String,
        #[serde(default)]
        details: String,
    }
    let value: Value = serde_json::from_slice(stdout).ok()?;
    let Wire { code, msg, details } = serde_json::from_value(value).ok()?;
    Some(PluginError { code, msg, details })
}

fn quote(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(MAX_QUOTE)]).into_owned()
}

/// Kills the plugin's process group and reaps the plugin.
fn end(child: &mut Child, own_group: bool) {
    if let (true, Ok(pid)) = (own_group, i32::try_from(child.id())) {
        // Gone already is as good.
        killpg(Pid::from_raw(pid), Signal::SIGKILL).ok();
    }
    child.kill().ok();
    // Killed by SIGKILL above; all that wait can say is that somebody else reaped it.
    child.wait().ok();
}

/// Our ends of the plugin's pipes, none of which may block.
struct Streams<'a> {
    stdin: Option<ChildStdin>,
    input: &'a [u8],
    out: Option<ChildStdout>,
    err: Option<ChildStderr>,
    pidfd: OwnedFd,
    stdout: Vec<u8>,
    stdout_overflow: bool,
    stderr: Vec<u8>,
}

impl<'a> Streams<'a> {
    fn of(child: &mut Child, input: &'a [u8], own_group: bool) -> Result<Streams<'a>, Error> {
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap_or_default());
        let streams = sys::process::pidfd_open(pid).and_then(|pidfd| {
            let (stdin, out, err) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
            for fd in [
                stdin.as_ref().map(AsFd::as_fd),
                out.as_ref().map(AsFd::as_fd),
                err.as_ref().map(AsFd::as_fd),
            ]
            .into_iter()
            .flatten()
            {
                set_nonblocking(fd)?;
            }
            Ok(Streams {
                stdin,
                input,
                out,
                err,
                pidfd,
                stdout: Vec::new(),
                stdout_overflow: false,
                stderr: Vec::new(),
            })
        });
        streams.map_err(|e| {
            end(child, own_group);
            Error::Sys(e)
        })
    }

    /// Moves bytes until the plugin has ended; None when the deadline or too long an answer came first.
    fn pump(&mut self, child: &mut Child, deadline: Instant) -> Result<Option<ExitStatus>, Error> {
        loop {
            self.feed();
            let Some(left) = deadline.checked_duration_since(Instant::now()) else {
                return Ok(None);
            };
            if self.wait(left)? {
                // What it wrote before it ended is in the pipes; what others hold them open for is not awaited.
                self.drain();
                return child
                    .wait()
                    .map(Some)
                    .map_err(Error::io("wait for", "plugin"));
            }
            self.drain();
            if self.stdout_overflow {
                return Ok(None);
            }
        }
    }

    /// Waits for something to do; true when the plugin has ended.
    fn wait(&self, left: Duration) -> Result<bool, Error> {
        let mut fds = vec![PollFd::new(self.pidfd.as_fd(), PollFlags::POLLIN)];
        fds.extend(
            self.stdin
                .as_ref()
                .map(|fd| PollFd::new(fd.as_fd(), PollFlags::POLLOUT)),
        );
        fds.extend(
            self.out
                .as_ref()
                .map(|fd| PollFd::new(fd.as_fd(), PollFlags::POLLIN)),
        );
        fds.extend(
            self.err
                .as_ref()
                .map(|fd| PollFd::new(fd.as_fd(), PollFlags::POLLIN)),
        );
        // One millisecond more, so that the last wait does not spin.
        let timeout =
            PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
        match poll(&mut fds, timeout) {
            Ok(_) => Ok(fds[0].any().unwrap_or(false)),
            Err(Errno::EINTR) => Ok(false),
            Err(errno) => Err(Error::Sys(sys::Error {
                call: format!("poll({} fds, {left:?})", fds.len()),
                errno,
            })),
        }
    }

    /// Writes what the pipe takes; closes it at the end, or when the plugin does not read.
    fn feed(&mut self) {
        let Some(stdin) = &mut self.stdin else { return };
        while !self.input.is_empty() {
            match stdin.write(self.input) {
                Ok(n) => self.input = &self.input[n..],
                Err(e) if e.kind() == ErrorKind::WouldBlock => return,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        self.stdin = None;
    }

    fn drain(&mut self) {
        let (stdout, overflow) = (&mut self.stdout, &mut self.stdout_overflow);
        read_available(&mut self.out, |bytes| {
            let room = MAX_STDOUT - stdout.len();
            *overflow |= bytes.len() > room;
            stdout.extend_from_slice(&bytes[..bytes.len().min(room)]);
            !*overflow
        });
        let stderr = &mut self.stderr;
        read_available(&mut self.err, |bytes| {
            stderr.extend_from_slice(bytes);
            if stderr.len() > 2 * MAX_STDERR {
                stderr.drain(..stderr.len() - MAX_STDERR);
            }
            true
        });
    }

    fn stderr_text(&self) -> String {
        let start = self.stderr.len().saturating_sub(MAX_STDERR);
        String::from_utf8_lossy(&self.stderr[start..]).into_owned()
    }
}

/// Reads until the pipe is empty for now; forgets it at its end, or when `take` wants no more.
fn read_available<R: Read>(pipe: &mut Option<R>, mut take: impl FnMut(&[u8]) -> bool) {
    /// A plugin that writes faster than we read must not keep us from looking at the deadline.
    const AT_ONCE: usize = 64;
    let mut buffer = [0; 8192];
    for _ in 0..AT_ONCE {
        let Some(reader) = pipe else { return };
        match reader.read(&mut buffer) {
            Ok(0) => *pipe = None,
            Ok(n) if take(&buffer[..n]) => {}
            Ok(_) => *pipe = None,
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) if e.kind() == ErrorKind::WouldBlock => return,
            Err(_) => *pipe = None,
        }
    }
}

fn set_nonblocking(fd: BorrowedFd<'_>) -> sys::Result<()> {
    let failed = |errno| sys::Error {
        call: "fcntl(pipe of a plugin, F_SETFL, O_NONBLOCK)".to_owned(),
        errno,
    };
    let flags = fcntl(fd, FcntlArg::F_GETFL).map_err(failed)?;
    fcntl(
        fd,
        FcntlArg::F_SETFL(OFlag::from_bits_retain(flags) | OFlag::O_NONBLOCK),
    )
    .map_err(failed)?;
    Ok(())
}
