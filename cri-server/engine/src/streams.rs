//! The streams of a caller who execs or attaches, and how they are joined to a container's descriptors.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::unix::pipe;
use tokio::sync::{mpsc, watch};

use crate::error::{Error, Result};

pub use sys::tty::WindowSize;

/// What comes from a caller.
pub type Input = Box<dyn AsyncRead + Send + Unpin>;
/// What goes to a caller; shut down at its end.
pub type Output = Box<dyn AsyncWrite + Send + Unpin>;

/// One read of a container's output.
const READ_SIZE: usize = 32 << 10;

/// How many reads a caller may be behind: 16 MiB.
const BEHIND: usize = (16 << 20) / READ_SIZE;

/// How long output may follow the end of a command, while something that it started holds the pipe.
const DRAIN: Duration = Duration::from_millis(500);

/// A caller's streams; what is absent was not asked for.
pub struct Streams {
    /// To the process's stdin.
    pub stdin: Option<Input>,
    /// From its stdout, or its terminal.
    pub stdout: Option<Output>,
    /// From its stderr.
    pub stderr: Option<Output>,
    /// Sizes of the caller's window.
    pub resize: Option<mpsc::Receiver<WindowSize>>,
    /// Becomes true, or loses its sender, when the caller has vanished.
    pub gone: watch::Receiver<bool>,
}

impl std::fmt::Debug for Streams {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Streams")
            .field("stdin", &self.stdin.is_some())
            .field("stdout", &self.stdout.is_some())
            .field("stderr", &self.stderr.is_some())
            .field("resize", &self.resize.is_some())
            .finish_non_exhaustive()
    }
}

/// Waits until the caller has vanished.
pub(crate) async fn vanished(mut gone: watch::Receiver<bool>) {
    // Without a sender there is no caller either.
    gone.wait_for(|gone| *gone).await.map(drop).ok();
}

/// A pipe or terminal to read from.
pub(crate) fn reader(fd: OwnedFd) -> Result<pipe::Receiver> {
    sys::fd::set_nonblocking(&fd).map_err(unusable)?;
    pipe::Receiver::from_owned_fd_unchecked(fd).map_err(|source| Error::Io {
        action: "read from",
        path: PathBuf::from("pipe"),
        source,
    })
}

/// A pipe or terminal to write to.
pub(crate) fn writer(fd: OwnedFd) -> Result<pipe::Sender> {
    sys::fd::set_nonblocking(&fd).map_err(unusable)?;
    pipe::Sender::from_owned_fd_unchecked(fd).map_err(|source| Error::Io {
        action: "write to",
        path: PathBuf::from("pipe"),
        source,
    })
}

fn unusable(source: sys::Error) -> Error {
    let action = "use a stream of the container".into();
    Error::Sys { action, source }
}

/// A second descriptor of the same file.
pub(crate) fn duplicate(fd: &OwnedFd) -> Result<OwnedFd> {
    fd.try_clone().map_err(|source| Error::Io {
        action: "duplicate",
        path: PathBuf::from("terminal"),
        source,
    })
}

/// Copies a caller's input until its end. The process may have closed its stdin, which is its own affair.
pub(crate) async fn copy_in(mut from: Input, mut to: pipe::Sender) {
    tokio::io::copy(&mut from, &mut to).await.map(drop).ok();
}

/// Copies output to its end. Once `ended` is true only what comes without a pause is waited for.
pub(crate) async fn copy_out(
    mut from: pipe::Receiver,
    to: Option<Output>,
    ended: watch::Receiver<bool>,
) {
    let mut to = to.unwrap_or_else(|| Box::new(tokio::io::sink()));
    let mut buffer = vec![0; READ_SIZE];
    loop {
        let read = tokio::select! {
            read = from.read(&mut buffer) => read,
            () = pause_after(ended.clone()) => break,
        };
        // A terminal that nobody holds open any more says EIO instead of the end.
        let Ok(count @ 1..) = read else { break };
        if to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
    // A caller who is gone needs no end.
    to.shutdown().await.ok();
}

async fn pause_after(mut ended: watch::Receiver<bool>) {
    ended.wait_for(|ended| *ended).await.map(drop).ok();
    tokio::time::sleep(DRAIN).await;
}

/// Copies output to its end for a caller who must not hold up anyone: what he does not take yet is kept, up to a limit.
/// `behind` tells whether the limit was met, after which the other side gives up.
pub(crate) async fn copy_out_behind(
    mut from: pipe::Receiver,
    to: Option<Output>,
    behind: Arc<AtomicBool>,
) {
    let mut to = to.unwrap_or_else(|| Box::new(tokio::io::sink()));
    let (queue, mut queued) = mpsc::channel::<Vec<u8>>(BEHIND);
    let read = async move {
        let mut buffer = vec![0; READ_SIZE];
        while let Ok(count @ 1..) = from.read(&mut buffer).await {
            if queue.capacity() == 0 {
                behind.store(true, Ordering::Relaxed);
            }
            if queue.send(buffer[..count].to_vec()).await.is_err() {
                return;
            }
        }
    };
    let write = async move {
        while let Some(data) = queued.recv().await {
            if to.write_all(&data).await.is_err() {
                return;
            }
        }
        to.shutdown().await.ok();
    };
    tokio::join!(read, write);
}

/// Passes sizes on to the terminal. One that is gone has no size.
pub(crate) async fn resize(terminal: OwnedFd, sizes: Option<mpsc::Receiver<WindowSize>>) {
    let Some(mut sizes) = sizes else { return };
    while let Some(size) = sizes.recv().await {
        sys::tty::set_window_size(&terminal, size).ok();
    }
}
