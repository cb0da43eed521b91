//! Exec and attach over WebSocket: the first byte of each message is its channel.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use tokio::sync::{mpsc, watch};

use super::channel::{self, FRAMES, Inbound, Outgoing};
use super::http::Upgraded;
use super::remote::{self, Channels};
use super::status::Form;
use super::websocket::{self, Message};
use super::{Session, Wants};
use crate::node::Node;

/// The protocols, by the names that clients offer; a client that offers none speaks the second one.
pub(super) const PROTOCOLS: [&str; 5] = [
    "v5.channel.k8s.io",
    "channel.k8s.io",
    "base64.channel.k8s.io",
    "v4.channel.k8s.io",
    "v4.base64.channel.k8s.io",
];

const STDIN: u32 = 0;
const STDOUT: u32 = 1;
const STDERR: u32 = 2;
const ERROR: u32 = 3;
const RESIZE: u32 = 4;
/// Of v5: the client closes the channel that the second byte names.
const CLOSE: u8 = 255;

/// How a protocol puts channels into messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Coding {
    pub(super) base64: bool,
    /// Whether [`CLOSE`] is one.
    closes: bool,
}

impl Coding {
    pub(super) fn of(protocol: &str) -> Self {
        Self {
            base64: protocol.contains("base64"),
            closes: protocol.starts_with("v5."),
        }
    }

    pub(super) fn encode(self, channel: u32, data: &[u8]) -> Message {
        let channel = u8::try_from(channel).unwrap_or(u8::MAX);
        if self.base64 {
            // The channel is a digit here.
            let digit = char::from(channel.saturating_add(b'0'));
            return Message::text(format!("{digit}{}", STANDARD.encode(data)));
        }
        let mut message = Vec::with_capacity(data.len() + 1);
        message.push(channel);
        message.extend_from_slice(data);
        Message::binary(message)
    }

    /// What a message says; `None` for one that makes no sense.
    pub(super) fn decode(self, message: &Bytes) -> Option<Incoming> {
        let (first, rest) = message.split_first()?;
        if self.base64 {
            let channel = first.checked_sub(b'0')?;
            let data = STANDARD.decode(rest).ok()?;
            return Some(Incoming::Data(channel.into(), data.into()));
        }
        match (*first, rest) {
            (CLOSE, [channel]) if self.closes => Some(Incoming::Close((*channel).into())),
            (channel, _) => Some(Incoming::Data(channel.into(), message.slice(1..))),
        }
    }
}

/// What a client says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Incoming {
    Data(u32, Bytes),
    Close(u32),
}

/// The connection's ends of the channels that a client may write to.
type Inbounds = [(u32, Option<Inbound>); 2];

/// Serves one session.
pub(super) async fn serve(
    node: &Node,
    session: Session,
    protocol: &'static str,
    io: Upgraded,
    idle: Duration,
) {
    let (Session::Exec { wants, .. } | Session::Attach { wants, .. }) = &session else {
        return;
    };
    let coding = Coding::of(protocol);
    let (mut sender, mut receiver) = websocket::open(io, idle).await;
    let (end, gone) = watch::channel(false);
    let (channels, mut inbounds, mut outgoing) = channels(*wants, gone);
    // Clients that count on it know by this that the server is there.
    let ready = match *wants {
        Wants { stdout: true, .. } => STDOUT,
        Wants { stderr: true, .. } => STDERR,
        _ => ERROR,
    };
    if !sender.send(coding.encode(ready, b"")).await {
        return;
    }
    let form = match protocol.starts_with("v4.") || protocol.starts_with("v5.") {
        true => Form::Status,
        false => Form::Text,
    };
    let running = remote::run(node, session, channels, form);
    let writing = async move {
        while let Some(one) = outgoing.recv().await {
            if let Outgoing::Data(channel, data) = one
                && !sender.send(coding.encode(channel, &data)).await
            {
                return;
            }
        }
        sender.close().await;
    };
    let serving = async {
        tokio::join!(running, writing);
    };
    tokio::pin!(serving);
    let said_all = {
        let reading = async {
            while let Some(message) = receiver.next().await {
                take(coding, &message, &mut inbounds).await;
            }
        };
        tokio::select! {
            () = &mut serving => true,
            () = reading => false,
        }
    };
    if said_all {
        receiver.drain().await;
    } else {
        // The client is gone.
        end.send_replace(true);
        serving.await;
    }
}

async fn take(coding: Coding, message: &Bytes, inbounds: &mut Inbounds) {
    match coding.decode(message) {
        Some(Incoming::Data(channel, data)) => {
            let place = inbounds.iter().find(|(id, _)| *id == channel);
            if let Some((_, Some(inbound))) = place
                && !data.is_empty()
            {
                inbound.push(data).await;
            }
        }
        Some(Incoming::Close(channel)) => {
            for (id, inbound) in inbounds {
                if *id == channel {
                    *inbound = None;
                }
            }
        }
        // Nothing that could be told to anyone.
        None => {}
    }
}

fn channels(
    wants: Wants,
    gone: watch::Receiver<bool>,
) -> (Channels, Inbounds, mpsc::Receiver<Outgoing>) {
    let (out, outgoing) = mpsc::channel(FRAMES);
    let open = |wanted: bool, id: u32| match wanted {
        true => {
            let (io, inbound) = channel::open(id, out.clone());
            (Some(io), Some(inbound))
        }
        false => (None, None),
    };
    let (stdin, to_stdin) = open(wants.stdin, STDIN);
    let (resize, to_resize) = open(wants.tty, RESIZE);
    let (stdout, _) = open(wants.stdout, STDOUT);
    let (stderr, _) = open(wants.stderr, STDERR);
    let (error, _) = channel::open(ERROR, out.clone());
    let channels = Channels {
        stdin,
        stdout,
        stderr,
        error,
        resize,
        gone,
    };
    (channels, [(STDIN, to_stdin), (RESIZE, to_resize)], outgoing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn close_is_a_message_of_v5_only() {
        let message = Bytes::from_static(&[255, 0]);
        let decode = |protocol| Coding::of(protocol).decode(&message);
        assert_eq!(decode("v5.channel.k8s.io"), Some(Incoming::Close(0)));
        assert_eq!(
            decode("v4.channel.k8s.io"),
            Some(Incoming::Data(255, Bytes::from_static(&[0])))
        );
    }

    #[test]
    fn base64_protocols_carry_text_with_a_digit() {
        let coding = Coding::of("base64.channel.k8s.io");
        assert_eq!(coding.encode(1, b"hi"), Message::text("1aGk="));
        let message = Bytes::from_static(b"0aGk=");
        assert_eq!(
            coding.decode(&message),
            Some(Incoming::Data(0, Bytes::from_static(b"hi")))
        );
        for bad in ["", "0%%%", "!aGk="] {
            assert_eq!(
                coding.decode(&Bytes::from_static(bad.as_bytes())),
                None,
                "{bad}"
            );
        }
    }
}
