//! Proxies between this machine and a registry: `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY`, as curl has
//! them. What is encrypted goes through a tunnel (`CONNECT`); what is not is asked of the proxy itself.

use std::error::Error as StdError;
use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::OnceLock;
use std::task::{Context, Poll};

use hyper::Uri;
use hyper::header::HeaderValue;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::client::proxy::matcher::{Intercept, Matcher};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tower_service::Service;

type Failure = Box<dyn StdError + Send + Sync>;

/// Connects to a host, or to the proxy that stands for it.
#[derive(Clone, Debug)]
pub(super) struct Dialer(pub(super) HttpConnector);

/// The proxy for `uri`, if this process's environment names one. This machine is reached without, as with Go's clients.
fn proxy(uri: &Uri) -> Option<Intercept> {
    static ENVIRONMENT: OnceLock<Matcher> = OnceLock::new();
    let host = uri.host()?.trim_start_matches('[').trim_end_matches(']');
    let address = host.parse::<IpAddr>();
    if host == "localhost" || address.is_ok_and(|address| address.is_loopback()) {
        return None;
    }
    ENVIRONMENT.get_or_init(Matcher::from_env).intercept(uri)
}

/// The password for the proxy that plain requests to `uri` go to, if it wants one. Tunnels bring theirs when they are
/// dug.
pub(super) fn authorization(uri: &Uri) -> Option<HeaderValue> {
    if uri.scheme_str() != Some("http") {
        return None;
    }
    let mut value = proxy(uri)?.basic_auth()?.clone();
    value.set_sensitive(true);
    Some(value)
}

impl Service<Uri> for Dialer {
    type Response = Line;
    type Error = Failure;
    type Future = Pin<Box<dyn Future<Output = Result<Line, Failure>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        self.0.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        // The connector that is ready goes with the call.
        let fresh = self.0.clone();
        let mut tcp = std::mem::replace(&mut self.0, fresh);
        let Some(proxy) = proxy(&to) else {
            let connecting = tcp.call(to);
            return Box::pin(async move { Ok(Line::direct(connecting.await?)) });
        };
        let address = proxy.uri().clone();
        if to.scheme_str() == Some("https") {
            let mut tunnel = Tunnel::new(address.clone(), tcp);
            if let Some(password) = proxy.basic_auth() {
                tunnel = tunnel.with_auth(password.clone());
            }
            let digging = tunnel.call(to);
            return Box::pin(async move {
                let stream = digging.await.map_err(|error| through(&address, &error))?;
                Ok(Line::direct(stream))
            });
        }
        let connecting = tcp.call(address.clone());
        Box::pin(async move {
            let stream = connecting
                .await
                .map_err(|error| through(&address, &error))?;
            Ok(Line {
                stream,
                proxied: true,
            })
        })
    }
}

/// Names the proxy, since a person who reads of the registry alone would look at the wrong end.
fn through(proxy: &Uri, error: &(dyn StdError + 'static)) -> Failure {
    let (host, cause) = (super::request::peer(proxy), super::error::causes(error));
    format!("through the proxy {host}: {cause}").into()
}

/// A connection that knows whether a proxy reads the requests on it: those name the whole URL.
#[derive(Debug)]
pub(super) struct Line {
    stream: TokioIo<TcpStream>,
    proxied: bool,
}

impl Line {
    fn direct(stream: TokioIo<TcpStream>) -> Line {
        Line {
            stream,
            proxied: false,
        }
    }
}

impl Connection for Line {
    fn connected(&self) -> Connected {
        self.stream.connected().proxy(self.proxied)
    }
}

impl Read for Line {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl Write for Line {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, parts)
    }
}
