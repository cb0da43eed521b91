//! HTTP/1.1 in front: paths, tokens, the choice of a protocol, and the upgrade.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CONNECTION, HeaderMap, HeaderName, HeaderValue, UPGRADE};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::tokens::Tokens;
use super::{Session, remote, spdy, tunnel, websocket, ws_remote};
use crate::config::StreamingConfig;
use crate::node::Node;

/// What every connection needs.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) tokens: Arc<Tokens>,
    pub(super) node: Node,
    pub(super) config: StreamingConfig,
}

/// How long a client may take for its request, or for TLS.
const REQUEST: Duration = Duration::from_secs(30);

/// An error of accept(2), such as EMFILE, is here to stay for a moment.
const PAUSE: Duration = Duration::from_millis(100);

const STREAM_PROTOCOL: HeaderName = HeaderName::from_static("x-stream-protocol-version");
const ACCEPTED: HeaderName = HeaderName::from_static("x-accepted-stream-protocol-versions");
const WS_PROTOCOL: HeaderName = HeaderName::from_static("sec-websocket-protocol");
const WS_KEY: HeaderName = HeaderName::from_static("sec-websocket-key");
const WS_ACCEPT: HeaderName = HeaderName::from_static("sec-websocket-accept");

/// SPDY's versions of exec and attach, newest first.
const REMOTE: [&str; 4] = [
    "v4.channel.k8s.io",
    "v3.channel.k8s.io",
    "v2.channel.k8s.io",
    "channel.k8s.io",
];
const FORWARD: [&str; 1] = ["portforward.k8s.io"];

type Answer = Response<Full<Bytes>>;

/// Accepts until the daemon ends.
pub(super) async fn accept(listener: TcpListener, tls: Option<TlsAcceptor>, server: Arc<Server>) {
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::error!(%error, "accept a streaming connection");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        // Keystrokes do not wait for company.
        stream.set_nodelay(true).ok();
        let (tls, server) = (tls.clone(), Arc::clone(&server));
        tokio::spawn(async move {
            match tls {
                None => connection(stream, server).await,
                Some(tls) => match tokio::time::timeout(REQUEST, tls.accept(stream)).await {
                    Ok(Ok(stream)) => connection(stream, server).await,
                    Ok(Err(error)) => tracing::debug!(%error, "TLS of a streaming connection"),
                    Err(_) => {}
                },
            }
        });
    }
}

async fn connection(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    server: Arc<Server>,
) {
    let service = service_fn(move |request| {
        let server = Arc::clone(&server);
        async move { Ok::<_, Infallible>(answer(&server, request)) }
    });
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    if let Err(error) = served.await {
        tracing::debug!(%error, "a streaming connection");
    }
}

fn answer(server: &Arc<Server>, request: Request<Incoming>) -> Answer {
    if !matches!(*request.method(), Method::GET | Method::POST) {
        return text(StatusCode::METHOD_NOT_ALLOWED, "only GET and POST".into());
    }
    let Some(session) = session(server, request.uri().path()) else {
        return text(
            StatusCode::NOT_FOUND,
            "404: no such token, or it was used or is older than a minute".into(),
        );
    };
    let headers = request.headers();
    let upgrade = headers.get(UPGRADE).and_then(|value| value.to_str().ok());
    match upgrade.map(str::to_ascii_lowercase).as_deref() {
        Some("spdy/3.1") => over_spdy(server, session, request),
        Some("websocket") => over_websocket(server, session, request),
        _ => text(
            StatusCode::BAD_REQUEST,
            "unable to upgrade: missing upgrade headers in request: Upgrade: SPDY/3.1 or websocket"
                .into(),
        ),
    }
}

/// The session of `/exec/<token>`, `/attach/<token>` or `/portforward/<token>`; the token is used up.
fn session(server: &Server, path: &str) -> Option<Session> {
    let (kind, token) = path.strip_prefix('/')?.split_once('/')?;
    server
        .tokens
        .take(token)
        .filter(|session| session.path() == kind)
}

