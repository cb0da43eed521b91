//! Port-forward over WebSocket: SPDY in binary messages, or the old form with two channels for each port.

use std::collections::HashMap;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::channel::{self, FRAMES, Inbound, Outgoing};
use super::http::Upgraded;
use super::websocket::{self, Message};
use super::ws_remote::{Coding, Incoming};
use super::{forward, spdy};
use crate::config::StreamingConfig;
use crate::node::Node;

/// SPDY inside.
const TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";

/// The protocols; a client that offers none speaks the second one.
pub(super) const PROTOCOLS: [&str; 3] = [TUNNEL, "v4.channel.k8s.io", "v4.base64.channel.k8s.io"];

/// What the tunnel holds in each direction.
const TUNNEL_BUFFER: usize = 64 << 10;

/// The most ports of one old connection: two channels each, and a channel is a byte.
const PORTS: usize = 64;

pub(super) async fn serve(
    node: &Node,
    pod: String,
    ports: Vec<u16>,
    protocol: &'static str,
    io: Upgraded,
    config: &StreamingConfig,
) {
    if protocol == TUNNEL {
        tunnel(node, pod, io, config).await;
    } else {
        channels(node, pod, ports, Coding::of(protocol), io, config).await;
    }
}

/// Carries a SPDY connection.
async fn tunnel(node: &Node, pod: String, io: Upgraded, config: &StreamingConfig) {
    let (mut sender, mut receiver) = websocket::open(io, config.idle_timeout).await;
    let (ours, theirs) = tokio::io::duplex(TUNNEL_BUFFER);
    let (mut from, mut to) = tokio::io::split(theirs);
    let connection = spdy::Connection::serve(ours, config.idle_timeout);
    let reading = async {
        while let Some(bytes) = receiver.next().await {
            if to.write_all(&bytes).await.is_err() {
                return;
            }
        }
        // The connection sees its end.
        to.shutdown().await.ok();
    };
    let writing = async {
        let mut buffer = BytesMut::with_capacity(TUNNEL_BUFFER);
        while let Ok(1..) = from.read_buf(&mut buffer).await {
            if !sender.send(Message::Binary(buffer.split().freeze())).await {
                return;
            }
            buffer.reserve(TUNNEL_BUFFER);
        }
        sender.close().await;
    };
    let patience = config.stream_creation_timeout;
    tokio::join!(
        forward::over_spdy(node, pod, connection, patience),
        reading,
        writing
    );
}

/// Channel 2n carries the data of port n, channel 2n + 1 its error; both begin with the port's number.
async fn channels(
    node: &Node,
    pod: String,
    ports: Vec<u16>,
    coding: Coding,
    io: Upgraded,
    config: &StreamingConfig,
) {
    let (mut sender, mut receiver) = websocket::open(io, config.idle_timeout).await;
    let (out, mut outgoing) = mpsc::channel(FRAMES);
    let mut inbounds: HashMap<u32, Inbound> = HashMap::new();
    let mut pairs = JoinSet::new();
    for (id, port) in (0_u32..).step_by(2).zip(ports.into_iter().take(PORTS)) {
        for id in [id, id + 1] {
            if !sender.send(coding.encode(id, &port.to_le_bytes())).await {
                return;
            }
        }
        let (data, inbound) = channel::open(id, out.clone());
        let (error, _) = channel::open(id + 1, out.clone());
        inbounds.insert(id, inbound);
        let (node, pod) = (node.clone(), pod.clone());
        pairs.spawn(async move {
            forward::pair(&node, &pod, Ok(port), data, error).await;
        });
    }
    drop(out);
    let writing = async {
        while let Some(one) = outgoing.recv().await {
            if let Outgoing::Data(channel, data) = one
                && !sender.send(coding.encode(channel, &data)).await
            {
                return;
            }
        }
        sender.close().await;
    };
    let reading = async {
        while let Some(message) = receiver.next().await {
            if let Some(Incoming::Data(channel, data)) = coding.decode(&message)
                && let Some(inbound) = inbounds.get(&channel)
            {
                inbound.push(Bytes::clone(&data)).await;
            }
        }
    };
    // Whichever ends first: every port has said all, or the client is gone.
    tokio::select! {
        () = writing => {}
        () = reading => {}
    }
}
