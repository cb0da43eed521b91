//! One request to one host: authorised, redirected, repeated.
//!
//! ```text
//!  send ─ 2xx ──────────────────────────────▶ answer
//!   ▲  ├─ 3xx ─▶ follow; other hosts see no credentials
//!   │  ├─ 401 ─▶ token or password, once more
//!   │  ├─ 429, 5xx, broken connection ─▶ wait ─┐
//!   │  └─ 403, 404, … ─▶ error                  │
//!   └───────────────────────────────────────────┘
//! ```

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{
    ACCEPT, AUTHORIZATION, HeaderValue, LOCATION, PROXY_AUTHORIZATION, RANGE, RETRY_AFTER,
    USER_AGENT,
};
use hyper::{Method, Request, Response, StatusCode, Uri};

use super::challenge::challenge;
use super::error::{RegistryError, causes};
use super::hosts::Host;
use super::source::Source;
use super::transport::Transport;
use super::{proxy, retry_after};

/// How many redirects are followed.
const REDIRECTS: usize = 10;
/// How much of an error's text is read.
const ERROR_BODY: usize = 64 * 1024;
/// How often a connection that does not come about is tried: the next mirror, or the caller, may know better.
const CONNECTS: u32 = 2;

/// A host with its connections.
pub(super) struct Server {
    pub(super) host: Host,
    pub(super) transport: Transport,
}

/// What is asked for.
#[derive(Clone)]
pub(super) struct Ask {
    /// What stands after the host's prefix.
    pub(super) path: String,
    /// The media types that are understood.
    pub(super) accept: Option<HeaderValue>,
    /// From which byte on.
    pub(super) from: u64,
    /// For messages: `manifest of library/busybox:latest`.
    pub(super) target: String,
}

/// Why an attempt did not succeed, and whether another one might.
enum Failure {
    Final(RegistryError),
    Again {
        error: RegistryError,
        after: Option<Duration>,
        most: u32,
    },
}

impl From<RegistryError> for Failure {
    fn from(error: RegistryError) -> Failure {
        Failure::Final(error)
    }
}

