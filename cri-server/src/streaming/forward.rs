//! Port-forward over SPDY: pairs of an error and a data stream, many at once.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncWriteExt, DuplexStream};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::spdy::{Connection, Stream};
use crate::node::Node;

/// How long the client may go on after the pod has closed its side.
const GRACE: Duration = Duration::from_secs(1);

/// The most pairs that wait for their second stream.
const HALVES: usize = 256;

/// One stream of a pair that waits for the other.
struct Half {
    stream: Stream,
    is_data: bool,
    until: Instant,
}

/// Serves pairs until the client leaves.
pub(super) async fn over_spdy(
    node: &Node,
    pod: String,
    connection: Connection,
    patience: Duration,
) {
    let mut connection = connection;
    let resets = Arc::new(connection.resets());
    let mut halves: HashMap<String, Half> = HashMap::new();
    let mut pairs = JoinSet::new();
    loop {
        let oldest = halves.values().map(|half| half.until).min();
        let stream = tokio::select! {
            stream = connection.streams.recv() => stream,
            () = at(oldest) => {
                let late: Vec<String> = halves.iter().filter(|(_, half)| half.until <= Instant::now()).map(|(id, _)| id.clone()).collect();
                for id in late {
                    if let Some(half) = halves.remove(&id) {
                        connection.reset(half.stream.id).await;
                    }
                }
                continue;
            }
            Some(_) = pairs.join_next() => continue,
        };
        // Dropping the pairs closes their connections.
        let Some(stream) = stream else { return };
        let Some((id, is_data)) = place(&stream) else {
            connection.reset(stream.id).await;
            continue;
        };
        let until = Instant::now() + patience;
        match halves.remove(&id) {
            Some(half) if half.is_data != is_data => {
                let (data, error) = if is_data {
                    (stream, half.stream)
                } else {
                    (half.stream, stream)
                };
                let (node, pod, resets) = (node.clone(), pod.clone(), Arc::clone(&resets));
                pairs.spawn(async move {
                    let number = data.id;
                    let port = port(&data.headers.get("port").or(error.headers.get("port")));
                    if !pair(&node, &pod, port, data.io, error.io).await {
                        resets.reset(number).await;
                    }
                });
            }
            // The same half twice: the first one stays.
            Some(half) => {
                halves.insert(id, half);
                connection.reset(stream.id).await;
            }
            None if halves.len() >= HALVES => connection.reset(stream.id).await,
            None => {
                halves.insert(
                    id,
                    Half {
                        stream,
                        is_data,
                        until,
                    },
                );
            }
        }
    }
}

async fn at(when: Option<Instant>) {
    match when {
        Some(when) => tokio::time::sleep_until(when).await,
        None => std::future::pending().await,
    }
}

/// Which pair a stream belongs to. Old clients give no `requestid`: they open the error stream and then, with the next
/// id, the data stream.
fn place(stream: &Stream) -> Option<(String, bool)> {
    let is_data = match stream.headers.get("streamtype")? {
        "data" => true,
        "error" => false,
        _ => return None,
    };
    let id = match stream.headers.get("requestid") {
        Some(id) => id.to_owned(),
        None if is_data => format!("#{}", stream.id.checked_sub(2)?),
        None => format!("#{}", stream.id),
    };
    Some((id, is_data))
}

fn port(text: &Option<&str>) -> Result<u16, String> {
    let text = text.unwrap_or_default();
    match text.parse() {
        Ok(0) | Err(_) => Err(format!("port {text:?} is not a number from 1 to 65535")),
        Ok(port) => Ok(port),
    }
}

/// One connection; false where there was none, and the reason was said on the error stream.
pub(super) async fn pair(
    node: &Node,
    pod: &str,
    port: Result<u16, String>,
    data: DuplexStream,
    mut error: DuplexStream,
) -> bool {
    let connected = match port {
        Ok(port) => connect(node, pod, port).await,
        Err(text) => Err(text),
    };
    match connected {
        Ok(tcp) => {
            carry(data, tcp).await;
            true
        }
        Err(text) => {
            let text = format!("an error occurred forwarding a port: {text}");
            tracing::debug!(pod.id = pod, "{text}");
            // A client that is gone hears nothing.
            error.write_all(text.as_bytes()).await.ok();
            error.shutdown().await.ok();
            false
        }
    }
}

async fn connect(node: &Node, pod: &str, port: u16) -> Result<TcpStream, String> {
    let engine = node
        .engine()
        .map_err(|status| status.message().to_owned())?;
    engine
        .connect(pod, port)
        .await
        .map_err(|error| error.report())
}

/// Copies both ways. When the client has said all, the pod may still answer; when the pod has, the client gets a moment.
async fn carry(data: DuplexStream, mut tcp: TcpStream) {
    let (mut client_read, mut client_write) = tokio::io::split(data);
    let (mut pod_read, mut pod_write) = tcp.split();
    let up = async {
        // Either side may break off, which ends that direction.
        tokio::io::copy(&mut client_read, &mut pod_write)
            .await
            .map(drop)
            .ok();
        pod_write.shutdown().await.ok();
    };
    let down = async {
        tokio::io::copy(&mut pod_read, &mut client_write)
            .await
            .map(drop)
            .ok();
        client_write.shutdown().await.ok();
    };
    tokio::pin!(up);
    tokio::pin!(down);
    tokio::select! {
        () = &mut up => down.await,
        () = &mut down => {
            tokio::time::timeout(GRACE, up).await.ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::spdy::Headers;

    fn stream(id: u32, headers: &[(&str, &str)]) -> Stream {
        let pairs = headers
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Stream {
            id,
            headers: Headers(pairs.collect()),
            io: tokio::io::duplex(1).0,
        }
    }

    #[test]
    fn streams_pair_by_request_id_and_without_one_by_their_numbers() {
        let id = |one: Stream| place(&one).map(|(id, _)| id);
        assert_eq!(
            id(stream(1, &[("streamtype", "error"), ("requestid", "0")])),
            Some("0".into())
        );
        assert_eq!(id(stream(5, &[("streamtype", "error")])), Some("#5".into()));
        assert_eq!(id(stream(7, &[("streamtype", "data")])), Some("#5".into()));
        assert_eq!(id(stream(1, &[("streamtype", "data")])), None);
        assert_eq!(id(stream(1, &[("streamtype", "stdin")])), None);
    }

    #[test]
    fn ports_are_numbers_from_1_to_65535() {
        assert_eq!(port(&Some("80")), Ok(80));
        for bad in [
            None,
            Some(""),
            Some("0"),
            Some("65536"),
            Some("-1"),
            Some("http"),
        ] {
            assert!(port(&bad).is_err(), "{bad:?}");
        }
    }
}
