//! A SPDY connection: streams that the client opens, each a duplex.

use std::collections::HashMap;
use std::time::Duration;

use spdy::{Decoder, Encoder, Frame, Headers, RstStatus};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream};
use tokio::sync::{mpsc, oneshot, watch};

use super::channel::{self, Activity, FRAMES, Inbound, Outgoing};

/// The most streams of one connection at once.
const STREAMS: usize = 512;

/// Answers that wait for the client to read; one that never reads its pings is no client.
const CONTROL: usize = 1024;

/// How long a client may take to close the connection after everything was said.
const CLOSING: Duration = Duration::from_secs(5);

/// One read.
const READ_SIZE: usize = 64 << 10;

/// A stream that the client opened. It was accepted.
pub(super) struct Stream {
    pub(super) id: u32,
    pub(super) headers: Headers,
    pub(super) io: DuplexStream,
}

/// A connection that is served in the background.
pub(super) struct Connection {
    /// New streams.
    pub(super) streams: mpsc::Receiver<Stream>,
    /// True when the client is gone.
    pub(super) gone: watch::Receiver<bool>,
    reset: mpsc::Sender<Frame>,
    _finish: oneshot::Sender<()>,
}

impl Connection {
    /// Serves `io`. When this is dropped no stream is accepted any more, and when the last one has ended the connection is
    /// closed: GOAWAY, then ours, then the client's side.
    pub(super) fn serve(io: impl AsyncRead + AsyncWrite + Send + 'static, idle: Duration) -> Self {
        let (from, to) = tokio::io::split(io);
        let (control, controls) = mpsc::channel(CONTROL);
        let (out, outgoing) = mpsc::channel(FRAMES);
        let (accepted, streams) = mpsc::channel(STREAMS);
        let (end, gone) = watch::channel(false);
        let (finish, finishing) = oneshot::channel();
        let activity = Activity::new();
        let writing = tokio::spawn(write(to, controls, outgoing, activity.clone()));
        let reader = Reader {
            decoder: Decoder::new(),
            streams: HashMap::new(),
            last: 0,
            control: control.clone(),
            out: Some(out),
            accepted,
        };
        tokio::spawn(async move {
            reader.run(from, finishing, &activity, idle).await;
            end.send_replace(true);
            writing.abort();
        });
        Self {
            streams,
            gone,
            reset: control,
            _finish: finish,
        }
    }

    /// Ends a stream at once in both directions.
    pub(super) async fn reset(&self, id: u32) {
        self.resets().reset(id).await;
    }

    /// The same for whoever outlives this.
    pub(super) fn resets(&self) -> Resets {
        Resets(self.reset.clone())
    }
}

/// Resets streams.
pub(super) struct Resets(mpsc::Sender<Frame>);

impl Resets {
    pub(super) async fn reset(&self, id: u32) {
        let status = RstStatus::Cancel as u32;
        // A connection that is gone has no streams.
        self.0
            .send(Frame::RstStream { stream: id, status })
            .await
            .ok();
    }
}

struct Reader {
    decoder: Decoder,
    streams: HashMap<u32, Inbound>,
    /// The last stream that the client opened.
    last: u32,
    control: mpsc::Sender<Frame>,
    /// Gone when no stream is accepted any more.
    out: Option<mpsc::Sender<Outgoing>>,
    accepted: mpsc::Sender<Stream>,
}

/// The connection is over.
struct Over;

impl Reader {
    async fn run(
        mut self,
        mut from: impl AsyncRead + Unpin,
        mut finishing: oneshot::Receiver<()>,
        activity: &Activity,
        idle: Duration,
    ) {
        let closing = tokio::time::sleep(Duration::MAX);
        tokio::pin!(closing);
        loop {
            self.decoder.buffer().reserve(READ_SIZE);
            let read = tokio::select! {
                read = from.read_buf(self.decoder.buffer()) => read,
                _ = &mut finishing, if self.out.is_some() => {
                    self.finish();
                    continue;
                }
                () = self.control.closed(), if self.out.is_none() && closing.deadline() > tokio::time::Instant::now() + CLOSING => {
                    closing.as_mut().reset(tokio::time::Instant::now() + CLOSING);
                    continue;
                }
                () = &mut closing => return,
                () = activity.idle_for(idle) => return,
            };
            if !matches!(read, Ok(1..)) {
                return;
            }
            activity.touch().await;
            loop {
                match self.decoder.next() {
                    Ok(None) => break,
                    Ok(Some(frame)) => {
                        let taken = tokio::select! {
                            taken = self.take(frame) => taken,
                            () = activity.idle_for(idle) => Err(Over),
                        };
                        if taken.is_err() {
                            return;
                        }
                    }
                    Err(error) => {
                        tracing::debug!(%error, "a SPDY connection");
                        return;
                    }
                }
            }
        }
    }

