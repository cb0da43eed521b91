//! ExecSync: a command in a running container, its output, its exit code.
//!
//! The pipes are ours and the shim tells when the command ended. What the command started and left behind
//! may hold the pipes open for ever; it is not waited for.

pub(crate) mod stream;

use std::collections::HashMap;
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use shim::protocol::Status;
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
    /// How often the whole state was asked for.
    generation: AtomicU64,
    /// Whether somebody listens for their ends.
    listening: watch::Sender<bool>,
}

#[derive(Debug)]
struct Waiter {
    answer: oneshot::Sender<i32>,
    started: bool,
}

impl Execs {
    /// A new command, which nobody knows yet.
    fn register_new(&self) -> Result<Registered> {
        let id = ids::new_id()?;
        let generation = self.generation.load(Ordering::SeqCst);
        let ended = self.register(&id);
        Ok(Registered {
            id,
            generation,
            ended,
        })
    }

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

    /// The connection was lost for a moment: what ended meanwhile is in the state, and whoever waits for a command
    /// that is not there waits in vain, unless the shim has not answered yet that it started.
    pub(crate) fn reconcile(&self, status: &Status) {
        self.generation.fetch_add(1, Ordering::SeqCst);
        for (id, code) in status.containers.iter().flat_map(|one| &one.ended_execs) {
            self.ended(id, *code);
        }
        let running = |id: &String| status.containers.iter().any(|one| one.execs.contains(id));
        self.lock()
            .retain(|id, waiter| !waiter.started || running(id));
    }

    /// The shim has answered that a command runs. Where the state was asked for in between, it may have been too early
    /// to tell of this command and its end too early for the new connection: it is asked for once more.
    async fn started(&self, running: &Running, generation: u64) {
        if let Some(waiter) = self.lock().get_mut(&running.exec_id) {
            waiter.started = true;
        }
        if self.generation.load(Ordering::SeqCst) == generation {
            return;
        }
        let supervisor = running.supervisor();
        let asked = blocking(move || {
            supervisor.ask("ask for the state of the pod", |client| client.status())
        });
        // A shim that does not answer is one whose listener gives up for everyone.
        if let Ok(status) = asked.await {
            self.reconcile_one(&running.exec_id, &status);
        }
    }

    fn reconcile_one(&self, id: &str, status: &Status) {
        let ended = status.containers.iter().flat_map(|one| &one.ended_execs);
        if let Some((_, code)) = ended.into_iter().find(|(one, _)| one == id) {
            self.ended(id, *code);
        } else if !status
            .containers
            .iter()
            .any(|one| one.execs.iter().any(|one| one == id))
        {
            self.drop(id);
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

/// A command that is about to be started.
struct Registered {
    id: String,
    /// When it was made, counted in questions for the whole state.
    generation: u64,
    ended: oneshot::Receiver<i32>,
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
    let registered = pod.execs.register_new()?;
    let running = Arc::new(Running {
        node,
        container,
        exec_id: registered.id,
    });
    let outcome = match start_within(&running, &program, command, timeout, deadline).await {
        Ok(streams) => {
            pod.execs.started(&running, registered.generation).await;
            running
                .wait(&program, registered.ended, timeout, deadline, streams)
                .await
        }
        Err(error) => Err(error),
    };
    pod.execs.drop(&running.exec_id);
    outcome
}

/// Starts the command; the time limit covers that too. A start that comes too late is killed when it comes.
async fn start_within(
    running: &Arc<Running>,
    program: &str,
    command: Vec<String>,
    timeout: Duration,
    deadline: Option<Instant>,
) -> Result<(Stream, Stream)> {
    let Some(deadline) = deadline else {
        return running.start(command).await;
    };
    let starting = Arc::clone(running);
    let mut start = tokio::spawn(async move { starting.start(command).await });
    if let Ok(started) = tokio::time::timeout_at(deadline, &mut start).await {
        return started.unwrap_or_else(|error| Err(Error::Internal(error.to_string())));
    }
    // The runtime that starts it, if it is on its way already; it has no more to lose.
    running.kill().await.ok();
    let late = Arc::clone(running);
    tokio::spawn(async move {
        if let Ok(Ok(_)) = start.await
            && let Err(error) = late.kill().await
        {
            tracing::warn!(container.id = late.container.id, error = %error.report(), "kill a command that started too late");
        }
    });
    Err(running.timed_out(program, timeout))
}

/// Nobody will ever tell how the command ended.
fn lost(program: &str) -> Error {
    Error::Shim {
        action: format!("run {program:?} in the container"),
        kind: Kind::Unavailable,
        source:
            "the container's supervisor ended, or its connection did, before the exit code was known"
                .into(),
    }
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
        let stdout = Stream::read(out_read)?;
        let stderr = Stream::read(err_read)?;
        self.ask(command, false, move |client, request| {
            client
                .exec(request, &[out_write.as_fd(), err_write.as_fd()])
                .map(drop)
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
        let lost = || lost(program);
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
                    return Err(self.timed_out(program, timeout));
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

    fn supervisor(&self) -> Supervisor {
        Supervisor::new(self.node.pod_dir(&self.container.pod_id))
    }

    fn timed_out(&self, program: &str, timeout: Duration) -> Error {
        Error::ExecTimeout {
            id: self.container.id.clone(),
            command: program.to_owned(),
            timeout,
        }
    }

    /// Kills it with everything that it started.
    async fn kill(&self) -> Result<()> {
        let supervisor = self.supervisor();
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

pub(crate) fn pipe_pair() -> Result<(OwnedFd, OwnedFd)> {
    sys::fd::pipe().map_err(|source| Error::Sys {
        action: "make a pipe for the command's output".into(),
        source,
    })
}

/// The `process` of the container with another command.
fn write_process(bundle: &Path, path: &Path, command: &[String], terminal: bool) -> Result<()> {
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
    process["terminal"] = json!(terminal);
    if terminal && let Some(env) = process["env"].as_array_mut() {
        let known = |line: &Value| line.as_str().is_some_and(|line| line.starts_with("TERM="));
        if !env.iter().any(known) {
            env.push(json!("TERM=xterm"));
        }
    }
    let json = serde_json::to_vec(process).map_err(broken)?;
    fs::write(path, json).map_err(|source| Error::Io {
        action: "write",
        path: path.to_owned(),
        source,
    })
}