impl Source {
    /// Asks until there is an answer of success, or no hope of one.
    pub(super) async fn get(
        &self,
        server: &Server,
        ask: &Ask,
    ) -> Result<Response<Incoming>, RegistryError> {
        let mut attempt = 1;
        loop {
            match self.attempt(server, ask).await {
                Ok(response) => return Ok(response),
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Again { error, .. }) if attempt >= self.retry.attempts => {
                    return Err(error);
                }
                Err(Failure::Again { error, most, .. }) if attempt >= most => return Err(error),
                Err(Failure::Again { error, after, .. }) => {
                    let delay = self.retry.delay(attempt, after);
                    tracing::debug!(%error, attempt, ?delay, "the request is repeated");
                    tokio::time::sleep(delay).await;
                    attempt += 1;
                }
            }
        }
    }

    /// Asks once; answers a challenge if there is one.
    async fn attempt(&self, server: &Server, ask: &Ask) -> Result<Response<Incoming>, Failure> {
        let authorization = self.authorization(server).await;
        let response = self.follow(server, ask, authorization.clone()).await?;
        if response.status() != StatusCode::UNAUTHORIZED {
            return self.judge(server, ask, response).await;
        }
        let Some(challenge) = challenge(response.headers()) else {
            return self.judge(server, ask, response).await;
        };
        drop(response);
        let renewed = self
            .authorize(server, ask, &challenge, authorization.as_ref())
            .await?;
        let response = self.follow(server, ask, Some(renewed)).await?;
        self.judge(server, ask, response).await
    }

    /// Sends the request, and follows where it leads.
    async fn follow(
        &self,
        server: &Server,
        ask: &Ask,
        authorization: Option<HeaderValue>,
    ) -> Result<Response<Incoming>, Failure> {
        let host = &server.host;
        let mut url = format!(
            "{}://{}{}{}",
            host.scheme, host.authority, host.prefix, ask.path
        );
        if !host.upstream {
            // Proxies for several registries go by this, as containerd sends it.
            url.push_str(&format!("?ns={}", self.reference.registry()));
        }
        let mut uri: Uri = url
            .parse()
            .map_err(|error| protocol(server, ask, format!("{url:?} is not a URL: {error}")))?;
        let home = uri.authority().cloned();
        for _ in 0..REDIRECTS {
            let mut request = Request::builder()
                .method(Method::GET)
                .uri(&uri)
                .header(USER_AGENT, super::AGENT);
            if uri.authority() == home.as_ref() {
                // Secrets are for the host that they were given for, wherever it sends us.
                request = host.headers.iter().fold(request, |request, (name, value)| {
                    request.header(name, value)
                });
                if let Some(authorization) = &authorization
                    && !host.headers.iter().any(|(name, _)| name == AUTHORIZATION)
                {
                    request = request.header(AUTHORIZATION, authorization);
                }
            }
            if let Some(accept) = &ask.accept {
                request = request.header(ACCEPT, accept);
            }
            if ask.from > 0 {
                request = request.header(RANGE, format!("bytes={}-", ask.from));
            }
            let request = request
                .body(Full::new(Bytes::new()))
                .map_err(|error| protocol(server, ask, error.to_string()))?;
            let response = self.send(server, ask, request).await?;
            let redirected = matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308);
            let Some(location) = response.headers().get(LOCATION).filter(|_| redirected) else {
                return Ok(response);
            };
            uri = resolve(&uri, location).map_err(|reason| protocol(server, ask, reason))?;
        }
        Err(protocol(server, ask, format!("more than {REDIRECTS} redirects")).into())
    }

    /// Sends one request and waits for the head of its answer.
    pub(super) async fn send(
        &self,
        server: &Server,
        ask: &Ask,
        mut request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, Unsent> {
        let asked = peer(request.uri());
        if let Some(password) = proxy::authorization(request.uri()) {
            request.headers_mut().insert(PROXY_AUTHORIZATION, password);
        }
        let answer =
            tokio::time::timeout(self.progress_timeout, server.transport.request(request)).await;
        match answer {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) if error.is_connect() => Err(Unsent {
                error: RegistryError::Unreachable {
                    host: asked,
                    cause: causes(&error),
                },
                most: CONNECTS,
            }),
            Ok(Err(error)) => {
                let target = ask.target.clone();
                Err(Unsent {
                    error: RegistryError::Connection {
                        host: asked,
                        target,
                        cause: causes(&error),
                    },
                    most: u32::MAX,
                })
            }
            Err(_) => {
                let (target, seconds) = (ask.target.clone(), self.progress_timeout.as_secs());
                Err(Unsent {
                    error: RegistryError::Stalled {
                        host: asked,
                        target,
                        seconds,
                    },
                    most: 1,
                })
            }
        }
    }

    /// Tells answers from refusals.
    async fn judge(
        &self,
        server: &Server,
        ask: &Ask,
        response: Response<Incoming>,
    ) -> Result<Response<Incoming>, Failure> {
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let after = retry_after(&response);
        let detail = self.words(response).await;
        let (host, target) = (server.host.authority.clone(), ask.target.clone());
        Err(match status.as_u16() {
            401 | 403 => {
                let how = if self.has_credentials(server) {
                    "the credentials were refused"
                } else {
                    "no credentials were given"
                };
                RegistryError::Unauthorized {
                    host,
                    target,
                    reason: format!("HTTP status {} ({how}){detail}", status.as_u16()),
                }
                .into()
            }
            404 => RegistryError::NotFound {
                host,
                target,
                detail,
            }
            .into(),
            status @ (408 | 429 | 500 | 502..=504) => Failure::Again {
                error: RegistryError::Status {
                    host,
                    target,
                    status,
                    detail,
                },
                after,
                most: u32::MAX,
            },
            status => RegistryError::Status {
                host,
                target,
                status,
                detail,
            }
            .into(),
        })
    }

    /// A registry's own words about an error: `: MANIFEST_UNKNOWN: manifest unknown`.
    async fn words(&self, response: Response<Incoming>) -> String {
        #[derive(serde::Deserialize)]
        struct Errors {
            errors: Vec<One>,
        }
        #[derive(serde::Deserialize)]
        struct One {
            code: Option<String>,
            message: Option<String>,
        }
        let body = Limited::new(response.into_body(), ERROR_BODY).collect();
        let Ok(Ok(body)) = tokio::time::timeout(Duration::from_secs(10), body).await else {
            return String::new();
        };
        let Ok(errors) = serde_json::from_slice::<Errors>(&body.to_bytes()) else {
            return String::new();
        };
        let Some(first) = errors.errors.into_iter().next() else {
            return String::new();
        };
        let words: Vec<String> = [first.code, first.message]
            .into_iter()
            .flatten()
            .filter(|word| !word.is_empty())
            .collect();
        // A line of it, with nothing in it that could forge another one in a log.
        let line: String = words
            .join(": ")
            .chars()
            .filter(|c| !c.is_control())
            .take(300)
            .collect();
        if line.is_empty() {
            line
        } else {
            format!(": {line}")
        }
    }
}