    /// Nothing new from here on. The streams that nobody serves end by themselves.
    fn finish(&mut self) {
        self.out = None;
    }

    async fn take(&mut self, frame: Frame) -> Result<(), Over> {
        match frame {
            Frame::SynStream {
                stream,
                fin,
                headers,
                ..
            } => self.open(stream, fin, headers),
            Frame::Data { stream, fin, data } => {
                // What comes for a stream that ended was on its way.
                if let Some(inbound) = self.streams.get(&stream) {
                    inbound.push(data).await;
                }
                if fin {
                    self.streams.remove(&stream);
                }
                Ok(())
            }
            Frame::RstStream { stream, .. } => {
                if let Some(inbound) = self.streams.remove(&stream) {
                    inbound.reset();
                }
                Ok(())
            }
            // Even ids would be answers to our own pings, of which there are none.
            Frame::Ping(id) if id % 2 == 1 => self.tell(Frame::Ping(id)),
            Frame::Headers {
                stream, fin: true, ..
            } => {
                self.streams.remove(&stream);
                Ok(())
            }
            Frame::Ping(_)
            | Frame::GoAway { .. }
            | Frame::Settings(_)
            | Frame::WindowUpdate { .. }
            | Frame::SynReply { .. }
            | Frame::Headers { .. } => Ok(()),
        }
    }

    fn open(&mut self, id: u32, fin: bool, headers: Headers) -> Result<(), Over> {
        let refuse = |status: RstStatus| Frame::RstStream {
            stream: id,
            status: status as u32,
        };
        if id.is_multiple_of(2) || id <= self.last {
            return self.tell(refuse(RstStatus::ProtocolError));
        }
        self.last = id;
        let Some(out) = self.out.clone().filter(|_| self.streams.len() < STREAMS) else {
            return self.tell(refuse(RstStatus::RefusedStream));
        };
        // Before anything else of this stream: Go's client drops the data of a stream without an answer.
        let headers_back = Headers::default();
        self.tell(Frame::SynReply {
            stream: id,
            fin: false,
            headers: headers_back,
        })?;
        let (io, inbound) = channel::open(id, out);
        if !fin {
            self.streams.insert(id, inbound);
        }
        if self.accepted.try_send(Stream { id, headers, io }).is_err() {
            // Nobody takes it: the channel has ended with that.
            return self.tell(refuse(RstStatus::RefusedStream));
        }
        Ok(())
    }

    /// Never waits: a client that floods us with pings and reads no answers is cut off.
    fn tell(&self, frame: Frame) -> Result<(), Over> {
        self.control.try_send(frame).map_err(|_| Over)
    }
}

/// Writes until every channel has ended, then says good-bye. Answers go before content.
async fn write(
    mut to: impl AsyncWrite + Unpin,
    mut controls: mpsc::Receiver<Frame>,
    mut outgoing: mpsc::Receiver<Outgoing>,
    activity: Activity,
) {
    let mut encoder = Encoder::new();
    let mut bytes = Vec::new();
    loop {
        let next = tokio::select! {
            biased;
            control = controls.recv() => control,
            content = outgoing.recv() => content.map(frame),
        };
        let last = next.is_none();
        let next = next.unwrap_or(Frame::GoAway {
            last_good: 0,
            status: 0,
        });
        bytes.clear();
        if let Err(error) = encoder.encode(&next, &mut bytes) {
            tracing::debug!(%error, "a SPDY frame of ours");
            return;
        }
        if to.write_all(&bytes).await.is_err() || to.flush().await.is_err() {
            return;
        }
        activity.touch().await;
        if last {
            // A client that is gone needs no end.
            to.shutdown().await.ok();
            return;
        }
    }
}

fn frame(outgoing: Outgoing) -> Frame {
    match outgoing {
        Outgoing::Data(stream, data) => Frame::Data {
            stream,
            fin: false,
            data,
        },
        Outgoing::End(stream) => Frame::Data {
            stream,
            fin: true,
            data: bytes::Bytes::new(),
        },
    }
}
