//! As much of HTTP/1.1 as a scrape needs: one GET, one answer, the connection closed.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

/// How long a client may take, for its request and for reading the answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a request may be.
const HEAD: usize = 8 * 1024;
/// How many clients are served at a time; others wait.
const CLIENTS: usize = 8;

/// Answers GET /metrics with what `page` says, for ever.
pub(super) async fn serve(
    listener: TcpListener,
    page: impl Fn() -> String + Clone + Send + 'static,
) {
    let places = Arc::new(Semaphore::new(CLIENTS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                let page = page.clone();
                tokio::spawn(async move {
                    // A client that is too slow or gone has no answer; there is nobody to tell.
                    tokio::time::timeout(PATIENCE, answer(stream, page))
                        .await
                        .ok();
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "accept a connection for /metrics");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

async fn answer(mut stream: TcpStream, page: impl Fn() -> String) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") && head.len() < HEAD {
        if stream.read_buf(&mut head).await? == 0 {
            return Ok(());
        }
    }
    let (status, kind, body) = match request(&head) {
        Some("/metrics") => ("200 OK", "text/plain; version=0.0.4; charset=utf-8", page()),
        Some(_) => (
            "404 Not Found",
            "text/plain",
            "here is only /metrics\n".into(),
        ),
        None => (
            "400 Bad Request",
            "text/plain",
            "only GET /metrics\n".into(),
        ),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body.as_bytes()).await?;
    stream.shutdown().await
}

/// The path of a GET, without its query.
fn request(head: &[u8]) -> Option<&str> {
    let line = head.split(|byte| *byte == b'\r').next()?;
    let mut words = std::str::from_utf8(line).ok()?.split(' ');
    let (method, target, version) = (words.next()?, words.next()?, words.next()?);
    let fits = method == "GET" && version.starts_with("HTTP/1.") && words.next().is_none();
    fits.then(|| target.split('?').next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_get_is_a_request() {
        assert_eq!(
            request(b"GET /metrics?x=1 HTTP/1.1\r\nHost: a\r\n\r\n"),
            Some("/metrics")
        );
        assert_eq!(request(b"POST /metrics HTTP/1.1\r\n\r\n"), None);
        assert_eq!(request(b"PRI * HTTP/2.0\r\n\r\n"), None);
        assert_eq!(request(b"\xff\xfe\r\n\r\n"), None);
        assert_eq!(request(b""), None);
    }
}
