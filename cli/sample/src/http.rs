//! One request, one answer, close: as much of HTTP/1.1 as a browser, curl and a probe need.

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::addresses;

/// A client that sends nothing, or reads nothing, holds a thread no longer than this.
const PATIENCE: Duration = Duration::from_secs(10);
/// No request line and headers need more.
const MAX_REQUEST: u64 = 16 * 1024;

/// Answers one connection and writes its line of the access log.
pub(crate) fn answer(stream: TcpStream, peer: SocketAddr) {
    let outcome = converse(&stream).unwrap_or_else(|error| format!("- {error}"));
    // One write per line: lines of several threads do not mix.
    let line = format!("{} {outcome}\n", peer.ip().to_canonical());
    if let Err(error) = io::stdout().lock().write_all(line.as_bytes()) {
        eprintln!("access log: {error}");
    }
}

/// Returns what the access log says: the request line and the status.
fn converse(stream: &TcpStream) -> io::Result<String> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let request = read_request(stream)?;
    let response = respond(&request, || page(stream.local_addr().ok()));
    let mut writer = stream;
    writer.write_all(response.text.as_bytes())?;
    // A loud name of what was asked, whatever bytes it holds: the log stays one line.
    Ok(format!("{:?} {}", request.trim_end(), response.status))
}

/// The request line; the headers are read up to the empty line, so that the client is not cut off in its writing.
fn read_request(stream: &TcpStream) -> io::Result<String> {
    let mut reader = BufReader::new(stream.take(MAX_REQUEST));
    let mut first = Vec::new();
    reader.read_until(b'\n', &mut first)?;
    let mut line = Vec::new();
    loop {
        line.clear();
        if reader.read_until(b'\n', &mut line)? == 0 || line == b"\r\n" || line == b"\n" {
            return Ok(String::from_utf8_lossy(&first).into_owned());
        }
    }
}

struct Response {
    status: u16,
    text: String,
}

fn respond(request: &str, page: impl FnOnce() -> String) -> Response {
    let words: Vec<&str> = request.split_whitespace().collect();
    let (status, reason, body) = match words[..] {
        ["GET" | "HEAD", _, version] if version.starts_with("HTTP/1.") => (200, "OK", page()),
        [_, _, version] if version.starts_with("HTTP/1.") => (
            405,
            "Method Not Allowed",
            "only GET and HEAD are served here\n".to_owned(),
        ),
        _ => (
            400,
            "Bad Request",
            "this is not an HTTP/1 request\n".to_owned(),
        ),
    };
    let head = format!(
        "HTTP/1.1 {status} {reason}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\nConnection: close\r\n{}\r\n",
        body.len(),
        if status == 405 {
            "Allow: GET, HEAD\r\n"
        } else {
            ""
        },
    );
    let body = if words.first() == Some(&"HEAD") {
        ""
    } else {
        &body
    };
    Response {
        status,
        text: head + body,
    }
}

/// What the sample has to say.
fn page(local: Option<SocketAddr>) -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = match name.trim() {
        "" => std::env::var("HOSTNAME").unwrap_or_else(|_| "unnamed".to_owned()),
        name => name.to_owned(),
    };
    let list: Vec<String> = addresses::own().iter().map(ToString::to_string).collect();
    let list = if list.is_empty() {
        "none".to_owned()
    } else {
        list.join(", ")
    };
    let asked = local.map_or_else(String::new, |a| {
        format!(
            "you asked: {}\n",
            SocketAddr::new(a.ip().to_canonical(), a.port())
        )
    });
    format!("Hello from a Davit pod.\nname: {name}\naddresses: {list}\n{asked}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_get_is_answered_with_the_page_and_its_exact_length() {
        let response = respond("GET / HTTP/1.1\r\n", || "hello\n".to_owned());
        assert_eq!(response.status, 200);
        assert!(
            response.text.contains("\r\nContent-Length: 6\r\n"),
            "{}",
            response.text
        );
        assert!(
            response.text.ends_with("\r\n\r\nhello\n"),
            "{}",
            response.text
        );
    }

    #[test]
    fn a_head_has_the_length_and_no_body() {
        let response = respond("HEAD / HTTP/1.0\r\n", || "hello\n".to_owned());
        assert!(response.text.contains("Content-Length: 6\r\n"));
        assert!(response.text.ends_with("\r\n\r\n"));
    }

    #[test]
    fn other_methods_and_other_protocols_are_refused() {
        assert_eq!(respond("POST / HTTP/1.1\r\n", String::new).status, 405);
        for request in ["", "GET /", "\u{16}\u{3}\u{1}", "GET / HTTP/2.0"] {
            assert_eq!(respond(request, String::new).status, 400, "{request:?}");
        }
    }
}
