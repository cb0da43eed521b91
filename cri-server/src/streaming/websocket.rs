//! WebSocket messages after the upgrade: sending, receiving, and the silence that ends a connection.

use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use tokio_tungstenite::WebSocketStream;
pub(super) use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::Utf8Bytes;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};

use super::channel::Activity;
use super::http::Upgraded;

/// The longest message: clients send 32 KiB at a time.
const MESSAGE: usize = 4 << 20;

/// How long a client may take to close the connection after everything was said.
const CLOSING: Duration = Duration::from_secs(5);

/// The answer to `Sec-WebSocket-Key`.
pub(super) fn accept_key(key: &[u8]) -> String {
    derive_accept_key(key)
}

/// The sending half.
pub(super) struct Sender {
    sink: SplitSink<WebSocketStream<Upgraded>, Message>,
    activity: Activity,
}

/// The receiving half.
pub(super) struct Receiver {
    stream: SplitStream<WebSocketStream<Upgraded>>,
    activity: Activity,
    idle: Duration,
}

/// The two halves of a connection.
pub(super) async fn open(io: Upgraded, idle: Duration) -> (Sender, Receiver) {
    let config = WebSocketConfig::default()
        .max_message_size(Some(MESSAGE))
        .max_frame_size(Some(MESSAGE));
    let socket = WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await;
    let (sink, stream) = socket.split();
    let activity = Activity::new();
    let receiver = Receiver {
        stream,
        activity: activity.clone(),
        idle,
    };
    (Sender { sink, activity }, receiver)
}

impl Sender {
    /// False when the client is gone.
    pub(super) async fn send(&mut self, message: Message) -> bool {
        self.activity.touch().await;
        self.sink.send(message).await.is_ok()
    }

    /// Says good-bye.
    pub(super) async fn close(&mut self) {
        // Without a code Go's client takes it for an error.
        let normal = CloseFrame {
            code: CloseCode::Normal,
            reason: Utf8Bytes::default(),
        };
        // A client that is gone needs none.
        self.sink.send(Message::Close(Some(normal))).await.ok();
        self.sink.close().await.ok();
    }
}

impl Receiver {
    /// The next message with content, its bytes; `None` at the end. Pings are answered on the way.
    pub(super) async fn next(&mut self) -> Option<Bytes> {
        loop {
            let message = tokio::select! {
                message = self.stream.next() => message?,
                () = self.activity.idle_for(self.idle) => return None,
            };
            self.activity.touch().await;
            match message {
                Ok(Message::Binary(bytes)) => return Some(bytes),
                Ok(Message::Text(text)) => return Some(text.into()),
                Ok(Message::Close(_)) => return None,
                Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_)) => {}
                Err(error) => {
                    tracing::debug!(%error, "a WebSocket connection");
                    return None;
                }
            }
        }
    }

    /// Reads on until the client has closed, or takes too long.
    pub(super) async fn drain(mut self) {
        let end = async { while self.next().await.is_some() {} };
        tokio::time::timeout(CLOSING, end).await.ok();
    }
}
