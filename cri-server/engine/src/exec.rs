//! ExecSync: a command in a running container, its output, its exit code.
//!
//! The pipes are ours and the shim tells when the command ended. What the command started and left behind
//! may hold the pipes open for ever; it is not waited for.

use std::collections::HashMap;
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use shim::protocol::Exec;
use tokio::io::Interest;
use tokio::net::unix::pipe;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::error::{Error, Kind, Result};
use crate::ids;
use crate::images::blocking;
use crate::model::ExecOutput;
use crate::node::Node;
use crate::pod::Pod;
use crate::pod::supervisor::Supervisor;
use crate::record::{ContainerRecord, Phase};

/// What is kept of each stream; the rest is read and dropped (CVE-2022-1708).
const STREAM_LIMIT: usize = 16 << 20;

/// How long output may follow the end of the command, while something it started holds the pipe.
const DRAIN: Duration = Duration::from_millis(500);

/// How long a command waits for the pod's listener, which connects when the pod was made or found again.
const CONNECTING: Duration = Duration::from_secs(5);

/// How long a killed command may take to end.
const AFTER_KILL: Duration = Duration::from_secs(10);

/// The commands of a pod that somebody waits for.
#[derive(Debug, Default)]
pub(crate) struct Execs {
    waiting: Mutex<HashMap<String, Waiter>>,
    /// Whether somebody listens for their ends.
    listening: watch::Sender<bool>,
}

#[derive(Debug)]
struct Waiter {
    answer: oneshot::Sender<i32>,
    started: bool,
}

impl Execs {
    fn register(&self, id: &str) -> oneshot::Receiver<i32> {
        let (answer, receiver) = oneshot::channel();
        self.lock().insert(
            id.to_owned(),
            Waiter {
                answer,
                started: false,
            },
        );
        receiver
    }

    fn drop(&self, id: &str) {
        self.lock().remove(id);
    }

    /// The pod's listener has connected, or lost the connection.
    pub(crate) fn set_listening(&self, listening: bool) {
        self.listening.send_replace(listening);
    }

    /// Waits until the end of a command cannot be missed. In vain with a shim that is gone: asking it says so.
    async fn listened_to(&self) {
        let mut listening = self.listening.subscribe();
        tokio::time::timeout(CONNECTING, listening.wait_for(|listening| *listening))
            .await
            .map(drop)
            .ok();
    }

    /// A command ended.
    pub(crate) fn ended(&self, id: &str, exit_code: i32) {
        if let Some(waiter) = self.lock().remove(id) {
            // Its caller gave up meanwhile.
            waiter.answer.send(exit_code).ok();
        }
    }

    /// The connection was lost for a moment: whoever waits for a command that is not among `running` waits
    /// in vain, unless the shim has not answered yet that it started.
    pub(crate) fn keep_only(&self, running: &[&String]) {
        self.lock()
            .retain(|id, waiter| !waiter.started || running.contains(&id));
    }

    /// The shim has answered that a command runs.
    fn started(&self, id: &str) {
        if let Some(waiter) = self.lock().get_mut(id) {
            waiter.started = true;
        }
    }

