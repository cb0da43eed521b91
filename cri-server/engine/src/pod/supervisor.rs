//! The pod's shim, seen from the engine: starting it, asking it, ending it.
//!
//! Everything here blocks.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::unistd::Pid;
use serde::Deserialize;
use shim::client::{Client, Error as ShimError};
use shim::protocol::ErrorKind;

use crate::error::{Error, Kind, Result};
use crate::model::NamespaceMode;
use crate::node::Node;
use crate::record::PodRecord;

/// How long a shim may take to come up; it makes four namespaces and a socket.
const START: Duration = Duration::from_secs(30);

/// How long a living shim may take for an answer that needs no runtime.
const ANSWER: Duration = Duration::from_secs(10);

/// How long a shim may take to end.
const END: Duration = Duration::from_secs(30);

/// The files that pin a pod's namespaces.
const NAMESPACES: [&str; 5] = ["user", "net", "ipc", "uts", "pid"];

/// The one line that a starting shim prints.
#[derive(Deserialize)]
struct Ready {
    #[serde(default)]
    ready: bool,
    #[serde(default)]
    error: String,
}

/// The shim of one pod.
#[derive(Debug, Clone)]
pub(crate) struct Supervisor {
    pod_dir: PathBuf,
}

impl Supervisor {
    pub(crate) fn new(pod_dir: PathBuf) -> Self {
        Self { pod_dir }
    }

    /// Where it listens.
    pub(crate) fn socket(&self) -> PathBuf {
        self.pod_dir.join("shim.sock")
    }

    /// The file that pins the pod's network namespace.
    pub(crate) fn netns(&self) -> PathBuf {
        self.pod_dir.join("ns/net")
    }

    /// Starts it; it answers when this returns.
    pub(crate) fn launch(&self, node: &Node, pod: &PodRecord) -> Result<()> {
        let mut command = Command::new(&node.config.shim);
        command
            .arg("--pod-id")
            .arg(&pod.id)
            .arg("--pod-dir")
            .arg(&self.pod_dir);
        let modes = &pod.config.security.namespaces;
        if modes.network != NamespaceMode::Node {
            command.args(["--new-net", "--new-uts", "--hostname", &pod.hostname]);
        }
        if modes.ipc != NamespaceMode::Node {
            command.arg("--new-ipc");
        }
        if modes.pid == NamespaceMode::Pod {
            command
                .arg("--new-pid")
                .arg("--cgroup-parent")
                .arg(&pod.pod_cgroup);
        }
        if let Some((uids, gids)) = crate::spec::userns::ranges(modes) {
            for (option, map) in [("--uid-map", uids), ("--gid-map", gids)] {
                let map = format!("{}:{}:{}", map.container_id, map.host_id, map.length);
                command.args([option, &map]);
            }
        }
        for (key, value) in &pod.config.sysctls {
            command.arg("--sysctl").arg(format!("{key}={value}"));
        }
        // Its runtimes need no more, and it must not carry the daemon's secrets.
        command.env_clear().env(
            "PATH",
            "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        );
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        start(&node.config.shim, &mut command)
    }

    /// Connects.
    pub(crate) fn connect(&self) -> Result<Client, ShimError> {
        self.connect_within(ANSWER)
    }

    /// Connects to one that may take so long for its answers.
    pub(crate) fn connect_within(&self, limit: Duration) -> Result<Client, ShimError> {
        Client::connect_within(&self.socket(), limit)
    }

    /// Connects and asks one thing that takes as long as an OCI runtime does.
    pub(crate) fn ask<T>(
        &self,
        action: &str,
        ask: impl FnOnce(&mut Client) -> Result<T, ShimError>,
    ) -> Result<T> {
        self.connect()
            .and_then(|mut client| {
                client.set_timeout(shim::client::DEFAULT_TIMEOUT);
                ask(&mut client)
            })
            .map_err(|error| failed(action.to_owned(), error))
    }

    /// The pid in `shim.pid`, if that very process lives.
    pub(crate) fn pid(&self) -> Option<u32> {
        let text = fs::read_to_string(self.pod_dir.join("shim.pid")).ok()?;
        let mut words = text.split_whitespace();
        let (pid, start) = (words.next()?.parse::<u32>().ok()?, words.next()?);
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name in parentheses may hold anything: fields count from the last one.
        let after = stat.rsplit_once(')')?.1;
        (after.split_whitespace().nth(19)? == start).then_some(pid)
    }

    /// Whether its process is no more. One that does not answer, or cannot be reached now, is not dead by that: it may
    /// be stopped, or wait for a disk.
    pub(crate) fn is_dead(&self) -> bool {
        !matches!(
            shim::files::probe(&self.pod_dir),
            Ok(shim::files::Liveness::Alive { .. }) | Err(_)
        )
    }

    /// Ends it with all that runs in the pod, and unpins the namespaces. One that is gone is fine; one that
    /// does not answer is killed.
    pub(crate) fn end(&self) -> Result<()> {
        match self.shut_down() {
            Ok(()) => {}
            // It may have closed its socket and live on.
            Err(error) if error.is_gone() => self.kill()?,
            Err(error) => {
                let socket = self.socket();
                tracing::warn!(socket = %socket.display(), "{}; it is killed", failed("end the shim".into(), error).report());
                self.kill()?;
            }
        }
        self.clean()
    }

    /// Asks it to end, and waits until it has: its answer comes a moment before.
    fn shut_down(&self) -> Result<(), ShimError> {
        let mut client = self.connect()?;
        // Opened while it is there: the number may be another's afterwards.
        let process = sys::process::pidfd_open(Pid::from_raw(client.hello().pid)).ok();
        client.set_timeout(END);
        client.shutdown(true)?;
        let patience = i32::try_from(ANSWER.as_millis()).unwrap_or(i32::MAX);
        // It ends by itself; what is waited for in vain here is seen by whoever looks for leftovers.
        process.map(|process| sys::fd::wait_readable(&[process.as_fd()], patience).ok());
        Ok(())
    }

    /// Kills it if it lives.
    pub(crate) fn kill(&self) -> Result<()> {
        let Some(pid) = self.pid().and_then(|pid| i32::try_from(pid).ok()) else {
            return Ok(());
        };
        match nix::sys::signal::kill(Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL) {
            Ok(()) | Err(nix::errno::Errno::ESRCH) => Ok(()),
            Err(errno) => Err(Error::Sys {
                action: "kill the shim".into(),
                source: sys::Error::new(errno, format!("kill({pid}, SIGKILL)")),
            }),
        }
    }

    /// Takes away what a shim that died left behind.
    fn clean(&self) -> Result<()> {
        let mut result = Ok(());
        for name in NAMESPACES {
            let unpinned = sys::namespace::unpin(&self.pod_dir.join("ns").join(name));
            result = result.and(unpinned.map_err(|source| Error::Sys {
                action: format!("unpin the pod's {name} namespace"),
                source,
            }));
        }
        for name in ["shim.sock", "shim.pid"] {
            let path = self.pod_dir.join(name);
            match fs::remove_file(&path) {
                Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                    result = result.and(Err(Error::Io {
                        action: "remove",
                        path,
                        source,
                    }));
                }
                _ => {}
            }
        }
        result
    }
}

