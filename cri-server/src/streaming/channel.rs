//! One channel of a connection that carries many: a duplex on our side, frames on the other.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::{Mutex, Semaphore, mpsc};
use tokio::task::AbortHandle;

/// What a duplex holds in each direction.
const DUPLEX: usize = 64 << 10;

/// What a channel may keep of what the client sent and nobody took yet. When it is full the whole connection waits, as
/// the protocols have no other way to slow a client down.
const QUEUE: usize = 8 << 20;

/// How many frames wait for the connection to take them.
pub(super) const FRAMES: usize = 16;

/// What a channel sends.
#[derive(Debug)]
pub(super) enum Outgoing {
    Data(u32, Bytes),
    /// Nothing follows on this channel.
    End(u32),
}

/// The connection's end of a channel. Dropping it is the end of what the client sends.
#[derive(Debug)]
pub(super) struct Inbound {
    queue: mpsc::UnboundedSender<Bytes>,
    room: Arc<Semaphore>,
    tasks: [AbortHandle; 2],
}

/// A new channel: the duplex for whoever serves it, and the connection's end. Frames go to `out`, whose clone goes away
/// when the channel has nothing more to send.
pub(super) fn open(id: u32, out: mpsc::Sender<Outgoing>) -> (DuplexStream, Inbound) {
    let (ours, theirs) = tokio::io::duplex(DUPLEX);
    let (mut from, mut to) = tokio::io::split(theirs);
    let (queue, mut queued) = mpsc::unbounded_channel::<Bytes>();
    let room = Arc::new(Semaphore::new(QUEUE));
    let freed = Arc::clone(&room);
    let feed = tokio::spawn(async move {
        while let Some(data) = queued.recv().await {
            let written = to.write_all(&data).await;
            freed.add_permits(data.len());
            if written.is_err() {
                // Nobody listens any more: the rest is dropped where it comes from.
                freed.close();
                return;
            }
        }
        // Whoever dropped the other end needs no end.
        to.shutdown().await.ok();
    });
    let drain = tokio::spawn(async move {
        let mut buffer = vec![0; DUPLEX / 2];
        while let Ok(count @ 1..) = from.read(&mut buffer).await {
            let data = Bytes::copy_from_slice(&buffer[..count]);
            if out.send(Outgoing::Data(id, data)).await.is_err() {
                return;
            }
        }
        // A connection that ended knows.
        out.send(Outgoing::End(id)).await.ok();
    });
    let tasks = [feed.abort_handle(), drain.abort_handle()];
    (ours, Inbound { queue, room, tasks })
}

impl Inbound {
    /// Queues what the client sent; waits while there is no room.
    pub(super) async fn push(&self, data: Bytes) {
        let size = u32::try_from(data.len()).unwrap_or(u32::MAX);
        // A closed semaphore is a channel that nobody reads.
        if let Ok(room) = self.room.acquire_many(size).await {
            room.forget();
            self.queue.send(data).ok();
        }
    }

    /// Both directions end now.
    pub(super) fn reset(self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

/// When a connection last carried something.
#[derive(Debug, Clone)]
pub(super) struct Activity(Arc<Mutex<Instant>>);

impl Activity {
    pub(super) fn new() -> Self {
        Self(Arc::new(Mutex::new(Instant::now())))
    }

    pub(super) async fn touch(&self) {
        *self.0.lock().await = Instant::now();
    }

    /// Waits until nothing was carried for `limit`.
    pub(super) async fn idle_for(&self, limit: Duration) {
        loop {
            let until = *self.0.lock().await + limit;
            if until <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(until.into()).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_nobody_reads_is_kept_up_to_a_limit_and_flows_on_later() {
        let (out, _frames) = mpsc::channel(FRAMES);
        let (mut ours, inbound) = open(1, out);
        let chunk = Bytes::from(vec![7; 1 << 20]);
        for _ in 0..8 {
            // Not one of these waits: that is what keeps resizes and pings going.
            let pushed = tokio::time::timeout(Duration::from_secs(5), inbound.push(chunk.clone()));
            pushed.await.expect("queued at once");
        }
        let waits = tokio::time::timeout(Duration::from_millis(50), inbound.push(chunk.clone()));
        assert!(waits.await.is_err(), "the ninth megabyte has no room");
        let reading = tokio::spawn(async move {
            let mut all = Vec::new();
            ours.read_to_end(&mut all).await.expect("read");
            all.len()
        });
        inbound.push(chunk).await;
        drop(inbound);
        assert_eq!(reading.await.expect("joined"), 9 << 20);
    }

    #[tokio::test]
    async fn a_channel_that_nobody_reads_any_more_takes_everything() {
        let (out, _frames) = mpsc::channel(FRAMES);
        let (ours, inbound) = open(1, out);
        drop(ours);
        for _ in 0..64 {
            inbound.push(Bytes::from(vec![7; 1 << 20])).await;
        }
    }

    #[tokio::test]
    async fn what_is_written_comes_out_as_frames_and_then_the_end() {
        let (out, mut frames) = mpsc::channel(FRAMES);
        let (mut ours, _inbound) = open(9, out);
        ours.write_all(b"abc").await.expect("written");
        drop(ours);
        assert!(matches!(frames.recv().await, Some(Outgoing::Data(9, data)) if data == "abc"));
        assert!(matches!(frames.recv().await, Some(Outgoing::End(9))));
        assert!(frames.recv().await.is_none());
    }
}
