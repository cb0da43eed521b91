//! The daemon's life: run directory, socket, recovery, serving, and an end that pods do not notice.
//!
//! ```text
//! prepare run dir ─> bind socket ─> serve (only Version answers) ─> engine finds what runs ─> serve everything
//!                                                                                              │ SIGTERM, SIGINT
//!                       socket removed <─ open requests get DRAIN to end <─ stop accepting <───┘
//! ```

mod notify;
mod reload;
pub mod socket;

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use engine::Engine;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet};
use tracing::{info, warn};

use crate::config::Settings;
use crate::flags::Flags;
use crate::node::Node;
use crate::streaming::{self, Streaming};
use crate::{metrics, server};

/// How long open requests may go on after the signal. What they started is not lost: the next start finds it, or
/// undoes what is half done.
const DRAIN: Duration = Duration::from_secs(5);

/// Why the daemon could not start or serve.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The run directory cannot be used.
    #[error("prepare the run directory")]
    RunDir(#[source] engine::Error),
    /// The socket cannot be used.
    #[error("listen for CRI clients")]
    Socket(#[source] socket::Error),
    /// The streaming server cannot listen.
    #[error("serve streams")]
    Streaming(#[source] streaming::Error),
    /// The engine did not start.
    #[error("start the engine")]
    Engine(#[source] engine::Error),
    /// The handlers of SIGTERM and SIGINT cannot be set.
    #[error("wait for signals")]
    Signals(#[source] io::Error),
    /// The address for metrics cannot be used.
    #[error("serve metrics at {address}")]
    Metrics {
        /// The configured address.
        address: SocketAddr,
        /// What the kernel says.
        source: io::Error,
    },
    /// The server ended by itself.
    #[error("serve CRI")]
    Serve(#[source] tonic::transport::Error),
    /// The server's task panicked.
    #[error("the server's task ended")]
    Task(#[source] tokio::task::JoinError),
}

/// Runs the daemon until SIGTERM or SIGINT. Pods go on.
///
/// # Errors
/// It cannot start, or the server fails.
pub async fn run(settings: Settings, flags: &Flags) -> Result<(), Error> {
    let mut signals = Signals::new().map_err(Error::Signals)?;
    let hangup = signal(SignalKind::hangup()).map_err(Error::Signals)?;
    let run_dir = &settings.engine.run_dir;
    let mounted = engine::prepare_run_dir(run_dir).map_err(Error::RunDir)?;
    let (listener, bound) = socket::bind(&settings.socket)
        .await
        .map_err(Error::Socket)?;
    info!(socket = %settings.socket.display(), run_dir = %run_dir.display(), mounted_tmpfs = mounted, "listening");

    let node = Node::default();
    let metrics = metrics(settings.metrics, &node).await?;
    let streaming = Streaming::start(&settings.streaming, node.clone())
        .await
        .map_err(Error::Streaming)?;
    node.stream_by(streaming);
    let (stop, stopped) = oneshot::channel();
    let mut server = tokio::spawn(server::serve(listener, node.clone(), async {
        // An error means that the sender is gone, which says the same.
        stopped.await.unwrap_or(());
    }));
    let outcome = tokio::select! {
        ended = &mut server => return ended.map_err(Error::Task)?.map_err(Error::Serve),
        failed = open_and_stay(settings.engine.clone(), &node) => Err(failed),
        () = reload::on_hangup(hangup, flags, &node, settings.clone()) => Ok(()),
        () = signals.next() => Ok(()),
    };
    drop(metrics);
    notify::tell("STOPPING=1");
    drop(stop);
    node.stop_streams();
    drain(server, &mut signals).await;
    node.close().await;
    drop(bound);
    info!("stopped; pods go on");
    outcome
}

/// Serves `/metrics` where somebody wants it, until the answer is dropped.
async fn metrics(address: Option<SocketAddr>, node: &Node) -> Result<Option<JoinSet<()>>, Error> {
    let Some(address) = address else {
        return Ok(None);
    };
    let failed = |source| Error::Metrics { address, source };
    let listener = metrics::listen(address).await.map_err(failed)?;
    info!(%address, "serving /metrics");
    let mut task = JoinSet::new();
    task.spawn(metrics::serve(listener, node.clone()));
    Ok(Some(task))
}

/// Opens the engine and lets requests in. Returns only when that fails.
async fn open_and_stay(config: engine::Config, node: &Node) -> Error {
    let start = Instant::now();
    match Engine::open(config).await {
        Ok(engine) => node.open(engine),
        Err(error) => return Error::Engine(error),
    }
    info!(ms = start.elapsed().as_millis(), "ready");
    notify::tell("READY=1");
    std::future::pending().await
}

/// Lets open requests end, unless they take too long or somebody is impatient.
async fn drain(server: JoinHandle<Result<(), tonic::transport::Error>>, signals: &mut Signals) {
    tokio::select! {
        ended = server => match ended {
            Ok(Ok(())) => {}
            Ok(Err(error)) => warn!(%error, "the server ended with an error"),
            Err(error) => warn!(%error, "the server's task ended"),
        },
        () = tokio::time::sleep(DRAIN) => info!("open requests were cut off; what they started goes on or is undone by the next start"),
        () = signals.next() => info!("second signal: stopping at once"),
    }
}

/// SIGTERM and SIGINT.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) {
        let name = tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        };
        info!(signal = name, "stopping");
    }
}
