//! A client's own deadline (`grpc-timeout`), answered with DEADLINE_EXCEEDED, as Go's servers do it; tonic would say
//! CANCELLED. The operation itself goes on: it runs in a task of its own, and an identical retry adopts it.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http::{Request, Response};
use tower::{Layer, Service};

/// How much earlier than the client the answer is given up, so that tonic's own timer does not win.
const EARLIER: Duration = Duration::from_millis(2);

/// The layer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Deadlines;

/// The layer around a service.
#[derive(Debug, Clone)]
pub(super) struct DeadlineService<S>(S);

impl<S> Layer<S> for Deadlines {
    type Service = DeadlineService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        DeadlineService(inner)
    }
}

impl<S> Service<Request<Body>> for DeadlineService<S>
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
        let limit = request.headers().get("grpc-timeout");
        let limit = limit.and_then(|value| parse(value.to_str().ok()?));
        let handler = self.0.call(request);
        let Some(limit) = limit else {
            return Box::pin(handler);
        };
        Box::pin(async move {
            match tokio::time::timeout(limit.saturating_sub(EARLIER), handler).await {
                Ok(answer) => answer,
                Err(_) => {
                    let text = "the client's deadline passed; the operation goes on, ask again";
                    Ok(Status::deadline_exceeded(text).into_http())
                }
            }
        })
    }
}

/// `1H`, `20M`, `3S`, `1m`, `1u`, `1n`: at most eight digits and a unit
/// (<https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>). tonic refuses what makes no sense.
fn parse(text: &str) -> Option<Duration> {
    let unit = text.len().checked_sub(1)?;
    let (digits, unit) = text.split_at_checked(unit)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(number * 3600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A service that never answers.
    #[derive(Clone)]
    struct Never;

    impl Service<Request<Body>> for Never {
        type Response = Response<Body>;
        type Error = Infallible;
        type Future = std::future::Pending<Result<Response<Body>, Infallible>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, _: Request<Body>) -> Self::Future {
            std::future::pending()
        }
    }

    fn request(timeout: Option<&'static str>) -> Request<Body> {
        let mut request = Request::new(Body::empty());
        if let Some(timeout) = timeout {
            let value = tonic::codegen::http::HeaderValue::from_static(timeout);
            request.headers_mut().insert("grpc-timeout", value);
        }
        request
    }

    #[tokio::test]
    async fn a_deadline_that_passes_is_deadline_exceeded() {
        let Ok(answer) = Deadlines.layer(Never).call(request(Some("1m"))).await;
        let status = Status::from_header_map(answer.headers()).expect("a status");
        assert_eq!(status.code(), tonic::Code::DeadlineExceeded);
    }

    #[tokio::test]
    async fn without_a_deadline_and_before_it_the_answer_is_waited_for() {
        for timeout in [None, Some("1H"), Some("nonsense")] {
            let answer = Deadlines.layer(Never).call(request(timeout));
            assert!(futures_util::FutureExt::now_or_never(answer).is_none());
        }
    }

    #[test]
    fn a_timeout_is_up_to_eight_digits_and_a_unit() {
        for (text, millis) in [
            ("1H", Some(3_600_000)),
            ("2M", Some(120_000)),
            ("3S", Some(3000)),
            ("999928u", Some(999)),
            ("1m", Some(1)),
            ("99999999n", Some(99)),
            ("100000000n", None),
            ("", None),
            ("m", None),
            ("1", None),
            ("-1S", None),
            ("1é", None),
        ] {
            let parsed = parse(text).map(|time| time.as_millis());
            assert_eq!(parsed, millis, "{text:?}");
        }
    }
}