/// A failure to send, and how often that is tried.
pub(super) struct Unsent {
    pub(super) error: RegistryError,
    most: u32,
}

impl From<Unsent> for Failure {
    fn from(failure: Unsent) -> Failure {
        Failure::Again {
            error: failure.error,
            after: None,
            most: failure.most,
        }
    }
}

/// `host:port`, with the port that the scheme implies.
pub(super) fn peer(uri: &Uri) -> String {
    let host = uri.host().unwrap_or_default();
    let port = uri
        .port_u16()
        .unwrap_or(if uri.scheme_str() == Some("http") {
            80
        } else {
            443
        });
    format!("{host}:{port}")
}

/// Where a redirect leads. Never from https to http.
fn resolve(from: &Uri, location: &HeaderValue) -> Result<Uri, String> {
    let text = location
        .to_str()
        .map_err(|_| "a redirect to something that is not a URL".to_owned())?;
    let bad = |reason: &dyn std::fmt::Display| format!("a redirect to {text:?}: {reason}");
    let scheme = from.scheme_str().unwrap_or("https");
    let authority = from
        .authority()
        .map(ToString::to_string)
        .unwrap_or_default();
    let absolute = if text.starts_with("//") {
        format!("{scheme}:{text}")
    } else if text.starts_with('/') {
        format!("{scheme}://{authority}{text}")
    } else if text.contains("://") {
        text.to_owned()
    } else {
        let directory = from
            .path()
            .rsplit_once('/')
            .map_or("", |(directory, _)| directory);
        format!("{scheme}://{authority}{directory}/{text}")
    };
    let uri: Uri = absolute.parse().map_err(|error| bad(&error))?;
    match uri.scheme_str() {
        Some("https") => Ok(uri),
        Some("http") if scheme == "http" => Ok(uri),
        Some("http") => Err(bad(&"it leaves https")),
        _ => Err(bad(&"neither http nor https")),
    }
}

/// How long the server wants us to wait.
fn retry_after(response: &Response<Incoming>) -> Option<Duration> {
    let value = response.headers().get(RETRY_AFTER)?.to_str().ok()?;
    retry_after::parse(value, SystemTime::now())
}

pub(super) fn protocol(server: &Server, ask: &Ask, reason: String) -> RegistryError {
    RegistryError::Protocol {
        host: server.host.authority.clone(),
        target: ask.target.clone(),
        reason,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_resolve_like_links_and_never_leave_https() {
        for (from, location, to) in [
            (
                "https://a.test/v2/x/blobs/y",
                "https://b.test/z?sig=1",
                Ok("https://b.test/z?sig=1"),
            ),
            ("https://a.test/v2/x/blobs/y", "/z", Ok("https://a.test/z")),
            (
                "https://a.test/v2/x/blobs/y",
                "z",
                Ok("https://a.test/v2/x/blobs/z"),
            ),
            (
                "https://a.test/v2/x/blobs/y",
                "//b.test/z",
                Ok("https://b.test/z"),
            ),
            ("http://a.test/x", "http://b.test/z", Ok("http://b.test/z")),
            (
                "http://a.test/x",
                "https://b.test/z",
                Ok("https://b.test/z"),
            ),
            ("https://a.test/x", "http://a.test/z", Err("leaves https")),
            ("https://a.test/x", "file:///etc/passwd", Err("redirect to")),
            ("https://a.test/x", "ftp://b.test/x", Err("neither http")),
            ("https://a.test/x", "https://[", Err("redirect to")),
        ] {
            let resolved = resolve(&from.parse().unwrap(), &HeaderValue::from_static(location));
            match to {
                Ok(to) => assert_eq!(resolved.unwrap().to_string(), to),
                Err(reason) => assert!(
                    resolved.clone().unwrap_err().contains(reason),
                    "{resolved:?}"
                ),
            }
        }
    }

    #[test]
    fn a_peer_is_named_with_its_port() {
        assert_eq!(peer(&"https://a.test/x".parse().unwrap()), "a.test:443");
        assert_eq!(peer(&"http://[::1]/x".parse().unwrap()), "[::1]:80");
        assert_eq!(
            peer(&"http://a.test:5000/x".parse().unwrap()),
            "a.test:5000"
        );
    }
}
