//! What every request has in common: a span with its name, one log line with its outcome, and a panic that ends the
//! request instead of the connection. Requests themselves are never logged: they hold credentials and environments.

use std::any::Any;
use std::convert::Infallible;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use futures_util::FutureExt;
use tonic::body::Body;
use tonic::codegen::http::{Request, Response};
use tonic::{Code, Status};
use tower::{Layer, Service};
use tracing::{Instrument, debug, error, info, info_span};

use crate::logging::panic_text;
use crate::metrics::requests::Open;

/// The layer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Requests;

/// The layer around a service.
#[derive(Debug, Clone)]
pub(super) struct RequestService<S>(S);

impl<S> Layer<S> for Requests {
    type Service = RequestService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        RequestService(inner)
    }
}

impl<S> Service<Request<Body>> for RequestService<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let op = request.uri().path().rsplit('/').next().unwrap_or_default();
        let open = Open::new(op);
        let span = info_span!("rpc", op);
        let handler = self.0.call(request);
        Box::pin(observe(handler, open).instrument(span))
    }
}

async fn observe<F>(handler: F, open: Open) -> Result<Response<Body>, Infallible>
where
    F: Future<Output = Result<Response<Body>, Infallible>>,
{
    let watch = Watch {
        start: Instant::now(),
        answered: false,
        open,
    };
    let response = match AssertUnwindSafe(handler).catch_unwind().await {
        Ok(answer) => answer?,
        Err(panic) => panicked(&*panic),
    };
    watch.answered(&response);
    Ok(response)
}

/// The panic hook has logged place and backtrace; the client learns that it is our fault.
fn panicked(panic: &(dyn Any + Send)) -> Response<Body> {
    Status::internal(format!("a bug in davit-cri: {}", panic_text(panic))).into_http()
}

/// Sees to it that each request leaves one log line, also when the client goes away and the handler is dropped.
struct Watch {
    start: Instant,
    answered: bool,
    open: Open,
}

impl Watch {
    fn answered(mut self, response: &Response<Body>) {
        self.answered = true;
        let ms = self.start.elapsed().as_millis();
        let status = Status::from_header_map(response.headers()).unwrap_or_else(|| Status::ok(""));
        let (code, message) = (status.code(), status.message());
        self.open.end(code, self.start.elapsed());
        match code {
            Code::Ok => debug!(ms, "answered"),
            Code::Internal | Code::Unknown | Code::DataLoss => {
                error!(ms, ?code, message, "request failed")
            }
            // The kubelet asks for statistics every few seconds, whatever it was told.
            Code::Unimplemented => debug!(ms, ?code, message, "request refused"),
            _ => info!(ms, ?code, message, "request refused"),
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if !self.answered && !std::thread::panicking() {
            self.open.end(Code::Cancelled, self.start.elapsed());
            let ms = self.start.elapsed().as_millis();
            info!(
                ms,
                "the client left before the answer; the operation goes on"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_becomes_an_internal_error() {
        let answer = observe(async { panic!("at the disco") }, Open::new("Test")).await;
        let response = answer.expect("infallible");
        let status = Status::from_header_map(response.headers()).expect("a status in the headers");
        assert_eq!(
            (status.code(), status.message()),
            (Code::Internal, "a bug in davit-cri: at the disco")
        );
    }
}