    /// The shim is gone.
    pub(crate) fn clear(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Waiter>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs `command` in the container and waits for its end; zero `timeout` means no limit.
pub(crate) async fn exec_sync(
    node: Arc<Node>,
    pod: Arc<Pod>,
    container: Arc<ContainerRecord>,
    command: Vec<String>,
    timeout: Duration,
) -> Result<ExecOutput> {
    if !matches!(container.phase, Phase::Running { .. }) {
        return Err(Error::ContainerState {
            id: container.id.clone(),
            state: "not running",
            wanted: "running",
        });
    }
    let Some(program) = command
        .first()
        .filter(|program| !program.is_empty())
        .cloned()
    else {
        return Err(Error::invalid("cmd", "empty"));
    };
    let deadline = (!timeout.is_zero()).then(|| Instant::now() + timeout);
    pod.execs.listened_to().await;
    let exec_id = ids::new_id()?;
    let ended = pod.execs.register(&exec_id);
    let running = Running {
        node,
        container,
        exec_id,
    };
    let streams = running.start(command).await;
    let outcome = match streams {
        Ok(streams) => {
            pod.execs.started(&running.exec_id);
            running
                .wait(&program, ended, timeout, deadline, streams)
                .await
        }
        Err(error) => Err(error),
    };
    pod.execs.drop(&running.exec_id);
    outcome
}

/// One command.
struct Running {
    node: Arc<Node>,
    container: Arc<ContainerRecord>,
    exec_id: String,
}

impl Running {
    /// Has the shim start it; the answer is its output.
    async fn start(&self, command: Vec<String>) -> Result<(Stream, Stream)> {
        let (out_read, out_write) = pipe_pair()?;
        let (err_read, err_write) = pipe_pair()?;
        let bundle = self.node.bundle(&self.container.pod_id, &self.container.id);
        let supervisor = Supervisor::new(self.node.pod_dir(&self.container.pod_id));
        let (container_id, exec_id) = (self.container.id.clone(), self.exec_id.clone());
        let stdout = Stream::read(out_read)?;
        let stderr = Stream::read(err_read)?;
        blocking(move || {
            let process = bundle.join(format!("exec-{exec_id}.json"));
            let result = write_process(&bundle, &process, &command).and_then(|()| {
                let action = format!("run {:?} in the container", command[0]);
                let request = Exec {
                    container_id,
                    exec_id,
                    process_json_path: process.clone(),
                    terminal: false,
                };
                supervisor.ask(&action, |client| {
                    client.exec(request, &[out_write.as_fd(), err_write.as_fd()])
                })
            });
            // Removing the container's directory takes what is left here.
            fs::remove_file(&process).ok();
            result.map(drop)
        })
        .await?;
        Ok((stdout, stderr))
    }

    /// Waits for its end, kills it at the deadline.
    async fn wait(
        &self,
        program: &str,
        ended: oneshot::Receiver<i32>,
        timeout: Duration,
        deadline: Option<Instant>,
        (stdout, stderr): (Stream, Stream),
    ) -> Result<ExecOutput> {
        let lost = || {
            Error::Shim {
            action: format!("run {program:?} in the container"),
            kind: Kind::Unavailable,
            source: "the container's supervisor ended, or its connection did, before the exit code was known".into(),
        }
        };
        let mut ended = ended;
        let exit_code = match deadline {
            None => ended.await.map_err(|_| lost())?,
            Some(deadline) => match tokio::time::timeout_at(deadline, &mut ended).await {
                Ok(answer) => answer.map_err(|_| lost())?,
                Err(_) => {
                    self.kill().await?;
                    // The caller is told when it is true that nothing of it runs.
                    if tokio::time::timeout(AFTER_KILL, ended).await.is_err() {
                        tracing::warn!(
                            container.id = self.container.id,
                            program,
                            "a killed command does not end"
                        );
                    }
                    return Err(Error::ExecTimeout {
                        id: self.container.id.clone(),
                        command: program.to_owned(),
                        timeout,
                    });
                }
            },
        };
        let until = Instant::now() + DRAIN;
        Ok(ExecOutput {
            stdout: stdout.finish(until).await,
            stderr: stderr.finish(until).await,
            exit_code,
        })
    }

    /// Kills it with everything that it started.
    async fn kill(&self) -> Result<()> {
        let supervisor = Supervisor::new(self.node.pod_dir(&self.container.pod_id));
        let (container_id, exec_id) = (self.container.id.clone(), self.exec_id.clone());
        blocking(move || {
            supervisor.ask("kill the command", |client| {
                client.kill_exec(&container_id, &exec_id)
            })
        })
        .await
    }
}

/// A stream that is read in the background.
struct Stream {
    kept: Arc<Mutex<Vec<u8>>>,
    task: JoinHandle<()>,
}

impl Stream {
    fn read(fd: OwnedFd) -> Result<Self> {
        let pipe = pipe::Receiver::from_owned_fd(fd).map_err(|source| Error::Io {
            action: "read from",
            path: PathBuf::from("pipe"),
            source,
        })?;
        let kept = Arc::new(Mutex::new(Vec::new()));
        let task = tokio::spawn(read_all(pipe, Arc::clone(&kept)));
        Ok(Self { kept, task })
    }

    /// What came until the end of the stream, or until `deadline`.
    async fn finish(mut self, deadline: Instant) -> Vec<u8> {
        if tokio::time::timeout_at(deadline, &mut self.task)
            .await
            .is_err()
        {
            self.task.abort();
        }
        std::mem::take(&mut *self.kept.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Reads until the end; keeps the first [`STREAM_LIMIT`] bytes.
async fn read_all(pipe: pipe::Receiver, kept: Arc<Mutex<Vec<u8>>>) {
    let mut buffer = vec![0_u8; 64 << 10];
    loop {
        // A pipe that cannot be polled or read has nothing more to say.
        let Ok(_) = pipe.ready(Interest::READABLE).await else {
            return;
        };
        match pipe.try_read(&mut buffer) {
            Ok(0) => return,
            Ok(count) => {
                let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                let room = STREAM_LIMIT - kept.len();
                kept.extend_from_slice(&buffer[..count.min(room)]);
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
    }
}

fn pipe_pair() -> Result<(OwnedFd, OwnedFd)> {
    sys::fd::pipe().map_err(|source| Error::Sys {
        action: "make a pipe for the command's output".into(),
        source,
    })
}

/// The `process` of the container with another command and no terminal.
fn write_process(bundle: &Path, path: &Path, command: &[String]) -> Result<()> {
    let config = bundle.join("config.json");
    let broken = |error: serde_json::Error| Error::Record {
        path: config.clone(),
        source: Box::new(error),
    };
    let json = fs::read(&config).map_err(|source| Error::Io {
        action: "read",
        path: config.clone(),
        source,
    })?;
    let mut config: Value = serde_json::from_slice(&json).map_err(broken)?;
    let process = &mut config["process"];
    process["args"] = json!(command);
    process["terminal"] = json!(false);
    let json = serde_json::to_vec(process).map_err(broken)?;
    fs::write(path, json).map_err(|source| Error::Io {
        action: "write",
        path: path.to_owned(),
        source,
    })
}
