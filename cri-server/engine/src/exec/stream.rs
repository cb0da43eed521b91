//! Exec: a command in a container whose streams are the caller's.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinHandle};

use super::{Execs, Running, pipe_pair};
use crate::error::{Error, Result};
use crate::images::blocking;
use crate::node::Node;
use crate::pod::Pod;
use crate::record::ContainerRecord;
use crate::streams::{self, Streams};

/// Runs `command` with the caller's streams until it ends; the answer is its exit code. A caller who vanishes takes the
/// command with him.
pub(crate) async fn exec(
    node: Arc<Node>,
    pod: Arc<Pod>,
    container: Arc<ContainerRecord>,
    command: Vec<String>,
    terminal: bool,
    streams: Streams,
) -> Result<i32> {
    pod.execs.listened_to().await;
    let registered = pod.execs.register_new()?;
    let program = command.first().cloned().unwrap_or_default();
    let running = Running {
        node,
        container,
        exec_id: registered.id.clone(),
    };
    let gone = streams.gone.clone();
    let (end, ended) = watch::channel(false);
    let started = if terminal {
        with_terminal(&running, command, streams, &ended).await
    } else {
        with_pipes(&running, command, streams, &ended).await
    };
    let mut copies = match started {
        Ok(copies) => copies,
        Err(error) => {
            pod.execs.drop(&running.exec_id);
            return Err(error);
        }
    };
    let execs: &Execs = &pod.execs;
    execs.started(&running, registered.generation).await;
    let outcome = tokio::select! {
        code = registered.ended => code.map_err(|_| super::lost(&program)),
        () = streams::vanished(gone.clone()) => Err(vanished(&running, &program).await),
    };
    execs.drop(&running.exec_id);
    end.send_replace(true);
    if outcome.is_ok() {
        tokio::select! {
            () = copies.output() => {}
            () = streams::vanished(gone) => {}
        }
    }
    outcome
}

/// Kills what nobody watches any more.
async fn vanished(running: &Running, program: &str) -> Error {
    if let Err(error) = running.kill().await {
        tracing::warn!(container.id = running.container.id, program, error = %error.report(), "a command without a caller");
    }
    Error::Internal(format!("{program:?} was killed: its caller vanished"))
}

/// The tasks that copy. They end with this.
struct Copies {
    output: Vec<JoinHandle<()>>,
    others: Vec<AbortHandle>,
}

impl Copies {
    async fn output(&mut self) {
        for task in &mut self.output {
            // One that panicked has nothing more to copy.
            task.await.ok();
        }
    }
}

impl Drop for Copies {
    fn drop(&mut self) {
        self.output.iter().for_each(JoinHandle::abort);
        self.others.iter().for_each(AbortHandle::abort);
    }
}

async fn with_pipes(
    running: &Running,
    command: Vec<String>,
    streams: Streams,
    ended: &watch::Receiver<bool>,
) -> Result<Copies> {
    let (out_read, out_write) = pipe_pair()?;
    let (err_read, err_write) = pipe_pair()?;
    let (stdin, in_write) = match &streams.stdin {
        Some(_) => {
            let (read, write) = pipe_pair()?;
            (Some(read), Some(streams::writer(write)?))
        }
        None => (None, None),
    };
    let stdout = streams::reader(out_read)?;
    let stderr = streams::reader(err_read)?;
    let stdio: Vec<OwnedFd> = stdin.into_iter().chain([out_write, err_write]).collect();
    running
        .ask(command, false, move |client, request| {
            let stdio: Vec<_> = stdio.iter().map(AsFd::as_fd).collect();
            client.exec(request, &stdio).map(drop)
        })
        .await?;
    let output = vec![
        tokio::spawn(streams::copy_out(stdout, streams.stdout, ended.clone())),
        tokio::spawn(streams::copy_out(stderr, streams.stderr, ended.clone())),
    ];
    let mut others = Vec::new();
    if let (Some(from), Some(to)) = (streams.stdin, in_write) {
        others.push(tokio::spawn(streams::copy_in(from, to)).abort_handle());
    }
    Ok(Copies { output, others })
}

async fn with_terminal(
    running: &Running,
    command: Vec<String>,
    streams: Streams,
    ended: &watch::Receiver<bool>,
) -> Result<Copies> {
    let master = running
        .ask(command, true, |client, request| {
            client.exec_with_terminal(request).map(|(_, master)| master)
        })
        .await?;
    let stdout = streams::reader(streams::duplicate(&master)?)?;
    let size = streams::duplicate(&master)?;
    let mut others = vec![tokio::spawn(streams::resize(size, streams.resize)).abort_handle()];
    if let Some(from) = streams.stdin {
        let to = streams::writer(master)?;
        others.push(tokio::spawn(streams::copy_in(from, to)).abort_handle());
    }
    let output = vec![tokio::spawn(streams::copy_out(
        stdout,
        streams.stdout,
        ended.clone(),
    ))];
    Ok(Copies { output, others })
}

impl Running {
    /// Has the shim start the command; blocks a thread meanwhile.
    pub(super) async fn ask<T: Send + 'static>(
        &self,
        command: Vec<String>,
        terminal: bool,
        ask: impl FnOnce(
            &mut shim::client::Client,
            shim::protocol::Exec,
        ) -> std::result::Result<T, shim::client::Error>
        + Send
        + 'static,
    ) -> Result<T> {
        let bundle = self.node.bundle(&self.container.pod_id, &self.container.id);
        let supervisor = self.supervisor();
        let (container_id, exec_id) = (self.container.id.clone(), self.exec_id.clone());
        blocking(move || {
            let process = bundle.join(format!("exec-{exec_id}.json"));
            let result =
                super::write_process(&bundle, &process, &command, terminal).and_then(|()| {
                    let action = format!("run {:?} in the container", command[0]);
                    let request = shim::protocol::Exec {
                        container_id,
                        exec_id,
                        process_json_path: process.clone(),
                        terminal,
                    };
                    supervisor.ask(&action, |client| ask(client, request))
                });
            // Removing the container's directory takes what is left here.
            std::fs::remove_file(&process).ok();
            result
        })
        .await
    }
}
