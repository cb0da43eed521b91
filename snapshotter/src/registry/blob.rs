//! Downloads of layers: resumed by `Range` where they break off, at the next mirror where one gives up.

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::StatusCode;
use hyper::header::{CONTENT_LENGTH, CONTENT_RANGE, HeaderMap};
use tokio::sync::mpsc::Sender;

use super::error::{RegistryError, causes};
use super::request::{Ask, Server, protocol};
use super::source::Source;
use crate::digest::Digest;

/// How often one layer's download may break off and make progress again.
const MOST_RESUMES: u32 = 100;

/// How a download ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Downloaded {
    /// All bytes were handed over.
    Complete,
    /// The receiver wants no more.
    Unwanted,
}

/// What became of one connection.
enum Ended {
    Complete,
    Unwanted,
    Broken(RegistryError),
}

impl Source {
    /// Sends the bytes of a blob to `sink`, in order, each once. Who reads them verifies them.
    ///
    /// # Errors
    /// The error of the last server, the registry itself.
    pub(crate) async fn blob(
        &self,
        digest: Digest,
        size: u64,
        sink: &Sender<Bytes>,
    ) -> Result<Downloaded, RegistryError> {
        let name = digest.to_string();
        let mut ask = Ask {
            path: format!("/{}/blobs/{name}", self.reference.repository()),
            accept: None,
            from: 0,
            target: self.target("blobs", &name),
        };
        let mut last = None;
        for server in self.servers(|host| host.pull) {
            match self.blob_from(server, &mut ask, size, sink).await {
                Ok(downloaded) => return Ok(downloaded),
                Err(error) => {
                    if !server.host.upstream {
                        tracing::warn!(%error, "a mirror did not have it");
                    }
                    last = Some(error);
                }
            }
        }
        Err(last.unwrap_or_else(|| self.nobody(&ask.target)))
    }

    /// Downloads from one server, from `ask.from` on; that moves on with what was handed over.
    async fn blob_from(
        &self,
        server: &Server,
        ask: &mut Ask,
        size: u64,
        sink: &Sender<Bytes>,
    ) -> Result<Downloaded, RegistryError> {
        let mut failures = 0;
        let mut resumes = 0;
        loop {
            let before = ask.from;
            match self.blob_once(server, ask, size, sink).await? {
                Ended::Complete => return Ok(Downloaded::Complete),
                Ended::Unwanted => return Ok(Downloaded::Unwanted),
                Ended::Broken(error) => {
                    failures = if ask.from > before { 1 } else { failures + 1 };
                    resumes += 1;
                    if failures >= self.retry.attempts || resumes > MOST_RESUMES {
                        return Err(error);
                    }
                    tracing::debug!(%error, from = ask.from, "the download is resumed");
                    tokio::time::sleep(self.retry.delay(failures, None)).await;
                }
            }
        }
    }

    /// One request for what is missing.
    async fn blob_once(
        &self,
        server: &Server,
        ask: &mut Ask,
        size: u64,
        sink: &Sender<Bytes>,
    ) -> Result<Ended, RegistryError> {
        if ask.from >= size && size > 0 {
            return Ok(Ended::Complete);
        }
        let response = self.get(server, ask).await?;
        let mut skip = start(server, ask, response.status(), response.headers(), size)?;
        let mut body = response.into_body();
        let broken = |from: u64, cause: String| {
            let cause = format!("after {from} of {size} bytes: {cause}");
            Ended::Broken(RegistryError::Connection {
                host: server.host.authority.clone(),
                target: ask.target.clone(),
                cause,
            })
        };
        let mut from = ask.from;
        let ended = loop {
            let frame = match tokio::time::timeout(self.progress_timeout, body.frame()).await {
                Err(_) => {
                    let (host, target, seconds) = (
                        server.host.authority.clone(),
                        ask.target.clone(),
                        self.progress_timeout.as_secs(),
                    );
                    break Ended::Broken(RegistryError::Stalled {
                        host,
                        target,
                        seconds,
                    });
                }
                Ok(None) if from == size => break Ended::Complete,
                Ok(None) => break broken(from, "the answer ended early".into()),
                Ok(Some(Err(error))) => break broken(from, causes(&error)),
                Ok(Some(Ok(frame))) => frame,
            };
            let Ok(mut data) = frame.into_data() else {
                continue;
            };
            let skipped = skip.min(data.len() as u64);
            skip -= skipped;
            data = data.slice(usize::try_from(skipped).unwrap_or(data.len())..);
            if data.is_empty() {
                continue;
            }
            from += data.len() as u64;
            if sink.send(data).await.is_err() {
                break Ended::Unwanted;
            }
        };
        ask.from = from;
        Ok(ended)
    }
}

/// How many bytes of the answer were handed over already: servers may ignore `Range`.
fn start(
    server: &Server,
    ask: &Ask,
    status: StatusCode,
    headers: &HeaderMap,
    size: u64,
) -> Result<u64, RegistryError> {
    let number = |text: &str| text.trim().parse::<u64>().ok();
    let header = |name| {
        headers
            .get(name)
            .and_then(|value: &hyper::header::HeaderValue| value.to_str().ok())
    };
    if status == StatusCode::PARTIAL_CONTENT && ask.from > 0 {
        let range = header(CONTENT_RANGE).and_then(|range| range.trim().strip_prefix("bytes "));
        let first = range.and_then(|range| number(range.split('-').next()?));
        return match first {
            Some(first) if first == ask.from => Ok(0),
            _ => Err(protocol(
                server,
                ask,
                format!(
                    "asked for bytes from {} on, it answers with {range:?}",
                    ask.from
                ),
            )),
        };
    }
    match header(CONTENT_LENGTH).and_then(number) {
        Some(length) if length != size => Err(protocol(
            server,
            ask,
            format!("it has {length} bytes, and the manifest says {size}"),
        )),
        _ => Ok(ask.from),
    }
}