/// Starts the shim and reads its one line, with a deadline.
fn start(binary: &Path, command: &mut Command) -> Result<()> {
    let failed = |action, source| Error::Io {
        action,
        path: binary.to_owned(),
        source,
    };
    let mut child = command
        .spawn()
        .map_err(|source| failed("start the shim", source))?;
    let deadline = Instant::now() + START;
    let line = child
        .stdout
        .take()
        .map_or(Ok(None), |stdout| read_line(stdout, deadline));
    if !matches!(&line, Ok(Some(_))) {
        // It did not say a word in time: what it did so far is taken back by the pod's teardown.
        child
            .kill()
            .map_err(|source| failed("kill the shim", source))?;
    }
    child
        .wait()
        .map_err(|source| failed("wait for the shim", source))?;
    let line = line.map_err(|source| failed("read from the shim", source))?;
    let Some(line) = line else {
        return Err(Error::Internal(format!(
            "the shim {} said nothing within {START:?}",
            binary.display()
        )));
    };
    match serde_json::from_str::<Ready>(&line) {
        Ok(Ready { ready: true, .. }) => Ok(()),
        Ok(Ready { error, .. }) => Err(Error::Shim {
            action: "start the shim".into(),
            kind: Kind::Internal,
            source: error.into(),
        }),
        Err(_) => Err(Error::Internal(format!(
            "the shim {} said {line:?}",
            binary.display()
        ))),
    }
}

/// The first line, or `None` when it does not come in time or the other side closed without one.
fn read_line(
    stdout: std::process::ChildStdout,
    deadline: Instant,
) -> std::io::Result<Option<String>> {
    let left = i32::try_from(
        deadline
            .saturating_duration_since(Instant::now())
            .as_millis(),
    )
    .unwrap_or(i32::MAX);
    let ready = sys::fd::wait_readable(&[stdout.as_fd()], left).map_err(std::io::Error::other)?;
    if ready != [true] {
        return Ok(None);
    }
    // The shim writes its line with one write.
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line)?;
    Ok((!line.is_empty()).then_some(line))
}

/// An error of the shim, with its kind in the engine's words.
pub(crate) fn failed(action: String, error: ShimError) -> Error {
    let kind = match (&error, error.kind()) {
        (_, Some(ErrorKind::NotFound)) => Kind::NotFound,
        (_, Some(ErrorKind::AlreadyExists)) => Kind::AlreadyExists,
        (_, Some(ErrorKind::Invalid)) => Kind::FailedPrecondition,
        (_, Some(ErrorKind::Timeout)) | (ShimError::NoReply { .. }, _) => Kind::DeadlineExceeded,
        (ShimError::Connect { .. } | ShimError::Closed { .. } | ShimError::Transport { .. }, _) => {
            Kind::Unavailable
        }
        _ => Kind::Internal,
    };
    Error::Shim {
        action,
        kind,
        source: Box::new(error),
    }
}
