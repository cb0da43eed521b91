//! The streaming server: exec, attach and port-forward over SPDY/3.1 and WebSocket.
//!
//! ```text
//! RPC Exec ─▶ token (single use, 1 minute) ─▶ URL ─▶ kubelet or crictl connects: POST /exec/<token>, Upgrade
//!   http ─▶ spdy │ websocket: one duplex for each channel ─▶ remote │ forward ─▶ the engine
//! ```
//!
//! Back-pressure. Towards the client it is TCP's. From the client each channel has a queue of its own ([`channel`]), so that
//! a process that does not read its stdin holds up neither resizes nor pings; only when a queue is full the connection waits.

mod channel;
mod forward;
mod http;
mod remote;
mod spdy;
mod status;
mod tls;
mod tokens;
mod tunnel;
mod websocket;
mod ws_remote;

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::task::AbortHandle;
use tonic::Status;

use crate::config::StreamingConfig;
use crate::node::Node;
use tokens::Tokens;

/// What a token stands for: a request that was checked when the RPC was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Session {
    /// A command in a container.
    Exec {
        id: String,
        command: Vec<String>,
        wants: Wants,
    },
    /// The container's own streams.
    Attach { id: String, wants: Wants },
    /// Ports of a pod; the list matters only where the protocol does not name them.
    PortForward { pod: String, ports: Vec<u16> },
}

/// Which streams were asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wants {
    pub(crate) stdin: bool,
    pub(crate) stdout: bool,
    pub(crate) stderr: bool,
    pub(crate) tty: bool,
}

/// Why streams cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address cannot be used.
    #[error("listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the kernel says.
        source: std::io::Error,
    },
    /// Certificate or key cannot be used.
    #[error("{0}")]
    Tls(String),
}

/// The running server. It ends with this.
pub(crate) struct Streaming {
    base: String,
    tokens: Arc<Tokens>,
    accepting: AbortHandle,
}

impl std::fmt::Debug for Streaming {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Streaming")
            .field("base", &self.base)
            .finish_non_exhaustive()
    }
}

impl Streaming {
    /// Listens; connections are served as soon as the node has its engine.
    pub(crate) async fn start(config: &StreamingConfig, node: Node) -> Result<Self, Error> {
        let address = SocketAddr::new(config.address, config.port);
        let listen = |source| Error::Listen { address, source };
        let tls = tls::acceptor(config)?;
        let listener = TcpListener::bind(address).await.map_err(listen)?;
        let mut reached = listener.local_addr().map_err(listen)?;
        if reached.ip().is_unspecified() {
            // Whoever gets the URL is on this machine.
            reached.set_ip(StreamingConfig::default().address);
        }
        let scheme = if tls.is_some() { "https" } else { "http" };
        let tokens = Arc::new(Tokens::default());
        let server = Arc::new(http::Server {
            tokens: Arc::clone(&tokens),
            node,
            config: config.clone(),
        });
        let accepting = tokio::spawn(http::accept(listener, tls, server)).abort_handle();
        let base = format!("{scheme}://{reached}");
        tracing::info!(url = base, "streaming");
        Ok(Self {
            base,
            tokens,
            accepting,
        })
    }

    /// The URL where this session can be had once.
    pub(crate) fn url(&self, session: Session) -> Result<String, Status> {
        let path = session.path();
        let token = self.tokens.issue(session)?;
        Ok(format!("{}/{path}/{token}", self.base))
    }
}

impl Drop for Streaming {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Session {
    /// The first word of its path.
    fn path(&self) -> &'static str {
        match self {
            Self::Exec { .. } => "exec",
            Self::Attach { .. } => "attach",
            Self::PortForward { .. } => "portforward",
        }
    }
}