fn over_spdy(server: &Arc<Server>, session: Session, request: Request<Incoming>) -> Answer {
    let supported: &[&'static str] = match session {
        Session::PortForward { .. } => &FORWARD,
        _ => &REMOTE,
    };
    let offered = words(request.headers(), &STREAM_PROTOCOL);
    if offered.is_empty() {
        let wanted = "unable to upgrade: X-Stream-Protocol-Version header is required";
        return text(StatusCode::BAD_REQUEST, wanted.into());
    }
    let Some(protocol) = first(&offered, supported) else {
        let problem = format!(
            "unable to upgrade: unable to negotiate protocol: client supports {offered:?}, server accepts {supported:?}"
        );
        let mut refused = text(StatusCode::FORBIDDEN, problem);
        for one in supported {
            refused
                .headers_mut()
                .append(ACCEPTED, HeaderValue::from_static(one));
        }
        return refused;
    };
    let config = server.config.clone();
    let node = server.node.clone();
    upgraded(&server.node, request, move |io| async move {
        let connection = spdy::Connection::serve(io, config.idle_timeout);
        match session {
            Session::PortForward { pod, .. } => {
                super::forward::over_spdy(&node, pod, connection, config.stream_creation_timeout)
                    .await;
            }
            session => {
                remote::over_spdy(
                    &node,
                    session,
                    protocol,
                    connection,
                    config.stream_creation_timeout,
                )
                .await
            }
        }
    });
    let mut answer = switching("SPDY/3.1");
    answer
        .headers_mut()
        .insert(STREAM_PROTOCOL, HeaderValue::from_static(protocol));
    answer
}

fn over_websocket(server: &Arc<Server>, session: Session, request: Request<Incoming>) -> Answer {
    let headers = request.headers();
    let Some(key) = headers.get(WS_KEY) else {
        return text(
            StatusCode::BAD_REQUEST,
            "Sec-WebSocket-Key is missing".into(),
        );
    };
    let accept = websocket::accept_key(key.as_bytes());
    let supported: &[&'static str] = match session {
        Session::PortForward { .. } => &tunnel::PROTOCOLS,
        _ => &ws_remote::PROTOCOLS,
    };
    let offered = words(headers, &WS_PROTOCOL);
    let protocol = if offered.is_empty() {
        Some("")
    } else {
        first(&offered, supported)
    };
    let Some(protocol) = protocol else {
        let problem = format!(
            "unable to negotiate protocol: client supports {offered:?}, server accepts {supported:?}"
        );
        return text(StatusCode::FORBIDDEN, problem);
    };
    let (node, config) = (server.node.clone(), server.config.clone());
    upgraded(&server.node, request, move |io| async move {
        match session {
            Session::PortForward { pod, ports } => {
                tunnel::serve(&node, pod, ports, protocol, io, &config).await
            }
            session => ws_remote::serve(&node, session, protocol, io, config.idle_timeout).await,
        }
    });
    let mut answer = switching("websocket");
    let headers = answer.headers_mut();
    if let Ok(accept) = HeaderValue::from_str(&accept) {
        headers.insert(WS_ACCEPT, accept);
    }
    if !protocol.is_empty() {
        headers.insert(WS_PROTOCOL, HeaderValue::from_static(protocol));
    }
    answer
}

/// What remains of a connection after the upgrade.
pub(super) type Upgraded = TokioIo<hyper::upgrade::Upgraded>;

/// Serves the connection once the answer has gone out.
fn upgraded<F: Future<Output = ()> + Send + 'static>(
    node: &Node,
    mut request: Request<Incoming>,
    serve: impl FnOnce(Upgraded) -> F + Send + 'static,
) {
    let node = node.clone();
    tokio::spawn(async move {
        match hyper::upgrade::on(&mut request).await {
            Ok(io) => tokio::select! {
                () = serve(TokioIo::new(io)) => {}
                () = node.closing() => {}
            },
            Err(error) => tracing::debug!(%error, "upgrade of a streaming connection"),
        }
    });
}

fn switching(to: &'static str) -> Answer {
    let mut answer = Response::new(Full::default());
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = answer.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static(to));
    answer
}

/// The words of a header that may occur several times, or hold a list.
fn words(headers: &HeaderMap, name: &HeaderName) -> Vec<String> {
    let values = headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok());
    let words = values.flat_map(|value| value.split(',')).map(str::trim);
    words
        .filter(|word| !word.is_empty())
        .map(str::to_owned)
        .collect()
}

/// The first of the client's protocols that we have.
fn first(offered: &[String], supported: &[&'static str]) -> Option<&'static str> {
    let ours = |one: &String| supported.iter().copied().find(|have| have == one);
    offered.iter().find_map(ours)
}

fn text(status: StatusCode, text: String) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(text + "\n")));
    *answer.status_mut() = status;
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clients_order_decides() {
        let mut headers = HeaderMap::new();
        headers.append(
            STREAM_PROTOCOL,
            HeaderValue::from_static("v9.x, v3.channel.k8s.io"),
        );
        headers.append(
            STREAM_PROTOCOL,
            HeaderValue::from_static("v4.channel.k8s.io"),
        );
        let offered = words(&headers, &STREAM_PROTOCOL);
        assert_eq!(offered.len(), 3);
        assert_eq!(first(&offered, &REMOTE), Some("v3.channel.k8s.io"));
        assert_eq!(first(&offered, &FORWARD), None);
    }
}
