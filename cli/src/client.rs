//! The node's API: CRI and `davit.v1` on one socket.

use std::path::Path;
use std::time::Duration;

use proto::davit::v1::images_client::ImagesClient;
use proto::runtime::v1::image_service_client::ImageServiceClient;
use proto::runtime::v1::runtime_service_client::RuntimeServiceClient;
use proto::runtime::v1::{StatusRequest, VersionRequest, VersionResponse};
use tokio::net::UnixStream;
use tokio::time::Instant;
use tonic::Code;
use tonic::transport::{Channel, Endpoint};

use crate::error::reason;
use crate::node::Node;
use crate::{Error, Result};

/// CRI's own limit for one message; the default of the library is smaller than a long list of pods.
const MAX_MESSAGE: usize = 16 * 1024 * 1024;
/// A node that runs answers this at once, whatever else it does.
const PING: Duration = Duration::from_secs(5);

/// How often a starting node is asked.
const POLL: Duration = Duration::from_millis(20);

/// A node that answered.
#[derive(Debug, Clone)]
pub struct Client {
    /// Pods and containers.
    pub runtime: RuntimeServiceClient<Channel>,
    /// Images, as CRI has them.
    pub images: ImageServiceClient<Channel>,
    /// Images, with progress and import.
    pub davit: ImagesClient<Channel>,
    /// Who answered, in its own words.
    pub version: VersionResponse,
    /// The process that listens at the socket.
    pub pid: i32,
}

impl Client {
    /// Connects and asks for the version, so that whoever holds a client knows that the node is alive.
    ///
    /// # Errors
    /// Nobody listens, or what listens does not answer as a container runtime within five seconds.
    pub async fn connect(node: &Node) -> Result<Client> {
        let socket = &node.socket;
        let no_node = |why: String| Error::NoNode {
            socket: socket.clone(),
            why,
            stale: socket.exists(),
        };
        let pid = listener(socket)
            .await
            .map_err(|error| no_node(reason(&error)))?;
        // A `unix:` address also gives the request an authority that every server takes: "localhost", not the path.
        let endpoint = Endpoint::from_shared(format!("unix://{}", socket.display()))
            .map_err(|error| no_node(error.to_string()))?;
        let channel = endpoint
            .connect()
            .await
            .map_err(|error| no_node(innermost(&error)))?;
        let mut runtime =
            RuntimeServiceClient::new(channel.clone()).max_decoding_message_size(MAX_MESSAGE);
        let asked = tokio::time::timeout(
            PING,
            runtime.version(VersionRequest {
                version: "v1".to_owned(),
            }),
        )
        .await;
        let version = asked
            .map_err(|_| {
                no_node(format!(
                    "process {pid} took the connection and says nothing for {} s",
                    PING.as_secs()
                ))
            })?
            .map_err(|status| {
                no_node(format!(
                    "process {pid} does not speak CRI: {}",
                    status.message()
                ))
            })?
            .into_inner();
        let images =
            ImageServiceClient::new(channel.clone()).max_decoding_message_size(MAX_MESSAGE);
        let davit = ImagesClient::new(channel).max_decoding_message_size(MAX_MESSAGE);
        Ok(Client {
            runtime,
            images,
            davit,
            version,
            pid,
        })
    }

    /// Connects to a node that has found its pods again; one that is still looking answers only for its version.
    ///
    /// # Errors
    /// As [`Client::connect`], or the node is still starting.
    pub async fn connect_ready(node: &Node) -> Result<Client> {
        let mut client = Client::connect(node).await?;
        let asked = client
            .runtime
            .status(StatusRequest { verbose: false })
            .await;
        asked.map_err(Error::refused("ask for the status"))?;
        Ok(client)
    }

    /// The same, waiting for a node that is there and still starting.
    ///
    /// # Errors
    /// No node, or one that is not ready in time.
    pub async fn wait_ready(node: &Node, patience: Duration) -> Result<Client> {
        let deadline = Instant::now() + patience;
        loop {
            match Client::connect_ready(node).await {
                Err(Error::Refused { status, .. })
                    if status.code() == Code::Unavailable && Instant::now() < deadline =>
                {
                    tokio::time::sleep(POLL).await;
                }
                other => return other,
            }
        }
    }
}

/// The process that listens at a socket.
async fn listener(socket: &Path) -> std::io::Result<i32> {
    let stream = UnixStream::connect(socket).await?;
    Ok(stream.peer_cred()?.pid().unwrap_or_default())
}

/// The end of a chain of errors says the reason; the rest says "transport error".
fn innermost(error: &dyn std::error::Error) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string()
}
