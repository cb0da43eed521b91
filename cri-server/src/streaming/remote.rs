//! Exec and attach, whatever carries them: channels to the engine, the outcome to the error channel.

use std::time::Duration;

use engine::{Input, Output, Streams, WindowSize};
use serde::Deserialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::{mpsc, watch};

use super::spdy::{Connection, Stream};
use super::status::{Form, Outcome};
use super::{Session, Wants};
use crate::node::Node;

/// The longest text that a size may take.
const SIZE_TEXT: usize = 4096;

/// The channels of one session.
pub(super) struct Channels {
    pub(super) stdin: Option<DuplexStream>,
    pub(super) stdout: Option<DuplexStream>,
    pub(super) stderr: Option<DuplexStream>,
    pub(super) error: DuplexStream,
    pub(super) resize: Option<DuplexStream>,
    pub(super) gone: watch::Receiver<bool>,
}

/// Runs the session to its end and says how it was.
pub(super) async fn run(node: &Node, session: Session, mut channels: Channels, form: Form) {
    let streams = Streams {
        stdin: channels.stdin.map(|io| Box::new(io) as Input),
        stdout: channels.stdout.map(|io| Box::new(io) as Output),
        stderr: channels.stderr.map(|io| Box::new(io) as Output),
        resize: channels.resize.map(sizes),
        gone: channels.gone,
    };
    let outcome = match outcome(node, session, streams).await {
        Ok(outcome) => outcome,
        Err(text) => Outcome::Failure(text),
    };
    // A client that is gone hears nothing.
    channels.error.write_all(&outcome.encode(form)).await.ok();
    channels.error.shutdown().await.ok();
}

async fn outcome(node: &Node, session: Session, streams: Streams) -> Result<Outcome, String> {
    let engine = node
        .engine()
        .map_err(|status| status.message().to_owned())?;
    match session {
        Session::Exec { id, command, wants } => engine
            .exec(&id, command, wants.tty, streams)
            .await
            .map(|code| match code {
                0 => Outcome::Success,
                code => Outcome::ExitCode(code),
            }),
        Session::Attach { id, .. } => engine.attach(&id, streams).await.map(|()| Outcome::Success),
        Session::PortForward { .. } => return Err("port-forward is no terminal session".into()),
    }
    .map_err(|error| error.report())
}

/// A session over SPDY: waits for its streams, then runs it.
pub(super) async fn over_spdy(
    node: &Node,
    session: Session,
    protocol: &str,
    mut connection: Connection,
    patience: Duration,
) {
    let Some(wants) = session.wants() else { return };
    let resizes = wants.tty && matches!(protocol, "v4.channel.k8s.io" | "v3.channel.k8s.io");
    let gone = connection.gone.clone();
    let collected = tokio::time::timeout(patience, collect(&mut connection, wants, resizes, gone));
    let Ok(Some(channels)) = collected.await else {
        tracing::debug!(protocol, "a client did not open all its streams");
        return;
    };
    let form = match protocol {
        "v4.channel.k8s.io" => Form::Status,
        _ => Form::Text,
    };
    run(node, session, channels, form).await;
}

async fn collect(
    connection: &mut Connection,
    wants: Wants,
    resizes: bool,
    gone: watch::Receiver<bool>,
) -> Option<Channels> {
    let (mut stdin, mut stdout, mut stderr, mut error, mut resize) = (None, None, None, None, None);
    let missing = |have: &Option<DuplexStream>, wanted: bool| wanted && have.is_none();
    while missing(&error, true)
        || missing(&stdin, wants.stdin)
        || missing(&stdout, wants.stdout)
        || missing(&stderr, wants.stderr)
        || missing(&resize, resizes)
    {
        let Stream { id, headers, io } = connection.streams.recv().await?;
        let (place, wanted) = match headers.get("streamtype") {
            Some("error") => (&mut error, true),
            Some("stdin") => (&mut stdin, wants.stdin),
            Some("stdout") => (&mut stdout, wants.stdout),
            Some("stderr") => (&mut stderr, wants.stderr),
            Some("resize") => (&mut resize, resizes),
            _ => (&mut error, false),
        };
        if wanted && place.is_none() {
            *place = Some(io);
        } else {
            connection.reset(id).await;
        }
    }
    Some(Channels {
        stdin,
        stdout,
        stderr,
        error: error?,
        resize,
        gone,
    })
}

/// The sizes in a channel: JSON objects back to back. Nonsense ends it.
fn sizes(mut from: DuplexStream) -> mpsc::Receiver<WindowSize> {
    let (send, receive) = mpsc::channel(16);
    tokio::spawn(async move {
        let mut text = Vec::new();
        while let Ok(1..) = from.read_buf(&mut text).await {
            let Ok(used) = each_size(&text, |size| sized(size, &send)) else {
                return;
            };
            text.drain(..used);
            if text.len() > SIZE_TEXT {
                return;
            }
        }
    });
    receive
}

/// Gives a size away. What is not taken yet is overtaken by the next one.
fn sized(size: Size, to: &mpsc::Sender<WindowSize>) {
    let size = WindowSize {
        rows: size.height,
        columns: size.width,
    };
    to.try_send(size).ok();
}

#[derive(Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "PascalCase")]
struct Size {
    width: u16,
    height: u16,
}

/// Calls `take` for each complete size; the answer is how much of `text` they were.
fn each_size(text: &[u8], mut take: impl FnMut(Size)) -> Result<usize, serde_json::Error> {
    let mut stream = serde_json::Deserializer::from_slice(text).into_iter::<Size>();
    let mut used = 0;
    loop {
        match stream.next() {
            Some(Ok(size)) => {
                used = stream.byte_offset();
                take(size);
            }
            Some(Err(error)) if !error.is_eof() => return Err(error),
            // Half an object, or nothing but white space.
            Some(Err(_)) | None => return Ok(used),
        }
    }
}

impl Session {
    fn wants(&self) -> Option<Wants> {
        match self {
            Self::Exec { wants, .. } | Self::Attach { wants, .. } => Some(*wants),
            Self::PortForward { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_come_back_to_back_and_in_halves() {
        let text = br#"{"Width":80,"Height":24}{"Width":100,"Height":30} {"Wid"#;
        let mut all = Vec::new();
        let used = each_size(text, |size| all.push((size.width, size.height))).expect("sizes");
        assert_eq!(all, [(80, 24), (100, 30)]);
        assert_eq!(&text[used..], br#" {"Wid"#);
        assert!(each_size(br#"{"Width":"x"}"#, |_| ()).is_err());
    }
}
