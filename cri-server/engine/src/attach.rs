//! Attach: a caller's streams joined to a container's own. The shim goes on writing the log; detaching changes nothing.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::fcntl::{FcntlArg, fcntl};
use shim::protocol::Attach;

use crate::error::{Error, Result};
use crate::exec::pipe_pair;
use crate::images::blocking;
use crate::node::Node;
use crate::pod::supervisor::Supervisor;
use crate::record::{ContainerRecord, Phase};
use crate::streams::{self, Streams};

/// The room for what the caller's side has not read yet: the most that an ordinary user may ask for.
const PIPE_SIZE: i32 = 1 << 20;

/// Joins `streams` to the container until it ends or the caller leaves. One that has ended has nothing to say.
pub(crate) async fn attach(
    node: Arc<Node>,
    container: Arc<ContainerRecord>,
    streams: Streams,
) -> Result<()> {
    match container.phase {
        Phase::Created | Phase::Running { .. } => {}
        Phase::Exited(_) => return Ok(()),
        Phase::Creating => {
            return Err(Error::ContainerState {
                id: container.id.clone(),
                state: "being created",
                wanted: "running",
            });
        }
    }
    let gone = streams.gone.clone();
    let joined = tokio::select! {
        joined = join(node, &container, streams) => joined,
        // Whatever else is going on: the descriptors close here.
        () = streams::vanished(gone) => Ok(()),
    };
    joined
}

async fn join(node: Arc<Node>, container: &ContainerRecord, streams: Streams) -> Result<()> {
    let config = &container.config;
    let (out_read, out_write) = pipe_pair()?;
    let (err_read, err_write) = pipe_pair()?;
    for pipe in [&out_write, &err_write] {
        // Without the room a slow caller is left behind sooner, no more.
        fcntl(pipe, FcntlArg::F_SETPIPE_SZ(PIPE_SIZE)).ok();
    }
    let (stdout, stderr) = (streams::reader(out_read)?, streams::reader(err_read)?);
    // The end of stdout is the end of the container, so that it is listened to in any case.
    let mut pipes = vec![out_write];
    match config.tty {
        false => pipes.push(err_write),
        // It has no stderr: what would be read from it ends at once.
        true => drop(err_write),
    }
    let request = Attach {
        container_id: container.id.clone(),
        stdout: true,
        stderr: !config.tty,
        stdin: config.stdin && streams.stdin.is_some(),
        stdin_once: config.stdin_once,
    };
    let stdin = ask(&node, container, request, pipes).await?;
    let behind = Arc::new(AtomicBool::new(false));
    let input = feed(
        stdin,
        config.tty,
        config.stdin,
        streams.stdin,
        streams.resize,
    );
    let output = async {
        tokio::join!(
            streams::copy_out_behind(stdout, streams.stdout, Arc::clone(&behind)),
            streams::copy_out_behind(stderr, streams.stderr, Arc::clone(&behind)),
        );
    };
    tokio::select! {
        () = output => {}
        () = input => {}
    }
    if behind.load(Ordering::Relaxed) {
        return Err(Error::Internal(format!(
            "attach to {}: the output was read too slowly; the log has all of it",
            container.id
        )));
    }
    Ok(())
}

/// The container's stdin, or its terminal.
async fn ask(
    node: &Node,
    container: &ContainerRecord,
    request: Attach,
    pipes: Vec<OwnedFd>,
) -> Result<Option<OwnedFd>> {
    let supervisor = Supervisor::new(node.pod_dir(&container.pod_id));
    let action = format!("attach to container {:?}", container.config.metadata.name);
    blocking(move || {
        let pipes: Vec<_> = pipes.iter().map(AsFd::as_fd).collect();
        supervisor.ask(&action, |client| client.attach(request, &pipes))
    })
    .await
    .map(|(_, fd)| fd)
}

/// Copies the caller's input and sizes. Never ends: the end of the input is not the end of the attachment.
async fn feed(
    fd: Option<OwnedFd>,
    tty: bool,
    open: bool,
    stdin: Option<streams::Input>,
    sizes: Option<tokio::sync::mpsc::Receiver<streams::WindowSize>>,
) {
    let terminal = fd
        .as_ref()
        .filter(|_| tty)
        .and_then(|fd| streams::duplicate(fd).ok());
    let copy = async {
        if let (Some(fd), Some(from), true) = (fd, stdin, open)
            && let Ok(to) = streams::writer(fd)
        {
            streams::copy_in(from, to).await;
        }
    };
    let resize = async {
        if let Some(terminal) = terminal {
            streams::resize(terminal, sizes).await;
        }
    };
    tokio::join!(copy, resize);
    std::future::pending::<()>().await;
}
